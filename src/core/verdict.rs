//! Verdicts: what the evidence of a source amounts to. A pure function; the same on both ends of the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::evidence::{Evidence, LinkNow};
use crate::core::join::Newest;
use crate::core::observation::{AuthResult, Grants, Identity};
use crate::core::source::PlatformName;
use crate::core::stream::{Patience, Session, StreamStatus};
use crate::core::time::Timestamp;

#[cfg(test)]
mod tests;

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
    /// Returns the word of the document.
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

/// How a source's authorisation is: the worst of the identities that it needs.
pub type AuthStatus = AuthResult;

impl AuthResult {
    /// Returns the word of the document.
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

/// The rule of a connection about which nothing was ever proven.
pub const NOTHING_PROVEN: &str = "status.nothing-proven";

/// A value and the rule that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<T> {
    /// The value.
    pub value: T,
    /// The rule's name; [`explain`] spells it out.
    pub rule: &'static str,
    /// When the deciding evidence was last confirmed.
    pub at: Option<Timestamp>,
}

/// Everything that is derived from a source's evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Connected?
    pub status: Decided<Status>,
    /// Live?
    pub stream: Decided<StreamStatus>,
    /// The stream that this is about.
    pub session: Option<Session>,
    /// Authorised? Absent while unknown.
    pub auth: Option<Decided<AuthStatus>>,
    /// How many watch; only while online.
    pub viewer_count: Option<u64>,
    /// What the bot may do, sorted.
    pub permissions: Vec<String>,
    /// When a method last told permissions.
    pub permissions_at: Option<Timestamp>,
}

impl Verdict {
    /// Derives all verdicts.
    pub fn of(platform: PlatformName, evidence: &Evidence) -> Self {
        let told_at = evidence.permissions.values().map(|grants| grants.at).max();
        Self::with(platform, evidence, granted(evidence), told_at)
    }

    /// Derives all verdicts again after something was learnt that is not about permissions: those take the longest, and
    /// almost everything that is learnt is about something else.
    pub fn again(&mut self, platform: PlatformName, evidence: &Evidence) {
        let permissions = std::mem::take(&mut self.permissions);
        *self = Self::with(platform, evidence, permissions, self.permissions_at);
    }

    fn with(
        platform: PlatformName,
        evidence: &Evidence,
        permissions: Vec<String>,
        permissions_at: Option<Timestamp>,
    ) -> Self {
        let (stream, session) = stream(platform, evidence);
        let auth = auth(evidence);
        Self {
            status: status(evidence, auth.as_ref()),
            viewer_count: viewers(evidence, stream.value, session.as_ref()),
            stream,
            session,
            auth,
            permissions,
            permissions_at,
        }
    }
}

/// The worst of the attended transports; a lost grant is an error whatever the sockets say.
fn status(evidence: &Evidence, auth: Option<&Decided<AuthStatus>>) -> Decided<Status> {
    let at = evidence
        .connection
        .values()
        .filter_map(super::evidence::Link::newest)
        .max();
    if let Some(auth) = auth.filter(|auth| auth.value == AuthResult::Revoked) {
        return Decided {
            value: Status::Error,
            rule: "status.grant-revoked",
            at: at.max(auth.at),
        };
    }
    let links: Vec<_> = evidence
        .connection
        .values()
        .map(super::evidence::Link::now)
        .collect();
    let refused = links
        .iter()
        .any(|link| matches!(link, LinkNow::Trouble(trouble) if trouble.refused));
    let down = links
        .iter()
        .any(|link| matches!(link, LinkNow::Trouble(trouble) if !trouble.refused));
    let up = links.iter().any(|link| matches!(link, LinkNow::Up));
    let (value, rule) = match (refused, down, up) {
        (true, ..) => (Status::Error, "status.refused"),
        (_, true, _) => (Status::Disconnected, "status.transport-down"),
        (.., true) => (Status::Connected, "status.proven"),
        _ if at.is_some() => (Status::Disconnected, "status.closed"),
        _ => (Status::Disconnected, NOTHING_PROVEN),
    };
    Decided { value, rule, at }
}

fn stream(platform: PlatformName, evidence: &Evidence) -> (Decided<StreamStatus>, Option<Session>) {
    let at = evidence.stream.newest();
    let told = evidence.stream.newest_stream();
    if let Some(gone) = not_found_at(evidence).filter(|gone| Some(*gone) >= told) {
        // Absence from a list, however new, proves nothing about a channel that does not exist.
        let unknown = Decided {
            value: StreamStatus::Unknown,
            rule: "stream.source-not-found",
            at: Some(gone),
        };
        return (unknown, None);
    }
    let verdict = evidence.stream.verdict(Patience::with(platform));
    (
        Decided {
            value: verdict.status,
            rule: verdict.rule,
            at,
        },
        verdict.session,
    )
}

