//! Tokens in documents of the platform's own database, whichever that is.
//!
//! - A document belongs to the platform: it is never created, and its user never changes. By default it is only read.
//! - What the platform does not know (a recorded refresh, the generation, a login that waits) is in a document of our own, written in
//!   the same commit; so is a digest of the pair that it is about. If the platform has replaced the pair, the digest differs, and the
//!   rest counts as replaced with it.
//! - Accounts without such a document, and the application's tokens, are in the token file of this machine. So are locks and journal.

mod document;
mod held;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

pub use self::document::PlatformDocument;
use self::document::digest_of;
use self::held::own_fields;
pub use self::held::{Held, OWN};
use super::{
    FileTokenStore, Journal, Lock, Snapshot, StoredToken, TokenError, TokenRecord, TokenStore, locks,
};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::store::Version;

/// A place for a token in the platform's database.
#[derive(Debug)]
pub struct Place {
    pub platform: &'static str,
    pub role: &'static str,
    /// The platform's document.
    pub path: String,
}

/// A document of the platform, and our own beside it.
pub struct Fetched {
    pub document: PlatformDocument,
    pub own: Option<(Map<String, Value>, Version)>,
}

/// A change of both documents.
pub struct Change<'a> {
    pub identity: &'a Identity,
    pub place: &'a Place,
    /// What it is based on.
    pub held: &'a Held,
    /// The fields of the platform's document that change; empty if none does.
    pub names: Vec<&'static str>,
    /// Their values. One that is missing is removed.
    pub values: Map<String, Value>,
    /// Our own document.
    pub own: Map<String, Value>,
}

/// Access to the documents of one database.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Returns the documents of places in the same order, and the database's time of the read.
    async fn fetch(&self, places: &[&Place])
    -> Result<(Vec<Option<Fetched>>, Option<Timestamp>), TokenError>;

    /// Writes both documents, or neither if one of them has changed since it was read. Returns the versions.
    async fn commit(&self, change: Change<'_>) -> Result<Version, TokenError>;

    /// Returns a number that differs from the last one if one of the documents may have changed since.
    async fn changes(&self, places: &[Place]) -> u64;
}

/// A [`TokenStore`] of the platform's documents.
pub struct DocumentTokenStore<D> {
    documents: D,
    places: [Place; 3],
    refresh: bool,
    file: FileTokenStore,
    /// What was last known of the accounts with a document: those that were read, and the access token that was written here.
    known: Mutex<BTreeMap<Identity, Option<SecretString>>>,
    domain: OnceLock<String>,
    base: PathBuf,
}

impl<D: Documents> DocumentTokenStore<D> {
    pub(super) fn with(documents: D, places: [Place; 3], refresh: bool, file: PathBuf) -> Self {
        Self {
            documents,
            places,
            refresh,
            file: FileTokenStore::new(&file),
            known: Mutex::default(),
            domain: OnceLock::new(),
            base: file,
        }
    }

    /// Returns the place in which the token of `identity` may be.
    fn place(&self, identity: &Identity) -> Option<&Place> {
        let (platform, name) = identity.as_str().split_once('/')?;
        let role = match name.split_once(':') {
            Some(("broadcaster", _)) => "broadcaster",
            _ => name,
        };
        self.places
            .iter()
            .find(|place| place.platform == platform && place.role == role && (role == "bot" || name != role))
    }

    /// Returns those of `places` that hold an account, and the database's time of the read.
    async fn fetch(&self, places: &[&Place]) -> Result<(Vec<Held>, Option<Timestamp>), TokenError> {
        let (found, read_at) = self.documents.fetch(places).await?;
        let held = places.iter().zip(found);
        let held: Vec<_> = held.filter_map(|(place, found)| held_in(place, found?)).collect();
        let mut known = self.known.lock();
        for held in &held {
            known.entry(held.identity.clone()).or_default();
        }
        Ok((held, read_at))
    }

    /// Returns the documents of `identity`, if it has any.
    async fn find(&self, identity: &Identity) -> Result<Option<(Held, Option<Timestamp>)>, TokenError> {
        let Some(place) = self.place(identity) else {
            return Ok(None);
        };
        let (held, read_at) = self.fetch(&[place]).await?;
        let found = held.into_iter().find(|held| held.identity == *identity);
        if found.is_none() {
            self.known.lock().remove(identity);
        }
        Ok(found.map(|held| (held, read_at)))
    }

    /// Returns the accounts with a document, and their records.
    async fn documents(&self) -> Result<Vec<(Identity, TokenRecord)>, TokenError> {
        let places: Vec<_> = self.places.iter().collect();
        let (held, _) = self.fetch(&places).await?;
        let records = held
            .into_iter()
            .map(|held| Ok((held.identity.clone(), held.record()?)));
        records.collect()
    }

