//! The keyring of a desktop: a real GNOME Keyring on a session bus of its own.
//!
//! Which bus a process uses follows from its environment, so the tests of the contract run in a process of their own.

use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bitbrat::core::observation::Identity;
use bitbrat::tokens::{KeyringTokenStore, TokenStore};

use super::worlds::World;
use crate::cli::login::{BOT, DEVICE, Rig};
use crate::support::Home;

/// Starts a keyring that is unlocked with a password, then the command of the arguments.
const UNLOCKED: &str =
    "printf password | gnome-keyring-daemon --unlock --components=secrets >/dev/null && exec \"$@\"";

/// Entries of a name of their own.
pub struct KeyringWorld(tempfile::TempDir, String);

#[async_trait]
impl World for KeyringWorld {
    const SEVERAL_PROCESSES: bool = true;

    async fn new() -> Self {
        let name = format!("bitbrat-test-{}", uuid::Uuid::new_v4());
        Self(tempfile::tempdir().unwrap(), name)
    }

    async fn open(&self) -> Arc<dyn TokenStore> {
        let base = self.0.path().join("state/tokens.json");
        Arc::new(KeyringTokenStore::new(&*self.1, base))
    }
}

/// Returns whether the programs of a session are there. In CI they have to be.
fn has_keyring() -> bool {
    let exists = |program: &&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    };
    let missing = ["gnome-keyring-daemon", "dbus-run-session"]
        .into_iter()
        .find(|program| !exists(program));
    if let Some(program) = missing {
        assert!(
            std::env::var_os("BITBRAT_TEST_SERVICES").is_none(),
            "{program} is needed: scripts/test.sh installs it"
        );
    }
    missing.is_none()
}

/// Runs ignored tests of this binary in a session whose bus has a keyring.
fn in_session(tests: &[&str]) {
    if !has_keyring() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("dbus-run-session")
        .args(["--", "bash", "-c", UNLOCKED, "bash"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--test-threads=2"])
        .args(tests)
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .env("XDG_DATA_HOME", home.path().join("data"))
        .env_remove("DISPLAY")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(!said.contains("running 0 tests"), "{said}");
}

#[test]
fn keyring_keeps_the_contract() {
    in_session(&["contract::tokens::in_keyring::"]);
}

#[test]
fn login_is_stored_in_the_keyring_and_found_again() {
    in_session(&["contract::tokens::keyring::logs_in", "--exact"]);
}

#[test]
#[ignore = "runs in a session with a keyring, by `login_is_stored_in_the_keyring_and_found_again`"]
fn logs_in() {
    let mut rig = Rig::new();
    let home = std::mem::replace(&mut rig.home, Home::new());
    rig.home = home.env("BITBRAT_TOKENS__URL", "keyring").env(
        "DBUS_SESSION_BUS_ADDRESS",
        &std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap(),
    );
    let (code, said) = rig.granted(&DEVICE, BOT);
    assert_eq!(code, 0, "{said}");
    assert_eq!(rig.status("twitch/bot"), "VALID");
    assert!(!rig.home.state().join("tokens.json").exists());
    rig.home
        .run(&["doctor", "tokens"])
        .exits(0)
        .shows("the keyring, as `bitbrat`");
    rig.home.run(&["auth", "logout", "twitch"]).exits(0);
    let status = rig.home.run(&["auth", "status", "-o", "json"]).exits(0);
    assert!(!status.stdout.contains("twitch/bot"), "{}", status.stdout);
}

#[test]
fn locked_keyring_is_an_error_and_no_logout() {
    in_session(&["contract::tokens::keyring::reads_fail_while_locked", "--exact"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a session with a keyring, by `locked_keyring_is_an_error_and_no_logout`"]
async fn reads_fail_while_locked() {
    let store = KeyringWorld::new().await.open().await;
    let bot = Identity::named("twitch/bot");
    // Unlocked, so the answer that nothing is stored is correct.
    assert!(store.identities().await.unwrap().is_empty());
    assert!(store.read(&bot).await.unwrap().record.token.is_none());
    lock_keyring();
    let errors = [
        store.identities().await.err(),
        store.pending().await.err(),
        store.read(&bot).await.err(),
    ];
    for error in errors {
        let error = error.expect("an error, not an answer").to_string();
        assert!(error.contains("locked"), "{error}");
    }
}

/// Locks the keyring of this session, as the desktop does after some time.
fn lock_keyring() {
    let locked = Command::new("dbus-send")
        .args(["--session", "--print-reply", "--dest=org.freedesktop.secrets"])
        .args(["/org/freedesktop/secrets", "org.freedesktop.Secret.Service.Lock"])
        .arg("array:objpath:/org/freedesktop/secrets/collection/login")
        .output()
        .unwrap();
    assert!(locked.status.success(), "{locked:?}");
}

#[test]
fn no_interleaving_in_the_keyring_mixes_up_accounts() {
    in_session(&[
        "contract::tokens::interleavings::keyring_never_mixes_up_two_accounts",
        "--exact",
    ]);
}

#[test]
fn keyring_that_does_not_answer_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    // Connections are accepted by the operating system; nothing is ever answered.
    let _bus = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let home = Home::new().env("BITBRAT_TOKENS__URL", "keyring").env(
        "DBUS_SESSION_BUS_ADDRESS",
        &format!("unix:path={}", path.display()),
    );
    home.run(&["auth", "status", "twitch"])
        .exits(1)
        .names_account("it does not answer")
        .names_account("tokens.url = \"file\"");
}

#[test]
fn missing_session_bus_is_named_with_the_file_as_alternative() {
    let home = Home::new()
        .env("BITBRAT_TOKENS__URL", "keyring:")
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    home.run(&["auth", "status", "twitch"])
        .exits(1)
        .names_account("the keyring cannot be used")
        .names_account("tokens.url = \"file\"");
    let run = home.run(&["doctor", "tokens", "-o", "json"]).exits(1);
    assert_eq!(run.item("name", "token store")["outcome"], "FAIL");
}
