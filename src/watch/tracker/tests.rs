//! Merged inputs, the changes that follow, and when sources are written without one.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::core::code::Code;
use crate::core::compact::Compact;
use crate::core::facet::Facet;
use crate::core::laws;
use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Identity};
use crate::core::transition::Transition;

fn key(id: u32) -> SourceKey {
    format!("twitch:{id}").parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
}

fn seen(id: u32, seconds: i64, fact: Fact) -> Input {
    Input::Observed(Observation::new(&key(id), at(seconds), "test", fact))
}

fn link(transport: Transport, state: LinkState) -> Fact {
    Fact::Connection { transport, state }
}

fn down() -> LinkState {
    LinkState::Down {
        error: ErrorInfo::new(Code::NetworkTimeout, "no answer"),
    }
}

fn stored(document: &SourceDocument) -> Versioned<SourceDocument> {
    Versioned {
        value: document.clone(),
        version: Version("1".to_owned()),
    }
}

fn facets(change: &Change) -> Vec<(Facet, String)> {
    let changes = change.steps.iter().flat_map(|step| &step.changes);
    changes
        .map(|change| (change.facet, change.to.clone().unwrap_or_default()))
        .collect()
}

#[test]
fn event_of_a_revocation_contains_the_refusal_that_came_with_it() {
    let checked = |result| Fact::Auth {
        identity: Identity::named("twitch/bot"),
        check: AuthCheck::of(result).into(),
    };
    let refused = LinkState::Refused {
        error: ErrorInfo::new(Code::NetworkTimeout, "the token is refused"),
    };
    let mut tracker = Tracker::new("w");
    let proven = [link(Transport::Api, LinkState::Up), checked(AuthResult::Valid)];
    tracker.merge(proven.map(|fact| seen(1, 0, fact)).into(), at(0));
    let refusal = [checked(AuthResult::Revoked), link(Transport::Api, refused)];
    let changes = tracker.merge(refusal.map(|fact| seen(1, 5, fact)).into(), at(5));
    let [step] = changes[0].steps.as_slice() else {
        panic!("{:?}", changes[0].steps)
    };
    assert_eq!(step.after.verdict.status.rule, "status.grant-revoked");
    // A login that another process stores does not end the refusal, which only the next response does.
    let mut stored = step.after.clone();
    let login = Observation::new(&key(1), at(6), "test", checked(AuthResult::Valid));
    stored.join(Knowledge::from(&login));
    assert_eq!(stored.verdict.status.rule, "status.refused");
}

#[test]
fn start_without_id_and_time_is_about_the_stream_that_is_live() {
    let start = |id: Option<&str>, started_at| Fact::StreamPush {
        live: true,
        stream_id: id.map(str::to_owned),
        started_at,
    };
    let zero = Timestamp::from_millis(-62_135_596_800_000);
    for (id, started_at, is_current) in [
        (None, None, true),
        (None, Some(zero), true),
        (Some(""), None, true),
        (None, Some(at(0)), true),
        (None, Some(at(95)), false),
        (Some("40900006"), None, false),
    ] {
        let mut tracker = Tracker::new("w");
        let listed = Fact::StreamSeen {
            stream_id: "40900005".to_owned(),
            started_at: Some(at(0)),
        };
        tracker.merge(vec![seen(1, 60, listed)], at(60));
        let changes = tracker.merge(vec![seen(1, 100, start(id, started_at))], at(100));
        assert_eq!(changes.is_empty(), is_current, "{id:?} {started_at:?}");
        let broadcast = tracker.document(&key(1)).unwrap().verdict.broadcast.unwrap();
        assert_eq!(
            broadcast.stream_id == "40900005",
            is_current,
            "{id:?} {started_at:?}"
        );
        if is_current {
            assert_eq!(broadcast.started_at, Some(at(0)));
        }
    }
    let mut tracker = Tracker::new("w");
    let changes = tracker.merge(vec![seen(1, 100, start(None, None))], at(100));
    assert_eq!(facets(&changes[0]), [(Facet::Stream, "ONLINE".into())]);
}

#[test]
fn event_keeps_its_time_while_our_clock_is_behind() {
    for (behind_by, second) in [(0, 10), (3_600_000, 3_610)] {
        let mut tracker = Tracker::new("w");
        tracker.merge(vec![seen(1, 3_600, Fact::StreamAbsent)], at(3_600));
        tracker.behind_by = behind_by;
        let start = Fact::StreamPush {
            live: true,
            stream_id: Some("77".to_owned()),
            started_at: Some(at(3_609)),
        };
        tracker.merge(vec![seen(1, 3_610, start)], at(10));
        let known = tracker.document(&key(1)).unwrap();
        assert_eq!(known.verdict.stream.value, StreamStatus::Online);
        // Unless our clock is known to be behind, the evidence counts as dated ahead until now.
        assert_eq!(known.verdict.stream.at, Some(at(second)), "{behind_by}");
    }
}

