//! Login by device code: the user confirms a code on any device.

use std::time::Duration;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use tokio::time::Instant;

use super::{Keyboard, Login, agree_in_demo, not_granted};
use crate::cli::output::{humane, write_err};
use crate::failure::{ExitCode, Failure};
use crate::platforms::kit::oauth::device::{Polling, Step};
use crate::platforms::kit::oauth::{DeviceCode, Grant, GrantError};
use crate::tokens::StoredToken;

/// How the wait for a user ended.
enum Waited {
    Granted(Box<StoredToken>),
    Expired,
}

/// Obtains a token; `None` if the platform has no device codes.
pub async fn obtain(
    login: &Login<'_>,
    qr: bool,
    keyboard: &mut Keyboard,
) -> Result<Option<StoredToken>, Failure> {
    loop {
        let Some(started) = login.accounts.start_device(&login.scopes).await else {
            return Ok(None);
        };
        let code = started.map_err(|error| not_granted(login.platform, None, &error))?;
        tracing::debug!(
            expires_in_s = code.expires_in,
            interval_s = code.interval,
            "Device code received"
        );
        show(login, &code, qr)?;
        let waited = tokio::select! {
            waited = wait(login, &code) => waited?,
            never = agree_in_demo(login.cx, &code.page) => match never {},
        };
        match waited {
            Waited::Granted(token) => return Ok(Some(*token)),
            Waited::Expired => {
                let again = keyboard
                    .confirms("The code has expired. Get a new one?", true)
                    .await?;
                if again != Some(true) {
                    return Err(Failure::new(
                        ExitCode::Unauthorized,
                        "the code has expired before it was confirmed; nothing was changed",
                    )
                    .hint("run the command again for a new code"));
                }
            }
        }
    }
}

fn show(login: &Login<'_>, code: &DeviceCode, qr: bool) -> Result<(), Failure> {
    let title = login.platform.rules().title;
    let lifetime = humane::duration(code.expires_in.saturating_mul(1_000));
    let seconds = i64::try_from(code.expires_in).unwrap_or(i64::MAX);
    let end = login.cx.app.clock.now().plus_secs(seconds).to_string();
    let end = end.get(11..19).unwrap_or_default();
    let mut text = format!(
        "To log in as {}, open this page on any device, logged in to {title} as that account:\n\n  {}\n\n\
         Code: {} (until {end} UTC, {lifetime})\n\
         If the browser is logged in to another account, open the page in a private window.\n",
        login.account, code.page, code.user_code
    );
    if qr {
        text.push_str(&drawn(&code.page, login.cx.output.err.unicode));
    }
    if login.cx.app.demo.is_some() {
        text.push_str("The demo confirms the code by itself.\n");
    }
    Ok(write_err(&text)?)
}

/// Returns the page's address as a QR code, or why there is none.
fn drawn(page: &str, unicode: bool) -> String {
    match QrCode::new(page) {
        Ok(code) if unicode => {
            // Light on dark is what most terminals show; cameras read both.
            let drawn = code
                .render::<Dense1x2>()
                .dark_color(Dense1x2::Light)
                .light_color(Dense1x2::Dark)
                .build();
            format!("\n{drawn}\n")
        }
        Ok(_) => "No QR code is drawn: the terminal's locale is not UTF-8.\n".to_owned(),
        Err(_) => "No QR code is drawn: the address is too long.\n".to_owned(),
    }
}

/// Requests the token until the user has decided or the code has expired.
async fn wait(login: &Login<'_>, code: &DeviceCode) -> Result<Waited, Failure> {
    let end = Instant::now() + Duration::from_secs(code.expires_in);
    let mut polling = Polling::new(Duration::from_secs(code.interval));
    let mut next = Instant::now() + polling.delay;
    let countdown = login
        .cx
        .progress
        .countdown("Waiting for the code to be confirmed");
    loop {
        countdown.show(end.saturating_duration_since(Instant::now()));
        let second = Instant::now() + Duration::from_secs(1);
        tokio::time::sleep_until(next.min(second).min(end)).await;
        if Instant::now() >= end {
            return Ok(Waited::Expired);
        }
        if Instant::now() < next {
            continue;
        }
        let grant = Grant::Device {
            code: &code.device_code,
            scopes: &login.scopes,
        };
        let error = match login.accounts.redeem(grant).await {
            Ok(token) => return Ok(Waited::Granted(Box::new(token))),
            Err(error) => error,
        };
        let declined = |what: &str| {
            Failure::new(ExitCode::Unauthorized, format!("{what}; nothing was changed"))
                .hint("run the command again for a new code")
        };
        match polling.after(&error) {
            Step::Wait => {
                tracing::debug!(wait_ms = polling.delay.as_millis(), result = %kind_of(&error), "No token yet");
                if polling.is_first_silence() {
                    let title = login.platform.rules().title;
                    countdown.say(&format!(
                        "{title} does not answer; trying on until the code expires."
                    ))?;
                }
                next = Instant::now() + polling.delay;
            }
            Step::Expired => return Ok(Waited::Expired),
            Step::Declined => return Err(declined("the login was declined")),
            Step::Invalid => {
                return Err(declined(
                    "the code is no longer valid: it was declined, used already, or has expired",
                ));
            }
            Step::Fail => return Err(not_granted(login.platform, None, &error)),
        }
    }
}

/// Returns the kind of an answer without its words, for the log.
fn kind_of(error: &GrantError) -> &'static str {
    match error {
        GrantError::NotGranted(_) => "not granted",
        GrantError::Gone(_) => "refused",
        GrantError::ClientRejected(_) => "application refused",
        GrantError::NoEffect(_) | GrantError::Lost(_) => "no answer",
        GrantError::Foreign(_) => "not the platform's answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qr_code_is_drawn_where_the_terminal_has_unicode() {
        let page = "https://www.twitch.tv/activate?public=true&device-code=KQZMWTRB";
        let code = drawn(page, true);
        assert!(code.contains('█') && code.lines().count() > 10, "{code}");
        assert!(drawn(page, false).contains("not UTF-8"));
    }
}
