//! `fleet`: the daemons that share the sources.

use clap::{Args, Subcommand};

use crate::app;
use crate::cli::context::Context;
use crate::cli::reports::fleet::{FleetReport, MemberRow};
use crate::core::fleet::View;
use crate::failure::{ExitCode, Failure};
use crate::watch::fleet::seen;

/// What to do with the fleet.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat fleet status
  bitbrat fleet status -o json")]
pub enum FleetCommand {
    Status(StatusArgs),
}

/// Show the members of the fleet and what each carries
///
/// Reads the leases and the view of the fleet that fleet.name and fleet.url configure. A member is listed while its lease lasts: one
/// that was killed disappears after fleet.ttl. Exit code 3 if no member is alive.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat fleet status
  bitbrat fleet status -o json | jq '.items[] | {member, shards, sources}'")]
pub struct StatusArgs {}

pub async fn run(cx: &Context, command: &FleetCommand) -> Result<ExitCode, Failure> {
    let FleetCommand::Status(StatusArgs {}) = command;
    let Some(settings) = &cx.app.settings.fleet else {
        return Err(
            Failure::new(ExitCode::Configuration, "no fleet is configured").hint(
                "set fleet.name in bitbrat.toml, the same on all members; docs/scale.md describes fleets",
            ),
        );
    };
    let engine = app::fleet::leases(&cx.app, settings).await?;
    let leases = engine.list().await?;
    let view = engine.view().await?;
    let view: Option<View> = view.and_then(|shared| serde_json::from_str(&shared.text).ok());
    let rows: Vec<MemberRow> = leases
        .iter()
        .map(|record| MemberRow::of(seen(record), view.as_ref()))
        .collect();
    let is_empty = rows.is_empty();
    cx.output.print(&FleetReport {
        as_of: cx.app.clock.now(),
        fleet: settings.name.to_string(),
        engine: engine.location(),
        epoch: view.map(|view| view.epoch),
        members: rows,
    })?;
    Ok(if is_empty {
        ExitCode::Down
    } else {
        ExitCode::Healthy
    })
}
