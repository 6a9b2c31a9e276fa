//! The manager with a scripted provider.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use super::manager::is_due;
use super::{
    Client, Credentials, Described, Grant, GrantError, Granted, Owner, Provider, TokenManager, Validation,
};
use crate::clock::{Chance, ManualClock};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::TokenStatus;
use crate::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenKind, TokenStore, TokenStoreExt as _};

/// Stands for an answer that grants nothing.
const LIMITED: &str = "limited";

/// Grants scripted tokens, and accepts every token.
struct Script {
    client: Client,
    /// The answers to grants; without one the client is refused.
    grants: Mutex<VecDeque<&'static str>>,
    requests: AtomicUsize,
    owner: &'static str,
}

#[async_trait]
impl Provider for Script {
    const PLATFORM: PlatformName = PlatformName::Kick;
    const APP: &'static str = "kick/app";
    const BOT: &'static str = "kick/bot";
    const VALIDATION_NAMES_OWNER: bool = false;
    const REPLACES_REFUSED_APP_TOKEN: bool = true;

    fn client(&self) -> &Client {
        &self.client
    }

    fn owner_of(&self, _: &Identity) -> Option<String> {
        None
    }

    fn is_one_time(&self, _: Credentials<'_>) -> bool {
        false
    }

    async fn exchange(&self, _: Credentials<'_>, _: Grant<'_>, _: &Meter<'_>) -> Result<Granted, GrantError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let granted = self.grants.lock().pop_front();
        let access = granted.ok_or_else(|| GrantError::ClientRejected("invalid_client".to_owned()))?;
        if access == LIMITED {
            return Err(GrantError::NoEffect(PlatformError::RateLimited {
                platform: Self::PLATFORM,
                retry_after: None,
            }));
        }
        Ok(Granted {
            access_token: access.to_owned(),
            refresh_token: String::new(),
            expires_in: Some(2 * 86_400),
            scope: None,
        })
    }

    async fn revoke(
        &self,
        _: Credentials<'_>,
        _: &StoredToken,
        _: &Meter<'_>,
    ) -> Result<Option<&'static str>, PlatformError> {
        Ok(None)
    }

    async fn validate(
        &self,
        _: &Identity,
        token: &StoredToken,
        _: Option<&str>,
        _: &Meter<'_>,
    ) -> Validation {
        Validation::Accepted(Described {
            token: token.clone(),
            scopes_known: true,
        })
    }

    async fn owner(&self, _: &SecretString, _: &Meter<'_>) -> Result<Option<Owner>, PlatformError> {
        Ok(Some(Owner {
            user_id: self.owner.to_owned(),
            login: None,
        }))
    }

    fn client_rejected(&self, reason: String) -> PlatformError {
        PlatformError::ClientRejected {
            platform: Self::PLATFORM,
            reason,
        }
    }

    fn no_client(&self) -> PlatformError {
        self.client_rejected("no client".to_owned())
    }
}

struct Rig {
    manager: TokenManager<Script>,
    store: Arc<MemoryTokenStore>,
    clock: Arc<ManualClock>,
}

