//! Accounts in the daemon: a check of one applies to every source that needs it, and a changed token is detected within a second.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tracing::debug;

use super::monitored::MonitoredSources;
use crate::core::observation::{AuthResult, Fact, Identity, Observation};
use crate::platforms::Platform;
use crate::tokens::{TokenError, TokenStore};

/// How often the token store is compared with its last known state.
pub const TOKEN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Forwards a changed status of an account to the sources that need it and were not part of the probe that found it: a probe of
/// single sources, or a listener that covers only its own sources.
pub struct AccountFanOut {
    monitored: MonitoredSources,
    platforms: Vec<Arc<dyn Platform>>,
    /// The last result that was applied to every source.
    last: Mutex<HashMap<Identity, (AuthResult, bool)>>,
}

impl AccountFanOut {
    /// Forwards results among `monitored`.
    pub fn new(monitored: MonitoredSources, platforms: Vec<Arc<dyn Platform>>) -> Self {
        Self {
            monitored,
            platforms,
            last: Mutex::default(),
        }
    }

    /// Returns what `observation` means for other sources. Nothing unless the account's result has changed: a probe of all
    /// sources reports it for each of them anyway, and with ten thousand sources it must not be forwarded from each to every
    /// other.
    pub fn others(&self, observation: &Observation) -> Vec<Observation> {
        let Fact::Auth { identity, check } = &*observation.fact else {
            return Vec::new();
        };
        let result = (check.result, check.rejected);
        let before = {
            let mut last = self.last.lock();
            last.insert(identity.clone(), result)
        };
        // The first probe after a start covers every source; until then only a result other than valid is worth forwarding.
        if before.map_or(check.result == AuthResult::Valid, |before| before == result) {
            return Vec::new();
        }
        let name = observation.source.platform();
        let Some(platform) = self.platforms.iter().find(|platform| platform.name() == name) else {
            return Vec::new();
        };
        let needing = platform.needing(identity, &self.monitored.of(name)).into_iter();
        needing
            .filter(|source| *source != observation.source)
            .map(|source| Observation {
                source,
                ..observation.clone()
            })
            .collect()
    }
}

/// Detects changed tokens, whether changed by a login, another process or an editor.
pub struct TokenWatch {
    tokens: Arc<dyn TokenStore>,
    revision: Option<u64>,
    known: BTreeMap<Identity, SecretString>,
}

impl TokenWatch {
    /// Starts with the current tokens. A store that cannot be read counts as empty, so that its tokens are detected once it can
    /// be read.
    pub async fn start(tokens: Arc<dyn TokenStore>) -> Self {
        let mut watch = Self {
            tokens,
            revision: None,
            known: BTreeMap::new(),
        };
        if let Err(error) = watch.changed().await {
            debug!(
                error = &error as &dyn std::error::Error,
                "The token store cannot be read"
            );
        }
        watch
    }

    /// Returns the accounts whose access token has changed since the last call, including those that no longer have one. A token
    /// that this process has stored itself, such as a refreshed one, does not count as changed.
    pub async fn changed(&mut self) -> Result<BTreeSet<Identity>, TokenError> {
        let revision = self.tokens.revision().await?;
        if revision.is_some() && revision == self.revision {
            return Ok(BTreeSet::new());
        }
        let all = self.tokens.load_all().await?;
        // Only after a successful read: a store that could not be read is read again.
        self.revision = revision;
        let now: BTreeMap<_, _> = all
            .into_iter()
            .map(|(identity, token)| (identity, token.access))
            .collect();
        let before = std::mem::replace(&mut self.known, now);
        let differs = |identity: &&Identity| match (before.get(*identity), self.known.get(*identity)) {
            (Some(before), Some(now)) if before.expose_secret() == now.expose_secret() => false,
            (_, Some(now)) => !self.tokens.is_own(identity, now),
            (_, None) => true,
        };
        let all: BTreeSet<_> = before.keys().chain(self.known.keys()).collect();
        Ok(all.into_iter().filter(differs).cloned().collect())
    }

