//! Tokens in the platform's own documents, `oauth/{provider}/{identity}/token` in Firestore; ours are in
//! `bitbrat_tokens/{provider}-{identity}`.

mod changes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use firestore::gcloud_sdk::google::firestore::v1::precondition::ConditionType;
use firestore::gcloud_sdk::google::firestore::v1::{Document, DocumentMask};
use firestore::gcloud_sdk::prost_types::Timestamp as Moment;
use tokio::sync::Mutex as AsyncMutex;

use self::changes::Changes;
use super::TokenError;
use super::documents::{Change, DocumentTokenStore, Documents, Fetched, OWN, Place, PlatformDocument};
use crate::core::time::Timestamp;
use crate::store::firestore::client::Client;
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

/// A token store of the platform's documents in Firestore.
pub type FirestoreTokenStore = DocumentTokenStore<FirestoreDocuments>;

impl FirestoreTokenStore {
    /// Creates the store without a request.
    pub fn new(options: FirestoreTokenOptions) -> Self {
        let place = |platform, role, path: &str| Place {
            platform,
            role,
            path: format!("{}/token", path.trim_matches('/')),
        };
        let places = [
            place("twitch", "bot", &options.bot_path),
            place("twitch", "broadcaster", &options.broadcaster_path),
            place("discord", "bot", "oauth/discord/bot"),
        ];
        let documents = FirestoreDocuments {
            client: Client::new(options.target),
            changes: AsyncMutex::default(),
        };
        Self::with(documents, places, options.refresh, options.file)
    }
}

/// The documents of one database.
pub struct FirestoreDocuments {
    client: Client,
    changes: AsyncMutex<Changes>,
}

impl FirestoreDocuments {
    fn path(&self, place: &Place) -> String {
        format!("{}/{}", self.client.root(), place.path)
    }

    fn own_path(&self, place: &Place) -> String {
        format!("{}/{OWN}/{}-{}", self.client.root(), place.platform, place.role)
    }

    fn fetched(&self, place: &Place, document: Document, own: Option<Document>) -> Fetched {
        Fetched {
            document: PlatformDocument {
                place: format!("{}/{}", self.client.target, place.path),
                version: version(document.update_time),
                written_at: timestamp(document.update_time.unwrap_or_default()),
                fields: value::to_json(document.fields),
            },
            own: own.map(|own| (value::to_json(own.fields), version(own.update_time))),
        }
    }
}

#[async_trait]
impl Documents for FirestoreDocuments {
    async fn fetch(
        &self,
        places: &[&Place],
    ) -> Result<(Vec<Option<Fetched>>, Option<Timestamp>), TokenError> {
        let both = |place: &&Place| [self.path(place), self.own_path(place)];
        let paths = places.iter().flat_map(both).collect();
        let found = self.client.get_some(paths).await;
        let (found, read_at) =
            found.map_err(|failure| TokenError::Store(failure.explain(&self.client.target)))?;
        let mut found: BTreeMap<_, _> = found
            .into_iter()
            .map(|document| (document.name.clone(), document))
            .collect();
        let fetched = places.iter().map(|place| {
            let document = found.remove(&self.path(place))?;
            Some(self.fetched(place, document, found.remove(&self.own_path(place))))
        });
        Ok((fetched.collect(), read_at.map(timestamp)))
    }

    async fn commit(&self, change: Change<'_>) -> Result<Version, TokenError> {
        let held = change.held;
        // Without fields it changes nothing, but fails if the document was changed.
        let mut platform = update(
            self.path(change.place),
            change.values,
            moment(&held.document.version).map(ConditionType::UpdateTime),
        );
        platform.update_mask = Some(DocumentMask {
            field_paths: change.names.into_iter().map(str::to_owned).collect(),
        });
        let condition = match &held.own {
            Some((_, version)) => moment(version).map(ConditionType::UpdateTime),
            None => Some(ConditionType::Exists(false)),
        };
        let own = update(self.own_path(change.place), change.own, condition);
        let written = self.client.commit(vec![platform, own]).await;
        let identity = change.identity;
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

    async fn changes(&self, places: &[Place]) -> u64 {
        let paths = places.iter().map(|place| self.path(place)).collect();
        self.changes.lock().await.count(&self.client, paths).await
    }
}

fn timestamp(moment: Moment) -> Timestamp {
    Timestamp::from_millis(moment.seconds * 1_000 + i64::from(moment.nanos / 1_000_000))
}
