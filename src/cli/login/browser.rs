//! Login in a browser: the user consents on the platform's page, which sends the browser back to a listener on this machine.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::browser_launch::Launcher;
use super::loopback::{self, Event, Loopback};
use super::{Keyboard, Login, agree_in_demo, not_granted, register};
use crate::cli::output::write_err;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::platforms::kit::oauth::callback::{self, Callback};
use crate::platforms::kit::oauth::{CodeRequest, Grant, pkce};
use crate::secrets;
use crate::tokens::StoredToken;

/// How long the listener waits for a consent.
const PATIENCE: Duration = Duration::from_mins(5);

/// Obtains a token; `None` if the platform has no such page.
pub async fn obtain(login: &Login<'_>, keyboard: &mut Keyboard) -> Result<Option<StoredToken>, Failure> {
    let Some(client) = login.accounts.client().confidential() else {
        return Err(without_secret(login.platform));
    };
    let port = login.cx.app.settings.auth.redirect_port;
    let listener = bind(port).await?;
    tracing::debug!(port, "Listening for the result of the login page");
    let redirect_uri = listener.redirect_uri();
    let state = random()?;
    let verifier = match login.accounts.uses_pkce() {
        true => Some(secrets::secret(random()?)),
        false => None,
    };
    let challenge = verifier.as_ref().map(pkce::challenge);
    let request = CodeRequest {
        client_id: client.id,
        redirect_uri: &redirect_uri,
        scopes: &login.scopes,
        state: &state,
        challenge: challenge.as_deref(),
    };
    let Some(page) = login.accounts.consent_page(&request) else {
        return Ok(None);
    };
    show(login, &page, &redirect_uri, keyboard.is_there())?;
    let (events, mut seen) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let serving = listener.serve(state.clone(), events, stop.clone());
    let obtaining = async {
        // The listener answers repeated requests until the code is exchanged.
        let _end = stop.drop_guard();
        let callback = tokio::select! {
            callback = wait(login, port, &state, &mut seen, keyboard) => callback?,
            never = agree_in_demo(login.cx, page.as_str()) => match never {},
        };
        let code = match callback {
            Callback::Code(code) => code,
            Callback::Refused(error) => return Err(declined(&error, &redirect_uri)),
        };
        let grant = Grant::Code {
            code: &code,
            redirect_uri: &redirect_uri,
            verifier: verifier.as_ref(),
        };
        tracing::debug!("Exchanging the code of the login page");
        let redeemed = login.accounts.redeem(grant).await;
        redeemed.map_err(|error| not_granted(login.platform, Some(&redirect_uri), &error))
    };
    let ((), obtained) = tokio::join!(serving, obtaining);
    obtained.map(Some)
}

fn random() -> Result<String, Failure> {
    pkce::random().map_err(|_| Failure::new(ExitCode::Failed, "the system returns no random numbers"))
}

fn show(login: &Login<'_>, page: &Url, redirect_uri: &str, can_paste: bool) -> Result<(), Failure> {
    let title = login.platform.rules().title;
    let is_demo = login.cx.app.demo.is_some();
    let launcher = Launcher::here(&|name| std::env::var(name).ok()).filter(|_| !is_demo);
    let port = login.cx.app.settings.auth.redirect_port;
    let mut text = format!(
        "The application needs this redirect address, exactly as it is here: {redirect_uri}\n\
         To log in as {}, open this page, logged in to {title} as that account:\n\n  {page}\n\n\
         If the browser shows redirect_mismatch, {}.\n",
        login.account,
        register(redirect_uri)
    );
    if is_demo {
        text.push_str("The demo agrees by itself.\n");
    } else if launcher.is_none() {
        text.push_str(&format!(
            "No browser is opened here: open this page on any device. For a browser on another machine run `ssh -L {port}:localhost:{port} THIS-MACHINE` there first.\n"
        ));
    }
    if can_paste && !is_demo {
        text.push_str("If the browser ends at an address that does not load, paste that address here and press Enter.\n");
    }
    if login.platform == PlatformName::Twitch && !is_demo {
        text.push_str("Without --browser a code is shown instead, which works on any device.\n");
    }
    // Printed before the launch: a launcher that starts proves nothing.
    write_err(&text)?;
    if let Some(launcher) = launcher {
        launcher.open(page);
    }
    Ok(())
}