impl Rig {
    fn with(grants: &[&'static str], owner: &'static str) -> Self {
        let store = Arc::new(MemoryTokenStore::default());
        let clock = ManualClock::at(Timestamp::EPOCH);
        let script = Script {
            client: Client::new(Some("client"), Some(&"s-of-client".to_owned().into())),
            grants: Mutex::new(grants.iter().copied().collect()),
            requests: AtomicUsize::new(0),
            owner,
        };
        let manager = TokenManager::new(script, store.clone(), clock.clone(), Chance::seeded(1));
        Self {
            manager,
            store,
            clock,
        }
    }

    async fn put(&self, identity: &Identity, token: StoredToken) {
        self.store.set_token(identity, Some(token)).await.unwrap();
    }

    async fn access(&self, identity: &Identity) -> Result<String, PlatformError> {
        let access = self.manager.access(identity, &Meter::silent()).await?;
        Ok(access.token.expose_secret().to_owned())
    }

    fn requests(&self) -> usize {
        self.manager.provider.requests.load(Ordering::Relaxed)
    }
}

fn app() -> Identity {
    Identity::named("kick/app")
}

fn bot() -> Identity {
    Identity::named("kick/bot")
}

/// A token of user 7 with an hour's lifetime.
fn refreshable(access: &str) -> StoredToken {
    StoredToken {
        refresh: Some(RefreshToken::fresh("r-of-seven".to_owned())),
        user_id: Some("7".to_owned()),
        expires_at: Some(Timestamp::EPOCH.plus_secs(3_600)),
        ..StoredToken::unproven(access, Timestamp::EPOCH)
    }
}

#[test]
fn token_is_due_in_last_tenth_or_last_five_minutes() {
    let at = |second| Timestamp::EPOCH.plus_secs(second);
    for (lifetime, now, due) in [
        (14_400, 12_959, false),
        (14_400, 12_960, true),
        (7_200, 6_479, false),
        (7_200, 6_480, true),
        (600, 299, false),
        (600, 300, true),
    ] {
        let token = StoredToken {
            expires_at: Some(at(lifetime)),
            ..StoredToken::unproven("a-token", at(0))
        };
        assert_eq!(is_due(&token, 0.0, at(now)), due, "{lifetime} {now}");
    }
    assert!(!is_due(
        &StoredToken::unproven("a-token", at(0)),
        1.0,
        at(99_999_999)
    ));
}

#[test]
fn jitter_brings_the_refresh_forward_a_little() {
    let at = |second| Timestamp::EPOCH.plus_secs(second);
    let token = StoredToken {
        expires_at: Some(at(14_400)),
        ..StoredToken::unproven("a-token", at(0))
    };
    // The margin is 1,440 seconds.
    for (jitter, second) in [(0.0, 12_960), (0.5, 12_888), (1.0, 12_816)] {
        assert!(!is_due(&token, jitter, at(second - 1)), "{jitter}");
        assert!(is_due(&token, jitter, at(second)), "{jitter}");
    }
}

#[test]
fn token_response_parses_despite_unreadable_optional_fields() {
    let two = || Some(["a:b".to_owned(), "c:d".to_owned()].into());
    for (rest, refresh, scope) in [
        (r#""refresh_token":"r","scope":["a:b","c:d"]"#, "r", two()),
        (r#""refresh_token":"r","scope":"a:b c:d""#, "r", two()),
        (r#""refresh_token":null,"scope":null"#, "", None),
        (r#""scope":{},"expires_in":"soon","token_type":7"#, "", None),
    ] {
        let body = format!(r#"{{"access_token":"t",{rest}}}"#);
        let granted: Granted = serde_json::from_str(&body).unwrap();
        assert_eq!(granted.access_token, "t");
        assert_eq!(
            (granted.refresh_token.as_str(), granted.scope),
            (refresh, scope),
            "{body}"
        );
    }
    assert!(serde_json::from_str::<Granted>(r#"{"access_token":7}"#).is_err());
}

#[tokio::test]
async fn app_token_lasts_until_its_last_day_and_for_its_client() {
    let rig = Rig::with(&["one-token", "two-token", "three-token"], "7");
    assert_eq!(rig.access(&app()).await.unwrap(), "one-token");
    rig.clock.set(Timestamp::EPOCH.plus_secs(86_399));
    assert_eq!(rig.access(&app()).await.unwrap(), "one-token");
    rig.clock.set(Timestamp::EPOCH.plus_secs(86_400));
    assert_eq!(rig.access(&app()).await.unwrap(), "two-token");
    let stored = rig.store.load(&app()).await.unwrap().unwrap();
    assert_eq!(
        (stored.access.expose_secret(), stored.kind),
        ("two-token", TokenKind::App)
    );
    let of_other = StoredToken {
        client_id: Some("other".to_owned()),
        ..stored
    };
    rig.put(&app(), of_other).await;
    assert_eq!(rig.access(&app()).await.unwrap(), "three-token");
}

#[tokio::test]
async fn refused_app_token_is_replaced_unless_another_one_is_stored() {
    let rig = Rig::with(&["one-token", "two-token"], "7");
    let used = rig.manager.access(&app(), &Meter::silent()).await.unwrap();
    for _ in 0..2 {
        let better = rig.manager.after_refusal(&used, "", &Meter::silent()).await;
        assert_eq!(better.unwrap().unwrap().token.expose_secret(), "two-token");
    }
    assert_eq!(rig.requests(), 2);
}

#[tokio::test]
async fn rejected_client_is_not_tried_again_for_ten_minutes() {
    let rig = Rig::with(&[], "7");
    for (second, requests) in [(0, 1), (599, 1), (600, 2)] {
        rig.clock.set(Timestamp::EPOCH.plus_secs(second));
        let refused = rig.access(&app()).await.unwrap_err();
        assert!(
            matches!(refused, PlatformError::ClientRejected { .. }),
            "{refused}"
        );
        assert_eq!(rig.requests(), requests, "{second}");
    }
}

#[tokio::test]
async fn failed_early_refresh_waits_a_minute_and_token_stays_in_use() {
    let rig = Rig::with(&[LIMITED; 2], "7");
    rig.put(&bot(), refreshable("old-token")).await;
    for (second, requests) in [(3_300, 1), (3_359, 1), (3_360, 2)] {
        rig.clock.set(Timestamp::EPOCH.plus_secs(second));
        assert_eq!(rig.access(&bot()).await.unwrap(), "old-token");
        assert_eq!(rig.requests(), requests, "{second}");
    }
}

#[tokio::test]
async fn refreshed_token_of_another_user_is_never_used() {
    for (owner, is_own) in [("7", true), ("8", false)] {
        let rig = Rig::with(&["new-token"], owner);
        rig.put(&bot(), refreshable("old-token")).await;
        rig.clock.set(Timestamp::EPOCH.plus_secs(3_300));
        for _ in 0..2 {
            let access = rig.access(&bot()).await;
            assert_eq!(access.is_ok(), is_own, "{access:?}");
        }
        assert_eq!(rig.requests(), 1);
    }
}

#[tokio::test]
async fn check_of_a_replaced_login_is_not_reused() {
    let rig = Rig::with(&[], "7");
    rig.put(&bot(), refreshable("old-token")).await;
    for (access, expected) in [("old-token", "old-token"), ("new-token", "new-token")] {
        rig.put(&bot(), refreshable(access)).await;
        let meter = Meter::silent();
        let check = rig
            .manager
            .checked_within(Duration::from_mins(5), &bot(), &meter)
            .await
            .unwrap();
        assert_eq!(check.status, TokenStatus::Valid);
        assert_eq!(check.token.access.expose_secret(), expected);
    }
}

#[tokio::test]
async fn replaced_token_is_not_amended() {
    let rig = Rig::with(&[], "7");
    rig.put(&bot(), refreshable("new-token")).await;
    for (access, login) in [("old-token", None), ("new-token", Some("ada"))] {
        let known = StoredToken {
            login: Some("ada".to_owned()),
            ..StoredToken::unproven(access, Timestamp::EPOCH)
        };
        rig.manager.amend(&bot(), &known).await.unwrap();
        let stored = rig.store.load(&bot()).await.unwrap().unwrap();
        assert_eq!(stored.login.as_deref(), login);
        assert!(stored.refresh.is_some());
    }
}

#[tokio::test]
async fn identities_are_those_of_the_platform_bot_first() {
    let rig = Rig::with(&[], "7");
    for name in ["kick/app", "kick/bot", "kicker/bot", "twitch/bot"] {
        let token = StoredToken::unproven("a-token", Timestamp::EPOCH);
        rig.put(&Identity::named(name), token).await;
    }
    let names = rig.manager.identities().await.unwrap();
    assert_eq!(names, [bot(), app()]);
}
