//! Detects connections that are alive but miss events: what polls observe and pushes do not report. Pure.

use std::collections::HashMap;
use std::time::Duration;

use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// How long after a poll has observed a new stream its push may still arrive. Pushes are usually earlier than polls.
const START_GRACE: Duration = Duration::from_mins(3);
/// How long polls must have missed a stream whose end was not pushed; ended streams linger in polls for a quarter of an hour, so
/// this is added to that.
const END_GRACE: Duration = Duration::from_mins(5);
/// A source with missed events is not suspected again sooner than this.
const RENEWAL_INTERVAL: Duration = Duration::from_mins(30);

/// What polls and pushes last reported about each source that should be pushed.
#[derive(Debug, Default)]
pub(super) struct MissedEvents(HashMap<SourceKey, Compared>);

#[derive(Debug, Default)]
struct Compared {
    /// Since when pushes should arrive.
    since: Option<Timestamp>,
    pushed: Option<(Timestamp, Option<String>)>,
    /// A stream that a poll observed and no push reported, and since when.
    missed_start: Option<(Timestamp, String)>,
    /// Since when polls have missed the stream that a push reported.
    missed_end: Option<Timestamp>,
    detected_at: Option<Timestamp>,
}

impl MissedEvents {
    /// From `at` on, pushes about a source are expected.
    pub(super) fn covered(&mut self, source: &SourceKey, at: Timestamp) {
        let compared = self.0.entry(source.clone()).or_default();
        compared.since = Some(at);
        // A stream that was pushed before may have ended during the gap.
        compared.pushed = None;
        (compared.missed_start, compared.missed_end) = (None, None);
    }

    /// Pushes about a source are no longer expected.
    pub(super) fn uncovered(&mut self, source: &SourceKey) {
        if let Some(compared) = self.0.get_mut(source) {
            compared.since = None;
            (compared.missed_start, compared.missed_end) = (None, None);
        }
    }

    /// A push reported that a stream started (with its id) or ended.
    pub(super) fn pushed(&mut self, source: &SourceKey, live: bool, stream_id: Option<&str>, at: Timestamp) {
        let compared = self.0.entry(source.clone()).or_default();
        let stream = live.then(|| stream_id.unwrap_or_default().to_owned());
        compared.pushed = Some((at, stream));
        compared.detected_at = None;
        (compared.missed_start, compared.missed_end) = (None, None);
    }

    /// A poll observed a stream, or none.
    pub(super) fn polled(
        &mut self,
        source: &SourceKey,
        stream: Option<(&str, Option<Timestamp>)>,
        at: Timestamp,
    ) {
        let Some(compared) = self.0.get_mut(source) else {
            return;
        };
        let Some(since) = compared.since else {
            return;
        };
        let pushed_id = compared.pushed.as_ref().and_then(|(_, stream)| stream.as_deref());
        let Some((id, started_at)) = stream else {
            compared.missed_start = None;
            if pushed_id.is_some() {
                compared.missed_end.get_or_insert(at);
            }
            return;
        };
        compared.missed_end = None;
        let ended_lately = compared.pushed.as_ref().is_some_and(|(pushed, stream)| {
            stream.is_none() && started_at.is_none_or(|start| start <= *pushed)
        });
        // No push is expected for a stream that started before the subscription.
        let expected_ids = started_at.is_some_and(|start| start > since);
        // A pushed start without an id is that of this stream.
        let was_pushed = pushed_id.is_some_and(|pushed| pushed.is_empty() || pushed == id);
        let unreported = expected_ids && !was_pushed && !ended_lately;
        compared.missed_start = match compared.missed_start.take() {
            Some((first, known)) if unreported && known == id => Some((first, known)),
            _ if unreported => Some((at, id.to_owned())),
            _ => None,
        };
    }

