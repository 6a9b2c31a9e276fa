//! Tests of the verdicts, facet by facet.

use super::*;
use crate::core::code::Code;
use crate::core::evidence::Knowledge;
use crate::core::observation::{AuthCheck, ErrorInfo, Fact, LinkState, Observation, Transport};
use crate::core::source::PlatformName;
use crate::core::source::SourceKey;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
}

fn verdict(story: impl IntoIterator<Item = (i64, Fact)>) -> Verdict {
    let key = SourceKey::new(PlatformName::Twitch, "900200").unwrap();
    let story: Vec<_> = story
        .into_iter()
        .map(|(seconds, fact)| Observation::new(&key, at(seconds), "test", fact))
        .collect();
    Verdict::of(PlatformName::Twitch, &Knowledge::of(&story).evidence)
}

fn link(transport: Transport, state: LinkState) -> Fact {
    Fact::Connection { transport, state }
}

fn down(code: Code) -> LinkState {
    LinkState::Down {
        error: ErrorInfo::new(code, ""),
    }
}

fn refused(code: Code) -> LinkState {
    LinkState::Refused {
        error: ErrorInfo::new(code, ""),
    }
}

fn auth(identity: &str, result: AuthResult) -> Fact {
    let check = AuthCheck::of(result);
    Fact::Auth {
        identity: Identity::named(identity),
        check: check.into(),
    }
}

#[test]
fn worst_monitored_transport_decides_status() {
    use Status::{Connected, Disconnected, Error};
    let api = |state| link(Transport::Api, state);
    let socket = |state| link(Transport::EventSub, state);
    for (story, status, rule) in [
        (vec![], Disconnected, "status.nothing-proven"),
        (vec![(0, api(LinkState::Up))], Connected, "status.proven"),
        (
            vec![(0, api(LinkState::Up)), (1, api(down(Code::Http(500))))],
            Disconnected,
            "status.transport-down",
        ),
        (
            vec![(0, api(down(Code::Http(500)))), (1, api(LinkState::Up))],
            Connected,
            "status.proven",
        ),
        (
            vec![(0, api(LinkState::Up)), (0, socket(down(Code::NetworkReset)))],
            Disconnected,
            "status.transport-down",
        ),
        (
            vec![(0, api(LinkState::Up)), (0, socket(LinkState::Closed))],
            Connected,
            "status.proven",
        ),
        (
            vec![(0, socket(LinkState::Up)), (1, socket(LinkState::Closed))],
            Disconnected,
            "status.closed",
        ),
        (
            vec![
                (0, api(down(Code::NetworkTimeout))),
                (0, socket(refused(Code::Forbidden(PlatformName::Twitch)))),
            ],
            Error,
            "status.refused",
        ),
        (
            vec![
                (0, api(LinkState::Up)),
                (0, auth("twitch/bot", AuthResult::Revoked)),
            ],
            Error,
            "status.grant-revoked",
        ),
    ] {
        let verdict = verdict(story.clone());
        assert_eq!(
            (verdict.status.value, verdict.status.rule),
            (status, rule),
            "{story:?}"
        );
    }
}

#[test]
fn absence_has_no_meaning_for_missing_channel() {
    let gone = gone();
    for story in [
        [(0, gone.clone()), (1, Fact::StreamAbsent)],
        [(0, Fact::StreamAbsent), (1, gone.clone())],
    ] {
        let stream = verdict(story).stream;
        assert_eq!(
            (stream.value, stream.rule),
            (StreamStatus::Unknown, "stream.no-such-source")
        );
    }
    let seen = Fact::StreamSeen {
        stream_id: "1".into(),
        started_at: None,
    };
    assert_eq!(verdict([(0, gone), (1, seen)]).stream.value, StreamStatus::Online);
}

fn gone() -> Fact {
    Fact::NoSuchSource {
        error: ErrorInfo::new(Code::NotFound(PlatformName::Twitch), "no such channel"),
    }
}

