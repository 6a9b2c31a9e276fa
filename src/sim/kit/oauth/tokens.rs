//! Client applications, their tokens, and the grants behind them.

use std::collections::{BTreeMap, HashMap};

use super::devices::Devices;
use super::spec::{Code, RefreshRule, Renewal, Text, TokenPair, TokenRules, TokenSpec};
use crate::clock::Chance;
use crate::core::time::Timestamp;

/// A registered application. Without a secret it is a public client.
#[derive(Debug, Clone)]
pub struct Client {
    /// The client secret.
    pub secret: Option<String>,
}

/// Data of an access token.
#[derive(Debug, Clone)]
pub struct Token<U> {
    /// The application.
    pub client_id: String,
    /// The user, or `None` for an app token.
    pub user_id: Option<U>,
    /// The scopes granted.
    pub scopes: Vec<String>,
    /// When it expires.
    pub expires_at: Timestamp,
    revoked: bool,
    refresh: Option<String>,
}

impl<U> Token<U> {
    fn valid(&self, now: Timestamp) -> bool {
        !self.revoked && now < self.expires_at
    }

    /// Returns whether `scope` was granted.
    pub fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }
}

#[derive(Debug, Clone)]
struct Refresh<U> {
    client_id: String,
    user_id: U,
    scopes: Vec<String>,
    expires_at: Option<Timestamp>,
    spent: bool,
    revoked: bool,
}

/// Why a refresh failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RefreshFailure<U> {
    /// Unknown, expired or revoked.
    Invalid,
    /// A one-time token was used a second time.
    SpentTwice { user_id: U },
}

/// All applications, tokens and grants of a platform.
#[derive(Debug)]
pub struct Tokens<U> {
    rules: &'static TokenRules,
    /// Whether applications that are not registered are accepted as well, with any secret.
    pub accepts_any_client: bool,
    /// The registered applications.
    pub clients: BTreeMap<String, Client>,
    /// The device codes.
    pub devices: Devices<U>,
    access: HashMap<String, Token<U>>,
    refresh: HashMap<String, Refresh<U>>,
    codes: HashMap<String, (Code<U>, Option<Timestamp>)>,
    /// The scopes that a user has granted to an application, by application and user.
    grants: BTreeMap<(String, U), Vec<String>>,
}

impl<U: Clone + Ord> Tokens<U> {
    /// Returns the rules without any token.
    pub fn new(rules: &'static TokenRules) -> Self {
        Self {
            rules,
            accepts_any_client: false,
            clients: BTreeMap::new(),
            devices: Devices::default(),
            access: HashMap::new(),
            refresh: HashMap::new(),
            codes: HashMap::new(),
            grants: BTreeMap::new(),
        }
    }

    /// Registers an application; without a secret it is a public client.
    pub fn add_client(&mut self, client_id: &str, secret: Option<&str>) {
        let secret = secret.map(str::to_owned);
        self.clients.insert(client_id.to_owned(), Client { secret });
    }

