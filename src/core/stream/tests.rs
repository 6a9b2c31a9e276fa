//! Stories of streams, told piece by piece.

use super::*;
use crate::core::join::Join;

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
    all.verdict(Patience::with(platform))
}

#[track_caller]
fn assert_says(verdict: &StreamVerdict, status: StreamStatus, rule: &str) {
    assert_eq!((verdict.status, verdict.rule), (status, rule), "{verdict:?}");
}

#[test]
fn without_evidence_nothing_is_claimed() {
    assert_says(&twitch([]), StreamStatus::Unknown, "stream.nothing-proven");
}

#[test]
fn a_poll_says_online_at_the_first_hit() {
    assert_says(
        &twitch([seen(0, "1", -300)]),
        StreamStatus::Online,
        "stream.seen-in-poll",
    );
    assert_says(
        &twitch([absent(-60), seen(0, "1", -30)]),
        StreamStatus::Online,
        "stream.seen-in-poll",
    );
}

#[test]
fn a_channel_that_was_never_seen_live_is_offline_at_the_first_complete_poll() {
    assert_says(
        &twitch([absent(0)]),
        StreamStatus::Offline,
        "stream.absent-from-poll",
    );
}

#[test]
fn a_single_miss_does_not_end_a_stream_that_was_live_a_moment_ago() {
    let rule = "stream.missed-but-not-for-long";
    assert_says(
        &twitch([seen(0, "1", -300), absent(60)]),
        StreamStatus::Online,
        rule,
    );
    assert_says(
        &twitch([seen(0, "1", -300), absent(300)]),
        StreamStatus::Online,
        rule,
    );
    assert_says(
        &twitch([seen(0, "1", -300), absent(60), absent(119)]),
        StreamStatus::Online,
        rule,
    );
}

#[test]
fn a_single_miss_ends_a_stream_of_which_nothing_was_heard_for_long() {
    let rule = "stream.missing-from-polls";
    assert_says(
        &twitch([seen(0, "1", -300), absent(600)]),
        StreamStatus::Offline,
        rule,
    );
    assert_says(
        &twitch([started(0, "1"), absent(86_400)]),
        StreamStatus::Offline,
        rule,
    );
}

#[test]
fn polls_alone_end_a_stream_once_they_missed_it_for_a_minute() {
    let verdict = twitch([seen(0, "1", -300), absent(60), absent(120)]);
    assert_says(&verdict, StreamStatus::Offline, "stream.missing-from-polls");
    assert_eq!(verdict.session.unwrap().ended_at, Some(at(60)));
}

#[test]
fn a_poll_cache_that_flaps_in_the_first_minutes_does_not_end_the_stream() {
    let story = [
        seen(0, "1", -30),
        absent(30),
        seen(60, "1", -30),
        absent(90),
        seen(120, "1", -30),
    ];
    assert_says(&twitch(story), StreamStatus::Online, "stream.seen-in-poll");
}

#[test]
fn a_stale_poll_cache_after_a_pushed_start_does_not_count_for_five_minutes() {
    let story = |until: i64| std::iter::once(started(0, "1")).chain((1..=until / 60).map(|n| absent(n * 60)));
    assert_says(
        &twitch(story(300)),
        StreamStatus::Online,
        "stream.push-beats-poll",
    );
    assert_says(
        &twitch(story(360)),
        StreamStatus::Online,
        "stream.missed-but-not-for-long",
    );
    assert_says(
        &twitch(story(420)),
        StreamStatus::Offline,
        "stream.missing-from-polls",
    );
}

#[test]
fn a_stale_poll_cache_after_a_pushed_end_does_not_count_for_fifteen_minutes() {
    let story = [
        seen(0, "1", -300),
        ended(60, "1"),
        seen(120, "1", -300),
        seen(960, "1", -300),
    ];
    assert_says(
        &twitch(story.clone()),
        StreamStatus::Offline,
        "stream.same-stream-after-end",
    );
    let later = story.into_iter().chain([seen(961, "1", -300)]);
    assert_says(&twitch(later), StreamStatus::Online, "stream.seen-in-poll");
}

