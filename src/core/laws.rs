//! The laws that the whole design rests on, checked on random histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::core::counters::{self, Counters};
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::facet::Facet;
use crate::core::join::Join;
use crate::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Grants, Identity, LinkState, Observation, Transport,
};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::verdict::Status;

/// Moments close together, so that ties and near misses are common, with some far apart.
fn moment() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        0_i64..40,
        (0_i64..40).prop_map(|n| n * 30),
        (0_i64..30).prop_map(|n| n * 7200)
    ]
    .prop_map(|seconds| Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds))
}

fn stream_id() -> impl Strategy<Value = String> {
    (1_u8..7).prop_map(|n| n.to_string())
}

fn error() -> impl Strategy<Value = ErrorInfo> {
    prop_oneof![
        Just("network.timeout"),
        Just("twitch.not_found"),
        Just("http.500")
    ]
    .prop_map(|code| ErrorInfo::new(code, "it happened"))
}

fn link() -> impl Strategy<Value = LinkState> {
    prop_oneof![
        Just(LinkState::Up),
        Just(LinkState::Answered),
        Just(LinkState::Closed),
        error().prop_map(|error| LinkState::Down { error }),
        error().prop_map(|error| LinkState::Refused { error }),
    ]
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        Just(Transport::Api),
        Just(Transport::EventSub),
        Just(Transport::Gateway),
        Just(Transport::Webhook)
    ]
}

fn names() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::collection::btree_set(
        prop_oneof![Just("MODERATOR".to_owned()), Just("VIP".to_owned())],
        0..3,
    )
}

fn auth_result() -> impl Strategy<Value = AuthResult> {
    prop_oneof![
        Just(AuthResult::Valid),
        Just(AuthResult::Expired),
        Just(AuthResult::Revoked)
    ]
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        (transport(), link()).prop_map(|(transport, state)| Fact::Connection { transport, state }),
        (0_u8..2, auth_result()).prop_map(|(n, result)| Fact::Auth {
            identity: Identity::named(format!("twitch/broadcaster:{n}")),
            check: AuthCheck {
                result,
                expires_at: None,
                scopes: BTreeSet::new(),
                reason: None
            },
        }),
        (
            any::<bool>(),
            proptest::option::of(stream_id()),
            proptest::option::of(moment())
        )
            .prop_map(|(live, stream_id, started_at)| Fact::StreamPush {
                live,
                stream_id,
                started_at
            }),
        (stream_id(), proptest::option::of(moment())).prop_map(|(stream_id, started_at)| Fact::StreamSeen {
            stream_id,
            started_at
        }),
        Just(Fact::StreamAbsent),
        (0_u64..5, proptest::option::of(stream_id()))
            .prop_map(|(count, stream_id)| Fact::Viewers { count, stream_id }),
        (0_u8..2, names(), names()).prop_map(|(n, granted, denied)| Fact::Permissions {
            method: format!("method-{n}"),
            grants: Grants {
                granted,
                denied,
                unknown: BTreeMap::new()
            },
        }),
        (0_u64..300).prop_map(|millis| Fact::Latency { millis }),
        (0_u8..3).prop_map(|n| Fact::Profile {
            fields: BTreeMap::from([("displayName".to_owned(), format!("Name {n}"))])
        }),
        (0_u8..3, 0_u64..50, 0_u64..50).prop_map(|(n, messages_in, errors)| Fact::Counters {
            writer: format!("writer-{n}"),
            totals: Counters {
                messages_in,
                errors,
                ..Counters::default()
            },
        }),
        error().prop_map(|error| Fact::Problem { error }),
        error().prop_map(|error| Fact::Unanswered {
            facet: Facet::Stream,
            error
        }),
    ]
}

pub(crate) fn key() -> SourceKey {
    SourceKey::new(PlatformName::Twitch, "900200").expect("the literal is numeric")
}

pub(crate) fn observation() -> impl Strategy<Value = Observation> {
    (moment(), fact()).prop_map(|(at, fact)| Observation::new(&key(), at, "test", fact))
}

pub(crate) fn knowledge() -> impl Strategy<Value = Knowledge> {
    vec(observation(), 0..25).prop_map(|history| Knowledge::of(&history))
}

fn joined(mut one: Knowledge, other: Knowledge) -> Knowledge {
    one.join(other);
    one
}

/// A history, and the same history shuffled with some of it told twice.
fn history_and_its_retelling() -> impl Strategy<Value = (Vec<Observation>, Vec<Observation>)> {
    vec(observation(), 0..60).prop_flat_map(|history| {
        let repeats = proptest::sample::subsequence(history.clone(), 0..=history.len());
        (Just(history), repeats).prop_flat_map(|(history, repeats)| {
            let retold: Vec<_> = history.iter().cloned().chain(repeats).collect();
            (Just(history), Just(retold).prop_shuffle())
        })
    })
}

