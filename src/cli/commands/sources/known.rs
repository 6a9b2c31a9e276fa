//! Loads stored and configured sources for commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::app::{Sources, StoreAccess};
use crate::cli::context::Context;
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::run_probe;
use crate::cli::selection::{Names, Selection};
use crate::cli::source_arg::{self, SourceSelector};
use crate::config::parse_duration;
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::verdict::Existence;
use crate::failure::{ExitCode, Failure};
use crate::platforms::{Probe, ProbeSet, Problem};
use crate::store::{SourceStore, StoreError, Stored};
use crate::view::envelope::{UnusableItem, UnusableKind};
use crate::view::found::{Check, Found, has_no_answer};
use crate::view::source_row::SourceRow;
use crate::view::sources::{self, Wanted};

/// Up to this number, documents are read one by one; for more, everything is read at once.
const FEW: usize = 8;

/// How sources are loaded.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Ask {
    /// Check the platforms first
    #[arg(long)]
    pub probe: bool,
    /// Rely on evidence that is at most this old (default: three intervals)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub max_age: Option<Duration>,
}

impl Ask {
    /// Only reads what is stored.
    pub const STORED: Self = Self {
        probe: false,
        max_age: None,
    };
}

#[derive(Debug, Default)]
pub struct Known {
    /// Sources, sorted by key.
    pub rows: Vec<SourceRow>,
    /// Stored documents and configured names that cannot be used.
    pub unusable: Vec<UnusableItem>,
    pub problems: Vec<Problem>,
    /// Sources whose check got no answer, so that the evidence shown is older.
    pub unanswered: BTreeSet<SourceKey>,
    /// Number of sources that were there before any filter.
    pub considered: usize,
    /// Number of sources that filters by state left out.
    pub filtered_out: usize,
}

impl Known {
    /// Whether it has a row of `key`, or a reason why not.
    fn is_about(&self, key: &SourceKey) -> bool {
        let row = self.rows.binary_search_by(|row| row.summary.key.cmp(key));
        row.is_ok() || self.unusable.iter().any(|item| item.id == key.to_string())
    }
}

/// Returns the selected sources. With `probe` it checks them first, and in a demo whose own store is empty before the first
/// check.
pub async fn load(cx: &Context, selection: &Selection, ask: Ask) -> Result<Known, Failure> {
    if !ask.probe && !cx.app.is_store_temporary() {
        return stored(cx, selection, ask.max_age).await;
    }
    let checked = check(cx, selection).await?;
    let found = read(checked.store.as_ref(), selection).await?;
    let found = found.into_iter().chain(checked.beside());
    let mut known = among(cx, selection, &checked.sources, found.collect(), ask.max_age)?;
    let unanswered = checked.seen.iter().filter(|(_, seen)| has_no_answer(*seen));
    known.unanswered = unanswered.map(|(key, _)| key.clone()).collect();
    known.problems = checked.problems.into_iter().map(|(_, problem)| problem).collect();
    Ok(known)
}

/// A finished check whose observations are stored.
struct Checked {
    store: Arc<dyn SourceStore>,
    sources: Sources,
    started: Timestamp,
    seen: BTreeMap<SourceKey, Vec<Observation>>,
    /// Sources that are neither configured nor stored: they are checked because they were given as arguments, and nothing is
    /// stored of them.
    passing: BTreeSet<SourceKey>,
    problems: Vec<(PlatformName, Problem)>,
}

impl Checked {
    /// Returns the observations of those sources of which nothing is stored.
    fn beside(&self) -> Vec<Stored<Arc<SourceSummary>>> {
        let documents = self.passing.iter().map(|key| self.document(key));
        documents
            .map(|document| Stored {
                document_id: document.key.to_string(),
                document: Ok(Arc::new(SourceSummary::of(&document))),
            })
            .collect()
    }

    /// Returns the part of it that concerns `key`.
    fn of(&self, key: &SourceKey) -> Check {
        let problems = self.problems.iter();
        let problems = problems.filter(|(platform, _)| *platform == key.platform());
        Check {
            started: self.started,
            observations: self.seen.get(key).cloned().unwrap_or_default(),
            problems: problems.map(|(_, problem)| problem.clone()).collect(),
        }
    }

