//! Import of tokens from environment variables.
//!
//! The environment is the same at every start, while the store changes: a refresh replaces the pair. Therefore a seed is
//! imported **once**. Its fingerprint stays in the record through refreshes, logins and logouts, and:
//!
//! - a new seed is a grant that was just configured: it replaces the stored token;
//! - a seed that was imported before is outdated: the stored token is newer (refreshed from it, from a later login, or from a
//!   later seed) and stays, as long as it may be usable;
//! - a stored token that is no longer usable (another seed that no platform ever accepted, a grant that was rejected or that
//!   expired permanently) is replaced by the configured seed, which may be the correct one;
//! - after a logout no token is stored, and a known seed is not imported again: the logout has revoked it, or was meant to;
//! - a token that another program keeps as well is never replaced by a seed.

use aws_lc_rs::digest;
use base64::Engine;
use secrecy::{ExposeSecret, SecretString};

use super::{RefreshState, RefreshToken, StoredToken, TokenError, TokenStore, TokenStoreExt as _};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;

/// Fingerprints stored per identity.
const REMEMBERED: usize = 32;

/// A token from the environment.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The access token without the prefix `oauth:` that chat clients use.
    pub access: SecretString,
    /// The refresh token, if configured.
    pub refresh: Option<SecretString>,
}

/// Result of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeded {
    /// The seed is now the identity's token.
    Taken,
    /// The stored token is newer and stays, or the account was logged out after the seed was imported.
    StoredKept,
}

/// Offers `seed` as the token of `identity` at time `now`.
pub async fn seed(
    store: &dyn TokenStore,
    identity: &Identity,
    seed: &Seed,
    now: Timestamp,
) -> Result<Seeded, TokenError> {
    let access = seed.access.expose_secret().trim();
    let access = access.strip_prefix("oauth:").unwrap_or(access);
    let fingerprint = fingerprint(access, seed.refresh.as_ref());
    let lease = store.lease(identity).await?;
    let mut record = lease.load().await?;
    if store.is_shared(identity) {
        return Ok(Seeded::StoredKept);
    }
    let known = record.seeds.contains(&fingerprint);
    let same_grant = record
        .token
        .as_ref()
        .is_some_and(|stored| is_same(stored, access, seed.refresh.as_ref()));
    let useless = record
        .token
        .as_ref()
        .is_some_and(|stored| is_useless(stored, &record.seeds, now));
    if same_grant || (known && !useless) {
        if !known {
            remember(&mut record.seeds, fingerprint);
            lease.save(&record).await?;
        }
        return Ok(Seeded::StoredKept);
    }
    let mut token = StoredToken::unproven(access.to_owned(), now);
    // If the stored token is unusable, the seed's grant has nothing left that a used refresh token could revoke.
    token.refresh = seed.refresh.clone().map(RefreshToken::fresh);
    if !known {
        remember(&mut record.seeds, fingerprint);
    }
    record.replace_token(Some(token));
    lease.save(&record).await?;
    Ok(Seeded::Taken)
}

fn is_same(stored: &StoredToken, access: &str, refresh: Option<&SecretString>) -> bool {
    let stored_refresh = stored
        .refresh
        .as_ref()
        .map(|refresh| refresh.secret.expose_secret());
    stored.access.expose_secret() == access
        || (refresh.is_some() && stored_refresh == refresh.map(SecretString::expose_secret))
}

/// Whether `stored` can be replaced by a configured token: it is itself a seed that no platform ever accepted, its grant was
/// rejected, or it expired and cannot be refreshed. A login that was not checked yet is not a seed, and stays.
fn is_useless(stored: &StoredToken, seeds: &[String], now: Timestamp) -> bool {
    let refresh = stored.refresh.as_ref();
    if !stored.was_accepted() {
        let access = stored.access.expose_secret();
        return seeds.contains(&fingerprint(access, refresh.map(|refresh| &refresh.secret)));
    }
    match refresh {
        Some(refresh) => matches!(refresh.state, RefreshState::Refused { .. }),
        None => stored.expires_at.is_some_and(|end| end <= now),
    }
}

fn remember(seeds: &mut Vec<String>, fingerprint: String) {
    if seeds.len() >= REMEMBERED {
        seeds.remove(0);
    }
    seeds.push(fingerprint);
}

/// Returns a digest that identifies a seed and from which the seed cannot be derived.
pub(super) fn fingerprint(access: &str, refresh: Option<&SecretString>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(access.as_bytes());
    context.update(b"\n");
    context.update(refresh.map_or("", SecretString::expose_secret).as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..12])
}

#[cfg(test)]
mod tests {
    use super::super::MemoryTokenStore;
    use super::*;

    fn given(access: &str, refresh: Option<&str>) -> Seed {
        Seed {
            access: access.to_owned().into(),
            refresh: refresh.map(|text| text.to_owned().into()),
        }
    }

    struct Rig(MemoryTokenStore, Identity);

    impl Rig {
        fn new() -> Self {
            Self(MemoryTokenStore::default(), Identity::named("twitch/bot"))
        }

        async fn seed(&self, access: &str, refresh: Option<&str>) -> Seeded {
            seed(&self.0, &self.1, &given(access, refresh), Timestamp::EPOCH)
                .await
                .unwrap()
        }

        async fn change(&self, change: impl FnOnce(&mut Option<StoredToken>)) {
            let lease = self.0.lease(&self.1).await.unwrap();
            let mut record = lease.load().await.unwrap();
            change(&mut record.token);
            lease.save(&record).await.unwrap();
        }