#[test]
fn what_becomes_known_after_a_change_is_no_part_of_the_baseline() {
    let title = |title: &str| Fact::Profile {
        fields: [("title".to_owned(), title.to_owned())].into(),
    };
    let listed = || Fact::StreamSeen {
        stream_id: "77".to_owned(),
        started_at: None,
    };
    for changes_first in [false, true] {
        let mut tracker = Tracker::new("w");
        tracker.merge(vec![seen(1, 0, Fact::StreamAbsent)], at(0));
        if changes_first {
            tracker.merge(vec![seen(1, 10, listed())], at(10));
        }
        tracker.merge(vec![seen(1, 20, title("Chess"))], at(20));
        assert_eq!(tracker.writes.due_for_sink(at(20), 900_000, 10), [key(1)]);
        assert_eq!(tracker.writes.completes_baseline(&key(1)), !changes_first);
    }
}

#[test]
fn start_without_id_is_announced_once() {
    let start = Fact::StreamPush {
        live: true,
        stream_id: None,
        started_at: None,
    };
    let listed = Fact::StreamSeen {
        stream_id: "40900005".to_owned(),
        started_at: Some(at(95)),
    };
    let mut tracker = Tracker::new("w");
    tracker.merge(vec![seen(1, 60, Fact::StreamAbsent)], at(60));
    let announced = tracker.merge(vec![seen(1, 100, start)], at(100));
    assert_eq!(facets(&announced[0]), [(Facet::Stream, "ONLINE".into())]);
    assert!(tracker.merge(vec![seen(1, 130, listed)], at(130)).is_empty());
    let broadcast = tracker.document(&key(1)).unwrap().verdict.broadcast.unwrap();
    assert_eq!(
        (broadcast.stream_id.as_str(), broadcast.started_at),
        ("40900005", Some(at(95)))
    );
    let end = Fact::StreamPush {
        live: false,
        stream_id: None,
        started_at: None,
    };
    let ended = tracker.merge(vec![seen(1, 200, end)], at(200));
    assert_eq!(facets(&ended[0]), [(Facet::Stream, "OFFLINE".into())]);
}

#[test]
fn a_restart_announces_nothing_that_was_announced() {
    let mut tracker = Tracker::new("w");
    let inputs = vec![
        seen(1, 0, link(Transport::Api, LinkState::Up)),
        seen(1, 0, Fact::StreamAbsent),
    ];
    let changes = tracker.merge(inputs.clone(), at(0));
    assert_eq!(
        facets(&changes[0]),
        [
            (Facet::Status, "CONNECTED".into()),
            (Facet::Stream, "OFFLINE".into())
        ]
    );
    assert!(changes[0].steps[0].first && !changes[0].steps[1].first);
    let mut again = Tracker::new("w");
    again.restore(stored(&changes[0].steps.last().unwrap().after));
    let later = vec![
        seen(1, 60, link(Transport::Api, LinkState::Up)),
        seen(1, 60, Fact::StreamAbsent),
    ];
    assert!(again.merge(later, at(60)).is_empty());
    assert!(again.merge(inputs, at(61)).is_empty());
}

#[test]
fn totals_go_on_after_a_restart_and_count_errors_and_reconnects() {
    let mut tracker = Tracker::new("w");
    let one = CountDelta {
        messages_in: 5,
        ..CountDelta::default()
    };
    tracker.merge(vec![Input::Counted(key(1), one)], at(0));
    let mut again = Tracker::new("w");
    again.restore(stored(&tracker.document(&key(1)).unwrap()));
    let inputs = vec![
        seen(1, 1, link(Transport::Gateway, down())),
        seen(1, 2, link(Transport::Gateway, LinkState::Up)),
        seen(1, 3, link(Transport::Gateway, LinkState::Up)),
        seen(1, 3, link(Transport::EventSub, down())),
        Input::Counted(key(1), one),
    ];
    again.merge(inputs, at(3));
    let totals = again.document(&key(1)).unwrap().knowledge.counters["w"];
    assert_eq!((totals.messages_in, totals.errors, totals.reconnects), (10, 1, 1));
}

