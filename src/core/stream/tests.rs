//! Tests of sequences of stream evidence.

use super::*;
use crate::core::join::Join;
use crate::core::source::PlatformName;

const START: i64 = 1_780_000_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(START).plus_secs(seconds)
}

fn started(at: i64, id: &str) -> StreamEvidence {
    StreamEvidence::start(self::at(at), id, Some(self::at(at - 3)))
}

fn ended(at: i64, id: &str) -> StreamEvidence {
    StreamEvidence::end(self::at(at), Some(id))
}

fn seen(at: i64, id: &str, began: i64) -> StreamEvidence {
    StreamEvidence::seen(self::at(at), id, Some(self::at(began)))
}

fn absent(at: i64) -> StreamEvidence {
    StreamEvidence::absent(self::at(at))
}

fn twitch(story: impl IntoIterator<Item = StreamEvidence>) -> StreamVerdict {
    weigh(PlatformName::Twitch, story)
}

fn weigh(platform: PlatformName, story: impl IntoIterator<Item = StreamEvidence>) -> StreamVerdict {
    let mut all = StreamEvidence::default();
    story.into_iter().for_each(|piece| all.join(piece));
    all.verdict(platform.rules().poll_tolerance)
}

#[track_caller]
fn assert_verdict(verdict: &StreamVerdict, status: StreamStatus, rule: &str) {
    assert_eq!((verdict.status, verdict.rule), (status, rule), "{verdict:?}");
}

#[test]
fn without_evidence_nothing_is_claimed() {
    assert_verdict(&twitch([]), StreamStatus::Unknown, "stream.nothing-proven");
}

#[test]
fn first_poll_hit_means_online() {
    assert_verdict(
        &twitch([seen(0, "1", -300)]),
        StreamStatus::Online,
        "stream.seen-in-poll",
    );
    assert_verdict(
        &twitch([absent(-60), seen(0, "1", -30)]),
        StreamStatus::Online,
        "stream.seen-in-poll",
    );
}

#[test]
fn never_seen_channel_is_offline_at_first_complete_poll() {
    assert_verdict(
        &twitch([absent(0)]),
        StreamStatus::Offline,
        "stream.absent-from-poll",
    );
}

#[test]
fn single_miss_does_not_end_recently_live_stream() {
    let rule = "stream.missed-but-not-for-long";
    assert_verdict(
        &twitch([seen(0, "1", -300), absent(60)]),
        StreamStatus::Online,
        rule,
    );
    assert_verdict(
        &twitch([seen(0, "1", -300), absent(300)]),
        StreamStatus::Online,
        rule,
    );
    assert_verdict(
        &twitch([seen(0, "1", -300), absent(60), absent(119)]),
        StreamStatus::Online,
        rule,
    );
}

#[test]
fn single_miss_ends_stream_without_recent_evidence() {
    let rule = "stream.missing-from-polls";
    assert_verdict(
        &twitch([seen(0, "1", -300), absent(600)]),
        StreamStatus::Offline,
        rule,
    );
    assert_verdict(
        &twitch([started(0, "1"), absent(86_400)]),
        StreamStatus::Offline,
        rule,
    );
}

#[test]
fn polls_alone_end_a_stream_once_they_missed_it_for_a_minute() {
    let verdict = twitch([seen(0, "1", -300), absent(60), absent(120)]);
    assert_verdict(&verdict, StreamStatus::Offline, "stream.missing-from-polls");
    assert_eq!(verdict.broadcast.unwrap().ended_at, Some(at(60)));
}

#[test]
fn flapping_poll_cache_does_not_end_new_stream() {
    let story = [
        seen(0, "1", -30),
        absent(30),
        seen(60, "1", -30),
        absent(90),
        seen(120, "1", -30),
    ];
    assert_verdict(&twitch(story), StreamStatus::Online, "stream.seen-in-poll");
}

#[test]
fn stale_poll_after_pushed_start_is_ignored_for_five_minutes() {
    let story = |until: i64| std::iter::once(started(0, "1")).chain((1..=until / 60).map(|n| absent(n * 60)));
    assert_verdict(
        &twitch(story(300)),
        StreamStatus::Online,
        "stream.push-beats-poll",
    );
    assert_verdict(
        &twitch(story(360)),
        StreamStatus::Online,
        "stream.missed-but-not-for-long",
    );
    assert_verdict(
        &twitch(story(420)),
        StreamStatus::Offline,
        "stream.missing-from-polls",
    );
}

