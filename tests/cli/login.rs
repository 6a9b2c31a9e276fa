//! Logging in, against simulated platforms: the whole program, with an HTTP client in the place of the browser.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::Duration;

use bitbrat::sim::kit::oauth::DeviceState;
use bitbrat::sim::{DemoPlatform, Fault, Setting, Sim, SimOptions, discord, kick, twitch};
use tokio::runtime::Runtime;
use url::Url;

use crate::support::process::Process;
use crate::support::{Home, ReservedPort, Run, mode};

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Runtime::new().unwrap()
});

pub const BOT: &str = "777100";
pub const BROADCASTER: &str = "777001";
pub const DEVICE: [&str; 3] = ["auth", "login", "twitch"];
pub const BROWSER: [&str; 4] = ["auth", "login", "twitch", "--browser"];
pub const KICK: [&str; 3] = ["auth", "login", "kick"];

/// Simulated platforms, and a home that is configured for them and has no token.
pub struct Rig {
    pub sim: Sim,
    pub twitch: twitch::demo::DemoWorld,
    discord_token: String,
    pub home: Home,
    pub port: ReservedPort,
}

impl Rig {
    pub fn new() -> Self {
        Self::without(&[])
    }

    /// Leaves out these keys.
    pub fn without(left_out: &[&str]) -> Self {
        let sim = RUNTIME.block_on(Sim::start(SimOptions::default())).unwrap();
        let (twitch, kick, discord) = RUNTIME.block_on(async {
            (
                twitch::demo::populate(&sim.twitch),
                kick::demo::populate(&sim.kick),
                discord::demo::populate(&sim.discord),
            )
        });
        sim.twitch.knobs(|knobs| knobs.device_interval = Some(1));
        let port = ReservedPort::new();
        let mut settings: Vec<Setting> = sim.twitch.addresses();
        settings.extend(sim.kick.addresses());
        settings.extend(sim.discord.addresses());
        settings.extend(twitch.application());
        settings.extend(kick.application());
        settings.push(("auth.redirect_port", port.number.to_string()));
        let mut home = Home::new().env("BITBRAT_SOURCES", "twitch:777001");
        for (path, value) in settings.into_iter().filter(|(path, _)| !left_out.contains(path)) {
            let name = path.to_ascii_uppercase().replace('.', "__");
            home = home.env(&format!("BITBRAT_{name}"), &value);
        }
        Self {
            discord_token: discord.logins()[0].access.clone(),
            sim,
            twitch,
            home,
            port,
        }
    }

    pub fn client_secret(&self) -> String {
        self.twitch.client_secret.clone()
    }

    pub fn client_id(&self) -> String {
        self.twitch.client_id.clone()
    }

    pub fn start(&self, words: &[&str]) -> Process {
        Process::start(&self.home, words)
    }

    /// Starts a login by device code and decides it.
    pub fn decided(&self, words: &[&str], state: &DeviceState<String>) -> (i32, String) {
        let mut login = self.start(words);
        let line = login.says("Code: ");
        let code = line.split(' ').nth(1).unwrap().to_owned();
        assert_eq!(self.sim.twitch.decide_device(&code, state), 1);
        (login.ends(), login.said())
    }

    pub fn granted(&self, words: &[&str], user: &str) -> (i32, String) {
        self.decided(words, &DeviceState::Granted(user.to_owned()))
    }

    pub fn fault(&self, fault: Fault) {
        RUNTIME.block_on(async { self.sim.twitch.host().faults().add(fault) });
    }

    pub fn calm(&self) {
        RUNTIME.block_on(async { self.sim.twitch.host().faults().clear() });
    }

    /// Returns the stored data of an account, as JSON.
    pub fn stored(&self, account: &str) -> serde_json::Value {
        let text = std::fs::read_to_string(self.home.state().join("tokens.json")).unwrap_or_default();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        file["identities"][account].clone()
    }

    pub fn status(&self, account: &str) -> serde_json::Value {
        self.home
            .run(&["auth", "status", "-o", "json"])
            .item("identity", account)["status"]
            .clone()
    }

    pub(crate) fn requests(&self, path: &str) -> u64 {
        self.sim.twitch.host().journal().count("POST", path)
    }
}

