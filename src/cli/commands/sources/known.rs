//! What the store knows of the sources asked for, and of those configured.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::app::{Access, Sources};
use crate::cli::context::Context;
use crate::cli::look;
use crate::cli::output::Note;
use crate::cli::output::machine::{UnusableItem, UnusableKind};
use crate::cli::output::view::Tone;
use crate::cli::reports::sources::SourceRow;
use crate::core::document::SourceDocument;
use crate::core::freshness::Intervals;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::platforms::{Probe, ProbeSet};
use crate::store::{SourceStore, StoreError, Stored};

/// Documents that are read one by one; for more of them everything is read at once.
const FEW: usize = 8;

/// What is known of many.
#[derive(Debug, Default)]
pub struct Known {
    /// Sources, sorted by key.
    pub rows: Vec<SourceRow>,
    /// Stored documents and configured names that cannot be used.
    pub unusable: Vec<UnusableItem>,
    /// What a look found to be wrong.
    pub problems: Vec<String>,
}

impl Known {
    /// Whether it has a row of `key`, or says why not.
    fn tells_of(&self, key: &SourceKey) -> bool {
        let row = self.rows.binary_search_by(|row| row.summary.key.cmp(key));
        row.is_ok() || self.unusable.iter().any(|item| item.id == key.to_string())
    }
}

/// What is known of one.
#[derive(Debug)]
pub struct Found {
    /// In short.
    pub row: SourceRow,
    /// In full.
    pub document: SourceDocument,
}

impl Found {
    /// Judges `document` at `now`.
    pub fn new(document: SourceDocument, intervals: &Intervals, now: Timestamp) -> Self {
        Self {
            row: SourceRow::new(SourceSummary::of(&document), intervals, now),
            document,
        }
    }
}

/// Returns what is known of `keys`, or of every source when none are given. With `probe` it looks first, and in a demo
/// whose own store knows nothing before somebody has looked.
pub async fn load(cx: &Context, keys: &[SourceKey], probe: bool) -> Result<Known, Failure> {
    if !probe && !cx.app.is_store_temporary() {
        return stored(cx, keys).await;
    }
    let looked = look_at(cx, keys).await?;
    let mut known = read(cx, looked.store.as_ref(), keys, &looked.sources).await?;
    known.problems = looked.problems;
    Ok(known)
}

/// A look that is over, and what it saw is kept.
struct Looked {
    store: Arc<dyn SourceStore>,
    sources: Sources,
    problems: Vec<String>,
}

/// Looks at `keys`, or at every source when none are given.
async fn look_at(cx: &Context, keys: &[SourceKey]) -> Result<Looked, Failure> {
    let store = cx.app.store(Access::Write).await?;
    let platforms = cx.app.platforms().await?;
    let sources = cx.app.resolve(&platforms).await?;
    let wanted = if keys.is_empty() {
        sources.keys()
    } else {
        keys.to_vec()
    };
    // A source that nobody knows is not looked at either.
    read(cx, store.as_ref(), keys, &sources).await?;
    let all: ProbeSet = Probe::ALL.into_iter().collect();
    let looked = look::look(cx, &platforms, &all, &wanted).await;
    let kept = look::keep(cx, Arc::clone(&store), &looked.observations).await;
    if let Some(error) = kept.first_refusal() {
        return Err(error.into());
    }
    let problems = looked.platforms.into_iter();
    Ok(Looked {
        store,
        sources,
        problems: problems.flat_map(|platform| platform.problems).collect(),
    })
}

/// Returns what the store knows of `keys`, or of every source when none are given.
pub async fn stored(cx: &Context, keys: &[SourceKey]) -> Result<Known, Failure> {
    let store = cx.app.store(Access::Read).await?;
    read(cx, store.as_ref(), keys, &cx.app.sources()).await
}

async fn read(
    cx: &Context,
    store: &dyn SourceStore,
    keys: &[SourceKey],
    sources: &Sources,
) -> Result<Known, Failure> {
    if keys.is_empty() || keys.len() > FEW {
        return among(cx, keys, sources, store.summaries().await?);
    }
    let mut found = Vec::new();
    for key in keys {
        match store.load(key).await {
            Ok(Some(document)) => found.push(Stored {
                document_id: key.to_string(),
                document: Ok(Arc::new(SourceSummary::of(&document.value))),
            }),
            Ok(None) => {}
            Err(StoreError::Unusable { document_id, source }) => found.push(Stored {
                document_id,
                document: Err(source),
            }),
            Err(error) => return Err(error.into()),
        }
    }
    among(cx, keys, sources, found)
}