#[test]
fn stale_poll_after_pushed_end_is_ignored_for_fifteen_minutes() {
    let story = [
        seen(0, "1", -300),
        ended(60, "1"),
        seen(120, "1", -300),
        seen(960, "1", -300),
    ];
    assert_verdict(
        &twitch(story.clone()),
        StreamStatus::Offline,
        "stream.same-stream-after-end",
    );
    let later = story.into_iter().chain([seen(961, "1", -300)]);
    assert_verdict(&twitch(later), StreamStatus::Online, "stream.seen-in-poll");
}

#[test]
fn a_new_stream_after_a_pushed_end_counts_at_once() {
    let story = [started(0, "1"), ended(600, "1"), seen(610, "2", 605)];
    let verdict = twitch(story);
    assert_verdict(&verdict, StreamStatus::Online, "stream.seen-in-poll");
    assert_eq!(verdict.broadcast.unwrap().stream_id, "2");
}

#[test]
fn end_without_stream_id_ends_only_earlier_streams() {
    let end = StreamEvidence::end(at(600), None);
    let story = [started(0, "1"), end.clone(), seen(660, "1", -3)];
    assert_verdict(
        &twitch(story),
        StreamStatus::Offline,
        "stream.same-stream-after-end",
    );
    assert_verdict(
        &twitch([started(0, "1"), end, started(700, "2")]),
        StreamStatus::Online,
        "stream.pushed-start",
    );
}

#[test]
fn end_of_a_stream_that_was_never_seen_ends_no_other() {
    let pushed = twitch([started(0, "2"), ended(1, "1")]);
    assert_verdict(&pushed, StreamStatus::Online, "stream.pushed-start");
    let listed = twitch([seen(0, "2", -60), ended(1, "1"), seen(60, "2", -60)]);
    assert_verdict(&listed, StreamStatus::Online, "stream.seen-in-poll");
    assert_verdict(
        &twitch([ended(1, "1")]),
        StreamStatus::Offline,
        "stream.pushed-end",
    );
    // Polls list a stream whose end was pushed: it was live after the other one.
    let cached = twitch([started(-900, "0"), ended(0, "1"), seen(30, "1", -300)]);
    assert_verdict(&cached, StreamStatus::Offline, "stream.same-stream-after-end");
}

#[test]
fn late_end_of_previous_stream_keeps_current_stream_online() {
    let story = [started(0, "1"), started(600, "2"), ended(605, "1")];
    assert_verdict(&twitch(story), StreamStatus::Online, "stream.pushed-start");
}

#[test]
fn an_end_that_arrives_before_its_start_still_ends_it() {
    assert_verdict(
        &twitch([ended(600, "1"), started(0, "1")]),
        StreamStatus::Offline,
        "stream.pushed-end",
    );
}

#[test]
fn a_drop_of_forty_seconds_is_one_session_with_one_interruption() {
    let story = [
        started(0, "1"),
        ended(600, "1"),
        started(640, "1"),
        ended(640 - 40, "1"),
    ];
    let verdict = twitch(story);
    assert_verdict(&verdict, StreamStatus::Online, "stream.pushed-start");
    let broadcast = verdict.broadcast.unwrap();
    assert_eq!(
        (broadcast.stream_id.as_str(), broadcast.interruptions),
        ("1", Some(1))
    );
}

fn interruptions(story: impl IntoIterator<Item = StreamEvidence>) -> Option<usize> {
    twitch(story).broadcast.unwrap().interruptions
}

#[test]
fn ended_session_keeps_its_interruption_count() {
    let flap = [started(0, "1"), ended(600, "1"), started(640, "1")];
    for (story, wanted) in [
        (vec![started(0, "1"), ended(600, "1")], 0),
        ([flap.to_vec(), vec![ended(1200, "1")]].concat(), 1),
        ([flap.to_vec(), vec![absent(1300), absent(4000)]].concat(), 1),
        (
            [
                flap.to_vec(),
                vec![ended(700, "1"), started(710, "1"), ended(1200, "1")],
            ]
            .concat(),
            2,
        ),
        // A poll that lists it after the end may be stale for a quarter of an hour.
        (vec![started(0, "1"), ended(600, "1"), seen(900, "1", -3)], 0),
        (
            vec![
                started(0, "1"),
                ended(600, "1"),
                seen(1501, "1", -3),
                ended(1600, "1"),
            ],
            1,
        ),
    ] {
        let broadcast = twitch(story.clone()).broadcast.unwrap();
        assert!(broadcast.ended_at.is_some(), "{story:?}");
        assert_eq!(broadcast.interruptions, Some(wanted), "{story:?}");
    }
}

