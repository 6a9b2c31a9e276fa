//! Transitions: changes between two verdicts. Everything that is published or recorded in the history is a transition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::facet::Facet;
use crate::core::stream::{NO_STREAM_EVIDENCE, StreamStatus};
use crate::core::time::Timestamp;
use crate::core::verdict::{Existence, NOTHING_PROVEN, Verdict};

/// One change of one verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// Which verdict changed.
    pub facet: Facet,
    /// What it was; absent when nothing was known, and always absent from a baseline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// What it is; absent when it is no longer known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// The time of the event that decided it.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// The rule that decided it.
    pub rule: String,
    /// The stream that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream_id: Option<String>,
    /// Whether this is a baseline, which reports a state and not a change: the first evidence of the facet, or the
    /// first of one of its parts (a transport, an account, a method) before anything has changed.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub initial: bool,
}

/// Returns the transitions from `before` to `after`.
///
/// A second stream that directly replaces the first is a transition too (ONLINE to ONLINE, another stream id), so that every
/// broadcast is published.
pub fn transitions(before: &Verdict, after: &Verdict) -> Vec<Transition> {
    let mut changes = Vec::new();
    let baseline = baseline(before, after);
    let from = |initial: bool, value: Option<String>| value.filter(|_| !initial);
    // The first evidence about a connection is a transition in any case: the status before stood for "unknown".
    let first_status = before.status.rule == NOTHING_PROVEN && after.status.rule != NOTHING_PROVEN;
    if before.status.value != after.status.value || first_status {
        changes.push(Transition {
            facet: Facet::Status,
            from: from(baseline.status, Some(before.status.value.to_string())),
            to: Some(after.status.value.to_string()),
            at: status_changed_at(before, after),
            rule: after.status.rule.to_owned(),
            stream_id: None,
            initial: baseline.status,
        });
    }
    let stream = |verdict: &Verdict| {
        verdict
            .broadcast
            .as_ref()
            .map(|broadcast| broadcast.stream_id.clone())
    };
    let online = after.stream.value == StreamStatus::Online;
    let is_same = match (&before.broadcast, &after.broadcast) {
        (Some(before), Some(after)) => after.continues(before),
        (before, after) => before.is_none() && after.is_none(),
    };
    if before.stream.value != after.stream.value || (online && !is_same) {
        changes.push(Transition {
            facet: Facet::Stream,
            from: from(baseline.stream, Some(before.stream.value.to_string())),
            to: Some(after.stream.value.to_string()),
            at: stream_changed_at(before, after),
            rule: after.stream.rule.to_owned(),
            stream_id: stream(after).or_else(|| stream(before)),
            initial: baseline.stream,
        });
    }
    let auth = |verdict: &Verdict| verdict.auth.as_ref().map(|auth| auth.value.to_string());
    if auth(before) != auth(after) {
        changes.push(Transition {
            facet: Facet::Auth,
            from: from(baseline.auth, auth(before)),
            to: auth(after),
            at: after
                .auth
                .as_ref()
                .and_then(|auth| auth.at)
                .max(before.auth.as_ref().and_then(|auth| auth.at))
                .unwrap_or(Timestamp::EPOCH),
            rule: after
                .auth
                .as_ref()
                .map_or("auth.unknown", |auth| auth.rule)
                .to_owned(),
            stream_id: None,
            initial: baseline.auth,
        });
    }
    // From unknown to "none held" is not a transition; from known permissions, "unknown" and "none" differ.
    let known = |verdict: &Verdict| verdict.permissions_known.then(|| verdict.permissions.join(" "));
    let nothing_yet = before.permissions_at.is_none() && after.permissions.is_empty();
    if known(before) != known(after) && !nothing_yet {
        changes.push(Transition {
            facet: Facet::Permissions,
            from: from(baseline.permissions, known(before)),
            to: known(after),
            at: after.permissions_at.unwrap_or(Timestamp::EPOCH),
            rule: "permissions.newest-answer".to_owned(),
            stream_id: None,
            initial: baseline.permissions,
        });
    }
    changes
}

/// Facets of a source that are still in their baseline before a change.
struct Baseline {
    status: bool,
    stream: bool,
    auth: bool,
    permissions: bool,
}

/// A source is observed part by part: one transport after the other, each account, each permission method. The first evidence
/// about a part describes an existing state that had not been checked before.
fn baseline(before: &Verdict, after: &Verdict) -> Baseline {
    let (old, new) = (&before.parts, &after.parts);
    // Once a connection has changed, a part that is added later is a change of the source.
    let open = !old.has_changed;
    let more_accounts = new.accounts > old.accounts;
    let more_of_connection =
        new.transports > old.transports || more_accounts || (!old.existence && new.existence);
    Baseline {
        status: before.status.rule == NOTHING_PROVEN || (open && more_of_connection),
        // A push reports a current event, even if nothing was known before.
        stream: before.stream.rule == NO_STREAM_EVIDENCE && !after.stream.rule.starts_with("stream.pushed-"),
        auth: before.auth.is_none() || (open && more_accounts),
        permissions: before.permissions_at.is_none() || new.methods > old.methods,
    }
}

