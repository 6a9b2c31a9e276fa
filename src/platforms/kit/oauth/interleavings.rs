//! A refresh of the bot while another machine, which shares the file but not its locks, changes the same records before each of the
//! refresh's writes. Whatever happens in between: each account's place only ever contains a token of its own user.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;

use super::tests::Script;
use super::{Client, TokenManager};
use crate::clock::{Chance, ManualClock};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::platforms::kit::meter::Meter;
use crate::store::Version;
use crate::tokens::{
    FileTokenStore, Journal, Lock, RefreshToken, Snapshot, StoredToken, TokenError, TokenRecord, TokenStore,
    TokenStoreExt as _,
};

/// The bot is user 7, the broadcaster user 8.
const USERS: [(&str, &str); 2] = [("kick/bot", "7"), ("kick/broadcaster:8", "8")];

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

const OTHERS: [Other; 9] = [
    Other::Nothing,
    Other::LogsIn(0),
    Other::LogsIn(1),
    Other::LogsOut(0),
    Other::LogsOut(1),
    Other::Refreshes(0),
    Other::Refreshes(1),
    Other::Plans(0),
    Other::Plans(1),
];

/// A file whose records another machine changes before one of our writes.
struct Shared {
    file: FileTokenStore,
    /// The writes until the other machine acts.
    left: AtomicUsize,
    other: Mutex<Other>,
    writes: AtomicUsize,
}

impl Shared {
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
        let Snapshot {
            mut record, version, ..
        } = self.file.read(&identity).await.unwrap();
        match token {
            Some("") => {
                let refresh = record.token.as_ref().and_then(|token| token.refresh.clone());
                let secret = refresh.map_or_else(|| "none".to_owned().into(), |refresh| refresh.secret);
                record.intent = Some(crate::tokens::RefreshIntent::plan(
                    "file",
                    record.generation,
                    &secret,
                    Timestamp::EPOCH,
                ));
            }
            Some(text) => record.replace_token(Some(token_of(user, text))),
            None => record.replace_token(None),
        }
        self.file.write(&identity, &record, &version).await.unwrap();
    }
}

#[async_trait]
impl TokenStore for Shared {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        self.file.identities().await
    }

    async fn pending(&self) -> Result<Vec<Identity>, TokenError> {
        self.file.pending().await
    }

    async fn read(&self, identity: &Identity) -> Result<Snapshot, TokenError> {
        self.file.read(identity).await
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
        self.file.write(identity, record, base).await
    }

    async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError> {
        self.file.lock(identity).await
    }

    fn lock_domain(&self) -> &str {
        self.file.lock_domain()
    }

    fn journal(&self) -> &Journal {
        self.file.journal()
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
async fn refresh_during(other: Other, at: usize, granted: &'static str) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Shared {
        file: FileTokenStore::new(dir.path().join("tokens.json")),
        left: AtomicUsize::new(usize::MAX),
        other: Mutex::new(other),
        writes: AtomicUsize::new(0),
    });
    for (name, user) in USERS {
        let token = Some(token_of(user, "first"));
        store.file.set_token(&Identity::named(name), token).await.unwrap();
    }
    store.left.store(at, Ordering::SeqCst);
    let clock = ManualClock::at(Timestamp::EPOCH.plus_secs(3_400));
    let script = Script {
        client: Client::new(Some("client"), Some(&"s-of-client".to_owned().into())),
        grants: Mutex::new([granted, "of-7-second"].into()),
        requests: AtomicUsize::new(0),
        owner: "7",
    };
    let manager = TokenManager::new(script, store.clone(), clock.clone(), Chance::seeded(1));
    let bot = Identity::named("kick/bot");
    for _ in 0..3 {
        // A token of another user is an error; it is never handed out.
        if let Ok(access) = manager.access(&bot, &Meter::silent()).await {
            let token = access.token.expose_secret();
            assert!(token.starts_with("of-7-"), "{other:?} {at} {granted}: {token}");
        }
        for (name, user) in USERS {
            let stored = store.file.load(&Identity::named(name)).await.unwrap();
            let stored = stored.map(|token| token.access.expose_secret().to_owned());
            let is_own = |token: &String| token.starts_with(&format!("of-{user}-"));
            assert!(
                stored.iter().all(is_own),
                "{other:?} {at} {granted}: {name} has {stored:?}"
            );
            if other == Other::LogsOut(0) && name == "kick/bot" && store.writes.load(Ordering::SeqCst) > at {
                assert_eq!(stored, None, "a logout stays");
            }
        }
        clock.advance(61_000);
    }
    store.writes.load(Ordering::SeqCst)
}

#[tokio::test]
async fn no_interleaving_puts_a_token_in_the_wrong_place() {
    for granted in ["of-7-granted", "of-8-granted"] {
        let writes = refresh_during(Other::Nothing, usize::MAX, granted).await;
        assert!(writes >= 2, "{granted}: {writes}");
        for other in OTHERS {
            for at in 0..=writes {
                refresh_during(other, at, granted).await;
            }
        }
    }
}
