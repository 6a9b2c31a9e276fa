//! Logins with a user's consent: how the first token of an account is obtained. Whose it is and where it is stored is decided by
//! the command (`commands/auth/login.rs`).

pub mod browser;
mod browser_launch;
pub mod device;
mod keyboard;
pub mod loopback;

use std::convert::Infallible;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::{Position, Url};

use crate::cli::context::Context;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::platforms::kit::oauth::{Accounts, GrantError};

pub use keyboard::Keyboard;

/// When the demo agrees by itself.
const DEMO_AGREES_AFTER: Duration = Duration::from_secs(1);

/// What a login is about.
pub struct Login<'a> {
    /// Where it is shown.
    pub cx: &'a Context,
    /// The platform.
    pub platform: PlatformName,
    /// Its logins.
    pub accounts: &'a dyn Accounts,
    /// The account, as it is shown.
    pub account: String,
    /// The requested scopes, separated by blanks.
    pub scopes: String,
}

/// Opens the page of a consent as a user of the demo would; outside the demo it does nothing.
pub async fn agree_in_demo(cx: &Context, page: &str) -> Infallible {
    if cx.app.demo.is_some() {
        tokio::time::sleep(DEMO_AGREES_AFTER).await;
        let mut next = page.parse().ok();
        while let Some(page) = next.take() {
            next = visit(&page).await;
        }
    }
    std::future::pending().await
}

/// Opens a page of this machine and returns where it redirects to. The HTTP client of the platforms masks the code in that address.
async fn visit(page: &Url) -> Option<Url> {
    let (host, port) = (page.host_str()?, page.port()?);
    let mut socket = TcpStream::connect((host, port)).await.ok()?;
    let target = &page[Position::BeforePath..];
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let location = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then_some(value)
    });
    location?.parse().ok()
}

/// Returns the failure for a code that was not exchanged for a token. What was stored before is unchanged.
pub fn not_granted(platform: PlatformName, redirect_uri: Option<&str>, error: &GrantError) -> Failure {
    let title = platform.rules().title;
    let what = format!("{title} issued no token; nothing was changed");
    match error {
        GrantError::ClientRejected(words) => of_application(platform, words),
        GrantError::NotGranted(words) | GrantError::Gone(words) => {
            let mut failure = Failure::new(ExitCode::Unauthorized, what);
            failure.causes.push(words.clone());
            match redirect_uri.filter(|_| words.to_ascii_lowercase().contains("redirect")) {
                Some(uri) => failure.hint(register(uri)),
                None => failure.hint("run the command again; each code works once and only for a short time"),
            }
        }
        GrantError::NoEffect(error) | GrantError::Lost(error) | GrantError::Foreign(error) => {
            Failure::new(ExitCode::NoEvidence, what)
                .because(error)
                .hint(format!(
                    "this is no evidence about stored tokens; try again, or run `bitbrat doctor {platform}`"
                ))
        }
    }
}

/// Returns the failure for an application that the platform rejects.
pub fn of_application(platform: PlatformName, words: &str) -> Failure {
    let title = platform.rules().title;
    let mut failure = Failure::new(
        ExitCode::Unauthorized,
        format!("{title} rejects the application; nothing was changed"),
    );
    failure.causes.push(words.to_owned());
    failure.hint(application_advice(platform, words))
}

/// Returns what to correct about an application that the platform rejects with these words.
pub fn application_advice(platform: PlatformName, words: &str) -> String {
    let words = words.to_ascii_lowercase();
    let key = format!("{platform}.client_secret");
    if words.contains("missing client secret") {
        format!(
            "the application is confidential: set its secret ({key}), or make the application public and log in again"
        )
    } else if words.contains("secret") || words.contains("client credentials") {
        format!("{key} belongs to another application or was replaced; the accounts themselves are fine")
    } else {
        format!("correct {platform}.client_id and {key}; both are shown where the application is registered")
    }
}

/// Returns the advice for a redirect address that is not registered.
fn register(redirect_uri: &str) -> String {
    format!(
        "register exactly {redirect_uri} as redirect address of the application, press Save, and wait a minute"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platforms::PlatformError;

    #[test]
    fn each_refusal_of_an_application_has_its_advice() {
        for (words, expected) in [
            ("missing client secret", "is confidential"),
            ("invalid client secret", "belongs to another application"),
            ("Invalid client credentials", "belongs to another application"),
            ("invalid client", "correct twitch.client_id"),
        ] {
            let advice = application_advice(PlatformName::Twitch, words);
            assert!(advice.contains(expected), "{words}: {advice}");
        }
    }

    #[test]
    fn redirect_mismatch_names_the_address_to_register() {
        let error = GrantError::NotGranted("Parameter redirect_uri does not match registered URI".to_owned());
        let failure = not_granted(PlatformName::Twitch, Some("http://localhost:1/callback"), &error);
        assert!(failure.hints[0].contains("register exactly http://localhost:1/callback"));
    }

    #[test]
    fn outage_while_exchanging_a_code_is_no_revocation() {
        let outage = PlatformError::Unreadable {
            platform: PlatformName::Kick,
            operation: "a token",
            reason: "status 403 came without kick's own error".to_owned(),
        };
        let failure = not_granted(PlatformName::Kick, None, &GrantError::Foreign(outage));
        assert_eq!(failure.exit, ExitCode::NoEvidence);
        assert!(failure.causes[0].contains("status 403"), "{failure:?}");
    }
}
