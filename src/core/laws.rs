//! Property tests of the laws on which the design depends, with random histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::core::code::Code;
use crate::core::counters::{self, Counters};
use crate::core::document::SourceDocument;
use crate::core::evidence::{Knowledge, LinkNow};
use crate::core::facet::Facet;
use crate::core::future;
use crate::core::join::Join;
use crate::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Grants, Identity, LinkState, Observation, Transport,
};
use crate::core::permission::{self, Allowed, Facts, Need};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::{Chain, Transition, transitions};
use crate::core::verdict::{Existence, Holding, Status, holding};

/// Times close together, so that ties and near misses are frequent, and some far apart.
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
        Just(Code::NetworkTimeout),
        Just(Code::NotFound(PlatformName::Twitch)),
        Just(Code::NotFound(PlatformName::Discord)),
        Just(Code::Http(500))
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

fn connection() -> impl Strategy<Value = Fact> {
    (transport(), link()).prop_map(|(transport, state)| Fact::Connection { transport, state })
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        connection(),
        Just(Fact::Exists),
        error().prop_map(|error| Fact::NoSuchSource { error }),
        (0_u8..2, auth_result()).prop_map(|(n, result)| Fact::Auth {
            identity: Identity::named(format!("twitch/broadcaster:{n}")),
            check: AuthCheck::of(result).into(),
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
            }
            .into(),
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

fn start() -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000)
}

/// Error of a wrong clock in seconds: from a few up to years.
fn ahead() -> impl Strategy<Value = i64> {
    prop_oneof![
        -60_i64..3,
        3_i64..120,
        Just(3_600),
        Just(86_400),
        Just(300_000_000)
    ]
}

/// Start of a stream in seconds around the time of its message: often in the future, by seconds up to an hour.
fn start_offset() -> impl Strategy<Value = i64> {
    prop_oneof![-300_i64..60, 2_i64..400, Just(3_600), Just(-3_600)]
}

/// An end without a stream id gets the id on receipt, from the evidence at that time.
fn is_unnamed_end(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::StreamPush {
            live: false,
            stream_id: None,
            ..
        }
    )
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

/// A history, and the same history shuffled and with some duplicates.
fn history_and_its_retelling() -> impl Strategy<Value = (Vec<Observation>, Vec<Observation>)> {
    vec(observation(), 0..60).prop_flat_map(|history| {
        let repeats = proptest::sample::subsequence(history.clone(), 0..=history.len());
        (Just(history), repeats).prop_flat_map(|(history, repeats)| {
            let retold: Vec<_> = history.iter().cloned().chain(repeats).collect();
            (Just(history), Just(retold).prop_shuffle())
        })
    })
}

/// Events of a bot on any platform: most permissions are granted, and sometimes an account, the source or the permission to
/// take part is lost. Without that bias hardly any history would result in a yes.
fn bot_fact() -> impl Strategy<Value = Fact> {
    let identity = prop_oneof![
        6 => Just("bot".to_owned()),
        1 => Just("bot:7".to_owned()),
        1 => Just("broadcaster:7".to_owned()),
        1 => Just("app".to_owned()),
    ];
    let result = prop_oneof![6 => Just(AuthResult::Valid), 1 => auth_result()];
    let state = prop_oneof![
        6 => Just(LinkState::Up),
        2 => link(),
    ];
    let grants = prop_oneof![
        6 => Just((all_needs(), BTreeSet::new())),
        1 => Just((BTreeSet::from(["BANNED".to_owned()]), BTreeSet::new())),
        1 => Just((BTreeSet::new(), BTreeSet::from(["BANNED".to_owned()]))),
        1 => Just((BTreeSet::new(), all_needs())),
    ];
    prop_oneof![
        (identity, result, proptest::option::weighted(0.3, moment())).prop_map(
            |(name, result, expires_at)| {
                Fact::Auth {
                    identity: Identity::named(name),
                    check: AuthCheck {
                        expires_at,
                        ..AuthCheck::of(result)
                    }
                    .into(),
                }
            }
        ),
        (transport(), state).prop_map(|(transport, state)| Fact::Connection { transport, state }),
        prop_oneof![
            6 => Just(Fact::Exists),
            1 => error().prop_map(|error| Fact::NoSuchSource { error }),
        ],
        (0_u8..2, grants).prop_map(|(n, (granted, denied))| Fact::Permissions {
            method: format!("method-{n}"),
            grants: Grants {
                granted,
                denied,
                unknown: BTreeMap::new()
            }
            .into(),
        }),
    ]
}

