//! Rules about the past, with times in minutes.

use super::*;
use crate::core::verdict::AuthStatus;
use crate::view::health::Health;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000 + minute * 60_000)
}

fn key() -> SourceKey {
    "twitch:900200".parse().unwrap()
}

fn run(from: i64, until: i64) -> Run {
    Run {
        from: at(from),
        until: at(until),
    }
}

/// A change at `minute`, recorded at once; `to` may have the stream's id after a slash.
fn change(minute: i64, facet: Facet, from: &str, to: &str) -> HistoryEntry {
    let (to, stream_id) = to.split_once('/').unwrap_or((to, ""));
    let transition = Transition {
        facet,
        from: (!from.is_empty()).then(|| from.to_owned()),
        to: Some(to.to_owned()),
        at: at(minute),
        rule: "rule".to_owned(),
        stream_id: (!stream_id.is_empty()).then(|| stream_id.to_owned()),
        initial: from.is_empty(),
    };
    HistoryEntry::new(&key(), at(minute), transition)
}

fn ruled(mut entry: HistoryEntry, rule: &str) -> HistoryEntry {
    rule.clone_into(&mut entry.transition.rule);
    entry
}

/// A source that was first seen in minute 10, went live in minute 30, and was connected and authorized throughout.
fn history() -> Vec<HistoryEntry> {
    vec![
        change(30, Facet::Stream, "OFFLINE", "ONLINE/1"),
        change(10, Facet::Auth, "", "VALID"),
        change(10, Facet::Stream, "", "OFFLINE"),
        change(10, Facet::Status, "", "CONNECTED"),
    ]
}

fn row(history: &[HistoryEntry], runs: &[Run], minute: i64) -> SourceRow {
    let key = key();
    let past = Past {
        key: &key,
        name: Some("RatCaster"),
        history,
        runs,
    };
    past.row(&Intervals::default(), at(minute))
}

#[test]
fn state_is_that_of_the_time_and_not_of_now() {
    let runs = [run(9, 100)];
    for (minute, stream, health) in [
        (9, StreamStatus::Unknown, Health::Unknown),
        (10, StreamStatus::Offline, Health::Ok),
        (29, StreamStatus::Offline, Health::Ok),
        (30, StreamStatus::Online, Health::Ok),
        (100, StreamStatus::Online, Health::Ok),
    ] {
        let row = row(&history(), &runs, minute);
        assert_eq!(row.summary.stream_status, stream, "{minute}");
        assert_eq!(row.findings.worst(), health, "{minute}");
        assert_eq!(row.summary.viewer_count, None);
    }
    let before = row(&history(), &runs, 9);
    assert!(!before.is_checked() && !before.stored);
    let online = row(&history(), &runs, 40);
    assert_eq!(online.summary.started_at, Some(at(30)));
    assert_eq!(online.summary.auth_status, Some(AuthStatus::Valid));
}

#[test]
fn what_was_recorded_later_was_not_known_then() {
    let mut late = history();
    late[0].recorded_at = at(50);
    let runs = [run(9, 100)];
    assert_eq!(row(&late, &runs, 40).summary.stream_status, StreamStatus::Offline);
    assert_eq!(row(&late, &runs, 50).summary.stream_status, StreamStatus::Online);
}

#[test]
fn state_is_not_extrapolated_beyond_the_runs_of_daemons() {
    for (runs, minute, proven) in [
        (vec![run(9, 100)], 60, 60),
        (vec![run(9, 40), run(80, 100)], 60, 40),
        (vec![run(9, 40), run(80, 100)], 90, 90),
        // Without runs only the changes are proofs.
        (vec![], 60, 30),
    ] {
        let row = row(&history(), &runs, minute);
        assert_eq!(row.summary.stream_at, Some(at(proven)), "{runs:?} {minute}");
        assert_eq!(row.is_live(), minute - proven < 3, "{runs:?} {minute}");
    }
}

