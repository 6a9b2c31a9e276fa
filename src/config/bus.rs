//! `[bus]`: the connection to the rest of the platform.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::google::GoogleSettings;
use super::key::Key;
use super::problem::Origin;
use super::reader::{Reader, address, clip, is_foreign};
use crate::core::event::InitialEvents;
use crate::secrets::{without_credentials, without_credentials_of_servers};

const URL: Key = Key::new(
    "bus.url",
    "local | nats[://HOST:4222[,…]] | pubsub[:PROJECT]. MESSAGE_BUS_DRIVER selects one too.",
)
.shown_by(shown_target)
.or("local");
const NATS_URL: Key = Key::new("bus.nats_url", "Servers that `nats` stands for.")
    .named(&["NATS_URL"])
    .shown_by(shown_servers)
    .or("nats://localhost:4222");
const NATS_USER: Key = Key::new("bus.nats_user", "User at NATS, where the address names none.")
    .named(&["NATS_USER"])
    .such_as("bitbrat");
const NATS_PASSWORD: Key = Key::new("bus.nats_password", "Password of that user.")
    .named(&["NATS_PASSWORD"])
    .secret();
const NATS_TOKEN: Key = Key::new(
    "bus.nats_token",
    "Token for NATS servers that use one instead of users.",
)
.named(&["NATS_TOKEN"])
.secret();
const NATS_CREDS_FILE: Key = Key::new(
    "bus.nats_creds_file",
    "Credentials file of a NATS user (JWT and seed), as `nsc` writes it.",
)
.named(&["NATS_CREDS"])
.such_as("/etc/bitbrat/bitbrat.creds")
.file();
const NATS_NKEY_FILE: Key = Key::new(
    "bus.nats_nkey_file",
    "File with the NKey seed of a NATS user; it begins with `SU`.",
)
.named(&["NATS_NKEY"])
.such_as("/etc/bitbrat/bitbrat.nk")
.file();
const NATS_NKEY_SEED: Key = Key::new("bus.nats_nkey_seed", "The NKey seed itself, in place of a file.")
    .named(&["NATS_NKEY_SEED"])
    .secret();
const NATS_CA_FILE: Key = Key::new(
        "bus.nats_ca_file",
        "Certificates (PEM) of the authorities that sign the NATS servers' certificates; TLS is required then. Default: \
         the system's.",
    )
    .named(&["NATS_CA"])
    .such_as("/etc/bitbrat/nats-ca.pem").file();
const NATS_CERT_FILE: Key = Key::new(
    "bus.nats_cert_file",
    "Client certificate (PEM) shown to NATS; TLS is required then.",
)
.named(&["NATS_CERT"])
.such_as("/etc/bitbrat/nats-client.pem")
.file();
const NATS_KEY_FILE: Key = Key::new(
    "bus.nats_key_file",
    "Private key (PEM) of the client certificate.",
)
.named(&["NATS_KEY"])
.such_as("/etc/bitbrat/nats-client.key")
.file();
const PREFIX: Key = Key::new(
    "bus.prefix",
    "Put in front of every topic; with NATS it must end in a dot.",
)
.named(&["BUS_PREFIX"])
.shared()
.such_as("local.");
const HEARTBEAT: Key = Key::new(
    "bus.heartbeat",
    "Time between two events of one source that are no transitions; never shorter than 5m.",
)
.or("15m");
const INITIAL_EVENTS: Key = Key::new(
    "bus.initial_events",
    "flag | off. Events of a first observation carry payload.initial = true, or are not published.",
)
.or("flag");
const STATE_MUTATIONS: Key = Key::new(
    "bus.state_mutations",
    "Whether stream.state, stream.title and stream.category are sent to the state engine as well.",
)
.or("false");
const ACK_WAIT_SECONDS: Key = Key::new(
    "bus.ack_wait_seconds",
    "Seconds after which NATS delivers again what a process that died had taken.",
)
.named(&["NATS_ACK_WAIT_SECONDS"])
.shared()
.or("60");
const DRIVER: Key = Key::new(
    "bus.driver",
    "The platform's own choice: nats | pubsub | noop; counts when bus.url is not set.",
)
.named(&["MESSAGE_BUS_DRIVER", "MESSAGE_BUS"])
.environment_only()
.shared()
.overriding(URL.path)
.shown_by(shown_target);

