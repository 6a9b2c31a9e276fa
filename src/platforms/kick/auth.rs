//! Tokens as this platform needs them: usable ones for calls, and how each identity's authorisation stands.
//!
//! The rules are in `standing`; here is the order of effects. A new token is kept before it is used, and getting one
//! happens under the identity's lease, so that tasks and processes do it once together.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::client::{Call, Client};
use super::meter::Meter;
use super::options::{APP, BOT, KickOptions, broadcaster_of};
use super::standing::{Renewal, Standing, is_due, of_inactive};
use super::wire::{Envelope, Granted, Introspected, User, scopes};
use crate::clock::Clock;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::http::Answer;
use crate::platforms::PlatformError;
use crate::tokens::{RefreshState, RefreshToken, StoredToken, TokenError, TokenKind, TokenLease, TokenStore};

/// An app token is replaced in its last day.
const APP_MARGIN_SECS: i64 = 86_400;
/// How long a refused client id or secret is not tried again (ms): a person has to act first.
const REFUSED_APP_PAUSE_MS: i64 = 600_000;
/// The operation in the error that says that the application itself is refused.
pub(super) const APP_REFUSED: &str = "a token for this client id and secret";

/// A token to call with.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) identity: Identity,
    pub(super) token: SecretString,
}

/// How an identity's authorisation was found.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) at: Timestamp,
    pub(super) standing: Standing,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) scopes: BTreeSet<String>,
    pub(super) user_id: Option<u64>,
    /// When the grant was last renewed; `None` for the application, which needs no grant.
    pub(super) renewed_at: Option<Timestamp>,
    /// Scopes that it had when it was last looked at.
    pub(super) lost_scopes: BTreeSet<String>,
    /// Whether the application itself is refused.
    pub(super) app_refused: bool,
}

/// What is to be done after Kick has refused a token.
pub(super) enum Refused {
    /// Try with this one.
    Better(Access),
    /// The token is good; the refusal was about something else.
    NotTheToken,
    /// There is no usable token.
    Hopeless,
}

/// Keeps this platform's tokens usable.
pub(super) struct Auth {
    client: Arc<Client>,
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    bot_user_id: Option<u64>,
    app_refused_at: Mutex<Option<Timestamp>>,
    recent: Mutex<HashMap<Identity, Checked>>,
}

enum GrantFailure {
    InvalidGrant,
    InvalidClient,
    NoAnswer(PlatformError),
}

