//! Refreshes tokens: the order of effects ensures that no crash, no second process or machine and no full disk loses a granted pair,
//! sends a one-time token twice, or stores a token of another user
//! (docs/decisions/0038-refreshes-are-recorded-before-they-are-sent.md).
//!
//! 1. An intent is stored: PLANNED, then SENT. 2. The request is sent. 3. The granted pair goes into the journal of this machine.
//! 4. Its owner is checked. 5. It replaces the stored one, if that is still the one that was refreshed.

use std::time::Duration;

use tokio::time::Instant;

use super::incident::{Meaning, PAUSE_MS};
use super::manager::{TokenManager, is_same, no_token, of_other_account, unusable_store};
use super::provider::{Credentials, Grant, GrantError, Granted, Provider, Validation};
use crate::core::observation::Identity;
use crate::fault::fault_point;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::Refresh;
use crate::tokens::{
    GrantedPair, IntentPhase, RefreshIntent, RefreshState, RefreshToken, Snapshot, StoredToken, TokenError,
    TokenKind,
};

/// How long to wait for another machine that refreshes the same token.
const ELSEWHERE_PATIENCE: Duration = Duration::from_secs(25);
/// How often its progress is checked; half of that is jitter.
const ELSEWHERE_POLL: Duration = Duration::from_millis(600);
/// How often a refresh begins again because the record has changed meanwhile.
const CONFLICTS: u32 = 8;

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

