//! `[fleet]`: daemons that share the sources.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::bus::{self, BusSettings, BusTarget};
use super::google::GoogleSettings;
use super::key::Key;
use super::problem::Origin;
use super::reader::{Reader, clip};
use super::store::{self, StoreSettings, StoreTarget};
use crate::lease::LeaseName;
use crate::store::postgres::PostgresAddress;

const NAME: Key = Key::new(
    "fleet.name",
    "Name of a fleet: its daemons share the sources. Without it, this daemon monitors all of them.",
)
.such_as("bitbrat");
const URL: Key = Key::new(
    "fleet.url",
    "nats[://HOST:4222] | postgres://HOST/DATABASE | firestore:PROJECT | sqlite:PATH. Default: the store's engine.",
)
.such_as("nats://localhost:4222")
.shown_by(bus::shown_servers);
const TTL: Key = Key::new(
    "fleet.ttl",
    "How long a member counts as alive without a sign of life. Default: 15s, on Firestore 60s.",
)
.such_as("15s");

pub(super) const KEYS: &[Key] = &[NAME, URL, TTL];

/// Name of the file of the leases beside a SQLite store.
const FILE: &str = "fleet.db";

/// Where the leases are.
#[derive(Clone, PartialEq, Eq)]
pub enum FleetTarget {
    /// Key-value buckets in NATS. An address may hold a password: print the target, not the addresses.
    Nats(Vec<Url>),
    Firestore {
        project: String,
        database: String,
    },
    Postgres(Box<PostgresAddress>),
    /// A file, for several processes of one host.
    Sqlite(PathBuf),
}

impl fmt::Display for FleetTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats(servers) => write!(f, "{}", BusTarget::Nats(servers.clone())),
            Self::Firestore { project, database } => write!(f, "firestore:{project}/{database}"),
            Self::Postgres(address) => write!(f, "{address}"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl fmt::Debug for FleetTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A fleet that this daemon is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetSettings {
    pub name: LeaseName,
    pub target: FleetTarget,
    /// How long a member counts as alive without a sign of life.
    pub ttl: Duration,
}

/// Reads the section; `None` without a name.
pub(super) fn read(
    reader: &mut Reader<'_>,
    state_dir: &Path,
    google: &GoogleSettings,
    store: &StoreSettings,
    bus: &BusSettings,
) -> Option<FleetSettings> {
    let name = reader.made(&NAME, str::parse::<LeaseName>);
    let url = reader.text(&URL);
    let bounds = Duration::from_secs(3)..=Duration::from_mins(10);
    let ttl = reader.duration(&TTL, bounds);
    // Keys that are set without a name are read, so that their problems are reported.
    let name = name?;
    let target = match &url {
        Some(url) => match target(&url.value, bus, state_dir, google, store) {
            Ok(target) => target,
            Err(message) => {
                reader.refuse_with(&URL, &url.origin, message, FORMS);
                return None;
            }
        },
        None => match of_store(&store.target) {
            Some(target) => target,
            None => {
                let message = "a store in memory cannot be shared, and fleet.url is not set";
                let origin: Origin = name.origin.clone();
                reader.refuse_with(&NAME, &origin, message, FORMS);
                return None;
            }
        },
    };
    let usual = match target {
        FleetTarget::Firestore { .. } => Duration::from_mins(1),
        _ => Duration::from_secs(15),
    };
    Some(FleetSettings {
        name: name.value,
        target,
        ttl: ttl.map_or(usual, |found| found.value),
    })
}

const FORMS: &str = "write nats://HOST:4222, postgres://HOST/DATABASE, firestore:PROJECT or sqlite:PATH";

fn of_store(store: &StoreTarget) -> Option<FleetTarget> {
    Some(match store {
        StoreTarget::Sqlite(path) => FleetTarget::Sqlite(path.with_file_name(FILE)),
        StoreTarget::Firestore { project, database } => FleetTarget::Firestore {
            project: project.clone(),
            database: database.clone(),
        },
        StoreTarget::Postgres(address) => FleetTarget::Postgres(address.clone()),
        StoreTarget::Memory => return None,
    })
}

fn target(
    url: &str,
    bus: &BusSettings,
    state_dir: &Path,
    google: &GoogleSettings,
    store: &StoreSettings,
) -> Result<FleetTarget, String> {
    if url == "nats" {
        return match &bus.target {
            BusTarget::Nats(servers) => Ok(FleetTarget::Nats(servers.clone())),
            _ => Err(
                "nats without an address stands for the servers of bus.url, which is another bus".to_owned(),
            ),
        };
    }
    if url.starts_with("nats:") || url.starts_with("tls:") {
        return match bus::target(url, "", google)? {
            BusTarget::Nats(servers) => Ok(FleetTarget::Nats(servers)),
            _ => Err(format!("`{}` is no address of NATS", clip(url))),
        };
    }
    match store::target(url, state_dir, google, &store.postgres) {
        Ok(StoreTarget::Sqlite(path)) if url.contains(':') => Ok(FleetTarget::Sqlite(path)),
        Ok(target) => of_store(&target).ok_or_else(|| "leases in memory cannot be shared".to_owned()),
        Err((message, _)) => Err(message),
    }
}
