//! Token storage: one record per identity, changed by one holder at a time across tasks and processes.
//!
//! Token validity is not decided here; the adapters ask their platform.

mod file;
mod memory;
mod seed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};

use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::secrets;

pub use file::FileTokenStore;
pub use memory::MemoryTokenStore;
pub use seed::{Seed, Seeded, seed};

/// Returns the command that replaces the token of `identity`, an account's name such as `twitch/bot`. A token of the
/// application is obtained with the client id and secret, so it needs no login.
pub fn login_command(identity: &str) -> String {
    let platform = identity.split('/').next().unwrap_or_default();
    let known: Result<PlatformName, _> = platform.parse();
    match known {
        Ok(platform) if identity == format!("{platform}/bot") => {
            format!("bitbrat auth login {platform}")
        }
        Ok(platform) if identity == format!("{platform}/app") => format!("bitbrat auth status {platform}"),
        Ok(platform) => format!("bitbrat auth login {platform} --as {identity}"),
        Err(_) => "bitbrat auth status".to_owned(),
    }
}

/// The reason for a token that is not refreshed because the platform rejects the application, for people.
pub const CLIENT_REJECTED: &str = "it cannot be refreshed with this client id and secret";

/// Returns the command that helps if the token of `identity` is not valid. Another login does not correct a client secret.
pub fn remedy(identity: &str, client_rejected: bool) -> String {
    match identity.split('/').next() {
        Some(platform) if client_rejected => format!("bitbrat doctor {platform}"),
        _ => login_command(identity),
    }
}

/// A store of tokens by identity.
#[async_trait]
#[warn(missing_docs)]
pub trait TokenStore: Send + Sync {
    /// Returns every identity with a token, sorted.
    async fn identities(&self) -> Result<Vec<Identity>, TokenError>;

    /// Returns the token of `identity`.
    async fn load(&self, identity: &Identity) -> Result<Option<StoredToken>, TokenError>;

    /// Returns every token, by identity.
    async fn load_all(&self) -> Result<BTreeMap<Identity, StoredToken>, TokenError> {
        let mut all = BTreeMap::new();
        for identity in self.identities().await? {
            if let Some(token) = self.load(&identity).await? {
                all.insert(identity, token);
            }
        }
        Ok(all)
    }

    /// Returns a number that changes with every modification by any process, as far as that can be detected cheaply; `None` if
    /// only reading everything detects it.
    async fn version(&self) -> Result<Option<u64>, TokenError> {
        Ok(None)
    }

    /// Returns whether `access` is the token of `identity` that was last saved through this instance, and so not a change by
    /// another process.
    fn is_own(&self, identity: &Identity, access: &SecretString) -> bool {
        let _ = (identity, access);
        false
    }

    /// Returns whether this program may refresh the stored tokens. Tokens that another program refreshes are only read.
    fn renews(&self) -> bool {
        true
    }

    /// Waits for exclusive access to `identity` across tasks and processes; it lasts as long as the lease.
    ///
    /// A refresh must hold the lease from reading the token to saving the new pair.
    async fn lease(&self, identity: &Identity) -> Result<Box<dyn TokenLease>, TokenError>;
}

/// Exclusive access to one identity's record.
#[async_trait]
pub trait TokenLease: Send + Sync {
    /// Returns the current record; an empty one if there is none yet.
    async fn load(&self) -> Result<TokenRecord, TokenError>;

    /// Saves `record`. After it returns, the record survives a crash.
    async fn save(&self, record: &TokenRecord) -> Result<(), TokenError>;
}

/// The stored data of an identity.
#[derive(Debug, Clone, Default)]
pub struct TokenRecord {
    /// Its token; `None` before the first login and after a logout.
    pub token: Option<StoredToken>,
    /// The token of a login whose owner is not known yet: it is stored before anything is asked about it, and replaces
    /// `token` once it has proven to belong to the same account.
    pub pending: Option<StoredToken>,
    /// Fingerprints of the seeds used so far, oldest first; see [`seed`](mod@seed).
    pub seeds: Vec<String>,
}

