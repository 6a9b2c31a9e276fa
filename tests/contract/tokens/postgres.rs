//! The platform's token rows in PostgreSQL, which other programs write as well.

use bitbrat::core::observation::Identity;
use bitbrat::core::time::Timestamp;
use bitbrat::tokens::{RefreshIntent, RefreshToken, StoredToken, TokenError, TokenStore, TokenStoreExt as _};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::worlds::Database;

fn bot() -> Identity {
    Identity::named("twitch/bot")
}

/// The row of a login at the platform, with a field that we do not know.
fn written_by_platform(user: &str, access: &str) -> Value {
    json!({ "accessToken": access, "refreshToken": format!("{access}-refresh"), "scope": ["chat:read"], "expiresIn": 3600,
        "obtainmentTimestamp": 1_000, "userId": user, "updatedAt": 1_000, "more": { "a": null } })
}

fn token(user: Option<&str>, access: &str) -> StoredToken {
    StoredToken {
        refresh: Some(RefreshToken::fresh(format!("{access}-refresh"))),
        user_id: user.map(str::to_owned),
        scopes: ["chat:read".to_owned(), "chat:edit".to_owned()].into(),
        expires_at: Some(Timestamp::EPOCH.plus_secs(110)),
        ..StoredToken::unproven(access.to_owned(), Timestamp::EPOCH.plus_secs(10))
    }
}

/// A database with a row of the bot, which is user 7, and a machine.
async fn bot_of_platform() -> (Database, TempDir) {
    let database = Database::new().await;
    database
        .put("twitch:bot", written_by_platform("7", "first"))
        .await;
    (database, tempfile::tempdir().unwrap())
}

async fn access(store: &dyn TokenStore, identity: &Identity) -> Option<String> {
    let token = store.load(identity).await.unwrap()?;
    Some(token.access.expose_secret().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_only_read_unless_refresh_is_enabled() {
    let (database, machine) = bot_of_platform().await;
    let before = database.row("twitch:bot").await;
    let store = database.open(&machine, false);
    assert_eq!(store.identities().await.unwrap(), [bot()]);
    let snapshot = store.read(&bot()).await.unwrap();
    let found = snapshot.record.token.unwrap();
    assert_eq!(
        (found.user_id.as_deref(), found.access.expose_secret()),
        (Some("7"), "first")
    );
    assert_eq!(found.expires_at, Some(Timestamp::EPOCH.plus_secs(3601)));
    assert!(snapshot.read_at.is_some(), "the server has a clock");
    let error = store
        .set_token(&bot(), Some(token(Some("7"), "second")))
        .await
        .unwrap_err();
    assert!(matches!(error, TokenError::ReadOnly { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("twitch_tokens/twitch:bot"), "{message}");
    assert_eq!(database.row("twitch:bot").await, before);
    let made = database
        .execute("SELECT to_regnamespace($1)::text", &[&database.own_schema()])
        .await;
    assert_eq!(made, None, "reading makes no tables");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_fields_of_the_pair_are_written() {
    let (database, machine) = bot_of_platform().await;
    let mut before = database.row("twitch:bot").await.unwrap();
    let store = database.open(&machine, true);
    store
        .set_token(&bot(), Some(token(Some("7"), "second")))
        .await
        .unwrap();
    let mut after = database.row("twitch:bot").await.unwrap();
    assert_eq!(
        [
            &after["accessToken"],
            &after["refreshToken"],
            &after["expiresIn"],
            &after["obtainmentTimestamp"],
            &after["scope"]
        ],
        [
            &json!("second"),
            &json!("second-refresh"),
            &json!(100),
            &json!(10_000),
            &json!(["chat:edit", "chat:read"])
        ]
    );
    assert!(
        after["updatedAt"].as_i64().unwrap() > 1_700_000_000_000,
        "{after}"
    );
    for document in [&mut before, &mut after] {
        for name in [
            "accessToken",
            "refreshToken",
            "expiresIn",
            "obtainmentTimestamp",
            "scope",
            "updatedAt",
        ] {
            document.as_object_mut().unwrap().remove(name).unwrap();
        }
    }
    assert_eq!(
        before, after,
        "user and other fields stay; expiresAt is not added"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_of_the_platform_in_between_is_a_conflict() {
    let (database, machine) = bot_of_platform().await;
    let store = database.open(&machine, true);
    let read = store.read(&bot()).await.unwrap();
    let theirs = written_by_platform("7", "theirs");
    database.put("twitch:bot", theirs.clone()).await;
    let mut record = read.record;
    record.replace_token(Some(token(Some("7"), "ours")));
    let error = store.write(&bot(), &record, &read.version).await.unwrap_err();
    assert!(matches!(error, TokenError::Conflict { .. }), "{error:?}");
    assert_eq!(database.row("twitch:bot").await, Some(theirs));
    assert_eq!(access(&store, &bot()).await.as_deref(), Some("theirs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_of_another_user_never_lands_in_the_row() {
    let (database, machine) = bot_of_platform().await;
    let before = database.row("twitch:bot").await;
    let store = database.open(&machine, true);
    for user in [Some("8"), None] {
        let error = store
            .set_token(&bot(), Some(token(user, "broadcasters")))
            .await
            .unwrap_err();
        assert!(matches!(error, TokenError::OtherOwner { .. }), "{error:?}");
    }
    assert_eq!(database.row("twitch:bot").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_refresh_ends_with_the_pair_that_the_platform_replaces() {
    let (database, machine) = bot_of_platform().await;
    let store = database.open(&machine, true);
    let mut read = store.read(&bot()).await.unwrap();
    let pair = read.record.token.as_ref().unwrap();
    let refresh = pair.refresh.as_ref().unwrap().secret.clone();
    read.record.intent = Some(RefreshIntent::plan("here", 1, &refresh, Timestamp::EPOCH));
    let generation = read.record.generation;
    store.write(&bot(), &read.record, &read.version).await.unwrap();
    assert!(store.read(&bot()).await.unwrap().record.intent.is_some());
    // The platform replaces the whole row at each refresh.
    database
        .put("twitch:bot", written_by_platform("7", "theirs"))
        .await;
    let read = store.read(&bot()).await.unwrap().record;
    assert!(read.intent.is_none() && read.generation > generation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_without_the_platforms_tables_has_no_tokens() {
    let database = Database::new().await;
    for table in ["twitch_tokens", "auth_scopes"] {
        database.execute(&format!("DROP TABLE {{p}}.{table}"), &[]).await;
    }
    let machine = tempfile::tempdir().unwrap();
    let store = database.open(&machine, false);
    assert!(store.identities().await.unwrap().is_empty());
    store.set_token(&bot(), Some(token(None, "ours"))).await.unwrap();
    assert_eq!(access(&store, &bot()).await.as_deref(), Some("ours"));
}
