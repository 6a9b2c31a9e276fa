//! Detects missing webhooks: polls are authoritative, and a stream that they find without any webhook is proof. Pure.
//!
//! Silence alone proves nothing: an inactive channel sends nothing either.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::time::Timestamp;

/// How long a webhook may arrive after a poll; deliveries usually take a second.
const GRACE: Duration = Duration::from_mins(3);
/// Maximum number of stream starts stored per channel.
const STARTS: usize = 4;

/// Observations of polls and webhooks for each channel.
#[derive(Debug, Default)]
pub(super) struct MissedEvents(BTreeMap<u64, Compared>);

#[derive(Debug, Default)]
struct Compared {
    /// Whether a poll has reported anything yet; its first report is no change.
    polled: bool,
    /// The streams that were reported last by either.
    known: VecDeque<String>,
    /// Whether a start without an id was pushed: the next new stream in polls is that one.
    unnamed: bool,
    /// The stream that a poll has found without a webhook, and since when.
    missing: Option<(String, Timestamp)>,
}

impl MissedEvents {
    /// Records that a poll found a stream, or none.
    pub(super) fn polled(&mut self, channel: u64, stream_id: Option<&str>, at: Timestamp) {
        let incoming = self.0.entry(channel).or_default();
        if let Some(id) = stream_id
            && incoming.remember(id)
            && incoming.polled
            && !std::mem::take(&mut incoming.unnamed)
        {
            incoming.missing = Some((id.to_owned(), at));
        }
        incoming.polled = true;
    }

    /// Records that a webhook reported a stream.
    pub(super) fn pushed(&mut self, channel: u64, stream_id: &str) {
        let incoming = self.0.entry(channel).or_default();
        incoming.remember(stream_id);
        if incoming
            .missing
            .as_ref()
            .is_some_and(|(missing, _)| missing == stream_id)
        {
            incoming.missing = None;
        }
    }

    /// Records that a webhook reported a start without an id.
    pub(super) fn pushed_unnamed(&mut self, channel: u64) {
        let incoming = self.0.entry(channel).or_default();
        incoming.unnamed = incoming.missing.take().is_none();
    }

    /// Returns the channels whose webhooks were found to be missing since the last call.
    pub(super) fn found(&mut self, now: Timestamp) -> Vec<u64> {
        let mut found = Vec::new();
        for (channel, incoming) in &mut self.0 {
            let overdue = incoming
                .missing
                .as_ref()
                .is_some_and(|(_, since)| now.since(*since) > GRACE);
            if overdue {
                incoming.missing = None;
                found.push(*channel);
            }
        }
        found
    }
}

impl Compared {
    /// Stores a stream; returns whether it is new. The one reported longest ago is discarded, whatever its start: a start in
    /// the future would otherwise stay.
    fn remember(&mut self, id: &str) -> bool {
        let known = self.known.iter().position(|known| known == id);
        if let Some(known) = known {
            self.known.remove(known);
        }
        self.known.push_back(id.to_owned());
        if self.known.len() > STARTS {
            self.known.pop_front();
        }
        known.is_none()
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
    fn start_seen_only_by_polls_is_missed_after_three_minutes() {
        let mut missed_events = MissedEvents::default();
        missed_events.polled(7, None, at(0));
        missed_events.polled(7, Some(FIRST), at(60));
        assert_eq!(missed_events.found(at(240)), [0; 0]);
        assert_eq!(missed_events.found(at(241)), [7]);
        assert_eq!(missed_events.found(at(500)), [0; 0], "reported once");
        missed_events.polled(7, Some(SECOND), at(600));
        assert_eq!(
            missed_events.found(at(800)),
            [7],
            "and again with the next stream"
        );
    }

    #[test]
    fn stream_live_at_first_poll_or_pushed_is_not_missed() {
        let mut missed_events = MissedEvents::default();
        missed_events.polled(7, Some(FIRST), at(0));
        missed_events.polled(8, None, at(0));
        missed_events.pushed(8, FIRST);
        missed_events.polled(8, Some(FIRST), at(60));
        missed_events.polled(9, None, at(0));
        missed_events.polled(9, Some(FIRST), at(60));
        missed_events.pushed(9, FIRST);
        assert_eq!(missed_events.found(at(9_999)), [0; 0]);
    }

    #[test]
    fn starts_in_the_future_hide_no_missed_start() {
        let mut missed_events = MissedEvents::default();
        missed_events.polled(7, None, at(0));
        for day in 3..9 {
            missed_events.pushed(7, &format!("2026-06-0{day}T11:00:00Z"));
        }
        for poll in 1..6 {
            missed_events.polled(7, Some(FIRST), at(poll * 60));
        }
        assert_eq!(missed_events.found(at(241)), [7]);
    }

    #[test]
    fn start_pushed_without_an_id_is_not_missed() {
        for push_first in [true, false] {
            let mut missed_events = MissedEvents::default();
            missed_events.polled(7, None, at(0));
            if push_first {
                missed_events.pushed_unnamed(7);
            }
            missed_events.polled(7, Some(FIRST), at(60));
            if !push_first {
                missed_events.pushed_unnamed(7);
            }
            assert_eq!(missed_events.found(at(600)), [0; 0]);
            missed_events.polled(7, Some(SECOND), at(660));
            assert_eq!(missed_events.found(at(900)), [7], "the next one was not pushed");
        }
    }

    #[test]
    fn offline_channel_never_counts_as_missed_events() {
        let mut missed_events = MissedEvents::default();
        for minute in 0..600 {
            missed_events.polled(7, None, at(minute * 60));
            assert_eq!(missed_events.found(at(minute * 60)), [0; 0]);
        }
    }
}