/// Requests a page as a browser would and returns status, `Location` and body.
pub fn get(address: &str) -> (u16, Option<String>, String) {
    request("GET", address)
}

pub fn request(method: &str, address: &str) -> (u16, Option<String>, String) {
    let url: Url = address.parse().unwrap();
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut socket = TcpStream::connect(("127.0.0.1", url.port().unwrap())).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let target = &url[url::Position::BeforePath..];
    write!(
        socket,
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let location = head
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .map(str::to_owned);
    (status, location, body.to_owned())
}

/// Waits for the address of the consent page in the output.
pub fn page(login: &mut Process) -> String {
    login.says("/authorize?").trim().to_owned()
}

/// Consents and returns the address that the browser is sent to.
pub fn consent(page: &str) -> String {
    let (status, location, _) = get(page);
    assert_eq!(status, 303);
    location.unwrap()
}

fn ended(mut login: Process) -> Run {
    let code = login.ends();
    Run {
        code,
        stdout: String::new(),
        stderr: login.said(),
    }
}

#[test]
fn device_login_stores_token_after_confirmation() {
    let rig = Rig::new();
    let (code, said) = rig.granted(&DEVICE, BOT);
    assert_eq!(code, 0, "{said}");
    for expected in [
        "/activate?public=true&device-code=",
        "private window",
        "twitch/bot is now authorized as bitbrat_bot (777100)",
        "granted: user:bot, user:read:chat",
    ] {
        assert!(said.contains(expected), "`{expected}` is missing:\n{said}");
    }
    assert_eq!(mode(&rig.home.state().join("tokens.json")), 0o600);
    assert_eq!(rig.status("twitch/bot"), "VALID");
    // The first refresh shows at once whether the secret is right.
    assert_eq!(
        rig.sim
            .twitch
            .host()
            .journal()
            .requests("POST", "/oauth2/device")
            .len(),
        1
    );
    let token = rig.stored("twitch/bot");
    for field in ["accessToken", "refreshToken"] {
        let secret = token["token"][field].as_str().unwrap();
        assert!(!said.contains(secret), "{field} in:\n{said}");
    }
    assert!(!said.contains(&rig.twitch.client_secret), "{said}");
    assert!(token["pending"].is_null());
}

#[test]
fn declined_device_login_changes_nothing() {
    let rig = Rig::new();
    for (message, expected) in [
        ("access_denied", "the login was declined"),
        ("invalid device code", "the code is no longer valid"),
    ] {
        let (code, said) = rig.decided(&DEVICE, &DeviceState::Denied(message.to_owned()));
        assert_eq!(code, 4, "{said}");
        assert!(said.contains(expected), "{said}");
    }
    assert!(rig.stored("twitch/bot")["token"].is_null());
}

#[test]
fn expired_device_code_ends_with_a_clear_message() {
    let rig = Rig::new();
    rig.sim.twitch.knobs(|knobs| knobs.device_secs = Some(2));
    rig.home
        .run(&DEVICE)
        .exits(4)
        .names_account("the code has expired before it was confirmed")
        .names_account("run the command again for a new code");
}

#[test]
fn login_as_the_wrong_account_is_refused_with_both_names() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    let before = rig.stored("twitch/bot");
    let (code, said) = rig.granted(&DEVICE, BROADCASTER);
    assert_eq!(code, 4, "{said}");
    for expected in ["pixelmeadow (777001)", "bitbrat_bot (777100)", "--as broadcaster"] {
        assert!(said.contains(expected), "`{expected}` is missing:\n{said}");
    }
    assert_eq!(rig.stored("twitch/bot"), before);
    assert_eq!(
        rig.requests("/oauth2/revoke"),
        1,
        "the token of the wrong account"
    );
}

#[test]
fn broadcaster_without_an_id_is_found_by_login() {
    let rig = Rig::new();
    let (code, said) = rig.granted(&["auth", "login", "twitch", "--as", "broadcaster"], BROADCASTER);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("twitch/broadcaster:777001 is now authorized as pixelmeadow (777001)"),
        "{said}"
    );
    assert_eq!(rig.status("twitch/broadcaster:777001"), "VALID");
    assert!(rig.stored("twitch/bot").is_null());
}