/// Waits for the callback, from the listener or pasted.
async fn wait(
    login: &Login<'_>,
    port: u16,
    state: &str,
    seen: &mut mpsc::Receiver<Event>,
    keyboard: &mut Keyboard,
) -> Result<Callback, Failure> {
    let end = Instant::now() + PATIENCE;
    let countdown = login.cx.progress.countdown("Waiting for the browser");
    let mut warned = false;
    loop {
        countdown.show(end.saturating_duration_since(Instant::now()));
        tokio::select! {
            Some(event) = seen.recv() => match event {
                Event::Callback(callback) => {
                    tracing::debug!("The login page has sent the browser back");
                    return Ok(callback);
                }
                Event::WrongState if warned => {}
                Event::WrongState => {
                    warned = true;
                    countdown.say("An older login page answered, which is ignored. Use the newest link.")?;
                }
            },
            line = keyboard.line() => match loopback::read_pasted(&line, port, state) {
                Some(callback) => return Ok(callback),
                None if line.trim().is_empty() => {}
                None => countdown.say("That is not the address that this login ends at. Use the newest link.")?,
            },
            () = sleep_until(end.min(Instant::now() + Duration::from_secs(1))) => {
                if Instant::now() >= end {
                    return Err(Failure::new(
                        ExitCode::Unauthorized,
                        "the browser did not come back within 5 minutes; nothing was changed",
                    )
                    .hint("run the command again for a new link"));
                }
            }
        }
    }
}

fn declined(error: &str, redirect_uri: &str) -> Failure {
    let failure = |what: String| Failure::new(ExitCode::Unauthorized, format!("{what}; nothing was changed"));
    match error {
        "access_denied" => failure("the login was declined".to_owned())
            .hint("run the command again and agree, in a private window if it was the wrong account"),
        "redirect_mismatch" => {
            failure("the redirect address is not registered".to_owned()).hint(register(redirect_uri))
        }
        other => {
            let name: String = other
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
                .take(40)
                .collect();
            failure(format!("the login page reports the error {name}"))
                .hint("run the command again for a new link")
        }
    }
}

/// Without a secret a code cannot be exchanged, which would show only after the user has consented.
fn without_secret(platform: PlatformName) -> Failure {
    let title = platform.rules().title;
    let what =
        format!("a login in the browser needs the secret of the {title} application; nothing was opened");
    let failure = Failure::new(ExitCode::Configuration, what).hint(format!(
        "set {platform}.client_id and {platform}.client_secret (in the environment {}_CLIENT_ID and {0}_CLIENT_SECRET)",
        platform.as_str().to_ascii_uppercase()
    ));
    match platform {
        PlatformName::Twitch => {
            failure.hint("or log in with a code, which needs no secret: leave out --browser")
        }
        PlatformName::Kick | PlatformName::Discord => failure,
    }
}

/// Listens on the port of the redirect address.
pub async fn bind(port: u16) -> Result<Loopback, Failure> {
    match Loopback::bind(port).await {
        Ok(listener) => Ok(listener),
        Err(error) => Err(port_taken(port, &error, is_login(port).await)),
    }
}

/// Returns whether another login of this program listens on the port: only its pages have this title.
async fn is_login(port: u16) -> bool {
    let asked = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.take(4_096).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).contains(callback::TITLE))
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(1), asked).await,
        Ok(Ok(true))
    )
}

fn port_taken(port: u16, error: &io::Error, by_login: bool) -> Failure {
    if error.kind() != io::ErrorKind::AddrInUse {
        return Failure::new(
            ExitCode::Failed,
            format!("cannot listen on port {port} of localhost"),
        )
        .because(error);
    }
    if by_login {
        let what = format!("another `bitbrat auth login` waits on port {port} of localhost");
        return Failure::new(ExitCode::Failed, what).hint(
            "finish that login in its terminal, or stop it there with Ctrl-C, and run this command again",
        );
    }
    Failure::new(
        ExitCode::Failed,
        format!("port {port} of localhost is taken by another program"),
    )
    .hint(format!("close that program; `ss -ltnp sport = :{port}` names it"))
    .hint("or set auth.redirect_port, and register the address with that port at the platform")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_the_page_is_quoted_only_as_a_name() {
        let failure = declined("<script>alert(1)</script>", "http://localhost:1/callback");
        assert_eq!(
            failure.what,
            "the login page reports the error scriptalert1script; nothing was changed"
        );
        let failure = declined("redirect_mismatch", "http://localhost:1/callback");
        assert!(failure.hints[0].contains("register exactly http://localhost:1/callback"));
    }
}
