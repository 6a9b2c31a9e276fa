//! Invitations of the owners of channels, against simulated platforms: by code, and by a link that a running `watch` receives.

use bitbrat::sim::Fault;
use bitbrat::sim::kit::oauth::DeviceState;

use super::login::{BOT, BROADCASTER, Rig, consent, get, request};
use crate::support::process::Process;
use crate::support::{Home, ReservedPort, mode};

const DEVICE: [&str; 5] = ["auth", "invite", "twitch", "pixelmeadow", "--device"];

/// Simulated platforms with a running daemon, whose pages others reach at `address`.
struct Public {
    rig: Rig,
    daemon: Process,
    address: String,
}

impl Public {
    fn new() -> Self {
        let mut rig = Rig::new();
        let port = ReservedPort::new();
        let address = format!("http://localhost:{}", port.number);
        let home = std::mem::replace(&mut rig.home, Home::new());
        rig.home = home
            .env("BITBRAT_WEB__LISTEN", &format!("127.0.0.1:{}", port.number))
            .env("BITBRAT_WEB__PUBLIC_URL", &address);
        let mut daemon = rig.start(&["watch"]);
        daemon.says("Serving pages at");
        Self { rig, daemon, address }
    }

    /// Invites and returns the link.
    fn link(&self, words: &[&str]) -> String {
        let run = self.rig.home.run(&[&["auth", "invite"], words].concat()).exits(0);
        let run = run.names_account(&format!("{}/auth/callback", self.address));
        run.stdout.trim().to_owned()
    }

    fn listed(&self) -> serde_json::Value {
        let run = self
            .rig
            .home
            .run(&["auth", "invite", "--list", "-o", "json"])
            .exits(0);
        run.json()["items"].clone()
    }
}

#[test]
fn consent_by_code_is_recorded_without_a_token() {
    let rig = Rig::new();
    let (code, said) = rig.granted(&DEVICE, BROADCASTER);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("pixelmeadow (777001) has consented to channel:bot; only the consent is recorded"),
        "{said}"
    );
    assert!(rig.stored("twitch/broadcaster:777001").is_null());
    let path = rig.home.state().join("invites.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert!(text.contains("777001") && !text.contains("oken"), "{text}");
}

#[test]
fn token_is_kept_where_more_scopes_are_requested() {
    let rig = Rig::new();
    let words = [&DEVICE[..], &["--scope", "moderation:read"]].concat();
    let (code, said) = rig.granted(&words, BROADCASTER);
    assert_eq!(code, 0, "{said}");
    let scopes = rig.stored("twitch/broadcaster:777001")["token"]["scopes"].to_string();
    assert!(
        scopes.contains("moderation:read") && scopes.contains("channel:bot"),
        "{scopes}"
    );
    assert_eq!(rig.status("twitch/broadcaster:777001"), "VALID");
}

#[test]
fn consent_of_another_account_is_refused_with_both_names() {
    let rig = Rig::new();
    let (code, said) = rig.granted(&DEVICE, BOT);
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("the consent is of bitbrat_bot (777100), and pixelmeadow (777001) was invited"),
        "{said}"
    );
    assert!(rig.stored("twitch/broadcaster:777100").is_null());
    let revoked = rig.sim.twitch.host().journal().count("POST", "/oauth2/revoke");
    assert_eq!(revoked, 1, "the token of the wrong account");
}

#[test]
fn declined_code_records_nothing() {
    let rig = Rig::new();
    let (code, said) = rig.decided(&DEVICE, &DeviceState::Denied("access_denied".to_owned()));
    assert_eq!(code, 4, "{said}");
    assert!(!rig.home.state().join("invites.json").exists());
}

#[test]
fn link_is_received_once_by_a_running_watch() {
    let mut public = Public::new();
    let sim = &public.rig.sim;
    sim.twitch
        .knobs(|knobs| knobs.consent = Some(BROADCASTER.to_owned()));
    let link = public.link(&["twitch", "pixelmeadow"]);
    assert_eq!(public.listed()[0]["state"], "waiting");
    let callback = consent(&link);
    assert!(
        callback.starts_with(&format!("{}/auth/callback?", public.address)),
        "{callback}"
    );
    for method in ["HEAD", "OPTIONS", "POST"] {
        assert_eq!(request(method, &callback).0, 405, "{method}");
    }
    let root = format!("{}/auth/callback", public.address);
    for query in [
        "",
        "?code=stolen&state=wrong",
        &format!("?code=stolen&state={}", "x".repeat(43)),
    ] {
        let (status, _, body) = get(&format!("{root}{query}"));
        assert!(
            status == 400 && body.contains("Ask for a new one") && !body.contains("stolen"),
            "{body}"
        );
    }
    let (status, _, body) = get(&callback);
    assert!(
        status == 200 && body.contains("your consent was received"),
        "{body}"
    );
    assert_eq!(get(&callback).0, 400, "it works once");
    public.daemon.says("An invitation was accepted");
    let listed = public.listed();
    assert_eq!(listed[0]["state"], "consented", "{listed}");
    assert_eq!(
        (&listed[0]["login"], &listed[0]["kept"]),
        (&"pixelmeadow".into(), &false.into())
    );
    assert!(public.rig.stored("twitch/broadcaster:777001").is_null());
}

