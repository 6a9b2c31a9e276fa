//! `store migrate`: copies documents and history from one store to another.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use crate::app::StoreAccess;
use crate::cli::context::Context;
use crate::cli::reports::migrate::{Copied, MigrateItem, MigrateReport};
use crate::config::StoreTarget;
use crate::core::document::SourceDocument;
use crate::core::source::SourceKey;
use crate::failure::{ExitCode, Failure};
use crate::store::{SourceStore, StoreError, Versioned, Write};
use crate::view::envelope::{UnusableItem, UnusableKind};

/// Documents in one write.
const MAX_DOCUMENTS_PER_WRITE: usize = 100;
/// Attempts at a document that others write concurrently.
const ROUNDS: usize = 5;
/// Maximum of history entries copied per source; no store keeps more.
const HISTORY: usize = 100_000;

/// What to do with stores.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat store migrate sqlite firestore:my-project
  bitbrat store migrate sqlite postgres://bitbrat@db.example/bitbrat")]
pub enum StoreCommand {
    Migrate(MigrateArgs),
}

/// Copy documents and history from one store to another
///
/// Documents that the target has already are merged, never replaced, so running it again changes nothing, and an interrupted run is
/// simply run again. The source store is only read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat store migrate sqlite firestore:my-project --dry-run
  bitbrat store migrate sqlite:old.db sqlite:new.db
  bitbrat store migrate firestore:my-project sqlite:backup.db -o json
  bitbrat store migrate sqlite postgres://bitbrat@db.example/bitbrat")]
pub struct MigrateArgs {
    /// Where from: `sqlite[:PATH]`, `firestore:PROJECT[/DATABASE]` or `postgres://HOST/DATABASE`
    from: String,
    /// Where to, in the same format
    to: String,
    /// Only show what would be copied
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(cx: &Context, command: &StoreCommand) -> Result<ExitCode, Failure> {
    let StoreCommand::Migrate(args) = command;
    let (from, to) = (target(cx, &args.from)?, target(cx, &args.to)?);
    if from == to {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("{from} would be copied to itself"),
        ));
    }
    if let StoreTarget::Sqlite(path) = &from
        && !path.exists()
    {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("there is no store at {}", path.display()),
        )
        .hint("run `bitbrat config show` to see where the configured store is"));
    }
    let source = cx.app.open_store(&from, StoreAccess::Read).await?;
    let access = if args.dry_run {
        StoreAccess::Read
    } else {
        StoreAccess::Write
    };
    let destination = cx.app.open_store(&to, access).await?;
    let mut report = MigrateReport {
        as_of: cx.app.clock.now(),
        from: source.location(),
        to: destination.location(),
        items: Vec::new(),
        unusable: Vec::new(),
        dry_run: args.dry_run,
    };
    let copying = copy(cx, source.as_ref(), destination.as_ref(), &mut report);
    cx.progress.during(copying).await?;
    let exit = if report.unusable.is_empty() && report.items.iter().all(|item| item.problem.is_none()) {
        ExitCode::Healthy
    } else {
        ExitCode::Failed
    };
    cx.output.print(&report)?;
    Ok(exit)
}

fn target(cx: &Context, url: &str) -> Result<StoreTarget, Failure> {
    match cx.app.settings.store_at(url) {
        Ok(StoreTarget::Memory) => Err(Failure::new(
            ExitCode::Usage,
            "memory is not a store to copy from or to",
        )),
        Ok(target) => Ok(target),
        Err((what, hint)) => Err(Failure::new(ExitCode::Usage, what).hint(hint)),
    }
}

async fn copy(
    cx: &Context,
    from: &dyn SourceStore,
    to: &dyn SourceStore,
    report: &mut MigrateReport,
) -> Result<(), Failure> {
    let mut known: BTreeMap<SourceKey, Versioned<SourceDocument>> = BTreeMap::new();
    for stored in to.load_all().await? {
        if let Ok(found) = stored.document {
            known.insert(found.value.key.clone(), found);
        }
    }
    let mut documents = Vec::new();
    for stored in from.load_all().await? {
        match stored.document {
            Ok(found) => documents.push(found.value),
            Err(reason) => report.unusable.push(UnusableItem {
                what: UnusableKind::Document,
                id: stored.document_id,
                reason: reason.to_string(),
            }),
        }
    }
    let all = documents.len() as u64;
    let mut done = 0;
    for batch in documents.chunks(MAX_DOCUMENTS_PER_WRITE) {
        let items = copy_batch(from, to, batch, &mut known, report.dry_run).await?;
        done += items.len() as u64;
        cx.progress.update("copying", "documents", done, all);
        report.items.extend(items);
    }
    Ok(())
}

/// Copies a batch of documents, each with its history.
async fn copy_batch(
    from: &dyn SourceStore,
    to: &dyn SourceStore,
    batch: &[SourceDocument],
    known: &mut BTreeMap<SourceKey, Versioned<SourceDocument>>,
    dry_run: bool,
) -> Result<Vec<MigrateItem>, Failure> {
    let mut items = Vec::new();
    let mut writes = Vec::new();
    for document in batch {
        let there = known.get(&document.key);
        let joined = joined(document, there);
        let copied = match there {
            None => Copied::New,
            Some(there) if there.value == joined => Copied::Unchanged,
            Some(_) => Copied::Joined,
        };
        if copied != Copied::Unchanged {
            writes.push(Write::new(joined, there.map(|there| there.version.clone())));
        }
        items.push(MigrateItem {
            key: document.key.to_string(),
            copied,
            history: 0,
            problem: None,
        });
    }
    if dry_run {
        return Ok(items);
    }
    let results = to.save(&writes).await;
    for (write, result) in writes.iter().zip(results) {
        let key = &write.document.key;
        let result = match result {
            Err(StoreError::Conflict { .. }) => again(to, key, batch).await,
            other => other.map(|_| ()),
        };
        if let Err(error) = result {
            if error.is_transient() {
                return Err(
                    Failure::from(error).hint("run the same command again: it goes on where it stopped")
                );
            }
            if let Some(item) = items.iter_mut().find(|item| item.key == key.to_string()) {
                item.problem = Some(error.to_string());
            }
        }
    }
    for (item, document) in items.iter_mut().zip(batch) {
        if item.problem.is_some() {
            continue;
        }
        let mut entries = from.history(&document.key, HISTORY).await?;
        entries.reverse();
        item.history = entries.len();
        if !entries.is_empty() {
            to.append_history(&document.key, &entries).await?;
        }
    }
    Ok(items)
}

fn joined(document: &SourceDocument, there: Option<&Versioned<SourceDocument>>) -> SourceDocument {
    match there {
        None => document.clone(),
        Some(there) => {
            let mut joined = there.value.clone();
            joined.join(document.knowledge.clone());
            joined
        }
    }
}

/// After a concurrent write of the document: reads it again, merges, writes again.
async fn again(to: &dyn SourceStore, key: &SourceKey, batch: &[SourceDocument]) -> Result<(), StoreError> {
    let Some(document) = batch.iter().find(|document| document.key == *key) else {
        return Ok(());
    };
    let mut last = Ok(());
    for _ in 0..ROUNDS {
        let there = to.load(key).await?;
        let write = Write::new(joined(document, there.as_ref()), there.map(|there| there.version));
        match to.save(&[write]).await.into_iter().next() {
            Some(Err(error @ StoreError::Conflict { .. })) => last = Err(error),
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) | None => return Ok(()),
        }
    }
    last
}