#[test]
fn each_source_is_due_once_a_period_and_only_when_changed() {
    let mut tracker = Tracker::new("w");
    let all: Vec<Input> = (1..=100).map(|id| seen(id, 0, Fact::StreamAbsent)).collect();
    tracker.merge(all.clone(), at(0));
    assert!(
        tracker.writes.due_for_sink(at(0), 30_000, 1000).is_empty(),
        "not all at once"
    );
    let mut spread = Vec::new();
    for second in 1..=31 {
        tracker.merge(all.clone(), at(second));
        spread.push(tracker.writes.due_for_sink(at(second), 30_000, 1000).len());
    }
    let total: usize = spread.iter().sum();
    assert!((100..=110).contains(&total), "{spread:?}");
    assert!(spread.iter().all(|count| *count < 20), "{spread:?}");
}

#[test]
fn clock_that_returns_redates_every_source_at_once() {
    const DAY: i64 = 86_400;
    let mut tracker = Tracker::new("w");
    let up = |id| seen(id, DAY, link(Transport::Api, LinkState::Up));
    tracker.merge(vec![up(1), up(2)], at(DAY));
    tracker.redate_future(at(5));
    for id in [1, 2] {
        assert_eq!(tracker.document(&key(id)).unwrap().verdict.status.at, Some(at(5)));
    }
    tracker.writes.due_documents(at(5), 30_000, 10);
    tracker.redate_future(at(6));
    assert_eq!(
        tracker.writes.due_documents(at(6), 30_000, 10),
        [] as [SourceKey; 0]
    );
}

#[test]
fn clock_set_back_does_not_suppress_due_sources() {
    let mut tracker = Tracker::new("w");
    tracker.merge(vec![seen(1, 0, Fact::StreamAbsent)], at(0));
    tracker.writes.due_for_sink(at(0), 30_000, 10);
    assert_eq!(tracker.writes.due_for_sink(at(-900), 30_000, 10).len(), 1);
}

#[test]
fn what_is_up_is_closed_at_the_end_and_nothing_else() {
    let mut tracker = Tracker::new("w");
    let inputs = vec![
        seen(1, 0, link(Transport::Api, LinkState::Up)),
        seen(1, 5, link(Transport::EventSub, LinkState::Up)),
        seen(2, 0, link(Transport::Api, down())),
    ];
    tracker.merge(inputs, at(0));
    let shutdown = tracker.shutdown(at(1));
    assert_eq!(shutdown.len(), 2);
    let changes = tracker.merge(shutdown, at(1));
    assert_eq!(facets(&changes[0]), [(Facet::Status, "DISCONNECTED".into())]);
    assert!(tracker.shutdown(at(2)).is_empty());
}

fn titled(id: u32, seconds: i64, title: &str) -> Input {
    let fields = BTreeMap::from([("title".to_owned(), title.to_owned())]);
    seen(id, seconds, Fact::Profile { fields })
}

#[test]
fn online_carries_what_the_same_answer_reported() {
    let mut tracker = Tracker::new("w");
    let started = Fact::StreamSeen {
        stream_id: "77".to_owned(),
        started_at: None,
    };
    let viewers = Fact::Viewers {
        count: 77,
        stream_id: Some("77".to_owned()),
    };
    let inputs = vec![seen(1, 0, started), titled(1, 0, "Chess"), seen(1, 0, viewers)];
    let changes = tracker.merge(inputs, at(0));
    let record = changes[0].steps[0].after.record();
    assert_eq!(record.viewer_count, Some(77));
    assert_eq!(record.metadata["title"], "Chess");
}

#[test]
fn a_changed_title_has_its_turn_at_once_but_not_without_limit() {
    let mut tracker = Tracker::new("w");
    tracker.merge(vec![titled(1, 0, "one")], at(0));
    let first = tracker.writes.due_for_sink(at(0), 900_000, 10).len()
        + tracker.writes.due_for_sink(at(1), 900_000, 10).len();
    assert_eq!(first, 1);
    tracker.merge(vec![titled(1, 2, "one")], at(2));
    assert!(
        tracker.writes.due_for_sink(at(3), 900_000, 10).is_empty(),
        "nothing changed"
    );
    let mut turns = 0;
    for second in 4..64 {
        tracker.merge(vec![titled(1, second, &second.to_string())], at(second));
        turns += tracker.writes.due_for_sink(at(second), 900_000, 10).len();
    }
    assert!((2..=6).contains(&turns), "{turns}");
}

#[test]
fn published_state_is_known_although_the_document_is_unusable() {
    let mut tracker = Tracker::new("w");
    let online = |second| {
        let started = Fact::StreamSeen {
            stream_id: "77".to_owned(),
            started_at: None,
        };
        vec![
            seen(1, second, link(Transport::Api, LinkState::Up)),
            seen(1, second, started),
        ]
    };
    tracker.merge(online(0), at(0));
    let published = tracker.document(&key(1)).unwrap();
    let mut restarted = Tracker::new("w");
    restarted.protect(&key(1));
    let merged = restarted.merge_published(&key(1), published.knowledge.clone());
    assert_eq!(transitions(&published.verdict, &merged.verdict), []);
    assert!(restarted.merge(online(30), at(30)).is_empty());
    assert!(restarted.writes.is_protected(&key(1)));
}

