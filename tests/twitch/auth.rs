//! The lifecycle of authorizations, and that no refresh token is ever sent twice.

use std::sync::Arc;

use bitbrat::clock::{Clock, OffsetClock};
use bitbrat::core::observation::{AuthResult, Fact, Identity};
use bitbrat::core::stream::StreamStatus;
use bitbrat::platforms::Probe;
use bitbrat::platforms::twitch;
use bitbrat::sim::{Fault, WireFault};
use bitbrat::store::Version;
use bitbrat::tokens::{
    IntentPhase, Journal, Lock, RefreshIntent, RefreshState, Seed, Snapshot, StoredToken, TokenError,
    TokenRecord, TokenStore, TokenStoreExt as _, seed,
};

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
        (1, 1),
        "the new token is used once it is known whose it is"
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
        let seen = world.look(&[Probe::Auth], &[RAT]).await;
        assert_eq!(auth(&seen), Some(AuthResult::Expired), "it is not revoked");
        assert!(
            seen.problem_texts().contains("refresh_response_lost"),
            "{:?}",
            seen.summary
        );
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

/// Records a refresh of the bot's token that a process began and did not complete.
async fn interrupt(world: &World, phase: IntentPhase) {
    let lease = world.store.lease(&twitch::bot()).await.unwrap();
    let mut record = lease.load().await.unwrap();
    let refresh = &record.token.as_ref().unwrap().refresh.as_ref().unwrap().secret;
    let intent = RefreshIntent::plan("memory", record.generation, refresh, world.now());
    record.intent = Some(intent.in_phase(phase));
    lease.save(&record).await.unwrap();
}

#[tokio::test]
async fn a_crash_before_the_token_was_sent_costs_nothing() {
    for phase in [IntentPhase::Planned, IntentPhase::Sent] {
        let world = World::public().await;
        interrupt(&world, phase).await;
        // The old access token still works, so the refresh never happened.
        world.sim.clock.advance(13_200_000);
        world.look(&[Probe::Stream], &[RAT]).await;
        assert_eq!(refreshes(&world), 1);
        assert_eq!(check(&world).await, Some(AuthResult::Valid));
        assert_eq!(refreshes(&world), 1);
    }
}

#[tokio::test]
async fn planned_refresh_was_not_sent_even_if_the_token_died() {
    let world = World::public().await;
    interrupt(&world, IntentPhase::Planned).await;
    end_early(&world).await;
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

/// A store that fails or only reads.
struct Limited {
    inner: Arc<dyn TokenStore>,
    /// This many writes succeed, then the disk is full; negative means all.
    writes: std::sync::atomic::AtomicI32,
    renews: bool,
}

impl Limited {
    fn of(world: &World, writes: i32, renews: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(&world.store),
            writes: writes.into(),
            renews,
        })
    }
}

#[async_trait::async_trait]
impl TokenStore for Limited {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        self.inner.identities().await
    }

    async fn pending(&self) -> Result<Vec<Identity>, TokenError> {
        self.inner.pending().await
    }

    async fn read(&self, identity: &Identity) -> Result<Snapshot, TokenError> {
        self.inner.read(identity).await
    }

    async fn write(
        &self,
        identity: &Identity,
        record: &TokenRecord,
        base: &Version,
    ) -> Result<Version, TokenError> {
        let left = self.writes.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        if left == 0 {
            self.writes.store(0, std::sync::atomic::Ordering::SeqCst);
            return Err(TokenError::Write {
                path: "tokens.json".into(),
                source: std::io::Error::from(std::io::ErrorKind::StorageFull),
            });
        }
        self.inner.write(identity, record, base).await
    }

    async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError> {
        self.inner.lock(identity).await
    }

    fn lock_domain(&self) -> &str {
        self.inner.lock_domain()
    }

    fn journal(&self) -> &Journal {
        self.inner.journal()
    }

    fn renews(&self, _: &Identity) -> bool {
        self.renews
    }
}

