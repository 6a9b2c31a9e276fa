//! Lines that are alive and yet do not tell: what polls see and pushes do not. Pure.

use std::collections::HashMap;

use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// How long after a poll has seen a new stream its push may still come. Pushes are usually earlier than polls.
const GRACE_START_MS: i64 = 3 * 60_000;
/// How long polls must have missed a stream of which no end was pushed; ended streams linger in polls for a quarter of an
/// hour, so this comes on top.
const GRACE_END_MS: i64 = 5 * 60_000;
/// A source that was found silent is not suspected again so soon.
const PATIENCE_MS: i64 = 30 * 60_000;

/// What polls and pushes last told about each source that should be pushed.
#[derive(Debug, Default)]
pub(super) struct Silence(HashMap<SourceKey, Compared>);

#[derive(Debug, Default)]
struct Compared {
    /// Since when pushes should come.
    since: Option<Timestamp>,
    pushed: Option<(Timestamp, Option<String>)>,
    /// A stream that a poll saw and no push told, and since when.
    untold_start: Option<(Timestamp, String)>,
    /// Since when polls have missed the stream that a push told.
    untold_end: Option<Timestamp>,
    found_silent: Option<Timestamp>,
}

impl Silence {
    /// From `at` on, pushes about a source should come.
    pub(super) fn listening(&mut self, source: &SourceKey, at: Timestamp) {
        let compared = self.0.entry(source.clone()).or_default();
        compared.since = Some(at);
        // What was pushed before may have ended while nobody listened.
        compared.pushed = None;
        (compared.untold_start, compared.untold_end) = (None, None);
    }

    /// Pushes about a source are not expected any more.
    pub(super) fn deaf(&mut self, source: &SourceKey) {
        if let Some(compared) = self.0.get_mut(source) {
            compared.since = None;
            (compared.untold_start, compared.untold_end) = (None, None);
        }
    }

    /// A push told that a stream started (with its id) or ended.
    pub(super) fn pushed(&mut self, source: &SourceKey, live: bool, stream_id: Option<&str>, at: Timestamp) {
        let compared = self.0.entry(source.clone()).or_default();
        let stream = live.then(|| stream_id.unwrap_or_default().to_owned());
        compared.pushed = Some((at, stream));
        compared.found_silent = None;
        (compared.untold_start, compared.untold_end) = (None, None);
    }

    /// A poll saw a stream, or none.
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
        let told = compared.pushed.as_ref().and_then(|(_, stream)| stream.as_deref());
        let Some((id, started_at)) = stream else {
            compared.untold_start = None;
            if told.is_some() {
                compared.untold_end.get_or_insert(at);
            }
            return;
        };
        compared.untold_end = None;
        let ended_lately = compared.pushed.as_ref().is_some_and(|(pushed, stream)| {
            stream.is_none() && started_at.is_none_or(|start| start <= *pushed)
        });
        // A stream that began before we listened was never to be told.
        let to_be_told = started_at.is_some_and(|start| start > since);
        let untold = to_be_told && told != Some(id) && !ended_lately;
        compared.untold_start = match compared.untold_start.take() {
            Some((first, known)) if untold && known == id => Some((first, known)),
            _ if untold => Some((at, id.to_owned())),
            _ => None,
        };
    }

    /// Returns those of the `chosen` sources of which something should have been pushed long ago, each at most once in
    /// half an hour.
    pub(super) fn suspects(&mut self, now: Timestamp, chosen: impl Fn(&SourceKey) -> bool) -> Vec<SourceKey> {
        let mut suspects = Vec::new();
        for (source, compared) in self.0.iter_mut().filter(|(source, _)| chosen(source)) {
            let start = compared.untold_start.as_ref().map(|(at, _)| *at);
            let overdue = start.is_some_and(|at| now.millis_since(at) >= GRACE_START_MS)
                || compared
                    .untold_end
                    .is_some_and(|at| now.millis_since(at) >= GRACE_END_MS);
            let patient = compared
                .found_silent
                .is_some_and(|at| now.millis_since(at) < PATIENCE_MS);
            if overdue && !patient {
                compared.found_silent = Some(now);
                suspects.push(source.clone());
            }
        }
        suspects.sort();
        suspects
    }

    /// Returns the sources that were found silent and have not been heard of since.
    pub(super) fn silent(&self) -> Vec<SourceKey> {
        let mut silent: Vec<_> = self
            .0
            .iter()
            .filter(|(_, compared)| compared.found_silent.is_some())
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

    fn listening() -> Silence {
        let mut silence = Silence::default();
        silence.listening(&source(), at(0));
        silence
    }

    #[test]
    fn a_stream_that_polls_see_and_no_push_told_is_suspicious_after_three_minutes() {
        let mut silence = listening();
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
    fn a_push_before_or_soon_after_the_poll_is_no_silence() {
        let mut silence = listening();
        silence.pushed(&source(), true, Some("s"), at(90));
        silence.polled(&source(), Some(("s", Some(at(90)))), at(100));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
        let mut silence = listening();
        silence.polled(&source(), Some(("s", Some(at(90)))), at(100));
        silence.pushed(&source(), true, Some("s"), at(150));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
    }

    #[test]
    fn a_stream_that_began_before_we_listened_was_never_to_be_told() {
        let mut silence = listening();
        silence.polled(&source(), Some(("s", Some(at(-5)))), at(100));
        silence.polled(&source(), Some(("t", None)), at(160));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
    }

    #[test]
    fn an_ended_stream_that_lingers_in_polls_is_no_silence() {
        let mut silence = listening();
        silence.pushed(&source(), true, Some("s"), at(90));
        silence.pushed(&source(), false, Some("s"), at(500));
        silence.polled(&source(), Some(("s", Some(at(90)))), at(560));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
    }

    #[test]
    fn a_stream_that_polls_miss_and_whose_end_no_push_told_is_suspicious() {
        let mut silence = listening();
        silence.pushed(&source(), true, Some("s"), at(90));
        silence.polled(&source(), None, at(1_000));
        silence.polled(&source(), Some(("s", Some(at(90)))), at(1_060));
        silence.polled(&source(), None, at(1_120));
        assert_eq!(silence.suspects(at(1_419), |_| true), []);
        assert_eq!(silence.suspects(at(1_420), |_| true), [source()]);
    }

    #[test]
    fn nothing_is_expected_of_what_is_not_listened_to() {
        let mut silence = listening();
        silence.deaf(&source());
        silence.polled(&source(), Some(("s", Some(at(90)))), at(100));
        assert_eq!(silence.suspects(at(10_000), |_| true), []);
    }
}