    /// Returns the accounts of the documents that `is_wanted`, and those of the file that have no document.
    async fn accounts(
        &self,
        is_wanted: fn(&TokenRecord) -> bool,
        others: Vec<Identity>,
    ) -> Result<Vec<Identity>, TokenError> {
        let documents = self.documents().await?;
        let is_other = |identity: &Identity| documents.iter().all(|(held, _)| held != identity);
        let mut accounts: Vec<_> = others.into_iter().filter(is_other).collect();
        let wanted = documents.into_iter().filter(|(_, record)| is_wanted(record));
        accounts.extend(wanted.map(|(identity, _)| identity));
        accounts.sort();
        Ok(accounts)
    }

    /// Writes a record, based on what is `held`.
    async fn write_held(
        &self,
        identity: &Identity,
        held: Held,
        record: &TokenRecord,
        now: Option<Timestamp>,
    ) -> Result<Version, TokenError> {
        let before = held.record()?;
        let digest = digest_of(record.token.as_ref());
        let is_new_pair = digest != digest_of(before.token.as_ref());
        if let Some(token) = &record.token {
            held.require_owner(before.token.as_ref(), token, is_new_pair)?;
        }
        let place = self.place(identity).expect("what is held has a place");
        let document = &held.document;
        let now = now.unwrap_or(document.written_at);
        let (names, values) = match is_new_pair {
            true => document.change(record.token.as_ref(), now),
            // Changes nothing, but fails if the document was changed.
            false => (Vec::new(), Map::new()),
        };
        if let Some(token) = &record.token {
            self.known
                .lock()
                .insert(identity.clone(), Some(token.access.clone()));
        }
        let change = Change {
            identity,
            place,
            held: &held,
            names,
            values,
            own: own_fields(identity, record, digest),
        };
        self.documents.commit(change).await
    }
}

/// Interprets the documents of a place. One of a broadcaster without a user could be anybody's, and one of Discord with a refresh token
/// is a person's and not a bot's.
fn held_in(place: &Place, found: Fetched) -> Option<Held> {
    let Fetched { document, own } = found;
    let identity = match (place.platform, place.role) {
        ("discord", _) if document.is_refreshable() => return None,
        (platform, "broadcaster") => format!("{platform}/broadcaster:{}", document.owner()?),
        (platform, role) => format!("{platform}/{role}"),
    };
    Some(Held {
        identity: Identity::named(identity),
        document,
        own,
    })
}

#[async_trait]
impl<D: Documents> TokenStore for DocumentTokenStore<D> {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        let others = self.file.identities().await?;
        self.accounts(|record| record.token.is_some(), others).await
    }

    async fn pending(&self) -> Result<Vec<Identity>, TokenError> {
        let others = self.file.pending().await?;
        self.accounts(|record| record.pending.is_some(), others).await
    }

    async fn read(&self, identity: &Identity) -> Result<Snapshot, TokenError> {
        match self.find(identity).await? {
            Some((held, read_at)) => Ok(Snapshot {
                record: held.record()?,
                version: held.version(),
                read_at,
            }),
            None => self.file.read(identity).await,
        }
    }

    async fn write(
        &self,
        identity: &Identity,
        record: &TokenRecord,
        base: &Version,
    ) -> Result<Version, TokenError> {
        let Some((held, read_at)) = self.find(identity).await? else {
            return self.file.write(identity, record, base).await;
        };
        if !self.refresh {
            return Err(TokenError::ReadOnly {
                identity: identity.clone(),
                document: held.document.place,
            });
        }
        if held.version() != *base {
            return Err(TokenError::Conflict {
                identity: identity.clone(),
            });
        }
        self.write_held(identity, held, record, read_at).await
    }

    async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError> {
        self.file.lock(identity).await
    }

    fn lock_domain(&self) -> &str {
        self.domain.get_or_init(|| locks::machine(&self.base))
    }

    fn journal(&self) -> &Journal {
        self.file.journal()
    }

    async fn load_all(&self) -> Result<BTreeMap<Identity, StoredToken>, TokenError> {
        let mut all = self.file.load_all().await?;
        for (identity, record) in self.documents().await? {
            all.remove(&identity);
            all.extend(record.token.map(|token| (identity, token)));
        }
        Ok(all)
    }

    async fn revision(&self) -> Result<Option<u64>, TokenError> {
        let file = self.file.revision().await?.unwrap_or_default();
        let count = self.documents.changes(&self.places).await;
        Ok(Some(file.wrapping_add(count)))
    }

    fn is_own(&self, identity: &Identity, access: &SecretString) -> bool {
        let known = self.known.lock();
        match known.get(identity) {
            Some(own) => own
                .as_ref()
                .is_some_and(|own| own.expose_secret() == access.expose_secret()),
            None => self.file.is_own(identity, access),
        }
    }

    fn renews(&self, identity: &Identity) -> bool {
        self.refresh || !self.is_shared(identity)
    }

    fn is_shared(&self, identity: &Identity) -> bool {
        self.known.lock().contains_key(identity)
    }
}