    /// Returns what was observed of `key` as a document.
    fn document(&self, key: &SourceKey) -> SourceDocument {
        let seen = self.seen.get(key).into_iter().flatten();
        SourceDocument::from_knowledge(key.clone(), Knowledge::of(seen))
    }
}

async fn check(cx: &Context, selection: &Selection) -> Result<Checked, Failure> {
    let store = cx.app.store(StoreAccess::Write).await?;
    let mut platforms = cx.app.platforms.needed().await?;
    let sources = cx.app.sources.resolve(&platforms).await?;
    let mut wanted = if selection.is_all() {
        sources.keys()
    } else if selection.has_globs() {
        candidates(cx, store.as_ref(), selection, &sources).await?
    } else {
        selection.keys()
    };
    wanted.retain(|key| selection.includes(key.platform()));
    let mut keys = selection.keys();
    keys.retain(|key| selection.includes(key.platform()));
    let passing = unknown_here(store.as_ref(), &keys, &sources).await?;
    for key in &passing {
        if platforms.iter().all(|platform| platform.name() != key.platform()) {
            platforms.push(cx.app.platforms.get(key.platform()).await?);
        }
    }
    let all: ProbeSet = Probe::ALL.into_iter().collect();
    let started = cx.app.clock.now();
    let probed = run_probe::run_probe(cx, &platforms, &all, &wanted).await;
    let is_kept = |seen: &Observation| !passing.contains(&seen.source);
    let (kept, beside): (Vec<_>, Vec<_>) = probed.observations.into_iter().partition(is_kept);
    let stored = run_probe::save(cx, Arc::clone(&store), &kept).await?;
    if let Some(error) = stored.first_refusal() {
        return Err(error.into());
    }
    let mut seen: BTreeMap<SourceKey, Vec<Observation>> = BTreeMap::new();
    for observation in kept.into_iter().chain(beside) {
        seen.entry(observation.source.clone())
            .or_default()
            .push(observation);
    }
    let problems = probed.platforms.into_iter().flat_map(|probed| {
        let name = probed.platform;
        probed.problems.into_iter().map(move |problem| (name, problem))
    });
    let checked = Checked {
        problems: problems.collect(),
        store,
        sources,
        started,
        seen,
        passing,
    };
    let is_gone = |key: &&SourceKey| checked.document(key).verdict.existence.value == Existence::Gone;
    match checked.passing.iter().find(is_gone) {
        Some(gone) => Err(no_such_source(gone)),
        None => Ok(checked),
    }
}

/// Returns what globs match, and what they may match: the names of a source that was never checked are not known until it is.
async fn candidates(
    cx: &Context,
    store: &dyn SourceStore,
    selection: &Selection,
    sources: &Sources,
) -> Result<Vec<SourceKey>, Failure> {
    let stored = store.summaries().await?;
    let names = Names::of(sources, cx.app.sources.resolved_names(), &stored);
    let mut keys = selection.among(&names);
    let readable = stored.iter().filter_map(|stored| stored.document.as_ref().ok());
    let mut known: BTreeSet<SourceKey> = readable.map(|summary| summary.key.clone()).collect();
    known.extend(keys.iter().cloned());
    let unchecked = sources.keys().into_iter();
    keys.extend(unchecked.filter(|key| !known.contains(key) && selection.may_include(key.platform())));
    Ok(keys)
}

