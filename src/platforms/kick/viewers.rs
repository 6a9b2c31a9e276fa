//! How to interpret a viewer count. Pure.
//!
//! Kick has shown 1 for streams with many viewers for a while (`KickDevDocs` issue 391), and 0 may mean that the streamer hides
//! the count: a count that cannot be distinguished from a hidden one is not shown. The count as sent by Kick is always stored in
//! the metadata.

use std::time::Duration;

use crate::core::time::Timestamp;

/// A count from which a drop to 1 is not accepted at once.
const CROWD: u64 = 10;
/// A drop that lasts this long is accepted: Kick refreshes its counts about once a minute.
const BELIEVED_AFTER: Duration = Duration::from_secs(150);
/// A count older than this is not used for comparison.
const COMPARABLE: Duration = Duration::from_mins(10);

/// Previous counts of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    stream_id: String,
    /// The newest count that was accepted.
    count: u64,
    at: Timestamp,
    /// Since when Kick has shown 1 instead.
    fallen_since: Option<Timestamp>,
}

/// Interpretation of a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is valid.
    Plain,
    /// It may mean that the streamer hides the real one, so it is no evidence.
    MaybeHidden,
    /// It is not accepted yet.
    Doubted,
}

/// Interprets a count by the previous ones, and returns the state to store.
pub(super) fn read(before: Option<&Counted>, stream_id: &str, raw: u64, at: Timestamp) -> (Reading, Counted) {
    let fresh = || Counted {
        stream_id: stream_id.to_owned(),
        count: raw,
        at,
        fallen_since: None,
    };
    if raw == 0 {
        return (Reading::MaybeHidden, fresh());
    }
    let crowd = before.filter(|before| {
        before.stream_id == stream_id
            && before.count >= CROWD
            && (before.fallen_since.is_some() || at.since(before.at) <= COMPARABLE)
    });
    let Some(before) = crowd.filter(|_| raw == 1) else {
        return (Reading::Plain, fresh());
    };
    let since = before.fallen_since.unwrap_or(at);
    if at.since(since) >= BELIEVED_AFTER {
        return (Reading::Plain, fresh());
    }
    let doubting = Counted {
        fallen_since: Some(since),
        ..before.clone()
    };
    (Reading::Doubted, doubting)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets `counts` of one stream, a minute apart.
    fn readings(counts: &[u64]) -> Vec<Reading> {
        let mut before = None;
        let minutes = counts.iter().zip(0_i64..);
        minutes
            .map(|(count, minute)| {
                let at = Timestamp::EPOCH.plus_secs(60 * minute);
                let (reading, counted) = read(before.as_ref(), "s", *count, at);
                before = Some(counted);
                reading
            })
            .collect()
    }

    #[test]
    fn a_crowd_does_not_leave_for_one_answer() {
        use Reading::{Doubted, MaybeHidden, Plain};
        for (counts, expected) in [
            (&[300, 1, 310][..], &[Plain, Doubted, Plain][..]),
            (&[300, 1, 1, 300], &[Plain, Doubted, Doubted, Plain]),
            // The drop lasts, so it is accepted.
            (&[300, 1, 1, 1, 1], &[Plain, Doubted, Doubted, Doubted, Plain]),
            (&[9, 1], &[Plain, Plain]),
            (&[1, 1], &[Plain, Plain]),
            (&[300, 2], &[Plain, Plain]),
            (&[300, 0, 1], &[Plain, MaybeHidden, Plain]),
        ] {
            assert_eq!(readings(counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn another_stream_or_an_old_count_is_nothing_to_compare_with() {
        let (_, previous) = read(None, "s", 300, Timestamp::EPOCH);
        let soon = Timestamp::EPOCH.plus_secs(60);
        assert_eq!(read(Some(&previous), "t", 1, soon).0, Reading::Plain);
        let later = Timestamp::EPOCH.plus_secs(3_600);
        assert_eq!(read(Some(&previous), "s", 1, later).0, Reading::Plain);
    }
}
