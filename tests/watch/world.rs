//! A simulated truth behind the ports, on paused time: channels that go live and end, a platform that may lie by omission,
//! a listener that loses and repeats, a store that is away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitbrat::clock::{Clock, RuntimeClock};
use bitbrat::core::observation::{ErrorInfo, Fact, LinkState, Observation, Transport};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::time::Timestamp;
use bitbrat::platforms::{Budget, Platform, PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary};
use bitbrat::store::memory::MemoryStore;
use bitbrat::store::{HistoryEntry, SourceStore, StoreError, Stored, Version, Versioned, Write};
use futures_util::stream::BoxStream;

/// One broadcast.
#[derive(Debug, Clone)]
pub struct Broadcast {
    pub id: String,
    pub start: Timestamp,
    pub end: Timestamp,
}

/// What is really so.
pub struct Truth {
    pub clock: Arc<RuntimeClock>,
    pub broadcasts: BTreeMap<SourceKey, Vec<Broadcast>>,
}

impl Truth {
    /// Makes up `days` of broadcasts of `count` channels: some every day, some seldom, some short.
    pub fn invent(clock: Arc<RuntimeClock>, count: u32, days: i64, chance: &mut fastrand::Rng) -> Self {
        let begin = clock.now();
        let end = begin.plus_secs(days * 86_400);
        let mut broadcasts = BTreeMap::new();
        for id in 1..=count {
            let source: SourceKey = format!("twitch:{id}").parse().unwrap();
            let mut list = Vec::new();
            let mut at = begin.plus_secs(chance.i64(0..86_400));
            while at < end {
                // Longer than any outage below, so that it cannot pass unseen.
                let length = chance.i64(2_700..6 * 3_600);
                list.push(Broadcast {
                    id: format!("{id}{:05}", list.len() + 1),
                    start: at,
                    end: at.plus_secs(length),
                });
                at = at.plus_secs(length + chance.i64(3_600..30 * 3_600));
            }
            broadcasts.insert(source, list);
        }
        Self { clock, broadcasts }
    }

    pub fn keys(&self) -> Vec<SourceKey> {
        self.broadcasts.keys().cloned().collect()
    }

    /// Whether anything began or ended in the `seconds` before a moment.
    pub fn changed_within(&self, source: &SourceKey, seconds: i64, at: Timestamp) -> bool {
        let since = at.plus_secs(-seconds);
        let within = |moment: Timestamp| since < moment && moment <= at;
        self.broadcasts[source]
            .iter()
            .any(|broadcast| within(broadcast.start) || within(broadcast.end))
    }

    /// The broadcast of a source at a moment.
    pub fn at(&self, source: &SourceKey, at: Timestamp) -> Option<&Broadcast> {
        self.broadcasts[source]
            .iter()
            .find(|broadcast| broadcast.start <= at && at < broadcast.end)
    }
}

/// What is wrong at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    /// The platform's API does not answer.
    pub api_down: bool,
    /// The API answers from a cache so many seconds old.
    pub cache: i64,
    /// The store does not answer.
    pub store_down: bool,
}

pub type Troubles = Arc<Mutex<Trouble>>;

/// The platform's API.
pub struct ScriptedPlatform {
    pub truth: Arc<Truth>,
    pub trouble: Troubles,
}

#[async_trait]
impl Platform for ScriptedPlatform {
    fn budgets(&self) -> Vec<Budget> {
        Vec::new()
    }

    fn name(&self) -> PlatformName {
        PlatformName::Twitch
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError> {
        Ok(vec![None; names.len()])
    }

    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary {
        // A request takes a while, and meanwhile the world goes on.
        tokio::time::sleep(std::time::Duration::from_millis(80)).await;
        let trouble = *self.trouble.lock().unwrap();
        let now = self.truth.clock.now();
        let tell = |source: &SourceKey, fact: Fact| {
            sink.observe(Observation::new(source, now, "twitch.helix", fact));
        };
        for source in sources {
            if trouble.api_down {
                let error = ErrorInfo::new("http.503", "the platform is in trouble");
                let state = LinkState::Down { error };
                tell(
                    source,
                    Fact::Connection {
                        transport: Transport::Api,
                        state,
                    },
                );
                continue;
            }
            let state = LinkState::Up;
            tell(
                source,
                Fact::Connection {
                    transport: Transport::Api,
                    state,
                },
            );
            if probes.contains(&Probe::Stream) {
                match self.truth.at(source, now.plus_secs(-trouble.cache)) {
                    Some(broadcast) => tell(
                        source,
                        Fact::StreamSeen {
                            stream_id: broadcast.id.clone(),
                            started_at: Some(broadcast.start),
                        },
                    ),
                    None => tell(source, Fact::StreamAbsent),
                }
            }
        }
        ProbeSummary {
            calls: sources.len().div_ceil(100),
            problems: Vec::new(),
        }
    }
}

/// A store that can be away.
pub struct FlakyStore {
    pub inner: MemoryStore,
    pub trouble: Troubles,
}

impl FlakyStore {
    fn check_up(&self) -> Result<(), StoreError> {
        match self.trouble.lock().unwrap().store_down {
            false => Ok(()),
            true => Err(StoreError::Unavailable {
                location: "memory".into(),
                reason: "it is away".into(),
            }),
        }
    }
}

#[async_trait]
impl SourceStore for FlakyStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn load(
        &self,
        key: &SourceKey,
    ) -> Result<Option<Versioned<bitbrat::core::document::SourceDocument>>, StoreError> {
        self.check_up()?;
        self.inner.load(key).await
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        self.check_up()?;
        self.inner.load_all().await
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        match self.check_up() {
            Ok(()) => self.inner.save(writes).await,
            Err(error) => writes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        self.inner.delete(document_id).await
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        self.inner.append_history(key, entries).await
    }

    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.inner.history(key, limit).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError> {
        self.inner.watch().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.check_up()
    }
}