/// Returns those of `keys` that are neither configured nor stored.
async fn unknown_here(
    store: &dyn SourceStore,
    keys: &[SourceKey],
    sources: &Sources,
) -> Result<BTreeSet<SourceKey>, Failure> {
    let configured = sources.keys();
    let asked = keys.iter().filter(|key| !configured.contains(key));
    let asked: Vec<SourceKey> = asked.cloned().collect();
    let found = store.load_some(&asked).await;
    let mut unknown = BTreeSet::new();
    for (key, found) in asked.into_iter().zip(found) {
        match found {
            Ok(None) => drop(unknown.insert(key)),
            Ok(Some(_)) | Err(StoreError::Unusable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(unknown)
}

/// Reads the selected sources from the store.
pub async fn stored(
    cx: &Context,
    selection: &Selection,
    max_age: Option<Duration>,
) -> Result<Known, Failure> {
    let store = cx.app.store(StoreAccess::Read).await?;
    let found = read(store.as_ref(), selection).await?;
    among(cx, selection, &cx.app.sources.all(), found, max_age)
}

async fn read(
    store: &dyn SourceStore,
    selection: &Selection,
) -> Result<Vec<Stored<Arc<SourceSummary>>>, Failure> {
    let keys = selection.keys();
    if selection.is_all() || selection.has_globs() || keys.len() > FEW {
        return Ok(store.summaries().await?);
    }
    let keys: BTreeSet<&SourceKey> = keys.iter().collect();
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
    Ok(found)
}

/// Picks the selected sources from what is stored and configured.
pub fn among(
    cx: &Context,
    selection: &Selection,
    sources: &Sources,
    stored: Vec<Stored<Arc<SourceSummary>>>,
    max_age: Option<Duration>,
) -> Result<Known, Failure> {
    let (now, intervals) = (cx.app.clock.now(), cx.app.intervals().within(max_age));
    let keys = if selection.has_globs() {
        let names = Names::of(sources, cx.app.sources.resolved_names(), &stored);
        selection.check_globs(&names, &others(&stored, sources))?;
        selection.among(&names)
    } else {
        selection.keys()
    };
    let asked: BTreeSet<&SourceKey> = keys.iter().collect();
    let wanted = Wanted {
        key: |key: &SourceKey| selection.is_all() || asked.contains(key),
        id: |id: &str| {
            selection.includes_text(id) || id.parse().is_ok_and(|key: SourceKey| asked.contains(&key))
        },
    };
    let judged = sources::judge(stored, sources.origins(), &wanted, &intervals, now);
    let mut known = Known {
        rows: judged.rows,
        unusable: judged.unusable,
        ..Known::default()
    };
    if let Some(unknown) = keys.iter().find(|key| !known.is_about(key)) {
        return Err(no_such_source(unknown));
    }
    known.unusable.extend(unresolved(selection, sources));
    Ok(known)
}

/// Returns the texts without a key that a glob may match.
fn others<'a, T>(
    stored: &'a [Stored<T>],
    sources: &'a Sources,
) -> impl Iterator<Item = &'a str> + Clone + use<'a, T> {
    let unusable = stored.iter().filter(|stored| stored.document.is_err());
    let unusable = unusable.map(|stored| stored.document_id.as_str());
    unusable.chain(
        sources
            .unresolved
            .iter()
            .map(|unresolved| unresolved.name.as_str()),
    )
}

/// Returns the selected names that have no id yet.
fn unresolved<'a>(
    selection: &'a Selection,
    sources: &'a Sources,
) -> impl Iterator<Item = UnusableItem> + use<'a> {
    let unresolved = sources.unresolved.iter();
    let unresolved = unresolved.filter(|unresolved| selection.includes_text(&unresolved.name));
    unresolved.map(|unresolved| UnusableItem {
        what: UnusableKind::Name,
        id: unresolved.name.clone(),
        reason: unresolved.reason.clone(),
    })
}

#[derive(Debug, Default)]
pub struct FoundSources {
    /// The sources, in the order of the selection.
    pub found: Vec<Found>,
    /// Selected documents and names that cannot be used.
    pub unusable: Vec<UnusableItem>,
    /// Sources that are neither configured nor stored.
    pub unknown: Vec<SourceKey>,
}

/// Returns the sources that arguments name on `platforms`, or on all where there are none; see [`in_full`].
pub async fn asked(
    cx: &Context,
    ids: &[SourceSelector],
    platforms: &[PlatformName],
    ask: Ask,
) -> Result<FoundSources, Failure> {
    let online = ask.probe || cx.app.is_store_temporary();
    let selection = source_arg::select(cx, ids, online).await?;
    in_full(cx, &selection.on(platforms), ask).await
}