#[test]
fn stream_is_not_proven_while_the_source_is_disconnected() {
    let mut entries = history();
    entries.insert(0, change(40, Facet::Status, "CONNECTED", "DISCONNECTED"));
    let lost = row(&entries, &[run(9, 100)], 60);
    assert_eq!(lost.summary.stream_at, Some(at(40)));
    assert_eq!(
        lost.summary.status_at,
        Some(at(60)),
        "the failure itself is proven"
    );
    assert!(!lost.is_live());
    entries.insert(0, change(70, Facet::Status, "DISCONNECTED", "CONNECTED"));
    assert!(row(&entries, &[run(9, 100)], 75).is_live());
    assert!(!row(&entries, &[run(9, 100)], 69).is_live());
}

#[test]
fn our_own_stop_is_no_state_of_the_source() {
    let mut entries = history();
    let stop = change(40, Facet::Status, "CONNECTED", "DISCONNECTED");
    entries.insert(0, ruled(stop, CLOSED_BY_US));
    assert!(!row(&entries, &[run(9, 40)], 41).is_checked());
}

fn streams(changes: Vec<HistoryEntry>, runs: &[Run]) -> Vec<Session> {
    let entries = HistoryEntry::without_repeats(changes);
    sessions(&entries, &BTreeMap::new(), runs, None)
}

#[test]
fn end_is_exact_only_where_it_was_pushed_or_monitored() {
    let between = |proven, missing| End::Between {
        proven: at(proven),
        missing: at(missing),
    };
    for (runs, rule, end) in [
        (vec![run(0, 100)], "stream.missing-from-polls", End::At(at(60))),
        (vec![], "stream.pushed-end", End::At(at(60))),
        // Found by the first check after a gap.
        (
            vec![run(0, 40), run(59, 100)],
            "stream.missing-from-polls",
            between(40, 60),
        ),
        (
            vec![run(0, 40), run(50, 100)],
            "stream.missing-from-polls",
            End::At(at(60)),
        ),
        // Nothing is recorded about when anything ran.
        (vec![], "stream.absent-from-poll", between(30, 60)),
    ] {
        let over = ruled(change(60, Facet::Stream, "ONLINE", "OFFLINE/1"), rule);
        let streams = streams([vec![over], history()].concat(), &runs);
        let expected = Session {
            stream_id: Some("1".to_owned()),
            start: Some(at(30)),
            end,
        };
        assert_eq!(streams, [expected], "{runs:?} {rule}");
    }
}

#[test]
fn end_found_after_an_outage_is_not_exact() {
    let changes = vec![
        change(60, Facet::Stream, "ONLINE", "OFFLINE/1"),
        change(59, Facet::Status, "DISCONNECTED", "CONNECTED"),
        change(40, Facet::Status, "CONNECTED", "DISCONNECTED"),
    ];
    let streams = streams([changes, history()].concat(), &[run(0, 100)]);
    let end = End::Between {
        proven: at(40),
        missing: at(60),
    };
    assert_eq!(streams[0].end, end);
}

#[test]
fn stream_that_was_live_at_first_sight_has_no_start() {
    let streams = streams(vec![change(10, Facet::Stream, "", "ONLINE/1")], &[]);
    assert_eq!((streams[0].start, streams.len()), (None, 1));
    assert_eq!(streams[0].end, End::Live { proven: at(10) });
    let entries = [change(10, Facet::Stream, "", "ONLINE/1")];
    let of_platform = sessions(&entries, &[("1", at(5))].into(), &[], Some(at(20)));
    assert_eq!(of_platform[0].start, Some(at(5)));
    assert_eq!(of_platform[0].end, End::Live { proven: at(20) });
}