impl Auth {
    pub(super) fn new(
        client: Arc<Client>,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        options: &KickOptions,
    ) -> Self {
        Self {
            client,
            store,
            clock,
            client_id: options.client_id.clone().filter(|id| !id.is_empty()),
            client_secret: options.client_secret.clone(),
            bot_user_id: options.bot_user_id,
            app_refused_at: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// Returns the identities that can be looked at, the application first.
    pub(super) async fn identities(&self) -> Result<Vec<Identity>, PlatformError> {
        let mut identities = self.store.identities().await.map_err(unusable_store)?;
        identities.retain(|identity| identity.as_str().starts_with("kick/") && identity.as_str() != APP);
        identities.sort_by_key(|identity| (identity.as_str() != BOT, identity.clone()));
        if self.can_be_app() {
            identities.insert(0, Identity::named(APP));
        }
        Ok(identities)
    }

    /// Returns whether a token for the application itself can be had.
    fn can_be_app(&self) -> bool {
        self.client_id.is_some() && self.client_secret.is_some()
    }

    /// Returns a token for reading public data: the application's, else the bot's, else any broadcaster's.
    pub(super) async fn reader(&self, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        let identity = self
            .identities()
            .await?
            .into_iter()
            .next()
            .ok_or_else(no_identity)?;
        self.access(&identity, meter).await
    }

    /// Returns the application's token.
    pub(super) async fn app(&self, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        self.access(&Identity::named(APP), meter).await
    }

    /// Returns a usable token of `identity`, renewed where it is due.
    async fn access(&self, identity: &Identity, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        let now = self.clock.now();
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let token = if identity.as_str() == APP {
            let margin = |end: Timestamp| now >= end.plus_secs(-APP_MARGIN_SECS);
            match stored.filter(|token| self.is_ours(token) && !token.expires_at.is_some_and(margin)) {
                Some(token) => token,
                None => self.new_app_token(None, meter).await?,
            }
        } else {
            let mut token = stored.ok_or_else(no_identity)?;
            if is_due(token.expires_at, now) && can_refresh(&token) {
                // A failure here is no news: the token may still be good, and if not, its refusal is examined.
                if let Ok((renewed, Renewal::Renewed)) = self.renew(identity, &token, meter).await {
                    token = renewed;
                }
            }
            if token.user_id.is_none() {
                token = self.prove_owner(identity, token, meter).await?;
            }
            token
        };
        Ok(Access {
            identity: identity.clone(),
            token: token.access,
        })
    }

    fn is_ours(&self, token: &StoredToken) -> bool {
        token.kind == TokenKind::App && token.client_id == self.client_id
    }

    /// Examines a token that Kick has refused with 401. That alone means little: it may be of the wrong kind or lack a
    /// scope. App tokens have been seen to die early, and are simply replaced once.
    pub(super) async fn after_refusal(
        &self,
        used: &Access,
        meter: &Meter<'_>,
    ) -> Result<Refused, PlatformError> {
        let better = |token: SecretString| Access {
            identity: used.identity.clone(),
            token,
        };
        if used.identity.as_str() == APP {
            let token = self.new_app_token(Some(&used.token), meter).await?;
            return Ok(Refused::Better(better(token.access)));
        }
        let checked = self.check(&used.identity, meter).await?;
        match checked.standing {
            Standing::Valid => {
                let stored = self.store.load(&used.identity).await.map_err(unusable_store)?;
                let token = stored.ok_or_else(no_identity)?.access;
                Ok(if same(&token, &used.token) {
                    Refused::NotTheToken
                } else {
                    Refused::Better(better(token))
                })
            }
            Standing::Unknown(reason) => Err(PlatformError::Unavailable {
                platform: PlatformName::Kick,
                operation: "the examination of a refused token",
                reason,
                code: "kick.introspect".to_owned(),
            }),
            Standing::Expired(_) | Standing::Revoked(_) => Ok(Refused::Hopeless),
        }
    }

    /// Returns how `identity` was found at most `max_age_ms` ago, else looks.
    pub(super) async fn checked_within(
        &self,
        max_age_ms: i64,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Checked, PlatformError> {
        let recent = self
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(identity)
            .cloned();
        match recent.filter(|checked| self.clock.now().millis_since(checked.at) <= max_age_ms) {
            Some(checked) => Ok(checked),
            None => self.check(identity, meter).await,
        }
    }

    /// Looks how the authorisation of `identity` stands, renewing its token where that is what it takes.
    pub(super) async fn check(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Checked, PlatformError> {
        let access = self.access(identity, meter).await;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let Some(token) = stored else {
            // There is no token of the application, and none could be had.
            let Err(error) = access else {
                return Err(no_identity());
            };
            return Err(error);
        };
        // What a token that is somebody else's may do is not of interest.
        if let Err(error @ PlatformError::NotConfigured { .. }) = access {
            return Err(error);
        }
        let (standing, token, known, app_refused) = match self.introspect(&token.access, meter).await {
            Ok(Some(told)) => {
                let before = token.scopes.clone();
                let token = self.learn(identity, token, told).await?;
                let lost = before.difference(&token.scopes).cloned().collect();
                (Standing::Valid, token, lost, false)
            }
            Ok(None) => {
                let (token, standing, app_refused) = self.of_inactive(identity, token, meter).await?;
                (standing, token, BTreeSet::new(), app_refused)
            }
            Err(error) => (
                Standing::Unknown(error.to_string()),
                token,
                BTreeSet::new(),
                false,
            ),
        };
        let checked = Checked {
            at: self.clock.now(),
            standing,
            expires_at: token.expires_at,
            scopes: token.scopes,
            user_id: token.user_id.and_then(|id| id.parse().ok()),
            renewed_at: (token.kind == TokenKind::User && token.refresh.is_some())
                .then_some(token.obtained_at),
            lost_scopes: known,
            app_refused,
        };
        meter.checked(identity, checked.clone());
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.insert(identity.clone(), checked.clone());
        Ok(checked)
    }

    async fn of_inactive(
        &self,
        identity: &Identity,
        token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, Standing, bool), PlatformError> {
        if identity.as_str() == APP {
            return match self.new_app_token(Some(&token.access), meter).await {
                Ok(token) => Ok((token, Standing::Valid, false)),
                Err(error) => {
                    let refused = is_app_refusal(&error);
                    Ok((token, Standing::Unknown(error.to_string()), refused))
                }
            };
        }
        let (current, renewal) = self.renew(identity, &token, meter).await?;
        let now = self.clock.now();
        let standing = of_inactive(&renewal, token.expires_at, token.obtained_at, now);
        Ok((current, standing, renewal == Renewal::InvalidClient))
    }

    /// Asks whether `token` is active; `None` when it is not. Kick says so with 200 or with 401.
    async fn introspect(
        &self,
        token: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Option<Introspected>, PlatformError> {
        let call = Call {
            token: Some(token),
            ..Call::oauth("/oauth/token/introspect", "the examination of a token")
        };
        match self.client.exchange(&call, meter).await {
            Ok(answer) => {
                let told: Envelope<Introspected> = read(&answer, call.operation)?;
                Ok(Some(told.data).filter(|told| told.active))
            }
            Err(PlatformError::Unauthorized { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes what introspection told into the store, after checking that the token belongs to this application.
    async fn learn(
        &self,
        identity: &Identity,
        token: StoredToken,
        told: Introspected,
    ) -> Result<StoredToken, PlatformError> {
        let told_client = told.client_id.filter(|id| !id.is_empty());
        if let (Some(told), Some(ours)) = (&told_client, &self.client_id)
            && told != ours
        {
            return Err(not_ours(identity, "another application"));
        }
        if told.token_type.as_deref() == Some("app") && identity.as_str() != APP {
            return Err(not_ours(identity, "the application itself"));
        }
        let mut learnt = token.clone();
        learnt.client_id = told_client.or(learnt.client_id);
        learnt.scopes = scopes(told.scope.as_deref());
        // Unix seconds; anything that is no plausible end is not believed.
        let end = told.exp.filter(|exp| *exp > 1_000_000_000);
        learnt.expires_at = end
            .map(|exp| Timestamp::from_millis(exp.saturating_mul(1000)))
            .or(learnt.expires_at);
        let news = (&learnt.client_id, &learnt.scopes, learnt.expires_at)
            != (&token.client_id, &token.scopes, token.expires_at);
        if news {
            self.amend(identity, &learnt).await?;
        }
        Ok(learnt)
    }

    /// Keeps what was learnt of a token, unless there is another one by now.
    async fn amend(&self, identity: &Identity, learnt: &StoredToken) -> Result<(), PlatformError> {
        let lease = self.store.lease(identity).await.map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let current = record.token.as_mut();
        if let Some(current) = current.filter(|current| same(&current.access, &learnt.access)) {
            let refresh = current.refresh.take();
            *current = StoredToken {
                refresh,
                ..learnt.clone()
            };
            lease.save(&record).await.map_err(unusable_store)?;
        }
        Ok(())
    }

    /// Finds out whose a user token is, which introspection does not tell. A token of somebody else is never used.
    async fn prove_owner(
        &self,
        identity: &Identity,
        mut token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let call = Call {
            token: Some(&token.access),
            ..Call::get("/public/v1/users", &[], "the token's own user")
        };
        let answer = match self.client.exchange(&call, meter).await {
            Ok(answer) => answer,
            // A dead token, or one without `user:read`: whose it is stays open, and its use will show which.
            Err(PlatformError::Unauthorized { .. } | PlatformError::Forbidden { .. }) => return Ok(token),
            Err(error) => return Err(error),
        };
        let told: Envelope<Vec<User>> = read(&answer, call.operation)?;
        let Some(user) = told.data.into_iter().next() else {
            return Ok(token);
        };
        let meant = match identity.as_str() {
            BOT => self.bot_user_id,
            _ => broadcaster_of(identity),
        };
        if meant.is_some_and(|meant| meant != user.user_id) {
            return Err(not_ours(identity, &format!("user {}", user.user_id)));
        }
        token.user_id = Some(user.user_id.to_string());
        token.login = Some(user.name).filter(|name| !name.is_empty());
        self.amend(identity, &token).await?;
        Ok(token)
    }

    /// Renews a user's token, unless somebody else has meanwhile.
    async fn renew(
        &self,
        identity: &Identity,
        seen: &StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, Renewal), PlatformError> {
        let lease = self.store.lease(identity).await.map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let Some(current) = record.token.clone() else {
            return Err(no_identity());
        };
        if !same(&current.access, &seen.access) {
            return Ok((current, Renewal::Renewed));
        }
        let Some(refresh) = current.refresh.as_ref().filter(|_| can_refresh(&current)) else {
            let refused = current.refresh.is_some();
            let renewal = if refused {
                Renewal::InvalidGrant
            } else {
                Renewal::Impossible
            };
            return Ok((current, renewal));
        };
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.secret.expose_secret()),
        ];
        let now = self.clock.now();
        match self.grant(&form, meter).await {
            Ok(granted) => {
                let token = StoredToken {
                    refresh: granted
                        .refresh_token
                        .filter(|text| !text.is_empty())
                        .map(RefreshToken::fresh)
                        .or_else(|| current.refresh.clone()),
                    client_id: self.client_id.clone(),
                    // Proven again with the new token.
                    user_id: None,
                    scopes: granted
                        .scope
                        .as_deref()
                        .map_or(current.scopes, |text| scopes(Some(text))),
                    expires_at: ends_at(now, granted.expires_in),
                    ..StoredToken::unproven(granted.access_token, now)
                };
                record.token = Some(token.clone());
                lease.save(&record).await.map_err(unusable_store)?;
                Ok((token, Renewal::Renewed))
            }
            Err(GrantFailure::InvalidGrant) => {
                let state = RefreshState::Refused {
                    at: now,
                    reason: "invalid_grant".to_owned(),
                };
                if let Some(refresh) = record.token.as_mut().and_then(|token| token.refresh.as_mut()) {
                    refresh.state = state;
                }
                lease.save(&record).await.map_err(unusable_store)?;
                Ok((record.token.unwrap_or(current), Renewal::InvalidGrant))
            }
            Err(GrantFailure::InvalidClient) => Ok((current, Renewal::InvalidClient)),
            Err(GrantFailure::NoAnswer(error)) => Ok((current, Renewal::NoAnswer(error.to_string()))),
        }
    }

    /// Gets a token for the application, unless somebody else has meanwhile. `dead` is the one not to be given again.
    async fn new_app_token(
        &self,
        dead: Option<&SecretString>,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let lease = self
            .store
            .lease(&Identity::named(APP))
            .await
            .map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let now = self.clock.now();
        if let Some(token) = &record.token {
            let fresh = token
                .expires_at
                .is_none_or(|end| now < end.plus_secs(-APP_MARGIN_SECS));
            let other = dead.is_none_or(|dead| !same(dead, &token.access));
            if self.is_ours(token) && fresh && other {
                return Ok(token.clone());
            }
        }
        let granted = match self.grant(&[("grant_type", "client_credentials")], meter).await {
            Ok(granted) => granted,
            Err(GrantFailure::InvalidGrant | GrantFailure::InvalidClient) => return Err(app_refusal()),
            Err(GrantFailure::NoAnswer(error)) => return Err(error),
        };
        let token = StoredToken {
            kind: TokenKind::App,
            client_id: self.client_id.clone(),
            expires_at: ends_at(now, granted.expires_in),
            ..StoredToken::unproven(granted.access_token, now)
        };
        record.token = Some(token.clone());
        self.keep(lease.as_ref(), &record).await?;
        Ok(token)
    }

    async fn keep(
        &self,
        lease: &dyn TokenLease,
        record: &crate::tokens::TokenRecord,
    ) -> Result<(), PlatformError> {
        lease.save(record).await.map_err(unusable_store)
    }

    async fn grant(
        &self,
        fields: &[(&'static str, &str)],
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantFailure> {
        let (Some(client_id), Some(secret)) = (&self.client_id, &self.client_secret) else {
            return Err(GrantFailure::NoAnswer(no_identity()));
        };
        let now = self.clock.now();
        let refused_at = *self.app_refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.is_some_and(|at| now.millis_since(at) < REFUSED_APP_PAUSE_MS) {
            return Err(GrantFailure::InvalidClient);
        }
        let mut form = vec![
            ("client_id", client_id.as_str()),
            ("client_secret", secret.expose_secret()),
        ];
        form.extend_from_slice(fields);
        let call = Call {
            form: Some(&form),
            ..Call::oauth("/oauth/token", "a token")
        };
        let failure = match self.client.exchange(&call, meter).await {
            Ok(answer) => match answer.json::<Granted>() {
                Ok(granted) if !granted.access_token.is_empty() => return Ok(granted),
                Ok(_) => GrantFailure::NoAnswer(unreadable(call.operation, "the token is empty".to_owned())),
                Err(reason) => GrantFailure::NoAnswer(unreadable(call.operation, reason)),
            },
            Err(error) => of_grant_error(error),
        };
        if matches!(failure, GrantFailure::InvalidClient) {
            *self.app_refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        Err(failure)
    }
}

/// Tells the three failures of a grant apart. The status of each is not documented, so the error's name decides, which
/// [`crate::platforms::answer::reason`] passes on.
fn of_grant_error(error: PlatformError) -> GrantFailure {
    let words = match &error {
        PlatformError::Unauthorized { reason, .. } | PlatformError::Rejected { reason, .. } => {
            reason.as_str()
        }
        _ => "",
    };
    match words {
        "invalid_grant" => GrantFailure::InvalidGrant,
        "invalid_client" | "unauthorized_client" => GrantFailure::InvalidClient,
        _ => GrantFailure::NoAnswer(error),
    }
}

fn can_refresh(token: &StoredToken) -> bool {
    let refresh = token.refresh.as_ref();
    refresh.is_some_and(|refresh| !matches!(refresh.state, RefreshState::Refused { .. }))
}

fn ends_at(now: Timestamp, expires_in: Option<i64>) -> Option<Timestamp> {
    expires_in
        .filter(|seconds| *seconds > 0)
        .map(|seconds| now.plus_secs(seconds))
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Reads an answer's body.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    answer: &Answer,
    operation: &'static str,
) -> Result<T, PlatformError> {
    answer.json().map_err(|reason| unreadable(operation, reason))
}

fn unreadable(operation: &'static str, reason: String) -> PlatformError {
    super::answer::asked(operation).unreadable(reason)
}

fn no_identity() -> PlatformError {
    PlatformError::NotConfigured {
        platform: PlatformName::Kick,
        what: "a client id and secret (`kick.client_id`, `kick.client_secret`), or a token of the bot"
            .to_owned(),
    }
}

fn not_ours(identity: &Identity, owner: &str) -> PlatformError {
    PlatformError::NotConfigured {
        platform: PlatformName::Kick,
        what: format!("its own token for `{identity}`, but the stored one belongs to {owner}"),
    }
}

fn app_refusal() -> PlatformError {
    PlatformError::Rejected {
        platform: PlatformName::Kick,
        operation: APP_REFUSED,
        status: 401,
        reason: "invalid_client; check `kick.client_id` and `kick.client_secret`".to_owned(),
    }
}

/// Returns whether an error says that the application itself is refused.
pub(super) fn is_app_refusal(error: &PlatformError) -> bool {
    matches!(error, PlatformError::Rejected { operation, .. } if *operation == APP_REFUSED)
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn unusable_store(error: TokenError) -> PlatformError {
    PlatformError::NotConfigured {
        platform: PlatformName::Kick,
        what: format!("a usable token store: {error}; {}", error.hint()),
    }
}
