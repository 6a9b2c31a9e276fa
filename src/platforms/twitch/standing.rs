//! How an authorisation stands: what validating and refreshing tell together. Pure.
//!
//! `validate` answers expired, revoked and unknown tokens alike, so the refresh attempt and the token's own end decide.
//! A network that fails says nothing about a token.

use crate::core::time::Timestamp;

/// What `validate` said of the access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validation {
    /// Not asked, or no usable answer.
    Unknown,
    /// It is good.
    Accepted,
    /// It is not.
    Refused,
}

/// What became of the attempt to refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Renewal {
    /// There is a new pair, and it is kept.
    Renewed,
    /// The grant is gone, in the platform's words.
    GrantGone(String),
    /// The platform refuses the application, not the grant.
    Misconfigured(String),
    /// No usable answer.
    NoAnswer(String),
    /// The refresh token may be spent already and was not sent.
    Withheld,
    /// Renewing is another program's task.
    LeftToOthers,
    /// There is no refresh token.
    NoRefreshToken,
}

/// How an authorisation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// The platform accepts it.
    Valid,
    /// The access token has ended and was not renewed.
    Expired(String),
    /// The grant is gone; a person must give it again.
    Revoked(String),
    /// Nothing new is known.
    Unknown(String),
}

/// Slack in comparing our clock with a token's end.
const END_SLACK_SECS: i64 = 60;

/// Decides how an authorisation stands, given that `validate` refused its access token.
pub(super) fn after_refusal(renewal: &Renewal, expires_at: Option<Timestamp>, now: Timestamp) -> Standing {
    let ended = expires_at.is_some_and(|end| now >= end);
    match renewal {
        Renewal::Renewed => Standing::Valid,
        Renewal::GrantGone(reason) => Standing::Revoked(format!("the refresh token was refused: {reason}")),
        Renewal::Misconfigured(reason) => Standing::Expired(format!(
            "it cannot be renewed with this client id and secret: {reason}"
        )),
        Renewal::NoAnswer(reason) if ended => {
            Standing::Expired(format!("renewing it brought no answer: {reason}"))
        }
        Renewal::NoAnswer(reason) => Standing::Unknown(format!("renewing it brought no answer: {reason}")),
        Renewal::Withheld if ended => Standing::Expired(
            "an earlier renewal was cut off, and its one-time refresh token is not sent twice".to_owned(),
        ),
        Renewal::Withheld => Standing::Revoked(
            "it ended early and an earlier renewal was cut off; its one-time refresh token is not sent twice"
                .to_owned(),
        ),
        // Refreshable, whether it ended by itself or was replaced by whoever renews it.
        Renewal::LeftToOthers => {
            Standing::Expired("it is to be renewed by the program that keeps the tokens".to_owned())
        }
        Renewal::NoRefreshToken => match expires_at {
            None => Standing::Expired(
                "Twitch does not take it; without a known end or a refresh token it counts as expired"
                    .to_owned(),
            ),
            Some(end) if now >= end.plus_secs(-END_SLACK_SECS) => {
                Standing::Expired("it has no refresh token".to_owned())
            }
            Some(_) => Standing::Revoked("it was refused before its end".to_owned()),
        },
    }
}

/// Returns whether a token should be renewed before anyone refuses it: in the last tenth of its life, at least in the
/// last five minutes.
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
    fn the_decision_table() {
        let end = Timestamp::EPOCH.plus_secs(1000);
        let (before, after) = (Timestamp::EPOCH, end);
        let text = || "words".to_owned();
        for (renewal, expires_at, now, verdict) in [
            (Renewal::Renewed, Some(end), before, "valid"),
            (Renewal::GrantGone(text()), Some(end), before, "revoked"),
            (Renewal::GrantGone(text()), Some(end), after, "revoked"),
            (Renewal::GrantGone(text()), None, after, "revoked"),
            (Renewal::Misconfigured(text()), Some(end), before, "expired"),
            (Renewal::Misconfigured(text()), Some(end), after, "expired"),
            (Renewal::NoAnswer(text()), Some(end), before, "unknown"),
            (Renewal::NoAnswer(text()), None, before, "unknown"),
            (Renewal::NoAnswer(text()), Some(end), after, "expired"),
            (Renewal::Withheld, Some(end), before, "revoked"),
            (Renewal::Withheld, Some(end), after, "expired"),
            (Renewal::LeftToOthers, Some(end), before, "expired"),
            (Renewal::LeftToOthers, Some(end), after, "expired"),
            (Renewal::NoRefreshToken, Some(end), before, "revoked"),
            (Renewal::NoRefreshToken, Some(end), end.plus_secs(-59), "expired"),
            (Renewal::NoRefreshToken, Some(end), after, "expired"),
            (Renewal::NoRefreshToken, None, before, "expired"),
        ] {
            let found = match after_refusal(&renewal, expires_at, now) {
                Standing::Valid => "valid",
                Standing::Expired(_) => "expired",
                Standing::Revoked(_) => "revoked",
                Standing::Unknown(_) => "unknown",
            };
            assert_eq!(found, verdict, "{renewal:?} {expires_at:?} {now}");
        }
    }

    #[test]
    fn a_token_is_due_in_the_last_tenth_of_its_life_or_the_last_five_minutes() {
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
