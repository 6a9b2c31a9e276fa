//! Logins in a browser with a real one: Chromium opens the printed page, consents at the simulator, and is sent back to the program.

use std::path::PathBuf;

use super::login::{BROWSER, KICK, Rig, page};

/// Returns the browser that `scripts/services.sh browser` finds; `None` skips a test where no service is required.
fn browser() -> Option<PathBuf> {
    const NAMES: [&str; 4] = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    if let Some(given) = std::env::var_os("BITBRAT_TEST_BROWSER") {
        return Some(given.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path)
        .flat_map(|directory| NAMES.map(|name| directory.join(name)))
        .filter(|program| program.is_file());
    let found = found.next();
    if found.is_none() {
        let is_required = std::env::var("BITBRAT_TEST_SERVICES").is_ok_and(|value| value == "required");
        assert!(
            !is_required,
            "no Chromium: run `scripts/services.sh browser`, which installs it or says how, or set BITBRAT_TEST_BROWSER"
        );
    }
    found
}

/// Opens a page and returns the one that it ends at. Only this machine can be reached.
fn open(rig: &Rig, browser: &std::path::Path, page: &str) -> String {
    let browser = browser.to_string_lossy();
    let profile = format!("--user-data-dir={}", rig.home.path().join("profile").display());
    let line = [
        "timeout",
        "50",
        &browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
        &profile,
        "--dump-dom",
        page,
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = rig.home.command_of(&line).env("PATH", path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!text.is_empty(), "{}: {log}", output.status);
    text
}

/// Logs in with the browser and returns the page that it shows at the end, the exit code and the output.
fn log_in(rig: &Rig, words: &[&str]) -> Option<(String, i32, String)> {
    let browser = browser()?;
    let mut login = rig.start(words);
    let address = page(&mut login);
    let shown = open(rig, &browser, &address);
    Some((shown, login.ends(), login.said()))
}

#[test]
fn chromium_logs_in_to_twitch() {
    let rig = Rig::new();
    let Some((shown, code, said)) = log_in(&rig, &BROWSER) else {
        return;
    };
    assert!(shown.contains("Received. Go back to the terminal"), "{shown}");
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("twitch/bot is now authorized as bitbrat_bot (777100)"),
        "{said}"
    );
    assert_eq!(rig.status("twitch/bot"), "VALID");
}

#[test]
fn chromium_logs_in_to_kick() {
    let rig = Rig::new();
    let Some((shown, code, said)) = log_in(&rig, &KICK) else {
        return;
    };
    assert!(shown.contains("Received. Go back to the terminal"), "{shown}");
    assert_eq!(code, 0, "{said}");
    assert_eq!(rig.status("kick/bot"), "VALID");
}

#[test]
fn consent_declined_in_chromium_stores_nothing() {
    let rig = Rig::new();
    rig.sim.twitch.knobs(|knobs| knobs.consent = None);
    let Some((shown, code, said)) = log_in(&rig, &BROWSER) else {
        return;
    };
    assert!(shown.contains("No login was granted"), "{shown}");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("the login was declined"), "{said}");
    assert!(rig.stored("twitch/bot")["token"].is_null());
}
