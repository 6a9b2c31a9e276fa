//! Leases in NATS JetStream: a key-value bucket whose entries expire, and another one for the view, whose entries do not.
//!
//! The client's own way of creating a bucket fails on servers before 2.10, so the streams are created here. A lifetime per key is
//! not used: it belongs to one value, and the first renewal would make the entry permanent. Decisions come from the answer to a
//! write with an expected revision, never from a read, which may be old.

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::kv::{Entry, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use super::{Fence, Holder, LeaseEngine, LeaseError, LeaseName, LeaseRecord, Scope, SharedText};
use crate::bus::BusError;
use crate::bus::nats::{NatsBus, NatsOptions};
use crate::secrets;

/// The key of the view in its bucket.
const VIEW: &str = "view";
/// Replicas of a stream on a cluster.
const REPLICAS: usize = 3;

/// The engine on one NATS server or cluster.
pub struct NatsLeases {
    bus: NatsBus,
    scope: Scope,
}

/// The value of a lease.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    holder: String,
    /// Absent in the first value, whose revision it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<Fence>,
    note: String,
}

/// A bucket, and the second in which the server created it.
struct Bucket {
    store: Store,
    created: u64,
}

impl Bucket {
    /// Returns the fence of an acquisition. Revisions begin again at 1 in a stream that was created again; together with the time
    /// of its creation the numbers grow.
    fn fence(&self, revision: u64) -> Fence {
        Fence(self.created << 32 | (revision & 0xffff_ffff))
    }
}

impl NatsLeases {
    /// Starts to connect, with a connection of its own; an unreachable server is connected to when it is available.
    pub async fn connect(options: &NatsOptions, scope: Scope) -> Result<Self, LeaseError> {
        let bus = NatsBus::connect(options).await.map_err(of_bus)?;
        Ok(Self { bus, scope })
    }

    fn name_of(&self, kind: &str) -> String {
        format!("bitbrat_{}_{kind}", self.scope.fleet)
    }

    fn refused(&self, reason: String, hint: String) -> LeaseError {
        LeaseError::Refused {
            location: self.location(),
            reason,
            hint,
        }
    }

    fn unavailable(&self, error: impl std::fmt::Display) -> LeaseError {
        LeaseError::Unavailable {
            location: self.location(),
            reason: secrets::quote(&error.to_string()),
        }
    }

    /// Opens a bucket; creates its stream if there is none. It is opened for each call, because a stream that was created again
    /// has another time.
    async fn open(&self, kind: &str) -> Result<Bucket, LeaseError> {
        self.bus.connected().await.map_err(of_bus)?;
        let bucket = self.name_of(kind);
        let config = self.config(&bucket, kind);
        let (max_age, jetstream) = (config.max_age, self.bus.jetstream());
        let stream: Stream = match jetstream.get_stream(&config.name).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND =>
                {
                    // Of several members that start together, one creates it and the others get it.
                    let made = jetstream.get_or_create_stream(config).await;
                    made.map_err(|error| self.not_created(&bucket, &error.to_string()))?
                }
                _ => return Err(self.unavailable(error)),
            },
        };
        let info = stream.cached_info();
        if info.config.max_age != max_age {
            let reason = format!(
                "the bucket {bucket} keeps entries for {} s, but leases of this member last {} s",
                info.config.max_age.as_secs_f64(),
                max_age.as_secs_f64()
            );
            let hint = "give all members the same fleet.ttl; to change it, stop all and delete the bucket";
            return Err(self.refused(reason, hint.to_owned()));
        }
        let created = u64::try_from(info.created.unix_timestamp()).unwrap_or(0);
        let store = jetstream.get_key_value(&bucket).await;
        let store = store.map_err(|error| self.unavailable(error))?;
        Ok(Bucket { store, created })
    }

    fn config(&self, bucket: &str, kind: &str) -> Config {
        let ttl = self.scope.terms.ttl;
        let is_cluster = self.bus.server_info().cluster.is_some();
        Config {
            name: format!("KV_{bucket}"),
            description: Some("leases of bitbrat".to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            // Every write of a key begins it again, which is the renewal.
            max_age: if kind == LEASES {
                ttl
            } else {
                std::time::Duration::ZERO
            },
            duplicate_window: ttl.min(std::time::Duration::from_mins(2)),
            discard: DiscardPolicy::New,
            // In memory, revisions would begin again after a restart.
            storage: StorageType::File,
            num_replicas: if is_cluster { REPLICAS } else { 1 },
            allow_rollup: true,
            deny_delete: true,
            // Followers would answer with old values.
            allow_direct: false,
            max_bytes: -1,
            max_messages: -1,
            max_message_size: -1,
            max_consumers: -1,
            ..Config::default()
        }
    }

    fn not_created(&self, bucket: &str, error: &str) -> LeaseError {
        if error.contains("timed out") || error.contains("request failed") {
            return self.unavailable(error);
        }
        let reason = format!("the bucket {bucket} cannot be created: {}", secrets::quote(error));
        let hint = format!(
            "allow this user to create the stream KV_{bucket}, or create it with max_age = fleet.ttl, one message per subject and file storage"
        );
        self.refused(reason, hint)
    }

    /// Returns the entry of a key; a deleted one, too.
    async fn entry(&self, store: &Store, key: &str) -> Result<Option<Entry>, LeaseError> {
        store.entry(key).await.map_err(|error| self.unavailable(error))
    }

    /// Writes a key if its revision is `base` (0: if there is none). `None` if it is another one.
    async fn write(
        &self,
        store: &Store,
        key: &str,
        text: String,
        base: u64,
    ) -> Result<Option<u64>, LeaseError> {
        match store.update(key, text.into(), base).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => Err(self.unavailable(error)),
        }
    }
}

