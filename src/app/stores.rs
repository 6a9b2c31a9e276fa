//! Opens stores.

use std::sync::Arc;

use super::StoreAccess;
use crate::config::{Settings, StoreTarget, TokenTarget};
use crate::failure::Failure;
use crate::store::firestore::{FirestoreStore, FirestoreTarget};
use crate::store::memory::MemoryStore;
use crate::store::postgres::{
    Diagnosis, PostgresAccess, PostgresAddress, PostgresStore, PostgresTarget, TlsMode,
};
use crate::store::retention::Retention;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{SourceStore, StoreError};
use crate::tokens::{
    FileTokenStore, FirestoreTokenOptions, FirestoreTokenStore, PostgresTokenOptions, PostgresTokenStore,
    TokenStore,
};

/// Opens a store without filtering, evidence that no reader would accept included.
pub(super) async fn open_unguarded(
    settings: &Settings,
    target: &StoreTarget,
    access: StoreAccess,
) -> Result<Arc<dyn SourceStore>, Failure> {
    let retention = retention(settings);
    Ok(match target {
        StoreTarget::Sqlite(path) => {
            let options = SqliteOptions {
                retention,
                ..SqliteOptions::default()
            };
            match access {
                StoreAccess::Read => Arc::new(SqliteStore::open_read_only(path, options).await?),
                StoreAccess::Write => Arc::new(SqliteStore::open(path, options).await?),
            }
        }
        StoreTarget::Memory => Arc::new(MemoryStore::new(retention)),
        // It connects on the first request; a store that is down fails then.
        StoreTarget::Firestore { project, database } => {
            if settings.google.firestore_emulator.is_none() {
                super::needs_certificates("cannot use the store")?;
            }
            Arc::new(firestore(settings, project, database, retention))
        }
        StoreTarget::Postgres(address) => Arc::new(PostgresStore::new(PostgresTarget {
            retention,
            access: match access {
                StoreAccess::Read => PostgresAccess::Read,
                StoreAccess::Write => PostgresAccess::Write,
            },
            platform_schema: settings
                .store
                .postgres
                .platform_sources
                .then(|| "public".to_owned()),
            ..postgres_target(settings, address, "store.url", "cannot use the store")?
        })),
    })
}

/// Returns the limits of the history.
pub(super) fn retention(settings: &Settings) -> Retention {
    Retention {
        entries: settings.store.history,
        ..Retention::default()
    }
}

fn firestore(settings: &Settings, project: &str, database: &str, retention: Retention) -> FirestoreStore {
    FirestoreStore::new(FirestoreTarget {
        collection: settings.store.collection.clone(),
        retention,
        ..firestore_target(settings, project, database)
    })
}

pub(super) fn firestore_target(settings: &Settings, project: &str, database: &str) -> FirestoreTarget {
    FirestoreTarget {
        emulator: settings.google.firestore_emulator.clone(),
        credentials_file: settings.google.credentials_file.clone(),
        ..FirestoreTarget::new(project, database)
    }
}

pub(super) fn postgres_target(
    settings: &Settings,
    address: &PostgresAddress,
    setting: &'static str,
    failed: &'static str,
) -> Result<PostgresTarget, Failure> {
    if address.tls == TlsMode::Verify && address.root_cert.is_none() {
        super::needs_certificates(failed)?;
    }
    let own = &settings.store.postgres;
    Ok(PostgresTarget {
        schema: own.schema.clone(),
        pooler: own.pooler,
        connections: own.connections,
        setting,
        ..PostgresTarget::new(address.clone())
    })
}

/// Opens a token store. It connects on the first request.
pub(super) fn tokens(settings: &Settings, target: &TokenTarget) -> Result<Arc<dyn TokenStore>, Failure> {
    Ok(match target {
        TokenTarget::File(path) => Arc::new(FileTokenStore::new(path)),
        TokenTarget::Keyring(name) => keyring(settings, name)?,
        TokenTarget::Firestore { project, database } => {
            if settings.google.firestore_emulator.is_none() {
                super::needs_certificates("cannot use the token store")?;
            }
            Arc::new(FirestoreTokenStore::new(FirestoreTokenOptions {
                target: FirestoreTarget {
                    setting: "tokens.url",
                    ..firestore_target(settings, project, database)
                },
                bot_path: settings.tokens.bot_path.clone(),
                broadcaster_path: settings.tokens.broadcaster_path.clone(),
                refresh: settings.tokens.refresh,
                file: settings.tokens.file.clone(),
            }))
        }
        TokenTarget::Postgres(address) => Arc::new(PostgresTokenStore::new(PostgresTokenOptions {
            target: PostgresTarget {
                // Reading tokens must not make tables in the platform's database.
                access: match settings.tokens.refresh {
                    true => PostgresAccess::Write,
                    false => PostgresAccess::Read,
                },
                ..postgres_target(settings, address, "tokens.url", "cannot use the token store")?
            },
            platform_schema: "public".to_owned(),
            bot_path: settings.tokens.bot_path.clone(),
            broadcaster_path: settings.tokens.broadcaster_path.clone(),
            refresh: settings.tokens.refresh,
            file: settings.tokens.file.clone(),
        })),
    })
}

#[cfg(all(feature = "keyring", target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "it fails in other builds")]
fn keyring(settings: &Settings, name: &str) -> Result<Arc<dyn TokenStore>, Failure> {
    Ok(Arc::new(crate::tokens::KeyringTokenStore::new(
        name,
        &settings.tokens.file,
    )))
}

#[cfg(not(all(feature = "keyring", target_os = "linux")))]
fn keyring(_: &Settings, _: &str) -> Result<Arc<dyn TokenStore>, Failure> {
    let what = "this bitbrat cannot use a keyring: that needs Linux and the Cargo feature `keyring`";
    Err(Failure::new(crate::failure::ExitCode::Configuration, what).hint("set tokens.url = \"file\""))
}

/// Returns the rules of the platform's router, by id; `None` where they are not in the store in use.
pub async fn routing_rules(
    settings: &Settings,
) -> Option<Result<Vec<(String, serde_json::Value)>, StoreError>> {
    let StoreTarget::Firestore { project, database } = &settings.store.target else {
        return None;
    };
    let store = firestore(settings, project, database, Retention::default());
    Some(store.others("configs/routingRules", "rules").await)
}

/// Returns what the server of the store reports about itself; `None` where the store is not in PostgreSQL.
pub async fn postgres_diagnosis(settings: &Settings) -> Option<Result<Diagnosis, Failure>> {
    let StoreTarget::Postgres(address) = &settings.store.target else {
        return None;
    };
    let target = match postgres_target(settings, address, "store.url", "cannot use the store") {
        Ok(target) => target,
        Err(failure) => return Some(Err(failure)),
    };
    Some(PostgresStore::new(target).diagnose().await.map_err(Failure::from))
}