#[test]
fn interruptions_are_none_when_ends_are_inconsistent() {
    let unnamed = |second| StreamEvidence::end(at(second), None);
    // Only the newest end without an id is stored.
    assert_eq!(interruptions([started(0, "1"), unnamed(600)]), None);
    assert_eq!(
        interruptions([started(0, "1"), unnamed(600), started(640, "1"), unnamed(1200)]),
        None
    );
    // An end before the stream belongs to another one.
    assert_eq!(
        interruptions([unnamed(-600), started(0, "1"), ended(600, "1")]),
        Some(0)
    );
    // Either the start in between was missed, or one end was reported twice.
    assert_eq!(
        interruptions([started(0, "1"), ended(600, "1"), ended(1200, "1")]),
        None
    );
}

#[test]
fn on_kick_a_pushed_end_closes_that_start_for_good() {
    let story = [
        started(0, "a"),
        ended(600, "a"),
        seen(605, "a", -3),
        seen(7200, "a", -3),
    ];
    let verdict = weigh(PlatformName::Kick, story);
    assert_verdict(&verdict, StreamStatus::Offline, "stream.same-stream-after-end");
}

#[test]
fn on_kick_ninety_seconds_of_absence_are_asked_for() {
    let story = [seen(0, "a", -300), absent(10), absent(70), absent(99)];
    let rule = "stream.missed-but-not-for-long";
    assert_verdict(
        &weigh(PlatformName::Kick, story.clone()),
        StreamStatus::Online,
        rule,
    );
    let later = story.into_iter().chain([absent(100)]);
    assert_verdict(
        &weigh(PlatformName::Kick, later),
        StreamStatus::Offline,
        "stream.missing-from-polls",
    );
}

#[test]
fn ended_stream_stays_ended_at_any_poll_interval() {
    for pace in [1, 7, 20, 59, 60, 61, 300, 3600] {
        let mut all = seen(0, "a", -300);
        let mut offline = false;
        for n in 1..400 {
            all.join(absent(n * pace));
            let now = all.verdict(PlatformName::Kick.rules().poll_tolerance).status == StreamStatus::Offline;
            assert!(now || !offline, "came back at miss {n} with a pace of {pace} s");
            offline = now;
        }
        assert!(offline, "never ended at a pace of {pace} s");
    }
}

#[test]
fn a_stream_that_polls_list_now_is_current_whatever_its_start() {
    for platform in [PlatformName::Twitch, PlatformName::Kick] {
        // The predecessor began at 0 and ended with an id, without an id, or by polls alone; the platform dates the start of
        // the next one twenty seconds, or an hour, before that.
        for began in [-20, -3_600] {
            for ending in [vec![ended(600, "1")], vec![absent(540), absent(660)], vec![]] {
                let before = [vec![seen(0, "1", 0), seen(480, "1", 0)], ending].concat();
                for start in [vec![], vec![StreamEvidence::start(at(700), "2", Some(at(began)))]] {
                    let polls = (1..20).map(|n| seen(700 + n * 60, "2", began));
                    let story = before.iter().cloned().chain(start).chain(polls);
                    let verdict = weigh(platform, story);
                    assert_eq!(verdict.status, StreamStatus::Online, "{verdict:?}");
                    assert_eq!(verdict.broadcast.unwrap().stream_id, "2");
                }
            }
        }
    }
}

#[test]
fn newer_stream_wins_among_two_rows_of_one_answer() {
    for order in [[0, 1], [1, 0]] {
        let rows = [seen(60, "1", 0), seen(60, "2", 50)];
        let verdict = twitch(order.map(|row| rows[row].clone()));
        assert_eq!(verdict.broadcast.unwrap().stream_id, "2");
    }
}

#[test]
fn cached_poll_after_pushed_start_keeps_the_new_stream() {
    // The end of the first was lost, and polls are still cached from before the second.
    let story = [seen(0, "1", -300), started(600, "2"), seen(630, "1", -300)];
    let verdict = twitch(story.clone());
    assert_eq!(verdict.broadcast.unwrap().stream_id, "2");
    // No cache is that old: this stream is live now.
    let verdict = twitch(story.into_iter().chain([seen(960, "1", -300)]));
    assert_eq!(verdict.broadcast.unwrap().stream_id, "1");
}

