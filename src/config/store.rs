//! `[store]`: where source documents are stored, and how often what is not a transition is written.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::file_path;
use super::google::GoogleSettings;
use super::key::Key;
use super::postgres::PostgresSettings;
use super::problem::Origin;
use super::reader::{Reader, clip, is_foreign};
use crate::store::postgres::PostgresAddress;

pub const URL: Key = Key::new(
        "store.url",
        "sqlite[:PATH] | firestore[:PROJECT[/DATABASE]] | postgres[://HOST/DATABASE] | memory. Or PERSISTENCE_DRIVER.",
    )
    .or("sqlite");
const COLLECTION: Key = Key::new(
    "store.collection",
    "Name of the collection that holds the documents.",
)
.or("sources");
const HEARTBEAT: Key = Key::new(
    "store.heartbeat",
    "Shortest time between two writes of one source that are no transitions. Default: 30s, on Firestore 5m.",
)
.such_as("30s");
const HISTORY: Key = Key::new("store.history", "Transitions and sessions kept a source.").or("500");
const DRIVER: Key = Key::new(
    "store.driver",
    "The platform's own choice: firestore, or postgres with DATABASE_URL; counts when store.url is not set.",
)
.named(&["PERSISTENCE_DRIVER"])
.environment_only()
.shared();

pub(super) const KEYS: &[Key] = &[URL, COLLECTION, HEARTBEAT, HISTORY, DRIVER];

/// Where documents are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreTarget {
    /// A SQLite file; created when it is missing.
    Sqlite(PathBuf),
    Firestore {
        project: String,
        database: String,
    },
    /// A database in PostgreSQL.
    Postgres(Box<PostgresAddress>),
    /// In memory; lost when the process ends.
    Memory,
}

impl StoreTarget {
    /// Returns the word for this kind of store in an address.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Firestore { .. } => "firestore",
            Self::Postgres(_) => "postgres",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for StoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Firestore { project, database } => write!(f, "firestore:{project}/{database}"),
            Self::Postgres(address) => write!(f, "{address}"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

#[derive(Debug, Clone)]
pub struct StoreSettings {
    pub target: StoreTarget,
    pub collection: String,
    /// Shortest time between two writes of one source that are no transitions.
    pub heartbeat: Duration,
    /// History entries kept a source.
    pub history: usize,
    /// What addresses of PostgreSQL do not contain.
    pub postgres: PostgresSettings,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    state_dir: &std::path::Path,
    google: &GoogleSettings,
    postgres: PostgresSettings,
) -> StoreSettings {
    let found = reader.text(&URL);
    let driver = reader.text(&DRIVER);
    let (url, origin) = match (found, driver) {
        (Some(url), Some(driver)) if url.origin == Origin::Default => {
            match driver.value.to_ascii_lowercase().as_str() {
                "firestore" => ("firestore".to_owned(), driver.origin),
                // The platform's default; without an address nobody meant it for this program.
                "postgres" if postgres.database_url.is_some() => ("postgres".to_owned(), driver.origin),
                _ => (url.value, url.origin),
            }
        }
        (Some(url), _) => (url.value, url.origin),
        (None, _) => ("sqlite".to_owned(), Origin::Default),
    };
    let fallback = StoreTarget::Sqlite(state_dir.join("bitbrat.db"));
    let target = match target(&url, state_dir, google, &postgres) {
        Ok(target) => target,
        Err((message, hint)) => {
            // Chosen by the platform's variable: it contains no location, so our own setting applies.
            if is_foreign(&DRIVER, &origin) {
                let message = format!("{message}; {fallback} is used instead");
                reader.warn_with(DRIVER.path, &origin, message, hint);
            } else {
                reader.refuse_with(&URL, &origin, message, hint);
            }
            fallback
        }
    };
    let collection = reader.text(&COLLECTION);
    let collection = match collection {
        Some(found) if found.value.contains('/') || found.value.starts_with("__") => {
            reader.refuse(
                &COLLECTION,
                &found.origin,
                format!("`{}` is not the name of a collection", clip(&found.value)),
            );
            "sources".to_owned()
        }
        Some(found) => found.value,
        None => "sources".to_owned(),
    };
    let default_heartbeat = match target {
        StoreTarget::Firestore { .. } => Duration::from_mins(5),
        StoreTarget::Sqlite(_) | StoreTarget::Postgres(_) | StoreTarget::Memory => Duration::from_secs(30),
    };
    let bounds = Duration::from_secs(1)..=Duration::from_hours(24);
    StoreSettings {
        heartbeat: reader
            .duration(&HEARTBEAT, bounds)
            .map_or(default_heartbeat, |found| found.value),
        history: usize::try_from(reader.number(&HISTORY, 1..=100_000).unwrap_or(500)).unwrap_or(500),
        target,
        collection,
        postgres,
    }
}

/// Parses a store's address. Also used for `store migrate FROM TO`.
pub(super) fn target(
    url: &str,
    state_dir: &std::path::Path,
    google: &GoogleSettings,
    postgres: &PostgresSettings,
) -> Result<StoreTarget, (String, &'static str)> {
    const FORMS: &str = "write sqlite, sqlite:PATH, firestore:PROJECT, firestore:PROJECT/DATABASE, postgres://HOST/DATABASE or memory";
    let (kind, rest) = url.split_once(':').map_or((url, ""), |(kind, rest)| (kind, rest));
    match kind {
        "sqlite" if rest.is_empty() && url.ends_with(':') => {
            Err((format!("`{}` names no file", clip(url)), FORMS))
        }
        "sqlite" if rest.is_empty() => Ok(StoreTarget::Sqlite(state_dir.join("bitbrat.db"))),
        "sqlite" => match file_path::check(rest) {
            Ok(()) => Ok(StoreTarget::Sqlite(PathBuf::from(
                rest.strip_prefix("//").unwrap_or(rest),
            ))),
            Err(message) => Err((message, FORMS)),
        },
        "postgres" | "postgresql" => postgres
            .address(url)
            .map(|address| StoreTarget::Postgres(Box::new(address))),
        "memory" if url == "memory" => Ok(StoreTarget::Memory),
        "firestore" => {
            let (project, database) = rest.split_once('/').unwrap_or((rest, ""));
            let project = match project {
                "" => google.firestore_project.as_deref().unwrap_or_default(),
                named => named,
            };
            let database = match database {
                "" => google.firestore_database.as_str(),
                named => named,
            };
            if project.is_empty() {
                return Err((
                    "firestore needs a project".to_owned(),
                    "write firestore:PROJECT, or set GCLOUD_PROJECT",
                ));
            }
            if [project, database].iter().any(|name| name.contains(['/', ' '])) {
                return Err((format!("`{}` is not a project and a database", clip(url)), FORMS));
            }
            Ok(StoreTarget::Firestore {
                project: project.to_owned(),
                database: database.to_owned(),
            })
        }
        _ => Err((format!("`{}` is not a store", clip(url)), FORMS)),
    }
}
