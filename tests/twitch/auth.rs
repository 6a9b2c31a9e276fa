//! The lifecycle of authorizations, and that no refresh token is ever sent twice.

use std::sync::Arc;

use bitbrat::core::observation::{AuthResult, Fact};
use bitbrat::core::stream::StreamStatus;
use bitbrat::platforms::Probe;
use bitbrat::platforms::twitch;
use bitbrat::sim::{Fault, WireFault};
use bitbrat::tokens::{RefreshState, Seed, StoredToken, TokenStore, seed};

use super::{BOT, RAT, SCOPES, Seen, World, app_token, file_store, look, put_token, text};

const REFRESH: (&str, &str) = ("POST", "/oauth2/token");

fn refreshes(world: &World) -> u64 {
    world.requests(REFRESH.0, REFRESH.1)
}

fn auth(seen: &Seen) -> Option<AuthResult> {
    seen.verdict(RAT).auth.map(|auth| auth.value)
}

async fn check(world: &World) -> Option<AuthResult> {
    auth(&world.look(&[Probe::Auth], &[RAT]).await)
}

/// Invalidates the bot's access token with its stored expiry unchanged: as a disconnect, a logout or a refresh by another program
/// would.
async fn end_early(world: &World) {
    let access = text(&world.bot_token().await).0;
    assert!(world.twitch().expire_token(&access));
}

#[tokio::test]
async fn expired_token_is_refreshed_and_new_pair_stored() {
    for world in [World::confidential().await, World::public().await] {
        let before = text(&world.bot_token().await);
        world.sim.clock.advance(5 * 3_600_000);
        assert_eq!(check(&world).await, Some(AuthResult::Valid));
        let token = world.bot_token().await;
        let after = text(&token);
        assert_ne!(before.0, after.0);
        assert_eq!(
            before.1 == after.1,
            world.client.1.is_some(),
            "one-time tokens change"
        );
        assert_eq!(token.refresh.unwrap().state, RefreshState::Ready);
        assert_eq!(token.scopes.len(), SCOPES.len());
        assert_eq!(check(&world).await, Some(AuthResult::Valid));
        assert_eq!(refreshes(&world), 1);
    }
}

#[tokio::test]
async fn token_in_last_tenth_of_lifetime_is_refreshed_early() {
    let world = World::public().await;
    world.sim.clock.advance(13_200_000);
    world.look(&[Probe::Stream], &[RAT]).await;
    assert_eq!(
        (refreshes(&world), world.requests("GET", "/oauth2/validate")),
        (1, 0)
    );
}

#[tokio::test]
async fn token_expiring_during_probe_is_refreshed_and_call_repeated() {
    let world = World::public().await;
    world.twitch().go_live(RAT).unwrap();
    let ids: Vec<_> = (1..=900).map(|id| id.to_string()).collect();
    let mut ids: Vec<_> = ids.iter().map(String::as_str).collect();
    ids.push(RAT);
    end_early(&world).await;
    let seen = world.look(&[Probe::Stream], &ids).await;
    assert_eq!(seen.verdict(RAT).stream.value, StreamStatus::Online);
    assert_eq!(seen.summary.problems, []);
    assert_eq!(refreshes(&world), 1);
}

#[tokio::test]
async fn processes_that_share_a_file_refresh_once() {
    let world = World::public().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.json");
    put_token(
        file_store(&path).as_ref(),
        &twitch::bot(),
        Some(world.bot_token().await),
    )
    .await;
    world.sim.clock.advance(5 * 3_600_000);
    // Each with a store of its own, as separate processes have; the lock is the operating system's.
    let platforms: Vec<_> = (0..6).map(|_| world.platform_with(file_store(&path))).collect();
    let checks = platforms
        .iter()
        .map(|platform| look(platform, &[Probe::Auth, Probe::Stream], &[RAT]));
    for seen in futures_util::future::join_all(checks).await {
        assert_eq!(auth(&seen), Some(AuthResult::Valid), "{:?}", seen.summary);
    }
    assert_eq!(refreshes(&world), 1);
}

#[tokio::test]
async fn removed_authorization_is_revoked_and_not_refreshed_again() {
    let world = World::confidential().await;
    world.twitch().disconnect(BOT);
    for _ in 0..3 {
        assert_eq!(check(&world).await, Some(AuthResult::Revoked));
    }
    assert_eq!(refreshes(&world), 1);
    let state = world.bot_token().await.refresh.unwrap().state;
    assert!(matches!(state, RefreshState::Refused { .. }), "{state:?}");
}

