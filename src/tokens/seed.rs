//! Taking over tokens that somebody put into the environment.
//!
//! The environment says the same at every start, while the store moves on: refreshing replaces the pair. So a seed is
//! taken **once**. Its fingerprint stays in the record through refreshes, logins and logouts, and:
//!
//! - a seed never seen before is new information, a grant that somebody just put there: it replaces what is stored;
//! - a seed that was taken before is the past: whatever is stored is newer (its own descendants, a later login, a later
//!   seed) and stays;
//! - after a logout nothing is stored; a known seed's access token is then taken again, since trying it does no harm,
//!   but never its refresh token, which may be spent, and a spent one-time token that is sent again ends the grant.

use aws_lc_rs::digest;
use base64::Engine;
use secrecy::{ExposeSecret, SecretString};

use super::{RefreshToken, StoredToken, TokenError, TokenStore};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;

/// Fingerprints remembered for each identity.
const REMEMBERED: usize = 32;

/// A token from the environment.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The access token; a leading `oauth:`, as chat clients write it, is not part of it.
    pub access: SecretString,
    /// The refresh token, where given.
    pub refresh: Option<SecretString>,
}

/// What became of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeded {
    /// It is now the identity's token.
    Taken,
    /// What is stored is newer and stays.
    KeptStored,
}

/// Offers `seed` as the token of `identity` at the moment `now`.
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
    let known = record.seeds.contains(&fingerprint);
    let same_grant = record
        .token
        .as_ref()
        .is_some_and(|stored| is_same(stored, access, seed.refresh.as_ref()));
    if record.token.is_some() && (known || same_grant) {
        if !known {
            remember(&mut record.seeds, fingerprint);
            lease.save(&record).await?;
        }
        return Ok(Seeded::KeptStored);
    }
    let mut token = StoredToken::unproven(access.to_owned(), now);
    if !known {
        token.refresh = seed.refresh.clone().map(RefreshToken::fresh);
        remember(&mut record.seeds, fingerprint);
    }
    record.token = Some(token);
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

fn remember(seeds: &mut Vec<String>, fingerprint: String) {
    if seeds.len() >= REMEMBERED {
        seeds.remove(0);
    }
    seeds.push(fingerprint);
}

/// Returns a digest that recognises a seed and from which it cannot be told.
fn fingerprint(access: &str, refresh: Option<&SecretString>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(access.as_bytes());
    context.update(b"\n");
    context.update(refresh.map_or("", SecretString::expose_secret).as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..12])
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryTokenStore, RefreshState};
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
            ..StoredToken::unproven("newer".to_owned(), Timestamp::EPOCH)
        };
        rig.change(|token| *token = Some(refreshed)).await;
        assert_eq!(rig.seed("one", Some("r1")).await, Seeded::KeptStored);
        assert_eq!(rig.stored().await, ("newer".to_owned(), Some("r2".to_owned())));
    }

    #[tokio::test]
    async fn going_back_to_an_old_seed_does_not_replay_it() {
        let rig = Rig::new();
        rig.seed("one", Some("r1")).await;
        rig.seed("two", Some("r2")).await;
        assert_eq!(rig.seed("one", Some("r1")).await, Seeded::KeptStored);
        assert_eq!(rig.stored().await.0, "two");
    }

    #[tokio::test]
    async fn after_a_logout_a_known_seed_comes_back_without_its_refresh_token() {
        let rig = Rig::new();
        rig.seed("one", Some("r1")).await;
        rig.change(|token| *token = None).await;
        assert_eq!(rig.seed("one", Some("r1")).await, Seeded::Taken);
        assert_eq!(rig.stored().await, ("one".to_owned(), None));
    }

    #[tokio::test]
    async fn a_seed_of_the_stored_grant_changes_nothing() {
        let rig = Rig::new();
        let stored = StoredToken {
            refresh: Some(RefreshToken {
                secret: "r1".to_owned().into(),
                state: RefreshState::InUse {
                    since: Timestamp::EPOCH,
                    tries: 1,
                },
            }),
            ..StoredToken::unproven("one".to_owned(), Timestamp::EPOCH)
        };
        rig.change(|token| *token = Some(stored)).await;
        assert_eq!(rig.seed("one", None).await, Seeded::KeptStored);
        assert_eq!(rig.seed("older", Some("r1")).await, Seeded::KeptStored);
        let state = rig.0.load(&rig.1).await.unwrap().unwrap().refresh.unwrap().state;
        assert!(matches!(state, RefreshState::InUse { .. }));
    }
}
