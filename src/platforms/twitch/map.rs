//! Turns Twitch's answers into observations. Pure: only what an answer proves.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Stream, User};
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{ErrorInfo, Fact, Grants, LinkState, Observation, Transport};
use crate::core::source::PlatformName;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Evidence origin: Helix.
pub(super) const HELIX: &str = "twitch.helix";
/// Evidence origin: `id.twitch.tv`.
pub(super) const OAUTH: &str = "twitch.oauth";

/// What a complete answer of `GET /users` proves about one source.
pub(super) fn user(source: &SourceKey, found: Option<&User>, at: Timestamp) -> Vec<Observation> {
    let emit = |fact| Observation::new(source, at, HELIX, fact);
    let Some(user) = found else {
        let error = not_found();
        return vec![emit(Fact::NoSuchSource { error }), emit(api(LinkState::Answered))];
    };
    // The name comes first, so that the event of the connection includes it, and the link before the existence: a channel that
    // exists again must not be judged by the link that it had before.
    let name = profile(&[("displayName", &user.display_name), ("login", &user.login)]);
    let proven = [api(LinkState::Up), Fact::Exists];
    name.into_iter().chain(proven).map(emit).collect()
}

/// The error of a channel that does not exist.
pub(super) fn not_found() -> ErrorInfo {
    ErrorInfo::new(
        Code::NotFound(PlatformName::Twitch),
        "no such channel on Twitch; it was suspended or deleted, or the id is wrong",
    )
}

/// The observation for an unparsable answer about one source: only that it could not be parsed.
pub(super) fn unreadable(source: &SourceKey, facet: Facet, at: Timestamp) -> Observation {
    let error = ErrorInfo::new(
        Code::Unreadable(PlatformName::Twitch),
        "a row of Twitch's answer that may be about this channel cannot be read",
    );
    Observation::new(source, at, HELIX, Fact::Unanswered { facet, error })
}

/// What an answer of `GET /streams` proves about one source that was requested.
///
/// `complete` means that nothing is missing from the answer; only then does absence prove anything. Without `is_wanted` only the
/// viewers are. They are always emitted, so that the event of a start includes everything that the same answer reported.
pub(super) fn stream(
    source: &SourceKey,
    found: Option<&Stream>,
    complete: bool,
    is_wanted: bool,
    at: Timestamp,
) -> Vec<Observation> {
    let emit = |fact| Observation::new(source, at, HELIX, fact);
    let Some(stream) = found else {
        let absent = (complete && is_wanted).then(|| emit(Fact::StreamAbsent));
        return absent.into_iter().collect();
    };
    let mut emitted = Vec::new();
    // An empty type is documented as an error: such a row proves neither a stream nor its end.
    let proven = !stream.kind.is_empty();
    // The details come first, so that the event of a start includes them.
    if is_wanted {
        let fields = [
            ("title", &stream.title),
            ("category", &stream.game_name),
            ("displayName", &stream.user_name),
            ("login", &stream.user_login),
        ];
        emitted.extend(profile(&fields).map(emit));
    }
    if let Some(count) = stream.viewer_count.filter(|_| proven) {
        emitted.push(emit(Fact::Viewers {
            count,
            stream_id: Some(stream.id.clone()),
        }));
    }
    if is_wanted && proven {
        emitted.push(emit(Fact::StreamSeen {
            stream_id: stream.id.clone(),
            started_at: stream.started_at,
        }));
    }
    emitted
}

/// What an answer of `GET /streams` proves about the link: a stream proves its channel too, absence proves only an answer.
pub(super) fn answered(found: Option<&Stream>) -> LinkState {
    if found.is_some_and(|stream| !stream.kind.is_empty()) {
        LinkState::Up
    } else {
        LinkState::Answered
    }
}

/// What the list of channels that the bot moderates proves about one source.
///
/// An incomplete list proves nothing about a channel that is not in it.
pub(super) fn moderated(listed: bool, incomplete: Option<&str>) -> Grants {
    one(
        "MODERATOR",
        if listed {
            Ok(true)
        } else {
            incomplete.map_or(Ok(false), Err)
        },
    )
}

/// What the two ids prove about one source, and which roles only other methods could determine.
pub(super) fn identity(source: &SourceKey, bot_user_id: &str, silent: &[(&str, &str)]) -> Grants {
    let mut grants = one("BROADCASTER", Ok(source.id() == bot_user_id));
    for (role, reason) in silent {
        grants.unknown.insert((*role).to_owned(), (*reason).to_owned());
    }
    grants
}

/// Lists the granted scopes, and the relevant scopes that were not granted.
pub(super) fn scopes(granted: &BTreeSet<String>, relevant: &[&str]) -> Grants {
    let name = |scope: &str| format!("scope:{scope}");
    Grants {
        granted: granted.iter().map(|scope| name(scope)).collect(),
        denied: relevant
            .iter()
            .filter(|scope| !granted.contains(**scope))
            .map(|scope| name(scope))
            .collect(),
        unknown: BTreeMap::new(),
    }
}

/// Marks all relevant scopes as unknown.
pub(super) fn unknown_scopes(relevant: &[&str]) -> Grants {
    const REASON: &str = "Twitch accepts the token without listing its scopes";
    let unknown = relevant
        .iter()
        .map(|scope| (format!("scope:{scope}"), REASON.to_owned()));
    Grants {
        unknown: unknown.collect(),
        ..Grants::default()
    }
}

