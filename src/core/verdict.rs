//! Verdicts derived from the evidence of a source. A pure function, identical on both ends of the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::evidence::{Evidence, Link, LinkNow};
use crate::core::facet::Facet;
use crate::core::join::Newest;
use crate::core::observation::{AuthResult, Grants, Identity};
use crate::core::source::PlatformName;
use crate::core::stream::{Broadcast, NO_STREAM_EVIDENCE, StreamStatus};
use crate::core::time::Timestamp;

mod cause;
#[cfg(test)]
mod tests;

pub use cause::cause;

/// Whether the bot is connected to a source.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Proven by the newest evidence.
    Connected,
    /// Not connected, but it will heal by itself; also when nothing was proven yet.
    Disconnected,
    /// The platform answered and refuses: a person must act.
    Error,
}

impl Status {
    /// Returns the value in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "CONNECTED",
            Self::Disconnected => "DISCONNECTED",
            Self::Error => "ERROR",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether there is such a source, as far as the bot can reach it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Existence {
    /// Nothing was proven either way.
    Unknown,
    /// The newest evidence names it.
    Exists,
    /// The newest evidence says that there is no such source.
    Gone,
}

/// Authorization of a source: the worst of the identities that it needs.
pub type AuthStatus = AuthResult;

impl AuthResult {
    /// Returns the value in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Expired => "EXPIRED",
            Self::Revoked => "REVOKED",
        }
    }
}

impl fmt::Display for AuthResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The rule for a connection without evidence.
pub const NOTHING_PROVEN: &str = "status.nothing-proven";

/// The rule for a connection that this program has closed: the stop of a daemon says nothing about the platform.
pub const CLOSED_BY_US: &str = "status.closed";

/// The rules for a source whose account has no authorization any more: it was revoked, or its token was never proven to be valid.
pub const GRANT_REVOKED: &str = "status.grant-revoked";
/// See [`GRANT_REVOKED`].
pub const TOKEN_REJECTED: &str = "status.token-rejected";

/// A value and the rule that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<T> {
    /// The value.
    pub value: T,
    /// The rule's name; [`explain`] describes it.
    pub rule: &'static str,
    /// When the deciding evidence was last confirmed.
    pub at: Option<Timestamp>,
}

/// Number of parts of a source's evidence, as far as they distinguish a baseline from a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// Transports with evidence.
    pub transports: usize,
    /// Accounts that were checked.
    pub accounts: usize,
    /// Methods that reported permissions.
    pub methods: usize,
    /// Whether the existence of the source was ever checked.
    pub existence: bool,
    /// Whether the evidence of any transport contains more than its first state.
    pub has_changed: bool,
}

impl Parts {
    fn of(evidence: &Evidence) -> Self {
        let states = |link: &Link| {
            let known = [link.up.is_some(), link.closed.is_some(), link.failure.is_some()];
            known.into_iter().filter(|known| *known).count()
        };
        Self {
            // A response to a request about another source is not evidence of a connection to this source.
            transports: evidence
                .connection
                .values()
                .filter(|link| states(link) > 0)
                .count(),
            accounts: evidence.auth.len(),
            methods: evidence.permissions.len(),
            existence: !evidence.existence.is_unproven(),
            has_changed: evidence.connection.values().any(|link| states(link) > 1),
        }
    }
}

/// Everything that is derived from a source's evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Existence of the source. If it is gone, it has no stream, no permissions and no connection.
    pub existence: Decided<Existence>,
    /// Connection status.
    pub status: Decided<Status>,
    /// Live status.
    pub stream: Decided<StreamStatus>,
    /// The stream to which `stream` refers.
    pub broadcast: Option<Broadcast>,
    /// Authorization; absent while unknown.
    pub auth: Option<Decided<AuthStatus>>,
    /// Number of viewers; only while online.
    pub viewer_count: Option<u64>,
    /// Permissions of the bot, sorted; empty both if it has none and while they are unknown.
    pub permissions: Vec<String>,
    /// Whether any method reported a permission, so that the list, even if empty, is meaningful.
    pub permissions_known: bool,
    /// When a method last reported permissions.
    pub permissions_at: Option<Timestamp>,
    /// The parts of the underlying evidence.
    pub parts: Parts,
}

