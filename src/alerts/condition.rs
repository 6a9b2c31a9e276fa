//! What is wrong with one source, or worth a message, as its document proves it.
//!
//! Conditions are levels, not events: they are compared with those that were stored before. So a restart changes nothing, and
//! what happened while no daemon ran is found by its first probe.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::trigger::TriggerKind;
use crate::core::document::SourceDocument;
use crate::core::facet::Facet;
use crate::core::join::Newest;
use crate::core::observation::{AuthCheck, AuthResult, Identity};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::core::verdict::{
    CLOSED_BY_US, Existence, GRANT_REVOKED, NOTHING_PROVEN, Status, TOKEN_REJECTED, deciding_identity,
};

/// How long the end of a stream is remembered; longer than it can be required to last.
const OFFLINE_MEMORY_MS: i64 = 25 * 3600 * 1000;

/// One condition of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The kind.
    pub kind: TriggerKind,
    /// What it is about: the account, the source, or the source and its stream.
    pub subject: String,
    /// The error code, or the account status.
    #[serde(default)]
    pub class: String,
    /// The cause in words.
    #[serde(default)]
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
    /// Whether it was there when the source was first checked. Such conditions are never reported.
    #[serde(default)]
    pub first_sight: bool,
    /// The permissions that were lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
}

/// Returns the conditions of a source after `changes`, of which `stored` were known before. `was_up` is whether it was connected
/// when we closed the connection: the end of that state is no change of the document's status.
pub fn update(
    stored: &[Condition],
    was_up: bool,
    changes: &[Transition],
    document: &SourceDocument,
    now: Timestamp,
) -> Vec<Condition> {
    let mut found = accounts(document, now);
    found.extend(connection(stored, document, now));
    found.extend(stream(stored, changes, document, now));
    let unauthorized = found.iter().any(|condition| facet(condition.kind) == Facet::Auth);
    found.extend(permissions(stored, changes, document, unauthorized));
    for condition in &mut found {
        inherit(condition, stored, was_up, changes);
    }
    found
}

/// A condition that was known keeps its date. A new one is reported only where something changed: the first check of a source, an
/// account or a stream describes what was there already.
fn inherit(condition: &mut Condition, stored: &[Condition], was_up: bool, changes: &[Transition]) {
    let of_kind = || stored.iter().filter(|known| known.kind == condition.kind);
    // A source stays down although another cause takes over, such as an account in place of the request that it failed.
    let is_same =
        |known: &&Condition| known.subject == condition.subject || condition.kind == TriggerKind::SourceDown;
    if let Some(known) = of_kind().find(is_same) {
        (condition.since, condition.first_sight) = (known.since, known.first_sight);
        return;
    }
    let mut of_facet = changes
        .iter()
        .filter(|change| change.facet == facet(condition.kind));
    let has_changed = of_facet.clone().any(|change| !change.initial);
    let is_baseline = of_facet.any(|change| change.initial);
    let has_broken = was_up && condition.kind == TriggerKind::SourceDown;
    // Another account of a source may fail without a change of the source's own status.
    let is_another_account = facet(condition.kind) == Facet::Auth && !is_baseline && !stored.is_empty();
    condition.first_sight = !has_changed && !has_broken && !is_another_account;
}

fn facet(kind: TriggerKind) -> Facet {
    match kind {
        TriggerKind::AuthRevoked | TriggerKind::AuthExpired | TriggerKind::AuthExpiring => Facet::Auth,
        TriggerKind::SourceDown | TriggerKind::PlatformOutage => Facet::Status,
        TriggerKind::PermissionLost => Facet::Permissions,
        TriggerKind::StreamOnline | TriggerKind::StreamOffline => Facet::Stream,
    }
}

fn condition(kind: TriggerKind, subject: String, since: Timestamp) -> Condition {
    Condition {
        kind,
        subject,
        class: String::new(),
        detail: String::new(),
        since,
        first_sight: false,
        lost: Vec::new(),
    }
}

/// Returns the accounts that do not work.
fn accounts(document: &SourceDocument, now: Timestamp) -> Vec<Condition> {
    let checks = document.knowledge.evidence.auth.iter();
    let of = |(identity, check): (&Identity, &Newest<Arc<AuthCheck>>)| {
        let value = &check.value;
        let kind = match value.result {
            _ if value.rejected => TriggerKind::AuthRevoked,
            AuthResult::Revoked => TriggerKind::AuthRevoked,
            AuthResult::Expired => TriggerKind::AuthExpired,
            AuthResult::Valid => return None,
        };
        Some(Condition {
            class: value.result.to_string(),
            detail: value.reason.clone().unwrap_or_default(),
            ..condition(kind, identity.to_string(), check.at.min(now))
        })
    };
    checks.filter_map(of).collect()
}

