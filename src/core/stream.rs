//! Is it live? The evidence of pushes and polls, and the rules that weigh them.
//!
//! Pushes are prompt and may be lost; polls are cached by the platform and may lag. A stream is therefore followed by
//! its id: each id has its own starts, ends and sightings, and the newest stream decides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::join::{Greatest, Join};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;

/// Streams remembered per source. Three are enough to tell a late message of the previous stream from the current one.
const STREAMS: usize = 3;
/// Minutes in which a poll missed the stream. Four always span more than two minutes, which covers every platform's
/// patience.
const MISSED_MINUTES: usize = 4;
/// Drop instants remembered per stream.
const DROPS: usize = 16;

/// How patient we are with one platform's polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After a pushed start, polls that miss the stream do not count for so long (ms).
    pub after_start: i64,
    /// After a pushed end, polls that still list the same stream do not count for so long (ms).
    pub after_end: i64,
    /// A stream must have been missed for so long (ms) before polls alone end it.
    pub missing: i64,
    /// A single miss is enough when nothing has told of the stream for so long (ms): no cache lags that far behind, and
    /// whoever looks once an hour must not be shown a stream of this morning.
    pub unheard: i64,
}

impl Patience {
    /// Returns the patience with `platform`.
    ///
    /// Twitch: polls lag 1–3 min behind a start and 5–15 min behind an end and flap at first, so two misses 60 s apart
    /// are asked for. Kick: the list lags by seconds, and an ended stream never comes back under the same start time,
    /// so a pushed end is final; 90 s of absence are asked for. Discord keeps no cache that we poll for streams.
    pub fn with(platform: PlatformName) -> Self {
        const SECOND: i64 = 1000;
        const MINUTE: i64 = 60 * SECOND;
        match platform {
            PlatformName::Twitch => Self {
                after_start: 5 * MINUTE,
                after_end: 15 * MINUTE,
                missing: MINUTE,
                unheard: 10 * MINUTE,
            },
            PlatformName::Kick => Self {
                after_start: MINUTE,
                after_end: i64::MAX,
                missing: 90 * SECOND,
                unheard: 10 * MINUTE,
            },
            PlatformName::Discord => Self {
                after_start: 0,
                after_end: 0,
                missing: 0,
                unheard: 0,
            },
        }
    }
}

/// Everything known about a source's streams.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamEvidence {
    /// The latest streams by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, StreamRecord>,
    /// Nothing told up to this moment is kept: it belongs to streams long gone. Forgetting by time, not by stream, is
    /// what keeps the bounded memory a join: whatever the order, the same facts are forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Timestamp>,
    /// The newest pushed end that named no stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unnamed_end: Option<Timestamp>,
    /// The newest minutes (since the epoch) in which polls missed the stream.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub missed: BTreeMap<i64, Missed>,
}

/// The evidence of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamRecord {
    /// The newest pushed start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed: Option<Live>,
    /// The newest poll that listed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Live>,
    /// The newest pushed ends.
    #[serde(skip_serializing_if = "Greatest::is_empty")]
    pub ends: Greatest<Timestamp, DROPS>,
}

/// One proof that a stream is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// When we were told.
    pub at: Timestamp,
    /// When the stream started, by the platform.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<Timestamp>,
}

/// The first and the last miss within one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// First miss.
    pub first: Timestamp,
    /// Last miss.
    pub last: Timestamp,
}

