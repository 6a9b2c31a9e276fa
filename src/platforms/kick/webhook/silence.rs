//! Whether webhooks have fallen silent: polls are the truth, and a stream that they find and no webhook told is proof. Pure.
//!
//! Silence alone proves nothing: a quiet channel sends nothing either.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::time::Timestamp;

/// How long a webhook may be behind a poll (ms); deliveries usually take a second.
const GRACE: i64 = 180_000;
/// Starts remembered of a channel.
const STARTS: usize = 4;

/// What polls and webhooks have told of each channel.
#[derive(Debug, Default)]
pub(super) struct Silence(BTreeMap<u64, Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// Whether polls have told anything yet; what they tell first is no change.
    polled: bool,
    /// The streams that were told of, by either.
    known: BTreeSet<String>,
    /// The stream that a poll has found and no webhook told, and since when.
    missing: Option<(String, Timestamp)>,
}

impl Silence {
    /// Notes that a poll found a stream, or none.
    pub(super) fn polled(&mut self, channel: u64, stream_id: Option<&str>, at: Timestamp) {
        let heard = self.0.entry(channel).or_default();
        if let Some(id) = stream_id
            && heard.remember(id)
            && heard.polled
        {
            heard.missing = Some((id.to_owned(), at));
        }
        heard.polled = true;
    }

    /// Notes that a webhook told of a stream.
    pub(super) fn pushed(&mut self, channel: u64, stream_id: &str) {
        let heard = self.0.entry(channel).or_default();
        heard.remember(stream_id);
        if heard
            .missing
            .as_ref()
            .is_some_and(|(missing, _)| missing == stream_id)
        {
            heard.missing = None;
        }
    }

    /// Returns the channels whose webhooks have turned out to be silent since the last time.
    pub(super) fn found(&mut self, now: Timestamp) -> Vec<u64> {
        let mut found = Vec::new();
        for (channel, heard) in &mut self.0 {
            let overdue = heard
                .missing
                .as_ref()
                .is_some_and(|(_, since)| now.millis_since(*since) > GRACE);
            if overdue {
                heard.missing = None;
                found.push(*channel);
            }
        }
        found
    }
}

impl Heard {
    /// Remembers a stream by its start, whose text sorts by time; returns whether it is news.
    fn remember(&mut self, id: &str) -> bool {
        let new = self.known.insert(id.to_owned());
        while self.known.len() > STARTS {
            self.known.pop_first();
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "2026-06-01T11:00:00Z";
    const SECOND: &str = "2026-06-02T11:00:00Z";

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(second)
    }

    #[test]
    fn a_start_that_only_polls_tell_is_silence_after_three_minutes() {
        let mut silence = Silence::default();
        silence.polled(7, None, at(0));
        silence.polled(7, Some(FIRST), at(60));
        assert_eq!(silence.found(at(240)), [0; 0]);
        assert_eq!(silence.found(at(241)), [7]);
        assert_eq!(silence.found(at(500)), [0; 0], "told once");
        silence.polled(7, Some(SECOND), at(600));
        assert_eq!(silence.found(at(800)), [7], "and again with the next stream");
    }

    #[test]
    fn what_was_live_at_first_sight_or_was_pushed_is_no_silence() {
        let mut silence = Silence::default();
        silence.polled(7, Some(FIRST), at(0));
        silence.polled(8, None, at(0));
        silence.pushed(8, FIRST);
        silence.polled(8, Some(FIRST), at(60));
        silence.polled(9, None, at(0));
        silence.polled(9, Some(FIRST), at(60));
        silence.pushed(9, FIRST);
        assert_eq!(silence.found(at(9_999)), [0; 0]);
    }

    #[test]
    fn a_quiet_channel_is_not_silent() {
        let mut silence = Silence::default();
        for minute in 0..600 {
            silence.polled(7, None, at(minute * 60));
            assert_eq!(silence.found(at(minute * 60)), [0; 0]);
        }
    }
}
