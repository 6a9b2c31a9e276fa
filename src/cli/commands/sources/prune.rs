//! `sources prune`: removes stored documents that belong to no source.

use std::io::{BufRead as _, IsTerminal as _};

use clap::Args;

use crate::app::StoreAccess;
use crate::cli::context::Context;
use crate::cli::output::{humane, write_err};
use crate::cli::reports::prune::{PruneItem, PruneReport};
use crate::failure::{ExitCode, Failure};
use crate::store::Unusable;

/// Remove stored documents that no source stands behind
///
/// These are documents of another program's defect (a stream's id taken for a source's) and such whose id is not that of a
/// source. With --unconfigured also sources that the configuration no longer names. Documents that are merely unreadable
/// are never removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources prune --dry-run
  bitbrat sources prune
  bitbrat sources prune --unconfigured --yes")]
pub struct PruneArgs {
    /// Also remove sources that are not configured
    #[arg(long)]
    unconfigured: bool,
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
            Ok(_) | Err(Unusable::Broken(_)) => continue,
        };
        items.push(PruneItem {
            document_id: stored.document_id,
            reason,
            removed: false,
        });
    }
    if !args.dry_run && !items.is_empty() {
        confirm(cx, args, &items)?;
        for item in &mut items {
            item.removed = store.delete(&item.document_id).await?;
        }
    }
    cx.output.print(&PruneReport {
        as_of: cx.app.clock.now(),
        items,
        dry_run: args.dry_run,
    })?;
    Ok(ExitCode::Healthy)
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
