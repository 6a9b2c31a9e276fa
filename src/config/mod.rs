//! Configuration: flags over environment over credentials over `.env` over `./bitbrat.toml` over the user's own file over defaults.
//!
//! Values are resolved once into plain structs. Loading opens only the files that it reads, so that `doctor` and `config show`
//! always work; it never stops at the first problem, but collects all of them.

mod alerts;
mod auth;
mod bus;
mod credentials;
mod edit;
mod exposed;
mod file_path;
mod fleet;
#[cfg(fuzzing)]
pub mod fuzzing;
mod google;
mod key;
mod keys;
mod layers;
mod log;
mod mcp;
mod postgres;
mod problem;
mod reader;
mod schedule;
mod show;
mod source_arg;
mod source_glob;
mod source_name;
mod sources;
mod state;
mod store;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod tokens;
mod watch;
mod web;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use alerts::{AlertSettings, WrittenField};
pub use auth::AuthSettings;
pub use bus::{BusSettings, BusTarget, NatsLogin};
pub use edit::{
    EditError, FileText, SourceEntry, add as add_source, remove as remove_sources, sources as sources_of,
};
pub use exposed::ExposedFile;
pub(crate) use file_path::{HINT as PATH_HINT, check as check_path};
pub use fleet::{FleetSettings, FleetTarget};
pub use google::GoogleSettings;
pub use key::Key;
pub use keys::{all as keys, find as key, is_near_secret, shown_path};
pub use log::{LogFormat, LogSettings};
pub use mcp::{McpSettings, RegistrationSettings};
pub use postgres::PostgresSettings;
pub(crate) use problem::closest;
pub use problem::{Origin, Problem, Problems};
pub(crate) use reader::{Reader, address, clip};
pub use reader::{Resolved, duration as parse_duration, words as show_duration};
pub use schedule::ScheduleSettings;
pub use show::{Shown, shown};
pub use source_arg::SourceArg;
pub use source_glob::{SourceGlob, SourceSelector};
pub use source_name::{float_as_id, is_float, name as source_name, negative};
pub use sources::{SOURCES, SourceAddress, SourceSpec};
pub use state::STATE_DIR;
pub use store::{StoreSettings, StoreTarget, URL as STORE_URL};
pub use template::{compose, env_example, init, short_template, toml_template};
pub use text::{decode as decode_text, token};
pub use tokens::{TokenSettings, TokenTarget};
pub use watch::WatchSettings;
pub use web::WebSettings;

use crate::core::platform::{PlatformName, for_each_platform};
use crate::core::time::Timestamp;
use crate::platforms;
use crate::secrets;
use layers::Layer;
use state::Base;

/// Everything that can be configured, resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tokens, the outbox and the embedded store are kept here.
    pub state_dir: PathBuf,
    pub store: StoreSettings,
    pub bus: BusSettings,
    pub google: GoogleSettings,
    /// When each probe runs.
    pub schedule: ScheduleSettings,
    pub watch: WatchSettings,
    /// The fleet that this daemon is a member of; `None` if it works alone.
    pub fleet: Option<FleetSettings>,
    pub web: WebSettings,
    /// The interface for agents.
    pub mcp: McpSettings,
    pub tokens: TokenSettings,
    pub auth: AuthSettings,
    pub platforms: PlatformSettings,
    /// The monitored sources, in the order of the configuration.
    pub sources: Vec<SourceSpec>,
    /// Alerts, hooks and maintenance windows.
    pub alerts: AlertSettings,
    pub log: LogSettings,
}

macro_rules! platform_settings {
    ($($name:ident $module:ident $about:literal;)*) => {
        #[derive(Debug, Clone)]
        pub struct PlatformSettings {
            $(#[doc = concat!("Those of ", stringify!($name), ".")] pub $module: platforms::$module::settings::Settings,)*
        }

        impl PlatformSettings {
            fn read(reader: &mut Reader<'_>) -> Self {
                Self {
                    $($module: platforms::$module::settings::read(reader),)*
                }
            }
        }

        /// Returns the keys of a platform that list sources.
        fn source_keys(platform: PlatformName) -> &'static [Key] {
            match platform {
                $(PlatformName::$name => platforms::$module::settings::SOURCE_KEYS,)*
            }
        }
    };
}
for_each_platform!(platform_settings);

impl Settings {
    /// Parses the address of another store, written as `store.url` is. A kind alone, such as `postgres`, means the configured store
    /// where that is of this kind. The error contains the problem and the accepted form.
    pub fn store_at(&self, url: &str) -> Result<StoreTarget, (String, &'static str)> {
        if self.store.target.kind() == url {
            return Ok(self.store.target.clone());
        }
        store::target(url, &self.state_dir, &self.google, &self.store.postgres)
    }
}