#[test]
fn public_application_logs_in_without_a_secret() {
    let mut rig = Rig::without(&["twitch.client_secret", "twitch.client_id"]);
    rig.sim.twitch.add_client("public0client", None);
    rig.home = rig.home.env("TWITCH_CLIENT_ID", "public0client");
    let (code, said) = rig.granted(&DEVICE, BOT);
    assert_eq!(code, 0, "{said}");
    assert_eq!(rig.status("twitch/bot"), "VALID");
    let token = rig.stored("twitch/bot");
    assert!(
        token["token"]["refreshState"].is_null(),
        "its refresh token is new"
    );
}

#[test]
fn missing_secret_shows_at_login_and_not_hours_later() {
    let rig = Rig::without(&["twitch.client_secret"]);
    let (code, said) = rig.granted(&DEVICE, BOT);
    assert_eq!(code, 4, "{said}");
    for expected in [
        "is now authorized as bitbrat_bot",
        "its first refresh did not",
        "the application is confidential: set its secret (twitch.client_secret)",
    ] {
        assert!(said.contains(expected), "`{expected}` is missing:\n{said}");
    }
    assert!(!rig.stored("twitch/bot")["token"]["refreshToken"].is_null());
}

#[test]
fn wrong_secret_is_named_without_blaming_the_account() {
    let mut rig = Rig::without(&["twitch.client_secret"]);
    rig.home = rig
        .home
        .env("TWITCH_CLIENT_SECRET", "secret-of-another-application");
    let (code, said) = rig.granted(&DEVICE, BOT);
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("belongs to another application or was replaced") && !said.contains("REVOKED"),
        "{said}"
    );
    assert!(!said.contains("secret-of-another-application"), "{said}");
}

#[test]
fn login_without_a_client_id_names_the_key() {
    let rig = Rig::without(&["twitch.client_secret", "twitch.client_id"]);
    rig.home
        .run(&DEVICE)
        .exits(6)
        .names_account("needs the client id")
        .names_account("TWITCH_CLIENT_ID");
}

#[test]
fn outage_during_login_is_no_refusal() {
    let rig = Rig::new();
    rig.fault(Fault::status(503).on("/oauth2/device"));
    let run = rig
        .home
        .run(&DEVICE)
        .exits(8)
        .names_account("nothing was changed")
        .names_account("with status 503");
    assert!(!run.stderr.contains("REVOKED"), "{}", run.stderr);
    assert!(!run.stderr.contains("cannot be reached"), "{}", run.stderr);
}

#[test]
fn login_whose_owner_is_unknown_is_finished_later() {
    let rig = Rig::new();
    rig.fault(Fault::status(503).on("/oauth2/validate"));
    let (code, said) = rig.granted(&DEVICE, BOT);
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("run the command again to finish it"), "{said}");
    let waiting = rig.stored("twitch/bot");
    assert!(waiting["token"].is_null() && !waiting["pending"].is_null());
    rig.calm();
    rig.home
        .run(&["auth", "status", "--offline"])
        .names_account("a login of twitch/bot is not finished")
        .names_account("bitbrat auth login twitch");
    rig.home
        .run(&["doctor", "twitch"])
        .shows("login of twitch/bot")
        .names_account("bitbrat auth login twitch");
    rig.home
        .run(&DEVICE)
        .exits(0)
        .names_account("is now authorized as bitbrat_bot");
    assert_eq!(rig.requests("/oauth2/device"), 1);
    assert_eq!(rig.status("twitch/bot"), "VALID");
}