/// Returns that the source is not connected. Our own stop proves nothing about the platform, so what was known before stays.
fn connection(stored: &[Condition], document: &SourceDocument, now: Timestamp) -> Option<Condition> {
    let verdict = &document.verdict;
    if matches!(verdict.status.rule, CLOSED_BY_US | NOTHING_PROVEN) {
        let known = stored.iter().find(|known| known.kind == TriggerKind::SourceDown);
        return known.cloned();
    }
    if verdict.status.value == Status::Connected {
        return None;
    }
    let cause = document.cause();
    let by_account = matches!(verdict.status.rule, GRANT_REVOKED | TOKEN_REJECTED);
    let account = by_account
        .then(|| deciding_identity(&document.knowledge.evidence))
        .flatten();
    let subject = account.map_or_else(|| document.key.to_string(), ToString::to_string);
    let since = cause.as_ref().map(|error| error.at).or(verdict.status.at);
    Some(Condition {
        class: cause
            .as_ref()
            .map_or_else(String::new, |error| error.code.to_string()),
        detail: cause.map(|error| error.message).unwrap_or_default(),
        ..condition(TriggerKind::SourceDown, subject, since.unwrap_or(now).min(now))
    })
}

/// Returns that a stream is on, or that one has ended.
fn stream(
    stored: &[Condition],
    changes: &[Transition],
    document: &SourceDocument,
    now: Timestamp,
) -> Option<Condition> {
    let verdict = &document.verdict;
    let id = verdict
        .broadcast
        .as_ref()
        .map(|broadcast| broadcast.stream_id.as_str());
    let subject = |id: &str| format!("{}/{id}", document.key);
    match verdict.stream.value {
        StreamStatus::Online => {
            let started = verdict
                .broadcast
                .as_ref()
                .and_then(|broadcast| broadcast.started_at);
            let since = started.or(verdict.stream.at).unwrap_or(now).min(now);
            Some(condition(
                TriggerKind::StreamOnline,
                subject(id.unwrap_or_default()),
                since,
            ))
        }
        StreamStatus::Offline => {
            let is_end = |change: &&Transition| {
                change.facet == Facet::Stream && !change.initial && change.from.as_deref() == Some("ONLINE")
            };
            if let Some(end) = changes.iter().rev().find(is_end) {
                let id = end.stream_id.as_deref().unwrap_or_default();
                return Some(condition(
                    TriggerKind::StreamOffline,
                    subject(id),
                    end.at.min(now),
                ));
            }
            let is_recent = |known: &&Condition| now.millis_since(known.since) < OFFLINE_MEMORY_MS;
            let known = stored
                .iter()
                .find(|known| known.kind == TriggerKind::StreamOffline);
            known.filter(is_recent).cloned()
        }
        StreamStatus::Unknown if verdict.existence.value == Existence::Gone => None,
        StreamStatus::Unknown => {
            let known = stored.iter().find(|known| facet(known.kind) == Facet::Stream);
            known.cloned()
        }
    }
}

