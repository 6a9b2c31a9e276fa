//! `watch`: the daemon.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::app::daemon::{self, Plan, Role};
use crate::cli::context::{Context, Setup};
use crate::cli::output::machine::envelope;
use crate::cli::reports::plan::PlanReport;
use crate::cli::reports::source::SourceReport;
use crate::cli::reports::sources::{Show, SourceRow, SourcesReport};
use crate::config;
use crate::failure::{ExitCode, Failure};

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
    let (for_list, for_one) = (Arc::clone(&app), Arc::clone(&app));
    let (inputs, clock) = (setup.inputs.clone(), Arc::clone(&setup.clock));
    let plan = Plan {
        roles: args.role.iter().copied().collect::<BTreeSet<_>>(),
        once: args.once,
        list: Arc::new(move |documents| {
            let (intervals, now) = (for_list.intervals(), for_list.clock.now());
            let rows = documents
                .into_iter()
                .map(|document| SourceRow::new(document, &intervals, now));
            json(&envelope(&SourcesReport {
                as_of: now,
                rows: rows.collect(),
                unusable: Vec::new(),
                problems: Vec::new(),
                show: Show::Status,
            }))
        }),
        one: Arc::new(move |(document, history)| {
            let (intervals, now) = (for_one.intervals(), for_one.clock.now());
            json(&envelope(&SourceReport {
                as_of: now,
                row: SourceRow::new(document, &intervals, now),
                listening: None,
                history,
            }))
        }),
        reload: Box::new(move || config::load(&inputs, clock.now())),
    };
    daemon::run(app, plan).await
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
