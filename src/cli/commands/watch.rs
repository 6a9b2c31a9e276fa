//! `watch`: the daemon.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::app::daemon::{self, Plan, Role};
use crate::app::{self, App};
use crate::cli::commands::sources::status;
use crate::cli::context::{Context, Setup};
use crate::cli::reports::plan::PlanReport;
use crate::config;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Lifecycle;
use crate::store::Stored;
use crate::traffic::Recording;
use crate::view::source_row::SourceRow;
use crate::view::sources::{self, Wanted};

/// Run the daemon that monitors every source
///
/// Probes on the schedules of the configuration, listens where a platform pushes, publishes every change on the bus and stores
/// it. SIGTERM and Ctrl-C shut down cleanly, a second one at once; SIGHUP reads the configuration again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat --demo watch                     run against a simulated world; pages at http://127.0.0.1:8787/
  bitbrat watch --once                     run each schedule once and exit, for a cron job of your own
  bitbrat watch --plan                     which channels are pushed and which polled; nothing connects
  bitbrat watch --role ingest              probe and publish; store elsewhere, over nats or pubsub
  bitbrat watch --set web.listen=off       without pages
  bitbrat watch --record fault.jsonl       record the traffic with platforms; bitbrat sim --replay serves it")]
pub struct WatchArgs {
    /// Run each schedule once and exit with the code of `sources status`: 4, 3 or 8 when something is wrong
    #[arg(long)]
    once: bool,
    /// Show which Twitch channels would be listened to and which polled, and why; nothing is started
    #[arg(long, conflicts_with = "once")]
    plan: bool,
    /// The parts to run
    #[arg(long, value_enum, value_name = "ROLE", value_delimiter = ',', default_values_t = Role::ALL)]
    role: Vec<Role>,
    /// Record the traffic with platforms in a new file, without secrets, for `sim --replay`
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "plan")]
    record: Option<PathBuf>,
    /// Replace an existing file of --record
    #[arg(long, requires = "record")]
    overwrite: bool,
}

pub async fn run(setup: &Setup, cx: Context, args: &WatchArgs) -> Result<ExitCode, Failure> {
    if args.plan {
        return plan(&cx).await;
    }
    let recording = recording(setup, args)?;
    let mut app = cx.app;
    if let Some(recording) = &recording {
        app.record(recording.recorder().clone());
    }
    let app = Arc::new(app);
    let (inputs, clock) = (setup.inputs.clone(), Arc::clone(&setup.clock));
    let plan = Plan {
        roles: args.role.iter().copied().collect::<BTreeSet<_>>(),
        once: args.once,
        judge: Box::new(|app, summaries| status::usual_exit(rows_of_configured(app, summaries))),
        reload: Box::new(move || config::load(&inputs, clock.now())),
        logs: cx.logs,
        recording,
    };
    daemon::run(app, plan, Lifecycle::listening()?).await
}

/// Creates the file of a recording.
fn recording(setup: &Setup, args: &WatchArgs) -> Result<Option<Recording>, Failure> {
    let Some(path) = &args.record else { return Ok(None) };
    if !args.role.contains(&Role::Ingest) {
        let what = "only the role `ingest` has traffic with platforms that --record could record";
        return Err(Failure::new(ExitCode::Usage, what).hint("add `ingest` to --role, or omit --record"));
    }
    let created = Recording::create(path, args.overwrite, setup.clock.as_ref());
    created.map(Some).map_err(|error| {
        let what = format!("cannot record in {}", path.display());
        let failure = Failure::new(ExitCode::Usage, what).because(&error);
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                failure.hint("choose another file, or add --overwrite to replace this one")
            }
            _ => failure.hint("choose a file in a directory that you can write"),
        }
    })
}

/// Judges the configured sources: those that are stored, and those of which nothing is.
fn rows_of_configured(app: &App, summaries: Vec<Arc<SourceSummary>>) -> Vec<SourceRow> {
    let configured = app.sources.all();
    let origins = configured.origins();
    let wanted = Wanted {
        key: |key: &SourceKey| origins.contains_key(key),
        id: |_: &str| false,
    };
    let stored = summaries.into_iter().map(|summary| Stored {
        document_id: summary.key.to_string(),
        document: Ok(summary),
    });
    let judged = sources::judge(
        stored.collect(),
        origins.clone(),
        &wanted,
        &app.intervals(),
        app.clock.now(),
    );
    judged.rows
}

async fn plan(cx: &Context) -> Result<ExitCode, Failure> {
    let (channels, plan) = app::eventsub_plan(&cx.app).await?;
    cx.output.print(&PlanReport {
        as_of: cx.app.clock.now(),
        channels,
        plan,
    })?;
    Ok(ExitCode::Healthy)
}