#[test]
fn browser_login_ignores_everything_but_its_callback() {
    let rig = Rig::new();
    let mut login = rig.start(&BROWSER);
    login.says(&format!("http://localhost:{}/callback", rig.port.number));
    let page = page(&mut login);
    assert!(page.contains("force_verify=true"), "{page}");
    let callback = consent(&page);
    let root = format!("http://localhost:{}", rig.port.number);
    // Browsers open connections in advance, which send nothing.
    let _silent = [(); 4].map(|()| TcpStream::connect(("127.0.0.1", rig.port.number)).unwrap());
    assert_eq!(get(&format!("{root}/favicon.ico")).0, 204);
    assert_eq!(get(&format!("{root}/")).0, 404);
    assert_eq!(request("OPTIONS", &callback).0, 405);
    let (status, _, body) = get(&format!("{root}/callback?code=stolen&state=wrong"));
    assert!(status == 400 && !body.contains("stolen"), "{body}");
    assert_eq!(get(&format!("{root}/callback?error=access_denied")).0, 400);
    let (status, _, body) = get(&callback);
    assert!(
        status == 200 && body.contains("Go back to the terminal"),
        "{body}"
    );
    let run = ended(login).exits(0);
    let run = run
        .names_account("An older login page answered")
        .names_account("is now authorized as bitbrat_bot (777100)");
    let code = Url::parse(&callback).unwrap();
    let code = code
        .query_pairs()
        .find(|(name, _)| name == "code")
        .unwrap()
        .1
        .into_owned();
    assert!(!run.stderr.contains(&code), "{}", run.stderr);
    assert_eq!(rig.status("twitch/bot"), "VALID");
    assert!(
        TcpStream::connect(("127.0.0.1", rig.port.number)).is_err(),
        "it is closed"
    );
}

