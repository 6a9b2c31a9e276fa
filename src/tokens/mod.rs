//! Token storage: one record per account, changed with compare-and-set, by one holder at a time on a machine.
//!
//! Token validity is not decided here; the adapters ask their platform.

mod documents;
mod file;
mod firestore;
#[cfg(fuzzing)]
pub mod fuzzing;
mod intent;
mod journal;
#[cfg(all(feature = "keyring", target_os = "linux"))]
mod keyring;
mod lease;
mod local;
mod locks;
mod memory;
mod on_disk;
mod postgres;
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
use crate::store::{StoreError, Version};

pub use file::FileTokenStore;
pub use firestore::{FirestoreTokenOptions, FirestoreTokenStore};
pub use intent::{IntentPhase, RefreshIntent};
pub use journal::{GrantedPair, Journal, Space};
#[cfg(all(feature = "keyring", target_os = "linux"))]
pub use keyring::KeyringTokenStore;
pub use lease::{TokenLease, TokenStoreExt};
pub use locks::Lock;
pub use memory::MemoryTokenStore;
pub use postgres::{PostgresTokenOptions, PostgresTokenStore};
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

/// Why an account cannot be used whose application the platform rejects. The token itself may be fine.
pub const APPLICATION_REJECTED: &str =
    "cannot be used: the platform rejects the client id or secret of the application";

/// Returns the command that helps if the token of `identity` is not valid. Another login does not correct a client secret.
pub fn remedy(identity: &str, client_rejected: bool) -> String {
    match identity.split('/').next() {
        Some(platform) if client_rejected => format!("bitbrat doctor {platform}"),
        _ => login_command(identity),
    }
}

/// A store of tokens, one record per account. `tests/contract/tokens` is its contract.
///
/// Several processes, and with a remote store several machines, change the records. Each write is a compare-and-set: it names the
/// version that it is based on. [`TokenStore::lock`] only saves conflicts, it does not replace the comparison.
#[async_trait]
#[warn(missing_docs)]
pub trait TokenStore: Send + Sync {
    /// Returns every account with a token, sorted.
    async fn identities(&self) -> Result<Vec<Identity>, TokenError>;

    /// Reads the record of `identity`; an empty one if there is none yet.
    async fn read(&self, identity: &Identity) -> Result<Snapshot, TokenError>;

    /// Replaces the record of `identity` if `base` is still its version, and returns the new version. After that the record
    /// survives a crash.
    ///
    /// Fails with [`TokenError::Conflict`] and changes nothing if the record has another version. An adapter whose answer may be
    /// lost can return it although it has written; callers read the record again before they decide.
    async fn write(
        &self,
        identity: &Identity,
        record: &TokenRecord,
        base: &Version,
    ) -> Result<Version, TokenError>;

    /// Waits until no other task or process of this lock domain holds `identity`; the lock lasts as long as the returned value,
    /// and no longer than the process.
    async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError>;

    /// Returns the name of what [`TokenStore::lock`] covers: every user of the store, or the processes of this machine. A holder of the lock
    /// knows that a refresh of its own domain which is still recorded was interrupted.
    fn lock_domain(&self) -> &str;

    /// Returns where this machine keeps granted pairs until they are stored.
    fn journal(&self) -> &Journal;

    /// Returns the token of `identity`.
    async fn load(&self, identity: &Identity) -> Result<Option<StoredToken>, TokenError> {
        Ok(self.read(identity).await?.record.token)
    }

    /// Returns every token, by account.
    async fn load_all(&self) -> Result<BTreeMap<Identity, StoredToken>, TokenError> {
        let mut all = BTreeMap::new();
        for identity in self.identities().await? {
            if let Some(token) = self.load(&identity).await? {
                all.insert(identity, token);
            }
        }
        Ok(all)
    }

    /// Returns the accounts with a login that is not finished, sorted; see [`TokenRecord::pending`].
    async fn pending(&self) -> Result<Vec<Identity>, TokenError>;

    /// Returns a number that changes within some seconds of every modification by any process or machine, as far as that can be
    /// detected cheaply; `None` if only reading everything detects it. `watch` compares it every second.
    async fn revision(&self) -> Result<Option<u64>, TokenError> {
        Ok(None)
    }

    /// Returns whether `access` is the token of `identity` that was last written through this instance, and so not a change by
    /// another process.
    fn is_own(&self, identity: &Identity, access: &SecretString) -> bool {
        let _ = (identity, access);
        false
    }

    /// Returns whether this program may change the record of `identity`, which was read before. Tokens that another program refreshes are
    /// only read.
    fn renews(&self, identity: &Identity) -> bool {
        let _ = identity;
        true
    }

    /// Returns whether another program keeps the record of `identity`, which was read before, as well. A configured token never replaces
    /// that program's.
    fn is_shared(&self, identity: &Identity) -> bool {
        let _ = identity;
        false
    }
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The record.
    pub record: TokenRecord,
    /// Its version, for the next write.
    pub version: Version,
    /// The time of the read by the store's own clock, where it has one. Deadlines of other machines are compared with it.
    pub read_at: Option<Timestamp>,
}