#[derive(Debug, Clone, Default)]
pub struct ConfigInputs {
    /// Values of flags: key path, value, and the flag as it is written (`--store`).
    pub flags: Vec<(String, String, String)>,
    pub environment: BTreeMap<String, String>,
    /// Directory of `bitbrat.toml` and `.env`.
    pub work_dir: PathBuf,
    /// `--config`: this file instead of the usual ones; it must exist.
    pub config_file: Option<PathBuf>,
    /// `--env-file`: this file instead of `.env`; it must exist.
    pub env_file: Option<PathBuf>,
    /// `--demo`: the demo world's values.
    pub demo: Option<Demo>,
    /// A TOML file and the text that replaces its content, to check the effect before it is written.
    pub draft: Option<(PathBuf, String)>,
}

#[derive(Debug, Clone, Default)]
pub struct Demo {
    /// Addresses, credentials and sources of the simulated platforms, by key path. Any other configuration of the platforms is
    /// ignored, so that no real credential is sent to the simulator and the demo contacts no real platform.
    pub platforms: Vec<(String, String)>,
    /// Values that apply where nothing is set explicitly, by key path: a temporary state directory and store.
    pub fallbacks: Vec<(String, String)>,
}

impl ConfigInputs {
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

    #[must_use]
    pub fn flag(mut self, path: &str, value: impl Into<String>, flag: &str) -> Self {
        self.flags.push((path.to_owned(), value.into(), flag.to_owned()));
        self
    }
}

#[derive(Debug, Clone)]
pub struct Configuration {
    /// The settings; a value with a problem is replaced by its default.
    pub settings: Settings,
    /// The problems. While there are any, the settings must only be shown, not used.
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// Every key with its value and where that came from.
    pub resolved: Vec<Resolved>,
    /// The files that were read, in order of precedence.
    pub files: Vec<PathBuf>,
    /// The `.env` file, if others may read the secrets in it.
    pub exposed: Option<ExposedFile>,
}

impl Configuration {
    pub fn checked(self) -> Result<Settings, Problems> {
        if self.problems.is_empty() {
            Ok(self.settings)
        } else {
            Err(Problems(self.problems))
        }
    }
}