/// Returns what `stored` says of `keys`, or of every source that is stored or configured when none are given.
pub fn among(
    cx: &Context,
    keys: &[SourceKey],
    sources: &Sources,
    stored: Vec<Stored<Arc<SourceSummary>>>,
) -> Result<Known, Failure> {
    let (now, intervals) = (cx.app.clock.now(), cx.app.intervals());
    let mut origins: BTreeMap<&SourceKey, &String> = sources
        .known
        .iter()
        .map(|source| (&source.key, &source.origin))
        .collect();
    let asked: BTreeSet<&SourceKey> = keys.iter().collect();
    let is_asked = |key: &SourceKey| asked.is_empty() || asked.contains(key);
    let mut known = Known {
        rows: Vec::with_capacity(stored.len()),
        ..Known::default()
    };
    for stored in stored {
        match stored.document {
            Ok(summary) if is_asked(&summary.key) => {
                let origin = origins.remove(&summary.key);
                let mut row = SourceRow::new(summary, &intervals, now);
                row.configured = origin.cloned();
                known.rows.push(row);
            }
            Err(reason) if is_asked_by_name(keys, &stored.document_id) => known.unusable.push(UnusableItem {
                what: UnusableKind::Document,
                id: stored.document_id,
                reason: reason.to_string(),
            }),
            Ok(_) | Err(_) => {}
        }
    }
    // What is stored but cannot be used is not a source that was never looked at.
    origins.retain(|key, _| is_asked(key) && !known.unusable.iter().any(|item| item.id == key.to_string()));
    for (key, origin) in origins {
        let nothing = SourceSummary::of(&SourceDocument::new(key.clone()));
        let mut row = SourceRow::new(nothing, &intervals, now);
        row.stored = false;
        row.configured = Some(origin.clone());
        known.rows.push(row);
    }
    known.rows.sort_by(|a, b| a.summary.key.cmp(&b.summary.key));
    if let Some(unknown) = keys.iter().find(|key| !known.tells_of(key)) {
        return Err(no_such_source(unknown));
    }
    if keys.is_empty() {
        let unresolved = sources.unresolved.iter();
        known.unusable.extend(unresolved.map(|unresolved| UnusableItem {
            what: UnusableKind::Name,
            id: unresolved.name.clone(),
            reason: unresolved.reason.clone(),
        }));
    }
    Ok(known)
}

fn is_asked_by_name(keys: &[SourceKey], document_id: &str) -> bool {
    keys.is_empty() || keys.iter().any(|key| key.to_string() == document_id)
}

/// Returns what is known of one source. With `probe` it looks first, and in a demo whose own store knows nothing before
/// somebody has looked.
pub async fn one(cx: &Context, key: &SourceKey, probe: bool) -> Result<Found, Failure> {
    if probe || cx.app.is_store_temporary() {
        for problem in look_at(cx, std::slice::from_ref(key)).await?.problems {
            cx.note(&[Note::hint(Tone::Warn, problem, None)])?;
        }
    }
    stored_one(cx, key).await
}

/// Returns what the store knows of one source.
pub async fn stored_one(cx: &Context, key: &SourceKey) -> Result<Found, Failure> {
    let stored = match cx.app.store(Access::Read).await?.load(key).await {
        Ok(found) => found.map(|found| found.value),
        Err(StoreError::Unusable { source, .. }) => {
            let what = format!("the stored document of `{key}` cannot be used: {source}");
            return Err(Failure::new(ExitCode::NoEvidence, what)
                .hint("run `bitbrat doctor` to see what to do about it"));
        }
        Err(error) => return Err(error.into()),
    };
    let mut configured = cx.app.sources().known.into_iter();
    let configured = configured.find(|source| source.key == *key);
    if stored.is_none() && configured.is_none() {
        return Err(no_such_source(key));
    }
    let is_stored = stored.is_some();
    let document = stored.unwrap_or_else(|| SourceDocument::new(key.clone()));
    let mut found = Found::new(document, &cx.app.intervals(), cx.app.clock.now());
    found.row.stored = is_stored;
    found.row.configured = configured.map(|source| source.origin);
    Ok(found)
}

/// Fails because nobody knows `key`.
pub fn no_such_source(key: &SourceKey) -> Failure {
    Failure::new(ExitCode::NoSuchSource, format!("there is no source `{key}`"))
        .hint("run `bitbrat sources list` to see the configured and stored sources")
        .hint(format!(
            "to attend it, add it to the configuration: [[source]] platform = \"{}\" id = \"{}\"",
            key.platform(),
            key.id()
        ))
}
