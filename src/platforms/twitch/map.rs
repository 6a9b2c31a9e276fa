//! From Twitch's answers to observations. Pure: what an answer proves, and nothing more.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Channel, Stream, User};
use crate::core::observation::{ErrorInfo, Fact, Grants, LinkState, Observation, Transport};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Who told: Helix.
pub(super) const HELIX: &str = "twitch.helix";
/// Who told: `id.twitch.tv`.
pub(super) const OAUTH: &str = "twitch.oauth";

/// What a complete answer of `GET /users` proves about one source.
pub(super) fn user(source: &SourceKey, found: Option<&User>, at: Timestamp) -> Vec<Observation> {
    let tell = |fact| Observation::new(source, at, HELIX, fact);
    let Some(user) = found else {
        let error = ErrorInfo::new(
            "twitch.not_found",
            "Twitch knows no such channel; it was renamed away, suspended or deleted, or the id is wrong",
        );
        return vec![tell(api(LinkState::Refused { error }))];
    };
    let mut told = vec![tell(api(LinkState::Up))];
    told.extend(profile(&[("displayName", &user.display_name), ("login", &user.login)]).map(tell));
    told
}

/// What an answer of `GET /streams` proves about one source that was asked for.
///
/// `complete` says that nothing is missing from the answer; only then does absence prove anything.
pub(super) fn stream(
    source: &SourceKey,
    found: Option<&Stream>,
    complete: bool,
    wanted: Wanted,
    at: Timestamp,
) -> Vec<Observation> {
    let tell = |fact| Observation::new(source, at, HELIX, fact);
    let Some(stream) = found else {
        let absent = (complete && wanted.stream).then(|| tell(Fact::StreamAbsent));
        return absent.into_iter().collect();
    };
    let mut told = Vec::new();
    // An empty type is documented as an error: such a row proves neither a stream nor its end.
    let proven = !stream.kind.is_empty();
    if wanted.stream && proven {
        told.push(tell(Fact::StreamSeen {
            stream_id: stream.id.clone(),
            started_at: stream.started_at,
        }));
    }
    if wanted.stream {
        let fields = [
            ("title", &stream.title),
            ("category", &stream.game_name),
            ("displayName", &stream.user_name),
            ("login", &stream.user_login),
        ];
        told.extend(profile(&fields).map(tell));
    }
    if let Some(count) = stream.viewer_count.filter(|_| wanted.viewers && proven) {
        told.push(tell(Fact::Viewers {
            count,
            stream_id: Some(stream.id.clone()),
        }));
    }
    told
}

/// What an answer of `GET /streams` proves of the link: a stream proves its channel too, absence proves an answer only.
pub(super) fn answered(found: Option<&Stream>) -> LinkState {
    if found.is_some_and(|stream| !stream.kind.is_empty()) {
        LinkState::Up
    } else {
        LinkState::Answered
    }
}

/// What is asked of `GET /streams`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stream: bool,
    pub(super) viewers: bool,
}

