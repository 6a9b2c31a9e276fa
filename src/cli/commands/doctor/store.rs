//! Checks the store: whether it answers, what it contains, and what a day costs.

use std::time::Instant;

use crate::app::{self, App, StoreAccess};
use crate::cli::output::humane;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::config::StoreTarget;
use crate::core::freshness::age_ms;
use crate::core::time::Timestamp;
use crate::failure::Failure;
use crate::store::postgres::Diagnosis;
use crate::store::{SourceStore, StoreError, Stored, Unusable};

const AREA: &str = "store";
/// Document writes per day in Firestore's free quota.
const FREE_WRITES: u64 = 20_000;

pub async fn check(app: &App) -> Vec<Check> {
    let mut checks = Vec::new();
    // Unfiltered: evidence from the future is to be found here, not hidden.
    match app
        .open_unguarded_store(&app.settings.store.target, StoreAccess::Write)
        .await
    {
        Ok(store) => {
            checks.push(reachable(store.as_ref()).await);
            checks.extend(server(app).await);
            checks.extend(documents(store.as_ref(), app.clock.now()).await);
        }
        Err(failure) => checks.push(failed(&failure)),
    }
    checks.extend(write_policy(app));
    checks
}

/// Checks only whether documents can be written.
pub async fn writable(app: &App) -> Check {
    match app
        .open_unguarded_store(&app.settings.store.target, StoreAccess::Write)
        .await
    {
        Ok(store) => reachable(store.as_ref()).await,
        Err(failure) => failed(&failure),
    }
}

async fn reachable(store: &dyn SourceStore) -> Check {
    let started = Instant::now();
    match store.check().await {
        Ok(()) => {
            let millis = started.elapsed().as_millis();
            let detail = format!("{}: write, read, delete in {millis} ms", store.location());
            Check::new(AREA, "reachable", Outcome::Ok, detail)
        }
        Err(error) => failed(&Failure::from(error)),
    }
}

/// Checks what is particular to PostgreSQL. A server that cannot be reached is reported once.
async fn server(app: &App) -> Vec<Check> {
    match app::postgres_diagnosis(&app.settings).await {
        Some(Ok(found)) => vec![of_server(&found), of_notifications(&found)],
        Some(Err(_)) | None => Vec::new(),
    }
}

fn of_server(found: &Diagnosis) -> Check {
    let encryption = if found.is_encrypted { "with" } else { "without" };
    let schema = match found.schema_version {
        Some(version) => format!("version {version} of {}", found.newest_schema),
        None => "made at the first write".to_owned(),
    };
    let detail = format!(
        "PostgreSQL {} {encryption} TLS; schema {}: {schema}",
        found.server, found.schema
    );
    Check::new(AREA, "server", Outcome::Ok, detail)
}

fn of_notifications(found: &Diagnosis) -> Check {
    let check = |outcome, detail: &str| Check::new(AREA, "notifications", outcome, detail.to_owned());
    match (found.has_notifications, found.is_pooled) {
        (true, _) => check(Outcome::Ok, "changes are received at once"),
        (false, true) => check(
            Outcome::Ok,
            "none through a pooler; `status --watch` compares the documents every second",
        ),
        (false, false) => check(
            Outcome::Warn,
            "none received within 2 s, so a pooler seems to be in between; `status --watch` compares the documents every second",
        )
        .next("bitbrat config show  # store.pooler = true, or the address of the server itself"),
    }
}

fn failed(failure: &Failure) -> Check {
    let check = Check::of_failure(AREA, "reachable", Outcome::Fail, failure);
    let next = check.next.clone().filter(|hint| !hint.contains("doctor"));
    check.next(next.unwrap_or_else(|| "bitbrat config show".to_owned()))
}

async fn documents(store: &dyn SourceStore, now: Timestamp) -> Vec<Check> {
    let stored = match store.load_all().await {
        Ok(stored) => stored,
        Err(error) => return vec![documents_failed(&error)],
    };
    let future = from_the_future(&stored, now);
    let usable = stored.iter().filter(|stored| stored.document.is_ok()).count();
    let mut checks = vec![Check::new(
        AREA,
        "documents",
        Outcome::Ok,
        humane::count(usable as u64, "source"),
    )];
    for stored in &stored {
        let Err(reason) = &stored.document else { continue };
        let check = Check::new(
            AREA,
            "documents",
            Outcome::Warn,
            format!("{}: {reason}", stored.document_id),
        );
        checks.push(match reason {
            Unusable::NotASource | Unusable::Orphan { .. } => check.next("bitbrat sources prune"),
            Unusable::Broken(_) => check,
        });
    }
    checks.extend(future);
    checks
}

/// Finds evidence that is dated in the future: some clock was ahead when it was stored, or this one is behind.
fn from_the_future(stored: &[Stored], now: Timestamp) -> Option<Check> {
    let documents = stored.iter().filter_map(|stored| stored.document.as_ref().ok());
    let ahead: Vec<_> = documents
        .filter_map(|found| found.value.clone().newest_future(now))
        .collect();
    let newest = ahead.iter().max()?;
    let detail = format!(
        "{} evidence dated in the future, up to {} ahead; it is ignored, and replaced at the next check. The clock of this \
         machine, or of another that writes here, is or was wrong",
        match ahead.len() {
            1 => "1 source has".to_owned(),
            many => format!("{} have", humane::count(many as u64, "source")),
        },
        humane::span(age_ms(*newest, now)),
    );
    Some(Check::new(AREA, "evidence", Outcome::Warn, detail).next("bitbrat probe"))
}

/// Returns how far ahead of this machine's clock the newest stored evidence is dated, in milliseconds, where that is too far.
pub(super) async fn ahead(app: &App) -> Option<u64> {
    let target = &app.settings.store.target;
    let store = app.open_unguarded_store(target, StoreAccess::Read).await.ok()?;
    let (stored, now) = (store.load_all().await.ok()?, app.clock.now());
    let documents = stored.into_iter().filter_map(|stored| stored.document.ok());
    let newest = documents.filter_map(|found| found.value.newest_future(now)).max();
    newest.map(|newest| age_ms(newest, now))
}

fn documents_failed(error: &StoreError) -> Check {
    Check::new(AREA, "documents", Outcome::Fail, error.to_string())
}

/// Predicts what a day costs where each document is a request. In a file, what confirms many sources is one row.
fn write_policy(app: &App) -> Option<Check> {
    if matches!(app.settings.store.target, StoreTarget::Sqlite(_)) {
        return None;
    }
    let sources = app.settings.sources.len();
    let day = app.expected_day(sources);
    let detail = format!(
        "expected for {2} with `watch`: {0} and {1} a day",
        humane::count(day.writes(), "write"),
        humane::count(day.reads, "read"),
        humane::count(sources as u64, "configured source"),
    );
    Some(match &app.settings.store.target {
        StoreTarget::Firestore { .. } if day.writes() > FREE_WRITES => Check::new(
            AREA,
            "economy",
            Outcome::Warn,
            format!("{detail}; {} a day are free", humane::thousands(FREE_WRITES)),
        )
        .next("bitbrat config show  # store.heartbeat: longer means fewer writes"),
        _ => Check::new(AREA, "economy", Outcome::Ok, detail),
    })
}
