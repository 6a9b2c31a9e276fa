//! A refresh of the bot while another machine changes the same records before each of the refresh's writes, on every token store.
//! Whatever happens in between: each account's place only ever contains a token of its own user.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bitbrat::clock::{Chance, ManualClock};
use bitbrat::core::observation::Identity;
use bitbrat::core::source::PlatformName;
use bitbrat::core::time::Timestamp;
use bitbrat::platforms::PlatformError;
use bitbrat::platforms::kit::meter::Meter;
use bitbrat::platforms::kit::oauth::{
    Client, Credentials, Described, Grant, GrantError, Granted, Owner, Provider, TokenManager, Validation,
};
use bitbrat::store::Version;
use bitbrat::tokens::{
    Journal, Lock, RefreshIntent, RefreshToken, Snapshot, StoredToken, TokenError, TokenRecord, TokenStore,
    TokenStoreExt as _,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tempfile::TempDir;

use super::worlds::{FileWorld, MemoryWorld, Platform, World};

/// The bot is user 7, the broadcaster user 8.
const USERS: [(&str, &str); 2] = [("twitch/bot", "7"), ("twitch/broadcaster:8", "8")];

/// A store that two machines use.
#[async_trait]
trait Shared: Send + Sync + Sized + 'static {
    async fn new() -> Self;

    /// Opens the store on this machine and on another one.
    async fn machines(&self) -> [Arc<dyn TokenStore>; 2];
}

#[async_trait]
impl Shared for MemoryWorld {
    async fn new() -> Self {
        World::new().await
    }

    async fn machines(&self) -> [Arc<dyn TokenStore>; 2] {
        [self.open().await, self.open().await]
    }
}

#[async_trait]
impl Shared for FileWorld {
    async fn new() -> Self {
        World::new().await
    }

    async fn machines(&self) -> [Arc<dyn TokenStore>; 2] {
        [self.open().await, self.open().await]
    }
}

#[cfg(all(feature = "keyring", target_os = "linux"))]
#[async_trait]
impl Shared for super::keyring::KeyringWorld {
    async fn new() -> Self {
        World::new().await
    }

    async fn machines(&self) -> [Arc<dyn TokenStore>; 2] {
        [self.open().await, self.open().await]
    }
}

/// The platform's documents of both accounts, and the state directories of two machines.
struct Documents(Platform, [TempDir; 2]);

#[async_trait]
impl Shared for Documents {
    async fn new() -> Self {
        let platform = Platform::new().await;
        platform.put("twitch/bot", json!({ "userId": "7" })).await;
        platform.put("twitch/broadcaster", json!({ "userId": "8" })).await;
        Self(platform, [(); 2].map(|()| tempfile::tempdir().unwrap()))
    }

    async fn machines(&self) -> [Arc<dyn TokenStore>; 2] {
        let open = |machine| -> Arc<dyn TokenStore> { Arc::new(self.0.open(machine, true)) };
        [open(&self.1[0]), open(&self.1[1])]
    }
}

/// What another machine does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Other {
    Nothing,
    LogsIn(usize),
    LogsOut(usize),
    /// It has refreshed the account, and stores the pair.
    Refreshes(usize),
    /// It records a refresh of the account, and crashes.
    Plans(usize),
}

const OTHERS: [Other; 8] = [
    Other::LogsIn(0),
    Other::LogsIn(1),
    Other::LogsOut(0),
    Other::LogsOut(1),
    Other::Refreshes(0),
    Other::Refreshes(1),
    Other::Plans(0),
    Other::Plans(1),
];

/// A store whose records another machine changes before one of our writes.
struct Disturbed {
    store: Arc<dyn TokenStore>,
    elsewhere: Arc<dyn TokenStore>,
    /// The writes until the other machine acts.
    left: AtomicUsize,
    other: Mutex<Other>,
    writes: AtomicUsize,
}

