//! Lists of Helix, requested as an account, with one recovery from a rejected token.

use serde::de::DeserializeOwned;

use super::TwitchPlatform;
use super::helix::{Call, Page, asked, contradiction, is_about_token};
use super::wire::List;
use crate::core::observation::Identity;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;

/// Why a list could not be read.
#[derive(Debug)]
pub(super) struct ListError {
    /// Whether the account's token could not be used, so that another account's may work.
    pub(super) of_token: bool,
    pub(super) error: PlatformError,
}

impl From<PlatformError> for ListError {
    fn from(error: PlatformError) -> Self {
        Self {
            of_token: false,
            error,
        }
    }
}

impl ListError {
    fn of_token(error: PlatformError) -> Self {
        Self {
            of_token: true,
            error,
        }
    }
}

/// Requests a list as `identity`.
pub(super) async fn list<T: DeserializeOwned>(
    twitch: &TwitchPlatform,
    identity: &Identity,
    call: &Call<'_>,
    meter: &Meter<'_>,
) -> Result<Page<T>, PlatformError> {
    let listed = try_list(twitch, identity, call, meter).await;
    listed.map_err(|failed| failed.error)
}

/// Requests a list as `identity` and distinguishes an unusable token from a failed call.
pub(super) async fn try_list<T: DeserializeOwned>(
    twitch: &TwitchPlatform,
    identity: &Identity,
    call: &Call<'_>,
    meter: &Meter<'_>,
) -> Result<Page<T>, ListError> {
    let (auth, helix) = (&twitch.auth, &twitch.helix);
    let mut access = auth.access(identity, meter).await.map_err(ListError::of_token)?;
    let answer = match helix.ask(&access, call, meter).await {
        Err(PlatformError::Unauthorized { reason, .. }) => {
            let better = auth.after_refusal(&access, &reason, meter).await;
            // The token is valid and the message names no missing permission, so the refusal is not Twitch's own.
            access = better
                .map_err(ListError::of_token)?
                .ok_or_else(|| asked(call).unreadable(contradiction(&reason)))?;
            match helix.ask(&access, call, meter).await {
                Err(PlatformError::Unauthorized { reason, .. }) if !is_about_token(&reason) => {
                    return Err(asked(call).unreadable(contradiction(&reason)).into());
                }
                Err(again @ PlatformError::Unauthorized { .. }) => {
                    return Err(ListError::of_token(again));
                }
                outcome => outcome?,
            }
        }
        outcome => outcome?,
    };
    let asked = asked(call);
    let list: List<T> = answer.object().map_err(|reason| asked.unreadable(reason))?;
    auth.note_accepted(&access);
    Ok(Page {
        cursor: list.cursor().map(str::to_owned),
        rows: list.data.read,
        unread: list.data.unread,
        // Events pushed while the answer is in transit are newer than the answer.
        at: twitch.skew.correct(answer.sent_at),
    })
}
