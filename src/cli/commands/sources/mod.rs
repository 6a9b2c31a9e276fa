//! `sources …`: the commands that show and change sources.

use clap::Subcommand;

use crate::cli::context::{Context, Setup};
use crate::failure::{ExitCode, Failure};

pub mod can;
pub mod describe;
pub mod edit;
pub mod history;
pub mod is_live;
pub mod known;
pub mod list;
pub mod past;
pub mod prune;
pub mod status;
pub mod wait;

/// What to ask of the sources.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat sources status
  bitbrat sources describe twitch:123456
  bitbrat sources is-live twitch:123456 && start-recording")]
pub enum SourcesCommand {
    Status(status::StatusArgs),
    List(list::ListArgs),
    Add(edit::AddArgs),
    Remove(edit::RemoveArgs),
    Describe(describe::DescribeArgs),
    History(history::HistoryArgs),
    IsLive(is_live::IsLiveArgs),
    Can(can::CanArgs),
    Wait(wait::WaitArgs),
    Prune(prune::PruneArgs),
}

pub async fn run(setup: &Setup, cx: &Context, command: &SourcesCommand) -> Result<ExitCode, Failure> {
    match command {
        SourcesCommand::Status(args) => status::run(cx, args).await,
        SourcesCommand::List(args) => list::run(cx, args).await,
        SourcesCommand::Add(args) => edit::add(setup, cx, args).await,
        SourcesCommand::Remove(args) => edit::remove(setup, cx, args).await,
        SourcesCommand::Describe(args) => describe::run(cx, args).await,
        SourcesCommand::History(args) => history::run(cx, args).await,
        SourcesCommand::IsLive(args) => is_live::run(cx, args).await,
        SourcesCommand::Can(args) => can::run(cx, args).await,
        SourcesCommand::Wait(args) => wait::run(cx, args).await,
        SourcesCommand::Prune(args) => prune::run(cx, args).await,
    }
}
