//! Preconditions of every permission: authorized accounts, existence of the source, the connection, and no ban.

use super::{Allowed, BANNED, Facts, Holdings, Unmet, Weighed};
use crate::core::evidence::{Evidence, LinkNow};
use crate::core::observation::{AuthResult, Identity, Transport};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::core::verdict::{self, Decided, Existence, Holding};

/// One precondition, and the remedy if it is not met.
pub(super) struct Precondition {
    pub(super) weighed: Weighed,
    pub(super) unmet: Option<Unmet>,
}

/// Evaluates all preconditions, in the order in which a person has to resolve them.
pub(super) fn of(facts: Facts<'_>, held: &Holdings<'_>) -> Vec<Precondition> {
    let mut all = accounts(facts);
    all.push(existence(facts.evidence));
    all.push(connection(facts.evidence));
    all.push(ban(held));
    all
}

/// The bot acts with its own account, so that one has to be valid. Other accounts of the source provide evidence about the
/// bot's permissions (a broadcaster's lists of moderators and VIPs); without them these permissions are unknown.
fn accounts(facts: Facts<'_>) -> Vec<Precondition> {
    let bot = Identity::named(format!("{}/bot", facts.platform));
    let of_bot = |identity: &Identity| acts(facts.platform, identity);
    let mut all = Vec::new();
    for (identity, check) in &facts.evidence.auth {
        let result = check.value.result;
        let expired = check.value.expires_at.filter(|end| facts.now >= Some(*end));
        all.push(match (result, of_bot(identity), expired) {
            (AuthResult::Valid, true, Some(end)) => unknown(
                format!("the token of {identity} expired at {end}, and was not checked since"),
                Some(check.at),
                Unmet::Unchecked(identity.clone()),
            ),
            (AuthResult::Valid, ..) => met(Some(check.at)),
            (_, true, _) => no(
                format!(
                    "a valid authorization of {identity}, which is {}",
                    check.value.state()
                ),
                Some(check.at),
                Unmet::Unauthorized(identity.clone()),
            ),
            (_, false, _) => unknown(
                format!(
                    "{identity} is {}, so the bot's permissions are no longer known",
                    check.value.state()
                ),
                Some(check.at),
                Unmet::Unauthorized(identity.clone()),
            ),
        });
    }
    if !facts.evidence.auth.keys().any(of_bot) {
        let text = format!("the authorization of {bot} was never checked");
        all.push(unknown(text, None, Unmet::Unchecked(bot)));
    }
    all
}

/// Whether the bot acts with `identity`: `twitch/bot`, or a guild's own `discord/bot:<guild id>`.
fn acts(platform: PlatformName, identity: &Identity) -> bool {
    let name = identity.as_str().strip_prefix(platform.as_str());
    let name = name.and_then(|name| name.strip_prefix("/bot"));
    name.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn existence(evidence: &Evidence) -> Precondition {
    let Decided { value, at, .. } = verdict::existence(evidence);
    match value {
        Existence::Gone => no(
            "the source itself: it does not exist on the platform, or that the bot is not in it".to_owned(),
            at,
            Unmet::Gone,
        ),
        Existence::Exists => met(at),
        Existence::Unknown => unknown(
            "whether the source exists was never checked".to_owned(),
            None,
            Unmet::NeverSeen,
        ),
    }
}

/// Actions are requests, so the request transport decides; the state of a push connection is not evidence about them.
fn connection(evidence: &Evidence) -> Precondition {
    let Some(link) = evidence.connection.get(&Transport::Api) else {
        return met(None);
    };
    match (link.now(), &link.failure) {
        (LinkNow::LinkFailure(failure), Some(dated)) => {
            let why = format!("{} ({})", failure.error.message, failure.error.code);
            if failure.refused {
                let text = format!("a connection that the platform accepts: {why}");
                no(text, Some(dated.at), Unmet::Refused)
            } else {
                let text = format!("the platform cannot be reached: {why}");
                unknown(text, Some(dated.at), Unmet::Unreachable)
            }
        }
        _ => met(None),
    }
}

/// A ban outranks every role and scope. While it is unknown, it is not assumed.
fn ban(held: &Holdings<'_>) -> Precondition {
    match held.get(BANNED) {
        Some((Holding::Yes, at)) => no(format!("not being {BANNED}"), *at, Unmet::Banned),
        _ => met(None),
    }
}

fn met(as_of: Option<Timestamp>) -> Precondition {
    Precondition {
        weighed: Weighed {
            allowed: Allowed::Yes,
            missing: Vec::new(),
            unknown: Vec::new(),
            as_of,
        },
        unmet: None,
    }
}

fn no(missing: String, as_of: Option<Timestamp>, unmet: Unmet) -> Precondition {
    Precondition {
        weighed: Weighed {
            allowed: Allowed::No,
            missing: vec![missing],
            unknown: Vec::new(),
            as_of,
        },
        unmet: Some(unmet),
    }
}

fn unknown(unknown: String, as_of: Option<Timestamp>, unmet: Unmet) -> Precondition {
    Precondition {
        weighed: Weighed {
            allowed: Allowed::Unknown,
            missing: Vec::new(),
            unknown: vec![unknown],
            as_of,
        },
        unmet: Some(unmet),
    }
}