impl Join for Missed {
    fn join(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

impl Join for StreamRecord {
    fn join(&mut self, other: Self) {
        self.pushed = self.pushed.max(other.pushed);
        self.seen = self.seen.max(other.seen);
        self.ends.join(other.ends);
    }
}

impl StreamRecord {
    /// The newest moment at which anything was told about this stream.
    fn newest(&self) -> Option<Timestamp> {
        self.pushed_at().max(self.seen_at()).max(self.end())
    }

    fn pushed_at(&self) -> Option<Timestamp> {
        self.pushed.map(|live| live.at)
    }

    fn seen_at(&self) -> Option<Timestamp> {
        self.seen.map(|live| live.at)
    }

    /// The newest pushed end.
    fn end(&self) -> Option<Timestamp> {
        self.ends.iter().next_back().copied()
    }

    /// When it started, by the newest word of the platform.
    fn started_at(&self) -> Option<Timestamp> {
        self.pushed.max(self.seen).and_then(|live| live.started_at)
    }

    /// When it began, as well as we know.
    fn began(&self) -> Option<Timestamp> {
        self.started_at()
            .or(self.pushed_at())
            .or(self.seen_at())
            .or(self.end())
    }

    fn forget_until(&mut self, floor: Timestamp) {
        self.pushed = self.pushed.filter(|live| live.at > floor);
        self.seen = self.seen.filter(|live| live.at > floor);
        self.ends.retain(|end| *end > floor);
    }
}

impl Join for StreamEvidence {
    fn join(&mut self, other: Self) {
        self.streams.join(other.streams);
        self.forgotten = self.forgotten.max(other.forgotten);
        let mut newest: Vec<_> = self.streams.values().filter_map(StreamRecord::newest).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        self.forgotten = self.forgotten.max(newest.get(STREAMS).copied());
        if let Some(floor) = self.forgotten {
            self.streams.retain(|_, stream| {
                stream.forget_until(floor);
                stream.newest().is_some()
            });
        }
        self.unnamed_end = self.unnamed_end.max(other.unnamed_end);
        self.missed.join(other.missed);
        while self.missed.len() > MISSED_MINUTES {
            self.missed.pop_first();
        }
    }
}

/// Whether a source is live.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum StreamStatus {
    /// Nothing was ever proven, or the platform has no such thing.
    Unknown,
    /// Proven not to be live.
    Offline,
    /// Proven to be live.
    Online,
}

impl StreamStatus {
    /// Returns the word of the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Offline => "OFFLINE",
            Self::Online => "ONLINE",
        }
    }
}

impl std::fmt::Display for StreamStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the evidence says, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamVerdict {
    /// The verdict.
    pub status: StreamStatus,
    /// The rule that decided; [`crate::core::verdict::explain`] spells it out.
    pub rule: &'static str,
    /// The stream that it is about.
    pub session: Option<Session>,
}

/// One broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The platform's id of the stream.
    pub stream_id: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended, once it has.
    pub ended_at: Option<Timestamp>,
    /// How often it dropped and came back.
    pub interruptions: usize,
}

impl StreamEvidence {
    /// Evidence of a pushed start.
    pub fn start(at: Timestamp, stream_id: &str, started_at: Option<Timestamp>) -> Self {
        Self::of(
            stream_id,
            StreamRecord {
                pushed: Some(Live { at, started_at }),
                ..StreamRecord::default()
            },
        )
    }

    /// Evidence of a pushed end.
    pub fn end(at: Timestamp, stream_id: Option<&str>) -> Self {
        match stream_id {
            Some(id) => Self::of(
                id,
                StreamRecord {
                    ends: Greatest::of(at),
                    ..StreamRecord::default()
                },
            ),
            None => Self {
                unnamed_end: Some(at),
                ..Self::default()
            },
        }
    }

    /// Evidence of a poll that listed the stream.
    pub fn seen(at: Timestamp, stream_id: &str, started_at: Option<Timestamp>) -> Self {
        Self::of(
            stream_id,
            StreamRecord {
                seen: Some(Live { at, started_at }),
                ..StreamRecord::default()
            },
        )
    }

    /// Evidence of a poll that did not list it.
    pub fn absent(at: Timestamp) -> Self {
        let minute = at.as_millis().div_euclid(60_000);
        Self {
            missed: BTreeMap::from([(minute, Missed { first: at, last: at })]),
            ..Self::default()
        }
    }

    fn of(stream_id: &str, record: StreamRecord) -> Self {
        Self {
            streams: BTreeMap::from([(stream_id.to_owned(), record)]),
            ..Self::default()
        }
    }

