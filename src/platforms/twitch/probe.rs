//! One look at Twitch: what it takes to answer the wanted questions for all sources together, authorisations first.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;

use super::TwitchPlatform;
use super::helix::PAGE;
use super::map::OAUTH;
use super::options::{self, BOT};
use super::permissions;
use super::standing::Standing;
use crate::core::observation::{AuthCheck, AuthResult, Fact, Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::meter::Meter;
use crate::platforms::{PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary};
use crate::tokens::StoredToken;

/// Scopes of the bot that we need for the whole picture, and what for.
const NEEDED_SCOPES: [(&str, &str); 2] = [
    ("user:read:chat", "to hear its chat"),
    ("user:read:moderated_channels", "to know where it is moderator"),
];

/// One look.
pub(super) struct Look<'a> {
    pub(super) twitch: &'a TwitchPlatform,
    pub(super) meter: Meter<'a>,
    probes: &'a ProbeSet,
    pub(super) sink: &'a dyn ProbeSink,
    problems: Mutex<BTreeSet<String>>,
}

impl<'a> Look<'a> {
    pub(super) fn new(twitch: &'a TwitchPlatform, probes: &'a ProbeSet, sink: &'a dyn ProbeSink) -> Self {
        Self {
            twitch,
            meter: Meter::telling(PlatformName::Twitch, sink),
            probes,
            sink,
            problems: Mutex::default(),
        }
    }

    /// Looks at `sources`.
    pub(super) async fn at(self, sources: &[SourceKey]) -> ProbeSummary {
        let mut seen = BTreeSet::new();
        let sources: Vec<&SourceKey> = sources
            .iter()
            .filter(|source| source.platform() == PlatformName::Twitch && seen.insert(*source))
            .collect();
        if !sources.is_empty() {
            // Authorisations first: what follows then finds its tokens renewed.
            if self.wants(Probe::Auth) {
                self.authorisations(&sources).await;
            }
            tokio::join!(self.public_reads(&sources), async {
                if self.wants(Probe::Permissions) {
                    permissions::look(&self, &sources).await;
                }
            });
        }
        ProbeSummary {
            calls: self.meter.count(),
            problems: self
                .problems
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .into_iter()
                .collect(),
        }
    }

    pub(super) fn wants(&self, probe: Probe) -> bool {
        self.probes.contains(&probe)
    }

    /// Hands an observation on.
    pub(super) fn tell(&self, source: &SourceKey, at: Timestamp, by: &str, fact: Fact) {
        self.sink.observe(Observation::new(source, at, by, fact));
    }

    /// Hands on an observation of each source, one page of them after the other.
    pub(super) async fn tell_all(
        &self,
        sources: &[&SourceKey],
        at: Timestamp,
        by: &str,
        fact: impl Fn(&SourceKey) -> Fact,
    ) {
        for page in sources.chunks(PAGE) {
            self.sink.room().await;
            for source in page {
                self.tell(source, at, by, fact(source));
            }
        }
    }

    /// Notes a problem for the summary.
    pub(super) fn problem(&self, text: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.insert(text);
    }

    /// The present moment in Twitch's time, as far as that is known.
    pub(super) fn now(&self) -> Timestamp {
        self.twitch.skew.correct(self.twitch.clock.now())
    }

    /// Runs calls side by side, as many at a time as are permitted, counting each.
    pub(super) async fn side_by_side<F: Future<Output = ()>>(&self, calls: impl IntoIterator<Item = F>) {
        let permitted = calls.into_iter().map(|call| async {
            let permit = self.twitch.permits.acquire().await;
            self.sink.room().await;
            call.await;
            drop(permit);
            self.meter.done();
        });
        join_all(permitted).await;
    }