impl Disturbed {
    async fn disturb(&self) {
        let other = std::mem::replace(&mut *self.other.lock(), Other::Nothing);
        let (account, token) = match other {
            Other::Nothing => return,
            Other::LogsIn(account) => (account, Some("login")),
            Other::LogsOut(account) => (account, None),
            Other::Refreshes(account) => (account, Some("elsewhere")),
            Other::Plans(account) => (account, Some("")),
        };
        let (name, user) = USERS[account];
        let identity = Identity::named(name);
        let snapshot = self.elsewhere.read(&identity).await.unwrap();
        let mut record = snapshot.record;
        match token {
            Some("") => {
                let refresh = record.token.as_ref().and_then(|token| token.refresh.clone());
                let secret = refresh.map_or_else(|| "none".to_owned().into(), |refresh| refresh.secret);
                let domain = self.store.lock_domain();
                record.intent = Some(RefreshIntent::plan(
                    domain,
                    record.generation,
                    &secret,
                    Timestamp::EPOCH,
                ));
            }
            Some(text) => record.replace_token(Some(token_of(user, text))),
            None => record.replace_token(None),
        }
        let written = self.elsewhere.write(&identity, &record, &snapshot.version).await;
        written.unwrap();
    }
}

#[async_trait]
impl TokenStore for Disturbed {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        self.store.identities().await
    }

    async fn pending(&self) -> Result<Vec<Identity>, TokenError> {
        self.store.pending().await
    }

    async fn read(&self, identity: &Identity) -> Result<Snapshot, TokenError> {
        self.store.read(identity).await
    }

    async fn write(
        &self,
        identity: &Identity,
        record: &TokenRecord,
        base: &Version,
    ) -> Result<Version, TokenError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.disturb().await;
        }
        self.store.write(identity, record, base).await
    }

    async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError> {
        self.store.lock(identity).await
    }

    fn lock_domain(&self) -> &str {
        self.store.lock_domain()
    }

    fn journal(&self) -> &Journal {
        self.store.journal()
    }
}

/// Grants scripted tokens, and accepts every token. A token such as `of-8-granted` names its owner.
struct Script {
    client: Client,
    grants: Mutex<VecDeque<&'static str>>,
}

#[async_trait]
impl Provider for Script {
    const PLATFORM: PlatformName = PlatformName::Twitch;
    const APP: &'static str = "twitch/app";
    const BOT: &'static str = "twitch/bot";
    const VALIDATION_NAMES_OWNER: bool = false;
    const REPLACES_REFUSED_APP_TOKEN: bool = true;

    fn client(&self) -> &Client {
        &self.client
    }

    fn owner_of(&self, _: &Identity) -> Option<String> {
        None
    }

    fn is_one_time(&self, _: Credentials<'_>) -> bool {
        false
    }

    async fn exchange(&self, _: Credentials<'_>, _: Grant<'_>, _: &Meter<'_>) -> Result<Granted, GrantError> {
        let granted = self.grants.lock().pop_front();
        let access = granted.ok_or_else(|| GrantError::ClientRejected("invalid_client".to_owned()))?;
        Ok(Granted {
            access_token: access.to_owned(),
            refresh_token: String::new(),
            expires_in: Some(2 * 86_400),
            scope: None,
        })
    }

    async fn revoke(
        &self,
        _: Credentials<'_>,
        _: &StoredToken,
        _: &Meter<'_>,
    ) -> Result<Option<&'static str>, PlatformError> {
        Ok(None)
    }

    async fn validate(
        &self,
        _: &Identity,
        token: &StoredToken,
        _: Option<&str>,
        _: &Meter<'_>,
    ) -> Validation {
        Validation::Accepted(Described {
            token: token.clone(),
            scopes_known: true,
        })
    }

    async fn owner(&self, token: &SecretString, _: &Meter<'_>) -> Result<Option<Owner>, PlatformError> {
        let named = token.expose_secret().strip_prefix("of-");
        let user_id = named.and_then(|rest| rest.split('-').next()).unwrap_or("7");
        Ok(Some(Owner {
            user_id: user_id.to_owned(),
            login: None,
        }))
    }

    fn client_rejected(&self, reason: String) -> PlatformError {
        PlatformError::ClientRejected {
            platform: Self::PLATFORM,
            reason,
        }
    }

    fn no_client(&self) -> PlatformError {
        self.client_rejected("no client".to_owned())
    }
}