/// Returns that permissions were lost: from a change that takes some away, until all of them are held again. What an account without
/// authorization cannot do is an effect of that.
fn permissions(
    stored: &[Condition],
    changes: &[Transition],
    document: &SourceDocument,
    unauthorized: bool,
) -> Option<Condition> {
    let verdict = &document.verdict;
    let known = stored
        .iter()
        .find(|known| known.kind == TriggerKind::PermissionLost);
    if !verdict.permissions_known {
        return known.cloned();
    }
    let is_held = |name: &str| verdict.permissions.iter().any(|held| held == name);
    let mut lost: BTreeSet<String> = known
        .iter()
        .flat_map(|known| known.lost.iter().cloned())
        .collect();
    let mut since = known.map(|known| known.since);
    if !unauthorized {
        let of_facet = changes
            .iter()
            .filter(|change| change.facet == Facet::Permissions && !change.initial && change.to.is_some());
        for change in of_facet {
            lost.extend(
                change
                    .from
                    .iter()
                    .flat_map(|from| from.split(' '))
                    .map(str::to_owned),
            );
            since = since.or(Some(change.at));
        }
    }
    lost.retain(|name| !name.is_empty() && !is_held(name));
    let lost: Vec<String> = lost.into_iter().collect();
    let since = since.filter(|_| !lost.is_empty())?;
    // Scopes belong to a token: all sources that need its account have lost them for one cause.
    let is_scope = |name: &String| name.starts_with("scope:");
    let account = deciding_identity(&document.knowledge.evidence).filter(|_| lost.iter().all(is_scope));
    let subject = match (known, account) {
        (Some(known), _) => known.subject.clone(),
        (None, Some(account)) => account.to_string(),
        (None, None) => document.key.to_string(),
    };
    Some(Condition {
        detail: lost.join(", "),
        lost,
        ..condition(TriggerKind::PermissionLost, subject, since)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::{ErrorInfo, Fact, LinkState, Observation, Transport};
    use crate::core::source::PlatformName;
    use crate::core::transition::transitions;

    /// The conditions after each of `facts`, one second apart: kind, subject and whether they were there at the first check.
    fn story(facts: impl IntoIterator<Item = Fact>) -> Vec<Vec<(TriggerKind, String, bool)>> {
        let key: crate::core::source::SourceKey = "twitch:900200".parse().unwrap();
        let mut document = SourceDocument::new(key.clone());
        let (mut stored, mut all) = (Vec::new(), Vec::new());
        for (second, fact) in (0..).zip(facts) {
            let before = document.verdict.clone();
            let at = Timestamp::from_millis(1_780_000_000_000).plus_secs(second);
            document.join(Knowledge::from(&Observation::new(&key, at, "test", fact)));
            let changes = transitions(&before, &document.verdict);
            if !changes.is_empty() {
                stored = update(&stored, false, &changes, &document, at);
            }
            let short = stored.iter();
            all.push(
                short
                    .map(|known| (known.kind, known.subject.clone(), known.first_sight))
                    .collect(),
            );
        }
        all
    }

    fn link(state: LinkState) -> Fact {
        Fact::Connection {
            transport: Transport::Api,
            state,
        }
    }

    fn refused() -> Fact {
        let error = ErrorInfo::new(Code::TokenRejected(PlatformName::Twitch), "");
        link(LinkState::Refused { error })
    }

    fn checked(result: AuthResult) -> Fact {
        Fact::Auth {
            identity: Identity::named("twitch/bot"),
            check: Arc::new(AuthCheck::of(result)),
        }
    }

    fn seen(id: &str) -> Fact {
        Fact::StreamSeen {
            stream_id: id.to_owned(),
            started_at: None,
        }
    }

    #[test]
    fn first_check_of_a_broken_source_is_marked() {
        let after = story([refused(), checked(AuthResult::Revoked), seen("1")]);
        let last = after.last().unwrap();
        assert_eq!(last.len(), 3, "{last:?}");
        assert!(last.iter().all(|(_, _, first_sight)| *first_sight), "{last:?}");
    }

    #[test]
    fn revocation_is_a_condition_of_the_account() {
        let facts = [
            link(LinkState::Up),
            checked(AuthResult::Valid),
            refused(),
            checked(AuthResult::Revoked),
            checked(AuthResult::Valid),
            link(LinkState::Up),
        ];
        let after = story(facts);
        let account = || "twitch/bot".to_owned();
        assert!(after[1].is_empty());
        let revoked = [
            (TriggerKind::AuthRevoked, account(), false),
            (TriggerKind::SourceDown, account(), false),
        ];
        assert_eq!(after[3], revoked);
        assert!(after[5].is_empty(), "{:?}", after[5]);
    }

    #[test]
    fn end_of_a_stream_is_a_condition_until_the_next_start() {
        let end = |id: &str| Fact::StreamPush {
            live: false,
            stream_id: Some(id.to_owned()),
            started_at: None,
        };
        let start = Fact::StreamPush {
            live: true,
            stream_id: Some("2".to_owned()),
            started_at: None,
        };
        let after = story([Fact::StreamAbsent, seen("1"), end("1"), start]);
        assert!(after[0].is_empty());
        let kinds = after[1..]
            .iter()
            .map(|all| (all[0].0, all[0].1.as_str(), all[0].2));
        let expected = [
            (TriggerKind::StreamOnline, "twitch:900200/1", false),
            (TriggerKind::StreamOffline, "twitch:900200/1", false),
            (TriggerKind::StreamOnline, "twitch:900200/2", false),
        ];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
    }
}