pub(super) const KEYS: &[Key] = &[
    URL,
    NATS_URL,
    NATS_USER,
    NATS_PASSWORD,
    NATS_TOKEN,
    NATS_CREDS_FILE,
    NATS_NKEY_FILE,
    NATS_NKEY_SEED,
    NATS_CA_FILE,
    NATS_CERT_FILE,
    NATS_KEY_FILE,
    PREFIX,
    HEARTBEAT,
    INITIAL_EVENTS,
    STATE_MUTATIONS,
    ACK_WAIT_SECONDS,
    DRIVER,
];

#[derive(Clone, PartialEq, Eq)]
pub enum BusTarget {
    /// Within the process: events go straight to the persister.
    Local,
    /// NATS JetStream at any of these servers. An address may hold a password: print the target, not the addresses.
    Nats(Vec<Url>),
    Pubsub {
        project: String,
    },
}

impl fmt::Display for BusTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Nats(servers) => {
                let servers: Vec<String> = servers
                    .iter()
                    .map(|server| without_credentials(server.as_str()).into_owned())
                    .collect();
                f.write_str(&servers.join(","))
            }
            Self::Pubsub { project } => write!(f, "pubsub:{project}"),
        }
    }
}

impl fmt::Debug for BusTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How to log in to NATS, beside what the addresses hold.
#[derive(Debug, Clone, Default)]
pub struct NatsLogin {
    pub user: Option<String>,
    pub password: Option<SecretString>,
    /// Token, for servers that use one instead of users.
    pub token: Option<SecretString>,
    /// File with a JWT and its seed.
    pub creds_file: Option<PathBuf>,
    /// File with an `NKey` seed.
    pub nkey_file: Option<PathBuf>,
    /// An `NKey` seed.
    pub nkey_seed: Option<SecretString>,
    /// Certificates of the authorities that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    /// Private key of the client certificate.
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct BusSettings {
    pub target: BusTarget,
    pub nats: NatsLogin,
    /// Put in front of every topic.
    pub prefix: String,
    /// Time between two events of one source that are no transitions.
    pub heartbeat: Duration,
    /// How first observations are published.
    pub initial_events: InitialEvents,
    /// Whether stream changes go to the state engine as well.
    pub state_mutations: bool,
    /// How long NATS waits for a delivered message to be settled before it delivers it again.
    pub ack_wait: Duration,
}

pub(super) fn read(reader: &mut Reader<'_>, google: &GoogleSettings) -> BusSettings {
    let url = reader.text(&URL);
    let servers = reader.text(&NATS_URL);
    let servers = servers.map(|found| found.value).unwrap_or_default();
    let read = |text: &str| target(text, &servers, google);
    let target = match url {
        Some(url) if url.origin != Origin::Default => {
            // Shown, but without effect beside an address.
            let _ = reader.text(&DRIVER);
            read(&url.value).unwrap_or_else(|message| {
                reader.refuse_with(&URL, &url.origin, message, FORMS);
                BusTarget::Local
            })
        }
        _ => by_driver(reader, read),
    };
    let nats = login(reader, &target);
    let prefix = reader.text(&PREFIX);
    let mut prefix = prefix;
    if let (Some(found), BusTarget::Nats(_)) = (&mut prefix, &target)
        && !found.value.ends_with('.')
    {
        let message = format!(
            "`{}` does not end in a dot, so NATS finds no stream for it",
            clip(&found.value)
        );
        if is_foreign(&PREFIX, &found.origin) {
            // Without a prefix, events would reach another environment's services.
            found.value.push('.');
            let message = format!("{message}; `{}` is used instead", clip(&found.value));
            reader.warn(PREFIX.path, &found.origin, message);
        } else {
            reader.refuse(&PREFIX, &found.origin, message);
        }
    }
    // The platform's own consumer loses messages when many arrive at once.
    let bounds = Duration::from_mins(5)..=Duration::from_hours(168);
    BusSettings {
        target,
        nats,
        prefix: prefix.map(|found| found.value).unwrap_or_default(),
        heartbeat: reader
            .duration(&HEARTBEAT, bounds)
            .map_or(Duration::from_mins(15), |found| found.value),
        initial_events: reader
            .plain(&INITIAL_EVENTS, "flag or off")
            .map_or(InitialEvents::Flag, |found| found.value),
        state_mutations: reader.switch(&STATE_MUTATIONS),
        ack_wait: Duration::from_secs(reader.number(&ACK_WAIT_SECONDS, 1..=3600).unwrap_or(60)),
    }
}

const FORMS: &str = "write local, nats://HOST:4222 or pubsub:PROJECT";

/// Reads the platform's own variable, which it compares without regard to case. Its other drivers are not supported here.
fn by_driver(reader: &mut Reader<'_>, read: impl Fn(&str) -> Result<BusTarget, String>) -> BusTarget {
    loop {
        let Some(driver) = reader.text(&DRIVER) else {
            return BusTarget::Local;
        };
        let lower = driver.value.to_lowercase();
        let target = match lower.as_str() {
            "noop" | "none" => Ok(BusTarget::Local),
            "nats" | "pubsub" | "local" => read(&lower),
            _ => read(&driver.value),
        };
        let message = match target {
            Ok(target) => return target,
            Err(message) => message,
        };
        // A bus that was chosen and has a wrong address must not be silently replaced by none.
        let is_other = lower != "nats" && !lower.starts_with("nats:") && !lower.starts_with("tls:");
        if is_other && is_foreign(&DRIVER, &driver.origin) {
            if !reader.set_aside(&DRIVER, &driver.origin, &message) {
                return BusTarget::Local;
            }
        } else {
            let key = if lower == "nats" { &NATS_URL } else { &DRIVER };
            let origin = match reader.origin(key) {
                Origin::Default => driver.origin,
                origin => origin,
            };
            reader.refuse_with(key, &origin, message, FORMS);
            return BusTarget::Local;
        }
    }
}

/// Reads the credentials for NATS. Problems with them matter only where NATS is the bus.
fn login(reader: &mut Reader<'_>, target: &BusTarget) -> NatsLogin {
    let problems = reader.problems.len();
    // A seed that was given in place of the path of its file is used as the seed.
    let (nkey_file, seed) = match reader.text(&NATS_NKEY_FILE) {
        Some(found) if crate::secrets::is_nkey_seed(&found.value) => {
            (None, Some(crate::secrets::secret(found.value)))
        }
        Some(found) => (reader.path_of(&NATS_NKEY_FILE, &found), None),
        None => (None, None),
    };
    let login = NatsLogin {
        user: reader.text(&NATS_USER).map(|found| found.value),
        password: reader.password(&NATS_PASSWORD),
        token: reader.password(&NATS_TOKEN),
        creds_file: reader.path(&NATS_CREDS_FILE),
        nkey_file,
        nkey_seed: reader.secret(&NATS_NKEY_SEED).or(seed),
        ca_file: reader.path(&NATS_CA_FILE),
        cert_file: reader.path(&NATS_CERT_FILE),
        key_file: reader.path(&NATS_KEY_FILE),
    };
    let BusTarget::Nats(servers) = target else {
        // The variables may be meant for other programs of the machine.
        for mut problem in reader.problems.split_off(problems) {
            problem
                .message
                .push_str("; it does not count, since NATS is not used");
            reader.warnings.push(problem);
        }
        return login;
    };
    for (key, missing, other) in [
        (
            &NATS_CERT_FILE,
            login.key_file.is_none() && login.cert_file.is_some(),
            &NATS_KEY_FILE,
        ),
        (
            &NATS_KEY_FILE,
            login.cert_file.is_none() && login.key_file.is_some(),
            &NATS_CERT_FILE,
        ),
        (
            &NATS_PASSWORD,
            login.user.is_none() && login.password.is_some(),
            &NATS_USER,
        ),
        (
            &NATS_USER,
            login.password.is_none() && login.user.is_some(),
            &NATS_PASSWORD,
        ),
    ] {
        if missing {
            let origin = reader.origin(key);
            let other = format!("{} ({})", other.path, other.names.join(", "));
            let hint = format!("set {other} too, or unset this one");
            reader.refuse_with(key, &origin, format!("needs {other} beside it"), &hint);
        }
    }
    let in_address = |server: &Url| (server.username().to_owned(), server.password().map(str::to_owned));
    let mut logins: Vec<_> = servers
        .iter()
        .map(in_address)
        .filter(|(user, password)| !user.is_empty() || password.is_some())
        .collect();
    logins.sort();
    logins.dedup();
    if logins.len() > 1 {
        let origin = reader.origin(&NATS_URL);
        let hint = "write the same user and password into each address, or set NATS_USER and NATS_PASSWORD";
        reader.refuse_with(&NATS_URL, &origin, "its addresses name different users", hint);
    }
    // In the order of precedence.
    let ways = [
        (&NATS_CREDS_FILE, login.creds_file.is_some()),
        (&NATS_NKEY_SEED, login.nkey_seed.is_some()),
        (&NATS_NKEY_FILE, login.nkey_file.is_some()),
        (&NATS_TOKEN, login.token.is_some()),
        (&NATS_USER, login.user.is_some()),
    ];
    let mut given = ways.into_iter().filter(|(_, given)| *given).map(|(key, _)| key);
    if let Some(first) = given.next() {
        for other in given.collect::<Vec<_>>() {
            let origin = reader.origin(other);
            reader.warn(
                other.path,
                &origin,
                format!("does not count, because {} is set too", first.path),
            );
        }
    }
    login
}

/// Shows a bus with its address. A text without a scheme may be an address as well, which is none of a bus.
fn shown_target(value: &str) -> String {
    if value.to_ascii_lowercase().starts_with("pubsub:") {
        without_credentials(value).into_owned()
    } else {
        shown_servers(value)
    }
}

pub(super) fn shown_servers(value: &str) -> String {
    without_credentials_of_servers(value).into_owned()
}

/// What to do about an address whose password does not end where it should.
const ENCODED: &str = "characters such as , # / ? @ in a password are written as %2C %23 %2F %3F %40";

pub(super) fn target(text: &str, nats_url: &str, google: &GoogleSettings) -> Result<BusTarget, String> {
    let servers = |text: &str| {
        // A comma in a password cuts its address in two, both of which may be valid addresses.
        let mut scheme_before = false;
        for server in text.split(',') {
            let has_scheme = server.contains("://");
            if scheme_before && !has_scheme && server.contains('@') {
                let shown = without_credentials_of_servers(text);
                return Err(format!(
                    "`{shown}` is not a list of addresses: each with a user needs its own nats://; {ENCODED}"
                ));
            }
            scheme_before = has_scheme && !server.contains('@');
        }
        text.split(',')
            .map(|server| {
                let server = server.trim();
                let full = if server.contains("://") {
                    server.to_owned()
                } else {
                    format!("nats://{server}")
                };
                address(&full, &["nats", "tls"]).map_err(|message| {
                    if full.contains(['@', '\u{ff20}']) || without_credentials(&full) != full {
                        format!("{message}; {ENCODED}")
                    } else {
                        message
                    }
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(BusTarget::Nats)
    };
    match text.split_once(':') {
        None if text == "local" => Ok(BusTarget::Local),
        None if text == "nats" => servers(nats_url),
        Some(("nats" | "tls", _)) => servers(text),
        Some(("pubsub", project)) if !project.is_empty() && !project.contains(['/', ' ']) => {
            Ok(BusTarget::Pubsub {
                project: project.to_owned(),
            })
        }
        None if text == "pubsub" => google
            .pubsub_project
            .clone()
            .map(|project| BusTarget::Pubsub { project })
            .ok_or_else(|| {
                "pubsub needs a project: write pubsub:PROJECT, or set GOOGLE_CLOUD_PROJECT".to_owned()
            }),
        _ => Err(format!("`{}` is not a bus", clip(&shown_target(text)))),
    }
}