/// What `GET /channels` tells about one source.
pub(super) fn channel(source: &SourceKey, channel: &Channel, at: Timestamp) -> Option<Observation> {
    profile(&[("title", &channel.title), ("category", &channel.game_name)])
        .map(|fact| Observation::new(source, at, HELIX, fact))
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

/// What the two ids prove about one source, and what only others could tell.
pub(super) fn identity(source: &SourceKey, bot_user_id: &str, silent: &[(&str, &str)]) -> Grants {
    let mut grants = one("BROADCASTER", Ok(source.id() == bot_user_id));
    for (role, reason) in silent {
        grants.unknown.insert((*role).to_owned(), (*reason).to_owned());
    }
    grants
}

/// Lists the granted scopes, and of the scopes that matter to us those that were not granted.
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

/// An answer about one role: held, not held, or why that is not known.
pub(super) fn one(role: &str, answer: Result<bool, &str>) -> Grants {
    let mut grants = Grants::default();
    match answer {
        Ok(true) => drop(grants.granted.insert(role.to_owned())),
        Ok(false) => drop(grants.denied.insert(role.to_owned())),
        Err(reason) => drop(grants.unknown.insert(role.to_owned(), reason.to_owned())),
    }
    grants
}

/// A fact about the request-and-response transport.
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
    const BOTH: Wanted = Wanted {
        stream: true,
        viewers: true,
    };

    fn source() -> SourceKey {
        SourceKey::new(PlatformName::Twitch, "900200").unwrap()
    }

    fn row(json: &str) -> Stream {
        serde_json::from_str(json).unwrap()
    }

    fn facts(observations: Vec<Observation>) -> Vec<Fact> {
        observations
            .into_iter()
            .map(|observation| observation.fact)
            .collect()
    }

    #[test]
    fn a_missing_user_is_refused_as_not_found_and_says_nothing_of_a_stream() {
        let told = facts(user(&source(), None, AT));
        let [
            Fact::Connection {
                state: LinkState::Refused { error },
                ..
            },
        ] = told.as_slice()
        else {
            panic!("{told:?}");
        };
        assert_eq!(error.code, "twitch.not_found");
    }

    #[test]
    fn a_live_row_proves_a_stream_its_viewers_and_its_title() {
        let live = row(
            r#"{"id":"4","user_id":"900200","type":"live","viewer_count":37,"title":"building","game_name":"",
                "user_name":"RatCaster","user_login":"ratcaster","started_at":"2026-05-01T18:00:07Z"}"#,
        );
        let told = facts(stream(&source(), Some(&live), true, BOTH, AT));
        let [
            Fact::StreamSeen {
                stream_id,
                started_at: Some(_),
            },
            Fact::Profile { fields },
            Fact::Viewers { count: 37, .. },
        ] = told.as_slice()
        else {
            panic!("{told:?}");
        };
        assert_eq!(stream_id, "4");
        let names: Vec<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["displayName", "login", "title"]);
    }

    #[test]
    fn a_row_without_a_type_proves_neither_a_stream_nor_its_end() {
        let odd = row(r#"{"id":"4","user_id":"900200","type":"","viewer_count":37}"#);
        assert_eq!(stream(&source(), Some(&odd), true, BOTH, AT), []);
        assert_eq!(answered(Some(&odd)), LinkState::Answered);
    }

    #[test]
    fn a_stream_proves_its_channel_and_an_absence_only_that_there_was_an_answer() {
        let live = row(r#"{"id":"4","user_id":"900200","type":"live"}"#);
        assert_eq!(answered(Some(&live)), LinkState::Up);
        assert_eq!(answered(None), LinkState::Answered);
    }

    #[test]
    fn absence_proves_something_only_in_a_complete_answer_and_only_when_asked() {
        let told = |complete, wanted| facts(stream(&source(), None, complete, wanted, AT));
        assert_eq!(told(true, BOTH), [Fact::StreamAbsent]);
        assert_eq!(told(false, BOTH), []);
        let viewers = Wanted {
            stream: false,
            ..BOTH
        };
        assert_eq!(told(true, viewers), []);
    }

    #[test]
    fn a_list_that_may_be_cut_off_denies_nobody() {
        assert!(moderated(true, Some("cut off")).granted.contains("MODERATOR"));
        assert!(moderated(false, None).denied.contains("MODERATOR"));
        let unknown = moderated(false, Some("cut off"));
        assert!(unknown.denied.is_empty());
        assert_eq!(unknown.unknown["MODERATOR"], "cut off");
    }

    #[test]
    fn the_broadcaster_is_known_by_its_id() {
        assert!(identity(&source(), "900200", &[]).granted.contains("BROADCASTER"));
        let other = identity(&source(), "900100", &[("EDITOR", "nobody tells")]);
        assert!(other.denied.contains("BROADCASTER"));
        assert_eq!(other.unknown["EDITOR"], "nobody tells");
    }

    #[test]
    fn scopes_that_matter_and_are_missing_are_denied() {
        let grants = scopes(&["a:b".to_owned()].into(), &["a:b", "c:d"]);
        assert!(grants.granted.contains("scope:a:b"));
        assert_eq!(grants.denied.into_iter().collect::<Vec<_>>(), ["scope:c:d"]);
    }
}