impl Verdict {
    /// Returns whether there is any evidence of `facet`.
    pub fn is_known(&self, facet: Facet) -> bool {
        match facet {
            Facet::Status => self.status.rule != NOTHING_PROVEN,
            Facet::Stream => self.stream.rule != NO_STREAM_EVIDENCE,
            Facet::Auth => self.auth.is_some(),
            Facet::Permissions => self.permissions_at.is_some(),
        }
    }

    /// Derives all verdicts.
    pub fn of(platform: PlatformName, evidence: &Evidence) -> Self {
        let reported_at = evidence.permissions.values().map(|grants| grants.at).max();
        Self::with(
            platform,
            evidence,
            (granted(evidence), answered(evidence)),
            reported_at,
        )
    }

    /// Derives all verdicts again after an observation that is not about permissions: those take the longest, and almost every
    /// observation is about something else.
    pub fn again(&mut self, platform: PlatformName, evidence: &Evidence) {
        let permissions = std::mem::take(&mut self.permissions);
        let permissions = (permissions, self.permissions_known);
        *self = Self::with(platform, evidence, permissions, self.permissions_at);
    }

    fn with(
        platform: PlatformName,
        evidence: &Evidence,
        (permissions, permissions_known): (Vec<String>, bool),
        permissions_at: Option<Timestamp>,
    ) -> Self {
        let existence = existence(evidence);
        let (stream, broadcast) = stream(platform, evidence, &existence);
        let auth = auth(evidence);
        Self {
            status: status(evidence, &existence, auth.as_ref()),
            viewer_count: viewers(evidence, stream.value, broadcast.as_ref()),
            existence,
            stream,
            broadcast,
            auth,
            permissions,
            permissions_known,
            permissions_at,
            parts: Parts::of(evidence),
        }
    }
}

/// The newest evidence about the source itself. Of two answers with the same time the worse one counts.
///
/// A stream that was seen, started or ended proves its channel. The connection is not evidence for either state: otherwise a
/// failing network could turn a source that does not exist into one that is offline.
pub fn existence(evidence: &Evidence) -> Decided<Existence> {
    let seen = evidence.existence.seen.max(evidence.stream.newest_stream());
    let missing = evidence.existence.missing.as_ref().map(|missing| missing.at);
    let (value, rule) = match (seen, missing) {
        (None, None) => (Existence::Unknown, "existence.nothing-proven"),
        (_, Some(_)) if missing >= seen => (Existence::Gone, "existence.no-such-source"),
        _ => (Existence::Exists, "existence.seen"),
    };
    let at = if value == Existence::Gone { missing } else { seen };
    Decided { value, rule, at }
}