    /// Returns every account that has a token.
    pub fn all(&self) -> BTreeSet<Identity> {
        self.known.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::observation::AuthCheck;
    use crate::core::time::Timestamp;
    use crate::tokens::{FileTokenStore, MemoryTokenStore, StoredToken, TokenStoreExt as _};

    fn bot() -> Identity {
        Identity::named("twitch/bot")
    }

    async fn put(store: &dyn TokenStore, identity: &Identity, access: Option<&str>) {
        let token = access.map(|access| StoredToken::unproven(access, Timestamp::EPOCH));
        store.set_token(identity, token).await.unwrap();
    }

    #[tokio::test]
    async fn changed_token_is_detected_regardless_of_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        // Two stores on one file behave like two processes.
        let file: [Arc<dyn TokenStore>; 2] = [
            Arc::new(FileTokenStore::new(&path)),
            Arc::new(FileTokenStore::new(&path)),
        ];
        let memory: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::default());
        for [ours, theirs] in [file, [Arc::clone(&memory), memory]] {
            let broadcaster = Identity::named("twitch/broadcaster:1");
            put(theirs.as_ref(), &broadcaster, Some("stays")).await;
            let mut watch = TokenWatch::start(ours).await;
            assert!(watch.changed().await.unwrap().is_empty());
            for access in [Some("first"), Some("other"), None] {
                put(theirs.as_ref(), &bot(), access).await;
                assert_eq!(watch.changed().await.unwrap(), [bot()].into(), "{access:?}");
                assert!(watch.changed().await.unwrap().is_empty());
            }
            assert_eq!(watch.all(), [broadcaster].into());
        }
    }

    #[tokio::test]
    async fn own_token_refresh_is_not_reported_as_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let [ours, theirs] = [(); 2].map(|()| Arc::new(FileTokenStore::new(dir.path().join("tokens.json"))));
        let mut watch = TokenWatch::start(Arc::clone(&ours) as Arc<dyn TokenStore>).await;
        put(ours.as_ref(), &bot(), Some("refreshed")).await;
        assert!(watch.changed().await.unwrap().is_empty());
        put(theirs.as_ref(), &bot(), Some("logged in")).await;
        assert_eq!(watch.changed().await.unwrap(), [bot()].into());
    }

    #[tokio::test]
    async fn damaged_token_file_is_read_again_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(FileTokenStore::new(dir.path().join("tokens.json")));
        put(store.as_ref(), &bot(), Some("first")).await;
        let whole = std::fs::read(store.path()).unwrap();
        let mut watch = TokenWatch::start(Arc::clone(&store) as Arc<dyn TokenStore>).await;
        std::fs::write(store.path(), "{\"version\":1,").unwrap();
        assert!(watch.changed().await.is_err());
        std::fs::write(store.path(), whole).unwrap();
        assert!(watch.changed().await.unwrap().is_empty(), "it is the same token");
    }

    struct NoPlatform;

    #[async_trait::async_trait]
    impl Platform for NoPlatform {
        fn name(&self) -> crate::core::source::PlatformName {
            crate::core::source::PlatformName::Twitch
        }

        async fn resolve(
            &self,
            _: &[String],
        ) -> Result<Vec<Option<crate::core::source::SourceKey>>, crate::platforms::PlatformError> {
            Ok(Vec::new())
        }

        async fn probe(
            &self,
            _: &crate::platforms::ProbeSet,
            _: &[crate::core::source::SourceKey],
            _: &dyn crate::platforms::ProbeSink,
        ) -> crate::platforms::ProbeSummary {
            crate::platforms::ProbeSummary::default()
        }

        fn rate_limits(&self) -> Vec<crate::platforms::RateLimit> {
            Vec::new()
        }
    }

    fn found(identity: &str, result: AuthResult) -> Observation {
        let check = AuthCheck::of(result);
        let identity = Identity::named(identity);
        let source = "twitch:1".parse().unwrap();
        Observation::new(
            &source,
            Timestamp::EPOCH,
            "test",
            Fact::Auth {
                identity,
                check: check.into(),
            },
        )
    }

    #[test]
    fn changed_account_reaches_every_source_that_needs_it() {
        let sources = ["twitch:1", "twitch:2", "twitch:777010", "kick:1"];
        let monitored = sources.map(|key| key.parse::<crate::core::source::SourceKey>().unwrap().into());
        let fan_out = AccountFanOut::new(
            MonitoredSources::new(monitored.into()),
            vec![Arc::new(NoPlatform)],
        );
        let others = |identity, result| {
            let others = fan_out.others(&found(identity, result)).into_iter();
            others.map(|other| other.source.to_string()).collect::<Vec<_>>()
        };
        let all = ["twitch:2", "twitch:777010"];
        for (identity, result, expected) in [
            ("twitch/bot", AuthResult::Valid, &[][..]),
            ("twitch/bot", AuthResult::Revoked, &all),
            ("twitch/bot", AuthResult::Revoked, &[]),
            ("twitch/bot", AuthResult::Valid, &all),
            ("twitch/broadcaster:1", AuthResult::Revoked, &[]),
            ("twitch/app", AuthResult::Expired, &all),
        ] {
            assert_eq!(others(identity, result), expected, "{identity} {result}");
        }
    }
}