/// When the stream changed: the platform's own date of a push, unless it lies before the previous evidence, as that of a push
/// that was delivered late: the change would be listed before its predecessors. A stream of a source that exists again changed when
/// the source was seen again.
fn stream_changed_at(before: &Verdict, after: &Verdict) -> Timestamp {
    let is_back = before.existence.value == Existence::Gone && after.existence.value != Existence::Gone;
    let seen_again = after.existence.at.filter(|_| is_back);
    let at = after.stream.at.max(before.stream.at).max(seen_again);
    at.unwrap_or(Timestamp::EPOCH)
}

/// When the status changed. An error may end with a login or the return of the source: the recovery is then no earlier,
/// although the connection was proven before. The state that it ends may be as recent as the last check of the accounts, so it
/// is no earlier than that either.
fn status_changed_at(before: &Verdict, after: &Verdict) -> Timestamp {
    let auth_at = |verdict: &Verdict| verdict.auth.as_ref().and_then(|auth| auth.at);
    let existence = |verdict: &Verdict| verdict.existence.value;
    let checked_at = auth_at(before).max(auth_at(after));
    let seen_at = (existence(before) != existence(after)).then_some(after.existence.at);
    let decided_at = after.status.at.max(checked_at).max(seen_at.flatten());
    // No change is dated before the previous evidence either.
    decided_at.max(before.status.at).unwrap_or(Timestamp::EPOCH)
}

/// A continuous history: each transition of a facet starts with the value of the previous one.
///
/// The last verdict of one program is not always what was recorded last: a restart, a late event or a second writer may lie in
/// between. Therefore transitions are passed through the chain of earlier ones before they are recorded or published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain(BTreeMap<Facet, End>);

/// The last state in the history of a facet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    value: Option<String>,
    stream_id: Option<String>,
    initial: bool,
}