/// The worst of the monitored transports; a revoked grant is an error whatever the state of the sockets, and so is a source
/// that is gone.
fn status(
    evidence: &Evidence,
    existence: &Decided<Existence>,
    auth: Option<&Decided<AuthStatus>>,
) -> Decided<Status> {
    let at = evidence
        .connection
        .values()
        .filter_map(super::evidence::Link::newest)
        .max();
    let dead = auth.and_then(|auth| match (auth.value, auth.rule) {
        (AuthResult::Revoked, _) => Some((GRANT_REVOKED, auth.at)),
        (_, "auth.rejected") => Some((TOKEN_REJECTED, auth.at)),
        _ => None,
    });
    if let Some((rule, since)) = dead {
        return Decided {
            value: Status::Error,
            rule,
            at: at.max(since),
        };
    }
    if existence.value == Existence::Gone {
        return Decided {
            value: Status::Error,
            rule: "status.no-such-source",
            // Later evidence about links does not confirm that the source is gone.
            at: existence.at,
        };
    }
    let links: Vec<_> = evidence
        .connection
        .values()
        .map(super::evidence::Link::now)
        .collect();
    let refused = links
        .iter()
        .any(|link| matches!(link, LinkNow::LinkFailure(failure) if failure.refused));
    let down = links
        .iter()
        .any(|link| matches!(link, LinkNow::LinkFailure(failure) if !failure.refused));
    let up = links.iter().any(|link| matches!(link, LinkNow::Up));
    let (value, rule) = match (refused, down, up) {
        (true, ..) => (Status::Error, "status.refused"),
        (_, true, _) => (Status::Disconnected, "status.transport-down"),
        (.., true) => (Status::Connected, "status.proven"),
        _ if at.is_some() => (Status::Disconnected, CLOSED_BY_US),
        _ => (Status::Disconnected, NOTHING_PROVEN),
    };
    Decided { value, rule, at }
}

fn stream(
    platform: PlatformName,
    evidence: &Evidence,
    existence: &Decided<Existence>,
) -> (Decided<StreamStatus>, Option<Broadcast>) {
    if existence.value == Existence::Gone {
        // Absence from a list, however recent, proves nothing about a channel that does not exist.
        let unknown = Decided {
            value: StreamStatus::Unknown,
            rule: "stream.no-such-source",
            at: existence.at,
        };
        return (unknown, None);
    }
    let verdict = evidence.stream.verdict(platform.rules().poll_tolerance);
    (
        Decided {
            value: verdict.status,
            rule: verdict.rule,
            at: verdict.at,
        },
        verdict.broadcast,
    )
}

fn auth(evidence: &Evidence) -> Option<Decided<AuthStatus>> {
    let worst = evidence
        .auth
        .values()
        .max_by_key(|check| (check.value.result, check.at))?;
    let rule = match worst.value.result {
        _ if worst.value.rejected => "auth.rejected",
        AuthResult::Valid => "auth.validated",
        AuthResult::Expired => "auth.expired",
        AuthResult::Revoked => "auth.revoked",
    };
    Some(Decided {
        value: worst.value.result,
        rule,
        at: Some(worst.at),
    })
}

/// Returns the identity whose check decided the authorization verdict.
pub fn deciding_identity(evidence: &Evidence) -> Option<&Identity> {
    evidence
        .auth
        .iter()
        .max_by_key(|(_, check)| (check.value.result, check.at))
        .map(|(identity, _)| identity)
}

fn viewers(evidence: &Evidence, stream: StreamStatus, broadcast: Option<&Broadcast>) -> Option<u64> {
    let counted = evidence
        .viewers
        .as_ref()
        .filter(|counted| stream == StreamStatus::Online && !counted.value.hidden)?;
    let broadcast = broadcast?;
    let of_this_stream = match &counted.value.stream_id {
        Some(id) => *id == broadcast.stream_id,
        None => broadcast.started_at.is_none_or(|start| counted.at >= start),
    };
    of_this_stream.then_some(counted.value.count)
}

/// State of one permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Held.
    Yes,
    /// Not held.
    No,
    /// Unknown, with the reason where there is one.
    Unknown(Option<String>),
}

/// Returns the state of `permission` and its time: the newest method with a yes or no decides; an unknown never overrides an
/// answer.
pub fn holding(evidence: &Evidence, permission: &str) -> (Holding, Option<Timestamp>) {
    holdings(evidence)
        .remove(permission)
        .unwrap_or((Holding::Unknown(None), None))
}

