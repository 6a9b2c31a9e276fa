//! One probe run of Twitch: makes the requests for all probes of all sources together, authorizations first.

use std::collections::BTreeSet;
use std::sync::{Arc, Once};

use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;

use super::TwitchPlatform;
use super::helix::PAGE;
use super::map::OAUTH;
use super::options;
use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, Fact, Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::{TokenCheck, TokenStatus};
use crate::platforms::{PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary, Problem};
use crate::tokens::StoredToken;

/// Calls in flight before one was answered: a platform that is gone is not asked a hundred times, and those that follow share
/// the connection.
const FIRST_CALLS: usize = 8;

pub(super) struct ProbeRun<'a> {
    pub(super) twitch: &'a TwitchPlatform,
    pub(super) meter: Meter<'a>,
    probes: &'a ProbeSet,
    pub(super) sink: &'a dyn ProbeSink,
    /// One permit per call in flight.
    pub(super) permits: Semaphore,
    widened: Once,
    /// When the run started, by the clock of this machine.
    pub(super) started_at: Timestamp,
}

impl<'a> ProbeRun<'a> {
    pub(super) fn new(twitch: &'a TwitchPlatform, probes: &'a ProbeSet, sink: &'a dyn ProbeSink) -> Self {
        Self {
            twitch,
            meter: Meter::with_progress(PlatformName::Twitch, sink),
            probes,
            sink,
            permits: Semaphore::new(sink.calls_at_once().min(FIRST_CALLS)),
            widened: Once::new(),
            started_at: twitch.clock.now(),
        }
    }

    pub(super) async fn at(self, sources: &[SourceKey]) -> ProbeSummary {
        let mut seen = BTreeSet::new();
        let sources: Vec<&SourceKey> = sources
            .iter()
            .filter(|source| source.platform() == PlatformName::Twitch && seen.insert(*source))
            .collect();
        if !sources.is_empty() {
            // Authorizations first: the requests that follow then use renewed tokens.
            if self.wants(Probe::Auth) {
                self.authorizations(&sources).await;
            }
            tokio::join!(self.public_reads(&sources), async {
                if self.wants(Probe::Permissions) {
                    self.permissions(&sources).await;
                }
            });
            // A token that was rejected during the run was checked, whatever the run's purpose.
            self.publish_checks(&sources).await;
        }
        let mut summary = self.meter.summary();
        // Calls run concurrently; the order in which they fail means nothing.
        summary.problems.sort();
        summary
    }

    pub(super) fn wants(&self, probe: Probe) -> bool {
        self.probes.contains(&probe)
    }

    /// Publishes an observation.
    pub(super) fn emit(&self, source: &SourceKey, at: Timestamp, by: &str, fact: Fact) {
        self.sink.observe(Observation::new(source, at, by, fact));
    }

    /// Publishes an observation of each source, one page of them after the other.
    pub(super) async fn emit_all(
        &self,
        sources: &[&SourceKey],
        at: Timestamp,
        by: &str,
        fact: impl Fn(&SourceKey) -> Fact,
    ) {
        for page in sources.chunks(PAGE) {
            self.sink.ready().await;
            for source in page {
                self.emit(source, at, by, fact(source));
            }
        }
    }

    /// Records a problem for the summary.
    pub(super) fn problem(&self, problem: Problem) {
        self.meter.problem(problem);
    }

    /// Records that a request failed.
    pub(super) fn failure(&self, error: &PlatformError) {
        self.problem(Problem::of_platform(error.to_string()).caused_by(error.error_info()));
    }

    /// The current time in Twitch's time, as far as that is known.
    pub(super) fn now(&self) -> Timestamp {
        self.twitch.skew.correct(self.twitch.clock.now())
    }

    /// Permits all calls at once, because one was answered.
    pub(super) fn answered(&self) {
        let more = self.sink.calls_at_once().saturating_sub(FIRST_CALLS);
        self.widened.call_once(|| self.permits.add_permits(more));
    }

    /// Makes a call for each subject concurrently, up to the permitted number, and counts each. Calls are prepared when they may start, so that
    /// memory does not grow with their number.
    pub(super) async fn side_by_side<'s, T, F: Future<Output = ()>>(
        &self,
        subjects: &'s [T],
        call: impl Fn(&'s T) -> F,
    ) {
        let call = &call;
        stream::iter(subjects)
            .for_each_concurrent(self.sink.calls_at_once(), |subject| async move {
                let permit = self.permits.acquire().await;
                self.sink.ready().await;
                call(subject).await;
                drop(permit);
                self.meter.done();
            })
            .await;
    }

    /// Checks every account that the sources need: the bot's for all, a broadcaster's for its own channel.
    async fn authorizations(&self, sources: &[&SourceKey]) {
        let stored = match self.twitch.auth.identities().await {
            Ok(stored) => stored,
            Err(error) => return self.failed_auth(None, sources, &error),
        };
        let stored: BTreeSet<_> = stored.into_iter().collect();
        let mut needed: Vec<(Identity, Vec<&SourceKey>)> =
            vec![(self.shared_account(&stored), sources.to_vec())];
        for source in sources {
            let identity = options::broadcaster(source.id());
            if stored.contains(&identity) {
                needed.push((identity, vec![source]));
            }
        }
        self.meter.expect(needed.len());
        self.side_by_side(&needed, |(identity, sources)| async move {
            match self.twitch.auth.check(identity, &self.meter).await {
                Ok(_) => self.answered(),
                Err(error) => self.failed_auth(Some(identity), sources, &error),
            }
        })
        .await;
        self.publish_checks(sources).await;
    }