/// A token and its metadata.
#[derive(Debug, Clone)]
pub struct StoredToken {
    /// Whether the token belongs to an account or to the application.
    pub kind: TokenKind,
    /// The access token, which is sent to the platform.
    pub access: SecretString,
    /// The refresh token, if there is one, and whether it may be sent.
    pub refresh: Option<RefreshToken>,
    /// The application to which it belongs, once known.
    pub client_id: Option<String>,
    /// The id of its account, once known.
    pub user_id: Option<String>,
    /// The login of its account, once known.
    pub login: Option<String>,
    /// The granted scopes, once known.
    pub scopes: BTreeSet<String>,
    /// When the token was obtained.
    pub obtained_at: Timestamp,
    /// When the access token expires; `None` if it does not expire or if that is unknown.
    pub expires_at: Option<Timestamp>,
}

/// The owner of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An account of a person or of the bot.
    User,
    /// The application itself.
    App,
}

/// A refresh token and its state.
#[derive(Debug, Clone)]
pub struct RefreshToken {
    /// The text of the token.
    pub secret: SecretString,
    /// Whether it may be sent.
    pub state: RefreshState,
}

/// Whether a refresh token may be sent. Sending a one-time token twice can revoke the whole grant, so the state is saved
/// durably *before* the token is sent, and a crash at any time leaves a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshState {
    /// Never sent, or known to be reusable.
    Ready,
    /// Sent, and no response was saved: it may have been used up.
    InUse {
        /// When it was first sent.
        since: Timestamp,
        /// How often it was sent.
        tries: u32,
    },
    /// The platform rejected it; it is never sent again.
    Refused {
        /// When it was rejected.
        at: Timestamp,
        /// The platform's message.
        reason: String,
    },
}

impl RefreshToken {
    /// Wraps a refresh token that was never sent.
    pub fn fresh(secret: impl Into<SecretString>) -> Self {
        Self {
            secret: known(secret),
            state: RefreshState::Ready,
        }
    }
}

impl StoredToken {
    /// Creates a user's token of which only the text is known.
    pub fn unproven(access: impl Into<SecretString>, obtained_at: Timestamp) -> Self {
        Self {
            kind: TokenKind::User,
            access: known(access),
            refresh: None,
            client_id: None,
            user_id: None,
            login: None,
            scopes: BTreeSet::new(),
            obtained_at,
            expires_at: None,
        }
    }

    /// Returns whether there is evidence that a platform ever accepted the token: its application or its expiry is known.
    pub fn was_accepted(&self) -> bool {
        self.client_id.is_some() || self.user_id.is_some() || self.expires_at.is_some()
    }
}

/// Registers a token as a secret, so that it is masked in all output.
fn known(secret: impl Into<SecretString>) -> SecretString {
    let secret = secret.into();
    secrets::register(secret.expose_secret());
    secret
}

/// Error of reading or saving a token. Never contains a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Other users may read the file.
    #[error("{} can be read by others (mode {mode:03o})", path.display())]
    Exposed {
        /// Path of the file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is not a token file, or is damaged.
    #[error("{} is not a token file: {reason}", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// The problem, without quoting the file.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Another holder has locked the identity for too long.
    #[error("{holder} is being changed by another process")]
    Busy {
        /// The identity or file.
        holder: String,
    },
}

impl TokenError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Exposed { path, .. } => format!(
                "run `chmod 600 {}`, and log in again if anyone else may have read it",
                path.display()
            ),
            Self::Read { path, .. } => format!("make {} readable for this user", path.display()),
            Self::Unreadable { path, .. } => format!(
                "nothing was changed; restore {0} from a copy, or move it away and log in again",
                path.display()
            ),
            Self::Write { path, .. } => format!(
                "free some space or make the directory of {} writable; a refreshed token must be kept before it is used",
                path.display()
            ),
            Self::Busy { .. } => "wait for the other bitbrat, or stop it if it hangs".to_owned(),
        }
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::User => "user",
            Self::App => "app",
        })
    }
}

#[cfg(test)]
mod tests {
    //! One test suite for all token stores.

    use std::sync::Arc;
    use std::time::Duration;

    use secrecy::ExposeSecret;

    use super::*;

    fn bot() -> Identity {
        Identity::named("twitch/bot")
    }