    /// Returns those of the `chosen` sources whose push is overdue, each at most once in half an hour.
    pub(super) fn suspects(&mut self, now: Timestamp, chosen: impl Fn(&SourceKey) -> bool) -> Vec<SourceKey> {
        let mut suspects = Vec::new();
        for (source, compared) in self.0.iter_mut().filter(|(source, _)| chosen(source)) {
            let start = compared.missed_start.as_ref().map(|(at, _)| *at);
            let overdue = start.is_some_and(|at| now.since(at) >= START_GRACE)
                || compared.missed_end.is_some_and(|at| now.since(at) >= END_GRACE);
            let patient = compared
                .detected_at
                .is_some_and(|at| now.since(at) < RENEWAL_INTERVAL);
            if overdue && !patient {
                compared.detected_at = Some(now);
                suspects.push(source.clone());
            }
        }
        suspects.sort();
        suspects
    }

    /// Returns the sources whose pushes were missed and that have had no push since.
    pub(super) fn silent(&self) -> Vec<SourceKey> {
        let mut silent: Vec<_> = self
            .0
            .iter()
            .filter(|(_, compared)| compared.detected_at.is_some())
            .map(|(source, _)| source.clone())
            .collect();
        silent.sort();
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::PlatformName;

    fn source() -> SourceKey {
        SourceKey::new(PlatformName::Twitch, "1").unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(second)
    }

    fn covered() -> MissedEvents {
        let mut silence = MissedEvents::default();
        silence.covered(&source(), at(0));
        silence
    }

    #[test]
    fn start_seen_only_by_polls_is_suspect_after_three_minutes() {
        let mut silence = covered();
        for second in [100, 160, 220, 280] {
            silence.polled(&source(), Some(("s", Some(at(90)))), at(second));
        }
        assert_eq!(silence.suspects(at(279), |_| true), []);
        assert_eq!(silence.suspects(at(280), |_| true), [source()]);
        assert_eq!(silence.suspects(at(290), |_| true), [], "once in half an hour");
        assert_eq!(silence.silent(), [source()]);
        silence.pushed(&source(), true, Some("s"), at(300));
        assert_eq!(silence.silent(), []);
    }

    #[test]
    fn push_before_or_soon_after_poll_is_not_missed() {
        let mut silence = covered();
        silence.pushed(&source(), true, Some("s"), at(90));
        silence.polled(&source(), Some(("s", Some(at(90)))), at(100));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
        let mut silence = covered();
        silence.polled(&source(), Some(("s", Some(at(90)))), at(100));
        silence.pushed(&source(), true, Some("s"), at(150));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
        let mut silence = covered();
        silence.pushed(&source(), true, None, at(90));
        silence.polled(&source(), Some(("s", Some(at(90)))), at(100));
        assert_eq!(silence.suspects(at(10_000), |_| true), [], "pushed without an id");
    }

    #[test]
    fn stream_started_before_subscription_is_not_missed() {
        let mut silence = covered();
        silence.polled(&source(), Some(("s", Some(at(-5)))), at(100));
        silence.polled(&source(), Some(("t", None)), at(160));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
    }

    #[test]
    fn ended_stream_lingering_in_polls_is_not_missed() {
        let mut silence = covered();
        silence.pushed(&source(), true, Some("s"), at(90));
        silence.pushed(&source(), false, Some("s"), at(500));
        silence.polled(&source(), Some(("s", Some(at(90)))), at(560));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
    }

    #[test]
    fn end_seen_only_by_polls_is_suspect() {
        let mut silence = covered();
        silence.pushed(&source(), true, Some("s"), at(90));
        silence.polled(&source(), None, at(1_000));
        silence.polled(&source(), Some(("s", Some(at(90)))), at(1_060));
        silence.polled(&source(), None, at(1_120));
        assert_eq!(silence.suspects(at(1_419), |_| true), []);
        assert_eq!(silence.suspects(at(1_420), |_| true), [source()]);
    }

    #[test]
    fn nothing_is_expected_of_what_is_not_listened_to() {
        let mut silence = covered();
        silence.uncovered(&source());
        silence.polled(&source(), Some(("s", Some(at(90)))), at(100));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
    }
}
