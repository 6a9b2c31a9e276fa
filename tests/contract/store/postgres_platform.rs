//! The platform's own table `sources` in PostgreSQL, in both of its forms, which its services write as well.

use std::collections::BTreeMap;

use bitbrat::core::document::SourceDocument;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, LinkState, Observation, Transport};
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;
use bitbrat::store::Write;
use bitbrat::store::retention::Retention;
use serde_json::{Value, json};

use crate::contract::store::worlds::{PostgresWorld, World, execute, postgres_url};

/// The columns of migrated databases, and of new ones.
const FORMS: [&str; 2] = [
    "id varchar(255) PRIMARY KEY, data jsonb NOT NULL, created_at timestamp DEFAULT now(), updated_at timestamp DEFAULT now()",
    "id text PRIMARY KEY, data jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), \
     updated_at timestamptz NOT NULL DEFAULT now()",
];

async fn world(form: &str) -> PostgresWorld {
    let mut world = PostgresWorld::with(Retention::default()).await;
    let schema = world.target.schema.replacen("test_", "plat_", 1);
    execute(&postgres_url(), &format!("CREATE SCHEMA {schema}"), &[]).await;
    let create = format!("CREATE TABLE {schema}.sources ({form})");
    execute(&postgres_url(), &create, &[]).await;
    world.target.platform_schema = Some(schema);
    world
}

fn table(world: &PostgresWorld) -> String {
    format!("{}.sources", world.target.platform_schema.as_deref().unwrap())
}

async fn theirs(world: &PostgresWorld, id: &str) -> Option<Value> {
    let select = format!("SELECT data::text FROM {} WHERE id = $1", table(world));
    let text = execute(&postgres_url(), &select, &[id]).await?;
    Some(serde_json::from_str(&text).unwrap())
}

/// Writes as the platform's persistence service does.
async fn patch(world: &PostgresWorld, id: &str, patch: Value) {
    let statement = format!(
        "INSERT INTO {} AS sources (id, data, updated_at) VALUES ($1, $2::text::jsonb, now())
         ON CONFLICT (id) DO UPDATE SET data = sources.data || excluded.data, updated_at = now()",
        table(world)
    );
    execute(&postgres_url(), &statement, &[id, &patch.to_string()]).await;
}

fn live(id: &str) -> SourceDocument {
    let key: SourceKey = id.parse().unwrap();
    let facts = [
        Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        },
        Fact::StreamSeen {
            stream_id: "409".into(),
            started_at: None,
        },
        Fact::Viewers {
            count: 37,
            stream_id: Some("409".into()),
        },
        Fact::Profile {
            fields: BTreeMap::from([("displayName".into(), "Ratte".into())]),
        },
    ];
    let at = Timestamp::from_millis(1_780_000_000_000);
    let known = Knowledge::of(&facts.map(|fact| Observation::new(&key, at, "twitch.helix", fact)));
    SourceDocument::from_knowledge(key, known)
}

/// The fields of a document that the platform has.
fn of_platform(document: &SourceDocument) -> Value {
    let mut fields = document.to_stored();
    for ours in ["evidence", "counters", "schemaVersion"] {
        fields.remove(ours);
    }
    fields.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_copied_to_both_forms_of_the_table() {
    for form in FORMS {
        let world = world(form).await;
        let store = world.open().await;
        patch(
            &world,
            "twitch:5",
            json!({ "owner": "team-a", "lastError": { "code": "x" }, "viewerCount": null }),
        )
        .await;
        let document = live("twitch:5");
        store
            .save(&[Write::new(document.clone(), None)])
            .await
            .remove(0)
            .unwrap();
        let mut expected = of_platform(&document);
        assert_eq!(expected["viewerCount"], json!(37));
        expected["owner"] = json!("team-a");
        assert_eq!(theirs(&world, "twitch:5").await, Some(expected));
        assert!(store.delete("twitch:5").await.unwrap());
        assert_eq!(theirs(&world, "twitch:5").await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_of_others_are_replaced_by_ours_within_a_minute() {
    let world = world(FORMS[1]).await;
    let document = live("twitch:5");
    let store = world.open().await;
    store
        .save(&[Write::new(document.clone(), None)])
        .await
        .remove(0)
        .unwrap();
    patch(
        &world,
        "twitch:5",
        json!({ "status": "CONNECTING", "metrics": { "received": 3 }, "viewerCount": "many" }),
    )
    .await;
    patch(
        &world,
        "twitch:409",
        json!({ "id": "409", "streamStatus": "ONLINE" }),
    )
    .await;
    store.tidy().await.unwrap();
    assert_eq!(theirs(&world, "twitch:5").await, Some(of_platform(&document)));
    // What we have no document for is not ours.
    assert!(theirs(&world, "twitch:409").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_table_of_the_platform_stops_no_write() {
    let world = world(FORMS[0]).await;
    execute(&postgres_url(), &format!("DROP TABLE {}", table(&world)), &[]).await;
    let store = world.open().await;
    store
        .save(&[Write::new(live("twitch:5"), None)])
        .await
        .remove(0)
        .unwrap();
    store.tidy().await.unwrap();
    assert_eq!(store.load_all().await.unwrap().len(), 1);
}