    /// The newest moment at which anything was told about any stream.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest_stream()
            .max(self.missed.values().map(|missed| missed.last).max())
    }

    /// The newest moment at which a stream itself was told of: started, ended or seen. Absence is not about a stream.
    pub fn newest_stream(&self) -> Option<Timestamp> {
        self.streams
            .values()
            .filter_map(StreamRecord::newest)
            .max()
            .max(self.unnamed_end)
    }

    /// Weighs the evidence.
    pub fn verdict(&self, patience: Patience) -> StreamVerdict {
        let Some((id, stream)) = self.current() else {
            return self.verdict_without_stream();
        };
        let end = self.end_of(stream);
        let pushed = stream
            .pushed_at()
            .filter(|start| end.is_none_or(|end| *start > end));
        let seen = stream
            .seen_at()
            .filter(|seen| end.is_none_or(|end| *seen > end.plus_millis(patience.after_end)));
        let session = |ended_at| Session {
            stream_id: id.to_owned(),
            started_at: stream.started_at().or(stream.pushed_at()),
            ended_at,
            interruptions: drops(stream, pushed.max(seen)),
        };
        let Some(last_live) = pushed.max(seen) else {
            let rule = if stream.seen_at() > end {
                "stream.same-stream-after-end"
            } else {
                "stream.pushed-end"
            };
            return StreamVerdict {
                status: StreamStatus::Offline,
                rule,
                session: Some(session(end)),
            };
        };
        // A poll right after a pushed start still answers from before it.
        let deaf_until = pushed
            .map(|start| start.plus_millis(patience.after_start))
            .max(Some(last_live));
        let missing_since = self
            .missed
            .values()
            .find_map(|missed| missed.first_after(deaf_until));
        let newest_miss = self.missed.values().next_back().map(|missed| missed.last);
        let missed_since_live = newest_miss.is_some_and(|miss| miss > last_live);
        let enough = |since: Timestamp, until: Timestamp| {
            until.millis_since(since) >= patience.missing || until.millis_since(last_live) >= patience.unheard
        };
        match (missing_since, newest_miss) {
            (Some(since), Some(until)) if enough(since, until) => StreamVerdict {
                status: StreamStatus::Offline,
                rule: "stream.missing-from-polls",
                session: Some(session(Some(since))),
            },
            _ => StreamVerdict {
                status: StreamStatus::Online,
                rule: match (missing_since.is_some(), missed_since_live, pushed >= seen) {
                    (true, ..) => "stream.missed-but-not-for-long",
                    (false, true, _) => "stream.push-beats-poll",
                    (false, false, true) => "stream.pushed-start",
                    (false, false, false) => "stream.seen-in-poll",
                },
                session: Some(session(None)),
            },
        }
    }

    fn verdict_without_stream(&self) -> StreamVerdict {
        let (status, rule) = if self.unnamed_end.is_some() {
            (StreamStatus::Offline, "stream.pushed-end")
        } else if self.missed.is_empty() {
            (StreamStatus::Unknown, "stream.nothing-proven")
        } else {
            (StreamStatus::Offline, "stream.absent-from-poll")
        };
        StreamVerdict {
            status,
            rule,
            session: None,
        }
    }

    /// The newest stream: a channel has one at a time, so a later one ends every earlier one.
    fn current(&self) -> Option<(&str, &StreamRecord)> {
        self.streams
            .iter()
            .max_by_key(|(id, stream)| (stream.began(), stream.newest(), *id))
            .map(|(id, stream)| (id.as_str(), stream))
    }

    /// When `stream` was told to have ended: by its own id, or by an end without an id that came after it began.
    fn end_of(&self, stream: &StreamRecord) -> Option<Timestamp> {
        stream.end().max(
            self.unnamed_end
                .filter(|end| stream.began().is_none_or(|began| *end >= began)),
        )
    }
}

impl Missed {
    fn first_after(self, floor: Option<Timestamp>) -> Option<Timestamp> {
        [self.first, self.last]
            .into_iter()
            .find(|miss| floor.is_none_or(|floor| *miss > floor))
    }
}

/// Counts the ends that the stream came back from.
fn drops(stream: &StreamRecord, last_live: Option<Timestamp>) -> usize {
    last_live.map_or(0, |live| stream.ends.iter().filter(|end| **end < live).count())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let story =
            |until: i64| std::iter::once(started(0, "1")).chain((1..=until / 60).map(|n| absent(n * 60)));
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
        assert_eq!((session.stream_id.as_str(), session.interruptions), ("1", 1));
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
}
