//! Where tokens live: one record an identity, changed by one holder at a time across tasks and processes.
//!
//! Which token is still good is not decided here; the adapters ask their platform.

mod file;
mod memory;
mod seed;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::core::observation::Identity;
use crate::core::time::Timestamp;

pub use file::FileTokenStore;
pub use memory::MemoryTokenStore;
pub use seed::{Seed, Seeded, seed};

/// Keeps tokens by identity.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Returns every identity that has a token, sorted.
    async fn identities(&self) -> Result<Vec<Identity>, TokenError>;

    /// Returns the token of `identity`.
    async fn load(&self, identity: &Identity) -> Result<Option<StoredToken>, TokenError>;

    /// Returns whether tokens kept here are ours to renew. Where another program renews them, we only read.
    fn renews(&self) -> bool {
        true
    }

    /// Waits until nobody else, in this process or another, holds `identity`; while the lease lives, nobody else does.
    ///
    /// Whoever refreshes a token holds its lease from reading the token to keeping the new pair.
    async fn lease(&self, identity: &Identity) -> Result<Box<dyn TokenLease>, TokenError>;
}

/// The exclusive right to change one identity's record.
#[async_trait]
pub trait TokenLease: Send + Sync {
    /// Returns the record as it is now; an empty one where there is none yet.
    async fn load(&self) -> Result<TokenRecord, TokenError>;

    /// Keeps `record`. When this returns, it survives a crash.
    async fn save(&self, record: &TokenRecord) -> Result<(), TokenError>;
}

/// What is kept of an identity.
#[derive(Debug, Clone, Default)]
pub struct TokenRecord {
    /// Its token; `None` before the first and after a logout.
    pub token: Option<StoredToken>,
    /// Fingerprints of the seeds taken so far, oldest first; see [`seed`].
    pub seeds: Vec<String>,
}

/// A token and everything known about it.
#[derive(Debug, Clone)]
pub struct StoredToken {
    /// What it stands for.
    pub kind: TokenKind,
    /// The access token.
    pub access: SecretString,
    /// The refresh token, where there is one, and whether it may be sent.
    pub refresh: Option<RefreshToken>,
    /// The application that it belongs to, once known.
    pub client_id: Option<String>,
    /// The account that it stands for, once known.
    pub user_id: Option<String>,
    /// That account's login, once known.
    pub login: Option<String>,
    /// The scopes granted, once known.
    pub scopes: BTreeSet<String>,
    /// When we got it.
    pub obtained_at: Timestamp,
    /// When the access token ends; `None` when it never does or when that is not known.
    pub expires_at: Option<Timestamp>,
}

/// What a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A person's or the bot's account.
    User,
    /// The application itself.
    App,
}

/// A refresh token and what became of it.
#[derive(Debug, Clone)]
pub struct RefreshToken {
    /// The token.
    pub secret: SecretString,
    /// Whether it may be sent.
    pub state: RefreshState,
}

/// Whether a refresh token may be sent. A one-time token that is sent twice can end the whole grant, so this is kept
/// durably *before* the token leaves, and a crash at any moment leaves a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshState {
    /// Never sent, or known to be reusable.
    Ready,
    /// Sent, and no answer was kept: perhaps spent.
    InUse {
        /// When it was first sent.
        since: Timestamp,
        /// How often it was sent.
        tries: u32,
    },
    /// The platform refused it; it is never sent again.
    Refused {
        /// When.
        at: Timestamp,
        /// The platform's words.
        reason: String,
    },
}

impl RefreshToken {
    /// Wraps a refresh token that was never sent.
    pub fn fresh(secret: impl Into<SecretString>) -> Self {
        Self {
            secret: secret.into(),
            state: RefreshState::Ready,
        }
    }
}

impl StoredToken {
    /// Builds a user's token of which nothing but its text is known yet.
    pub fn unproven(access: impl Into<SecretString>, obtained_at: Timestamp) -> Self {
        Self {
            kind: TokenKind::User,
            access: access.into(),
            refresh: None,
            client_id: None,
            user_id: None,
            login: None,
            scopes: BTreeSet::new(),
            obtained_at,
            expires_at: None,
        }
    }
}

/// Why a token could not be read or kept. Never contains a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Others may read the file.
    #[error("{} can be read by others (mode {mode:03o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not one of ours, or was damaged.
    #[error("{} is not a token file: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong, without quoting the file.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else has held the identity for too long.
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
                "run `chmod 600 {}`, and authorise again if anyone else may have read it",
                path.display()
            ),
            Self::Read { path, .. } => format!("make {} readable for this user", path.display()),
            Self::Unreadable { path, .. } => format!(
                "nothing was changed; restore {0} from a copy, or move it away and authorise again",
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
    //! One suite for every token store.

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
    async fn what_is_kept_comes_back_whole() {
        let (_dir, stores) = stores();
        for store in stores {
            assert!(store.load(&bot()).await.unwrap().is_none());
            assert!(store.identities().await.unwrap().is_empty());
            let lease = store.lease(&bot()).await.unwrap();
            let record = TokenRecord {
                token: Some(token("first")),
                seeds: vec!["abc".to_owned()],
            };
            lease.save(&record).await.unwrap();
            let kept = lease.load().await.unwrap();
            assert_eq!(kept.seeds, record.seeds);
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
    async fn a_record_without_a_token_is_no_identity_but_remembers_its_seeds() {
        let (_dir, stores) = stores();
        for store in stores {
            let lease = store.lease(&bot()).await.unwrap();
            let record = TokenRecord {
                token: None,
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
            // Only time shows that somebody waits; on a slow machine it shows less, and never something wrong.
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
    async fn no_token_is_ever_printed() {
        let shown = format!("{:?}", token("hush"));
        assert!(
            !shown.contains("hush") && !shown.contains("re%+/fresh"),
            "{shown}"
        );
    }
}