/// Whose a granted pair is.
enum Ownership {
    /// The account's; with what the platform returned about the token.
    Own(Box<StoredToken>),
    Other(String),
    Unclear(PlatformError),
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
        let until = Instant::now() + ELSEWHERE_PATIENCE;
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
        if !self.store.renews() {
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
            return Ok(Attempt::Ended(token, Refresh::AppRefused(reason)));
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
                self.keep(identity, &pair).await;
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
    async fn keep(&self, identity: &Identity, pair: &GrantedPair) {
        fault_point("refresh.F6");
        if let Err(error) = self.store.journal().put(identity, pair).await {
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
                            PAUSE_MS / 60_000
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

    /// Stores a granted pair that is in the journal, as after a crash or while the store could not be written.
    pub(super) async fn adopt(&self, identity: &Identity, meter: &Meter<'_>) -> Result<(), PlatformError> {
        let _lock = self.store.lock(identity).await.map_err(unusable_store::<P>)?;
        self.adopt_locked(identity, meter).await.map(|_| ())
    }

    /// As [`Self::adopt`], under the account's lock. Returns why the pair could not be stored yet, if so; it stays in the journal then.
    /// Fails if it belongs to another account.
    async fn adopt_locked(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Option<String>, PlatformError> {
        let journal = self.store.journal();
        for _ in 0..=CONFLICTS {
            let pair = journal.get(identity).await.map_err(unusable_store::<P>)?;
            let Some(mut pair) = pair else {
                return Ok(None);
            };
            let snapshot = self.read(identity).await?;
            match self.is_wanted(identity, &snapshot, &pair, meter).await {
                Ok(true) => {}
                Ok(false) => {
                    journal.remove(identity).await.map_err(unusable_store::<P>)?;
                    return Ok(None);
                }
                Err(unclear) => return Ok(Some(unclear)),
            }
            let expected = self.expected_owner(identity, snapshot.record.token.as_ref());
            let ownership = match &pair.other_owner {
                Some(owner) => Ownership::Other(owner.clone()),
                None => {
                    self.owner_of_granted(identity, expected.as_deref(), &pair.token, meter)
                        .await
                }
            };
            let token = match ownership {
                Ownership::Own(token) => *token,
                Ownership::Unclear(error) => {
                    return Ok(Some(format!(
                        "it cannot be checked whose the new token is: {error}"
                    )));
                }
                Ownership::Other(owner) => {
                    pair.other_owner = Some(owner.clone());
                    let kept = journal.put(identity, &pair).await;
                    kept.map_err(unusable_store::<P>)?;
                    let expected = expected.unwrap_or_default();
                    return Err(of_other_account::<P>(identity, &expected, &owner));
                }
            };
            let mut record = snapshot.record;
            record.replace_token(Some(token));
            fault_point("refresh.F8");
            match self.store.write(identity, &record, &snapshot.version).await {
                Ok(_) => {
                    fault_point("refresh.F9");
                    self.refusals.lock().forget(identity);
                    journal.remove(identity).await.map_err(unusable_store::<P>)?;
                    return Ok(None);
                }
                Err(TokenError::Conflict { .. }) => {}
                Err(error) => return Err(unusable_store::<P>(error)),
            }
        }
        let identity = identity.clone();
        Err(unusable_store::<P>(TokenError::Conflict { identity }))
    }

    /// Returns whether a granted pair is to replace the stored token: it is the result of the refresh that is recorded, or the token that
    /// replaced it meanwhile does not work and is older. `Err` contains why that is not known.
    async fn is_wanted(
        &self,
        identity: &Identity,
        snapshot: &Snapshot,
        pair: &GrantedPair,
        meter: &Meter<'_>,
    ) -> Result<bool, String> {
        let record = &snapshot.record;
        let intent = record.intent.as_ref();
        if record.generation == pair.generation && intent.is_some_and(|intent| intent.id == pair.intent) {
            return Ok(true);
        }
        // After a logout, and where it is stored already.
        let Some(stored) = &record.token else {
            return Ok(false);
        };
        if is_same(&stored.access, &pair.token.access)
            || pair.other_owner.is_some()
            || stored.obtained_at >= pair.token.obtained_at
            || stored.user_id != pair.token.user_id
        {
            return Ok(false);
        }
        match self.provider.validate(identity, stored, None, meter).await {
            Validation::Accepted(_) => Ok(false),
            Validation::Refused(_) => Ok(true),
            Validation::Unclear(error) => Err(error.to_string()),
        }
    }

    /// Returns the id of the user that a token of `identity` must belong to, as far as it is known.
    fn expected_owner(&self, identity: &Identity, stored: Option<&StoredToken>) -> Option<String> {
        let known = || stored.and_then(|token| token.user_id.clone());
        self.provider.owner_of(identity).or_else(known)
    }

    /// Finds out whose a granted pair is. A platform grants the pair of the account that the refresh token is of; a token store that
    /// several programs write may still have had another account's in this place.
    async fn owner_of_granted(
        &self,
        identity: &Identity,
        expected: Option<&str>,
        token: &StoredToken,
        meter: &Meter<'_>,
    ) -> Ownership {
        let own = |token: &StoredToken| Ownership::Own(Box::new(token.clone()));
        let Some(expected) = expected else {
            return own(token);
        };
        if !P::VALIDATION_NAMES_OWNER {
            return match self.provider.owner(&token.access, meter).await {
                Ok(Some(owner)) if owner.user_id == expected => own(&StoredToken {
                    user_id: Some(owner.user_id),
                    login: owner.login.or_else(|| token.login.clone()),
                    ..token.clone()
                }),
                Ok(Some(owner)) => Ownership::Other(format!("user {}", owner.user_id)),
                // Without the scope for it, nobody is named.
                Ok(None) => own(token),
                Err(error) => Ownership::Unclear(error),
            };
        }
        match self.provider.validate(identity, token, None, meter).await {
            Validation::Accepted(described) => {
                let described_token = described.token;
                match &described_token.user_id {
                    Some(owner) if owner == expected => {
                        let now = self.clock.now();
                        self.account(identity, &described_token, |account| {
                            account.accepted_at = Some(now);
                            account.scopes_unknown = !described.scopes_known;
                        });
                        own(&described_token)
                    }
                    Some(owner) => Ownership::Other(format!("user {owner}")),
                    None if described_token.kind == TokenKind::App => {
                        Ownership::Other("the application itself".to_owned())
                    }
                    None => own(token),
                }
            }
            // A rejected token acts for nobody; the next refresh has to show whose it is.
            Validation::Refused(_) => own(token),
            Validation::Unclear(error) => Ownership::Unclear(error),
        }
    }
}