#[test]
fn kick_login_proves_its_request_and_survives_a_repeat() {
    let rig = Rig::new();
    let mut login = rig.start(&KICK);
    let page = page(&mut login);
    assert!(page.contains("code_challenge_method=S256"), "{page}");
    let callback = consent(&page);
    assert_eq!(get(&callback).0, 200);
    // The browser may repeat the request until the listener is closed.
    if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", rig.port.number)) {
        let _ = write!(socket, "GET /callback HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    let run = ended(login)
        .exits(0)
        .names_account("kick/bot is now authorized as BitBrat_Bot (888100)");
    let journal = rig.sim.kick.host().journal();
    // One exchange of the code, and the first refresh.
    assert_eq!(journal.count("POST", "/oauth/token"), 2);
    for request in journal.requests("POST", "/oauth/token") {
        assert!(!run.stderr.contains("code_verifier"), "{request:?}");
    }
    assert_eq!(rig.status("kick/bot"), "VALID");
}

#[test]
fn declined_browser_login_says_so() {
    let rig = Rig::new();
    rig.sim.twitch.knobs(|knobs| knobs.consent = None);
    let mut login = rig.start(&BROWSER);
    let page = page(&mut login);
    get(&consent(&page));
    ended(login)
        .exits(4)
        .names_account("the login was declined")
        .names_account("run the command again");
}

#[test]
fn login_without_a_browser_here_shows_the_link_and_ways_out() {
    let mut rig = Rig::new();
    rig.home = rig.home.env("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22");
    rig.sim.twitch.knobs(|knobs| knobs.consent = None);
    let mut login = rig.start(&BROWSER);
    let page = page(&mut login);
    login.says_all(&[
        "register exactly",
        "open this page on any device",
        &format!("ssh -L {0}:localhost:{0}", rig.port.number),
        "Without --browser a code is shown instead",
        "Ctrl-C stops it",
    ]);
    get(&consent(&page));
    ended(login).exits(4);
}

#[test]
fn second_login_on_the_port_names_the_first() {
    let rig = Rig::new();
    let mut first = rig.start(&KICK);
    let page = page(&mut first);
    rig.home
        .run(&BROWSER)
        .exits(1)
        .names_account("another `bitbrat auth login` waits on port")
        .names_account("Ctrl-C");
    get(&consent(&page));
    ended(first).exits(0);
}

#[test]
fn device_login_goes_on_through_an_outage() {
    let rig = Rig::new();
    let mut login = rig.start(&DEVICE);
    let line = login.says("Code: ");
    let code = line.split(' ').nth(1).unwrap().to_owned();
    rig.fault(
        Fault::wire(bitbrat::sim::WireFault::Reset)
            .on("/oauth2/token")
            .times(2),
    );
    login.says("does not answer; trying on");
    rig.sim
        .twitch
        .decide_device(&code, &DeviceState::Granted(BOT.to_owned()));
    ended(login).exits(0).names_account("is now authorized");
}

#[test]
fn steps_of_a_login_are_logged_without_secrets() {
    let rig = Rig::new();
    let (code, said) = rig.granted(&["auth", "login", "twitch", "-vv"], BOT);
    assert_eq!(code, 0, "{said}");
    for step in [
        "Device code received",
        "The owner of the login is known",
        "The login is stored",
    ] {
        assert!(said.contains(step), "`{step}` is missing:\n{said}");
    }
    let token = rig.stored("twitch/bot");
    assert!(!said.contains(token["token"]["accessToken"].as_str().unwrap()));
}

#[test]
fn renewable_means_that_a_refresh_has_worked() {
    let rig = Rig::new();
    let input = format!("{}\n{}\n", rig.twitch.bot.access, rig.twitch.bot.refresh);
    rig.home
        .run_with(&["auth", "login", "twitch", "--with-token"], &input)
        .exits(0);
    let offline = ["auth", "status", "--offline", "-o", "wide"];
    rig.home.run(&offline).shows("not refreshed yet");
    rig.home.run(&["auth", "refresh", "twitch"]).exits(0);
    rig.home.run(&offline).shows(", refreshed ");
}

#[test]
fn redirect_mismatch_names_the_address_to_register() {
    let rig = Rig::new();
    let mut login = rig.start(&BROWSER);
    let page: Url = page(&mut login).parse().unwrap();
    let state = page
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    let root = format!("http://localhost:{}/callback", rig.port.number);
    get(&format!("{root}?error=redirect_mismatch&state={state}"));
    ended(login)
        .exits(4)
        .names_account(&format!("register exactly {root}"));
}

#[test]
fn port_of_another_program_is_named_with_the_key() {
    let rig = Rig::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let run = rig
        .home
        .run(&[&KICK[..], &["--set", &format!("auth.redirect_port={port}")]].concat());
    run.exits(1)
        .names_account(&format!("port {port} of localhost is taken"))
        .names_account("auth.redirect_port");
    assert_eq!(rig.sim.kick.host().journal().total(), 0);
}

#[test]
fn browser_login_without_a_secret_opens_nothing() {
    let rig = Rig::without(&["twitch.client_secret"]);
    let run = rig
        .home
        .run(&BROWSER)
        .exits(6)
        .names_account("nothing was opened")
        .names_account("leave out --browser");
    assert!(!run.stderr.contains("/authorize"), "{}", run.stderr);
}

#[test]
fn token_with_prefix_and_quotes_is_understood() {
    let rig = Rig::new();
    let input = format!(
        "\"oauth:{}\"\r\n'{}'\r\n",
        rig.twitch.bot.access, rig.twitch.bot.refresh
    );
    rig.home
        .run_with(&["auth", "login", "twitch", "--with-token"], &input)
        .exits(0)
        .names_account("is now authorized as bitbrat_bot (777100)");
    assert_eq!(
        rig.stored("twitch/bot")["token"]["refreshToken"],
        rig.twitch.bot.refresh.as_str()
    );
}

#[test]
fn refresh_token_in_place_of_access_token_is_recognized() {
    let rig = Rig::new();
    let input = format!("{}\n", "r".repeat(50));
    rig.home
        .run_with(&["auth", "login", "twitch", "--with-token"], &input)
        .exits(4)
        .names_account("has the form of a refresh token");
}

#[test]
fn token_of_another_application_is_refused_with_its_id() {
    let mut rig = Rig::without(&["twitch.client_id", "twitch.client_secret"]);
    rig.home = rig.home.env("TWITCH_CLIENT_ID", "anotherapplication");
    let input = format!("{}\n", rig.twitch.bot.access);
    rig.home
        .run_with(&["auth", "login", "twitch", "--with-token"], &input)
        .exits(4)
        .names_account("nothing was stored")
        .names_account(&format!("belongs to the application {}", rig.twitch.client_id))
        .names_account("twitch.client_id is anotherapplication");
    assert!(rig.stored("twitch/bot")["token"].is_null());
}

#[test]
fn discord_login_prints_the_invite_link() {
    let rig = Rig::new();
    let input = format!("Bot {}\n", rig.discord_token);
    let run = rig
        .home
        .run_with(&["auth", "login", "discord"], &input)
        .exits(0)
        .names_account("VIEW_CHANNEL, SEND_MESSAGES, READ_MESSAGE_HISTORY")
        .names_account("&permissions=68608")
        .names_account("discord/bot is now authorized as ");
    rig.home
        .run(&["auth", "login", "discord", "--browser"])
        .exits(2)
        .names_account("a bot has one token, from the Developer Portal");
    rig.home
        .run(&["auth", "login", "discord"])
        .exits(2)
        .names_account("bitbrat auth login discord --with-token");
    assert!(!run.stderr.contains(&rig.discord_token), "{}", run.stderr);
    rig.home
        .run(&["auth", "refresh", "discord"])
        .exits(2)
        .names_account("do not expire");
    rig.home
        .run(&["auth", "logout", "discord"])
        .exits(0)
        .names_account("not revoked at Discord");
}

#[test]
fn refresh_replaces_the_token_and_logout_revokes_it() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    let before = rig.stored("twitch/bot")["token"]["accessToken"].clone();
    let run = rig
        .home
        .run(&["auth", "refresh", "twitch/bot"])
        .exits(0)
        .names_account("the token of twitch/bot was refreshed");
    let token = rig.stored("twitch/bot")["token"]["accessToken"].clone();
    assert_ne!(token, before);
    assert!(!run.stderr.contains(token.as_str().unwrap()));
    rig.home
        .run(&["auth", "logout", "twitch/bot"])
        .exits(0)
        .names_account("deleted here")
        .names_account("the access token was revoked at Twitch")
        .names_account("settings/connections");
    assert_eq!(rig.requests("/oauth2/revoke"), 1);
    assert!(rig.stored("twitch/bot")["token"].is_null());
    rig.home
        .run(&["auth", "refresh", "twitch/bot"])
        .exits(4)
        .names_account("has no token")
        .names_account("bitbrat auth login twitch");
}