/// Resolves the configuration. `now` is needed to detect a cron expression that never fires.
pub fn load(inputs: &ConfigInputs, now: Timestamp) -> Configuration {
    // Libraries read these, and send what they contain to a proxy, whose response may repeat it.
    for (name, value) in &inputs.environment {
        if name.to_ascii_lowercase().ends_with("_proxy") {
            secrets::register_addresses(value);
        }
        if matches!(name.as_str(), "SSL_CERT_FILE" | "SSL_CERT_DIR") {
            file_path::register(value);
        }
    }
    let base = Base::of(&inputs.environment, &inputs.work_dir);
    let (mut unreadable, mut doubtful) = (Vec::new(), Vec::new());
    let mut files = Vec::new();
    let mut exposed = None;
    let mut layers = vec![given(inputs)];
    layers.push(Layer::Variables(None, inputs.environment.clone()));
    if let Some(directory) = inputs.environment.get("CREDENTIALS_DIRECTORY") {
        let (layer, problems, warnings) = credentials::read(&inputs.work_dir.join(directory));
        layers.push(layer);
        unreadable = problems;
        doubtful = warnings;
    }
    let (path, must_exist) = match &inputs.env_file {
        Some(path) => (inputs.work_dir.join(path), true),
        None => (inputs.work_dir.join(".env"), false),
    };
    match layers::env_file(&path, must_exist) {
        Ok(Some((layer, found))) => {
            exposed = ExposedFile::of(&path, &layer);
            files.push(path);
            layers.push(layer);
            doubtful.extend(found);
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
        let layer = match &inputs.draft {
            Some((draft, text)) if *draft == path => {
                layers::toml_text(&path, text, keys::shown_path).map(Some)
            }
            _ => layers::toml_file(&path, must_exist, keys::shown_path),
        };
        match layer {
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
    let mut reader = Reader::new(&layers, keys::shown_path);
    reader.problems = unreadable;
    reader.warnings = doubtful;
    if inputs.demo.is_some() {
        // A demo is separate from the real configuration of the platforms.
        let sections = PlatformName::ALL.map(|platform| format!("{platform}."));
        reader.sealed = sections
            .into_iter()
            .chain([sources::SOURCES.path.to_owned()])
            .chain(alerts::TABLES.map(str::to_owned))
            .collect();
    }
    unknown_keys(&mut reader);
    unknown_proxies(&mut reader, &inputs.environment);
    let settings = read(&mut reader, &base, now);
    forgive_unused_google(&mut reader, &settings);
    reader.warn_of_aside();
    Configuration {
        settings,
        problems: reader.problems,
        warnings: reader.warnings,
        resolved: reader.resolved,
        files,
        exposed,
    }
}

fn given(inputs: &ConfigInputs) -> Layer {
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
    // In the order in which problems are reported.
    let postgres = postgres::read(reader);
    let tokens = tokens::read(reader, &state_dir, &google, &postgres);
    let store = store::read(reader, &state_dir, &google, postgres);
    let bus = bus::read(reader, &google);
    let schedule = schedule::read(reader, now);
    let watch = watch::read(reader);
    let fleet = fleet::read(reader, &state_dir, &google, &store, &bus);
    let web = web::read(reader);
    Settings {
        store,
        schedule,
        watch,
        fleet,
        mcp: mcp::read(reader, &bus, &web),
        bus,
        web,
        tokens,
        auth: auth::read(reader),
        platforms: PlatformSettings::read(reader),
        sources: sources::read(reader, source_keys),
        alerts: alerts::read(reader),
        log: log::read(reader),
        google,
        state_dir,
    }
}

/// Google's own variables may be set for other programs of the machine. While neither Firestore nor Pub/Sub is used, a problem
/// with them is only a warning.
fn forgive_unused_google(reader: &mut Reader<'_>, settings: &Settings) {
    let fleet = settings.fleet.as_ref().map(|fleet| &fleet.target);
    let is_used = matches!(settings.store.target, StoreTarget::Firestore { .. })
        || matches!(fleet, Some(FleetTarget::Firestore { .. }))
        || matches!(settings.bus.target, BusTarget::Pubsub { .. })
        || matches!(settings.tokens.target, TokenTarget::Firestore { .. });
    if is_used {
        return;
    }
    let is_foreign = |problem: &Problem| {
        let variable = match &problem.origin {
            Origin::Environment(variable) | Origin::EnvFile(_, variable) => variable,
            Origin::Flag(_) | Origin::Demo | Origin::Credential(_) | Origin::File(_) | Origin::Default => {
                return false;
            }
        };
        ["GOOGLE_", "GCLOUD_", "FIRESTORE_", "PUBSUB_"]
            .iter()
            .any(|prefix| variable.starts_with(prefix))
    };
    for mut problem in reader.problems.extract_if(.., |problem| is_foreign(problem)) {
        problem
            .message
            .push_str("; it does not count, since neither Firestore nor Pub/Sub is used");
        reader.warnings.push(problem);
    }
}

/// Reports keys of files and variables with our prefix that nothing reads.
fn unknown_keys(reader: &mut Reader<'_>) {
    for layer in reader.layers() {
        match layer {
            Layer::Given(_) | Layer::Credentials(_) => {}
            Layer::File(file) => {
                let origin = Origin::File(file.path.clone());
                for path in file.values.keys() {
                    if keys::find(path).is_some() {
                        continue;
                    }
                    let hint = match problem::closest(path, keys::all().map(|key| key.path)) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => "run `bitbrat config show` to see every key".to_owned(),
                    };
                    let hint = match path.as_str() {
                        "source" | "[[sources]]" => "write each source under its own [[source]]".to_owned(),
                        "alert" | "hook" | "maintenance" => {
                            format!("write each {path} under its own [[{path}]]")
                        }
                        _ => hint,
                    };
                    reader.refuse_at_with(&keys::shown_path(path), &origin, "is not known", &hint);
                }
            }
            Layer::Variables(file, variables) => unknown_variables(reader, file.as_deref(), variables),
        }
    }
}

/// Reports variables with our prefix that nothing reads. The environment and `.env` are treated alike.
///
/// Other programs use the prefix too: the platform, and Kubernetes, which describes each service of a namespace to every
/// container. A variable prevents a start only when it is certainly meant for this program, because it is written as ours are: a
/// section that exists, two underscores, a key. A misspelled one may switch off something important.
fn unknown_variables(reader: &mut Reader<'_>, file: Option<&Path>, variables: &BTreeMap<String, String>) {
    let known: Vec<String> = keys::all().flat_map(Key::variables).collect();
    for (name, value) in variables {
        if let Some(path) = file.filter(|_| is_of_the_process(name)) {
            let origin = Origin::EnvFile(path.to_owned(), name.clone());
            let hint =
                "export it where bitbrat is started: `env`, the unit's Environment=, the container's --env";
            let message =
                "does not count here: proxies and certificates are those of the process's environment";
            reader.warn_with(name, &origin, message, hint);
            continue;
        }
        // Variables of the test suite are not settings.
        let foreign = !name.starts_with("BITBRAT_") || name.starts_with("BITBRAT_TEST_");
        if foreign
            || known.contains(name)
            || is_service_link(name, value)
            || PLATFORMS_OWN.contains(&&name[..])
        {
            continue;
        }
        let origin = match file {
            None => Origin::Environment(name.clone()),
            Some(path) => Origin::EnvFile(path.to_owned(), name.clone()),
        };
        let meant = problem::closest(name, known.iter().map(String::as_str));
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "run `bitbrat config show` to see every key".to_owned(),
        };
        if is_in_our_form(name) {
            reader.refuse_at_with(name, &origin, "is not known", &hint);
        } else if meant.is_some() {
            reader.warn_with(name, &origin, "is not known to bitbrat and does not count", &hint);
        } else {
            reader.warn(name, &origin, "is not known to bitbrat");
        }
    }
}

/// Warns of proxies of a kind that is not supported: the libraries that read these variables ignore them, and connect directly.
fn unknown_proxies(reader: &mut Reader<'_>, environment: &BTreeMap<String, String>) {
    const KINDS: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
    for (name, value) in environment {
        let is_proxy = matches!(
            &name.to_ascii_uppercase()[..],
            "HTTP_PROXY" | "HTTPS_PROXY" | "ALL_PROXY"
        );
        let Some((kind, _)) = value.trim().split_once("://").filter(|_| is_proxy) else {
            continue;
        };
        if KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
            continue;
        }
        let message = format!(
            "names a proxy of an unknown kind, `{}://`, so it is not used",
            reader::clip(kind)
        );
        let hint = "write http://, https://, socks4://, socks4a://, socks5:// or socks5h://, or unset it";
        reader.warn_with(name, &Origin::Environment(name.clone()), message, hint);
    }
}