/// An answer about one role: held, not held, or why that is unknown.
pub(super) fn one(role: &str, answer: Result<bool, &str>) -> Grants {
    let mut grants = Grants::default();
    match answer {
        Ok(true) => drop(grants.granted.insert(role.to_owned())),
        Ok(false) => drop(grants.denied.insert(role.to_owned())),
        Err(reason) => drop(grants.unknown.insert(role.to_owned(), reason.to_owned())),
    }
    grants
}

/// An observation about the request-and-response transport.
pub(super) fn api(state: LinkState) -> Fact {
    Fact::Connection {
        transport: Transport::Api,
        state,
    }
}

/// The fields that are not empty, if any.
pub(super) fn profile(fields: &[(&str, &String)]) -> Option<Fact> {
    let fields: BTreeMap<_, _> = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| ((*name).to_owned(), (*value).clone()))
        .collect();
    (!fields.is_empty()).then_some(Fact::Profile { fields })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::PlatformName;

    const AT: Timestamp = Timestamp::EPOCH;

    fn source() -> SourceKey {
        SourceKey::new(PlatformName::Twitch, "900200").unwrap()
    }

    fn row(json: &str) -> Stream {
        serde_json::from_str(json).unwrap()
    }

    fn facts(observations: Vec<Observation>) -> Vec<Fact> {
        observations
            .into_iter()
            .map(|observation| std::sync::Arc::unwrap_or_clone(observation.fact))
            .collect()
    }

    #[test]
    fn a_missing_user_is_no_such_source_over_a_link_that_answers() {
        let emitted = facts(user(&source(), None, AT));
        let [
            Fact::NoSuchSource { error },
            Fact::Connection {
                state: LinkState::Answered,
                ..
            },
        ] = emitted.as_slice()
        else {
            panic!("{emitted:?}");
        };
        assert_eq!(error.code, Code::NotFound(PlatformName::Twitch));
    }

    #[test]
    fn a_live_row_proves_a_stream_its_viewers_and_its_title() {
        let live = row(
            r#"{"id":"4","user_id":"900200","type":"live","viewer_count":37,"title":"building","game_name":"",
                "user_name":"RatCaster","user_login":"ratcaster","started_at":"2026-05-01T18:00:07Z"}"#,
        );
        let emitted = facts(stream(&source(), Some(&live), true, true, AT));
        let [
            Fact::Profile { fields },
            Fact::Viewers { count: 37, .. },
            Fact::StreamSeen {
                stream_id,
                started_at: Some(_),
            },
        ] = emitted.as_slice()
        else {
            panic!("{emitted:?}");
        };
        assert_eq!(stream_id, "4");
        let names: Vec<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["displayName", "login", "title"]);
    }

    #[test]
    fn poll_for_viewers_claims_no_stream() {
        let live = row(r#"{"id":"4","user_id":"900200","type":"live","viewer_count":37,"title":"building"}"#);
        let emitted = facts(stream(&source(), Some(&live), true, false, AT));
        assert!(
            matches!(emitted.as_slice(), [Fact::Viewers { count: 37, .. }]),
            "{emitted:?}"
        );
    }

    #[test]
    fn a_row_without_a_type_proves_neither_a_stream_nor_its_end() {
        let odd = row(r#"{"id":"4","user_id":"900200","type":"","viewer_count":37}"#);
        assert_eq!(stream(&source(), Some(&odd), true, true, AT), []);
        assert_eq!(answered(Some(&odd)), LinkState::Answered);
    }

    #[test]
    fn listed_stream_is_up_and_absent_stream_only_answered() {
        let live = row(r#"{"id":"4","user_id":"900200","type":"live"}"#);
        assert_eq!(answered(Some(&live)), LinkState::Up);
        assert_eq!(answered(None), LinkState::Answered);
    }

    #[test]
    fn absence_counts_only_in_complete_requested_answer() {
        let emitted = |complete, is_wanted| facts(stream(&source(), None, complete, is_wanted, AT));
        assert_eq!(emitted(true, true), [Fact::StreamAbsent]);
        assert_eq!(emitted(false, true), []);
        assert_eq!(emitted(true, false), []);
    }

    #[test]
    fn truncated_list_denies_no_permission() {
        assert!(moderated(true, Some("cut off")).granted.contains("MODERATOR"));
        assert!(moderated(false, None).denied.contains("MODERATOR"));
        let unknown = moderated(false, Some("cut off"));
        assert!(unknown.denied.is_empty());
        assert_eq!(unknown.unknown["MODERATOR"], "cut off");
    }

    #[test]
    fn the_broadcaster_is_known_by_its_id() {
        assert!(identity(&source(), "900200", &[]).granted.contains("BROADCASTER"));
        let other = identity(&source(), "900100", &[("EDITOR", "no answer")]);
        assert!(other.denied.contains("BROADCASTER"));
        assert_eq!(other.unknown["EDITOR"], "no answer");
    }

    #[test]
    fn scopes_that_matter_and_are_missing_are_denied() {
        let grants = scopes(&["a:b".to_owned()].into(), &["a:b", "c:d"]);
        assert!(grants.granted.contains("scope:a:b"));
        assert_eq!(grants.denied.into_iter().collect::<Vec<_>>(), ["scope:c:d"]);
    }
}
