//! `[bus]`: the way to the rest of the platform.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::google::GoogleSettings;
use super::key::Key;
use super::problem::Origin;
use super::reader::{Reader, address, clip, without_password};

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "bus.url",
        "local | nats[://HOST:4222[,…]] | pubsub[:PROJECT]. MESSAGE_BUS_DRIVER selects one too.",
    )
    .or("local"),
    Key::new("bus.nats_url", "Servers that `nats` stands for.")
        .named(&["NATS_URL"])
        .or("nats://localhost:4222"),
    Key::new(
        "bus.prefix",
        "Put in front of every topic; with NATS it must end in a dot.",
    )
    .named(&["BUS_PREFIX"])
    .such_as("local."),
    Key::new(
        "bus.heartbeat",
        "Time between two events of one source that are no transitions; never shorter than 5m.",
    )
    .or("15m"),
    Key::new(
        "bus.state_mutations",
        "Whether stream.state, stream.title and stream.category are sent to the state engine as well.",
    )
    .or("false"),
    Key::new(
        "bus.ack_wait_seconds",
        "Seconds after which NATS delivers again what a process that died had taken.",
    )
    .named(&["NATS_ACK_WAIT_SECONDS"])
    .or("60"),
    Key::new(
        "bus.driver",
        "The platform's own choice: nats | pubsub | noop; counts when bus.url is not set.",
    )
    .named(&["MESSAGE_BUS_DRIVER", "MESSAGE_BUS"]),
];

/// Which bus.
#[derive(Clone, PartialEq, Eq)]
pub enum BusTarget {
    /// Within the process: events go straight to the persister.
    Local,
    /// NATS JetStream at any of these servers. An address may hold a password: print the target, not the addresses.
    Nats(Vec<Url>),
    /// Google Pub/Sub.
    Pubsub {
        /// The project.
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
                    .map(|server| without_password(server.as_str()))
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

/// The bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusSettings {
    /// Which.
    pub target: BusTarget,
    /// Put in front of every topic.
    pub prefix: String,
    /// Time between two events of one source that are no transitions.
    pub heartbeat: Duration,
    /// Whether stream changes go to the state engine as well.
    pub state_mutations: bool,
    /// How long NATS waits for a delivered message to be settled before it delivers it again.
    pub ack_wait: Duration,
}

pub(super) fn read(reader: &mut Reader<'_>, google: &GoogleSettings) -> BusSettings {
    let url = reader.text("bus.url");
    let nats = reader.text("bus.nats_url");
    let driver = reader.text("bus.driver");
    let (text, origin) = match (url, driver) {
        (Some(url), Some(driver)) if url.origin == Origin::Default => match driver.value.as_str() {
            "noop" => ("local".to_owned(), driver.origin),
            _ => (driver.value, driver.origin),
        },
        (Some(url), _) => (url.value, url.origin),
        (None, _) => ("local".to_owned(), Origin::Default),
    };
    let servers = nats.map(|found| found.value).unwrap_or_default();
    let target = target(&text, &servers, google).unwrap_or_else(|message| {
        let hint = "write local, nats://HOST:4222 or pubsub:PROJECT";
        reader.refuse_with("bus.url", &origin, message, hint);
        BusTarget::Local
    });
    let prefix = reader.text("bus.prefix");
    if let (Some(found), BusTarget::Nats(_)) = (&prefix, &target)
        && !found.value.ends_with('.')
    {
        let message = format!(
            "`{}` does not end in a dot, so NATS finds no stream for it",
            clip(&found.value)
        );
        reader.refuse("bus.prefix", &found.origin, message);
    }
    // The platform's own consumer loses messages when they come in floods.
    let bounds = Duration::from_mins(5)..=Duration::from_hours(168);
    BusSettings {
        target,
        prefix: prefix.map(|found| found.value).unwrap_or_default(),
        heartbeat: reader
            .duration("bus.heartbeat", bounds)
            .map_or(Duration::from_mins(15), |found| found.value),
        state_mutations: reader.switch("bus.state_mutations"),
        ack_wait: Duration::from_secs(reader.number("bus.ack_wait_seconds", 1..=3600).unwrap_or(60)),
    }
}

fn target(text: &str, nats_url: &str, google: &GoogleSettings) -> Result<BusTarget, String> {
    let servers = |text: &str| {
        text.split(',')
            .map(|server| {
                let server = server.trim();
                let full = if server.contains("://") {
                    server.to_owned()
                } else {
                    format!("nats://{server}")
                };
                address(&full, &["nats", "tls", "ws", "wss"])
            })
            .collect::<Result<Vec<_>, _>>()
            .map(BusTarget::Nats)
    };
    match text.split_once(':') {
        None if text == "local" => Ok(BusTarget::Local),
        None if text == "nats" => servers(nats_url),
        Some(("nats" | "tls" | "ws" | "wss", _)) => servers(text),
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
        _ => Err(format!("`{}` is not a bus", clip(&without_password(text)))),
    }
}
