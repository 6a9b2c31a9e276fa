//! Refreshes tokens: the order of effects ensures that no crash, no second process or machine and no full disk loses a granted pair,
//! sends a one-time token twice, or stores a token of another user
//! (docs/decisions/0038-refreshes-are-recorded-before-they-are-sent.md).
//!
//! 1. An intent is stored: PLANNED, then SENT. 2. The request is sent. 3. The granted pair goes into the journal of this machine.
//! 4. Its owner is checked. 5. It replaces the stored one, if that is still the one that was refreshed.

use std::time::Duration;

use tokio::time::Instant;

use super::incident::{Meaning, PAUSE};
use super::manager::{TokenManager, is_same, no_token, unusable_store};
use super::provider::{Credentials, Grant, GrantError, Granted, Provider, Validation};
use crate::core::observation::Identity;
use crate::fault::fault_point;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::Refresh;
use crate::tokens::{
    GrantedPair, IntentPhase, RefreshIntent, RefreshState, RefreshToken, Snapshot, Space, StoredToken,
    TokenError,
};

/// How long to wait for another machine that refreshes the same token.
const ELSEWHERE_TIMEOUT: Duration = Duration::from_secs(25);
/// How often its progress is checked; half of that is jitter.
const ELSEWHERE_POLL: Duration = Duration::from_millis(600);
/// How often a refresh begins again because the record has changed meanwhile.
pub(super) const CONFLICTS: u32 = 8;

/// The result of one attempt.
enum Attempt {
    Ended(StoredToken, Refresh),
    /// The record has changed; what it contains now decides.
    Conflict,
    /// Another machine refreshes the token.
    Elsewhere(StoredToken),
}

/// What follows from a refresh that was interrupted.
enum Recovered {
    Send(IntentPhase),
    Lost,
    Unclear(String),
}

/// What is refreshed, and with what.
struct Renewal<'a> {
    identity: &'a Identity,
    token: StoredToken,
    refresh: RefreshToken,
    client: Credentials<'a>,
    /// Whether the platform has rejected the access token.
    refused: bool,
}

impl<P: Provider> TokenManager<P> {
    /// Refreshes the token of `identity`, unless another task or process has replaced `seen` meanwhile. Returns the token as it is
    /// stored then. `refused` means that the platform has rejected the access token.
    pub(super) async fn refresh(
        &self,
        identity: &Identity,
        seen: &StoredToken,
        refused: bool,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, Refresh), PlatformError> {
        let _lock = self.store.lock(identity).await.map_err(unusable_store::<P>)?;
        let until = Instant::now() + ELSEWHERE_TIMEOUT;
        let mut conflicts = 0;
        loop {
            let adoption = self.adopt_locked(identity, meter).await?;
            let snapshot = self.read(identity).await?;
            let current = snapshot.record.token.clone();
            let current = current.ok_or_else(|| no_token::<P>(identity))?;
            if !is_same(&current.access, &seen.access) {
                return Ok((current, Refresh::Done));
            }
            if let Some(unclear) = adoption {
                return Ok((current, Refresh::NoAnswer(unclear)));
            }
            match self.attempt(identity, snapshot, current, refused, meter).await? {
                Attempt::Ended(token, refresh) => return Ok((token, refresh)),
                Attempt::Conflict if conflicts < CONFLICTS => conflicts += 1,
                Attempt::Conflict => {
                    let identity = identity.clone();
                    return Err(unusable_store::<P>(TokenError::Conflict { identity }));
                }
                Attempt::Elsewhere(token) if Instant::now() >= until => {
                    let reason = "another machine is refreshing it".to_owned();
                    return Ok((token, Refresh::NoAnswer(reason)));
                }
                Attempt::Elsewhere(_) => {
                    let factor = 0.75 + self.chance.fraction() / 2.0;
                    tokio::time::sleep(ELSEWHERE_POLL.mul_f64(factor)).await;
                }
            }
        }
    }