#[test]
fn same_stream_coming_back_is_one_session() {
    let changes = vec![
        change(50, Facet::Stream, "OFFLINE", "ONLINE/2"),
        change(45, Facet::Stream, "ONLINE", "OFFLINE/1"),
        change(35, Facet::Stream, "OFFLINE", "ONLINE/1"),
        change(33, Facet::Stream, "ONLINE", "OFFLINE/1"),
    ];
    let streams = streams([changes, history()].concat(), &[run(0, 100)]);
    let shown: Vec<_> = streams
        .iter()
        .map(|session| (session.stream_id.as_deref().unwrap(), session.start, session.end))
        .collect();
    assert_eq!(
        shown,
        [
            ("2", Some(at(50)), End::Live { proven: at(50) }),
            ("1", Some(at(30)), End::At(at(45)))
        ]
    );
}

#[test]
fn known_start_survives_a_gap_and_the_next_stream() {
    let initial = |minute, to| change(minute, Facet::Stream, "", to);
    let online = |minute, to| change(minute, Facet::Stream, "OFFLINE", to);
    let offline = |minute, id: &str| change(minute, Facet::Stream, "ONLINE", &format!("OFFLINE/{id}"));
    let unknown = |minute| change(minute, Facet::Stream, "ONLINE", "UNKNOWN/1");
    let provisional = format!("ONLINE/{}", at(30));
    let runs = [run(0, 40), run(60, 200)];
    let of = |changes: Vec<HistoryEntry>, starts: &[(&'static str, Timestamp)]| -> Vec<_> {
        let entries = HistoryEntry::without_repeats(changes);
        let starts = starts.iter().copied().collect();
        let streams = sessions(&entries, &starts, &runs, None).into_iter();
        streams
            .map(|session| (session.stream_id, session.start))
            .collect()
    };
    let one = |start| vec![(Some("1".to_owned()), Some(at(start)))];
    // Nothing was known of it in between, or a check missed it.
    for between in [unknown(61), offline(61, "1")] {
        let changes = vec![online(62, "ONLINE/1"), between, online(30, "ONLINE/1")];
        assert_eq!(of(changes, &[]), one(30));
    }
    // Its start had no id; a list names it after the gap.
    let changes = vec![online(62, "ONLINE/1"), unknown(61), online(30, &provisional)];
    assert_eq!(of(changes.clone(), &[("1", at(29))]), one(29));
    assert_eq!(of(changes, &[("1", at(50))]).len(), 2, "another stream");
    // It was live at first sight, and the platform has listed its start; the stream after it changes nothing.
    let changes = vec![online(90, "ONLINE/2"), offline(80, "1"), initial(10, "ONLINE/1")];
    let both = of(changes, &[("1", at(5)), ("2", at(89))]);
    assert_eq!(both[1], one(5)[0]);
}

#[test]
fn end_of_a_stream_of_a_source_that_is_unknown_is_unknown() {
    let changes = vec![change(60, Facet::Stream, "ONLINE", "UNKNOWN/1")];
    let streams = streams([changes, history()].concat(), &[run(0, 40)]);
    assert_eq!(streams[0].end, End::Unknown { proven: at(40) });
}

#[test]
fn differences_compare_then_with_now() {
    let changes = vec![
        change(60, Facet::Status, "DISCONNECTED", "CONNECTED"),
        change(50, Facet::Status, "CONNECTED", "DISCONNECTED"),
    ];
    let entries = HistoryEntry::without_repeats([changes, history()].concat());
    let shown = |since: i64| {
        let found = differences(&entries, at(since)).into_iter();
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        found
            .map(|found| {
                let (from, to) = (text(found.from), text(found.to));
                format!("{} {from} {to} {}", found.facet.as_str(), found.changes)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(9),
        ["status - CONNECTED 3", "stream - ONLINE 2", "auth - VALID 1"]
    );
    assert_eq!(
        shown(20),
        ["status CONNECTED CONNECTED 2", "stream OFFLINE ONLINE 1"]
    );
    assert_eq!(shown(55), ["status DISCONNECTED CONNECTED 1"]);
    assert!(shown(60).is_empty());
}