/// The stored data of an account.
#[derive(Debug, Clone, Default)]
pub struct TokenRecord {
    /// Its token; `None` before the first login and after a logout.
    pub token: Option<StoredToken>,
    /// The token of a login whose owner is not known yet: it is stored before anything is asked about it, and replaces
    /// `token` once it has proven to belong to the same account.
    pub pending: Option<StoredToken>,
    /// Fingerprints of the seeds used so far, oldest first; see [`seed`](mod@seed).
    pub seeds: Vec<String>,
    /// How often `token` was replaced.
    pub generation: u64,
    /// The refresh of `token` that was begun and is not completed.
    pub intent: Option<RefreshIntent>,
}

impl TokenRecord {
    /// Replaces the token. A refresh of the previous one that was begun no longer concerns the record.
    pub fn replace_token(&mut self, token: Option<StoredToken>) {
        self.token = token;
        self.generation += 1;
        self.intent = None;
    }

    /// Returns a record with this token only.
    pub fn of(token: StoredToken) -> Self {
        Self {
            token: Some(token),
            generation: 1,
            ..Self::default()
        }
    }
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
    /// When its refresh token was last used with success; `None` for the token of a login.
    pub refreshed_at: Option<Timestamp>,
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

/// Whether a refresh token may be sent. That it is being sent is recorded beside it, see [`RefreshIntent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshState {
    /// Never rejected.
    Ready,
    /// The platform rejected it; it is never sent again.
    Refused {
        /// When it was rejected.
        at: Timestamp,
        /// The platform's message.
        reason: String,
    },
}

impl RefreshToken {
    /// Wraps a refresh token that was never rejected.
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
            refreshed_at: None,
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
    /// Other users may write in the directory, and so replace the file.
    #[error("others can write in {} (mode {mode:03o})", path.display())]
    ExposedDirectory {
        /// Path of the directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The record was changed since it was read.
    #[error("{identity} was changed by another program at the same time")]
    Conflict {
        /// The account.
        identity: Identity,
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
    /// The record is another program's, and may not be changed.
    #[error("the token of {identity} is in {document}, which is only read")]
    ReadOnly {
        /// The account.
        identity: Identity,
        /// The other program's document.
        document: String,
    },
    /// The document is of another user than the token.
    #[error("{document} is of {owner}, so a token of {found} was not written there")]
    OtherOwner {
        /// The document.
        document: String,
        /// Its user.
        owner: String,
        /// The user of the token.
        found: String,
    },
    /// Another program's document cannot be used.
    #[error("{document} cannot be used: {reason}")]
    Document {
        /// The document.
        document: String,
        /// The problem, without quoting the document.
        reason: String,
    },
    /// The keyring of the desktop cannot be used.
    #[error("the keyring cannot be used: {reason}")]
    Keyring {
        /// The problem, without quoting an entry.
        reason: String,
    },
    /// The remote store did not do as requested.
    #[error(transparent)]
    Store(#[from] StoreError),
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
            Self::ExposedDirectory { path, .. } => format!(
                "run `chmod 700 {}`, or set tokens.url to a file in a directory of its own",
                path.display()
            ),
            Self::Conflict { .. } => "nothing was changed; run the command again".to_owned(),
            Self::Read { path, .. } => format!("make {} readable for this user", path.display()),
            Self::Unreadable { path, .. } => format!(
                "nothing was changed; restore {0} from a copy, or move it away and log in again",
                path.display()
            ),
            Self::Write { path, .. } => format!(
                "free some space or make the directory of {} writable; a refreshed token must be kept before it is used",
                path.display()
            ),
            Self::ReadOnly { .. } => "log in and refresh it with the program that manages it; only if none does, set tokens.refresh = true, and bitbrat does both"
                .to_owned(),
            Self::OtherOwner { owner, .. } => format!(
                "log in as {owner}; another account is put there only by a login of the program that manages the document"
            ),
            Self::Keyring { .. } => "log in to the desktop and unlock its keyring; a service, a container or cron has none: set tokens.url = \"file\" there"
                .to_owned(),
            Self::Document { .. } => "nothing was changed; log in again with the program that manages it, which writes the document anew".to_owned(),
            Self::Store(StoreError::Refused { hint, .. }) => hint.clone(),
            Self::Store(_) => "stored tokens are kept; run `bitbrat doctor tokens`, and try again".to_owned(),
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
    use super::*;

    #[test]
    fn debug_output_contains_no_token() {
        let token = StoredToken {
            refresh: Some(RefreshToken::fresh("re%+/fresh".to_owned())),
            ..StoredToken::unproven("hush", Timestamp::EPOCH)
        };
        let shown = format!("{:?}", TokenRecord::of(token));
        assert!(
            !shown.contains("hush") && !shown.contains("re%+/fresh"),
            "{shown}"
        );
    }

    #[test]
    fn replaced_token_ends_the_refresh_of_the_previous_one() {
        let token = |text: &str| StoredToken::unproven(text, Timestamp::EPOCH);
        let mut record = TokenRecord::of(token("one"));
        let refresh = "refresh".to_owned().into();
        record.intent = Some(RefreshIntent::plan("here", 1, &refresh, Timestamp::EPOCH));
        record.replace_token(Some(token("two")));
        assert_eq!((record.generation, record.intent), (2, None));
    }
}