/// Returns every reported permission with its state and time.
pub fn holdings(evidence: &Evidence) -> BTreeMap<&str, (Holding, Option<Timestamp>)> {
    let mut answers: BTreeMap<&str, (Holding, Option<Timestamp>)> = BTreeMap::new();
    for grants in oldest_first(evidence) {
        for (permission, reason) in &grants.value.unknown {
            answers
                .entry(permission)
                .or_insert_with(|| (Holding::Unknown(Some(reason.clone())), Some(grants.at)));
        }
        for permission in &grants.value.denied {
            answers.insert(permission, (Holding::No, Some(grants.at)));
        }
        for permission in &grants.value.granted {
            answers.insert(permission, (Holding::Yes, Some(grants.at)));
        }
    }
    answers
}

/// The results of all methods, ordered so that later ones outrank earlier ones.
fn oldest_first(evidence: &Evidence) -> impl Iterator<Item = &Newest<Arc<Grants>>> {
    let mut methods: Vec<_> = evidence.permissions.iter().collect();
    methods.sort_by_key(|(name, grants)| (grants.at, *name));
    methods.into_iter().map(|(_, grants)| grants)
}

/// The held permissions, sorted: those of [`holdings`] with a yes, without copying the others.
fn granted(evidence: &Evidence) -> Vec<String> {
    let mut held: BTreeSet<&str> = BTreeSet::new();
    for grants in oldest_first(evidence) {
        for permission in &grants.value.denied {
            held.remove(permission.as_str());
        }
        held.extend(grants.value.granted.iter().map(String::as_str));
    }
    held.into_iter().map(str::to_owned).collect()
}

/// Whether any method reported a yes or no. A reason for an unknown is not an answer.
fn answered(evidence: &Evidence) -> bool {
    let mut methods = evidence.permissions.values();
    methods.any(|grants| !grants.value.granted.is_empty() || !grants.value.denied.is_empty())
}

/// Describes a rule for people.
pub fn explain(rule: &str) -> &'static str {
    match rule {
        "status.proven" => "every transport in use answered at its last check",
        "status.transport-down" => "a transport failed in a way that heals by itself",
        "status.refused" => "the platform answered and refuses; a person must act",
        "status.grant-revoked" => "an authorization that this source needs was revoked; log in again",
        "status.token-rejected" => {
            "the platform rejects a token that this source needs; a person must log in again"
        }
        "status.no-such-source" => {
            "there is no such source on the platform, or the bot is not a member of it"
        }
        "existence.seen" => "the newest answer about the source names it",
        "existence.no-such-source" => "according to the newest answer there is no such source",
        "existence.nothing-proven" => "nothing was proven about whether the source exists",
        CLOSED_BY_US => "we closed the connection ourselves and nothing has been proven since",
        NOTHING_PROVEN => "nothing was ever proven about the connection",
        "stream.pushed-start" => "the platform pushed the start of this stream",
        "stream.seen-in-poll" => "the newest poll listed the stream",
        "stream.push-beats-poll" => {
            "a pushed start outweighs polls that miss the stream, because polls are cached"
        }
        "stream.missed-but-not-for-long" => "polls have missed the stream, but not for long enough to end it",
        "stream.pushed-end" => "the platform pushed the end of this stream",
        "stream.same-stream-after-end" => "a pushed end outweighs polls that still list the same stream",
        "stream.missing-from-polls" => "polls have missed the stream for long enough to end it",
        "stream.absent-from-poll" => "a complete poll did not list a stream, and none is known from before",
        "stream.no-such-source" => "there is no such source on the platform, so it has no stream",
        "stream.nothing-proven" => "nothing was ever proven about a stream",
        "auth.validated" => "the platform accepted every token that this source needs",
        "auth.expired" => "a token has expired and could not be refreshed",
        "auth.revoked" => "the platform revoked a grant; log in again",
        "auth.rejected" => {
            "rejected: the platform does not accept the token, and nothing shows that it was ever valid"
        }
        "auth.unknown" => "no identity that this source needs was ever checked",
        "permissions.newest-answer" => "the newest answer of a method that lists permissions",
        _ => "an unnamed rule",
    }
}
