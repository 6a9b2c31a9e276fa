//! The platform's token documents, which other programs write as well.

use std::time::Duration;

use bitbrat::core::observation::Identity;
use bitbrat::core::time::Timestamp;
use bitbrat::store::StoreError;
use bitbrat::store::firestore::FirestoreTarget;
use bitbrat::tokens::{
    FirestoreTokenOptions, FirestoreTokenStore, RefreshIntent, RefreshToken, Seed, Seeded, StoredToken,
    TokenError, TokenRecord, TokenStore, TokenStoreExt as _, seed,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::worlds::Platform;

fn bot() -> Identity {
    Identity::named("twitch/bot")
}

fn broadcaster(id: &str) -> Identity {
    Identity::named(format!("twitch/broadcaster:{id}"))
}

/// The document of a login at the platform, with a field that we do not know.
fn written_by_platform(user: &str, access: &str) -> Value {
    json!({ "accessToken": access, "refreshToken": format!("{access}-refresh"), "scope": ["chat:read"], "expiresIn": 3600,
        "obtainmentTimestamp": 1_000, "userId": user, "updatedAt": 1_000, "provider": "twitch", "more": { "a": null } })
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

/// A database with a document of the bot, which is user 7, and a machine.
async fn bot_of_platform() -> (Platform, TempDir) {
    let platform = Platform::new().await;
    platform
        .put("twitch/bot", written_by_platform("7", "first"))
        .await;
    (platform, tempfile::tempdir().unwrap())
}

async fn access(store: &dyn TokenStore, identity: &Identity) -> Option<String> {
    let token = store.load(identity).await.unwrap()?;
    Some(token.access.expose_secret().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_of_the_platform_is_read_with_its_user() {
    let (platform, machine) = bot_of_platform().await;
    let store = platform.open(&machine, false);
    assert_eq!(store.identities().await.unwrap(), [bot()]);
    let snapshot = store.read(&bot()).await.unwrap();
    assert!(snapshot.read_at.is_some(), "Firestore has a clock");
    let found = snapshot.record.token.unwrap();
    assert_eq!(
        (found.user_id.as_deref(), found.access.expose_secret()),
        (Some("7"), "first")
    );
    assert_eq!(found.refresh.unwrap().secret.expose_secret(), "first-refresh");
    assert_eq!(found.expires_at, Some(Timestamp::EPOCH.plus_secs(3601)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_only_read_unless_refresh_is_enabled() {
    let (platform, machine) = bot_of_platform().await;
    let before = platform.document("twitch/bot").await;
    let store = platform.open(&machine, false);
    let error = store
        .set_token(&bot(), Some(token(Some("7"), "second")))
        .await
        .unwrap_err();
    assert!(matches!(error, TokenError::ReadOnly { .. }), "{error:?}");
    let message = format!("{error}; {}", error.hint());
    assert!(
        message.contains("oauth/twitch/bot/token") && message.contains("tokens.refresh = true"),
        "{message}"
    );
    assert!(!store.renews(&bot()));
    assert_eq!(platform.document("twitch/bot").await, before);
    // What the platform has no document for is ours.
    let app = Identity::named("twitch/app");
    store.set_token(&app, Some(token(None, "app"))).await.unwrap();
    assert!(store.renews(&app));
    assert_eq!(
        access(&platform.open(&machine, true), &app).await.as_deref(),
        Some("app")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_fields_of_the_pair_are_written() {
    let (platform, machine) = bot_of_platform().await;
    let mut before = platform.document("twitch/bot").await.unwrap();
    let store = platform.open(&machine, true);
    store
        .set_token(&bot(), Some(token(Some("7"), "second")))
        .await
        .unwrap();
    let mut after = platform.document("twitch/bot").await.unwrap();
    assert_eq!(
        (
            &after["accessToken"],
            &after["refreshToken"],
            &after["expiresIn"],
            &after["obtainmentTimestamp"]
        ),
        (
            &json!("second"),
            &json!("second-refresh"),
            &json!(100),
            &json!(10_000)
        )
    );
    assert_eq!(after["scope"], json!(["chat:edit", "chat:read"]));
    let updated = after["updatedAt"].as_i64().unwrap();
    assert!(updated > 1_700_000_000_000, "Firestore's time in ms: {updated}");
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
        "user, provider and other fields stay; expiresAt is not added"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_shape_of_the_document_is_kept_up_to_date() {
    let platform = Platform::new().await;
    let machine = tempfile::tempdir().unwrap();
    let document = json!({ "accessToken": "first", "providerUserId": "7", "expiresAt": "2026-05-01T18:00:00.000Z",
        "updatedAt": "2026-05-01T17:00:00.000Z", "tokenType": "oauth" });
    platform.put("twitch/bot", document).await;
    let store = platform.open(&machine, true);
    assert_eq!(
        store.load(&bot()).await.unwrap().unwrap().user_id.as_deref(),
        Some("7")
    );
    store
        .set_token(&bot(), Some(token(Some("7"), "second")))
        .await
        .unwrap();
    let after = platform.document("twitch/bot").await.unwrap();
    assert_eq!(after["expiresAt"], "1970-01-01T00:01:50.000Z");
    assert!(
        after["updatedAt"].is_string() && after.get("userId").is_none(),
        "{after:#}"
    );
    let found = store.load(&bot()).await.unwrap().unwrap();
    assert_eq!(found.expires_at, Some(Timestamp::EPOCH.plus_secs(110)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_of_another_user_is_never_written() {
    let (platform, machine) = bot_of_platform().await;
    platform
        .put("twitch/broadcaster", written_by_platform("8", "other"))
        .await;
    let store = platform.open(&machine, true);
    let documents = async || {
        (
            platform.document("twitch/bot").await,
            platform.document("twitch/broadcaster").await,
        )
    };
    let before = documents().await;
    for (identity, user) in [(bot(), Some("8")), (broadcaster("8"), Some("7")), (bot(), None)] {
        let error = store
            .set_token(&identity, Some(token(user, "wrong")))
            .await
            .unwrap_err();
        assert!(matches!(error, TokenError::OtherOwner { .. }), "{error:?}");
        let message = format!("{error}; {}", error.hint());
        assert!(
            message.contains("user ") && !message.contains("wrong"),
            "{message}"
        );
    }
    assert_eq!(documents().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_found_out_about_a_damaged_document_stays() {
    let platform = Platform::new().await;
    let machine = tempfile::tempdir().unwrap();
    platform
        .put(
            "twitch/bot",
            json!({ "accessToken": "first", "refreshToken": "r", "userId": null }),
        )
        .await;
    let store = platform.open(&machine, true);
    let lease = store.lease(&bot()).await.unwrap();
    let mut record = lease.load().await.unwrap();
    record.token.as_mut().unwrap().user_id = Some("7".to_owned());
    lease.save(&record).await.unwrap();
    assert_eq!(
        platform.document("twitch/bot").await.unwrap()["userId"],
        Value::Null
    );
    // The platform refreshes: whatever it stores there, the place is still the bot's.
    platform
        .put("twitch/bot", json!({ "accessToken": "second", "userId": null }))
        .await;
    let token_there = store.load(&bot()).await.unwrap().unwrap();
    assert_eq!(token_there.user_id.as_deref(), Some("7"));
    drop(lease);
    let wrong = store.set_token(&bot(), Some(token(Some("8"), "wrong"))).await;
    assert!(matches!(wrong, Err(TokenError::OtherOwner { .. })), "{wrong:?}");
    store
        .set_token(&bot(), Some(token(Some("7"), "third")))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_by_the_platform_is_a_conflict_and_a_generation() {
    let (platform, machine) = bot_of_platform().await;
    let store = platform.open(&machine, true);
    let mut snapshot = store.read(&bot()).await.unwrap();
    let refresh = snapshot.record.token.as_ref().unwrap().refresh.clone().unwrap();
    let intent = RefreshIntent::plan("here", 1, &refresh.secret, Timestamp::EPOCH);
    snapshot.record.intent = Some(intent);
    snapshot.record.seeds = vec!["abc".to_owned()];
    let version = store
        .write(&bot(), &snapshot.record, &snapshot.version)
        .await
        .unwrap();
    let recorded = store.read(&bot()).await.unwrap();
    assert_eq!(
        (recorded.record.generation, recorded.record.intent.is_some()),
        (1, true)
    );
    platform
        .put("twitch/bot", written_by_platform("7", "elsewhere"))
        .await;
    let ours = TokenRecord::of(token(Some("7"), "ours"));
    let refused = store.write(&bot(), &ours, &version).await;
    assert!(matches!(refused, Err(TokenError::Conflict { .. })), "{refused:?}");
    let found = store.read(&bot()).await.unwrap().record;
    assert_eq!((found.generation, found.intent, found.seeds.len()), (2, None, 1));
    assert_eq!(found.token.unwrap().access.expose_secret(), "elsewhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_of_one_machine_is_known_to_the_other() {
    let (platform, here) = bot_of_platform().await;
    let there = tempfile::tempdir().unwrap();
    let (ours, theirs) = (platform.open(&here, true), platform.open(&there, true));
    assert_ne!(ours.lock_domain(), theirs.lock_domain());
    let mut snapshot = ours.read(&bot()).await.unwrap();
    let refresh = snapshot.record.token.as_ref().unwrap().refresh.clone().unwrap();
    let now = snapshot.read_at.unwrap();
    let intent = RefreshIntent::plan(ours.lock_domain(), 1, &refresh.secret, now);
    snapshot.record.intent = Some(intent.clone());
    ours.write(&bot(), &snapshot.record, &snapshot.version)
        .await
        .unwrap();
    let seen = theirs.read(&bot()).await.unwrap();
    let running = seen.record.intent.unwrap();
    assert_eq!(running, intent);
    assert!(running.is_running_elsewhere(theirs.lock_domain(), seen.read_at.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn account_without_a_document_stays_in_the_file() {
    let (platform, machine) = bot_of_platform().await;
    let store = platform.open(&machine, true);
    let other = broadcaster("8");
    store
        .set_token(&other, Some(token(Some("8"), "ours")))
        .await
        .unwrap();
    assert_eq!(
        platform.document("twitch/broadcaster").await,
        None,
        "no document is created"
    );
    assert_eq!(store.identities().await.unwrap(), [bot(), other.clone()]);
    let stale = store.read(&other).await.unwrap().version;
    // A document without a user could be anybody's.
    platform
        .put("twitch/broadcaster", json!({ "accessToken": "anybody's" }))
        .await;
    assert_eq!(access(&store, &other).await.as_deref(), Some("ours"));
    platform
        .put("twitch/broadcaster", written_by_platform("8", "platform's"))
        .await;
    assert_eq!(access(&store, &other).await.as_deref(), Some("platform's"));
    assert_eq!(
        store.load_all().await.unwrap()[&other].access.expose_secret(),
        "platform's"
    );
    let late = store
        .write(&other, &TokenRecord::of(token(Some("8"), "late")), &stale)
        .await;
    assert!(matches!(late, Err(TokenError::Conflict { .. })), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_token_never_replaces_the_platforms() {
    let (platform, machine) = bot_of_platform().await;
    let configured = Seed {
        access: "configured".to_owned().into(),
        refresh: None,
    };
    for refresh in [false, true] {
        let store = platform.open(&machine, refresh);
        let seeded = seed(&store, &bot(), &configured, Timestamp::EPOCH).await.unwrap();
        assert_eq!(
            (seeded, access(&store, &bot()).await.as_deref()),
            (Seeded::StoredKept, Some("first"))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_token_in_the_place_of_a_discord_bot_is_ignored() {
    let platform = Platform::new().await;
    let store = platform.open(&tempfile::tempdir().unwrap(), false);
    platform
        .put(
            "discord/bot",
            json!({ "accessToken": "person", "refreshToken": "r" }),
        )
        .await;
    assert!(store.identities().await.unwrap().is_empty());
    platform
        .put(
            "discord/bot",
            json!({ "accessToken": "bot", "tokenType": "oauth" }),
        )
        .await;
    assert_eq!(
        access(&store, &Identity::named("discord/bot")).await.as_deref(),
        Some("bot")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_at_the_platform_is_noticed_in_five_seconds() {
    let (platform, machine) = bot_of_platform().await;
    let store = platform.open(&machine, false);
    let mut last = store.revision().await.unwrap();
    let mut seen = None;
    for text in ["second", "third"] {
        platform.put("twitch/bot", written_by_platform("7", text)).await;
        let noticing = async {
            while seen.as_deref() != Some(text) {
                let now = store.revision().await.unwrap();
                if now == last {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                } else {
                    last = now;
                    seen = access(&store, &bot()).await;
                }
            }
        };
        let noticed = tokio::time::timeout(Duration::from_secs(5), noticing).await;
        assert!(noticed.is_ok(), "{text}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_document_is_named_and_left_as_it_is() {
    let platform = Platform::new().await;
    let store = platform.open(&tempfile::tempdir().unwrap(), true);
    platform
        .put("twitch/bot", json!({ "accessToken": ["hush"], "userId": "7" }))
        .await;
    let error = store
        .set_token(&bot(), Some(token(Some("7"), "second")))
        .await
        .unwrap_err();
    let message = format!("{error}; {}; {error:?}", error.hint());
    assert!(
        message.contains("oauth/twitch/bot/token") && !message.contains("hush"),
        "{message}"
    );
    assert_eq!(
        platform.document("twitch/bot").await.unwrap()["accessToken"],
        json!(["hush"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_firestore_is_an_error_with_a_next_step() {
    let machine = tempfile::tempdir().unwrap();
    let store = FirestoreTokenStore::new(FirestoreTokenOptions {
        target: FirestoreTarget {
            emulator: Some("127.0.0.1:9".to_owned()),
            patience: Duration::from_millis(500),
            ..FirestoreTarget::new("nowhere", "(default)")
        },
        bot_path: "oauth/twitch/bot".to_owned(),
        broadcaster_path: "oauth/twitch/broadcaster".to_owned(),
        refresh: true,
        file: machine.path().join("tokens.json"),
    });
    let error = store.load(&bot()).await.unwrap_err();
    assert!(
        matches!(error, TokenError::Store(StoreError::Unavailable { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("nowhere") && error.hint().contains("bitbrat doctor tokens"));
}