        /// Simulates that the platform accepts the stored token.
        async fn accepted(&self) {
            self.change(|token| token.as_mut().unwrap().user_id = Some("900100".to_owned()))
                .await;
        }

        async fn stored(&self) -> (String, Option<String>) {
            let token = self.0.load(&self.1).await.unwrap().unwrap();
            let refresh = token
                .refresh
                .map(|refresh| refresh.secret.expose_secret().to_owned());
            (token.access.expose_secret().to_owned(), refresh)
        }
    }

    #[tokio::test]
    async fn a_first_seed_is_taken_and_a_new_one_replaces_it() {
        let rig = Rig::new();
        assert_eq!(rig.seed("oauth:one", Some("r1")).await, Seeded::Taken);
        assert_eq!(rig.stored().await, ("one".to_owned(), Some("r1".to_owned())));
        assert_eq!(rig.seed("two", None).await, Seeded::Taken);
        assert_eq!(rig.stored().await, ("two".to_owned(), None));
    }

    #[tokio::test]
    async fn a_restart_does_not_bring_a_refreshed_token_back_to_its_seed() {
        let rig = Rig::new();
        rig.seed("one", Some("r1")).await;
        let refreshed = StoredToken {
            refresh: Some(RefreshToken::fresh("r2".to_owned())),
            expires_at: Some(Timestamp::EPOCH.plus_secs(3600)),
            ..StoredToken::unproven("newer".to_owned(), Timestamp::EPOCH)
        };
        rig.change(|token| *token = Some(refreshed)).await;
        assert_eq!(rig.seed("one", Some("r1")).await, Seeded::StoredKept);
        assert_eq!(rig.stored().await, ("newer".to_owned(), Some("r2".to_owned())));
    }

    #[tokio::test]
    async fn going_back_to_an_old_seed_does_not_replay_it() {
        let rig = Rig::new();
        rig.seed("one", Some("r1")).await;
        rig.seed("two", Some("r2")).await;
        rig.accepted().await;
        assert_eq!(rig.seed("one", Some("r1")).await, Seeded::StoredKept);
        assert_eq!(rig.stored().await.0, "two");
    }

    #[tokio::test]
    async fn correct_seed_is_taken_again_after_a_wrong_one() {
        let rig = Rig::new();
        rig.seed("correct", Some("r1")).await;
        rig.accepted().await;
        assert_eq!(rig.seed("wrong", None).await, Seeded::Taken);
        assert_eq!(rig.seed("correct", Some("r1")).await, Seeded::Taken);
        assert_eq!(rig.stored().await, ("correct".to_owned(), Some("r1".to_owned())));
        assert_eq!(rig.seed("correct", Some("r1")).await, Seeded::StoredKept);
    }

    #[tokio::test]
    async fn configured_token_is_tried_once_the_stored_was_refused() {
        let refused = |token: &mut StoredToken| {
            let mut refresh = RefreshToken::fresh("r2".to_owned());
            refresh.state = RefreshState::Refused {
                at: Timestamp::EPOCH,
                reason: "Invalid refresh token".to_owned(),
            };
            token.refresh = Some(refresh);
        };
        let expired = |token: &mut StoredToken| {
            token.refresh = None;
            token.expires_at = Some(Timestamp::EPOCH);
        };
        for (what, useless) in [
            ("refused", &refused as &(dyn Fn(&mut StoredToken) + Sync)),
            ("expired", &expired),
        ] {
            let rig = Rig::new();
            rig.seed("one", None).await;
            rig.change(|token| {
                let mut later = StoredToken::unproven("later".to_owned(), Timestamp::EPOCH);
                later.user_id = Some("900100".to_owned());
                useless(&mut later);
                *token = Some(later);
            })
            .await;
            assert_eq!(rig.seed("one", None).await, Seeded::Taken, "{what}");
            assert_eq!(rig.stored().await.0, "one", "{what}");
        }
    }

    #[tokio::test]
    async fn login_that_was_not_checked_yet_stays_over_a_known_seed() {
        let rig = Rig::new();
        rig.seed("one", None).await;
        let login = StoredToken::unproven("login".to_owned(), Timestamp::EPOCH);
        rig.change(|token| *token = Some(login)).await;
        assert_eq!(rig.seed("one", None).await, Seeded::StoredKept);
        assert_eq!(rig.stored().await.0, "login");
    }

    #[tokio::test]
    async fn used_seed_stays_away_after_logout_and_new_one_is_taken() {
        let rig = Rig::new();
        rig.seed("one", Some("r1")).await;
        rig.change(|token| *token = None).await;
        assert_eq!(rig.seed("one", Some("r1")).await, Seeded::StoredKept);
        assert!(rig.0.load(&rig.1).await.unwrap().is_none());
        assert_eq!(rig.seed("two", Some("r2")).await, Seeded::Taken);
        assert_eq!(rig.stored().await, ("two".to_owned(), Some("r2".to_owned())));
    }

    #[tokio::test]
    async fn seed_matching_the_stored_token_changes_nothing() {
        let rig = Rig::new();
        let stored = StoredToken {
            refresh: Some(RefreshToken::fresh("r1".to_owned())),
            ..StoredToken::unproven("one".to_owned(), Timestamp::EPOCH)
        };
        rig.change(|token| *token = Some(stored)).await;
        let before = rig.0.read(&rig.1).await.unwrap().record.generation;
        assert_eq!(rig.seed("one", None).await, Seeded::StoredKept);
        assert_eq!(rig.seed("older", Some("r1")).await, Seeded::StoredKept);
        let after = rig.0.read(&rig.1).await.unwrap().record.generation;
        assert_eq!(before, after);
    }
}
