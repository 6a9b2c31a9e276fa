//! Whether the bot may do something at a source, and why.

use std::borrow::Cow;

use crate::core::evidence::{Evidence, LinkNow};
use crate::core::freshness::{Intervals, age_ms};
use crate::core::observation::{AuthResult, Transport};
use crate::core::permission::{self, Action, Allowed, Facts, Unmet};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::tokens::remedy;
use crate::view::answer::{Answer, AnswerItem};
use crate::view::found::{Check, Found, Unanswered};

/// The action or permission in question.
#[derive(Debug)]
pub enum Question {
    Action(&'static Action),
    Permission(String),
}

impl Question {
    fn name(&self) -> &str {
        match self {
            Self::Action(action) => action.name,
            Self::Permission(name) => name,
        }
    }
}

/// The maximum age of the evidence, and the current time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub intervals: Intervals,
    pub now: Timestamp,
}

/// Parses a permission, in capitals, or an action, in small letters; anything else is an error with a list.
pub fn question(platform: PlatformName, text: &str) -> Result<Question, Failure> {
    if let Some(action) = permission::action(platform, &text.to_ascii_lowercase().replace('_', "-")) {
        return Ok(Question::Action(action));
    }
    let is_permission = text.starts_with("scope:")
        || text.starts_with("badge:")
        || (!text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_' || byte.is_ascii_digit()));
    if is_permission {
        return Ok(Question::Permission(text.to_owned()));
    }
    let width = permission::actions(platform)
        .iter()
        .map(|action| action.name.len())
        .max()
        .unwrap_or(0);
    let list: Vec<_> = permission::actions(platform)
        .iter()
        .map(|action| format!("{:width$}  {}", action.name, action.about))
        .collect();
    Err(Failure::new(
        ExitCode::Usage,
        format!("`{text}` is not something that a bot does on {platform}"),
    )
    .hint(format!("use one of\n{}", list.join("\n")))
    .hint(platform.rules().permission_example))
}

/// Answers, and returns the failure of a check that the answer would otherwise conceal.
pub fn judge(found: &Found, question: &Question, limits: Limits) -> (AnswerItem, Option<Unanswered>) {
    let key = &found.document.key;
    let mut evidence = Cow::Borrowed(&found.document.knowledge.evidence);
    // An explicit age accepts stored evidence up to that age, even while the platform cannot be reached. A rejection is an
    // answer, and is not ignored.
    if limits.intervals.max_age.is_some() && is_unreachable(&evidence) {
        evidence.to_mut().connection.remove(&Transport::Api);
    }
    let facts = Facts {
        platform: key.platform(),
        evidence: &evidence,
        now: Some(limits.now),
    };
    let weighed = match question {
        Question::Action(action) => permission::can(facts, action),
        Question::Permission(name) => permission::holds(facts, name),
    };
    // Where no channel is configured, channel overwrites were not checked.
    let metadata = found.document.record().metadata;
    let whole_guild = metadata
        .get("permissionScope")
        .is_some_and(|scope| scope == "guild");
    let because = match (weighed.allowed, question) {
        (Allowed::Unknown, _) => weighed.unknown.join("; "),
        (Allowed::No, _) if weighed.unmet.is_some() => format!("not possible now: {}", about(question)),
        (Allowed::Yes, Question::Action(action)) => format!("allowed: {}", action.about),
        (Allowed::No, Question::Action(action)) => format!("not allowed: {}", action.about),
        (Allowed::Yes, Question::Permission(name)) => format!("the bot has {name}"),
        (Allowed::No, Question::Permission(name)) => format!("the bot does not have {name}"),
    };
    let because = if whole_guild && weighed.allowed == Allowed::Yes {
        format!("{because}, in the guild as a whole")
    } else {
        because
    };
    let age = weighed.as_of.map(|at| age_ms(at, limits.now));
    // The oldest input of a yes or no is an account's check; permissions that are older than their own interval are stale
    // although that would be fresh for an account.
    let is_confirmed = is_confirmed_revocation(found, &weighed);
    let stale = !is_confirmed && is_stale(found, &weighed, limits);
    let failed = found
        .check
        .as_ref()
        .filter(|_| !is_confirmed)
        .and_then(|check| concealed(check, &weighed, stale, limits));
    let (answer, because) = match weighed.allowed {
        Allowed::Unknown => (Answer::Unknown, because),
        _ if failed.is_some() => {
            let reason = failed.as_ref().map_or("", |failed| failed.reason.as_str());
            (Answer::Unknown, format!("the check failed: {reason}"))
        }
        _ if stale => (
            Answer::Unknown,
            format!("{because}, but that is too old to rely on"),
        ),
        Allowed::Yes => (Answer::Yes, because),
        Allowed::No => (Answer::No, because),
    };
    let item = AnswerItem {
        age_ms: age,
        missing: weighed.missing,
        not_covered: match (answer, question) {
            (Answer::Yes, Question::Action(action)) => permission::not_covered(key.platform(), action.name)
                .into_iter()
                .chain(permission::not_known(facts, action))
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        },
        fix: weighed.unmet.and_then(|unmet| fix(&unmet, found)),
        ..found.answer(format!("can:{}", question.name()), answer, because)
    };
    (item, failed)
}

fn is_unreachable(evidence: &Evidence) -> bool {
    let link = evidence.connection.get(&Transport::Api);
    link.is_some_and(|link| matches!(link.now(), LinkNow::LinkFailure(trouble) if !trouble.refused))
}

fn about(question: &Question) -> String {
    match question {
        Question::Action(action) => action.about.to_owned(),
        Question::Permission(name) => format!("using {name}"),
    }
}

/// Whether the answer depends on evidence that is too old: permissions by their interval, accounts by theirs.
fn is_stale(found: &Found, answer: &permission::Answer, limits: Limits) -> bool {
    let Limits { intervals, now } = limits;
    let age = |at: Option<Timestamp>| at.map_or(0, |at| age_ms(at, now));
    let permissions = answer.permissions_at;
    let auth = found.document.verdict.auth.as_ref().and_then(|auth| auth.at);
    let rests_on_auth = answer.allowed == Allowed::Yes;
    age(permissions) > intervals.limit_ms(intervals.permissions)
        || (rests_on_auth && age(auth) > intervals.limit_ms(intervals.auth))
        || (intervals.max_age.is_some() && age(answer.as_of) > intervals.limit_ms(intervals.auth))
}

/// Whether the answer is a no because the bot's account is REVOKED, and the platform rejected it again or was not asked because
/// it never accepts a revoked token again. Such a check found out nothing new, and the no stands.
fn is_confirmed_revocation(found: &Found, answer: &permission::Answer) -> bool {
    let Some(Unmet::Unauthorized(identity)) = &answer.unmet else {
        return false;
    };
    let stored = found.document.knowledge.evidence.auth.get(identity);
    answer.allowed == Allowed::No
        && stored.is_some_and(|stored| stored.value.result == AuthResult::Revoked)
        && found.check.as_ref().is_some_and(Check::is_unauthorized)
}

/// Returns why the check that was just made did not renew the evidence of the answer, unless an age was given.
fn concealed(check: &Check, answer: &permission::Answer, stale: bool, limits: Limits) -> Option<Unanswered> {
    // Some evidence is never renewed by a check (a badge seen in chat); it counts unless something failed, too.
    let is_older = answer.as_of.is_none_or(|at| at < check.started);
    let failed = check.permissions_unanswered().filter(|_| is_older)?;
    // A rejection is an answer, and a no that follows from it is new.
    let is_unavoidable = answer.allowed == Allowed::Unknown || stale;
    (limits.intervals.max_age.is_none() || is_unavoidable).then_some(failed)
}

/// Returns the command that meets the precondition, if one does.
fn fix(unmet: &Unmet, found: &Found) -> Option<String> {
    let key = &found.document.key;
    match unmet {
        Unmet::Unauthorized(identity) => {
            let check = found.document.knowledge.evidence.auth.get(identity);
            let client_rejected = check.is_some_and(|check| check.value.client_rejected);
            Some(remedy(identity.as_str(), client_rejected))
        }
        Unmet::Gone | Unmet::Refused => Some(format!("bitbrat sources describe {key}")),
        Unmet::Unreachable => Some(format!("bitbrat doctor {}", key.platform())),
        Unmet::Unchecked(_) | Unmet::NeverSeen if found.check.is_some() => {
            Some(format!("bitbrat auth status {}", key.platform()))
        }
        // A check renews it; `probe_first` advises that.
        Unmet::Unchecked(_) | Unmet::NeverSeen | Unmet::Banned => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::code::Code;
    use crate::core::document::SourceDocument;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::{AuthCheck, ErrorInfo, Fact, Identity, LinkState, Observation};
    use crate::core::source::SourceKey;
    use crate::view::tests::{Story, checked, now, ratcaster};

    fn asked(story: &Story, text: &str) -> AnswerItem {
        judged(&story.found(), text, None).0
    }

    fn judged(found: &Found, text: &str, max_age: Option<u64>) -> (AnswerItem, Option<Unanswered>) {
        let limits = Limits {
            intervals: Intervals::default().within(max_age.map(Duration::from_secs)),
            now: now(),
        };
        let question = question(found.document.key.platform(), text).unwrap();
        judge(found, &question, limits)
    }

    #[test]
    fn actions_and_permissions_are_answered_by_evidence() {
        for (text, expected, label) in [
            ("read-chatters", Answer::Yes, "list who is in the chat"),
            ("MODERATOR", Answer::Yes, "has MODERATOR"),
            ("EDITOR", Answer::No, "not have EDITOR"),
            ("VIP", Answer::Unknown, "needs the broadcaster's authorization"),
            ("SUBSCRIBER", Answer::Unknown, "not checked yet"),
            ("ban", Answer::Unknown, "scope:moderator:manage:banned_users"),
        ] {
            let item = asked(&ratcaster(), text);
            assert_eq!(item.answer, expected, "{text}: {}", item.because);
            assert!(item.because.contains(label), "{text}: {}", item.because);
        }
    }

    #[test]
    fn unchecked_source_answers_unknown_not_denied() {
        assert_eq!(asked(&Story::of("twitch:1"), "moderate").answer, Answer::Unknown);
    }

    #[test]
    fn max_age_accepts_what_is_stored_while_the_network_is_down() {
        let mut found = ratcaster().found();
        let down = |state| {
            let transport = Transport::Api;
            Observation::new(
                &found.document.key,
                now(),
                "twitch.helix",
                Fact::Connection { transport, state },
            )
        };
        let error = ErrorInfo::new(Code::NetworkConnect, "no connection");
        let unreachable = down(LinkState::Down { error: error.clone() });
        let refused = down(LinkState::Refused { error });
        let after = |seen: &Observation| {
            let mut document = found.document.clone();
            document.join(Knowledge::from(seen));
            let found = Found::new(document, &Intervals::default(), now());
            checked(found, vec![(*seen.fact).clone()], &[])
        };
        let (refused, unreachable) = (after(&refused), after(&unreachable));
        found = unreachable;
        for (max_age, expected, exit) in [
            (None, Answer::Unknown, Some(ExitCode::Down)),
            (Some(3600), Answer::Yes, None),
            (Some(60), Answer::Unknown, Some(ExitCode::Down)),
        ] {
            let (item, failed) = judged(&found, "MODERATOR", max_age);
            assert_eq!(item.answer, expected, "{max_age:?}: {}", item.because);
            assert_eq!(failed.map(|failed| failed.exit), exit, "{max_age:?}");
        }
        assert_eq!(judged(&refused, "MODERATOR", Some(3600)).0.answer, Answer::No);
    }

    #[test]
    fn revoked_token_is_no_again_when_nothing_is_asked_with_it() {
        let key: SourceKey = "discord:888001".parse().unwrap();
        let seen = |ago: i64, fact| Observation::new(&key, now().plus_secs(-ago), "discord.rest", fact);
        let link = |state| Fact::Connection {
            transport: Transport::Api,
            state,
        };
        let code = Code::Unauthorized(PlatformName::Discord);
        let refused = |ago| {
            let error = ErrorInfo::new(code, "Discord refuses the bot token");
            seen(ago, link(LinkState::Refused { error }))
        };
        let error = ErrorInfo::new(Code::NetworkConnect, "no connection");
        let down = seen(0, link(LinkState::Down { error }));
        let auth = |result| {
            let check = AuthCheck::of(result);
            let identity = Identity::named("discord/bot");
            seen(
                120,
                Fact::Auth {
                    identity,
                    check: check.into(),
                },
            )
        };
        let after = |stored: Observation, check: &Observation| {
            let document = SourceDocument::from_knowledge(key.clone(), Knowledge::of([&stored, check]));
            let found = Found::new(document, &Intervals::default(), now());
            checked(found, vec![(*check.fact).clone()], &[])
        };
        for max_age in [None, Some(3600), Some(60)] {
            let found = after(auth(AuthResult::Revoked), &refused(0));
            let (item, failed) = judged(&found, "send-chat", max_age);
            assert_eq!((item.answer, failed), (Answer::No, None), "{max_age:?}");
        }
        // An unreachable platform confirms nothing, and a rejection of a valid token is no revocation.
        for (stored, check) in [
            (auth(AuthResult::Revoked), down),
            (auth(AuthResult::Valid), refused(0)),
        ] {
            let (item, _) = judged(&after(stored, &check), "send-chat", None);
            assert_ne!(item.answer, Answer::Yes, "{}", item.because);
        }
    }

    #[test]
    fn a_word_that_means_nothing_is_answered_with_those_that_do() {
        let failure = question(PlatformName::Twitch, "fly").unwrap_err();
        assert_eq!(failure.exit, ExitCode::Usage);
        assert!(failure.to_string().contains("send-chat"), "{failure}");
    }
}