#[test]
fn stored_state_is_merged_without_a_transition() {
    let mut other = Tracker::new("probe");
    let started = Fact::StreamSeen {
        stream_id: "77".to_owned(),
        started_at: None,
    };
    other.merge(
        vec![
            seen(1, 0, link(Transport::Api, LinkState::Up)),
            seen(1, 0, started),
        ],
        at(0),
    );
    let stored = other.document(&key(1)).unwrap().knowledge;
    let mut tracker = Tracker::new("w");
    assert!(
        !tracker.merge_stored(&key(1), &stored, true),
        "nothing was restored"
    );
    assert!(tracker.index.live().contains(&key(1)));
    assert_eq!(
        tracker.writes.due_for_sink(at(0), 900_000, 10),
        [key(1)],
        "its state is published at once"
    );
    let same = vec![seen(1, 30, link(Transport::Api, LinkState::Up))];
    assert!(tracker.merge(same, at(30)).is_empty());
    let absent = |seconds| vec![seen(1, seconds, Fact::StreamAbsent)];
    tracker.merge(absent(60), at(60));
    let ended = tracker.merge(absent(120), at(120));
    assert_eq!(facets(&ended[0]), [(Facet::Stream, "OFFLINE".into())]);
    assert!(!ended[0].steps[0].changes[0].initial);

    let mut restarted = Tracker::new("w");
    restarted.restore(self::stored(&SourceDocument::new(key(1))));
    assert!(restarted.merge_stored(&key(1), &stored, true));
    assert!(!restarted.merge_stored(&key(1), &stored, true));
}

/// One process with a shared store: `watch`, or `probe`.
#[derive(Debug, Clone)]
struct Run {
    watches: bool,
    observations: Vec<Observation>,
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let run = (any::<bool>(), vec(laws::observation(), 0..12));
    vec(
        run.prop_map(|(watches, observations)| Run {
            watches,
            observations,
        }),
        1..8,
    )
}

proptest! {
    #[test]
    fn document_and_confirmed_state_make_the_known_state(
        observations in vec(laws::observation(), 1..30), written_after in 0_usize..30
    ) {
        let key = laws::key();
        let mut tracker = Tracker::new("w");
        let mut stored = SourceDocument::new(key.clone());
        for (number, observation) in observations.into_iter().enumerate() {
            let changes = tracker.merge(vec![Input::Observed(observation)], at(1_000_000));
            if number == 0 || number == written_after || !changes.is_empty() {
                stored = tracker.document(&key).unwrap();
                tracker.writes.mark_stored(&key, Version(number.to_string()));
            }
        }
        let mut confirmed: Vec<_> = tracker.all_groups().into_iter().flat_map(|group| group.states).collect();
        prop_assert!(tracker.writes.take_dirty(Destination::File).is_empty());
        let known = tracker.document(&key).unwrap();
        if let Some(state) = confirmed.pop() {
            let (own, shared) = state.knowledge.texts();
            stored.join(Compact::parse(own, shared).unwrap());
            prop_assert_eq!(SourceSummary::from_bytes(&state.summary), Some(SourceSummary::of(&known)));
        }
        prop_assert_eq!(stored, known);
    }

    #[test]
    fn histories_join_across_probes_and_restarts(runs in runs()) {
        let key = laws::key();
        let mut stored = SourceDocument::new(key.clone());
        let mut history: Vec<Transition> = Vec::new();
        for run in runs {
            if !run.watches {
                for observation in &run.observations {
                    let before = stored.verdict.clone();
                    stored.join(Knowledge::from(observation));
                    history.extend(transitions(&before, &stored.verdict));
                }
                continue;
            }
            let mut tracker = Tracker::new("w");
            tracker.restore(self::stored(&stored));
            for observation in run.observations {
                let changes = tracker.merge(vec![Input::Observed(observation)], at(1_000_000));
                history.extend(changes.into_iter().flat_map(|change| change.steps).flat_map(|step| step.changes));
            }
            stored = tracker.document(&key).unwrap();
        }
        let mut last: BTreeMap<Facet, Option<String>> = BTreeMap::new();
        for change in history {
            let before = last.insert(change.facet, change.to.clone());
            if change.initial {
                prop_assert_eq!(&change.from, &None, "{:?}", change);
            } else if let Some(before) = before {
                prop_assert_eq!(&before, &change.from, "{:?}", change);
            }
        }
    }
}
