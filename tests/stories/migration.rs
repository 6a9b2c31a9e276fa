//! `bitbrat store migrate`, from a file to Firestore and back, and through all stores.

use std::sync::Arc;

use bitbrat::core::source::SourceKey;
use bitbrat::store::SourceStore;
use bitbrat::store::retention::Retention;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::{Value, json};

use crate::contract::store::worlds::{FirestoreWorld, PostgresWorld, World, emulator, postgres_url};
use crate::stories::publishing::describe;
use crate::stories::scenarios;
use crate::support::Home;

/// The result for each document of a run, sorted.
fn copied(stdout: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(stdout).unwrap();
    let word = |item: &Value| {
        format!(
            "{} {}",
            item["key"].as_str().unwrap(),
            item["copied"].as_str().unwrap()
        )
    };
    let mut words: Vec<_> = list["items"].as_array().unwrap().iter().map(word).collect();
    words.sort();
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_and_history_migrate_to_firestore_and_back() {
    let world = FirestoreWorld::with(Retention::default()).await;
    let firestore = format!("firestore:{}", world.target.project);
    let home = Home::new().env("FIRESTORE_EMULATOR_HOST", &emulator());
    let old = home.work().join("old.db");
    let store: Arc<dyn SourceStore> =
        Arc::new(SqliteStore::open(&old, SqliteOptions::default()).await.unwrap());
    let reported = [
        scenarios::a_stream_goes_live_drops_for_forty_seconds_resumes_and_ends(),
        scenarios::a_connection_is_lost_heals_and_is_refused(),
    ];
    for scenario in &reported {
        describe(&store, &scenario.observations).await;
    }
    // A document in both stores is merged, and fields of other programs in it stay.
    world
        .put_raw(
            "kick:5",
            json!({ "owner": "team-a", "metrics": { "received": 1 } }),
        )
        .await;

    let there = ["store", "migrate", "sqlite:old.db", &firestore, "-o", "json"];
    let dry = home.run(&[&there[..], &["--dry-run"]].concat()).exits(0);
    assert_eq!(copied(&dry.stdout), ["kick:5 joined", "twitch:900200 new"]);
    assert!(world.raw("twitch:900200").await.is_none());
    assert_eq!(
        copied(&home.run(&there).exits(0).stdout),
        ["kick:5 joined", "twitch:900200 new"]
    );
    assert_eq!(
        copied(&home.run(&there).exits(0).stdout),
        ["kick:5 unchanged", "twitch:900200 unchanged"]
    );
    assert_eq!(world.raw("kick:5").await.unwrap()["owner"], "team-a");

    let back = ["store", "migrate", &firestore, "sqlite:new.db", "-o", "json"];
    assert_eq!(
        copied(&home.run(&back).exits(0).stdout),
        ["kick:5 new", "twitch:900200 new"]
    );
    let new = SqliteStore::open(&home.work().join("new.db"), SqliteOptions::default())
        .await
        .unwrap();
    let key: SourceKey = "twitch:900200".parse().unwrap();
    let document = |found: Option<bitbrat::store::Versioned<bitbrat::core::document::SourceDocument>>| {
        found.unwrap().value.to_stored()
    };
    assert_eq!(
        document(new.load(&key).await.unwrap()),
        document(store.load(&key).await.unwrap())
    );
    for key in [key, "kick:5".parse().unwrap()] {
        let before = store.history(&key, 100).await.unwrap();
        assert!(before.len() >= 4);
        assert_eq!(new.history(&key, 100).await.unwrap(), before);
        assert_eq!(world.open().await.history(&key, 100).await.unwrap(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_and_history_migrate_through_every_store() {
    let (remote, database) = (
        FirestoreWorld::with(Retention::default()).await,
        PostgresWorld::with(Retention::default()).await,
    );
    let firestore = format!("firestore:{}", remote.target.project);
    let home = Home::new()
        .env("FIRESTORE_EMULATOR_HOST", &emulator())
        .env("DATABASE_URL", &postgres_url())
        .env("BITBRAT_STORE__SCHEMA", &database.target.schema);
    let old = home.work().join("old.db");
    let store: Arc<dyn SourceStore> =
        Arc::new(SqliteStore::open(&old, SqliteOptions::default()).await.unwrap());
    let scenario = scenarios::a_connection_is_lost_heals_and_is_refused();
    describe(&store, &scenario.observations).await;
    let key = scenario.observations[0].source.clone();

    for (from, to) in [
        ("sqlite:old.db", "postgres"),
        ("postgres", firestore.as_str()),
        (firestore.as_str(), "sqlite:between.db"),
        (firestore.as_str(), "postgres"),
        ("postgres", "sqlite:new.db"),
    ] {
        let run = home.run(&["store", "migrate", from, to, "-o", "json"]).exits(0);
        let expected = match (from, to) {
            (_, "postgres") if from != "sqlite:old.db" => "unchanged",
            _ => "new",
        };
        assert_eq!(
            copied(&run.stdout),
            [format!("{key} {expected}")],
            "{from} to {to}"
        );
        assert!(!run.stdout.contains("password"), "{}", run.stdout);
    }
    let before = store.history(&key, 100).await.unwrap();
    assert!(before.len() >= 4);
    let stored = store.load(&key).await.unwrap().unwrap().value.to_stored();
    let new = SqliteStore::open(&home.work().join("new.db"), SqliteOptions::default()).await;
    let others: [Arc<dyn SourceStore>; 3] =
        [database.open().await, remote.open().await, Arc::new(new.unwrap())];
    for other in others {
        assert_eq!(other.load(&key).await.unwrap().unwrap().value.to_stored(), stored);
        assert_eq!(other.history(&key, 100).await.unwrap(), before);
    }
}