#[test]
fn revoked_account_grants_nothing_after_a_logout() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    rig.home.run(&["probe"]);
    let auth = || {
        rig.home
            .run(&["status", "-o", "json"])
            .item("key", "twitch:777001")["authStatus"]
            .clone()
    };
    assert_eq!(auth(), "VALID");
    rig.home.run(&["auth", "logout", "twitch"]).exits(0);
    assert_eq!(auth(), "REVOKED");
    rig.granted(&DEVICE, BOT);
    assert_eq!(auth(), "VALID");
}

#[test]
fn token_of_another_user_does_not_replace_an_account() {
    let rig = Rig::without(&["twitch.bot_user_id"]);
    rig.granted(&DEVICE, BOT);
    let before = rig.stored("twitch/bot");
    let other = rig.sim.twitch.issue_token(twitch::TokenSpec {
        client_id: before["token"]["clientId"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        user_id: Some(BROADCASTER.to_owned()),
        ..twitch::TokenSpec::default()
    });
    let run = rig
        .home
        .run_with(&["auth", "login", "twitch", "--with-token"], &other.access)
        .exits(4)
        .names_account("bitbrat auth logout twitch/bot");
    assert!(!run.stderr.contains(&other.access));
    assert_eq!(rig.stored("twitch/bot"), before);
}

#[test]
fn logout_during_an_outage_still_deletes_the_token() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    rig.fault(Fault::status(503).on("/oauth2/revoke"));
    rig.home
        .run(&["auth", "logout", "twitch"])
        .exits(1)
        .names_account("not revoked at Twitch")
        .names_account("https://www.twitch.tv/settings/connections");
    assert!(rig.stored("twitch/bot")["token"].is_null());
}

#[test]
fn logout_deletes_what_killed_processes_have_left() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    let left = [".tokens.json-abcDE1", ".tokens.json.twitch-bot.journal-abcDE2"];
    let left = left.map(|name| rig.home.state().join(name));
    for path in &left {
        std::fs::write(path, "{\"refreshToken\":").unwrap();
    }
    rig.home.run(&["auth", "logout", "twitch"]).exits(0);
    assert!(!left.iter().any(|path| path.exists()));
}

