//! The user interface: arguments, commands, reports and how they are printed.

pub mod args;
pub mod commands;
pub mod complete;
pub mod context;
pub mod filters;
pub mod global;
pub mod help;
pub mod interruption;
pub mod login;
pub mod output;
pub mod progress;
pub mod reports;
pub mod run_probe;
pub mod screen;
pub mod selection;
pub mod source_arg;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser as _};
use jiff::tz::TimeZone;

use crate::app::demo::{Demo, Motion};
use crate::app::{App, clock_error};
use crate::cli::args::{Cli, Command};
use crate::cli::commands::events::EventsCommand;
use crate::cli::commands::{
    alert, auth, completion, diff, doctor, errors, events, init, mcp, preflight, probe, schema, sim, sources,
    store, support, top, watch,
};
use crate::cli::context::{Context, Setup};
use crate::cli::output::log_lines::LogLines;
use crate::cli::output::view::{self, Tone};
use crate::cli::output::{Invocation, Note, wrap, write_err, write_out};
use crate::cli::progress::{BAR_DELAY, Progress};
use crate::config::{self, Configuration};
use crate::failure::{self, ExitCode, Failure};
use crate::secrets;
use crate::telemetry::{self, Appearance};
use crate::view::cell::escaped;

/// Runs a command line and returns its exit code.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<OsString> = words.into_iter().collect();
    // The built-in `help` accepts names of commands only.
    if let Some(help) = words.windows(2).position(|pair| pair == ["help", "errors"]) {
        let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
        // Global options and their values may precede a command.
        if words[..help]
            .windows(2)
            .all(|pair| is_option(&pair[0]) || is_option(&pair[1]))
        {
            words.remove(help);
        }
    }
    if complete::answer(&words, Cli::command) {
        return ExitCode::Healthy;
    }
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => Cli {
            command: cli.command.spelled_out(),
            ..cli
        },
        Err(error) => {
            let wrong = error.use_stderr();
            if wrong {
                // With a login, a token may have been typed in the place of another argument.
                let about_accounts = words.iter().any(|label| label == "auth");
                let text = if wants_json(&words) {
                    view::inert_json(failure::as_json(&usage(&error, about_accounts)))
                } else {
                    mistake(&error, about_accounts, is_colored())
                };
                let _ = write_err(&text);
            } else {
                // A closed standard output is no failure for help.
                let _ = error.print();
            }
            return if wrong { ExitCode::Usage } else { ExitCode::Healthy };
        }
    };
    let after_name = words.iter().skip(1);
    let typed = after_name.map(|label| label.to_string_lossy().into_owned());
    // One per process: reports keep a reference for as long as it runs.
    let invocation: &Invocation = Box::leak(Box::new(Invocation::new(&cli.global, typed)));
    let style = output::Style::of_stderr(cli.global.color, &|name| std::env::var(name).ok());
    match start(&cli, invocation) {
        Ok(exit) => exit,
        Err(failure) => {
            let failure = advised(failure, invocation);
            let is_json = cli.global.output.is_some_and(output::Format::is_structured);
            let text = if is_json {
                view::inert_json(failure::as_json(&failure))
            } else {
                render_failure(&failure, style)
            };
            let _ = write_err(&text);
            failure.exit
        }
    }
}

/// Whether a command line that cannot be parsed requests a format for programs.
fn wants_json(words: &[OsString]) -> bool {
    let words: Vec<_> = words.iter().map(|label| label.to_string_lossy()).collect();
    let is_json = |value: &str| matches!(value, "json" | "ndjson" | "yaml");
    let beside = words
        .windows(2)
        .any(|pair| matches!(&*pair[0], "-o" | "--output") && is_json(&pair[1]));
    let within = words.iter().any(|label| {
        let value = label
            .strip_prefix("--output=")
            .or_else(|| label.strip_prefix("-o"));
        value.is_some_and(|value| is_json(value.trim_start_matches('=')))
    });
    beside || within
}

fn is_colored() -> bool {
    use std::io::IsTerminal as _;
    std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()
}

