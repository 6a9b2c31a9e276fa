//! Everything a person sees: arguments, commands, reports and how they are printed.

pub mod args;
pub mod commands;
pub mod context;
pub mod health;
pub mod help;
pub mod look;
pub mod output;
pub mod progress;
pub mod reports;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;

use crate::app::App;
use crate::app::demo::Demo;
use crate::cli::args::{Cli, Command};
use crate::cli::commands::events::EventsCommand;
use crate::cli::commands::{
    auth, completion, config, doctor, events, probe, schema, sim, sources, store, watch,
};
use crate::cli::context::{Context, Setup};
use crate::cli::output::view::Tone;
use crate::cli::output::{Note, write_err, write_out};
use crate::cli::progress::{PATIENCE, Progress};
use crate::config::Configuration;
use crate::failure::{ExitCode, Failure};
use crate::telemetry;

/// Runs a command line from its words to its exit code.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads any more is no failure.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::Usage
            } else {
                ExitCode::Healthy
            };
        }
    };
    let color = output::Look::of_stderr(cli.global.color, &|name| std::env::var(name).ok());
    match start(&cli) {
        Ok(exit) => exit,
        Err(failure) => {
            let _ = write_err(&tell(&failure, color));
            failure.exit
        }
    }
}

fn start(cli: &Cli) -> Result<ExitCode, Failure> {
    let setup = Setup::new(&cli.global)?;
    match &cli.command {
        Command::Schema(args) => return schema::run(&setup, args),
        Command::Completion(args) => return completion::completion(args),
        Command::Man(args) => return completion::man(args),
        Command::Events(EventsCommand::Schema(_)) => return events::schema(),
        Command::ExitCodes => {
            write_out(&(help::exit_codes() + "\n"))?;
            return Ok(ExitCode::Healthy);
        }
        _ => {}
    }
    let runtime = runtime_for(cli)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitCode::Failed, "cannot start").because(&error))?;
    let result = runtime.block_on(async {
        // The daemon hears signals by itself: the first one drains.
        if matches!(cli.command, Command::Watch(_)) {
            return Box::pin(dispatch(setup, &cli.command)).await;
        }
        tokio::select! {
            // First, so that signals are heard before anything begins.
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::new(ExitCode::Failed, "cannot listen to signals").because(&error))?;
                Ok(ExitCode::Interrupted)
            }
            result = dispatch(setup, &cli.command) => result,
        }
    });
    // A read of standard input that never ends must not keep the process.
    runtime.shutdown_background();
    result
}

/// What serves others while it works has threads for both. A command that asks and prints does without: starting threads
/// would take as long as reading a thousand sources.
fn runtime_for(cli: &Cli) -> tokio::runtime::Builder {
    let serves = cli.global.demo || matches!(cli.command, Command::Watch(_) | Command::Sim(_));
    if !serves {
        return tokio::runtime::Builder::new_current_thread();
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2);
    builder
}

async fn dispatch(mut setup: Setup, command: &Command) -> Result<ExitCode, Failure> {
    setup.lives = matches!(command, Command::Watch(_));
    if let Command::Sim(args) = command {
        return sim::run(&setup, args).await;
    }
    let demo = match setup.demo {
        true => Some(Demo::start(Arc::clone(&setup.clock), listens(command)).await?),
        false => None,
    };
    setup.inputs.demo = demo.as_ref().map(Demo::configuration);
    if let Command::Config(command) = command {
        return config::run(&setup, command);
    }
    let configuration = setup.configuration();
    if let Command::Doctor(args) = command {
        let valid = configuration.problems.is_empty();
        let cx = if valid {
            Some(prepare(&setup, configuration.clone(), demo).await?)
        } else {
            None
        };
        return Box::pin(doctor::run(&setup, &configuration, cx.as_ref(), args)).await;
    }
    let cx = prepare(&setup, configuration, demo).await?;
    match command {
        Command::Sources(command) => sources::run(&cx, command).await,
        Command::Probe(args) => probe::run(&cx, args).await,
        Command::Watch(args) => Box::pin(watch::run(&setup, cx, args)).await,
        Command::Auth(command) => auth::run(&cx, command).await,
        Command::Store(command) => store::run(&cx, command).await,
        Command::Events(command) => Box::pin(events::run(&setup, cx, command)).await,
        Command::Doctor(_)
        | Command::Sim(_)
        | Command::Config(_)
        | Command::Schema(_)
        | Command::Completion(_)
        | Command::Man(_)
        | Command::ExitCodes => unreachable!("these were run above"),
    }
}

/// Whether a daemon runs in this process, if only for the demo.
fn listens(command: &Command) -> bool {
    matches!(
        command,
        Command::Watch(_) | Command::Events(events::EventsCommand::Tail(_))
    )
}

/// Puts together what commands with a valid configuration work with.
async fn prepare(
    setup: &Setup,
    configuration: Configuration,
    demo: Option<Demo>,
) -> Result<Context, Failure> {
    let warnings: Vec<Note> = configuration
        .warnings
        .iter()
        .map(|warning| Note::hint(Tone::Warn, warning.to_string(), None))
        .collect();
    setup.output.note(&warnings)?;
    let settings = configuration.checked()?;
    // A command that ends tells its result; only `watch` tells of its life as it goes.
    let quieter = i8::from(!setup.lives);
    let logs = telemetry::start(&settings.log, setup.verbosity - quieter, Arc::clone(&setup.clock));
    // Whoever tries the demo wants to see what a look is like, however short it is.
    let patience = if demo.is_some() { Duration::ZERO } else { PATIENCE };
    let visible = setup.progress && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let cx = Context {
        app: App::new(settings, Arc::clone(&setup.clock), demo)?,
        output: setup.output,
        progress: Progress::new(visible, patience, setup.output.err.unicode, logs),
    };
    cx.app.tell_backstory().await?;
    Ok(cx)
}

/// Returns a failure as people see it.
fn tell(failure: &Failure, look: output::Look) -> String {
    let text = failure.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let what = first.strip_prefix("error: ").unwrap_or(first);
    let mut told = format!("{} {what}\n", look.paint(Tone::Bad, "error:"));
    for line in lines {
        let word = ["  caused by:", "  hint:"]
            .into_iter()
            .find(|word| line.starts_with(word));
        match word {
            Some(word) => {
                let tone = if word.contains("hint") {
                    Tone::Good
                } else {
                    Tone::Dim
                };
                told.push_str(&look.paint(tone, word));
                told.push_str(&line[word.len()..]);
            }
            None => told.push_str(line),
        }
        told.push('\n');
    }
    told
}
