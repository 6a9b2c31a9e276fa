//! Is the store there, what is in it, and what will a day cost?

use std::time::Instant;

use crate::app::{Access, App};
use crate::cli::output::humane;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::config::StoreTarget;
use crate::failure::Failure;
use crate::store::{SourceStore, StoreError, Unusable};

const AREA: &str = "store";
/// Documents that Firestore writes in a day without being paid for.
const FREE_WRITES: u64 = 20_000;

/// Checks the configured store.
pub async fn check(app: &App) -> Vec<Check> {
    let mut checks = Vec::new();
    match app.store(Access::Write).await {
        Ok(store) => {
            checks.push(reachable(store.as_ref()).await);
            checks.extend(documents(store.as_ref()).await);
        }
        Err(failure) => checks.push(failed(&failure)),
    }
    checks.push(economy(app));
    checks
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

fn failed(failure: &Failure) -> Check {
    let mut words = vec![failure.what.clone()];
    words.extend(failure.causes.clone());
    let check = Check::new(AREA, "reachable", Outcome::Fail, words.join(": "));
    match failure.hints.first() {
        Some(hint) if !hint.contains("doctor") => check.next(hint.clone()),
        _ => check.next("bitbrat config show"),
    }
}

async fn documents(store: &dyn SourceStore) -> Vec<Check> {
    let stored = match store.load_all().await {
        Ok(stored) => stored,
        Err(error) => return vec![documents_failed(&error)],
    };
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
    checks
}

fn documents_failed(error: &StoreError) -> Check {
    Check::new(AREA, "documents", Outcome::Fail, error.to_string())
}

/// Predicts what a day costs.
fn economy(app: &App) -> Check {
    let sources = app.settings.sources.len();
    let day = app.expected_day(sources);
    let detail = format!(
        "{} writes and {} reads a day are expected for {} with `watch`",
        humane::thousands(day.writes()),
        humane::thousands(day.reads),
        humane::count(sources as u64, "configured source"),
    );
    match &app.settings.store.target {
        StoreTarget::Firestore { .. } if day.writes() > FREE_WRITES => Check::new(
            AREA,
            "economy",
            Outcome::Warn,
            format!("{detail}; {} a day are free", humane::thousands(FREE_WRITES)),
        )
        .next("bitbrat config show  # store.heartbeat: longer means fewer writes"),
        _ => Check::new(AREA, "economy", Outcome::Ok, detail),
    }
}