/// Returns the failure of a command line that cannot be parsed.
fn usage(error: &clap::Error, about_accounts: bool) -> Failure {
    let text = mistake(error, about_accounts, false);
    let mut paragraphs = text.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
    let what = paragraphs.next().unwrap_or("the command line is wrong");
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let hints = paragraphs.map(words);
    hints.fold(Failure::new(ExitCode::Usage, words(what)), Failure::hint)
}

/// Returns a failure whose hints repeat the options that were given and do not advise the command that was just run.
fn advised(mut failure: Failure, invocation: &Invocation) -> Failure {
    failure.hints = failure
        .hints
        .iter()
        .filter_map(|hint| invocation.hint(hint))
        .collect();
    failure
}

fn start(cli: &Cli, invocation: &'static Invocation) -> Result<ExitCode, Failure> {
    let setup = Setup::new(&cli.global, invocation)?;
    match &cli.command {
        Command::Schema(args) => return schema::run(&setup, args),
        Command::Completion(args) => return completion::completion(args),
        Command::Man(args) => return completion::man(args, Cli::command()),
        Command::Errors(args) => return errors::run(args, setup.output.out),
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
    let output = setup.output;
    let result = runtime.block_on(async {
        crate::os::fail_writes_beyond_size_limits();
        // The daemon handles signals itself: the first one drains.
        if matches!(cli.command, Command::Watch(_)) {
            return Box::pin(dispatch(setup, &cli.command)).await;
        }
        tokio::select! {
            // First, so that signals are handled before anything begins.
            biased;
            stopped = crate::os::stop_requested() => {
                let signal = stopped.map_err(|error| Failure::new(ExitCode::Failed, "cannot listen to signals").because(&error))?;
                // The command was dropped, which has restored the terminal.
                output.note(&interruption::left())?;
                Ok(ExitCode::of_signal(signal))
            }
            result = dispatch(setup, &cli.command) => result,
        }
    });
    // A read of standard input that never ends must not keep the process.
    runtime.shutdown_background();
    result
}

/// Commands that serve others while they work have threads for both. A one-shot command has none: starting
/// threads would take as long as reading a thousand sources.
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
    if matches!(command, Command::Top(_)) {
        top::prepare(&mut setup)?;
    }
    if setup.still && !setup.demo {
        let what = "--still is about the demo world, which this command does not use";
        return Err(Failure::new(ExitCode::Usage, what).hint("add --demo, or leave --still out"));
    }
    let demo = match setup.demo {
        true => Some(Demo::start(Arc::clone(&setup.clock), motion(&setup, command)).await?),
        false => None,
    };
    setup.inputs.demo = demo.as_ref().map(Demo::configuration);
    if let Command::Config(command) = command {
        return commands::config::run(&setup, command);
    }
    if let Command::Init(args) = command {
        return Box::pin(init::run(&mut setup, demo, args)).await;
    }
    let configuration = setup.configuration();
    if let Command::Doctor(_) | Command::Support(_) = command {
        let valid = configuration.problems.is_empty();
        let cx = if valid {
            Some(prepare(&setup, configuration.clone(), demo).await?)
        } else {
            None
        };
        return match command {
            Command::Doctor(args) => Box::pin(doctor::run(&setup, &configuration, cx.as_ref(), args)).await,
            Command::Support(command) => {
                Box::pin(support::run(&setup, &configuration, cx.as_ref(), command)).await
            }
            _ => unreachable!("it is one of the two"),
        };
    }
    let cx = prepare(&setup, configuration, demo).await?;
    match command {
        Command::Sources(command) => sources::run(&setup, &cx, command).await,
        Command::Probe(args) => probe::run(&cx, args).await,
        Command::Diff(args) => diff::run(&cx, args).await,
        Command::Top(args) => Box::pin(top::run(&cx, args)).await,
        Command::Watch(args) => Box::pin(watch::run(&setup, cx, args)).await,
        Command::Auth(command) => auth::run(&cx, command).await,
        Command::Preflight(args) => Box::pin(preflight::run(&cx, args)).await,
        Command::Alert(command) => alert::run(&cx, command).await,
        Command::Store(command) => store::run(&cx, command).await,
        Command::Events(command) => Box::pin(events::run(&setup, cx, command)).await,
        Command::Mcp(_) => Box::pin(mcp::run(&setup, cx)).await,
        _ => unreachable!("these were run above, or are spelled out"),
    }
}

