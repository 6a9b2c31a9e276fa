//! `sources prune`: removes stored documents that belong to no source.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::app::StoreAccess;
use crate::cli::context::Context;
use crate::cli::output::{humane, write_err};
use crate::cli::reports::prune::{PruneItem, PruneReport};
use crate::core::document::BrokenDocument;
use crate::failure::{ExitCode, Failure};
use crate::files::{self, Durability, FileAccess};
use crate::store::{self, SourceStore, StoreError, Unusable};

/// Remove stored documents that no source stands behind
///
/// These are documents of another program's defect (a stream's id taken for a source's) and such whose id is not that of a
/// source. With --unconfigured also sources that the configuration no longer names. With --damaged also documents of sources that
/// cannot be read: each is first copied to a file in the state directory, its history stays, and `watch` or the next `probe` writes
/// a new one. Documents of a newer bitbrat are never removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources prune --dry-run
  bitbrat sources prune
  bitbrat sources prune --unconfigured --yes
  bitbrat sources prune --damaged")]
pub struct PruneArgs {
    /// Also remove sources that are not configured
    #[arg(long)]
    unconfigured: bool,
    /// Also remove documents that cannot be read, after a copy
    #[arg(long)]
    damaged: bool,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub async fn run(cx: &Context, args: &PruneArgs) -> Result<ExitCode, Failure> {
    let access = if args.dry_run {
        StoreAccess::Read
    } else {
        StoreAccess::Write
    };
    let store = cx.app.store(access).await?;
    let sources = cx.app.sources.all();
    if args.unconfigured && !sources.unresolved.is_empty() {
        let what = "some configured names have no id yet, so it is not known which sources are configured";
        return Err(
            Failure::new(ExitCode::NoEvidence, what).hint("run `bitbrat sources status --probe` first")
        );
    }
    let configured = sources.keys();
    let mut items = Vec::new();
    for stored in store.load_all().await? {
        let reason = match &stored.document {
            Err(reason @ (Unusable::NotASource | Unusable::Orphan { .. })) => reason.to_string(),
            Ok(found) if args.unconfigured && !configured.contains(&found.value.key) => {
                "it is not configured".into()
            }
            // What a newer bitbrat wrote is not damaged.
            Err(Unusable::Broken(BrokenDocument::Newer(_))) => continue,
            Err(Unusable::Broken(reason)) if args.damaged => reason.to_string(),
            Ok(_) | Err(Unusable::Broken(_)) => continue,
        };
        let is_damaged = matches!(stored.document, Err(Unusable::Broken(_)));
        items.push(PruneItem {
            reason,
            removed: false,
            copied_to: is_damaged.then(|| copy_path(cx, &stored.document_id)),
            document_id: stored.document_id,
        });
    }
    if !args.dry_run && !items.is_empty() {
        confirm(cx, args, &items)?;
        for item in &mut items {
            item.removed = match &item.copied_to {
                None => store.delete(&item.document_id).await?,
                Some(path) => set_aside(store.as_ref(), &item.document_id, path).await?,
            };
        }
    }
    cx.output.print(&PruneReport {
        as_of: cx.app.clock.now(),
        items,
        dry_run: args.dry_run,
    })?;
    Ok(ExitCode::Healthy)
}

/// Returns the path of the copy of a damaged document.
fn copy_path(cx: &Context, document_id: &str) -> PathBuf {
    let at = cx.app.clock.now().as_millis();
    let name = format!("{}-{at}.json", document_id.replace(':', "-"));
    cx.app.settings.state_dir.join("damaged").join(name)
}

/// Copies a damaged document to a file, then removes it. Returns whether it was removed: not if it was changed meanwhile.
async fn set_aside(store: &dyn SourceStore, document_id: &str, path: &Path) -> Result<bool, Failure> {
    let Some(found) = store.raw(document_id).await? else {
        return Ok(false);
    };
    if store::parse(document_id, &found.value).is_ok() {
        return Ok(false);
    }
    let copy = || {
        files::make_private_dir(path.parent().unwrap_or(path))?;
        files::write(path, FileAccess::Owner, Durability::Durable, |file| {
            file.write_all(found.value.as_bytes())
        })
    };
    copy().map_err(|error| {
        let what = format!(
            "cannot copy {document_id} to {}, so it was not removed",
            path.display()
        );
        Failure::new(ExitCode::Failed, what).because(&error)
    })?;
    match store.remove(document_id, &found.version).await {
        Ok(()) => Ok(true),
        Err(StoreError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn confirm(cx: &Context, args: &PruneArgs, items: &[PruneItem]) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            ExitCode::Usage,
            "removing documents must be confirmed, and standard input is not a terminal",
        )
        .hint("give --yes, or list them first with --dry-run"));
    }
    let mut question = String::new();
    for item in items {
        question.push_str(&format!("  {}  {}\n", item.document_id, item.reason));
    }
    let count = humane::count(items.len() as u64, "document");
    question.push_str(&format!(
        "Remove {count} from {}? [y/N] ",
        cx.app.settings.store.target
    ));
    write_err(&question)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(ExitCode::Failed, "nothing was removed"))
    }
}