    /// Looks at every identity that the sources need: the bot's for all, a broadcaster's for its own channel.
    async fn authorisations(&self, sources: &[&SourceKey]) {
        let stored = match self.twitch.auth.identities().await {
            Ok(stored) => stored,
            Err(error) => return self.failed_auth(sources, &error),
        };
        let shared =
            if stored.iter().any(|identity| identity.as_str() == BOT) || !self.twitch.auth.can_be_app() {
                options::bot()
            } else {
                options::app()
            };
        let mut needed: Vec<(Identity, Vec<&SourceKey>)> = vec![(shared, sources.to_vec())];
        let stored: BTreeSet<_> = stored.into_iter().collect();
        for source in sources {
            let identity = options::broadcaster(source.id());
            if stored.contains(&identity) {
                needed.push((identity, vec![source]));
            }
        }
        self.meter.expect(needed.len());
        self.side_by_side(
            needed
                .iter()
                .map(|(identity, sources)| self.authorisation(identity, sources)),
        )
        .await;
    }

    async fn authorisation(&self, identity: &Identity, sources: &[&SourceKey]) {
        let checked = match self.twitch.auth.check(identity, &self.meter).await {
            Ok(checked) => checked,
            Err(error) => return self.failed_auth(sources, &error),
        };
        let (result, reason) = match checked.standing {
            Standing::Valid => (AuthResult::Valid, self.reservations(identity, &checked.token)),
            Standing::Expired(reason) => (AuthResult::Expired, Some(reason)),
            Standing::Revoked(reason) => (AuthResult::Revoked, Some(reason)),
            Standing::Unknown(reason) => {
                return match checked.error {
                    Some(error) => self.failed_auth(sources, &error),
                    None => self.problem(format!("nothing new is known about `{identity}`: {reason}")),
                };
            }
        };
        if result != AuthResult::Valid {
            let reason = reason.as_deref().unwrap_or_default();
            self.problem(format!("`{identity}` is {result}: {reason}"));
        }
        let check = AuthCheck {
            result,
            expires_at: checked.token.expires_at,
            scopes: checked.token.scopes,
            reason,
        };
        let fact = |_: &SourceKey| Fact::Auth {
            identity: identity.clone(),
            check: check.clone(),
        };
        self.tell_all(sources, self.now(), OAUTH, fact).await;
    }

    /// Returns what is wrong with a token that Twitch accepts.
    fn reservations(&self, identity: &Identity, token: &StoredToken) -> Option<String> {
        let told: Vec<_> = [
            self.another_application(identity, token),
            self.missing_scopes(identity, &token.scopes),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// A token of another application serves for reading, and ends for good when it cannot be renewed as that one.
    fn another_application(&self, identity: &Identity, token: &StoredToken) -> Option<String> {
        let configured = self.twitch.options.client_id.as_ref()?;
        let issued_to = token.client_id.as_ref().filter(|issued| *issued != configured)?;
        let what =
            format!("it was issued to the client id {issued_to}, and twitch.client_id is {configured}");
        self.problem(format!("`{identity}` is of another application: {what}"));
        Some(what)
    }

    fn missing_scopes(&self, identity: &Identity, granted: &BTreeSet<String>) -> Option<String> {
        if identity.as_str() != BOT {
            return None;
        }
        let missing: Vec<_> = NEEDED_SCOPES
            .iter()
            .filter(|(scope, _)| !granted.contains(*scope))
            .collect();
        for (scope, purpose) in &missing {
            self.problem(format!("`{identity}` lacks the scope {scope}, {purpose}"));
        }
        let names: Vec<_> = missing.iter().map(|(scope, _)| *scope).collect();
        (!names.is_empty()).then(|| format!("missing scopes: {}", names.join(", ")))
    }

    /// A check that failed tells nothing about the authorisation; it leaves a trace as the last error.
    fn failed_auth(&self, sources: &[&SourceKey], error: &PlatformError) {
        let (at, info) = (self.now(), error.error_info());
        for source in sources {
            let fact = Fact::Problem { error: info.clone() };
            self.tell(source, at, OAUTH, fact);
        }
        self.problem(error.to_string());
    }
}