#[test]
fn a_new_stream_after_a_pushed_end_counts_at_once() {
    let story = [started(0, "1"), ended(600, "1"), seen(610, "2", 605)];
    let verdict = twitch(story);
    assert_says(&verdict, StreamStatus::Online, "stream.seen-in-poll");
    assert_eq!(verdict.session.unwrap().stream_id, "2");
}

#[test]
fn an_end_without_a_stream_id_ends_what_began_before_it_and_not_what_began_after() {
    let end = StreamEvidence::end(at(600), None);
    let story = [started(0, "1"), end.clone(), seen(660, "1", -3)];
    assert_says(
        &twitch(story),
        StreamStatus::Offline,
        "stream.same-stream-after-end",
    );
    assert_says(
        &twitch([started(0, "1"), end, started(700, "2")]),
        StreamStatus::Online,
        "stream.pushed-start",
    );
}

#[test]
fn a_late_end_of_the_previous_stream_does_not_end_the_current_one() {
    let story = [started(0, "1"), started(600, "2"), ended(605, "1")];
    assert_says(&twitch(story), StreamStatus::Online, "stream.pushed-start");
}

#[test]
fn an_end_that_arrives_before_its_start_still_ends_it() {
    assert_says(
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
    assert_says(&verdict, StreamStatus::Online, "stream.pushed-start");
    let session = verdict.session.unwrap();
    assert_eq!(
        (session.stream_id.as_str(), session.interruptions),
        ("1", Some(1))
    );
}

fn interruptions(story: impl IntoIterator<Item = StreamEvidence>) -> Option<usize> {
    twitch(story).session.unwrap().interruptions
}

#[test]
fn a_session_that_has_ended_still_tells_how_often_it_was_interrupted() {
    let flap = [started(0, "1"), ended(600, "1"), started(640, "1")];
    for (story, told) in [
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
        // A poll that lists it after the end may be stale, for a quarter of an hour.
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
        let session = twitch(story.clone()).session.unwrap();
        assert!(session.ended_at.is_some(), "{story:?}");
        assert_eq!(session.interruptions, Some(told), "{story:?}");
    }
}

#[test]
fn nothing_is_said_of_interruptions_where_the_ends_do_not_add_up() {
    let unnamed = |second| StreamEvidence::end(at(second), None);
    // Only the newest end without an id is remembered.
    assert_eq!(interruptions([started(0, "1"), unnamed(600)]), None);
    assert_eq!(
        interruptions([started(0, "1"), unnamed(600), started(640, "1"), unnamed(1200)]),
        None
    );
    // One that came before the stream is of another.
    assert_eq!(
        interruptions([unnamed(-600), started(0, "1"), ended(600, "1")]),
        Some(0)
    );
    // Either the start in between was missed, or one end was told twice.
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
    assert_says(&verdict, StreamStatus::Offline, "stream.same-stream-after-end");
}

#[test]
fn on_kick_ninety_seconds_of_absence_are_asked_for() {
    let story = [seen(0, "a", -300), absent(10), absent(70), absent(99)];
    let rule = "stream.missed-but-not-for-long";
    assert_says(
        &weigh(PlatformName::Kick, story.clone()),
        StreamStatus::Online,
        rule,
    );
    let later = story.into_iter().chain([absent(100)]);
    assert_says(
        &weigh(PlatformName::Kick, later),
        StreamStatus::Offline,
        "stream.missing-from-polls",
    );
}

#[test]
fn an_ended_stream_stays_ended_while_polls_go_on_missing_it_at_any_pace() {
    for pace in [1, 7, 20, 59, 60, 61, 300, 3600] {
        let mut all = seen(0, "a", -300);
        let mut offline = false;
        for n in 1..400 {
            all.join(absent(n * pace));
            let now = all.verdict(Patience::with(PlatformName::Kick)).status == StreamStatus::Offline;
            assert!(now || !offline, "came back at miss {n} with a pace of {pace} s");
            offline = now;
        }
        assert!(offline, "never ended at a pace of {pace} s");
    }
}
