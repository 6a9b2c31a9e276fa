//! Configuration: flags over environment over `.env` over `./bitbrat.toml` over the person's own file over defaults.
//!
//! Values are resolved once into plain structs. Loading opens nothing but the files it reads, so that `doctor` and
//! `config show` always work; it never stops at the first problem, but collects all of them.

mod bus;
mod discord;
mod google;
mod key;
mod kick;
mod layers;
mod log;
mod problem;
mod reader;
mod schedule;
mod show;
mod sources;
mod state;
mod store;
mod template;
#[cfg(test)]
mod tests;
mod tokens;
mod twitch;
mod watch;
mod web;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use bus::{BusSettings, BusTarget};
pub use discord::{DiscordSettings, StreamFrom};
pub use google::GoogleSettings;
pub use key::{AREAS, Area, Key};
pub use kick::KickSettings;
pub use log::{LogFormat, LogSettings};
pub use problem::{Origin, Problem, Problems};
pub use reader::{Resolved, duration as parse_duration, words as show_duration};
pub use schedule::ScheduleSettings;
pub use show::{Shown, show, shown};
pub use sources::{SourceAddress, SourceSpec, by_platform};
pub use store::{StoreSettings, StoreTarget};
pub use template::{env_example, init, toml_template};
pub use tokens::{TokenSettings, TokenTarget};
pub use twitch::TwitchSettings;
pub use watch::WatchSettings;
pub use web::WebSettings;

use crate::core::time::Timestamp;
use layers::{Layer, Raw};
use reader::Reader;
use state::Base;

/// Everything that can be configured, resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tokens, the outbox and the embedded store are kept here.
    pub state_dir: PathBuf,
    /// The store of documents.
    pub store: StoreSettings,
    /// The bus.
    pub bus: BusSettings,
    /// Google Cloud.
    pub google: GoogleSettings,
    /// When each probe runs.
    pub schedule: ScheduleSettings,
    /// The daemon.
    pub watch: WatchSettings,
    /// The web server.
    pub web: WebSettings,
    /// Where tokens are kept.
    pub tokens: TokenSettings,
    /// Twitch.
    pub twitch: TwitchSettings,
    /// Kick.
    pub kick: KickSettings,
    /// Discord.
    pub discord: DiscordSettings,
    /// What the bot attends, in the order of the configuration.
    pub sources: Vec<SourceSpec>,
    /// Logs.
    pub log: LogSettings,
}

impl Settings {
    /// Reads the address of another store, written as `store.url` is. The error says what is wrong and what to write.
    pub fn store_at(&self, url: &str) -> Result<StoreTarget, (String, &'static str)> {
        store::target(url, &self.state_dir, &self.google)
    }
}

/// Where the configuration is to be taken from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Values of flags: key path, value, and the flag as it is written (`--store`).
    pub flags: Vec<(String, String, String)>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Directory that `bitbrat.toml` and `.env` are looked for in.
    pub work_dir: PathBuf,
    /// `--config`: this file instead of the usual ones; it must exist.
    pub config_file: Option<PathBuf>,
    /// `--env-file`: this file instead of `.env`; it must exist.
    pub env_file: Option<PathBuf>,
    /// `--demo`: the demo world's values.
    pub demo: Option<Demo>,
}

/// Values of the demo world.
#[derive(Debug, Clone, Default)]
pub struct Demo {
    /// Addresses, credentials and sources of the simulated platforms, by key path. Whatever else is configured for the
    /// platforms is left aside, so that no real credential meets the simulator and no real platform the demo.
    pub platforms: Vec<(String, String)>,
    /// What counts where nothing is set explicitly, by key path: a temporary state directory and store.
    pub fallbacks: Vec<(String, String)>,
}

impl Inputs {
    /// Takes the environment and the working directory of this process.
    pub fn of_process() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            environment,
            work_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            ..Self::default()
        }
    }

    /// Adds the value of a flag.
    #[must_use]
    pub fn flag(mut self, path: &str, value: impl Into<String>, flag: &str) -> Self {
        self.flags.push((path.to_owned(), value.into(), flag.to_owned()));
        self
    }
}

/// What loading found.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The settings; where a value has a problem, its default stands in.
    pub settings: Settings,
    /// What is wrong. While there is anything here, the settings must not be used but for showing them.
    pub problems: Vec<Problem>,
    /// What is doubtful.
    pub warnings: Vec<Problem>,
    /// Every key with its value and where that came from.
    pub resolved: Vec<Resolved>,
    /// The files that were read, the one that counts first.
    pub files: Vec<PathBuf>,
}

impl Configuration {
    /// Returns the settings, or everything that is wrong with them.
    pub fn checked(self) -> Result<Settings, Problems> {
        if self.problems.is_empty() {
            Ok(self.settings)
        } else {
            Err(Problems(self.problems))
        }
    }
}

/// Sections that a demo keeps apart from what is really configured.
const PLATFORM_KEYS: &[&str] = &["twitch.", "kick.", "discord.", "sources"];

