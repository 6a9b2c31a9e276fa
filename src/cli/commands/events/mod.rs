//! `events`: follow, publish and describe bus events.

use std::sync::Arc;

use clap::{Args, Subcommand};

use crate::app::App;
use crate::app::daemon::{self, Plan, Role};
use crate::bus::{BusError, EventBus};
use crate::cli::context::{Context, Setup};
use crate::cli::output::write_out;
use crate::config;
use crate::core::event::wire;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Lifecycle;
use crate::telemetry::Bars;

mod publish;
mod tail;

/// What to do with events.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat events tail
  bitbrat events publish online.json
  bitbrat events schema > event.schema.json")]
pub enum EventsCommand {
    Tail(tail::TailArgs),
    Publish(publish::PublishArgs),
    Schema(SchemaArgs),
}

/// Print the JSON Schema of the events that bitbrat publishes
///
/// They are what the BitBrat platform calls an internal event (version 2), with additive fields of ours in `payload`: `evidence`,
/// `counters` and `transitions`. What `events tail` prints around them is described by `bitbrat schema events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat events schema
  bitbrat events schema > event.schema.json")]
pub struct SchemaArgs {}

/// Runs a command that needs a configuration.
pub async fn run(setup: &Setup, cx: Context, command: &EventsCommand) -> Result<ExitCode, Failure> {
    match command {
        EventsCommand::Tail(args) => Box::pin(tail::run(setup, cx, args)).await,
        EventsCommand::Publish(args) => publish::run(&cx, args).await,
        EventsCommand::Schema(_) => schema(),
    }
}

pub fn schema() -> Result<ExitCode, Failure> {
    let text = serde_json::to_string_pretty(&wire::schema()).expect("a schema is plain JSON");
    write_out(&(text + "\n"))?;
    Ok(ExitCode::Healthy)
}

/// Builds the failure of an operation on the bus.
fn failed(what: &str, bus: &dyn EventBus, error: &BusError) -> Failure {
    let hint = error.hint().map_or_else(
        || "run `bitbrat doctor bus` to see what is wrong with it".to_owned(),
        str::to_owned,
    );
    Failure::new(ExitCode::Failed, format!("cannot {what} {}", bus.location()))
        .because(error)
        .hint(hint)
}

/// Runs the demo's daemon concurrently, without pages.
pub async fn demo_daemon(setup: &Setup, app: &Arc<App>, logs: &Bars) -> Result<ExitCode, Failure> {
    let (inputs, clock) = (setup.inputs.clone(), Arc::clone(&setup.clock));
    let plan = Plan {
        roles: [Role::Ingest, Role::Persist].into(),
        once: false,
        judge: Box::new(|_, _| ExitCode::Healthy),
        reload: Box::new(move || config::load(&inputs, clock.now())),
        logs: logs.clone(),
        recording: None,
    };
    daemon::run(Arc::clone(app), plan, Lifecycle::new()).await
}