    fn stores() -> (tempfile::TempDir, [Arc<dyn TokenStore>; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let file = FileTokenStore::new(dir.path().join("tokens.json"));
        (dir, [Arc::new(file), Arc::new(MemoryTokenStore::default())])
    }

    fn token(access: &str) -> StoredToken {
        StoredToken {
            refresh: Some(RefreshToken {
                secret: "re%+/fresh".to_owned().into(),
                state: RefreshState::InUse {
                    since: Timestamp::EPOCH,
                    tries: 1,
                },
            }),
            client_id: Some("client".to_owned()),
            user_id: Some("900100".to_owned()),
            login: Some("bitbrat_bot".to_owned()),
            scopes: ["user:bot".to_owned()].into(),
            expires_at: Some(Timestamp::EPOCH.plus_secs(60)),
            ..StoredToken::unproven(access.to_owned(), Timestamp::EPOCH)
        }
    }

    #[tokio::test]
    async fn saved_token_record_round_trips() {
        let (_dir, stores) = stores();
        for store in stores {
            assert!(store.load(&bot()).await.unwrap().is_none());
            assert!(store.identities().await.unwrap().is_empty());
            let lease = store.lease(&bot()).await.unwrap();
            let record = TokenRecord {
                token: Some(token("first")),
                pending: Some(token("login")),
                seeds: vec!["abc".to_owned()],
            };
            lease.save(&record).await.unwrap();
            let kept = lease.load().await.unwrap();
            assert_eq!(kept.seeds, record.seeds);
            assert_eq!(kept.pending.unwrap().access.expose_secret(), "login");
            drop(lease);
            let kept = store.load(&bot()).await.unwrap().unwrap();
            let expected = token("first");
            assert_eq!(kept.access.expose_secret(), "first");
            let (refresh, expected_refresh) =
                (kept.refresh.as_ref().unwrap(), expected.refresh.as_ref().unwrap());
            assert_eq!(refresh.secret.expose_secret(), "re%+/fresh");
            assert_eq!(refresh.state, expected_refresh.state);
            assert_eq!(
                (kept.kind, kept.client_id, kept.user_id, kept.login),
                (
                    expected.kind,
                    expected.client_id,
                    expected.user_id,
                    expected.login
                )
            );
            assert_eq!(
                (kept.scopes, kept.obtained_at, kept.expires_at),
                (expected.scopes, expected.obtained_at, expected.expires_at)
            );
            assert_eq!(store.identities().await.unwrap(), [bot()]);
        }
    }

    #[tokio::test]
    async fn record_without_token_is_no_identity_but_keeps_its_seeds() {
        let (_dir, stores) = stores();
        for store in stores {
            let lease = store.lease(&bot()).await.unwrap();
            let record = TokenRecord {
                token: None,
                pending: Some(token("login")),
                seeds: vec!["abc".to_owned()],
            };
            lease.save(&record).await.unwrap();
            assert!(store.identities().await.unwrap().is_empty());
            assert_eq!(lease.load().await.unwrap().seeds, ["abc"]);
        }
    }

    #[tokio::test]
    async fn one_holder_at_a_time_and_other_identities_are_free() {
        let (_dir, stores) = stores();
        for store in stores {
            let lease = store.lease(&bot()).await.unwrap();
            let second = store
                .lease(&Identity::named("twitch/broadcaster:1"))
                .await
                .unwrap();
            let identity = bot();
            let waiting = store.lease(&identity);
            tokio::pin!(waiting);
            // Waiting is only detectable by time; on a slow machine the test detects less, but never fails wrongly.
            let early = tokio::time::timeout(Duration::from_millis(60), &mut waiting).await;
            assert!(early.is_err(), "two holders at once");
            drop(lease);
            let lease = tokio::time::timeout(Duration::from_secs(10), waiting).await;
            lease
                .unwrap()
                .unwrap()
                .save(&TokenRecord::default())
                .await
                .unwrap();
            drop(second);
        }
    }

    #[tokio::test]
    async fn version_changes_with_every_change_of_the_store() {
        let (_dir, stores) = stores();
        for store in stores {
            let before = store.version().await.unwrap();
            assert!(store.load_all().await.unwrap().is_empty());
            let lease = store.lease(&bot()).await.unwrap();
            for access in ["first", "other"] {
                let record = TokenRecord {
                    token: Some(token(access)),
                    ..TokenRecord::default()
                };
                lease.save(&record).await.unwrap();
                let all = store.load_all().await.unwrap();
                assert_eq!(all[&bot()].access.expose_secret(), access);
            }
            let after = store.version().await.unwrap();
            assert!(before.is_none() || before != after, "{before:?} {after:?}");
        }
    }

    #[tokio::test]
    async fn no_token_is_ever_printed() {
        let shown = format!("{:?}", token("hush"));
        assert!(
            !shown.contains("hush") && !shown.contains("re%+/fresh"),
            "{shown}"
        );
    }
}
