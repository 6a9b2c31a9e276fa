//! How an authorisation stands: what introspecting and renewing tell together. Pure.
//!
//! Kick answers expired and revoked tokens alike and tells nobody when a user removes the application, so the token's own
//! end and the attempt to renew it decide. A host that is out of order says nothing about a token.

use crate::core::time::Timestamp;

const DAY_MS: i64 = 86_400_000;
/// Refresh tokens have been seen to end about 30 days after their last use; a day earlier, age explains their end.
const AGED_OUT_MS: i64 = 29 * DAY_MS;
/// From this age on an operator is warned.
const WARN_MS: i64 = 25 * DAY_MS;
/// A token is renewed so long before its end.
const MARGIN_MS: i64 = 10 * 60_000;

/// What became of the attempt to renew a token that introspection calls inactive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Renewal {
    /// There is a new token, and it is kept.
    Renewed,
    /// `invalid_grant`: the refresh token is not honoured.
    InvalidGrant,
    /// `invalid_client`: the application's id or secret is refused, which says nothing about the grant.
    InvalidClient,
    /// No usable answer.
    NoAnswer(String),
    /// There is no refresh token, or it was refused before.
    Impossible,
}

/// How an authorisation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Kick accepts it.
    Valid,
    /// It has ended and was not renewed.
    Expired(String),
    /// The grant is gone; a person must give it again.
    Revoked(String),
    /// Nothing new is known.
    Unknown(String),
}

/// Decides how an authorisation stands that introspection calls inactive.
pub(super) fn of_inactive(
    renewal: &Renewal,
    expires_at: Option<Timestamp>,
    last_refresh: Timestamp,
    now: Timestamp,
) -> Standing {
    let ended = expires_at.is_none_or(|end| now >= end);
    match renewal {
        Renewal::Renewed => Standing::Valid,
        Renewal::InvalidGrant if now.millis_since(last_refresh) > AGED_OUT_MS => Standing::Expired(
            "the refresh token was not used for a month and has aged out; authorise again".to_owned(),
        ),
        Renewal::InvalidGrant => Standing::Revoked("the refresh token is no longer honoured".to_owned()),
        Renewal::InvalidClient => Standing::Unknown("the application's id or secret is refused".to_owned()),
        Renewal::NoAnswer(reason) if ended => {
            Standing::Expired(format!("renewing it brought no answer: {reason}"))
        }
        Renewal::NoAnswer(reason) => Standing::Unknown(format!("renewing it brought no answer: {reason}")),
        Renewal::Impossible if ended => Standing::Expired("it has no usable refresh token".to_owned()),
        Renewal::Impossible => Standing::Revoked("it was ended before its time".to_owned()),
    }
}

/// Returns whether a token should be renewed before it ends.
pub(super) fn is_due(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|end| now >= end.plus_millis(-MARGIN_MS))
}

/// Returns the days since the last renewal once they are worth a warning.
pub(super) fn worrying_age(last_refresh: Timestamp, now: Timestamp) -> Option<i64> {
    let age = now.millis_since(last_refresh);
    (age >= WARN_MS).then_some(age / DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_table() {
        let renewed_at = Timestamp::EPOCH;
        let day = |days: i64| Timestamp::from_millis(days * DAY_MS);
        let outage = || Renewal::NoAnswer("status 404".to_owned());
        for (renewal, expires_at, now, verdict) in [
            (Renewal::Renewed, Some(day(1)), day(0), "valid"),
            (Renewal::Renewed, Some(day(1)), day(2), "valid"),
            (Renewal::InvalidGrant, Some(day(1)), day(0), "revoked"),
            (Renewal::InvalidGrant, Some(day(1)), day(29), "revoked"),
            (Renewal::InvalidGrant, Some(day(1)), day(30), "expired"),
            (Renewal::InvalidGrant, None, day(1), "revoked"),
            (Renewal::InvalidClient, Some(day(1)), day(2), "unknown"),
            (outage(), Some(day(1)), day(0), "unknown"),
            (outage(), Some(day(1)), day(1), "expired"),
            (Renewal::Impossible, Some(day(1)), day(0), "revoked"),
            (Renewal::Impossible, Some(day(1)), day(1), "expired"),
            (Renewal::Impossible, None, day(1), "expired"),
        ] {
            let found = match of_inactive(&renewal, expires_at, renewed_at, now) {
                Standing::Valid => "valid",
                Standing::Expired(_) => "expired",
                Standing::Revoked(_) => "revoked",
                Standing::Unknown(_) => "unknown",
            };
            assert_eq!(found, verdict, "{renewal:?} {expires_at:?} {now}");
        }
    }

    #[test]
    fn a_grant_is_worried_about_from_its_twenty_fifth_day() {
        let days = |days: i64| Timestamp::from_millis(days * DAY_MS);
        assert_eq!(worrying_age(days(0), days(24)), None);
        assert_eq!(worrying_age(days(0), days(25)), Some(25));
        assert_eq!(worrying_age(days(0), days(31)), Some(31));
    }

    #[test]
    fn a_token_is_renewed_in_its_last_ten_minutes() {
        let end = Timestamp::EPOCH.plus_secs(7_200);
        assert!(!is_due(Some(end), end.plus_secs(-601)));
        assert!(is_due(Some(end), end.plus_secs(-600)));
        assert!(!is_due(None, end));
    }
}
