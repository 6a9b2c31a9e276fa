//! When a token is refreshed, and the possible results of `validate`. Pure. [`crate::platforms::kit::token_check`] derives the status
//! from both.

use crate::core::time::Timestamp;

/// The result of `validate` for the access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validation {
    /// Not requested, or no usable answer.
    Unknown,
    /// The token is valid.
    Accepted,
    /// The token is invalid.
    Refused,
}

/// Returns whether a token should be renewed before it is rejected: in the last tenth of its lifetime, at least in the last five
/// minutes.
pub(super) fn is_due(obtained_at: Timestamp, expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|end| {
        let margin = (end.millis_since(obtained_at) / 10).max(5 * 60_000);
        now >= end.plus_millis(-margin)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_due_in_last_tenth_or_last_five_minutes() {
        let at = |second| Timestamp::EPOCH.plus_secs(second);
        for (lifetime, now, due) in [
            (14_400, 12_959, false),
            (14_400, 12_960, true),
            (600, 299, false),
            (600, 300, true),
        ] {
            assert_eq!(
                is_due(at(0), Some(at(lifetime)), at(now)),
                due,
                "{lifetime} {now}"
            );
        }
        assert!(!is_due(at(0), None, at(99_999_999)));
    }
}