    fn refresh_rule(&self, client_id: &str) -> &'static RefreshRule {
        let client = self.clients.get(client_id);
        if client.is_some_and(|client| client.secret.is_some()) {
            &self.rules.confidential
        } else {
            &self.rules.public
        }
    }

    /// Returns the data of the token `text`, while it is valid.
    pub fn check(&self, text: &str, now: Timestamp) -> Option<&Token<U>> {
        self.access.get(text).filter(|token| token.valid(now))
    }

    /// Returns the owner of the token `text`, whether it is valid or not: a user, or `None` for the application.
    pub fn owner(&self, text: &str) -> Option<Option<&U>> {
        self.access.get(text).map(|token| token.user_id.as_ref())
    }

    /// Returns the scopes that `user_id` has granted to `client_id`, `None` when not connected.
    pub fn grant(&self, client_id: &str, user_id: &U) -> Option<&[String]> {
        let grant = self.grants.get(&(client_id.to_owned(), user_id.clone()));
        grant.map(Vec::as_slice)
    }

    /// Issues a token of any kind. A user token also records the user's grant.
    pub fn issue(&mut self, mut spec: TokenSpec<U>, now: Timestamp, chance: &Chance) -> TokenPair {
        if spec.client_id.is_empty() {
            spec.client_id = self.clients.keys().next().cloned().unwrap_or_default();
        }
        let (rules, rule) = (self.rules, self.refresh_rule(&spec.client_id));
        let usual = if spec.user_id.is_some() {
            rules.user_secs
        } else {
            rules.app_secs
        };
        let expires_in = spec.expires_in.unwrap_or(usual);
        if rules.sorted_scopes {
            spec.scopes.sort();
            spec.scopes.dedup();
        }
        let access = spec.access.unwrap_or_else(|| (rules.text)(Text::Access, chance));
        let refresh = spec.user_id.as_ref().map(|user_id| {
            let text = spec
                .refresh
                .unwrap_or_else(|| (rules.text)(Text::Refresh, chance));
            let record = Refresh {
                client_id: spec.client_id.clone(),
                user_id: user_id.clone(),
                scopes: spec.scopes.clone(),
                expires_at: rule.secs.map(|secs| now.plus_secs(secs)),
                spent: false,
                revoked: false,
            };
            self.refresh.insert(text.clone(), record);
            let connection = (spec.client_id.clone(), user_id.clone());
            self.grants.insert(connection, spec.scopes.clone());
            text
        });
        let token = Token {
            client_id: spec.client_id,
            user_id: spec.user_id,
            scopes: spec.scopes.clone(),
            expires_at: now.plus_secs(expires_in),
            revoked: false,
            refresh: refresh.clone(),
        };
        self.access.insert(access.clone(), token);
        TokenPair {
            access,
            refresh,
            expires_in,
            scopes: spec.scopes,
        }
    }

    /// Exchanges a refresh token by the rule for its application.
    pub(super) fn refresh(
        &mut self,
        client_id: &str,
        text: &str,
        now: Timestamp,
        chance: &Chance,
    ) -> Result<TokenPair, RefreshFailure<U>> {
        let rule = self.refresh_rule(client_id);
        let is_any = self.accepts_any_client;
        let known = self.refresh.get_mut(text);
        let Some(known) = known.filter(|known| is_any || known.client_id == client_id) else {
            return Err(RefreshFailure::Invalid);
        };
        if known.spent {
            let user_id = known.user_id.clone();
            return Err(RefreshFailure::SpentTwice { user_id });
        }
        if known.revoked || known.expires_at.is_some_and(|end| end <= now) {
            return Err(RefreshFailure::Invalid);
        }
        known.spent = rule.renewal == Renewal::OneTime;
        known.expires_at = rule.secs.map(|secs| now.plus_secs(secs));
        let spec = TokenSpec {
            client_id: client_id.to_owned(),
            user_id: Some(known.user_id.clone()),
            scopes: known.scopes.clone(),
            refresh: (rule.renewal == Renewal::Stable).then(|| text.to_owned()),
            ..TokenSpec::default()
        };
        if rule.renewal == Renewal::OneTime {
            let replaced = self.access.values_mut();
            for token in replaced.filter(|token| token.refresh.as_deref() == Some(text)) {
                token.revoked = true;
            }
        }
        Ok(self.issue(spec, now, chance))
    }

    /// Issues an authorization code.
    pub(super) fn issue_code(&mut self, code: Code<U>, now: Timestamp, chance: &Chance) -> String {
        let text = (self.rules.text)(Text::Code, chance);
        let end = self.rules.code_secs.map(|secs| now.plus_secs(secs));
        self.codes.insert(text.clone(), (code, end));
        text
    }

    /// Consumes an authorization code, which works once.
    pub(super) fn take_code(&mut self, text: &str, now: Timestamp) -> Option<Code<U>> {
        let (code, end) = self.codes.remove(text)?;
        end.is_none_or(|end| now < end).then_some(code)
    }

    /// Revokes a single valid access token of an application; its refresh token stays valid. Returns whether there was one.
    pub fn revoke_access(&mut self, client_id: &str, text: &str, now: Timestamp) -> bool {
        let token = self.access.get_mut(text);
        let token = token.filter(|token| token.client_id == client_id && token.valid(now));
        token.map(|token| token.revoked = true).is_some()
    }

    /// Revokes one token of either kind; returns whether there was one.
    pub fn revoke(&mut self, text: &str) -> bool {
        let access = self.access.get_mut(text).map(|token| token.revoked = true);
        let refresh = self.refresh.get_mut(text).map(|token| token.revoked = true);
        access.or(refresh).is_some()
    }

    /// Makes an access token expire now. Returns whether it existed.
    pub fn expire(&mut self, text: &str, now: Timestamp) -> bool {
        let token = self.access.get_mut(text);
        token.map(|token| token.expires_at = now).is_some()
    }

    /// Makes all access tokens of a user expire now. Returns how many.
    pub fn expire_all_of(&mut self, user_id: &U, now: Timestamp) -> usize {
        let tokens = self.access.values_mut();
        let of_user = tokens.filter(|token| token.user_id.as_ref() == Some(user_id));
        of_user.map(|token| token.expires_at = now).count()
    }

    /// Makes the refresh tokens of a user expire now, as after too long without use.
    pub fn expire_refresh_of(&mut self, user_id: &U, now: Timestamp) {
        let tokens = self.refresh.values_mut();
        for refresh in tokens.filter(|refresh| refresh.user_id == *user_id) {
            refresh.expires_at = Some(now);
        }
    }

    /// Removes a scope from everything that a user has granted.
    pub fn shrink(&mut self, user_id: &U, scope: &str) {
        let access = self.access.values_mut();
        let access = access.filter(|token| token.user_id.as_ref() == Some(user_id));
        let refresh = self.refresh.values_mut();
        let refresh = refresh.filter(|refresh| refresh.user_id == *user_id);
        let scopes = access.map(|token| &mut token.scopes);
        for scopes in scopes.chain(refresh.map(|refresh| &mut refresh.scopes)) {
            scopes.retain(|held| held != scope);
        }
    }

    /// Removes the connection between a user and an application, or all of them, with every token and the grant. Without a
    /// user it revokes app tokens.
    pub fn disconnect(&mut self, client_id: Option<&str>, user_id: Option<&U>) {
        let concerned = |client: &str, user: Option<&U>| {
            client_id.is_none_or(|client_id| client == client_id) && user == user_id
        };
        for token in self.access.values_mut() {
            token.revoked |= concerned(&token.client_id, token.user_id.as_ref());
        }
        for refresh in self.refresh.values_mut() {
            refresh.revoked |= concerned(&refresh.client_id, Some(&refresh.user_id));
        }
        self.grants
            .retain(|(client, user), _| !concerned(client, Some(user)));
    }

    /// Returns the applications that `user_id` is connected to.
    pub fn connections_of(&self, user_id: &U) -> Vec<String> {
        let connections = self.grants.keys().filter(|(_, user)| user == user_id);
        connections.map(|(client, _)| client.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;
    const RULES: TokenRules = TokenRules {
        user_secs: 60,
        app_secs: 90,
        code_secs: None,
        confidential: RefreshRule {
            secs: None,
            renewal: Renewal::Stable,
        },
        public: RefreshRule {
            secs: Some(30 * 86_400),
            renewal: Renewal::OneTime,
        },
        sorted_scopes: false,
        text: |_, chance| chance.fraction().to_string(),
    };

    fn tokens(secret: Option<&str>) -> (Tokens<u64>, TokenPair, Chance) {
        let mut tokens = Tokens::new(&RULES);
        let chance = Chance::seeded(3);
        tokens.add_client("app", secret);
        let spec = TokenSpec {
            client_id: "app".into(),
            user_id: Some(1),
            scopes: vec!["user:bot".into()],
            ..TokenSpec::default()
        };
        let pair = tokens.issue(spec, NOW, &chance);
        (tokens, pair, chance)
    }

    #[test]
    fn public_client_refresh_invalidates_both_old_tokens() {
        let (mut tokens, old, chance) = tokens(None);
        let spent = old.refresh.unwrap();
        let new = tokens.refresh("app", &spent, NOW, &chance).unwrap();
        assert_ne!(new.refresh.as_deref(), Some(spent.as_str()));
        assert!(tokens.check(&old.access, NOW).is_none() && tokens.check(&new.access, NOW).is_some());
        assert_eq!(
            tokens.refresh("app", &spent, NOW, &chance),
            Err(RefreshFailure::SpentTwice { user_id: 1 })
        );
    }

    #[test]
    fn a_public_refresh_token_ends_after_thirty_days() {
        let (mut tokens, pair, chance) = tokens(None);
        let later = NOW.plus_secs(30 * 86_400);
        assert_eq!(
            tokens.refresh("app", &pair.refresh.unwrap(), later, &chance),
            Err(RefreshFailure::Invalid)
        );
    }

    #[test]
    fn a_confidential_client_keeps_its_refresh_token() {
        let (mut tokens, old, chance) = tokens(Some("s"));
        let text = old.refresh.clone().unwrap();
        for _ in 0..3 {
            let new = tokens.refresh("app", &text, NOW, &chance).unwrap();
            assert_eq!(new.refresh, old.refresh);
        }
        assert!(tokens.check(&old.access, NOW).is_some());
        assert_eq!(
            tokens.refresh("other", &text, NOW, &chance),
            Err(RefreshFailure::Invalid)
        );
    }

    #[test]
    fn revoking_an_access_token_leaves_its_refresh_token_usable() {
        let (mut tokens, pair, chance) = tokens(Some("s"));
        assert!(tokens.revoke_access("app", &pair.access, NOW));
        assert!(!tokens.revoke_access("app", &pair.access, NOW));
        assert!(
            tokens
                .refresh("app", &pair.refresh.unwrap(), NOW, &chance)
                .is_ok()
        );
    }

    #[test]
    fn disconnecting_ends_everything() {
        let (mut tokens, pair, chance) = tokens(Some("s"));
        assert_eq!(tokens.connections_of(&1), ["app"]);
        tokens.disconnect(Some("app"), Some(&1));
        assert!(tokens.check(&pair.access, NOW).is_none() && tokens.grant("app", &1).is_none());
        assert_eq!(
            tokens.refresh("app", &pair.refresh.unwrap(), NOW, &chance),
            Err(RefreshFailure::Invalid)
        );
    }

    #[test]
    fn tokens_end_with_their_time() {
        let (tokens, pair, _) = tokens(None);
        let end = NOW.plus_secs(pair.expires_in);
        assert!(tokens.check(&pair.access, end.plus_millis(-1)).is_some());
        assert!(tokens.check(&pair.access, end).is_none());
    }
}
