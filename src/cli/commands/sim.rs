//! `sim`: the simulated platforms on fixed ports, for people who develop bots.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;

use crate::cli::context::Setup;
use crate::cli::output::view::{Cell, Tone};
use crate::cli::output::{Note, Report as _, write_out};
use crate::cli::reports::sim::{SimItem, SimReport};
use crate::failure::{ExitCode, Failure};
use crate::sim::twitch::demo::{DemoWorld, populate, start_timeline};
use crate::sim::{Sim, SimOptions};

/// Serve simulated platforms until interrupted
///
/// The platforms speak their documented protocols over real sockets on loopback, with a small world in them, and misbehave
/// on request: see docs/simulator.md for the controls below /__sim/.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sim
  bitbrat sim --env > sim.env &          then: bitbrat --env-file sim.env sources status --probe
  bitbrat sim --twitch-port 0 -o json    on a free port, told as JSON")]
pub struct SimArgs {
    /// Port of the simulated Twitch; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 18_080)]
    twitch_port: u16,
    /// Print the configuration of a client as environment variables
    #[arg(long)]
    env: bool,
    /// Start with an empty world
    #[arg(long)]
    empty: bool,
}

/// Runs the command until it is interrupted.
pub async fn run(setup: &Setup, args: &SimArgs) -> Result<ExitCode, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.twitch_port));
    let options = SimOptions {
        clock: Arc::clone(&setup.clock),
        twitch: address,
        ..SimOptions::default()
    };
    let sim = Sim::start(options).await.map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot serve on {address}"))
            .because(&error)
            .hint("choose another port with --twitch-port, or 0 for any free one")
    })?;
    let world = (!args.empty).then(|| populate(&sim.twitch));
    let _timeline = world.as_ref().map(|_| start_timeline(&sim.twitch));
    let report = SimReport {
        as_of: setup.clock.now(),
        items: vec![twitch(&sim, world.as_ref())],
    };
    if args.env {
        write_out(&report.environment())?;
    } else {
        setup.output.print(&report)?;
    }
    let until = Note::hint(Tone::Plain, "serving until interrupted (Ctrl-C)", None);
    setup.output.note(&[
        Note::Summary(vec![Cell::new(format!("{} ready", report.names().join(", ")))]),
        until,
    ])?;
    std::future::pending::<()>().await;
    Ok(ExitCode::Healthy)
}

fn twitch(sim: &Sim, world: Option<&DemoWorld>) -> SimItem {
    let urls = sim.twitch.urls();
    let mut variables = vec![
        ("BITBRAT_TWITCH__AUTH_URL", urls.auth),
        ("BITBRAT_TWITCH__HELIX_URL", urls.helix),
        ("BITBRAT_TWITCH__EVENTSUB_REST_URL", urls.eventsub_rest),
        ("BITBRAT_TWITCH__EVENTSUB_WS_URL", urls.eventsub_ws),
    ];
    if let Some(world) = world {
        let sources: Vec<_> = world.sources.iter().map(|id| format!("twitch:{id}")).collect();
        variables.extend([
            ("TWITCH_CLIENT_ID", world.client_id.clone()),
            ("TWITCH_CLIENT_SECRET", world.client_secret.clone()),
            ("TWITCH_BOT_USER_ID", world.bot.user_id.clone()),
            ("TWITCH_BOT_ACCESS_TOKEN", world.bot.access.clone()),
            ("TWITCH_BOT_REFRESH_TOKEN", world.bot.refresh.clone()),
            ("BITBRAT_SOURCES", sources.join(" ")),
        ]);
    }
    SimItem {
        platform: crate::core::source::PlatformName::Twitch,
        address: sim.twitch.http(),
        controls: format!("{}/__sim/", sim.twitch.http()),
        environment: variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}
