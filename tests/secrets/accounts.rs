//! Secrets of accounts: everything that a login, a refresh and a daemon with a secret may do, and then a search for it in everything
//! that the program has written or served.

use std::fmt::Write as _;

use bitbrat::sim::kit::oauth::DeviceState;
use bitbrat::sim::twitch::TokenSpec;
use url::Url;

use super::echo::files;
use crate::cli::login::{BOT, BROWSER, DEVICE, KICK, Rig, consent, get, page};
use crate::support::process::{Process, page as served, toml, until};

/// Each contains what it is, so that a failure names what leaked.
const FROM_ENVIRONMENT: &str = "s3ntinelEnvironmentSecret01";
const FROM_DOTENV: &str = "s3ntinelDotenvAccessToken02";
const FROM_TOML: &str = "s3ntinelTomlSecret000000003";
const FROM_STDIN: [&str; 2] = ["s3ntinelStdinAccessToken04", "s3ntinelStdinRefreshToken05"];
const FROM_QUERY: &str = "s3ntinelStolenCode00000006";

/// All output so far, and the secrets that must not be in it.
#[derive(Default)]
struct Search {
    output: String,
    secrets: Vec<(String, String)>,
}

impl Search {
    fn hide(&mut self, name: &str, secret: &str) {
        assert!(
            secret.len() >= 16,
            "{name} is too short to be searched for: {secret}"
        );
        self.secrets.push((name.to_owned(), secret.to_owned()));
    }

    fn hide_stored(&mut self, rig: &Rig, account: &str) {
        let stored = rig.stored(account);
        for field in ["accessToken", "refreshToken"] {
            if let Some(secret) = stored["token"][field].as_str() {
                self.hide(&format!("{field} of {account}"), secret);
            }
        }
    }

    fn run(&mut self, rig: &Rig, words: &[&str], input: &str) {
        let run = rig
            .home
            .run_with(&[words, &["-vvv"]].concat(), input)
            .never_panics();
        write!(self.output, "{words:?}\n{}\n{}\n", run.stdout, run.stderr).unwrap();
    }

    fn end(&mut self, what: &str, mut process: Process) -> i32 {
        let code = process.ends();
        write!(self.output, "{what}\n{}\n", process.said()).unwrap();
        code
    }

    /// Fails if a secret is in the output or in a file that is not meant to contain it.
    fn finds_nothing(&self, rig: &Rig) {
        let mut texts = files(rig.home.work().parent().unwrap());
        texts.retain(|(name, _)| !name.ends_with("bitbrat.toml"));
        texts.push(("the output".to_owned(), self.output.clone()));
        for (place, text) in texts {
            for (name, secret) in &self.secrets {
                let line = text.lines().find(|line| line.contains(secret.as_str()));
                assert!(line.is_none(), "{place} contains {name}: {line:?}");
            }
        }
    }
}

/// Runs a daemon and requests its pages.
fn serve(search: &mut Search, rig: &Rig) {
    let mut daemon = Process::start(&rig.home, &["watch", "-vvv"]);
    let address = daemon.address();
    until(&address, "/api/v1/sources", |_, body| body.contains("VALID"));
    for path in [
        "/readyz",
        "/metrics",
        "/api/v1/sources",
        "/_debug/sources",
        "/_debug/twitch",
        "/_debug/twitch/eventsub",
        "/_debug/config",
        "/_debug/connectors",
        "/_debug/counters",
        "/_debug/instance",
    ] {
        search
            .output
            .push_str(&served(&address, path).unwrap_or_default().1);
    }
    daemon.signal("-TERM");
    search.end("watch", daemon);
}

