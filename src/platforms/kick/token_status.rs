//! Token status: what introspecting and refreshing together show. Pure.
//!
//! Kick answers expired and revoked tokens alike and sends no notification when a user removes the application, so the token's
//! expiry and the attempt to refresh it decide. A host that is out of order is no evidence about a token.

use crate::core::time::Timestamp;
use crate::platforms::kit::token_check::{Refresh, TokenStatus, after_refusal};
use crate::tokens::StoredToken;

const DAY_MS: i64 = 86_400_000;
/// Refresh tokens have been observed to expire about 30 days after their last use; a day earlier, age explains the failure.
const AGED_OUT_MS: i64 = 29 * DAY_MS;
/// Age from which the operator is warned.
const WARN_MS: i64 = 25 * DAY_MS;

/// Determines the status of a token that introspection reports as inactive.
pub(super) fn of_inactive(refresh: &Refresh, token: &StoredToken, now: Timestamp) -> TokenStatus {
    let refresh = match refresh {
        // Kick's response about the application is no evidence about the grant.
        Refresh::ClientRejected(reason) => &Refresh::Unclear(reason.clone()),
        refresh => refresh,
    };
    after_refusal(refresh, token, Some(AGED_OUT_MS), now)
}

/// Returns the days since the last refresh once they deserve a warning.
pub(super) fn days_to_warn_about(last_refresh: Timestamp, now: Timestamp) -> Option<i64> {
    let age = now.millis_since(last_refresh);
    (age >= WARN_MS).then_some(age / DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_table_of_an_inactive_token() {
        let day = |days: i64| Timestamp::from_millis(days * DAY_MS);
        let gone = || Refresh::GrantGone("invalid_grant".to_owned());
        let client = || Refresh::ClientRejected("invalid_client".to_owned());
        let outage = || Refresh::NoAnswer("status 500".to_owned());
        let foreign = || Refresh::Unclear("status 404".to_owned());
        for (refresh, expires_at, now, expected) in [
            (Refresh::Done, Some(day(1)), day(0), "valid"),
            (Refresh::Done, Some(day(1)), day(2), "valid"),
            (gone(), Some(day(1)), day(0), "revoked"),
            (gone(), Some(day(1)), day(29), "revoked"),
            (gone(), Some(day(1)), day(30), "expired"),
            (gone(), None, day(1), "revoked"),
            (client(), Some(day(1)), day(2), "unknown"),
            (outage(), Some(day(1)), day(0), "unknown"),
            (outage(), Some(day(1)), day(1), "expired"),
            (foreign(), Some(day(1)), day(0), "unknown"),
            (foreign(), Some(day(1)), day(1), "unknown"),
            (Refresh::Impossible, Some(day(1)), day(0), "revoked"),
            (Refresh::Impossible, Some(day(1)), day(1), "expired"),
            (Refresh::Impossible, None, day(1), "expired"),
        ] {
            let token = StoredToken {
                client_id: Some("app".to_owned()),
                expires_at,
                ..StoredToken::unproven("access", Timestamp::EPOCH)
            };
            let found = match of_inactive(&refresh, &token, now) {
                TokenStatus::Valid => "valid",
                TokenStatus::Expired(_) => "expired",
                TokenStatus::ClientRejected(_) => "client rejected",
                TokenStatus::Rejected(_) => "rejected",
                TokenStatus::Revoked(_) => "revoked",
                TokenStatus::Unknown(_) => "unknown",
            };
            assert_eq!(found, expected, "{refresh:?} {expires_at:?} {now}");
        }
    }

    #[test]
    fn authorization_age_warning_starts_on_day_25() {
        let days = |days: i64| Timestamp::from_millis(days * DAY_MS);
        assert_eq!(days_to_warn_about(days(0), days(24)), None);
        assert_eq!(days_to_warn_about(days(0), days(25)), Some(25));
        assert_eq!(days_to_warn_about(days(0), days(31)), Some(31));
    }
}