/// Returns when the demo world begins to change.
fn motion(setup: &Setup, command: &Command) -> Motion {
    match (setup.still, listens(command)) {
        (true, _) => Motion::None,
        (false, true) => Motion::WithListeners,
        (false, false) => Motion::AtOnce,
    }
}

/// Whether a daemon runs in this process, if only for the demo.
fn listens(command: &Command) -> bool {
    matches!(
        command,
        Command::Watch(_) | Command::Mcp(_) | Command::Events(events::EventsCommand::Tail(_))
    )
}

/// Assembles what commands with a valid configuration run with.
async fn prepare(
    setup: &Setup,
    configuration: Configuration,
    demo: Option<Demo>,
) -> Result<Context, Failure> {
    let warnings: Vec<Note> = configuration
        .warnings
        .iter()
        .map(|warning| {
            let hint = warning.hint.as_deref();
            let warning = config::Problem {
                hint: hint.and_then(|hint| setup.output.invocation.hint(hint)),
                ..warning.clone()
            };
            Note::hint(Tone::Warn, warning.with_hint(), None)
        })
        .collect();
    setup.output.note(&warnings)?;
    let exposed = configuration.exposed.clone();
    let settings = configuration.checked()?;
    // A one-shot command prints its result; only `watch` logs its progress while it runs.
    let quieter = i8::from(!setup.lives);
    let (style, verbose) = (setup.output.err, setup.verbosity > 0);
    let lines = LogLines::new(
        style,
        verbose,
        TimeZone::system(),
        telemetry::columns,
        setup.output.invocation,
    );
    let appearance = Appearance {
        color: style.color,
        human: Box::new(lines),
    };
    let verbosity = setup.verbosity - quieter;
    // A log line would be in the middle of a screen that is drawn.
    let logs = if setup.draws && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        telemetry::Bars::default()
    } else {
        telemetry::start(&settings.log, verbosity, Arc::clone(&setup.clock), appearance)
    };
    // A demo shows the progress of a probe however short it is.
    let patience = if demo.is_some() { Duration::ZERO } else { BAR_DELAY };
    let visible = setup.progress && std::io::IsTerminal::is_terminal(&std::io::stderr());
    if demo.is_none() {
        clock_error::recall(&settings.state_dir, setup.clock.as_ref());
    }
    let cx = Context {
        app: App::new(settings, Arc::clone(&setup.clock), demo)?,
        output: setup.output,
        progress: Progress::new(visible, patience, setup.output.err.unicode, logs.clone()),
        logs,
        exposed,
    };
    cx.app.play_backstory().await?;
    Ok(cx)
}

/// Returns the problem of a command line. It must not repeat what was typed, which may be a token in the wrong place or an
/// address with a password: the log of a failed start has other readers.
fn mistake(error: &clap::Error, about_accounts: bool, colored: bool) -> String {
    let text = error.render();
    let text = if colored {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    let mut shown = secrets::mask_foreign(&text).into_owned();
    let words = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(label)) => std::slice::from_ref(label),
        Some(ContextValue::Strings(words)) => words.as_slice(),
        _ => &[],
    };
    let arg = words(ContextKind::InvalidArg).join(" ");
    let is_of_token = config::is_near_secret(&arg) || about_accounts;
    let is_of_set = arg.starts_with("--set");
    for (kind, value) in error.context() {
        let values = match value {
            ContextValue::String(value) => std::slice::from_ref(value),
            ContextValue::Strings(values) => values.as_slice(),
            _ => &[],
        };
        let is_typed = matches!(
            kind,
            ContextKind::InvalidValue | ContextKind::InvalidArg | ContextKind::InvalidSubcommand
        );
        for value in values {
            let is_word = value.len() <= 12 && value.bytes().all(|byte| byte.is_ascii_alphabetic());
            let is_near = is_typed && !value.starts_with(['-', '<', '[']);
            let is_text_of_file = value.contains("-----BEGIN") || value.contains(['\n', '\r']);
            let is_secret = is_text_of_file
                || secrets::is_suspicious(value)
                || value.split([':', '/', '=']).any(secrets::is_credential)
                || (is_near && is_of_token && !is_word)
                || (is_near && is_of_set && !is_like_a_key(value));
            if is_secret && !value.is_empty() {
                shown = shown.replace(value.as_str(), secrets::MASK);
            }
        }
    }
    shown
}