#[test]
fn no_flow_of_an_account_reveals_a_secret() {
    let mut rig = Rig::new();
    let mut search = Search::default();
    search.hide("the client secret", &rig.client_secret());
    // A device login, which is refreshed at once.
    let mut login = rig.start(&[&DEVICE[..], &["-vvv"]].concat());
    let line = login.says("Code: ");
    let code = line
        .split("Code: ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    rig.sim
        .twitch
        .decide_device(&code, &DeviceState::Granted(BOT.to_owned()));
    assert_eq!(search.end("device", login), 0, "{}", search.output);
    search.hide_stored(&rig, "twitch/bot");
    search.run(&rig, &["auth", "refresh", "twitch"], "");
    search.hide_stored(&rig, "twitch/bot");
    // Logins in a browser: authorization code, state and proof.
    for words in [&BROWSER[..], &KICK[..]] {
        let mut login = rig.start(&[words, &["-vvv"]].concat());
        let page = page(&mut login);
        let callback = consent(&page);
        let stolen = format!(
            "{}?code={FROM_QUERY}&state=wrong",
            callback.split('?').next().unwrap()
        );
        assert_eq!(get(&stolen).0, 400);
        let answer = get(&callback).2;
        let callback: Url = callback.parse().unwrap();
        let authorization = callback.query_pairs().find(|(name, _)| name == "code").unwrap().1;
        assert!(!answer.contains(&*authorization), "{answer}");
        search.hide("the authorization code", &authorization);
        search.end("browser", login);
    }
    search.hide("the code of a stolen link", FROM_QUERY);
    search.hide_stored(&rig, "twitch/bot");
    search.hide_stored(&rig, "kick/bot");
    // Tokens on standard input: one that is refused, and one that is stored.
    search.run(
        &rig,
        &["auth", "login", "twitch", "--with-token"],
        &format!("{}\n{}\n", FROM_STDIN[0], FROM_STDIN[1]),
    );
    let pair = rig.sim.twitch.issue_token(TokenSpec {
        client_id: rig.client_id(),
        user_id: Some(BOT.to_owned()),
        ..TokenSpec::default()
    });
    let refresh = pair.refresh.unwrap();
    search.run(
        &rig,
        &["auth", "login", "twitch", "--with-token"],
        &format!("{}\n{refresh}\n", pair.access),
    );
    for (name, secret) in [
        ("access token of standard input", FROM_STDIN[0]),
        ("refresh token of standard input", FROM_STDIN[1]),
        ("stored access token of standard input", &pair.access),
        ("stored refresh token of standard input", &refresh),
    ] {
        search.hide(name, secret);
    }
    // A crash while the journal contains a pair, and its recovery.
    let crashed = rig
        .home
        .command(&["auth", "refresh", "twitch", "-vvv"])
        .env("BITBRAT_TEST_FAULT", "refresh.F8")
        .output()
        .unwrap();
    search.output.push_str(&String::from_utf8_lossy(&crashed.stderr));
    search.run(&rig, &["auth", "status"], "");
    search.hide_stored(&rig, "twitch/bot");
    rig.home = rig.home.file("bitbrat.toml", &toml(&["twitch:777001"]));
    serve(&mut search, &rig);
    for words in [
        &["doctor"][..],
        &["config", "show"],
        &["auth", "status", "-o", "json"],
        &["auth", "token", "twitch/bot", "--reveal"],
        &["auth", "logout", "twitch"],
        &["auth", "logout", "kick"],
    ] {
        search.run(&rig, words, "");
    }
    search.finds_nothing(&rig);
}

#[test]
fn secret_of_any_configuration_place_is_never_printed() {
    let mut rig = Rig::without(&["twitch.client_secret", "twitch.client_id"]);
    let mut search = Search::default();
    let more = format!("[twitch]\nclient_id = \"anything\"\nclient_secret = \"{FROM_TOML}\"\n");
    rig.home = rig
        .home
        .file("bitbrat.toml", &format!("{more}{}", toml(&["twitch:777001"])))
        .file(".env", &format!("TWITCH_BOT_ACCESS_TOKEN={FROM_DOTENV}\n"))
        .env("DISCORD_BOT_TOKEN", FROM_ENVIRONMENT);
    for words in [
        &["auth", "status"][..],
        &["auth", "refresh", "twitch"],
        &[
            "auth",
            "login",
            "twitch",
            "--browser",
            "--set",
            "auth.redirect_port=1",
        ],
        &["doctor"],
        &["config", "show"],
        &["config", "check"],
        &["probe", "-o", "json"],
        &["auth", "logout", "twitch"],
    ] {
        search.run(&rig, words, "");
    }
    search.hide("a variable of the environment", FROM_ENVIRONMENT);
    search.hide("a variable of .env", FROM_DOTENV);
    search.hide("a key of the settings", FROM_TOML);
    search.finds_nothing(&rig);
}