proptest! {
    #[test]
    fn joining_is_commutative(a in knowledge(), b in knowledge()) {
        prop_assert_eq!(joined(a.clone(), b.clone()), joined(b, a));
    }

    #[test]
    fn joining_is_associative(a in knowledge(), b in knowledge(), c in knowledge()) {
        let left = joined(joined(a.clone(), b.clone()), c.clone());
        prop_assert_eq!(left, joined(a, joined(b, c)));
    }

    #[test]
    fn joining_is_idempotent(a in knowledge(), b in knowledge()) {
        let once = joined(a.clone(), b.clone());
        prop_assert_eq!(joined(once.clone(), once.clone()), once.clone());
        prop_assert_eq!(joined(once.clone(), b), once.clone());
        prop_assert_eq!(joined(once.clone(), a), once);
    }

    #[test]
    fn any_retelling_of_a_history_ends_in_the_identical_document((history, retold) in history_and_its_retelling()) {
        let told = SourceDocument::from_knowledge(key(), Knowledge::of(&history));
        let again = SourceDocument::from_knowledge(key(), Knowledge::of(&retold));
        prop_assert_eq!(told.to_stored(), again.to_stored());
    }

    #[test]
    fn a_stored_document_reads_back_identically(known in knowledge()) {
        let document = SourceDocument::from_knowledge(key(), known);
        let stored = serde_json::Value::Object(document.to_stored());
        prop_assert_eq!(SourceDocument::from_stored(key(), stored).unwrap(), document);
    }

    #[test]
    fn a_summary_survives_being_kept_and_says_what_its_document_says(known in knowledge()) {
        let document = SourceDocument::from_knowledge(key(), known);
        let summary = SourceSummary::of(&document);
        prop_assert_eq!(summary.record(), document.record());
        prop_assert_eq!(SourceSummary::from_bytes(&summary.to_bytes()), Some(summary));
    }

    #[test]
    fn counters_never_fall(history in vec(observation(), 0..60)) {
        let mut known = Knowledge::default();
        let mut before = Counters::default();
        for observation in &history {
            known.learn(observation);
            let after = counters::sum(&known.counters);
            prop_assert!(after.messages_in >= before.messages_in && after.errors >= before.errors);
            before = after;
        }
    }

    #[test]
    fn who_was_said_not_to_exist_is_not_connected_before_being_proven_again(history in vec(observation(), 0..60)) {
        let newest = |over: Transport, wanted: fn(&LinkState) -> bool| {
            let told = history.iter().filter(|told| {
                matches!(&told.fact, Fact::Connection { transport, state } if *transport == over && wanted(state))
            });
            told.map(|told| told.at).max()
        };
        let denies: fn(&LinkState) -> bool = |state| {
            matches!(state, LinkState::Down { error } | LinkState::Refused { error } if error.is_not_found())
        };
        let verdict = SourceDocument::from_knowledge(key(), Knowledge::of(&history)).verdict;
        for over in [Transport::Api, Transport::EventSub, Transport::Gateway, Transport::Webhook] {
            let denied = newest(over, denies);
            let since = newest(over, |state| matches!(state, LinkState::Up | LinkState::Closed));
            if denied.is_some() && denied >= since {
                prop_assert_ne!(verdict.status.value, Status::Connected);
            }
        }
    }

    #[test]
    fn no_history_without_positive_evidence_claims_anything(history in vec(observation(), 0..60)) {
        let proves = |wanted: fn(&Fact) -> bool| history.iter().any(|observation| wanted(&observation.fact));
        let verdict = SourceDocument::from_knowledge(key(), Knowledge::of(&history)).verdict;
        let live = |fact: &Fact| matches!(fact, Fact::StreamPush { live: true, .. } | Fact::StreamSeen { .. });
        if verdict.stream.value == StreamStatus::Online {
            prop_assert!(proves(live));
        }
        let ended = |fact: &Fact| matches!(fact, Fact::StreamAbsent | Fact::StreamPush { live: false, .. });
        if verdict.stream.value == StreamStatus::Offline {
            prop_assert!(proves(ended));
        }
        let up = |fact: &Fact| matches!(fact, Fact::Connection { state: LinkState::Up, .. });
        if verdict.status.value == Status::Connected {
            prop_assert!(proves(up));
        }
        let valid = |fact: &Fact| matches!(fact, Fact::Auth { check, .. } if check.result == AuthResult::Valid);
        if verdict.auth.is_some_and(|auth| auth.value == AuthResult::Valid) {
            prop_assert!(proves(valid));
        }
        prop_assert!(verdict.viewer_count.is_none() || verdict.stream.value == StreamStatus::Online);
    }
}