    /// Returns the account that every source needs: the bot's, or the application's if there is no bot.
    fn shared_account(&self, stored: &BTreeSet<Identity>) -> Identity {
        if stored.contains(&options::bot()) || !self.twitch.auth.can_be_app() {
            options::bot()
        } else {
            options::app()
        }
    }

    /// Publishes the checks that were made since the last call, for each source that needs the account.
    async fn publish_checks(&self, sources: &[&SourceKey]) {
        let checks = self.meter.checks.take();
        if checks.is_empty() {
            return;
        }
        let stored = self.twitch.auth.identities().await.unwrap_or_default();
        let shared = self.shared_account(&stored.into_iter().collect());
        for (identity, check) in checks {
            let concerned: Vec<_> = match options::broadcaster_of(&identity) {
                Some(id) => sources
                    .iter()
                    .copied()
                    .filter(|source| source.id() == id)
                    .collect(),
                None if identity == shared => sources.to_vec(),
                // A bot's sources do not use the application token.
                None => continue,
            };
            self.publish_check(&identity, &check, &concerned).await;
        }
    }

    async fn publish_check(&self, identity: &Identity, check: &TokenCheck, sources: &[&SourceKey]) {
        let at = self.twitch.skew.correct(check.at);
        let Some(mut evidence) = check.status.evidence(&check.token) else {
            return match &check.error {
                Some(error) => self.failed_auth(Some(identity), sources, error),
                None => {
                    let reason = check.status.reason().unwrap_or_default();
                    let text = format!("nothing new is known about `{identity}`: {reason}");
                    self.problem(Problem::of_account(identity, text));
                }
            };
        };
        if check.status == TokenStatus::Valid {
            evidence.reason = self.reservations(identity, &check.token);
        } else {
            let reason = evidence.reason.as_deref().unwrap_or_default();
            let word = if evidence.rejected {
                "REJECTED".to_owned()
            } else {
                evidence.result.to_string()
            };
            let text = format!("`{identity}` is {word}: {reason}");
            self.problem(Problem::of_account(identity, text));
            if evidence.client_rejected {
                // Sources may stay connected over sessions that are already open, which must not hide that these cannot be
                // renewed.
                let error = ErrorInfo::new(Code::ClientRejected(PlatformName::Twitch), reason);
                let fact = |_: &SourceKey| Fact::Problem { error: error.clone() };
                self.emit_all(sources, at, OAUTH, fact).await;
            }
        }
        let check = Arc::new(evidence);
        let fact = |_: &SourceKey| Fact::Auth {
            identity: identity.clone(),
            check: Arc::clone(&check),
        };
        self.emit_all(sources, at, OAUTH, fact).await;
    }

    /// Returns what is wrong with a token that Twitch accepts.
    fn reservations(&self, identity: &Identity, token: &StoredToken) -> Option<String> {
        let texts: Vec<_> = [
            self.another_application(identity, token),
            self.missing_scopes(identity, token),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// A token of another application works for reading, but cannot be renewed by this one and then expires for good.
    fn another_application(&self, identity: &Identity, token: &StoredToken) -> Option<String> {
        let configured = self.twitch.options.client_id.as_ref()?;
        let issued_to = token.client_id.as_ref().filter(|issued| *issued != configured)?;
        let what =
            format!("it was issued to the client id {issued_to}, and twitch.client_id is {configured}");
        let text = format!("`{identity}` is of another application: {what}");
        self.limitation(identity, text);
        Some(what)
    }

    fn missing_scopes(&self, identity: &Identity, token: &StoredToken) -> Option<String> {
        let missing = self.twitch.auth.missing_scopes(identity, token);
        for (scope, purpose) in &missing {
            let text = format!("`{identity}` lacks the scope {scope}, {purpose}");
            self.limitation(identity, text);
        }
        let names: Vec<_> = missing.iter().map(|(scope, _)| *scope).collect();
        (!names.is_empty()).then(|| format!("missing scopes: {}", names.join(", ")))
    }

    /// Notes a limitation of a valid token, where accounts are what this run checks: it fails no other question.
    fn limitation(&self, identity: &Identity, text: String) {
        if self.wants(Probe::Auth) {
            self.problem(Problem::of_account(identity, text));
        }
    }

    /// A failed check is no evidence about the authorization; it is recorded as the last error.
    fn failed_auth(&self, identity: Option<&Identity>, sources: &[&SourceKey], error: &PlatformError) {
        let (at, info) = (self.now(), error.error_info());
        for source in sources {
            let fact = Fact::Problem { error: info.clone() };
            self.emit(source, at, OAUTH, fact);
        }
        let problem = match identity.filter(|_| error.is_of_account()) {
            Some(identity) => Problem::of_account(identity, error.to_string()),
            None => Problem::of_platform(error.to_string()),
        };
        self.problem(problem.caused_by(info));
    }
}