#[test]
fn a_failing_link_leaves_a_source_that_is_gone_as_it_is() {
    // The error code that formerly meant that a source does not exist, on both transports, and a link that works again.
    let api = |state| link(Transport::Api, state);
    for later in [
        api(down(Code::NetworkConnect)),
        api(refused(Code::NotFound(PlatformName::Twitch))),
        api(LinkState::Answered),
        api(LinkState::Up),
        link(Transport::EventSub, down(Code::NetworkReset)),
        Fact::StreamAbsent,
    ] {
        let verdict = verdict([(0, Fact::StreamAbsent), (1, gone()), (2, later.clone())]);
        let (status, stream) = (verdict.status.value, verdict.stream.value);
        assert_eq!(
            (verdict.existence.value, status, stream),
            (Existence::Gone, Status::Error, StreamStatus::Unknown),
            "{later:?}"
        );
        assert_eq!(verdict.status.at, Some(at(1)), "{later:?}");
    }
}

#[test]
fn a_source_that_was_gone_is_back_once_it_is_seen() {
    let back = [
        (0, Fact::StreamAbsent),
        (1, gone()),
        (2, Fact::Exists),
        (2, link(Transport::Api, LinkState::Up)),
    ];
    let verdict = verdict(back);
    assert_eq!(verdict.existence.value, Existence::Exists);
    assert_eq!(verdict.status.value, Status::Connected);
    assert_eq!(verdict.stream.value, StreamStatus::Offline);
}

#[test]
fn a_missing_page_of_the_api_marks_no_source_gone() {
    let refused = link(Transport::Api, refused(Code::NotFound(PlatformName::Discord)));
    let verdict = verdict([(0, Fact::Exists), (0, Fact::StreamAbsent), (9, refused)]);
    assert_eq!(verdict.existence.value, Existence::Exists);
    assert_eq!(
        (verdict.status.value, verdict.stream.value),
        (Status::Error, StreamStatus::Offline)
    );
}

#[test]
fn worst_identity_by_newest_check_decides_authorization() {
    let story = [
        (0, auth("twitch/bot", AuthResult::Valid)),
        (0, auth("twitch/broadcaster:900200", AuthResult::Revoked)),
        (5, auth("twitch/broadcaster:900200", AuthResult::Expired)),
    ];
    assert_eq!(verdict(story).auth.unwrap().value, AuthResult::Expired);
    assert_eq!(verdict([]).auth, None);
}

#[test]
fn viewers_are_claimed_only_of_the_stream_that_is_live() {
    let seen = |id: &str| Fact::StreamSeen {
        stream_id: id.into(),
        started_at: None,
    };
    let viewers = |id: &str| Fact::Viewers {
        count: 37,
        stream_id: Some(id.into()),
    };
    assert_eq!(
        verdict([(0, seen("1")), (0, viewers("1"))]).viewer_count,
        Some(37)
    );
    assert_eq!(verdict([(0, viewers("1")), (9, seen("2"))]).viewer_count, None);
    let ended = Fact::StreamPush {
        live: false,
        stream_id: Some("1".into()),
        started_at: None,
    };
    assert_eq!(
        verdict([(0, seen("1")), (0, viewers("1")), (9, ended)]).viewer_count,
        None
    );
}

#[test]
fn a_method_without_an_answer_never_overrides_one_that_answered() {
    let method = |name: &str, grants| Fact::Permissions {
        method: name.into(),
        grants,
    };
    let one = |name: &str| BTreeSet::from([name.to_owned()]);
    let yes = super::super::observation::Grants {
        granted: one("MODERATOR"),
        ..Default::default()
    };
    let unknown = super::super::observation::Grants {
        unknown: BTreeMap::from([("MODERATOR".to_owned(), "the cursor was lost".to_owned())]),
        ..Default::default()
    };
    let no = super::super::observation::Grants {
        denied: one("MODERATOR"),
        ..Default::default()
    };
    let merged = verdict([
        (0, method("a", yes.clone().into())),
        (9, method("b", unknown.clone().into())),
    ]);
    assert_eq!(merged.permissions, ["MODERATOR"]);
    assert!(
        verdict([(0, method("a", yes.clone().into())), (9, method("b", no.into()))])
            .permissions
            .is_empty()
    );
    assert!(
        verdict([(0, method("a", yes.into())), (9, method("a", unknown.into()))])
            .permissions
            .is_empty()
    );
}

#[test]
fn every_rule_that_decides_is_spelt_out() {
    for rule in [
        "status.proven",
        "stream.push-beats-poll",
        "stream.missing-from-polls",
        "auth.revoked",
    ] {
        assert_ne!(explain(rule), explain("no such rule"));
    }
}