#[tokio::test]
async fn wrong_client_secret_is_expired_not_revoked_and_recovers() {
    let mut world = World::confidential().await;
    world.sim.clock.advance(5 * 3_600_000);
    world.options.client_secret = Some("wrong".to_owned().into());
    let seen = world.look(&[Probe::Auth], &[RAT]).await;
    assert_eq!(auth(&seen), Some(AuthResult::Expired));
    assert!(
        seen.summary.problems[0].text.contains("client secret"),
        "{:?}",
        seen.summary
    );
    world.options.client_secret = Some("hush-secret".to_owned().into());
    assert_eq!(check(&world).await, Some(AuthResult::Valid));
}

#[tokio::test]
async fn one_time_refresh_with_lost_answer_is_not_repeated_early() {
    let world = World::public().await;
    end_early(&world).await;
    let lost = Fault::wire(WireFault::LostAfterCommit).on(REFRESH.1).times(1);
    world.fail(lost);
    assert_eq!(check(&world).await, None, "no answer is no news");
    for _ in 0..3 {
        assert_eq!(check(&world).await, Some(AuthResult::Revoked));
    }
    assert_eq!(refreshes(&world), 1);
    // A new login fixes everything.
    world.give_token(&twitch::bot(), BOT, &SCOPES).await;
    assert_eq!(check(&world).await, Some(AuthResult::Valid));
}

#[tokio::test]
async fn one_time_refresh_is_retried_exactly_once_after_expiry() {
    let mut world = World::public().await;
    world.timeout = std::time::Duration::from_millis(300);
    world.sim.clock.advance(5 * 3_600_000);
    let unanswered = Fault::wire(WireFault::Hang).on(REFRESH.1).times(2);
    world.fail(unanswered);
    for _ in 0..4 {
        assert_eq!(check(&world).await, Some(AuthResult::Expired));
    }
    assert_eq!(refreshes(&world), 2);
}

#[tokio::test]
async fn a_crash_before_the_token_was_sent_costs_nothing() {
    let world = World::public().await;
    let since = world.now();
    world
        .change_bot(|token| token.refresh.as_mut().unwrap().state = RefreshState::InUse { since, tries: 1 })
        .await;
    // The old access token still works, so the refresh never happened.
    world.sim.clock.advance(13_200_000);
    world.look(&[Probe::Stream], &[RAT]).await;
    assert_eq!(refreshes(&world), 1);
    assert_eq!(check(&world).await, Some(AuthResult::Valid));
    assert_eq!(refreshes(&world), 1);
}

#[tokio::test]
async fn a_confidential_clients_lost_answer_is_simply_asked_for_again() {
    let world = World::confidential().await;
    end_early(&world).await;
    let lost = Fault::wire(WireFault::LostAfterCommit).on(REFRESH.1).times(1);
    world.fail(lost);
    assert_eq!(check(&world).await, Some(AuthResult::Valid));
    assert_eq!(refreshes(&world), 2);
}

#[tokio::test]
async fn token_of_another_user_is_rejected_and_never_used() {
    let mut world = World::confidential().await;
    world.options.bot_user_id = Some("900999".to_owned());
    world.options.client_secret = None;
    let seen = world
        .look(
            &[Probe::Auth, Probe::Connection, Probe::Stream, Probe::Permissions],
            &[RAT],
        )
        .await;
    assert!(seen.count(super::is_claim) == 0, "{:?}", seen.observations);
    assert_eq!(world.requests("GET", "/helix/users"), 0);
    let reported = seen.problem_texts();
    assert!(
        reported.contains("900999") && reported.contains(BOT),
        "{reported}"
    );
}

#[tokio::test]
async fn broadcaster_authorization_affects_only_its_own_channel() {
    let world = World::confidential().await;
    world.twitch().add_channel("77", "other");
    world
        .give_token(&twitch::broadcaster(RAT), RAT, &["moderation:read"])
        .await;
    world.twitch().disconnect(RAT);
    let seen = world.look(&[Probe::Auth], &[RAT, "77"]).await;
    assert_eq!(auth(&seen), Some(AuthResult::Revoked));
    assert_eq!(seen.verdict("77").auth.unwrap().value, AuthResult::Valid);
}