#[test]
fn failed_refresh_keeps_the_token() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    let before = rig.stored("twitch/bot");
    rig.fault(Fault::status(503).on("/oauth2/token"));
    rig.home
        .run(&["auth", "refresh", "twitch"])
        .exits(8)
        .names_account("was not refreshed");
    assert_eq!(
        rig.stored("twitch/bot")["token"]["accessToken"],
        before["token"]["accessToken"]
    );
}

#[test]
fn token_is_revealed_only_on_a_terminal_after_a_yes() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    let token = rig.stored("twitch/bot")["token"]["accessToken"]
        .as_str()
        .unwrap()
        .to_owned();
    let run = rig
        .home
        .run(&["auth", "token", "twitch/bot", "--reveal"])
        .exits(2)
        .names_account("on a terminal only");
    rig.home
        .run(&["auth", "token", "twitch/bot", "--reveal", "-o", "json"])
        .exits(2)
        .names_account("plain text only");
    assert!(!run.stdout.contains(&token) && !run.stderr.contains(&token));
    let program = env!("CARGO_BIN_EXE_bitbrat");
    for (answer, shown) in [("y", true), ("", false)] {
        let line = format!(
            "(sleep 1; echo {answer}; sleep 1) | script --quiet --return --command '{program} auth token twitch/bot --reveal' /dev/null"
        );
        let output = rig.home.shell(&line);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("Anyone who sees this token"), "{said}");
        assert_eq!(said.contains(&token), shown, "{answer}: {said}");
    }
}

#[test]
fn missing_scopes_are_shown_with_what_they_cost() {
    let rig = Rig::new();
    let pair = rig.sim.twitch.issue_token(twitch::TokenSpec {
        client_id: rig.twitch.client_id.clone(),
        user_id: Some(BOT.to_owned()),
        scopes: vec![
            "user:read:chat".to_owned(),
            "user:read:moderated_channels".to_owned(),
        ],
        ..Default::default()
    });
    rig.home
        .run_with(
            &["auth", "login", "twitch", "--with-token"],
            &format!("{}\n", pair.access),
        )
        .exits(0);
    let run = rig.home.run(&["auth", "status", "-o", "json"]).exits(0);
    let missing = run.item("identity", "twitch/bot")["missingScopes"].clone();
    assert_eq!(missing[0]["scope"], "user:write:chat", "{missing}");
    run.names_account("lacks user:write:chat (the bot cannot send chat messages)")
        .names_account("bitbrat auth login twitch");
}

#[test]
fn configured_scopes_and_held_ones_are_requested_too() {
    let mut rig = Rig::new();
    rig.home = rig.home.env("BITBRAT_TWITCH__SCOPES", "clips:edit");
    rig.granted(&DEVICE, BOT);
    let scopes = rig.stored("twitch/bot")["token"]["scopes"].to_string();
    assert!(
        scopes.contains("clips:edit") && scopes.contains("user:bot"),
        "{scopes}"
    );
    rig.home = rig.home.env("BITBRAT_TWITCH__SCOPES", "");
    rig.granted(&DEVICE, BOT);
    let again = rig.stored("twitch/bot")["token"]["scopes"].to_string();
    assert_eq!(again, scopes);
}

#[test]
fn demo_logs_in_by_itself_as_its_hints_say() {
    let home = Home::new();
    let port = ReservedPort::new();
    let port = format!("auth.redirect_port={}", port.number);
    home.run(&["--demo", "auth", "status"])
        .names_account("bitbrat --demo auth login twitch --as twitch/broadcaster:777009");
    home.run(&[
        "--demo",
        "auth",
        "login",
        "twitch",
        "--as",
        "twitch/broadcaster:777009",
    ])
    .exits(0)
    .names_account("twitch/broadcaster:777009 is now authorized as")
    .names_account("the demo forgets this login when it ends");
    home.run(&["--demo", "--set", &port, "auth", "login", "kick"])
        .exits(0)
        .names_account("kick/bot is now authorized as");
}

#[test]
fn qr_code_is_drawn_beside_the_address() {
    let rig = Rig::new();
    let (code, said) = rig.granted(&["auth", "login", "twitch", "--qr"], BOT);
    assert!(code == 0 && said.contains('█'), "{said}");
}