/// Every permission that any action of any platform requires.
fn all_needs() -> BTreeSet<String> {
    fn collect(need: &Need, names: &mut BTreeSet<String>) {
        match need {
            Need::Held(name) => drop(names.insert((*name).to_owned())),
            Need::Not(_) => {}
            Need::All(parts) | Need::Any(parts) => parts.iter().for_each(|part| collect(part, names)),
        }
    }
    let mut names = BTreeSet::new();
    for platform in PlatformName::ALL {
        for action in permission::actions(platform) {
            collect(&action.need, &mut names);
        }
    }
    names
}

/// A history of one bot on one platform, with accounts of that platform.
fn bot_history() -> impl Strategy<Value = (PlatformName, Vec<Observation>)> {
    let platform = prop_oneof![
        Just(PlatformName::Twitch),
        Just(PlatformName::Kick),
        Just(PlatformName::Discord)
    ];
    (platform, vec((moment(), bot_fact()), 0..20)).prop_map(|(platform, facts)| {
        let key = SourceKey::new(platform, "900200").expect("the literal is numeric");
        let of_platform = |fact| match fact {
            Fact::Auth { identity, check } => Fact::Auth {
                identity: Identity::named(format!("{platform}/{identity}")),
                check,
            },
            other => other,
        };
        let history = facts
            .into_iter()
            .map(|(at, fact)| Observation::new(&key, at, "test", of_platform(fact)));
        (platform, history.collect())
    })
}