#[test]
fn link_stays_valid_when_the_platform_issues_no_token() {
    let mut public = Public::new();
    let sim = &public.rig.sim;
    sim.twitch
        .knobs(|knobs| knobs.consent = Some(BROADCASTER.to_owned()));
    let link = public.link(&["twitch", "pixelmeadow"]);
    public.rig.fault(Fault::status(500).on("/oauth2/token"));
    let (status, _, body) = get(&consent(&link));
    assert!(status == 502 && body.contains("it stays valid"), "{body}");
    public.daemon.says("its link stays valid");
    let listed = public.listed();
    assert_eq!(listed[0]["state"], "waiting", "{listed}");
    assert!(
        listed[0]["reason"].as_str().unwrap().contains("status 500"),
        "{listed}"
    );
    public.rig.calm();
    assert_eq!(get(&consent(&link)).0, 200);
    assert_eq!(public.listed()[0]["state"], "consented");
}

#[test]
fn recorded_consent_makes_a_channel_free_in_the_plan() {
    let mut rig = Rig::new();
    rig.granted(&super::login::DEVICE, BOT);
    let cost = |rig: &Rig| {
        let run = rig.home.run(&["watch", "--plan", "-o", "json"]).exits(0);
        run.item("key", "twitch:777001")["allowance"]["cost"].clone()
    };
    rig.home = rig.home.env("BITBRAT_SOURCES", "twitch:777001");
    assert_ne!(cost(&rig), 0);
    let (code, said) = rig.granted(&DEVICE, BROADCASTER);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cost(&rig), 0);
}

#[test]
fn declined_link_stays_valid() {
    let public = Public::new();
    let sim = &public.rig.sim;
    let link = public.link(&["twitch", "pixelmeadow"]);
    sim.twitch.knobs(|knobs| knobs.consent = None);
    let (status, _, body) = get(&consent(&link));
    assert!(status == 200 && body.contains("You declined"), "{body}");
    sim.twitch
        .knobs(|knobs| knobs.consent = Some(BROADCASTER.to_owned()));
    assert_eq!(get(&consent(&link)).0, 200);
    assert_eq!(public.listed()[0]["state"], "consented");
}

#[test]
fn kick_link_is_proven_and_bound_to_who_was_invited() {
    let mut public = Public::new();
    let link = public.link(&["kick", "marblefalcon"]);
    assert!(link.contains("code_challenge_method=S256"), "{link}");
    // The bot consents instead of the owner of the channel.
    let (status, _, body) = get(&consent(&link));
    assert!(status == 403 && body.contains("for another account"), "{body}");
    public.daemon.says("A consent was refused");
    let listed = public.listed();
    assert_eq!(listed[0]["state"], "refused", "{listed}");
    let reason = listed[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("(888100), and marblefalcon (888001) was invited"),
        "{reason}"
    );
    public.rig.sim.kick.knobs(|knobs| knobs.consent = Some(888_001));
    let (status, _, body) = get(&consent(&public.link(&["kick", "marblefalcon"])));
    assert_eq!(status, 200, "{body}");
}

#[test]
fn link_without_a_public_address_names_the_key() {
    let rig = Rig::new();
    rig.home
        .run(&["auth", "invite", "twitch", "pixelmeadow"])
        .exits(6)
        .names_account("web.public_url")
        .names_account("--device");
    rig.home
        .run(&[
            "--set",
            "web.public_url=http://bot.example",
            "auth",
            "invite",
            "twitch",
        ])
        .exits(6)
        .names_account("is not an https address");
    rig.home
        .run(&["auth", "invite", "twitch", "nobodyofthisname", "--device"])
        .exits(5)
        .names_account("no account on Twitch is called");
    rig.home
        .run(&["auth", "invite", "discord"])
        .exits(2)
        .names_account("bitbrat auth login discord");
}

#[test]
fn demo_invites_the_owner_of_a_channel() {
    let home = Home::new();
    let port = ReservedPort::new();
    let port = format!("auth.redirect_port={}", port.number);
    let demo = ["--demo", "--set", &port, "auth", "invite"];
    for words in [
        &["twitch", "quietharbor"][..],
        &["twitch", "quietharbor", "--device"],
        &["kick", "marblefalcon"],
        &["kick"],
    ] {
        home.run(&[&demo[..], words].concat())
            .exits(0)
            .names_account("has consented to");
    }
}