/// Whether a variable is read by libraries, and from the environment alone.
fn is_of_the_process(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    matches!(
        &upper[..],
        "HTTP_PROXY" | "HTTPS_PROXY" | "ALL_PROXY" | "NO_PROXY" | "SSL_CERT_FILE" | "SSL_CERT_DIR"
    )
}

/// Variables of the BitBrat platform itself that begin with our prefix.
const PLATFORMS_OWN: [&str; 3] = ["BITBRAT_API_TOKEN", "BITBRAT_API_URL", "BITBRAT_ENV"];

/// Whether `name` is written as our own variables are: `BITBRAT_`, a section, two underscores, a key.
fn is_in_our_form(name: &str) -> bool {
    let Some((section, key)) = name
        .strip_prefix("BITBRAT_")
        .and_then(|rest| rest.split_once("__"))
    else {
        return false;
    };
    let sections = || {
        keys::all()
            .map(Key::section)
            .filter(|section| !section.is_empty())
            .map(str::to_uppercase)
    };
    let known: Vec<String> = sections().collect();
    !key.is_empty() && problem::closest(section, known.iter().map(String::as_str)).is_some()
}

/// Whether a variable is one that Kubernetes or Docker's links define for a service:
/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    // `X_PORT`, `X_PORT_80_TCP`, and what follows either of them.
    let of_port = name.match_indices("_PORT").any(|(at, found)| {
        let rest = &name[at + found.len()..];
        let mut parts = rest.split('_').skip(1);
        match (rest, parts.next(), parts.next()) {
            ("", ..) => is_address,
            (_, Some(port), Some("TCP" | "UDP" | "SCTP")) => {
                rest.starts_with('_')
                    && !port.is_empty()
                    && port.bytes().all(|byte| byte.is_ascii_digit())
                    && matches!(parts.next(), None | Some("ADDR" | "PORT" | "PROTO"))
            }
            _ => false,
        }
    });
    of_port
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        // Docker's links contain the name of the linked container as well.
        || (name.ends_with("_NAME") && value.starts_with('/'))
}

/// Parses an identifier without blanks, such as a client id.
pub(crate) fn word(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("contains blanks".to_owned());
    }
    // It is sent as a header, which anything else would make invalid.
    text::token(text)
        .map(str::to_owned)
        .map_err(|(message, _)| message)
}

/// Reads the numeric id of an account; a file may hold it as a number.
pub(crate) fn numeric_id(reader: &mut Reader<'_>, key: &Key) -> Option<String> {
    let found = reader.list(key)?;
    let [id] = found.value.as_slice() else {
        reader.refuse(key, &found.origin, "expects one id");
        return None;
    };
    if is_float(id) {
        reader.refuse(key, &found.origin, float_as_id(id));
        return None;
    }
    if !id.bytes().all(|byte| byte.is_ascii_digit()) {
        reader.refuse(
            key,
            &found.origin,
            format!("`{}` is not a numeric user id", reader::clip(id)),
        );
        return None;
    }
    secrets::register_name(id);
    Some(id.clone())
}