    /// Decides from the record whether the refresh token may be sent, and sends it.
    async fn attempt(
        &self,
        identity: &Identity,
        snapshot: Snapshot,
        token: StoredToken,
        refused: bool,
        meter: &Meter<'_>,
    ) -> Result<Attempt, PlatformError> {
        let now = self.clock.now();
        let Some(refresh) = token.refresh.clone() else {
            return Ok(Attempt::Ended(token, Refresh::Impossible));
        };
        if !self.store.renews(identity) {
            return Ok(Attempt::Ended(token, Refresh::LeftToOthers));
        }
        if let RefreshState::Refused { at, reason } = &refresh.state
            && !self.refusals.lock().reopens(identity, *at, now)
        {
            let gone = Refresh::GrantGone(reason.clone());
            return Ok(Attempt::Ended(token, gone));
        }
        let of = token.clone();
        let Some(client) = self.provider.client().of(&of) else {
            let reason = "no client id is configured".to_owned();
            return Ok(Attempt::Ended(token, Refresh::ClientRejected(reason)));
        };
        let begun = snapshot.record.intent.clone();
        let begun = begun.filter(|intent| intent.is_of(&refresh.secret));
        let renewal = Renewal {
            identity,
            token,
            refresh,
            client,
            refused,
        };
        let store_time = snapshot.read_at.unwrap_or(now);
        let phase = match &begun {
            None => IntentPhase::Planned,
            Some(intent) if intent.is_running_elsewhere(self.store.lock_domain(), store_time) => {
                return Ok(Attempt::Elsewhere(renewal.token));
            }
            Some(intent) => match self.recover(&renewal, intent.phase, meter).await {
                Recovered::Send(phase) => phase,
                Recovered::Unclear(reason) => {
                    return Ok(Attempt::Ended(renewal.token, Refresh::NoAnswer(reason)));
                }
                Recovered::Lost => return self.give_up(renewal, snapshot).await,
            },
        };
        self.send(renewal, snapshot, begun, phase, meter).await
    }

    /// Decides about a refresh that a process began and did not complete. Whether its request reached the platform is known only
    /// indirectly: a completed refresh of a one-time token invalidates the old access token.
    async fn recover(&self, renewal: &Renewal<'_>, phase: IntentPhase, meter: &Meter<'_>) -> Recovered {
        match phase {
            IntentPhase::Lost => return Recovered::Lost,
            IntentPhase::Planned => return Recovered::Send(IntentPhase::Sent),
            IntentPhase::Sent | IntentPhase::Retried if !self.provider.is_one_time(renewal.client) => {
                return Recovered::Send(IntentPhase::Sent);
            }
            IntentPhase::Sent | IntentPhase::Retried => {}
        }
        let token = &renewal.token;
        if !renewal.refused {
            match self.provider.validate(renewal.identity, token, None, meter).await {
                Validation::Accepted(_) => return Recovered::Send(IntentPhase::Sent),
                Validation::Refused(_) => {}
                Validation::Unclear(error) => return Recovered::Unclear(error.to_string()),
            }
        }
        let now = self.clock.now();
        if token.expires_at.is_none_or(|end| now >= end) && phase == IntentPhase::Sent {
            // It expired on its own, so nothing is proven either way: exactly one more attempt.
            Recovered::Send(IntentPhase::Retried)
        } else {
            Recovered::Lost
        }
    }

