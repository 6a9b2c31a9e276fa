//! What every token store promises.

use std::time::Duration;

use bitbrat::core::observation::Identity;
use bitbrat::core::time::Timestamp;
use bitbrat::tokens::{
    GrantedPair, IntentPhase, RefreshIntent, RefreshState, RefreshToken, StoredToken, TokenError, TokenKind,
    TokenRecord, TokenStore, TokenStoreExt as _,
};
use secrecy::ExposeSecret as _;

use super::worlds::World;

fn bot() -> Identity {
    Identity::named("twitch/bot")
}

fn broadcaster() -> Identity {
    Identity::named("twitch/broadcaster:900100")
}

fn token(access: &str) -> StoredToken {
    StoredToken {
        refresh: Some(RefreshToken {
            secret: "re%+/fresh".to_owned().into(),
            state: RefreshState::Refused {
                at: Timestamp::EPOCH,
                reason: "Invalid refresh token".to_owned(),
            },
        }),
        client_id: Some("client".to_owned()),
        user_id: Some("900100".to_owned()),
        login: Some("bitbrat_bot".to_owned()),
        scopes: ["user:bot".to_owned()].into(),
        expires_at: Some(Timestamp::EPOCH.plus_secs(60)),
        ..StoredToken::unproven(access.to_owned(), Timestamp::EPOCH)
    }
}

fn is_conflict<T>(outcome: &Result<T, TokenError>) -> bool {
    matches!(outcome, Err(TokenError::Conflict { .. }))
}

async fn access(store: &dyn TokenStore, identity: &Identity) -> Option<String> {
    let token = store.load(identity).await.unwrap()?;
    Some(token.access.expose_secret().to_owned())
}

pub async fn nothing_is_stored_at_first<W: World>() {
    let store = W::new().await.open().await;
    assert!(store.load(&bot()).await.unwrap().is_none());
    assert!(store.identities().await.unwrap().is_empty());
    assert!(store.load_all().await.unwrap().is_empty());
    let record = store.read(&bot()).await.unwrap().record;
    assert_eq!((record.generation, record.intent), (0, None));
}

pub async fn record_reads_back_as_it_was_written<W: World>() {
    let world = W::new().await;
    let store = world.open().await;
    let secret = "re%+/fresh".to_owned().into();
    let intent = RefreshIntent::plan("here", 7, &secret, Timestamp::EPOCH).in_phase(IntentPhase::Sent);
    let record = TokenRecord {
        token: Some(token("first")),
        pending: Some(token("login")),
        seeds: vec!["abc".to_owned()],
        generation: 7,
        intent: Some(intent.clone()),
    };
    let base = store.read(&bot()).await.unwrap().version;
    let version = store.write(&bot(), &record, &base).await.unwrap();
    let found = world.open().await.read(&bot()).await.unwrap();
    assert_eq!(found.version, version);
    let found = found.record;
    assert_eq!(
        (found.seeds, found.generation, found.intent),
        (record.seeds, 7, Some(intent))
    );
    assert_eq!(found.pending.unwrap().access.expose_secret(), "login");
    let (found, expected) = (found.token.unwrap(), token("first"));
    assert_eq!(found.access.expose_secret(), "first");
    let (refresh, expected_refresh) = (found.refresh.unwrap(), expected.refresh.unwrap());
    assert_eq!(refresh.secret.expose_secret(), "re%+/fresh");
    assert_eq!(refresh.state, expected_refresh.state);
    assert_eq!(
        (found.kind, found.client_id, found.user_id, found.login),
        (
            TokenKind::User,
            expected.client_id,
            expected.user_id,
            expected.login
        )
    );
    assert_eq!(
        (found.scopes, found.obtained_at, found.expires_at),
        (expected.scopes, expected.obtained_at, expected.expires_at)
    );
    assert_eq!(store.identities().await.unwrap(), [bot()]);
}

pub async fn record_without_token_is_no_account_but_keeps_its_rest<W: World>() {
    let store = W::new().await.open().await;
    let lease = store.lease(&bot()).await.unwrap();
    let record = TokenRecord {
        seeds: vec!["abc".to_owned()],
        generation: 2,
        ..TokenRecord::default()
    };
    lease.save(&record).await.unwrap();
    assert!(store.identities().await.unwrap().is_empty());
    let found = lease.load().await.unwrap();
    assert_eq!((found.seeds, found.generation), (vec!["abc".to_owned()], 2));
}

pub async fn login_that_is_not_finished_is_listed<W: World>() {
    let store = W::new().await.open().await;
    let lease = store.lease(&bot()).await.unwrap();
    let record = TokenRecord {
        pending: Some(token("login")),
        ..TokenRecord::default()
    };
    lease.save(&record).await.unwrap();
    assert_eq!(store.pending().await.unwrap(), [bot()]);
    lease.save(&TokenRecord::default()).await.unwrap();
    assert!(store.pending().await.unwrap().is_empty());
}

pub async fn write_on_an_old_version_is_a_conflict<W: World>() {
    let world = W::new().await;
    let (ours, theirs) = (world.open().await, world.open().await);
    let base = ours.read(&bot()).await.unwrap().version;
    let base = ours
        .write(&bot(), &TokenRecord::of(token("first")), &base)
        .await
        .unwrap();
    let other = TokenRecord::of(token("other"));
    theirs.write(&bot(), &other, &base).await.unwrap();
    let refused = ours.write(&bot(), &TokenRecord::of(token("late")), &base).await;
    assert!(is_conflict(&refused), "{refused:?}");
    assert_eq!(access(ours.as_ref(), &bot()).await.as_deref(), Some("other"));
}

