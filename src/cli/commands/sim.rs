//! `sim`: the simulated platforms on fixed ports, for developers of bots, and events triggered in them.

mod trigger;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use url::Url;

use crate::cli::context::Setup;
use crate::cli::output::view::Cell;
use crate::cli::output::{Listing, Note, Report as _, write_err, write_out};
use crate::cli::reports::sim::{SimItem, SimLogin, environment};
use crate::config;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::sim::replay::{Replay, ReplayOptions, Script};
use crate::sim::twitch::demo::start_timeline;
use crate::sim::{DemoLogin, DemoPlatform, DemoWorlds, Setting, Sim, SimOptions};

/// Serve simulated platforms until interrupted
///
/// The platforms speak their documented protocols over real sockets on loopback, with a small world in them, and misbehave
/// on request: see docs/simulator.md for the controls below /__sim/.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sim
  bitbrat sim --env > sim.env &        then: bitbrat --env-file sim.env sources status --probe
  bitbrat sim --port 0 -o json         on free ports, printed as JSON
  bitbrat sim --replay fault.jsonl     answer as recorded by `bitbrat watch --record fault.jsonl`
  bitbrat sim trigger stream.online twitch:777002")]
pub struct SimArgs {
    #[command(subcommand)]
    command: Option<SimCommand>,
    /// Port of the simulated Twitch, the next two are Kick's and Discord's; 0 picks free ones
    #[arg(long, global = true, value_name = "PORT", default_value_t = 18_080, value_parser = clap::value_parser!(u16).range(..=65_533))]
    port: u16,
    /// Print a client's settings as environment variables
    #[arg(long)]
    env: bool,
    /// Start with empty worlds
    #[arg(long)]
    empty: bool,
    /// Answer as a recording of `watch --record` instead of simulating
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "empty")]
    replay: Option<PathBuf>,
    /// How many times faster than recorded a replay is
    #[arg(long, value_name = "N", requires = "replay", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    speed: u32,
    /// Where a replay posts recorded webhooks
    #[arg(long, value_name = "URL", requires = "replay", default_value = WEBHOOKS)]
    webhooks: Url,
}

/// Where `watch` receives webhooks by default.
const WEBHOOKS: &str = "http://127.0.0.1:8787/webhooks/kick";

/// What is to be done with a simulator that runs already.
#[derive(Debug, Subcommand)]
enum SimCommand {
    Trigger(trigger::TriggerArgs),
}

/// Runs the command; the simulator itself until it is interrupted.
pub async fn run(setup: &Setup, args: &SimArgs) -> Result<ExitCode, Failure> {
    if let Some(SimCommand::Trigger(trigger)) = &args.command {
        return trigger::run(setup, args.port, trigger).await;
    }
    let options = SimOptions {
        clock: Arc::clone(&setup.clock),
        ..SimOptions::on_ports(args.port)
    };
    if let Some(path) = &args.replay {
        return replay(setup, args, options, path).await;
    }
    let first = options.twitch;
    let sim = Sim::start(options)
        .await
        .map_err(|error| not_served(first, &error))?;
    let world = (!args.empty).then(|| DemoWorlds::populate(&sim));
    let moves = world.is_some() && !setup.still;
    let _timeline = moves.then(|| start_timeline(&sim.twitch));
    let items = PlatformName::ALL
        .into_iter()
        .map(|platform| item(&sim, world.as_ref(), platform));
    serve(setup, args, items.collect()).await
}

/// Prints what is served, and serves it until interrupted.
async fn serve(setup: &Setup, args: &SimArgs, items: Vec<SimItem>) -> Result<ExitCode, Failure> {
    let report = Listing::new(setup.clock.now(), items);
    if args.env {
        write_out(&environment(&report.items))?;
    } else {
        setup.output.print(&report)?;
    }
    let serving = format!("{} until interrupted (Ctrl-C)", report.names().join(", "));
    setup.output.note(&[Note::Summary(vec![Cell::new(serving)])])?;
    std::future::pending().await
}

fn not_served(first: SocketAddr, error: &io::Error) -> Failure {
    let what = format!("cannot serve on {first} and the two ports after it");
    Failure::new(ExitCode::Failed, what)
        .because(error)
        .hint("choose another port with --port, or 0 for any free ones")
}

/// Serves a recording until interrupted.
async fn replay(
    setup: &Setup,
    args: &SimArgs,
    options: SimOptions,
    path: &Path,
) -> Result<ExitCode, Failure> {
    let script = Script::read(path).map_err(|error| {
        let what = format!("cannot replay {}", path.display());
        let hint = error.hint();
        Failure::new(ExitCode::Usage, what).because(&error).hint(hint)
    })?;
    let first = options.twitch;
    let replaying = ReplayOptions {
        speed: args.speed,
        webhooks: args.webhooks.to_string(),
        // The replay continues where standard error is closed.
        report: Arc::new(|line| drop(write_err(&format!("{line}\n")))),
    };
    let replay = Replay::start(options, script, &replaying)
        .await
        .map_err(|error| not_served(first, &error))?;
    let items = replay.platforms.iter().map(|replayed| SimItem {
        platform: replayed.platform,
        address: replayed.address.clone(),
        controls: format!("{}/__sim/", replayed.address),
        sources: replayed.sources.clone(),
        environment: variables(replayed.settings.clone()),
        logins: replayed.logins.iter().cloned().map(shown).collect(),
    });
    serve(setup, args, items.collect()).await
}

fn item(sim: &Sim, worlds: Option<&DemoWorlds>, platform: PlatformName) -> SimItem {
    let address = sim.base(platform);
    let mut settings = sim.addresses(platform);
    let world = worlds.map(|worlds| worlds.of(platform));
    if let Some(world) = world {
        settings.extend(world.application());
        settings.extend(world.tokens());
    }
    SimItem {
        platform,
        controls: format!("{address}/__sim/"),
        address,
        sources: world
            .map(DemoPlatform::sources)
            .unwrap_or_default()
            .into_iter()
            .map(|id| format!("{platform}:{id}"))
            .collect(),
        environment: variables(settings),
        logins: world
            .map(DemoPlatform::logins)
            .unwrap_or_default()
            .into_iter()
            .map(shown)
            .collect(),
    }
}

fn shown(login: DemoLogin) -> SimLogin {
    SimLogin {
        account: login.account,
        user_id: login.user_id,
        access_token: login.access,
        refresh_token: login.refresh,
        scopes: login.scopes,
    }
}

/// Converts each key to an environment variable, the platform's own names first.
fn variables(settings: Vec<Setting>) -> BTreeMap<String, String> {
    let keys: Vec<_> = config::keys().collect();
    settings
        .into_iter()
        .filter_map(|(path, value)| {
            let key = keys.iter().find(|key| key.path == path)?;
            let name = key
                .names
                .first()
                .map_or_else(|| key.variable(), |name| (*name).to_owned());
            Some((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_keys_map_to_environment_variable_names() {
        let variables_by_name = variables(vec![
            ("twitch.client_id", "abc".into()),
            ("twitch.helix_url", "http://127.0.0.1:1/helix".into()),
        ]);
        let names: Vec<_> = variables_by_name.keys().map(String::as_str).collect();
        assert_eq!(names, ["BITBRAT_TWITCH__HELIX_URL", "TWITCH_CLIENT_ID"]);
    }
}