#[tokio::test]
async fn missing_scopes_are_reported_but_not_as_revocation() {
    let world = World::confidential().await;
    world.give_token(&twitch::bot(), BOT, &["user:bot"]).await;
    let seen = world.look(&[Probe::Auth, Probe::Permissions], &[RAT]).await;
    assert_eq!(auth(&seen), Some(AuthResult::Valid));
    let reported = seen.problem_texts();
    assert!(reported.contains("user:read:moderated_channels"), "{reported}");
    let (granted, denied, unknown) = seen.grants(RAT, "twitch.moderated-channels").unwrap();
    assert_eq!((granted.len(), denied.len(), unknown.len()), (0, 0, 1));
    assert_eq!(world.requests("GET", "/helix/moderation/channels"), 0);
}

#[tokio::test]
async fn a_token_from_the_environment_is_asked_who_it_is() {
    let mut world = World::confidential().await;
    let access = text(&world.bot_token().await).0;
    world.options.client_id = None;
    world.options.client_secret = None;
    world.put_token(&twitch::bot(), None).await;
    let given = Seed {
        access: format!("oauth:{access}").into(),
        refresh: None,
    };
    seed(world.store.as_ref(), &twitch::bot(), &given, world.now())
        .await
        .unwrap();
    world.twitch().go_live(RAT).unwrap();
    let seen = world.look(&[Probe::Stream, Probe::Permissions], &[RAT]).await;
    assert_eq!(seen.verdict(RAT).stream.value, StreamStatus::Online);
    let token = world.bot_token().await;
    assert_eq!(
        (
            token.user_id.as_deref(),
            token.client_id.as_deref(),
            token.login.as_deref()
        ),
        (Some(BOT), Some("app"), Some("bitbrat_bot"))
    );
    assert!(token.expires_at.is_some() && token.scopes.len() == SCOPES.len());
}

