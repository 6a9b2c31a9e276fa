//! A channel's stream, and what polls show of it: Twitch's responses are cached, so polls lag behind the actual state.

use crate::core::time::Timestamp;

/// One broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The stream's id, the same in polls and pushed events.
    pub id: String,
    /// When it started, as reported by Twitch.
    pub started_at: Timestamp,
    pub viewers: u64,
    /// `live`, or the documented error value `""`.
    pub kind: String,
}

/// A channel's streams as seen by polls and events.
#[derive(Debug, Default)]
pub(super) struct Streams {
    now: Option<Stream>,
    shown: Vec<Showing>,
    /// Number of following polls of which every second one misses the channel.
    flapping: u32,
}

/// The time in which polls show a stream.
#[derive(Debug)]
struct Showing {
    stream: Stream,
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Streams {
    /// Returns the stream that is actually live.
    pub(super) fn current(&self) -> Option<&Stream> {
        self.now.as_ref()
    }

    /// Changes the live stream.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Stream)) {
        let Some(stream) = &mut self.now else { return };
        change(stream);
        if let Some(showing) = self.shown.last_mut() {
            showing.stream = stream.clone();
        }
    }

    /// Starts `stream`; polls show it `lag` milliseconds later.
    pub(super) fn start(&mut self, stream: Stream, now: Timestamp, lag: i64) {
        self.shown
            .retain(|showing| showing.until.is_none_or(|until| until > now));
        for showing in &mut self.shown {
            showing.until.get_or_insert(now);
        }
        self.shown.push(Showing {
            stream: stream.clone(),
            from: now.plus_millis(lag),
            until: None,
        });
        self.now = Some(stream);
    }

    /// Ends the live stream, which polls show for another `lag` milliseconds. Returns it.
    pub(super) fn end(&mut self, now: Timestamp, lag: i64) -> Option<Stream> {
        if let Some(showing) = self.shown.last_mut() {
            showing.until.get_or_insert(now.plus_millis(lag));
        }
        self.now.take()
    }

    /// Makes every second of the next `polls` polls miss the channel, beginning with the next.
    pub(super) fn flap(&mut self, polls: u32) {
        self.flapping = polls;
    }

    /// Returns what a poll at `now` shows.
    pub(super) fn polled(&mut self, now: Timestamp) -> Option<Stream> {
        let visible = self.peek(now).cloned();
        if visible.is_some() && self.flapping > 0 {
            self.flapping -= 1;
            if self.flapping.is_multiple_of(2) {
                return visible;
            }
            return None;
        }
        visible
    }

    /// Returns what polls show at `now`, without counting as one.
    pub(super) fn peek(&self, now: Timestamp) -> Option<&Stream> {
        let showing =
            |showing: &&Showing| showing.from <= now && showing.until.is_none_or(|until| now < until);
        self.shown
            .iter()
            .rev()
            .find(showing)
            .map(|showing| &showing.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(id: &str) -> Stream {
        Stream {
            id: id.into(),
            started_at: Timestamp::EPOCH,
            viewers: 5,
            kind: "live".into(),
        }
    }

    fn seen(streams: &mut Streams, second: i64) -> Option<String> {
        streams
            .polled(Timestamp::EPOCH.plus_secs(second))
            .map(|stream| stream.id)
    }

    #[test]
    fn polls_lag_behind_start_and_end() {
        let mut streams = Streams::default();
        streams.start(stream("1"), Timestamp::EPOCH, 60_000);
        assert_eq!(
            (seen(&mut streams, 59), seen(&mut streams, 60)),
            (None, Some("1".into()))
        );
        assert_eq!(
            streams.end(Timestamp::EPOCH.plus_secs(100), 600_000).unwrap().id,
            "1"
        );
        assert!(streams.current().is_none());
        assert_eq!(
            (seen(&mut streams, 699), seen(&mut streams, 700)),
            (Some("1".into()), None)
        );
    }

    #[test]
    fn an_ended_stream_lingers_while_its_successor_is_not_yet_shown() {
        let mut streams = Streams::default();
        streams.start(stream("1"), Timestamp::EPOCH, 0);
        streams.end(Timestamp::EPOCH.plus_secs(10), 300_000);
        streams.start(stream("2"), Timestamp::EPOCH.plus_secs(20), 60_000);
        assert_eq!(
            (seen(&mut streams, 70), seen(&mut streams, 80)),
            (Some("1".into()), Some("2".into()))
        );
    }

    #[test]
    fn a_flap_misses_every_second_poll_and_then_stops() {
        let mut streams = Streams::default();
        streams.start(stream("1"), Timestamp::EPOCH, 0);
        streams.flap(4);
        let polls: Vec<_> = (1..=6)
            .map(|second| seen(&mut streams, second).is_some())
            .collect();
        assert_eq!(polls, [false, true, false, true, true, true]);
    }
}