/// A token that is due, and names its user.
fn token_of(user: &str, text: &str) -> StoredToken {
    StoredToken {
        refresh: Some(RefreshToken::fresh(format!("of-{user}-refresh-{text}"))),
        user_id: Some(user.to_owned()),
        expires_at: Some(Timestamp::EPOCH.plus_secs(3_600)),
        ..StoredToken::unproven(format!("of-{user}-{text}"), Timestamp::EPOCH)
    }
}

/// Refreshes the bot's token while `other` happens before the write number `at`; returns the number of writes.
async fn refresh_during<S: Shared>(other: Other, at: usize, granted: &'static str) -> usize {
    let shared = S::new().await;
    let [here, elsewhere] = shared.machines().await;
    for (name, user) in USERS {
        let token = Some(token_of(user, "first"));
        here.set_token(&Identity::named(name), token).await.unwrap();
    }
    let store = Arc::new(Disturbed {
        store: here,
        elsewhere: Arc::clone(&elsewhere),
        left: AtomicUsize::new(at),
        other: Mutex::new(other),
        writes: AtomicUsize::new(0),
    });
    let clock = ManualClock::at(Timestamp::EPOCH.plus_secs(3_400));
    let script = Script {
        client: Client::new(Some("client"), Some(&"s-of-client".to_owned().into())),
        grants: Mutex::new([granted, "of-7-second"].into()),
    };
    let manager = TokenManager::new(script, store.clone(), clock.clone(), Chance::seeded(1));
    let bot = Identity::named("twitch/bot");
    for _ in 0..3 {
        // A token of another user is an error; it is never handed out.
        if let Ok(access) = manager.access(&bot, &Meter::silent()).await {
            let token = access.token.expose_secret();
            assert!(token.starts_with("of-7-"), "{other:?} {at} {granted}: {token}");
        }
        for (name, user) in USERS {
            let stored = elsewhere.load(&Identity::named(name)).await.unwrap();
            let stored = stored.map(|token| token.access.expose_secret().to_owned());
            let is_own = |token: &String| token.starts_with(&format!("of-{user}-"));
            assert!(
                stored.iter().all(is_own),
                "{other:?} {at} {granted}: {name} has {stored:?}"
            );
            if other == Other::LogsOut(0) && name == "twitch/bot" && store.writes.load(Ordering::SeqCst) > at
            {
                assert_eq!(stored, None, "a logout stays");
            }
        }
        clock.advance(61_000);
    }
    store.writes.load(Ordering::SeqCst)
}

async fn no_interleaving_puts_a_token_in_the_wrong_place<S: Shared>() {
    for granted in ["of-7-granted", "of-8-granted"] {
        let writes = refresh_during::<S>(Other::Nothing, usize::MAX, granted).await;
        assert!(writes >= 2, "{granted}: {writes}");
        for other in OTHERS {
            join_all((0..=writes).map(|at| refresh_during::<S>(other, at, granted))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_never_mixes_up_two_accounts() {
    no_interleaving_puts_a_token_in_the_wrong_place::<MemoryWorld>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_never_mixes_up_two_accounts() {
    no_interleaving_puts_a_token_in_the_wrong_place::<FileWorld>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_never_mix_up_two_accounts() {
    no_interleaving_puts_a_token_in_the_wrong_place::<Documents>().await;
}

#[cfg(all(feature = "keyring", target_os = "linux"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a session with a keyring, by `no_interleaving_in_the_keyring_mixes_up_accounts`"]
async fn keyring_never_mixes_up_two_accounts() {
    no_interleaving_puts_a_token_in_the_wrong_place::<super::keyring::KeyringWorld>().await;
}
