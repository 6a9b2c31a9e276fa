//! Reads what is stored and configured, for those who only show it: the API, pages and agents. Platforms are never asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{SourceArg, SourceSelector};
use crate::core::document::SourceDocument;
use crate::core::freshness::{Intervals, MaxAge};
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::store::{HistoryEntry, SourceStore, StoreError, Stored};
use crate::view::envelope::UnusableItem;
use crate::view::found::Found;
use crate::view::sources::{self, Sources, Wanted};

/// Transitions read from the store for a history that is filtered by time.
pub const READ: usize = 2000;

/// The part of the configuration that concerns sources.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    /// The configured sources, and where each is configured.
    pub origins: BTreeMap<SourceKey, String>,
    /// Names whose ids were looked up before.
    pub names: Vec<(String, SourceKey)>,
    /// Configured names without an id.
    pub unresolved: Vec<UnusableItem>,
    /// How often each thing about a source is checked.
    pub intervals: Intervals,
    /// The sources that are shown to everybody.
    pub public: Vec<SourceSelector>,
}

/// Returns the configuration that is in force.
pub type ConfiguredNow = Arc<dyn Fn() -> Configured + Send + Sync>;

/// Reads the sources.
#[derive(Clone)]
pub struct Reading {
    pub store: Arc<dyn SourceStore>,
    pub configured: ConfiguredNow,
    pub clock: Arc<dyn Clock>,
}

/// Why no source was found.
#[derive(Debug)]
pub enum NotFound {
    /// The text cannot name a source; the reason.
    Invalid(String),
    /// No source that is stored or configured has this id or name.
    Unknown(String),
    /// Several sources have this name.
    Ambiguous {
        wanted: String,
        sources: Vec<SourceKey>,
    },
    Store(StoreError),
}

impl From<StoreError> for NotFound {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Reading {
    /// Judges every source that is stored or configured; `max_age` replaces the usual three intervals.
    pub async fn sources(&self, max_age: MaxAge) -> Result<Sources, StoreError> {
        Ok(self.judge(self.store.summaries().await?, max_age))
    }

    /// Judges what is stored, and what is configured beside it.
    pub fn judge(&self, stored: Vec<Stored<Arc<SourceSummary>>>, max_age: MaxAge) -> Sources {
        let configured = (self.configured)();
        let wanted = Wanted {
            key: |_: &SourceKey| true,
            id: |_: &str| true,
        };
        let origins = configured.origins.iter().collect();
        let intervals = configured.intervals.within(max_age);
        let mut sources = sources::judge(stored, origins, &wanted, &intervals, self.clock.now());
        sources.unusable.extend(configured.unresolved);
        sources
    }

    /// Returns a source that is stored or configured, by id, name or address, judged with this maximum age.
    pub async fn found(&self, wanted: &str, max_age: MaxAge) -> Result<Found, NotFound> {
        let configured = (self.configured)();
        let key = match wanted.parse::<SourceArg>() {
            Ok(SourceArg::Key(key)) => key,
            Ok(wanted) => self.named(&wanted, &configured).await?,
            Err(message) => return Err(NotFound::Invalid(message)),
        };
        let (intervals, now) = (configured.intervals.within(max_age), self.clock.now());
        let origin = configured.origins.get(&key).cloned();
        let stored = self.store.load(&key).await?;
        if stored.is_none() && origin.is_none() {
            return Err(NotFound::Unknown(key.to_string()));
        }
        let is_stored = stored.is_some();
        let document = stored.map_or_else(|| SourceDocument::new(key), |stored| stored.value);
        let mut found = Found::new(document, &intervals, now);
        found.row.stored = is_stored;
        found.row.configured = origin;
        Ok(found)
    }

    /// Returns the source of that name. No request is sent to the platforms: reading must not cost requests.
    async fn named(&self, wanted: &SourceArg, configured: &Configured) -> Result<SourceKey, NotFound> {
        let SourceArg::Name { platform, name } = wanted else {
            return Err(NotFound::Unknown(wanted.to_string()));
        };
        let is_of_platform = |key: &SourceKey| platform.is_none_or(|platform| key.platform() == platform);
        let summaries = self.store.summaries().await?;
        let stored = summaries
            .iter()
            .filter_map(|stored| stored.document.as_ref().ok());
        let stored = stored.filter(|summary| summary.names().contains(name));
        let mut keys: BTreeSet<SourceKey> = stored.map(|summary| summary.key.clone()).collect();
        let looked_up = configured.names.iter().filter(|(known, _)| known == name);
        keys.extend(looked_up.map(|(_, key)| key.clone()));
        let ids = configured.origins.keys().filter(|key| key.id() == name);
        keys.extend(ids.cloned());
        // What was looked up once may be neither configured nor stored any more.
        let is_here = |key: &SourceKey| {
            let is_stored = |summary: &Arc<SourceSummary>| summary.key == *key;
            configured.origins.contains_key(key)
                || summaries
                    .iter()
                    .any(|stored| stored.document.as_ref().is_ok_and(is_stored))
        };
        keys.retain(|key| is_of_platform(key) && is_here(key));
        let keys: Vec<SourceKey> = keys.into_iter().collect();
        match keys.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(NotFound::Unknown(wanted.to_string())),
            _ => Err(NotFound::Ambiguous {
                wanted: wanted.to_string(),
                sources: keys,
            }),
        }
    }

    /// Returns at most `limit` transitions of a source, newest first, without the first `offset` of them and none before `since`.
    pub async fn history(
        &self,
        key: &SourceKey,
        since: Option<Timestamp>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<(SourceKey, HistoryEntry)>, StoreError> {
        let end = offset + limit;
        let read = since.map_or(end, |_| READ.max(end));
        let entries = HistoryEntry::without_repeats(self.store.history(key, read).await?);
        let of_period = entries
            .into_iter()
            .filter(|entry| since.is_none_or(|since| entry.transition.at >= since));
        let part = of_period.skip(offset).take(limit);
        Ok(part.map(|entry| (key.clone(), entry)).collect())
    }
}