proptest! {
    #[test]
    fn revoked_expired_gone_or_banned_never_yields_yes((platform, history) in bot_history(), now in moment()) {
        let known = Knowledge::of(&history);
        let facts = Facts { platform, evidence: &known.evidence, now: Some(now) };
        let newest = |wanted: &dyn Fn(&Fact) -> bool| {
            let found = history.iter().filter(|observation| wanted(&observation.fact));
            found.map(|observation| observation.at).max()
        };
        let denied = newest(&|fact| matches!(fact, Fact::NoSuchSource { .. }));
        let seen = newest(&|fact| matches!(fact, Fact::Exists));
        let gone = seen.is_none() || denied >= seen;
        let says_banned = |fact: &Fact, yes: bool| matches!(
            fact,
            Fact::Permissions { grants, .. }
                if (if yes { &grants.granted } else { &grants.denied }).contains("BANNED")
        );
        // Evidence with exactly the same time may count either way, and what a method withdraws is no longer reported.
        let banned = holding(&known.evidence, "BANNED").0 == Holding::Yes
            && newest(&|fact| says_banned(fact, true)) > newest(&|fact| says_banned(fact, false));
        let lost = known.evidence.auth.values().any(|check| check.value.result != AuthResult::Valid);
        let bot = Identity::named(format!("{platform}/bot"));
        let expired = known.evidence.auth.get(&bot)
            .is_some_and(|check| check.value.expires_at.is_some_and(|end| end <= now));
        let unchecked = !known.evidence.auth.keys().any(|identity| identity.as_str().contains("/bot"));
        let forbidden = lost || expired || unchecked || gone || banned;
        for action in permission::actions(platform) {
            let answer = permission::can(facts, action);
            prop_assert!(!(forbidden && answer.allowed == Allowed::Yes), "{}: {:?}", action.name, answer);
            for name in all_needs() {
                let answer = permission::holds(facts, &name);
                prop_assert!(!(forbidden && answer.allowed == Allowed::Yes), "{name}: {answer:?}");
            }
        }
    }

    #[test]
    fn an_answer_is_as_old_as_its_oldest_input((platform, history) in bot_history(), now in moment()) {
        let known = Knowledge::of(&history);
        let facts = Facts { platform, evidence: &known.evidence, now: Some(now) };
        for action in permission::actions(platform) {
            let answer = permission::can(facts, action);
            if answer.allowed == Allowed::Yes {
                let checked = known.evidence.auth.values().map(|check| check.at).min();
                prop_assert!(answer.as_of.is_some() && answer.as_of <= checked, "{answer:?}");
            }
        }
    }

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
        let whole = SourceDocument::from_knowledge(key(), Knowledge::of(&history));
        let again = SourceDocument::from_knowledge(key(), Knowledge::of(&retold));
        prop_assert_eq!(whole.to_stored(), again.to_stored());
    }

    #[test]
    fn a_stored_document_reads_back_identically(known in knowledge()) {
        let document = SourceDocument::from_knowledge(key(), known);
        let stored = serde_json::Value::Object(document.to_stored());
        prop_assert_eq!(SourceDocument::from_stored(key(), stored).unwrap(), document);
    }

    #[test]
    fn summary_round_trips_and_matches_its_document(known in knowledge()) {
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
            known.update(observation);
            let after = counters::sum(&known.counters);
            prop_assert!(after.messages_in >= before.messages_in && after.errors >= before.errors);
            before = after;
        }
    }

    #[test]
    fn missing_source_is_error_without_stream_until_seen(history in vec(observation(), 0..60)) {
        let newest = |wanted: fn(&Fact) -> bool| {
            history.iter().filter(|it| wanted(&it.fact)).map(|it| it.at).max()
        };
        let missing = newest(|fact| matches!(fact, Fact::NoSuchSource { .. }));
        let seen = newest(|fact| {
            matches!(fact, Fact::Exists | Fact::StreamSeen { .. } | Fact::StreamPush { .. })
        });
        let verdict = SourceDocument::from_knowledge(key(), Knowledge::of(&history)).verdict;
        let gone = missing.is_some() && missing >= seen;
        prop_assert_eq!(verdict.existence.value == Existence::Gone, gone);
        if gone {
            prop_assert_eq!(verdict.status.value, Status::Error);
            prop_assert_eq!((verdict.stream.value, verdict.broadcast, verdict.viewer_count), (StreamStatus::Unknown, None, None));
        }
    }

    #[test]
    fn no_fact_about_a_connection_changes_a_stream_verdict(
        history in vec(observation(), 0..60),
        connections in vec((moment(), connection()), 1..20),
    ) {
        let mut known = Knowledge::of(&history);
        let before = SourceDocument::from_knowledge(key(), known.clone()).verdict;
        for (at, fact) in connections {
            known.update(&Observation::new(&key(), at, "test", fact));
        }
        let after = SourceDocument::from_knowledge(key(), known).verdict;
        prop_assert_eq!((before.existence, before.stream, before.broadcast), (after.existence, after.stream, after.broadcast));
        prop_assert_eq!(before.viewer_count, after.viewer_count);
    }

    #[test]
    fn evidence_dated_in_the_future_never_outranks_what_comes_later(
        history in vec((0_i64..600, ahead(), fact()), 0..40),
        began in 0_i64..700,
    ) {
        // Each observation is received at its time by a correct clock, but dated by a wrong one.
        let mut known = Knowledge::default();
        let mut moments: Vec<_> = history.into_iter().filter(|(_, _, fact)| !is_unnamed_end(fact)).collect();
        moments.sort_by_key(|(second, ..)| *second);
        for (second, ahead, fact) in moments {
            let received = start().plus_secs(second);
            let dated = Observation::new(&key(), received.plus_secs(ahead), "test", fact);
            known.update(&dated.received(received));
        }
        let now = start().plus_secs(1_200);
        let api = |state| Fact::Connection { transport: Transport::Api, state };
        let latest = [
            Fact::Exists,
            api(LinkState::Up),
            Fact::StreamSeen { stream_id: "now".to_owned(), started_at: Some(start().plus_secs(began)) },
            Fact::Viewers { count: 77, stream_id: Some("now".to_owned()) },
        ];
        for fact in latest {
            known.update(&Observation::new(&key(), now, "test", fact).received(now));
        }
        let api_works = matches!(known.evidence.connection[&Transport::Api].now(), LinkNow::Up);
        let verdict = SourceDocument::from_knowledge(key(), known).verdict;
        prop_assert!(api_works);
        prop_assert_eq!(verdict.existence.value, Existence::Exists);
        prop_assert_eq!((verdict.stream.value, verdict.stream.at), (StreamStatus::Online, Some(now)));
        prop_assert_eq!((verdict.broadcast.map(|it| it.stream_id), verdict.viewer_count), (Some("now".to_owned()), Some(77)));
    }

    #[test]
    fn listed_stream_is_current_whatever_start_the_last_one_claimed(
        platform in prop_oneof![Just(PlatformName::Twitch), Just(PlatformName::Kick), Just(PlatformName::Discord)],
        (claimed, began) in (start_offset(), start_offset()),
        (end, end_has_id) in (0_i64..90, any::<bool>()),
        (restart, poll) in (proptest::option::of(0_i64..60), 0_i64..60),
    ) {
        prop_assume!(claimed != began);
        let key = SourceKey::new(platform, "900200").expect("the literal is numeric");
        let at = |second| start().plus_secs(second);
        // Kick's ids are starts.
        let id = |name: &str, second| match platform {
            PlatformName::Kick => at(second).to_string(),
            _ => name.to_owned(),
        };
        let push = |name, second, live, has_id: bool| Fact::StreamPush {
            live,
            stream_id: has_id.then(|| id(name, second)),
            started_at: Some(at(second)),
        };
        let mut known = Knowledge::default();
        let mut receive = |second, fact| {
            let mut observation = known.receive(Observation::new(&key, at(second), "test", fact), at(second));
            known.name_end(&mut observation);
            known.update(&observation);
            SourceDocument::from_knowledge(key.clone(), known.clone()).verdict
        };
        receive(0, push("a", claimed, true, true));
        let ended = receive(end, push("a", claimed, false, end_has_id));
        prop_assert_eq!(ended.stream.value, StreamStatus::Offline);
        if let Some(restart) = restart {
            let pushed = receive(end + restart, push("b", began, true, true));
            prop_assert_eq!(pushed.broadcast.map(|it| it.stream_id), Some(id("b", began)));
            prop_assert_eq!((pushed.stream.value, pushed.stream.at), (StreamStatus::Online, Some(at(end + restart))));
        }
        for second in (0..120).map(|n| end + restart.unwrap_or(0) + poll + n * 10) {
            let stream_id = id("b", began);
            receive(second, Fact::Viewers { count: 77, stream_id: Some(stream_id.clone()) });
            let verdict = receive(second, Fact::StreamSeen { stream_id: stream_id.clone(), started_at: Some(at(began)) });
            prop_assert_eq!((verdict.stream.value, verdict.stream.at), (StreamStatus::Online, Some(at(second))));
            prop_assert_eq!((verdict.broadcast.map(|it| it.stream_id), verdict.viewer_count), (Some(stream_id), Some(77)));
        }
    }

    #[test]
    fn refused_evidence_leaves_nothing_that_is_dated_in_the_future(
        present in knowledge(),
        future in knowledge(),
        ahead in 0_i64..400_000,
    ) {
        // Times of histories span 60 hours, so `now` is before, within and after them.
        let now = start().plus_secs(ahead - 100_000);
        let mut known = joined(present, future);
        known.drop_future(now);
        prop_assert!(!known.clone().drop_future(now), "once is enough");
        prop_assert!(known.clone().newest().is_none_or(|newest| newest.millis_since(now) <= future::TOLERANCE_MS));
        prop_assert_eq!(joined(known.clone(), known.clone()), known.clone());
        // Rejected evidence does not count: whatever is observed now is the newest.
        known.update(&Observation::new(&key(), now.plus_millis(future::TOLERANCE_MS + 1), "test", Fact::Exists));
        let verdict = SourceDocument::from_knowledge(key(), known).verdict;
        prop_assert_eq!(verdict.existence.value, Existence::Exists);
    }

    #[test]
    fn settling_after_a_jump_leaves_nothing_ahead_and_drops_nothing(known in knowledge(), ahead in 0_i64..400_000) {
        let now = start().plus_secs(ahead - 100_000);
        let mut redated = known.clone();
        redated.redate_future(now);
        prop_assert!(redated.clone().newest().is_none_or(|newest| newest.millis_since(now) <= future::ENTRY_TOLERANCE_MS));
        prop_assert_eq!(joined(redated.clone(), redated.clone()), redated.clone());
        let members = |known: &Knowledge| {
            let evidence = &known.evidence;
            let maps = (evidence.connection.len(), evidence.auth.len(), evidence.permissions.len(), evidence.stream.streams.len());
            (maps, evidence.viewers.is_some(), evidence.latency.is_some(), evidence.error.is_some(), known.counters.len())
        };
        prop_assert_eq!(members(&redated), members(&known));
    }

    #[test]
    fn each_transition_in_a_history_starts_where_the_last_one_ended(
        histories in vec(vec(observation(), 0..20), 1..4),
    ) {
        // Several writers, each with only its own observations, record into one history.
        let mut chain = Chain::default();
        let mut recorded: Vec<Transition> = Vec::new();
        for history in histories {
            let mut document = SourceDocument::new(key());
            for observation in &history {
                let before = document.verdict.clone();
                document.join(Knowledge::from(observation));
                recorded.extend(transitions(&before, &document.verdict).into_iter().filter_map(|next| chain.append(next)));
            }
        }
        let mut ends: BTreeMap<Facet, &Transition> = BTreeMap::new();
        for transition in &recorded {
            let end = ends.insert(transition.facet, transition);
            if transition.initial {
                // A baseline has no previous value, and only a baseline may precede it.
                prop_assert_eq!(&transition.from, &None);
                prop_assert!(end.is_none_or(|end| end.initial), "{:?}", &recorded);
            } else if let Some(end) = end {
                prop_assert_eq!(&end.to, &transition.from, "{:?}", &recorded);
            }
        }
        prop_assert_eq!(Chain::of(&recorded), chain);
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