/// Whether an argument is the path of a key, or was probably meant to be.
fn is_like_a_key(label: &str) -> bool {
    let keys = config::keys();
    let is_near = config::closest(label, keys.map(|key| key.path)).is_some();
    is_near && config::shown_path(label) == label
}

fn render_failure(failure: &Failure, style: output::Style) -> String {
    let mut page = String::new();
    section(&mut page, "error:", Tone::Bad, &failure.what, style);
    for cause in &failure.causes {
        section(&mut page, "  caused by:", Tone::Dim, cause, style);
    }
    for hint in &failure.hints {
        section(&mut page, "  hint:", Tone::Good, hint, style);
    }
    page
}

/// Appends text after its label. On a terminal it is wrapped and indented; its own line breaks stay.
fn section(page: &mut String, label: &str, tone: Tone, text: &str, style: output::Style) {
    const INDENT: usize = 4;
    let lead = wrap::width(label) + 1;
    let mut first = true;
    for paragraph in text.lines() {
        // What was typed, or received, may be in it.
        let shown = escaped(paragraph);
        let paragraph = shown.as_str();
        let lines = match style.width {
            Some(width) => {
                let width = usize::from(width).max(40);
                // Text that is aligned in columns keeps its spaces.
                if paragraph.contains("  ") {
                    vec![paragraph.to_owned()]
                } else {
                    let room = width - if first { lead } else { INDENT };
                    wrap::words(paragraph, room)
                }
            }
            None => vec![paragraph.to_owned()],
        };
        for line in lines {
            if first {
                page.push_str(&style.paint(tone, label));
                page.push(' ');
                first = false;
            } else {
                page.extend(std::iter::repeat_n(' ', INDENT));
            }
            page.push_str(&line);
            page.push('\n');
        }
    }
    if first {
        page.push_str(&style.paint(tone, label));
        page.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn usage_error_is_json_where_that_was_asked_for() {
        for (line, expected) in [
            ("bitbrat -o json nonsense", true),
            ("bitbrat nonsense --output=yaml", true),
            ("bitbrat nonsense -ojson", true),
            ("bitbrat nonsense -o csv", false),
            ("bitbrat nonsense", false),
        ] {
            assert_eq!(wants_json(&words(line)), expected, "{line}");
        }
        let error = Cli::try_parse_from(words("bitbrat sources states -o json")).unwrap_err();
        let failure = usage(&error, false);
        assert!(failure.what.starts_with("unrecognized subcommand"), "{failure:?}");
        let json: serde_json::Value = serde_json::from_str(&failure::as_json(&failure)).unwrap();
        assert_eq!((&json["code"], &json["exitCode"]), (&"usage".into(), &2.into()));
    }

    #[test]
    fn failure_wraps_at_words_on_narrow_terminal() {
        let style = output::Style {
            width: Some(60),
            color: false,
            unicode: true,
        };
        let failure = Failure::new(
            ExitCode::Failed,
            "the store of documents cannot be opened at this moment",
        )
        .hint("run `bitbrat doctor store` to see what is wrong with it, then try again");
        let page = render_failure(&failure, style);
        assert!(page.lines().all(|line| line.chars().count() <= 60), "{page}");
        assert_eq!(
            page,
            "error: the store of documents cannot be opened at this\n    moment\n  hint: run `bitbrat doctor store` to \
             see what is wrong with\n    it, then try again\n"
        );
    }

    #[test]
    fn failure_shows_typed_text_that_commands_a_terminal_escaped() {
        let failure = Failure::new(
            ExitCode::NoSuchSource,
            "there is no source `a\u{202e}b\u{1b}[31m`",
        );
        assert_eq!(
            render_failure(&failure, output::Style::PLAIN),
            "error: there is no source `a\\u{202e}b\\u{1b}[31m`\n"
        );
    }
}