    /// Forgets a refresh whose answer was lost once the platform accepts the old access token, which proves that it had no effect.
    /// Otherwise a revocation later on would be taken for the loss of that answer.
    pub(super) async fn forget_lost_refresh(
        &self,
        identity: &Identity,
        token: &StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(), PlatformError> {
        let client = self.provider.client().of(token);
        if token.refresh.is_none()
            || !self.store.renews(identity)
            || !client.is_some_and(|client| self.provider.is_one_time(client))
        {
            return Ok(());
        }
        let is_open = |snapshot: &Snapshot| {
            let intent = snapshot.record.intent.as_ref();
            let now = snapshot.read_at.unwrap_or_else(|| self.clock.now());
            intent.is_some_and(|intent| {
                matches!(intent.phase, IntentPhase::Sent | IntentPhase::Retried)
                    && !intent.is_running_elsewhere(self.store.lock_domain(), now)
            })
        };
        if !is_open(&self.read(identity).await?) {
            return Ok(());
        }
        // Another process may have been refreshing during the validation, so it is repeated under the lock.
        let _lock = self.store.lock(identity).await.map_err(unusable_store::<P>)?;
        let snapshot = self.read(identity).await?;
        let stored = snapshot.record.token.as_ref();
        let stored = stored.filter(|stored| is_same(&stored.access, &token.access));
        let Some(stored) = stored.filter(|_| is_open(&snapshot)) else {
            return Ok(());
        };
        if let Validation::Accepted(_) = self.provider.validate(identity, stored, None, meter).await {
            let mut record = snapshot.record;
            record.intent = None;
            match self.store.write(identity, &record, &snapshot.version).await {
                Ok(_) | Err(TokenError::Conflict { .. }) => {}
                Err(error) => return Err(unusable_store::<P>(error)),
            }
        }
        Ok(())
    }

    /// Records that the answer to a refresh is lost. The intent's id stays, so that the machine which received the pair, if it was
    /// only paused, can still store it.
    async fn give_up(&self, renewal: Renewal<'_>, snapshot: Snapshot) -> Result<Attempt, PlatformError> {
        let mut record = snapshot.record;
        let lost = record.intent.take();
        if lost
            .as_ref()
            .is_some_and(|intent| intent.phase != IntentPhase::Lost)
        {
            record.intent = lost.map(|intent| intent.in_phase(IntentPhase::Lost));
            match self
                .store
                .write(renewal.identity, &record, &snapshot.version)
                .await
            {
                Ok(_) => {}
                Err(TokenError::Conflict { .. }) => return Ok(Attempt::Conflict),
                Err(error) => return Err(unusable_store::<P>(error)),
            }
        }
        Ok(Attempt::Ended(renewal.token, Refresh::Lost))
    }

    /// Records the refresh, sends it and evaluates the answer. `before` is what was recorded of an earlier one.
    async fn send(
        &self,
        renewal: Renewal<'_>,
        snapshot: Snapshot,
        before: Option<RefreshIntent>,
        phase: IntentPhase,
        meter: &Meter<'_>,
    ) -> Result<Attempt, PlatformError> {
        let identity = renewal.identity;
        // Before anything is sent: a granted pair must be kept although the disk becomes full meanwhile.
        let space = self.store.journal().reserve(identity).await;
        let space = space.map_err(unusable_store::<P>)?;
        let Snapshot {
            mut record,
            mut version,
            ..
        } = snapshot;
        let store_time = snapshot.read_at.unwrap_or_else(|| self.clock.now());
        let domain = self.store.lock_domain();
        let intent = RefreshIntent::plan(domain, record.generation, &renewal.refresh.secret, store_time);
        let sent = if phase == IntentPhase::Planned {
            IntentPhase::Sent
        } else {
            phase
        };
        // An interrupted refresh is taken over at once; a new one is planned first, which proves that nothing was sent.
        let steps = [
            (phase == IntentPhase::Planned).then_some(("refresh.F1", IntentPhase::Planned)),
            Some(("refresh.F2", sent)),
        ];
        for (point, phase) in steps.into_iter().flatten() {
            fault_point(point);
            record.intent = Some(intent.clone().in_phase(phase));
            match self.store.write(identity, &record, &version).await {
                Ok(written) => version = written,
                Err(TokenError::Conflict { .. }) => return Ok(Attempt::Conflict),
                Err(error) => return Err(unusable_store::<P>(error)),
            }
        }
        fault_point("refresh.F3");
        let grant = Grant::RefreshToken(&renewal.refresh.secret);
        fault_point("refresh.F4");
        let outcome = self.exchange(renewal.client, grant, meter).await;
        fault_point("refresh.F5");
        match outcome {
            Ok(granted) => {
                let pair = GrantedPair {
                    token: self.renewed(&renewal, granted),
                    intent: intent.id,
                    generation: record.generation,
                    other_owner: None,
                };
                self.keep(identity, &pair, space).await;
                if let Some(unclear) = self.adopt_locked(identity, meter).await? {
                    return Ok(Attempt::Ended(renewal.token, Refresh::NoAnswer(unclear)));
                }
                let stored = self.read(identity).await?.record;
                match stored.token {
                    Some(token) if stored.generation > record.generation => {
                        Ok(Attempt::Ended(token, Refresh::Done))
                    }
                    _ => Ok(Attempt::Conflict),
                }
            }
            Err(failure) => self.failed(renewal, &intent.id, before, sent, failure).await,
        }
    }

    /// Puts a granted pair into the journal, where it survives a crash of this process.
    async fn keep(&self, identity: &Identity, pair: &GrantedPair, space: Space) {
        fault_point("refresh.F6");
        if let Err(error) = self.store.journal().put_in(identity, pair, space).await {
            tracing::warn!(
                account = %identity,
                error = &error as &dyn std::error::Error,
                "The granted token cannot be written to the journal; it is lost if this process ends before it is stored"
            );
        }
        fault_point("refresh.F7");
    }

    /// Evaluates a refresh that granted nothing.
    async fn failed(
        &self,
        renewal: Renewal<'_>,
        intent: &str,
        before: Option<RefreshIntent>,
        sent: IntentPhase,
        failure: GrantError,
    ) -> Result<Attempt, PlatformError> {
        let identity = renewal.identity;
        let mut result = failure.as_refresh();
        let one_time = self.provider.is_one_time(renewal.client);
        if matches!(failure, GrantError::Lost(_)) && one_time {
            // The intent stays: a later check uses the old access token to find out whether the refresh was processed.
            return Ok(Attempt::Ended(renewal.token, result));
        }
        let snapshot = self.read(identity).await?;
        let mut record = snapshot.record;
        let is_ours = record.intent.as_ref().is_some_and(|found| found.id == intent);
        let Some(current) = record.token.as_mut().filter(|_| is_ours) else {
            // Another process or machine has replaced the token or taken over.
            return Ok(Attempt::Conflict);
        };
        match failure {
            GrantError::Gone(_) if sent == IntentPhase::Retried => {
                result = Refresh::Lost;
                record.intent = record.intent.map(|found| found.in_phase(IntentPhase::Lost));
            }
            GrantError::Gone(reason) => {
                record.intent = None;
                match self.meaning(&renewal) {
                    Meaning::Revoked => {
                        let at = self.clock.now();
                        if let Some(refresh) = current.refresh.as_mut() {
                            refresh.state = RefreshState::Refused { at, reason };
                        }
                    }
                    Meaning::Incident { accounts } => {
                        result = Refresh::Unclear(format!(
                            "{accounts} accounts of {} were refused within minutes, which may be an incident there; it counts as revoked if \
                             that is repeated in {} minutes: {reason}",
                            P::PLATFORM,
                            PAUSE.as_secs() / 60
                        ));
                    }
                }
            }
            // The request had no effect: a later refresh continues as if this one had not been attempted. A token that works more than
            // once needs no record.
            _ => record.intent = before.filter(|_| one_time),
        }
        let token = current.clone();
        match self.store.write(identity, &record, &snapshot.version).await {
            Ok(_) => Ok(Attempt::Ended(token, result)),
            Err(TokenError::Conflict { .. }) => Ok(Attempt::Conflict),
            Err(error) => Err(unusable_store::<P>(error)),
        }
    }

    /// Decides what the refusal of a refresh token means. Where the access token was rejected before it expired, two endpoints agree.
    fn meaning(&self, renewal: &Renewal<'_>) -> Meaning {
        let now = self.clock.now();
        let expired = renewal.token.expires_at.is_none_or(|end| now >= end);
        if renewal.refused && !expired {
            return Meaning::Revoked;
        }
        self.refusals.lock().note(renewal.identity, now)
    }

    /// Returns the token with a granted pair.
    fn renewed(&self, renewal: &Renewal<'_>, granted: Granted) -> StoredToken {
        let now = self.clock.now();
        let mut token = renewal.token.clone();
        token.expires_at = granted.expires_at(now);
        token.access = StoredToken::unproven(granted.access_token, now).access;
        token.client_id = Some(renewal.client.id.to_owned());
        token.obtained_at = now;
        token.refreshed_at = Some(now);
        let scopes_unknown = self.account(renewal.identity, &renewal.token, |account| account.scopes_unknown);
        let scopes_unknown = scopes_unknown && granted.scope.is_none();
        if let Some(scopes) = granted.scope {
            token.scopes = scopes;
        }
        if !granted.refresh_token.is_empty() {
            token.refresh = Some(RefreshToken::fresh(granted.refresh_token));
        } else if let Some(refresh) = token.refresh.as_mut() {
            refresh.state = RefreshState::Ready;
        }
        self.account(renewal.identity, &token, |account| {
            account.scopes_unknown = scopes_unknown;
        });
        token
    }
}