#[tokio::test]
async fn app_token_in_place_of_bot_reads_but_proves_no_permission() {
    let world = World::without_bot(("app", None)).await;
    let spec = bitbrat::sim::twitch::TokenSpec {
        client_id: "app".to_owned(),
        ..Default::default()
    };
    let access = world.twitch().issue_token(spec).access;
    let token = StoredToken {
        kind: bitbrat::tokens::TokenKind::User,
        ..app_token(&access, "app", world.now())
    };
    world.put_token(&twitch::bot(), Some(token)).await;
    world.twitch().go_live(RAT).unwrap();
    let seen = world.look(&[Probe::Stream, Probe::Permissions], &[RAT]).await;
    assert_eq!(seen.verdict(RAT).stream.value, StreamStatus::Online);
    assert_eq!(seen.count(|fact| matches!(fact, Fact::Permissions { .. })), 0);
    assert!(
        seen.summary.problems[0].text.contains("not for a user"),
        "{:?}",
        seen.summary
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_token_file_that_others_can_read_is_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::confidential().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.json");
    put_token(
        file_store(&path).as_ref(),
        &twitch::bot(),
        Some(world.bot_token().await),
    )
    .await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let platform = world.platform_with(file_store(&path));
    let seen = look(&platform, &[Probe::Auth, Probe::Connection], &[RAT]).await;
    assert_eq!(seen.failure(RAT), Some((true, "twitch.token_store".to_owned())));
    let reported = seen.problem_texts();
    assert!(reported.contains("chmod 600"), "{reported}");
    assert_eq!(world.twitch().host().journal().total(), 0);
}

/// A store on a disk that is full on demand.
struct FullDisk(Arc<dyn TokenStore>, Arc<std::sync::atomic::AtomicI32>);

struct FullDiskLease(
    Box<dyn bitbrat::tokens::TokenLease>,
    Arc<std::sync::atomic::AtomicI32>,
);

#[async_trait::async_trait]
impl TokenStore for FullDisk {
    async fn identities(
        &self,
    ) -> Result<Vec<bitbrat::core::observation::Identity>, bitbrat::tokens::TokenError> {
        self.0.identities().await
    }

    async fn load(
        &self,
        identity: &bitbrat::core::observation::Identity,
    ) -> Result<Option<StoredToken>, bitbrat::tokens::TokenError> {
        self.0.load(identity).await
    }

    async fn lease(
        &self,
        identity: &bitbrat::core::observation::Identity,
    ) -> Result<Box<dyn bitbrat::tokens::TokenLease>, bitbrat::tokens::TokenError> {
        let lease = self.0.lease(identity).await?;
        Ok(Box::new(FullDiskLease(lease, Arc::clone(&self.1))))
    }
}

#[async_trait::async_trait]
impl bitbrat::tokens::TokenLease for FullDiskLease {
    async fn load(&self) -> Result<bitbrat::tokens::TokenRecord, bitbrat::tokens::TokenError> {
        self.0.load().await
    }

    async fn save(&self, record: &bitbrat::tokens::TokenRecord) -> Result<(), bitbrat::tokens::TokenError> {
        // This many writes succeed; negative means all.
        let left = self.1.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        if left == 0 {
            self.1.store(0, std::sync::atomic::Ordering::SeqCst);
            return Err(bitbrat::tokens::TokenError::Write {
                path: "tokens.json".into(),
                source: std::io::Error::from(std::io::ErrorKind::StorageFull),
            });
        }
        self.0.save(record).await
    }
}

#[tokio::test]
async fn a_full_disk_sends_no_refresh_token_and_loses_no_new_pair() {
    use std::sync::atomic::{AtomicI32, Ordering};
    let world = World::public().await;
    world.sim.clock.advance(5 * 3_600_000);
    let left = Arc::new(AtomicI32::new(0));
    let store: Arc<dyn TokenStore> = Arc::new(FullDisk(Arc::clone(&world.store), Arc::clone(&left)));
    let platform = world.platform_with(store);
    let seen = look(&platform, &[Probe::Auth], &[RAT]).await;
    assert_eq!((auth(&seen), refreshes(&world)), (None, 0), "nothing was sent");
    // The mark can be stored, the new pair cannot: it waits in memory, unused, until it can.
    left.store(1, Ordering::SeqCst);
    let seen = look(&platform, &[Probe::Auth, Probe::Stream], &[RAT]).await;
    assert_eq!((auth(&seen), refreshes(&world)), (None, 1));
    assert!(seen.problem_texts().contains("free some space"));
    left.store(-1, Ordering::SeqCst);
    let seen = look(&platform, &[Probe::Auth], &[RAT]).await;
    assert_eq!((auth(&seen), refreshes(&world)), (Some(AuthResult::Valid), 1));
}

#[tokio::test]
async fn probe_output_contains_no_token_or_secret() {
    let world = World::public().await;
    let (access, refresh) = text(&world.bot_token().await);
    world.twitch().disconnect(BOT);
    let seen = world
        .look(
            &[Probe::Auth, Probe::Connection, Probe::Stream, Probe::Permissions],
            &[RAT],
        )
        .await;
    let reported = format!("{seen:?}");
    for secret in [access, refresh.unwrap(), "hush-secret".to_owned()] {
        assert!(!reported.contains(&secret), "{reported}");
    }
}

/// A store whose tokens another program refreshes.
struct ReadOnly(Arc<dyn TokenStore>);

#[async_trait::async_trait]
impl TokenStore for ReadOnly {
    async fn identities(
        &self,
    ) -> Result<Vec<bitbrat::core::observation::Identity>, bitbrat::tokens::TokenError> {
        self.0.identities().await
    }

    async fn load(
        &self,
        identity: &bitbrat::core::observation::Identity,
    ) -> Result<Option<StoredToken>, bitbrat::tokens::TokenError> {
        self.0.load(identity).await
    }

    fn renews(&self) -> bool {
        false
    }

    async fn lease(
        &self,
        identity: &bitbrat::core::observation::Identity,
    ) -> Result<Box<dyn bitbrat::tokens::TokenLease>, bitbrat::tokens::TokenError> {
        self.0.lease(identity).await
    }
}

#[tokio::test]
async fn tokens_that_another_program_renews_are_never_refreshed_by_us() {
    let world = World::public().await;
    let platform = world.platform_with(Arc::new(ReadOnly(Arc::clone(&world.store))));
    world.sim.clock.advance(13_200_000);
    look(&platform, &[Probe::Stream], &[RAT]).await;
    world.sim.clock.advance(5 * 3_600_000);
    let seen = look(&platform, &[Probe::Auth, Probe::Stream], &[RAT]).await;
    assert_eq!((auth(&seen), refreshes(&world)), (Some(AuthResult::Expired), 0));
    // Once the other program has done so, everything works.
    world.give_token(&twitch::bot(), BOT, &SCOPES).await;
    let seen = look(&platform, &[Probe::Auth], &[RAT]).await;
    assert_eq!(auth(&seen), Some(AuthResult::Valid));
}