#[test]
fn end_without_id_refers_to_previously_live_stream() {
    let mut all = StreamEvidence::default();
    let mut live_before = |piece: StreamEvidence, second| {
        all.join(piece);
        all.live_before(at(second)).map(str::to_owned)
    };
    assert_eq!(live_before(seen(0, "1", -300), -1), None);
    assert_eq!(live_before(seen(0, "1", -300), 60).as_deref(), Some("1"));
    assert_eq!(
        live_before(started(100, "2"), 60).as_deref(),
        Some("1"),
        "a late one"
    );
    assert_eq!(live_before(started(100, "2"), 160).as_deref(), Some("2"));
    assert_eq!(live_before(ended(160, "2"), 170), None, "it has ended already");
}

#[test]
fn stream_seen_after_resolved_end_without_id_is_online() {
    // As the listener records it: the end belongs to the first stream, whatever start the second claims.
    let mut all = seen(540, "1", 0);
    let id = all.live_before(at(600)).map(str::to_owned);
    all.join(StreamEvidence::end(at(600), id.as_deref()));
    all.join(seen(660, "2", -20));
    let verdict = all.verdict(PlatformName::Twitch.rules().poll_tolerance);
    assert_eq!(verdict.status, StreamStatus::Online);
    assert_eq!(verdict.broadcast.unwrap().stream_id, "2");
}

#[test]
fn stream_that_polls_miss_is_as_old_as_its_last_sighting() {
    for (story, status, age_of) in [
        (vec![seen(0, "1", -300)], StreamStatus::Online, 0),
        (vec![seen(0, "1", -300), absent(30)], StreamStatus::Online, 0),
        (vec![started(0, "1"), absent(200)], StreamStatus::Online, 0),
        (vec![started(0, "1"), seen(90, "1", -3)], StreamStatus::Online, 90),
        (
            vec![seen(0, "1", -300), absent(60), absent(120)],
            StreamStatus::Offline,
            120,
        ),
        (vec![started(0, "1"), ended(500, "1")], StreamStatus::Offline, 500),
        (
            vec![started(0, "1"), ended(500, "1"), absent(560)],
            StreamStatus::Offline,
            560,
        ),
        (
            vec![started(0, "1"), ended(500, "1"), seen(560, "1", -3)],
            StreamStatus::Offline,
            500,
        ),
        (vec![absent(7)], StreamStatus::Offline, 7),
    ] {
        let verdict = twitch(story.clone());
        assert_eq!(
            (verdict.status, verdict.at),
            (status, Some(at(age_of))),
            "{story:?}"
        );
    }
    assert_eq!(twitch([]).at, None);
}

/// A start without an id is keyed by the time of its receipt.
fn started_without_id(at: i64) -> StreamEvidence {
    StreamEvidence::start(self::at(at), &self::at(at).to_string(), None)
}

#[test]
fn start_without_id_is_completed_by_the_next_poll() {
    for (platform, id) in [
        (PlatformName::Twitch, "40900005".to_owned()),
        (PlatformName::Discord, "40900005".to_owned()),
        (PlatformName::Kick, at(-20).to_string()),
    ] {
        let wanted = started_without_id(0);
        let provisional = weigh(platform, [wanted.clone()]).broadcast.unwrap();
        assert_eq!(
            provisional.provisional.as_ref(),
            Some(&provisional.stream_id),
            "{platform}"
        );
        let completed = weigh(platform, [wanted.clone(), seen(30, &id, -20)]);
        assert_eq!(completed.status, StreamStatus::Online);
        let broadcast = completed.broadcast.unwrap();
        assert_eq!(
            (&broadcast.stream_id, broadcast.started_at),
            (&id, Some(at(-20))),
            "{platform}"
        );
        assert!(broadcast.continues(&provisional) && !provisional.continues(&broadcast));
        // The push still outranks polls that miss the stream, where it does so at all.
        let missed = weigh(
            platform,
            [wanted.clone(), seen(10, &id, -20), absent(11), absent(40)],
        );
        let expected = if platform == PlatformName::Discord {
            StreamStatus::Offline
        } else {
            StreamStatus::Online
        };
        assert_eq!(missed.status, expected, "{platform}");
        let ended = weigh(platform, [wanted, seen(30, &id, -20), ended(90, &id)]);
        assert_verdict(&ended, StreamStatus::Offline, "stream.pushed-end");
    }
}