/// Resolves the configuration. `now` is needed to tell a cron expression that never fires.
pub fn load(inputs: &Inputs, now: Timestamp) -> Configuration {
    let base = Base::of(&inputs.environment, &inputs.work_dir);
    let mut unreadable = Vec::new();
    let mut files = Vec::new();
    let mut layers = vec![given(inputs)];
    layers.push(Layer::Variables(None, inputs.environment.clone()));
    let (path, must_exist) = match &inputs.env_file {
        Some(path) => (inputs.work_dir.join(path), true),
        None => (inputs.work_dir.join(".env"), false),
    };
    match layers::env_file(&path, must_exist) {
        Ok(Some(layer)) => {
            files.push(path);
            layers.push(layer);
        }
        Ok(None) => {}
        Err(problem) => unreadable.push(problem),
    }
    let candidates = match &inputs.config_file {
        Some(path) => vec![(inputs.work_dir.join(path), true)],
        None => vec![
            (inputs.work_dir.join("bitbrat.toml"), false),
            (base.config_home.join("bitbrat/config.toml"), false),
        ],
    };
    for (path, must_exist) in candidates {
        match layers::toml_file(&path, must_exist) {
            Ok(Some(layer)) => {
                files.push(path);
                layers.push(Layer::File(layer));
            }
            Ok(None) => {}
            Err(problem) => unreadable.push(problem),
        }
    }
    if let Some(demo) = &inputs.demo {
        layers.push(Layer::Given(demo_values(&demo.fallbacks)));
    }
    let mut reader = Reader::new(&layers);
    reader.problems = unreadable;
    if inputs.demo.is_some() {
        reader.sealed = PLATFORM_KEYS;
    }
    unknown_keys(&mut reader);
    let settings = read(&mut reader, &base, now);
    Configuration {
        settings,
        problems: reader.problems,
        warnings: reader.warnings,
        resolved: reader.resolved,
        files,
    }
}

fn given(inputs: &Inputs) -> Layer {
    let flags = inputs
        .flags
        .iter()
        .map(|(path, value, flag)| (path.clone(), value.clone(), Origin::Flag(flag.clone())));
    let demo = inputs.demo.iter().flat_map(|demo| demo_values(&demo.platforms));
    Layer::Given(flags.chain(demo).collect())
}

fn demo_values(values: &[(String, String)]) -> Vec<(String, String, Origin)> {
    values
        .iter()
        .map(|(path, value)| (path.clone(), value.clone(), Origin::Demo))
        .collect()
}

fn read(reader: &mut Reader<'_>, base: &Base, now: Timestamp) -> Settings {
    let state_dir = state::read(reader, base);
    let google = google::read(reader);
    Settings {
        store: store::read(reader, &state_dir, &google),
        bus: bus::read(reader, &google),
        schedule: schedule::read(reader, now),
        watch: watch::read(reader),
        web: web::read(reader),
        tokens: tokens::read(reader, &state_dir, &google),
        twitch: twitch::read(reader),
        kick: kick::read(reader),
        discord: discord::read(reader),
        sources: sources::read(reader),
        log: log::read(reader),
        google,
        state_dir,
    }
}

/// Reports keys of files and variables with our prefix that nothing reads.
fn unknown_keys(reader: &mut Reader<'_>) {
    for layer in reader.layers() {
        match layer {
            Layer::Given(_) => {}
            Layer::File(file) => {
                let origin = Origin::File(file.path.clone());
                for path in file.values.keys() {
                    if key::find(path).is_some() {
                        continue;
                    }
                    let hint = match problem::closest(path, key::all().map(|key| key.path)) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => "run `bitbrat config show` to see every key".to_owned(),
                    };
                    let hint = match path.as_str() {
                        "source" | "[[sources]]" => "write each source under its own [[source]]".to_owned(),
                        _ => hint,
                    };
                    reader.refuse_with(path, &origin, "is not known", &hint);
                }
            }
            Layer::Variables(file, variables) => {
                // Variables of the test suite are not settings.
                let ours =
                    |name: &&String| name.starts_with("BITBRAT_") && !name.starts_with("BITBRAT_TEST_");
                for name in variables.keys().filter(ours) {
                    let known: Vec<String> = key::all().flat_map(Key::variables).collect();
                    if known.contains(name) {
                        continue;
                    }
                    let origin = match file {
                        None => Origin::Environment(name.clone()),
                        Some(path) => Origin::EnvFile(path.clone(), name.clone()),
                    };
                    match problem::closest(name, known.iter().map(String::as_str)) {
                        Some(meant) => {
                            let hint = format!("did you mean `{meant}`?");
                            reader.refuse_with(name, &origin, "is not known", &hint);
                        }
                        None if name.contains("__") => {
                            let hint = "run `bitbrat config show` to see every key";
                            reader.refuse_with(name, &origin, "is not known", hint);
                        }
                        // The rest of the platform may use the prefix for something of its own.
                        None => reader.warn(name, &origin, "is not known to bitbrat"),
                    }
                }
            }
        }
    }
}

/// Reads an identifier without blanks.
fn word(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("contains blanks".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads the numeric id of an account; a file may hold it as a number.
fn numeric_id(reader: &mut Reader<'_>, path: &str) -> Option<String> {
    let found = reader.list(path)?;
    let [id] = found.value.as_slice() else {
        reader.refuse(path, &found.origin, "expects one id");
        return None;
    };
    if !id.bytes().all(|byte| byte.is_ascii_digit()) {
        reader.refuse(
            path,
            &found.origin,
            format!("`{}` is not a numeric user id", reader::clip(id)),
        );
        return None;
    }
    Some(id.clone())
}

impl Raw {
    /// Whether this is exactly the text.
    fn is(&self, text: &str) -> bool {
        matches!(self, Self::Text(own) if own == text)
    }
}
