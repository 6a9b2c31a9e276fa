//! `watch`: the daemon.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::app::daemon::{self, Plan, Role};
use crate::app::{self, App};
use crate::cli::commands::sources::status;
use crate::cli::context::{Context, Setup};
use crate::cli::output::machine::envelope;
use crate::cli::reports::plan::PlanReport;
use crate::cli::reports::source::{SourceInFull, SourceReport};
use crate::cli::reports::source_row::SourceRow;
use crate::cli::reports::sources::{Choice, Show, SourcesReport};
use crate::config;
use crate::core::document::SourceDocument;
use crate::core::freshness::MaxAge;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Lifecycle;

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
  bitbrat watch --set web.listen=off       without pages")]
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
}

pub async fn run(setup: &Setup, cx: Context, args: &WatchArgs) -> Result<ExitCode, Failure> {
    if args.plan {
        return plan(&cx).await;
    }
    let app = Arc::new(cx.app);
    let (inputs, clock) = (setup.inputs.clone(), Arc::clone(&setup.clock));
    let plan = Plan {
        roles: args.role.iter().copied().collect::<BTreeSet<_>>(),
        once: args.once,
        list: Box::new(|app, (max_age, summaries)| {
            json(&envelope(&SourcesReport {
                as_of: app.clock.now(),
                rows: rows(app, max_age, summaries),
                unusable: Vec::new(),
                problems: Vec::new(),
                show: Show::Status,
                choice: Choice::default(),
            }))
        }),
        one: Box::new(|app, (max_age, document, history)| {
            let row = rows(app, max_age, vec![SourceSummary::of(&document).into()]).remove(0);
            json(&envelope(&SourceReport::of(SourceInFull {
                as_of: app.clock.now(),
                row,
                document,
                listening: None,
                history,
            })))
        }),
        judge: Box::new(|app, summaries| status::usual_exit(rows_of_configured(app, summaries))),
        reload: Box::new(move || config::load(&inputs, clock.now())),
        logs: cx.logs,
    };
    daemon::run(app, plan, Lifecycle::listening()?).await
}

/// Builds the rows by the configuration in force.
fn rows(app: &App, max_age: MaxAge, summaries: Vec<Arc<SourceSummary>>) -> Vec<SourceRow> {
    let (intervals, now) = (app.intervals().within(max_age), app.clock.now());
    let sources = app.sources.all();
    let origins = sources.origins();
    let rows = summaries.into_iter().map(|summary| {
        let configured = origins.get(&summary.key).map(|origin| (*origin).clone());
        SourceRow {
            configured,
            ..SourceRow::new(summary, &intervals, now)
        }
    });
    rows.collect()
}

/// Builds the rows of the configured sources: those that are stored, and those of which nothing is.
fn rows_of_configured(app: &App, summaries: Vec<Arc<SourceSummary>>) -> Vec<SourceRow> {
    let mut rows = rows(app, None, summaries);
    rows.retain(|row| row.configured.is_some());
    let known: BTreeSet<SourceKey> = rows.iter().map(|row| row.summary.key.clone()).collect();
    let missing = app
        .sources
        .all()
        .keys()
        .into_iter()
        .filter(|key| !known.contains(key));
    let (intervals, now) = (app.intervals(), app.clock.now());
    rows.extend(missing.map(|key| {
        let nothing = SourceSummary::of(&SourceDocument::new(key));
        SourceRow::new(nothing, &intervals, now)
    }));
    rows
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

fn json(report: &impl serde::Serialize) -> Value {
    serde_json::to_value(report).expect("reports are written as JSON by every command")
}
