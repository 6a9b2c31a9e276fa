//! What a command is given to work with.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::app::App;
use crate::cli::args::Global;
use crate::cli::output::look::Env;
use crate::cli::output::{Look, Note, Output};
use crate::cli::progress::Progress;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Configuration, Inputs};
use crate::failure::{ExitCode, Failure};

/// What is known before the configuration is looked at.
pub struct Setup {
    /// Where the configuration is taken from.
    pub inputs: Inputs,
    /// Where reports go.
    pub output: Output,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Levels above or below the configured log level.
    pub verbosity: i8,
    /// Whether progress may be shown.
    pub progress: bool,
    /// Whether the simulated platforms are used.
    pub demo: bool,
    /// Whether the command tells of its life as it goes.
    pub lives: bool,
}

/// What a command works with once the configuration is valid.
pub struct Context {
    /// Settings and adapters.
    pub app: App,
    /// Where reports go.
    pub output: Output,
    /// Shows how far a look has come.
    pub progress: Progress,
}

impl Setup {
    /// Resolves what was typed for every command.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let process = Inputs::of_process();
        let environment = process.environment.clone();
        let env = |name: &str| environment.get(name).cloned();
        let env: &Env<'_> = &env;
        let mut inputs = Inputs {
            config_file: global.config.clone(),
            env_file: global.env_file.clone(),
            ..process
        };
        for (key, value) in &global.set {
            refuse_unsettable(key)?;
            inputs = inputs.flag(key, value.clone(), "--set");
        }
        let output = Output {
            format: global.output.unwrap_or_default(),
            is_chosen: global.output.is_some(),
            out: Look::of_stdout(global.color, env),
            err: Look::of_stderr(global.color, env),
            quiet: global.quiet > 0,
            demo: global.demo,
            is_terminal: std::io::IsTerminal::is_terminal(&std::io::stdout()),
        };
        Ok(Self {
            inputs,
            output,
            clock: Arc::new(SystemClock),
            verbosity: i8::try_from(global.verbose).unwrap_or(9) - i8::try_from(global.quiet).unwrap_or(9),
            progress: !global.no_progress && global.quiet == 0,
            demo: global.demo,
            lives: false,
        })
    }

    /// Loads the configuration, whatever is wrong with it.
    pub fn configuration(&self) -> Configuration {
        config::load(&self.inputs, self.clock.now())
    }

    /// Returns the environment as commands see it.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.inputs.environment
    }
}

/// A key that cannot be given by flag is told so before anything else happens.
fn refuse_unsettable(key: &str) -> Result<(), Failure> {
    let usage = |what: String, hint: &str| Err(Failure::new(ExitCode::Usage, what).hint(hint));
    match config::AREAS
        .iter()
        .flat_map(|area| area.keys)
        .find(|known| known.path == key)
    {
        None => usage(
            format!("there is no key `{key}` to --set"),
            "run `bitbrat config show` to see every key",
        ),
        Some(known) if known.secret => usage(
            format!(
                "`{key}` is a secret, which no flag takes: others can see the flags of a running program"
            ),
            &format!("put it into the environment or .env as {}", known.variable()),
        ),
        Some(_) => Ok(()),
    }
}

impl Context {
    /// Prints notes, unless only data was asked for.
    pub fn note(&self, notes: &[Note]) -> Result<(), Failure> {
        Ok(self.output.note(notes)?)
    }
}