#[tokio::test]
async fn a_full_disk_sends_no_refresh_token_and_loses_no_new_pair() {
    use std::sync::atomic::Ordering;
    let world = World::public().await;
    world.sim.clock.advance(5 * 3_600_000);
    let store = Limited::of(&world, 0, true);
    let left = &store.writes;
    let platform = world.platform_with(store.clone());
    let seen = look(&platform, &[Probe::Auth], &[RAT]).await;
    assert_eq!((auth(&seen), refreshes(&world)), (None, 0), "nothing was sent");
    // The refresh can be recorded, the new pair cannot be stored: it waits in the journal, unused, until it can.
    left.store(2, Ordering::SeqCst);
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

#[tokio::test]
async fn tokens_that_another_program_renews_are_never_refreshed_by_us() {
    let world = World::public().await;
    let platform = world.platform_with(Limited::of(&world, -1, false));
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

/// The result of the newest check of an account.
fn result_of(seen: &Seen, identity: &Identity) -> Option<AuthResult> {
    let mut newest_first = seen.observations.iter().rev();
    newest_first.find_map(|observation| match &*observation.fact {
        Fact::Auth { identity: of, check } if of == identity => Some(check.result),
        _ => None,
    })
}

#[tokio::test]
async fn granted_token_of_another_user_is_never_stored() {
    for world in [World::confidential().await, World::public().await] {
        let before = text(&world.bot_token().await);
        world.sim.clock.advance(5 * 3_600_000);
        let other = world.twitch().issue_token(bitbrat::sim::twitch::TokenSpec {
            client_id: world.client.0.to_owned(),
            user_id: Some(RAT.to_owned()),
            ..Default::default()
        });
        let answer = serde_json::json!({"access_token": other.access, "refresh_token": other.refresh, "expires_in": 14_400});
        world.fail(
            Fault::body(bitbrat::sim::FaultBody::Json(answer))
                .on(REFRESH.1)
                .times(1),
        );
        for _ in 0..2 {
            let seen = world.look(&[Probe::Auth], &[RAT]).await;
            assert_eq!(auth(&seen), None, "{:?}", seen.summary);
            assert!(seen.problem_texts().contains(RAT), "{:?}", seen.summary);
            world.sim.clock.advance(61_000);
        }
        assert_eq!((text(&world.bot_token().await), refreshes(&world)), (before, 1));
        // A new login ends it.
        world.give_token(&twitch::bot(), BOT, &SCOPES).await;
        assert_eq!(check(&world).await, Some(AuthResult::Valid));
    }
}

#[tokio::test]
async fn granted_pair_of_a_paused_process_replaces_a_lost_one() {
    let world = World::public().await;
    let pair = world.twitch().issue_token(bitbrat::sim::twitch::TokenSpec {
        client_id: world.client.0.to_owned(),
        user_id: Some(BOT.to_owned()),
        ..Default::default()
    });
    interrupt(&world, IntentPhase::Lost).await;
    end_early(&world).await;
    assert_eq!(check(&world).await, Some(AuthResult::Expired));
    let record = world.store.read(&twitch::bot()).await.unwrap().record;
    let granted = bitbrat::tokens::GrantedPair {
        intent: record.intent.unwrap().id,
        generation: record.generation,
        token: StoredToken {
            user_id: Some(BOT.to_owned()),
            client_id: Some(world.client.0.to_owned()),
            ..StoredToken::unproven(pair.access.clone(), world.now())
        },
        other_owner: None,
    };
    world.store.journal().put(&twitch::bot(), &granted).await.unwrap();
    assert_eq!(check(&world).await, Some(AuthResult::Valid));
    assert_eq!(text(&world.bot_token().await).0, pair.access);
    assert!(world.store.journal().get(&twitch::bot()).await.unwrap().is_none());
    assert_eq!(refreshes(&world), 0);
}

#[tokio::test]
async fn burst_of_refused_refreshes_is_one_incident() {
    let world = World::public().await;
    let broadcaster = twitch::broadcaster(RAT);
    world.give_token(&broadcaster, RAT, &["moderation:read"]).await;
    world.sim.clock.advance(5 * 3_600_000);
    let refusal = serde_json::json!({"status": 400, "message": "Invalid refresh token"});
    world.fail(
        Fault::status(400)
            .with_body(bitbrat::sim::FaultBody::Json(refusal))
            .on(REFRESH.1),
    );
    let platform = world.platform();
    let results = |seen: &Seen| [twitch::bot(), broadcaster.clone()].map(|account| result_of(seen, &account));
    let seen = look(&platform, &[Probe::Auth], &[RAT]).await;
    let first = results(&seen);
    let revoked = |results: &[Option<AuthResult>; 2]| {
        results
            .iter()
            .filter(|result| **result == Some(AuthResult::Revoked))
            .count()
    };
    assert_eq!(revoked(&first), 1, "the first is believed: {first:?}");
    assert!(
        seen.problem_texts().contains("may be an incident"),
        "{:?}",
        seen.summary
    );
    // After the incident both refresh tokens work, also the one that was called revoked.
    world.twitch().host().faults().clear();
    world.sim.clock.advance(180_000);
    let later = results(&look(&platform, &[Probe::Auth], &[RAT]).await);
    assert_eq!(later, [Some(AuthResult::Valid); 2]);
}

#[tokio::test]
async fn burst_that_is_repeated_after_a_pause_is_believed() {
    let world = World::confidential().await;
    let broadcaster = twitch::broadcaster(RAT);
    world.give_token(&broadcaster, RAT, &["moderation:read"]).await;
    world.sim.clock.advance(5 * 3_600_000);
    world.twitch().disconnect(BOT);
    world.twitch().disconnect(RAT);
    let platform = world.platform();
    look(&platform, &[Probe::Auth], &[RAT]).await;
    world.sim.clock.advance(180_000);
    let seen = look(&platform, &[Probe::Auth], &[RAT]).await;
    for account in [twitch::bot(), broadcaster] {
        assert_eq!(result_of(&seen, &account), Some(AuthResult::Revoked), "{account}");
    }
}

#[tokio::test]
async fn accounts_rejected_before_expiry_are_revoked_at_once() {
    let world = World::confidential().await;
    let broadcaster = twitch::broadcaster(RAT);
    world.give_token(&broadcaster, RAT, &["moderation:read"]).await;
    world.twitch().disconnect(BOT);
    world.twitch().disconnect(RAT);
    let seen = world.look(&[Probe::Auth], &[RAT]).await;
    for account in [twitch::bot(), broadcaster] {
        assert_eq!(result_of(&seen, &account), Some(AuthResult::Revoked), "{account}");
    }
}

#[tokio::test]
async fn expired_token_is_not_revoked_by_a_wrong_clock() {
    // How far our clock is ahead of Twitch's, since before the login or since after it.
    for (ahead, is_new) in [
        (900_000, true),
        (-900_000, true),
        (900_000, false),
        (-900_000, false),
    ] {
        let world = World::confidential().await;
        let clock = OffsetClock::new(Arc::clone(&world.sim.clock) as Arc<dyn Clock>);
        clock.advance(ahead);
        let shift = if is_new { 0 } else { ahead };
        world
            .change_bot(|token| {
                token.refresh = None;
                token.expires_at = token.expires_at.map(|end| end.plus_millis(shift));
            })
            .await;
        let lifetime = 14_400_000;
        world.sim.clock.advance(lifetime + 300_000);
        let platform = world.platform_on(Arc::clone(&world.store), clock);
        let seen = look(&platform, &[Probe::Auth], &[RAT]).await;
        assert_eq!(
            auth(&seen),
            Some(AuthResult::Expired),
            "{ahead} {is_new}: {:?}",
            seen.summary
        );
    }
}

#[tokio::test]
async fn outage_of_the_token_endpoint_is_no_revocation() {
    for fault in [
        Fault::status(500),
        Fault::status(503),
        Fault::status(429),
        Fault::wire(WireFault::Reset),
    ] {
        for is_expired in [false, true] {
            let world = World::confidential().await;
            if is_expired {
                world.sim.clock.advance(5 * 3_600_000);
            } else {
                end_early(&world).await;
            }
            world.fail(fault.clone().on("/oauth2/token"));
            let found = check(&world).await;
            let expected = is_expired.then_some(AuthResult::Expired);
            assert_eq!(found, expected, "{fault:?}");
        }
    }
}
