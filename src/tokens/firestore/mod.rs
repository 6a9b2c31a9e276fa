//! Tokens in the platform's own documents, `oauth/{provider}/{identity}/token` in Firestore.
//!
//! - A document belongs to the platform: it is never created, and its user never changes. By default it is only read.
//! - What the platform does not know (a recorded refresh, the generation, a login that waits) is in a document of our own,
//!   `bitbrat_tokens/{provider}-{identity}`, written in the same commit; so is a digest of the pair that it is about. If the platform has
//!   replaced the pair, the digest differs, and the rest counts as replaced with it.
//! - Accounts without such a document, and the application's tokens, are in the token file of this machine. So are locks and journal.

mod changes;
mod document;
mod held;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use firestore::gcloud_sdk::google::firestore::v1::precondition::ConditionType;
use firestore::gcloud_sdk::google::firestore::v1::{Document, DocumentMask, Write};
use firestore::gcloud_sdk::prost_types::Timestamp as Moment;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Map;
use tokio::sync::Mutex as AsyncMutex;

use self::changes::Changes;
use self::document::{PlatformDocument, digest_of};
use self::held::{Held, OWN, own_fields};
use super::{
    FileTokenStore, Journal, Lock, Snapshot, StoredToken, TokenError, TokenRecord, TokenStore, locks,
};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::store::firestore::client::Client;
use crate::store::firestore::error::Failure;
use crate::store::firestore::{FirestoreTarget, moment, update, value, version};
use crate::store::{StoreError, Version};

/// Where the documents are, and what may be done with them.
#[derive(Debug, Clone)]
pub struct FirestoreTokenOptions {
    /// The database; its collection is not used.
    pub target: FirestoreTarget,
    /// Document of the Twitch bot's token, without `/token`.
    pub bot_path: String,
    /// Document of the Twitch broadcaster's token, without `/token`.
    pub broadcaster_path: String,
    /// Whether the documents may be changed.
    pub refresh: bool,
    /// The token file for accounts without a document.
    pub file: PathBuf,
}

/// A [`TokenStore`] of the platform's documents.
pub struct FirestoreTokenStore {
    client: Client,
    places: [Place; 3],
    refresh: bool,
    file: FileTokenStore,
    /// What was last known of the accounts with a document: those that were read, and the access token that was written here.
    known: Mutex<BTreeMap<Identity, Option<SecretString>>>,
    domain: OnceLock<String>,
    base: PathBuf,
    changes: AsyncMutex<Changes>,
}

/// A place for a token in the platform's documents.
struct Place {
    platform: &'static str,
    role: &'static str,
    /// The platform's document, below the root.
    path: String,
}

impl FirestoreTokenStore {
    /// Creates the store without a request.
    pub fn new(options: FirestoreTokenOptions) -> Self {
        let place = |platform, role, path: &str| Place {
            platform,
            role,
            path: format!("{}/token", path.trim_matches('/')),
        };
        Self {
            client: Client::new(options.target),
            places: [
                place("twitch", "bot", &options.bot_path),
                place("twitch", "broadcaster", &options.broadcaster_path),
                place("discord", "bot", "oauth/discord/bot"),
            ],
            refresh: options.refresh,
            file: FileTokenStore::new(&options.file),
            known: Mutex::default(),
            domain: OnceLock::new(),
            base: options.file,
            changes: AsyncMutex::default(),
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

    fn path(&self, place: &Place) -> String {
        format!("{}/{}", self.client.root(), place.path)
    }

    fn own_path(&self, place: &Place) -> String {
        format!("{}/{OWN}/{}-{}", self.client.root(), place.platform, place.role)
    }

    fn explain(&self, failure: Failure) -> TokenError {
        TokenError::Store(failure.explain(&self.client.target))
    }

    /// Returns those of `places` that hold an account, and Firestore's time of the read.
    async fn fetch(&self, places: &[&Place]) -> Result<(Vec<Held>, Option<Timestamp>), TokenError> {
        let both = |place: &&Place| [self.path(place), self.own_path(place)];
        let paths = places.iter().flat_map(both).collect();
        let (found, read_at) = self
            .client
            .get_some(paths)
            .await
            .map_err(|failure| self.explain(failure))?;
        let mut found: BTreeMap<_, _> = found
            .into_iter()
            .map(|document| (document.name.clone(), document))
            .collect();
        let held = places.iter().filter_map(|place| {
            let document = found.remove(&self.path(place))?;
            self.held(place, document, found.remove(&self.own_path(place)))
        });
        let held: Vec<_> = held.collect();
        let mut known = self.known.lock();
        for held in &held {
            known.entry(held.identity.clone()).or_default();
        }
        Ok((held, read_at.map(timestamp)))
    }

    /// Interprets the documents of a place. One of a broadcaster without a user could be anybody's, and one of Discord with a refresh token
    /// is a person's and not a bot's.
    fn held(&self, place: &Place, document: Document, own: Option<Document>) -> Option<Held> {
        let document = PlatformDocument {
            place: format!("{}/{}", self.client.target, place.path),
            version: version(document.update_time),
            written_at: timestamp(document.update_time.unwrap_or_default()),
            fields: value::to_json(document.fields),
        };
        let identity = match (place.platform, place.role) {
            ("discord", _) if document.is_refreshable() => return None,
            (platform, "broadcaster") => format!("{platform}/broadcaster:{}", document.owner()?),
            (platform, role) => format!("{platform}/{role}"),
        };
        let own = own.map(|own| (value::to_json(own.fields), version(own.update_time)));
        Some(Held {
            identity: Identity::named(identity),
            document,
            own,
        })
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
        let mut platform = update(
            self.path(place),
            values,
            moment(&document.version).map(ConditionType::UpdateTime),
        );
        platform.update_mask = Some(DocumentMask {
            field_paths: names.into_iter().map(str::to_owned).collect(),
        });
        let condition = match &held.own {
            Some((_, version)) => moment(version).map(ConditionType::UpdateTime),
            None => Some(ConditionType::Exists(false)),
        };
        let own = update(
            self.own_path(place),
            own_fields(identity, record, digest),
            condition,
        );
        if let Some(token) = &record.token {
            self.known
                .lock()
                .insert(identity.clone(), Some(token.access.clone()));
        }
        self.commit(identity, [platform, own]).await
    }

    async fn commit(&self, identity: &Identity, writes: [Write; 2]) -> Result<Version, TokenError> {
        let written = self.client.commit(writes.into()).await;
        let written = written.map_err(|failure| {
            match failure.explain_write(&self.client.target, identity.as_str()) {
                StoreError::Conflict { .. } => TokenError::Conflict {
                    identity: identity.clone(),
                },
                error => TokenError::Store(error),
            }
        })?;
        let times: Vec<_> = written
            .iter()
            .map(|result| version(result.update_time).0)
            .collect();
        Ok(Version(times.join("/")))
    }
}

fn timestamp(moment: Moment) -> Timestamp {
    Timestamp::from_millis(moment.seconds * 1_000 + i64::from(moment.nanos / 1_000_000))
}

#[async_trait]
impl TokenStore for FirestoreTokenStore {
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
        let paths = self.places.iter().map(|place| self.path(place)).collect();
        let count = self.changes.lock().await.count(&self.client, paths).await;
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