/// When the platform last said that the source does not exist, if that is its newest word on it.
fn not_found_at(evidence: &Evidence) -> Option<Timestamp> {
    evidence
        .connection
        .values()
        .find_map(|link| match (link.now(), &link.trouble) {
            (LinkNow::Trouble(trouble), Some(dated)) if trouble.error.is_not_found() => Some(dated.at),
            _ => None,
        })
}

fn auth(evidence: &Evidence) -> Option<Decided<AuthStatus>> {
    let worst = evidence
        .auth
        .values()
        .max_by_key(|check| (check.value.result, check.at))?;
    let rule = match worst.value.result {
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

/// Returns the identity whose check decided the authorisation verdict.
pub fn deciding_identity(evidence: &Evidence) -> Option<&Identity> {
    evidence
        .auth
        .iter()
        .max_by_key(|(_, check)| (check.value.result, check.at))
        .map(|(identity, _)| identity)
}

fn viewers(evidence: &Evidence, stream: StreamStatus, session: Option<&Session>) -> Option<u64> {
    let counted = evidence
        .viewers
        .as_ref()
        .filter(|_| stream == StreamStatus::Online)?;
    let session = session?;
    let of_this_stream = match &counted.value.stream_id {
        Some(id) => *id == session.stream_id,
        None => session.started_at.is_none_or(|start| counted.at >= start),
    };
    of_this_stream.then_some(counted.value.count)
}

/// What is known about one permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Held.
    Yes,
    /// Not held.
    No,
    /// Not known, and why.
    Unknown(Option<String>),
}

/// Returns what is known about `permission`: the newest method that answered yes or no decides, an unknown never
/// overrides an answer.
pub fn holding(evidence: &Evidence, permission: &str) -> (Holding, Option<Timestamp>) {
    holdings(evidence)
        .remove(permission)
        .unwrap_or((Holding::Unknown(None), None))
}

/// Returns every permission that any method named, with what is known about it and since when.
pub fn holdings(evidence: &Evidence) -> BTreeMap<String, (Holding, Option<Timestamp>)> {
    let mut answers: BTreeMap<String, (Holding, Option<Timestamp>)> = BTreeMap::new();
    for grants in oldest_first(evidence) {
        for (permission, reason) in &grants.value.unknown {
            answers
                .entry(permission.clone())
                .or_insert_with(|| (Holding::Unknown(Some(reason.clone())), Some(grants.at)));
        }
        for permission in &grants.value.denied {
            answers.insert(permission.clone(), (Holding::No, Some(grants.at)));
        }
        for permission in &grants.value.granted {
            answers.insert(permission.clone(), (Holding::Yes, Some(grants.at)));
        }
    }
    answers
}

/// The answers of all methods in the order in which later ones outweigh earlier ones.
fn oldest_first(evidence: &Evidence) -> impl Iterator<Item = &Newest<Grants>> {
    let mut methods: Vec<_> = evidence.permissions.iter().collect();
    methods.sort_by_key(|(name, grants)| (grants.at, *name));
    methods.into_iter().map(|(_, grants)| grants)
}

/// The permissions that are held, sorted: those of [`holdings`] with a yes, without copying the others.
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

/// Spells out a rule by its name, for people.
pub fn explain(rule: &str) -> &'static str {
    match rule {
        "status.proven" => "every attended transport was proven to work by its newest evidence",
        "status.transport-down" => "a transport failed in a way that heals by itself",
        "status.refused" => "the platform answered and refuses; a person must act",
        "status.grant-revoked" => "an authorisation that this source needs was revoked; a person must act",
        "status.closed" => "we closed the connection ourselves and nothing has been proven since",
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
        "stream.absent-from-poll" => "a complete poll did not list a stream, and none was ever seen",
        "stream.source-not-found" => "the platform says that the source does not exist",
        "stream.nothing-proven" => "nothing was ever proven about a stream",
        "auth.validated" => "the platform accepted every token that this source needs",
        "auth.expired" => "a token has ended and could not be renewed",
        "auth.revoked" => "the platform no longer honours a grant; it must be given again",
        "auth.unknown" => "no identity that this source needs was ever checked",
        "permissions.newest-answer" => "the newest answer of a method that tells permissions",
        _ => "an unnamed rule",
    }
}