/// Returns the selected sources in full. With `probe` it checks them first, and in a demo whose own store is empty before the
/// first check. A source that was given by id or name and is neither configured nor stored is checked too, and nothing is
/// stored of it.
pub async fn in_full(cx: &Context, selection: &Selection, ask: Ask) -> Result<FoundSources, Failure> {
    let checked = match ask.probe || cx.app.is_store_temporary() {
        true => Some(check(cx, selection).await?),
        false => None,
    };
    let sources = cx.app.sources.all();
    let keys = if selection.is_all() || selection.has_globs() {
        let stored = cx.app.store(StoreAccess::Read).await?.summaries().await?;
        let names = Names::of(&sources, cx.app.sources.resolved_names(), &stored);
        selection.check_globs(&names, &others(&stored, &sources))?;
        selection.among(&names)
    } else {
        selection.among(&Names::default())
    };
    let wanted = keys.into_iter().filter(|key| selection.includes(key.platform()));
    let wanted: Vec<SourceKey> = wanted.collect();
    let mut several = stored_in_full(cx, &wanted, ask.max_age).await?;
    let unknown = std::mem::take(&mut several.unknown);
    for key in unknown {
        let Some(checked) = checked.as_ref().filter(|checked| checked.passing.contains(&key)) else {
            return Err(no_such_source(&key));
        };
        let intervals = cx.app.intervals().within(ask.max_age);
        let mut found = Found::new(checked.document(&key), &intervals, cx.app.clock.now());
        found.row.stored = false;
        several.found.push(found);
    }
    let places = wanted.iter().enumerate().map(|(place, key)| (key, place));
    let places: BTreeMap<&SourceKey, usize> = places.collect();
    several
        .found
        .sort_by_key(|found| places.get(&found.document.key).copied());
    several.unusable.extend(unresolved(selection, &sources));
    if let ([], [only]) = (several.found.as_slice(), several.unusable.as_slice()) {
        let what = match only.what {
            UnusableKind::Document => {
                format!(
                    "the stored document of `{}` cannot be used: {}",
                    only.id, only.reason
                )
            }
            UnusableKind::Name => format!("the id of `{}` is not known: {}", only.id, only.reason),
        };
        return Err(
            Failure::new(ExitCode::NoEvidence, what).hint("run `bitbrat doctor` to see what to do about it")
        );
    }
    if let Some(checked) = checked {
        for found in &mut several.found {
            found.check = Some(checked.of(&found.document.key));
        }
    }
    Ok(several)
}

/// Reads sources from the store. Those that are neither configured nor stored are returned as such.
pub async fn stored_in_full(
    cx: &Context,
    keys: &[SourceKey],
    max_age: Option<Duration>,
) -> Result<FoundSources, Failure> {
    let loaded = cx.app.store(StoreAccess::Read).await?.load_some(keys).await;
    let sources = cx.app.sources.all();
    let origins = sources.origins();
    let (now, intervals) = (cx.app.clock.now(), cx.app.intervals().within(max_age));
    let mut several = FoundSources::default();
    for (key, loaded) in keys.iter().zip(loaded) {
        let origin = origins.get(key).map(|origin| (*origin).clone());
        let stored = match loaded {
            Ok(stored) => stored.map(|stored| stored.value),
            Err(StoreError::Unusable { document_id, source }) => {
                several.unusable.push(UnusableItem {
                    what: UnusableKind::Document,
                    id: document_id,
                    reason: source.to_string(),
                });
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if stored.is_none() && origin.is_none() {
            several.unknown.push(key.clone());
            continue;
        }
        let is_stored = stored.is_some();
        let document = stored.unwrap_or_else(|| SourceDocument::new(key.clone()));
        let mut found = Found::new(document, &intervals, now);
        found.row.stored = is_stored;
        found.row.configured = origin;
        several.found.push(found);
    }
    Ok(several)
}

/// Prints the problems of a check that the answers do not mention.
pub fn note_problems(cx: &Context, found: &[Found]) -> Result<(), Failure> {
    let checks = found.iter().filter_map(|found| found.check.as_ref());
    let mut seen = BTreeSet::new();
    let problems = checks.flat_map(|check| &check.problems);
    let notes: Vec<Note> = problems
        .filter(|problem| seen.insert(problem.text.clone()))
        .map(|problem| Note::hint(Tone::Warn, &problem.text, None))
        .collect();
    cx.note(&notes)
}

/// Returns the failure for a `key` that is neither stored nor configured.
pub fn no_such_source(key: &SourceKey) -> Failure {
    Failure::new(ExitCode::NoSuchSource, format!("there is no source `{key}`"))
        .hint("run `bitbrat sources list` to see the configured and stored sources")
        .hint(format!(
            "to monitor it, add it to the configuration: [[source]] platform = \"{}\" id = \"{}\"",
            key.platform(),
            key.id()
        ))
}