const LEASES: &str = "leases";
const VIEWS: &str = "view";

/// Returns the value and revision of an entry that is not deleted. What other programs have written counts as another holder's.
fn live(entry: Option<&Entry>) -> Option<(Value, u64)> {
    let entry = entry.filter(|entry| entry.operation == Operation::Put)?;
    let unknown = Value {
        holder: String::new(),
        fence: None,
        note: String::new(),
    };
    let value = serde_json::from_slice(&entry.value).unwrap_or(unknown);
    Some((value, entry.revision))
}

fn text_of(holder: &Holder, fence: Option<Fence>, note: &str) -> String {
    let value = Value {
        holder: holder.to_string(),
        fence,
        note: note.to_owned(),
    };
    serde_json::to_string(&value).expect("it has only texts and a number")
}

fn of_bus(error: BusError) -> LeaseError {
    match error {
        BusError::Unavailable { location, reason } => LeaseError::Unavailable { location, reason },
        BusError::Refused { location, reason } => LeaseError::Refused {
            location,
            reason,
            hint: "check the address and the credentials of NATS (bus.nats_*)".to_owned(),
        },
        error => LeaseError::Unavailable {
            location: "nats".to_owned(),
            reason: error.to_string(),
        },
    }
}

#[async_trait]
impl LeaseEngine for NatsLeases {
    fn location(&self) -> String {
        use crate::bus::EventBus as _;
        self.bus.location()
    }

    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        note: &str,
    ) -> Result<Option<Fence>, LeaseError> {
        let bucket = self.open(LEASES).await?;
        let entry = self.entry(&bucket.store, name.as_str()).await?;
        let (base, kept) = match live(entry.as_ref()) {
            Some((value, _)) if value.holder != holder.to_string() => return Ok(None),
            Some((value, revision)) => (
                revision,
                Some(value.fence.unwrap_or_else(|| bucket.fence(revision))),
            ),
            None => (entry.map_or(0, |deleted| deleted.revision), None),
        };
        let text = text_of(holder, kept, note);
        let written = self.write(&bucket.store, name.as_str(), text, base).await?;
        Ok(written.map(|revision| kept.unwrap_or_else(|| bucket.fence(revision))))
    }

    async fn renew(
        &self,
        name: &LeaseName,
        holder: &Holder,
        fence: Fence,
        note: &str,
    ) -> Result<bool, LeaseError> {
        let store = &self.open(LEASES).await?.store;
        // A request of our own that was given up may have been written in between.
        for _ in 0..2 {
            let entry = self.entry(store, name.as_str()).await?;
            let Some((value, revision)) = live(entry.as_ref()) else {
                return Ok(false);
            };
            // The low bits of the fence are the revision of the first value.
            let is_ours = value.holder == holder.to_string()
                && match value.fence {
                    Some(found) => found == fence,
                    None => fence.0 & 0xffff_ffff == revision & 0xffff_ffff,
                };
            if !is_ours {
                return Ok(false);
            }
            let text = text_of(holder, Some(fence), note);
            if self.write(store, name.as_str(), text, revision).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn release(&self, name: &LeaseName, holder: &Holder, _fence: Fence) -> Result<(), LeaseError> {
        let store = &self.open(LEASES).await?.store;
        let entry = self.entry(store, name.as_str()).await?;
        match live(entry.as_ref()) {
            Some((value, revision)) if value.holder == holder.to_string() => {
                let deleted = store.delete_expect_revision(name.as_str(), Some(revision)).await;
                deleted.map_err(|error| self.unavailable(error))
            }
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<LeaseRecord>, LeaseError> {
        let bucket = self.open(LEASES).await?;
        let prefix = format!("$KV.{}.", bucket.store.name);
        let subjects = bucket.store.stream.info_with_subjects(format!("{prefix}>")).await;
        let subjects = subjects.map_err(|error| self.unavailable(error))?;
        let subjects: Vec<(String, usize)> = subjects
            .try_collect()
            .await
            .map_err(|error| self.unavailable(error))?;
        let mut found = Vec::new();
        for (subject, _) in subjects {
            let Some(name) = subject
                .strip_prefix(&prefix)
                .and_then(|key| key.parse::<LeaseName>().ok())
            else {
                continue;
            };
            let entry = self.entry(&bucket.store, name.as_str()).await?;
            let record = live(entry.as_ref()).and_then(|(value, revision)| {
                Some(LeaseRecord {
                    holder: value.holder.parse().ok()?,
                    fence: value.fence.unwrap_or_else(|| bucket.fence(revision)),
                    note: value.note,
                    name,
                })
            });
            found.extend(record);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn view(&self) -> Result<Option<SharedText>, LeaseError> {
        let store = &self.open(VIEWS).await?.store;
        let entry = self.entry(store, VIEW).await?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(entry.map(|entry| SharedText {
            version: entry.revision.to_string(),
            text: String::from_utf8_lossy(&entry.value).into_owned(),
        }))
    }

    async fn replace_view(&self, base: Option<&str>, text: &str) -> Result<bool, LeaseError> {
        // A stream that was deleted is created again.
        let bucket = self.open(VIEWS).await?;
        let base = base.map_or(Ok(0), str::parse);
        let Ok(base) = base else {
            return Ok(false);
        };
        let written = self.write(&bucket.store, VIEW, text.to_owned(), base).await?;
        Ok(written.is_some())
    }
}