pub async fn first_write_over_an_existing_record_is_a_conflict<W: World>() {
    let world = W::new().await;
    let (ours, theirs) = (world.open().await, world.open().await);
    let base = ours.read(&bot()).await.unwrap().version;
    theirs.set_token(&bot(), Some(token("other"))).await.unwrap();
    let refused = ours.write(&bot(), &TokenRecord::of(token("late")), &base).await;
    assert!(is_conflict(&refused), "{refused:?}");
}

pub async fn records_of_other_accounts_cause_no_conflict<W: World>() {
    let store = W::new().await.open().await;
    let base = store.read(&bot()).await.unwrap().version;
    let other = Some(token("other"));
    store.set_token(&broadcaster(), other).await.unwrap();
    let record = TokenRecord::of(token("first"));
    store.write(&bot(), &record, &base).await.unwrap();
    let all = store.load_all().await.unwrap();
    assert_eq!(all[&bot()].access.expose_secret(), "first");
    assert_eq!(all[&broadcaster()].access.expose_secret(), "other");
}

pub async fn of_concurrent_writes_on_one_version_one_succeeds<W: World>() {
    let world = W::new().await;
    let base = world.open().await.read(&bot()).await.unwrap().version;
    let mut writes = Vec::new();
    for number in 0..8 {
        let (store, base) = (world.open().await, base.clone());
        writes.push(async move {
            let record = TokenRecord::of(token(&format!("token-{number}")));
            store.write(&bot(), &record, &base).await
        });
    }
    let outcomes = futures_util::future::join_all(writes).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| is_conflict(outcome)).count(), 7);
}

pub async fn lease_never_overwrites_what_it_has_not_read<W: World>() {
    let world = W::new().await;
    let (ours, theirs) = (world.open().await, world.open().await);
    let lease = ours.lease(&bot()).await.unwrap();
    let record = lease.load().await.unwrap();
    // As a program that does not know the lock.
    let base = theirs.read(&bot()).await.unwrap().version;
    let other = TokenRecord::of(token("other"));
    theirs.write(&bot(), &other, &base).await.unwrap();
    assert!(is_conflict(&lease.save(&record).await));
    let mut record = lease.load().await.unwrap();
    for text in ["second", "third"] {
        record.replace_token(Some(token(text)));
        lease.save(&record).await.unwrap();
    }
    assert_eq!(access(theirs.as_ref(), &bot()).await.as_deref(), Some("third"));
}

pub async fn lock_has_one_holder_and_leaves_other_accounts_free<W: World>() {
    let world = W::new().await;
    let (ours, theirs) = (world.open().await, world.open().await);
    assert_eq!(ours.lock_domain(), theirs.lock_domain());
    let lock = ours.lock(&bot()).await.unwrap();
    let other = theirs.lock(&broadcaster()).await.unwrap();
    let identity = bot();
    let waiting = theirs.lock(&identity);
    tokio::pin!(waiting);
    // Waiting is only detectable by time; on a slow machine the test detects less, but never fails wrongly.
    let early = tokio::time::timeout(Duration::from_millis(60), &mut waiting).await;
    assert!(early.is_err(), "two holders at once");
    drop(lock);
    let lock = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    drop((lock.unwrap().unwrap(), other));
}

pub async fn every_change_is_noticed_by_another_process<W: World>() {
    let world = W::new().await;
    let (ours, theirs) = (world.open().await, world.open().await);
    for text in ["first", "other"] {
        let before = ours.revision().await.unwrap();
        theirs.set_token(&bot(), Some(token(text))).await.unwrap();
        let noticed = async {
            while before.is_some() && ours.revision().await.unwrap() == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let noticed = tokio::time::timeout(Duration::from_secs(5), noticed).await;
        assert!(noticed.is_ok(), "{text} was not noticed");
        assert_eq!(access(ours.as_ref(), &bot()).await.as_deref(), Some(text));
    }
}

pub async fn own_token_is_told_from_that_of_others<W: World>() {
    if !W::SEVERAL_PROCESSES {
        return;
    }
    let world = W::new().await;
    let (ours, theirs) = (world.open().await, world.open().await);
    ours.set_token(&bot(), Some(token("ours"))).await.unwrap();
    let text = |text: &str| text.to_owned().into();
    assert!(ours.is_own(&bot(), &text("ours")) && !theirs.is_own(&bot(), &text("ours")));
    theirs.set_token(&bot(), Some(token("theirs"))).await.unwrap();
    assert!(!ours.is_own(&bot(), &text("theirs")));
}

pub async fn granted_pair_waits_in_the_journal<W: World>() {
    let world = W::new().await;
    let store = world.open().await;
    let _lock = store.lock(&bot()).await.unwrap();
    let pair = GrantedPair {
        intent: "intent".to_owned(),
        generation: 3,
        token: token("granted"),
        other_owner: None,
    };
    assert!(store.journal().get(&bot()).await.unwrap().is_none());
    store.journal().put(&bot(), &pair).await.unwrap();
    let later = world.open().await;
    let found = later.journal().get(&bot()).await.unwrap().unwrap();
    assert_eq!((found.intent.as_str(), found.generation), ("intent", 3));
    assert_eq!(found.token.access.expose_secret(), "granted");
    assert!(later.journal().get(&broadcaster()).await.unwrap().is_none());
    store.journal().remove(&bot()).await.unwrap();
    assert!(later.journal().get(&bot()).await.unwrap().is_none());
}