#[test]
fn start_without_id_is_not_completed_by_another_stream() {
    let before = [seen(-900, "1", -3_600), ended(-600, "1"), started_without_id(0)];
    let broadcast = twitch(before.clone()).broadcast.unwrap();
    assert_eq!(broadcast.provisional, Some(at(0).to_string()));
    let cached = twitch(before.into_iter().chain([seen(20, "1", -3_600)]));
    assert_eq!(
        cached.broadcast.unwrap().stream_id,
        at(0).to_string(),
        "polls still list the one before"
    );
    let later = twitch([started_without_id(0), seen(7_200, "2", 7_000)]);
    let broadcast = later.broadcast.unwrap();
    assert_eq!((broadcast.stream_id.as_str(), broadcast.provisional), ("2", None));
}

#[test]
fn ended_start_without_id_hides_no_later_stream() {
    let before = |platform, end: i64| {
        let id = at(0).to_string();
        let end = StreamEvidence::end(at(end), Some(&id));
        let ended = [started_without_id(0), end];
        assert_verdict(
            &weigh(platform, ended.clone()),
            StreamStatus::Offline,
            "stream.pushed-end",
        );
        ended
    };
    for (platform, cached) in [(PlatformName::Twitch, 900), (PlatformName::Kick, 60)] {
        let verdict =
            |later: StreamEvidence| weigh(platform, before(platform, 30).into_iter().chain([later]));
        // Listed with a start after the end, pushed in the second of the end, or still listed when no cache lags that much.
        for later in [
            seen(35, "2", 31),
            StreamEvidence::start(at(30), "2", Some(at(-9))),
            seen(31 + cached, "2", -9),
        ] {
            let verdict = verdict(later);
            assert_eq!(verdict.status, StreamStatus::Online, "{platform}: {verdict:?}");
            assert_eq!(verdict.broadcast.unwrap().stream_id, "2");
        }
        // It cannot be distinguished from the one that ended.
        let same = verdict(seen(35, "2", -9));
        assert_verdict(&same, StreamStatus::Offline, "stream.same-stream-after-end");
    }
}

#[test]
fn end_whose_start_was_lost_ends_no_later_stream() {
    for start in [-900, 90] {
        let lost = StreamEvidence::end(at(0), Some(&at(start).to_string()));
        for began in [-30, 5] {
            let id = at(began).to_string();
            let listed = [lost.clone(), seen(10, &id, began)];
            let verdict = weigh(PlatformName::Kick, listed);
            assert_verdict(&verdict, StreamStatus::Online, "stream.seen-in-poll");
            assert_eq!(verdict.broadcast.unwrap().stream_id, id);
        }
    }
}

#[test]
fn start_in_the_second_of_the_last_end_is_online() {
    // Times of Kick's messages are whole seconds. The start of the first stream was lost.
    let first = ended(0, &at(-60).to_string());
    let second = StreamEvidence::start(at(0), &at(-70).to_string(), Some(at(-70)));
    let verdict = weigh(PlatformName::Kick, [first, second]);
    assert_verdict(&verdict, StreamStatus::Online, "stream.pushed-start");
}

#[test]
fn polls_confirm_a_stream_that_was_pushed_again() {
    for platform in [PlatformName::Twitch, PlatformName::Kick] {
        let restarted = [started(0, "1"), ended(600, "1"), started(640, "1")];
        let polls = (1..=5).map(|n| seen(640 + n * 60, "1", -3));
        let verdict = weigh(platform, restarted.into_iter().chain(polls));
        assert_verdict(&verdict, StreamStatus::Online, "stream.seen-in-poll");
        assert_eq!(verdict.at, Some(at(940)), "{platform}");
    }
}

#[test]
fn push_during_a_poll_is_not_ended_by_it() {
    // The poll was sent before the push and answered after it; it is dated by the request.
    for platform in [PlatformName::Twitch, PlatformName::Kick, PlatformName::Discord] {
        let id = at(10).to_string();
        let verdict = weigh(
            platform,
            [absent(9), StreamEvidence::start(at(10), &id, Some(at(10)))],
        );
        assert_eq!(verdict.status, StreamStatus::Online, "{platform}");
    }
    let started = StreamEvidence::start(at(10), "7", Some(at(10)));
    let later = weigh(PlatformName::Discord, [started, absent(11)]);
    assert_verdict(&later, StreamStatus::Offline, "stream.missing-from-polls");
}
