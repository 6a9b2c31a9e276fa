//! `watch`: the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::app::daemon::{self, Plan, Role};
use crate::cli::context::{Context, Setup};
use crate::cli::output::machine::envelope;
use crate::cli::reports::plan::PlanReport;
use crate::cli::reports::source::SourceReport;
use crate::cli::reports::sources::{Show, SourceRow, SourcesReport};
use crate::config;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Lifecycle;

/// Keep looking and listening, and keep every source's document up to date
///
/// Looks by the schedules of the configuration, listens where a platform pushes, announces every change on the bus and stores
/// it. SIGTERM and Ctrl-C drain and say goodbye, a second one forces; SIGHUP reads the configuration again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat --demo watch                     see a small world move; pages at http://127.0.0.1:8787/
  bitbrat watch --once                     run each schedule once and exit, for a cron job of your own
  bitbrat watch --plan                     who is pushed and who is polled, before anything connects
  bitbrat watch --role ingest              look and tell; store elsewhere, over nats or pubsub
  bitbrat watch --set web.listen=off       without pages")]
pub struct WatchArgs {
    /// Run each schedule once and exit
    #[arg(long)]
    once: bool,
    /// Show which Twitch channels would be listened to and which polled, and why; nothing is started
    #[arg(long, conflicts_with = "once")]
    plan: bool,
    /// The parts to run
    #[arg(long, value_enum, value_name = "ROLE", value_delimiter = ',', default_values_t = Role::ALL)]
    role: Vec<Role>,
}

/// Runs the command.
pub async fn run(setup: &Setup, cx: Context, args: &WatchArgs) -> Result<ExitCode, Failure> {
    if args.plan {
        return plan(&cx).await;
    }
    let app = Arc::new(cx.app);
    let (inputs, clock) = (setup.inputs.clone(), Arc::clone(&setup.clock));
    let plan = Plan {
        roles: args.role.iter().copied().collect::<BTreeSet<_>>(),
        once: args.once,
        list: Box::new(|app, summaries| {
            json(&envelope(&SourcesReport {
                as_of: app.clock.now(),
                rows: rows(app, summaries),
                unusable: Vec::new(),
                problems: Vec::new(),
                show: Show::Status,
            }))
        }),
        one: Box::new(|app, (document, history)| {
            let row = rows(app, vec![SourceSummary::of(&document).into()]).remove(0);
            json(&envelope(&SourceReport {
                as_of: app.clock.now(),
                row,
                document,
                listening: None,
                history,
            }))
        }),
        reload: Box::new(move || config::load(&inputs, clock.now())),
    };
    daemon::run(app, plan, Lifecycle::listening()?).await
}

/// Judges what is known by the configuration in force.
fn rows(app: &App, summaries: Vec<Arc<SourceSummary>>) -> Vec<SourceRow> {
    let (intervals, now) = (app.intervals(), app.clock.now());
    let origins: BTreeMap<SourceKey, String> = app
        .sources()
        .known
        .into_iter()
        .map(|source| (source.key, source.origin))
        .collect();
    let rows = summaries.into_iter().map(|summary| {
        let configured = origins.get(&summary.key).cloned();
        SourceRow {
            configured,
            ..SourceRow::new(summary, &intervals, now)
        }
    });
    rows.collect()
}

/// Shows the plan.
async fn plan(cx: &Context) -> Result<ExitCode, Failure> {
    let (channels, plan) = cx.app.eventsub_plan().await?;
    cx.output.print(&PlanReport {
        as_of: cx.app.clock.now(),
        channels,
        plan,
    })?;
    Ok(ExitCode::Healthy)
}

fn json(report: &impl serde::Serialize) -> Value {
    serde_json::to_value(report).expect("reports are written as JSON by every command")
}
