//! `[firestore]` and `[pubsub]`: projects, emulators and credentials of Google Cloud.

use std::path::PathBuf;

use super::key::Key;
use super::reader::{Reader, clip};

const FIRESTORE_PROJECT: Key = Key::new(
    "firestore.project",
    "Project of the store, where store.url does not name it.",
)
.named(&["GCLOUD_PROJECT", "GOOGLE_CLOUD_PROJECT"])
.such_as("my-project");
const FIRESTORE_DATABASE: Key = Key::new(
    "firestore.database",
    "Database of the store, where store.url does not name it.",
)
.named(&["FIRESTORE_DATABASE_ID"])
.or("(default)");
const FIRESTORE_EMULATOR_HOST: Key = Key::new(
    "firestore.emulator_host",
    "HOST:PORT of a Firestore emulator; no credentials are used then.",
)
.named(&["FIRESTORE_EMULATOR_HOST"])
.such_as("127.0.0.1:8080");
// The platform reads these two in the opposite order than for Firestore.
const PUBSUB_PROJECT: Key = Key::new(
    "pubsub.project",
    "Project of the bus, where bus.url does not name it.",
)
.named(&["GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "PROJECT_ID"])
.such_as("my-project");
const PUBSUB_EMULATOR_HOST: Key = Key::new(
    "pubsub.emulator_host",
    "HOST:PORT of a Pub/Sub emulator; no credentials are used then.",
)
.named(&["PUBSUB_API_ENDPOINT", "PUBSUB_EMULATOR_HOST"])
.such_as("127.0.0.1:8085");
const GOOGLE_CREDENTIALS_FILE: Key = Key::new(
    "google.credentials_file",
    "Key file of a service account. Default: application default credentials.",
)
.named(&["GOOGLE_APPLICATION_CREDENTIALS"])
.such_as("/etc/bitbrat/service-account.json")
.file();

pub(super) const KEYS: &[Key] = &[
    FIRESTORE_PROJECT,
    FIRESTORE_DATABASE,
    FIRESTORE_EMULATOR_HOST,
    PUBSUB_PROJECT,
    PUBSUB_EMULATOR_HOST,
    GOOGLE_CREDENTIALS_FILE,
];

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GoogleSettings {
    pub firestore_project: Option<String>,
    pub firestore_database: String,
    /// `HOST:PORT` of a Firestore emulator.
    pub firestore_emulator: Option<String>,
    pub pubsub_project: Option<String>,
    /// `HOST:PORT` of a Pub/Sub emulator.
    pub pubsub_emulator: Option<String>,
    /// Key file of a service account; else application default credentials.
    pub credentials_file: Option<PathBuf>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> GoogleSettings {
    let text = |reader: &mut Reader<'_>, key: &Key| reader.text(key).map(|found| found.value);
    GoogleSettings {
        firestore_project: text(reader, &FIRESTORE_PROJECT),
        firestore_database: text(reader, &FIRESTORE_DATABASE).unwrap_or_else(|| "(default)".to_owned()),
        firestore_emulator: host(reader, &FIRESTORE_EMULATOR_HOST),
        pubsub_project: text(reader, &PUBSUB_PROJECT),
        pubsub_emulator: host(reader, &PUBSUB_EMULATOR_HOST),
        credentials_file: reader.path(&GOOGLE_CREDENTIALS_FILE),
    }
}

/// Reads `HOST:PORT`; a scheme in front is tolerated, as Google's own tools do.
fn host(reader: &mut Reader<'_>, key: &Key) -> Option<String> {
    let found = reader.made(key, |text| {
        let bare = text.trim_start_matches("http://").trim_end_matches('/');
        let port = bare.rsplit_once(':').and_then(|(host, port)| {
            port.parse::<u16>()
                .ok()
                .filter(|port| *port > 0 && !host.is_empty())
        });
        port.map(|_| bare.to_owned())
            .ok_or_else(|| format!("`{}` is not HOST:PORT", clip(text)))
    })?;
    Some(found.value)
}