impl Chain {
    /// Creates the chain that continues `recorded` (oldest first).
    pub fn of<'a>(recorded: impl IntoIterator<Item = &'a Transition>) -> Self {
        let mut chain = Self::default();
        for transition in recorded {
            chain.end(transition);
        }
        chain
    }

    /// Returns `next` adapted to the history; `None` if it is already recorded.
    ///
    /// A baseline after a baseline completes it: it replaces the one before, and has no previous value either. A baseline
    /// after a change comes from a writer without the history; if its value differs, it is a change.
    #[must_use]
    pub fn append(&mut self, mut next: Transition) -> Option<Transition> {
        if let Some(last) = self.0.get(&next.facet) {
            // Another stream without a gap is a transition although the value is the same.
            let same_stream =
                last.stream_id.is_none() || next.stream_id.is_none() || last.stream_id == next.stream_id;
            if last.value == next.to && same_stream {
                return None;
            }
            next.initial &= last.initial;
            next.from = last.value.clone().filter(|_| !next.initial);
        } else if next.initial {
            next.from = None;
        }
        self.end(&next);
        Some(next)
    }

    /// Returns whether `next` starts with the last value of its facet.
    pub fn is_continued_by(&self, next: &Transition) -> bool {
        self.0.get(&next.facet).map_or(next.initial, |last| {
            last.value == next.from || (next.initial && last.initial)
        })
    }

    fn end(&mut self, transition: &Transition) {
        let end = End {
            value: transition.to.clone(),
            stream_id: transition.stream_id.clone(),
            initial: transition.initial,
        };
        self.0.insert(transition.facet, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::document::SourceDocument;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::{
        AuthCheck, AuthResult, ErrorInfo, Fact, Grants, Identity, LinkState, Observation, Transport,
    };
    use crate::core::source::PlatformName;

    /// The transitions of one source after each of `facts`, one second apart.
    fn story(facts: impl IntoIterator<Item = Fact>) -> Vec<Transition> {
        let key: crate::core::source::SourceKey = "twitch:900200".parse().unwrap();
        let mut document = SourceDocument::new(key.clone());
        let mut all = Vec::new();
        for (second, fact) in (0..).zip(facts) {
            let before = document.verdict.clone();
            let at = Timestamp::from_millis(1_780_000_000_000).plus_secs(second);
            document.join(Knowledge::from(&Observation::new(&key, at, "test", fact)));
            all.extend(transitions(&before, &document.verdict));
        }
        all
    }

    /// The transitions of facts that arrive in this order, each with its own date in seconds.
    fn dated(facts: impl IntoIterator<Item = (i64, Fact)>) -> Vec<(i64, String, String)> {
        let key: crate::core::source::SourceKey = "twitch:900200".parse().unwrap();
        let start = Timestamp::from_millis(1_780_000_000_000);
        let mut document = SourceDocument::new(key.clone());
        let mut all = Vec::new();
        for (second, fact) in facts {
            let before = document.verdict.clone();
            let at = start.plus_secs(second);
            document.join(Knowledge::from(&Observation::new(&key, at, "test", fact)));
            all.extend(transitions(&before, &document.verdict));
        }
        all.retain(|change| change.facet == Facet::Stream);
        let short = |change: Transition| {
            let (from, to) = (change.from.unwrap_or_default(), change.to.unwrap_or_default());
            (change.at.millis_since(start) / 1_000, from, to)
        };
        all.into_iter().map(short).collect()
    }

    fn stream_change(second: i64, from: &str, to: &str) -> (i64, String, String) {
        (second, from.to_owned(), to.to_owned())
    }

    #[test]
    fn late_push_is_not_dated_before_the_start_that_it_ends() {
        let end = Fact::StreamPush {
            live: false,
            stream_id: Some("77".to_owned()),
            started_at: None,
        };
        let changes = dated([(0, Fact::StreamAbsent), (40, seen("77")), (37, end)]);
        assert_eq!(changes[1], stream_change(40, "OFFLINE", "ONLINE"));
        // The poll is newer than the end, and polls lag: the stream has ended.
        assert_eq!(changes[2], stream_change(40, "ONLINE", "OFFLINE"));
    }

    #[test]
    fn stream_of_a_source_that_is_back_changes_when_it_is_seen_again() {
        let missing = || Fact::NoSuchSource {
            error: ErrorInfo::new(Code::NotFound(PlatformName::Twitch), ""),
        };
        let changes = dated([(10, seen("77")), (20, missing()), (30, Fact::Exists)]);
        assert_eq!(changes[1], stream_change(20, "ONLINE", "UNKNOWN"));
        assert_eq!(changes[2], stream_change(30, "UNKNOWN", "ONLINE"));
        let changes = dated([(10, Fact::StreamAbsent), (20, missing()), (30, Fact::Exists)]);
        assert_eq!(changes[2], stream_change(30, "UNKNOWN", "OFFLINE"));
    }

    fn up() -> Fact {
        Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        }
    }

    fn seen(stream_id: &str) -> Fact {
        Fact::StreamSeen {
            stream_id: stream_id.to_owned(),
            started_at: None,
        }
    }

    fn pushed(stream_id: &str) -> Fact {
        Fact::StreamPush {
            live: true,
            stream_id: Some(stream_id.to_owned()),
            started_at: None,
        }
    }

    fn checked(result: AuthResult) -> Fact {
        let check = AuthCheck::of(result);
        Fact::Auth {
            identity: Identity::named("twitch/bot"),
            check: check.into(),
        }
    }

    fn may(permission: &str) -> Fact {
        let grants = Grants {
            granted: [permission.to_owned()].into(),
            ..Grants::default()
        };
        Fact::Permissions {
            method: "twitch.scopes".to_owned(),
            grants: grants.into(),
        }
    }

    #[test]
    fn only_the_first_evidence_of_a_facet_is_initial() {
        let first = [up(), seen("1"), checked(AuthResult::Valid), may("MODERATOR")];
        assert!(story(first.clone()).iter().all(|change| change.initial));
        let closed = Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Closed,
        };
        let second = [closed, seen("2"), checked(AuthResult::Revoked), may("VIP")];
        let all = story(first.into_iter().chain(second));
        let initial: Vec<bool> = all.iter().map(|change| change.initial).collect();
        assert_eq!(
            initial,
            [true, true, true, true, false, false, false, false, false]
        );
    }

    #[test]
    fn first_pushed_start_is_not_an_initial_transition() {
        assert!(!story([pushed("1")])[0].initial);
        assert!(story([Fact::StreamAbsent])[0].initial);
    }

    #[test]
    fn initial_is_absent_from_json_unless_true() {
        let all = story([up(), pushed("1")]);
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(
            (json[0].get("initial"), json[1].get("initial")),
            (Some(&true.into()), None)
        );
        assert_eq!(serde_json::from_value::<Vec<Transition>>(json).unwrap(), all);
    }

    fn down(transport: Transport) -> Fact {
        let error = crate::core::observation::ErrorInfo::new(Code::NetworkTimeout, "no answer");
        Fact::Connection {
            transport,
            state: LinkState::Down { error },
        }
    }

    /// Formats each transition as `facet from>to`, with `*` for a baseline.
    fn shown(all: &[Transition]) -> Vec<String> {
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        all.iter()
            .map(|change| {
                let star = if change.initial { "*" } else { "" };
                let facet = change.facet.as_str();
                format!("{facet} {}>{}{star}", word(&change.from), word(&change.to))
            })
            .collect()
    }

    #[test]
    fn baseline_has_no_from_on_any_facet() {
        let first = [
            down(Transport::Api),
            Fact::StreamAbsent,
            checked(AuthResult::Valid),
            may("MODERATOR"),
        ];
        assert_eq!(
            shown(&story(first)),
            [
                "status >DISCONNECTED*",
                "stream >OFFLINE*",
                "auth >VALID*",
                "permissions >MODERATOR*"
            ]
        );
    }

    #[test]
    fn parts_asked_later_belong_to_the_baseline() {
        let scopes = Grants {
            granted: ["scope:chat:read".to_owned()].into(),
            ..Grants::default()
        };
        let scopes = Fact::Permissions {
            method: "twitch.token".to_owned(),
            grants: scopes.into(),
        };
        let all = story([up(), scopes, may("MODERATOR"), down(Transport::EventSub)]);
        assert_eq!(
            shown(&all),
            [
                "status >CONNECTED*",
                "permissions >scope:chat:read*",
                "permissions >MODERATOR scope:chat:read*",
                "status >DISCONNECTED*"
            ]
        );
        let mut chain = Chain::default();
        let joined: Vec<_> = all.into_iter().filter_map(|next| chain.append(next)).collect();
        assert!(
            joined
                .iter()
                .all(|change| change.initial && change.from.is_none())
        );
    }

    #[test]
    fn transport_added_after_a_change_is_a_change() {
        let all = story([up(), down(Transport::Api), up(), down(Transport::EventSub)]);
        assert_eq!(
            shown(&all),
            [
                "status >CONNECTED*",
                "status CONNECTED>DISCONNECTED",
                "status DISCONNECTED>CONNECTED",
                "status CONNECTED>DISCONNECTED"
            ]
        );
    }

    #[test]
    fn recovery_is_not_dated_before_the_login() {
        let all = story([
            up(),
            checked(AuthResult::Valid),
            checked(AuthResult::Revoked),
            checked(AuthResult::Valid),
        ]);
        let login = all
            .iter()
            .rev()
            .find(|change| change.facet == Facet::Auth)
            .unwrap();
        let recovery = all
            .iter()
            .rev()
            .find(|change| change.facet == Facet::Status)
            .unwrap();
        assert_eq!(
            (recovery.to.as_deref(), recovery.at),
            (Some("CONNECTED"), login.at)
        );
    }

    #[test]
    fn baseline_of_another_writer_continues_the_history() {
        let found = |to: &str| Transition {
            from: None,
            initial: true,
            ..change(Facet::Status, "", to, None)
        };
        let mut chain = Chain::of(&[change(Facet::Status, "CONNECTED", "DISCONNECTED", None)]);
        assert_eq!(chain.append(found("DISCONNECTED")), None);
        let next = chain.append(found("CONNECTED"));
        assert_eq!(
            next,
            Some(change(Facet::Status, "DISCONNECTED", "CONNECTED", None))
        );
    }

    fn change(facet: Facet, from: &str, to: &str, stream_id: Option<&str>) -> Transition {
        Transition {
            facet,
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            at: Timestamp::EPOCH,
            rule: "test".to_owned(),
            stream_id: stream_id.map(str::to_owned),
            initial: false,
        }
    }

    #[test]
    fn a_transition_starts_where_the_recorded_history_ends() {
        let recorded = [change(Facet::Status, "CONNECTED", "DISCONNECTED", None)];
        let mut chain = Chain::of(&recorded);
        let next = chain.append(change(Facet::Status, "ERROR", "CONNECTED", None));
        assert_eq!(
            next,
            Some(change(Facet::Status, "DISCONNECTED", "CONNECTED", None))
        );
        let again = change(Facet::Status, "DISCONNECTED", "CONNECTED", None);
        assert_eq!(chain.append(again), None, "recorded already");
    }

    #[test]
    fn another_stream_without_a_pause_is_a_transition() {
        let mut chain = Chain::default();
        let first = change(Facet::Stream, "UNKNOWN", "ONLINE", Some("1"));
        assert_eq!(chain.append(first.clone()), Some(first));
        let second = change(Facet::Stream, "ONLINE", "ONLINE", Some("2"));
        assert_eq!(chain.append(second.clone()), Some(second.clone()));
        assert_eq!(chain.append(second), None);
    }
}
