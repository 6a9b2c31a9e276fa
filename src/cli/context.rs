//! The data that a command runs with.

use std::sync::Arc;

use crate::app::App;
use crate::cli::global::Global;
use crate::cli::output::style::Env;
use crate::cli::output::view::Tone;
use crate::cli::output::{Invocation, Note, Output, Style, quoted};
use crate::cli::progress::Progress;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, ConfigInputs, Configuration, ExposedFile};
use crate::failure::{ExitCode, Failure};
use crate::telemetry::Bars;

/// Data that is available before the configuration is read.
pub struct Setup {
    /// Where the configuration comes from.
    pub inputs: ConfigInputs,
    /// Where reports go.
    pub output: Output,
    pub clock: Arc<dyn Clock>,
    /// Levels above or below the configured log level.
    pub verbosity: i8,
    pub progress: bool,
    /// Whether the simulated platforms are used.
    pub demo: bool,
    /// Whether the demo world does not change by itself.
    pub still: bool,
    /// Whether the command logs its progress while it runs.
    pub lives: bool,
    /// Whether the command draws on the whole screen.
    pub draws: bool,
}

/// Data that a command runs with once the configuration is valid.
pub struct Context {
    pub app: App,
    /// Where reports go.
    pub output: Output,
    pub progress: Progress,
    pub logs: Bars,
    /// The `.env` file, if others may read the secrets in it.
    pub exposed: Option<ExposedFile>,
}

impl Setup {
    /// Resolves the global options for every command.
    pub fn new(global: &Global, invocation: &'static Invocation) -> Result<Self, Failure> {
        let process = ConfigInputs::of_process();
        let environment = process.environment.clone();
        let env = |name: &str| environment.get(name).cloned();
        let env: &Env<'_> = &env;
        let mut inputs = ConfigInputs {
            config_file: global.config.clone(),
            env_file: global.env_file.clone(),
            ..process
        };
        for (flag, file) in [("--config", &global.config), ("--env-file", &global.env_file)] {
            let text = file.as_ref().map(|file| file.to_string_lossy());
            if let Some(Err(message)) = text.map(|text| config::check_path(&text)) {
                let failure = Failure::new(ExitCode::Usage, format!("{flag} {message}"));
                return Err(failure.hint(config::PATH_HINT));
            }
        }
        for (key, value) in &global.set {
            refuse_unsettable(key)?;
            inputs = inputs.flag(key, value.clone(), "--set");
        }
        let output = Output {
            format: global.output.unwrap_or_default(),
            is_chosen: global.output.is_some(),
            out: Style::of_stdout(global.color, env),
            err: Style::of_stderr(global.color, env),
            quiet: global.quiet > 0,
            invocation,
            is_terminal: std::io::IsTerminal::is_terminal(&std::io::stdout()),
        };
        Ok(Self {
            inputs,
            output,
            clock: Arc::new(SystemClock),
            verbosity: i8::try_from(global.verbose).unwrap_or(9) - i8::try_from(global.quiet).unwrap_or(9),
            progress: !global.no_progress && global.quiet == 0,
            demo: global.demo,
            still: global.still,
            lives: false,
            draws: false,
        })
    }

    /// Loads the configuration, also one with problems.
    pub fn configuration(&self) -> Configuration {
        config::load(&self.inputs, self.clock.now())
    }
}

/// Rejects a key that no flag sets before anything else happens. The value is not repeated: it may be a secret whose key is
/// misspelled.
fn refuse_unsettable(key: &str) -> Result<(), Failure> {
    let usage = |what: String, hint: String| Err(Failure::new(ExitCode::Usage, what).hint(hint));
    let in_environment =
        |key: &config::Key| format!("put it into the environment or .env as {}", key.variable());
    match config::key(key) {
        None => {
            let keys = config::keys();
            let meant = config::closest(key, keys.map(|key| key.path)).and_then(config::key);
            let hint = match meant {
                Some(meant) if meant.secret => {
                    format!(
                        "did you mean `{}`? It is a secret: {}",
                        meant.path,
                        in_environment(meant)
                    )
                }
                Some(meant) => format!("did you mean `{}`?", meant.path),
                None => "run `bitbrat config show` to see every key".to_owned(),
            };
            usage(
                format!("there is no key `{}` to --set", config::shown_path(key)),
                hint,
            )
        }
        Some(known) if known.secret => usage(
            format!(
                "`{key}` is a secret, which no flag takes: others can see the flags of a running program"
            ),
            in_environment(known),
        ),
        Some(_) => Ok(()),
    }
}

/// Returns the command that makes a file private.
pub fn chmod(file: &ExposedFile) -> String {
    format!("chmod 600 {}", quoted(&file.path.display().to_string()))
}

impl Context {
    /// Warns where others may read the secrets of the configuration.
    pub fn warn_of_exposed_secrets(&self) -> Result<(), Failure> {
        let note = |file: &ExposedFile| Note::hint(Tone::Warn, file.to_string(), Some(&chmod(file)));
        let notes: Vec<Note> = self.exposed.iter().map(note).collect();
        self.note(&notes)
    }

    /// Prints notes, unless only data was requested.
    pub fn note(&self, notes: &[Note]) -> Result<(), Failure> {
        Ok(self.output.note(notes)?)
    }
}
