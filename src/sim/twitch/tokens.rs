//! Client applications, their tokens, and the grants behind them, by the rules of `id.twitch.tv`.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Chance;
use crate::core::time::Timestamp;

/// Lifetime of a user token in seconds, similar to Twitch's.
const USER_TOKEN_SECS: i64 = 14_400;
/// Lifetime of an app token in seconds.
const APP_TOKEN_SECS: i64 = 5_000_000;
/// Lifetime of a public client's refresh token in milliseconds.
const PUBLIC_REFRESH_MS: i64 = 30 * 86_400_000;

/// An application registered with Twitch. Without a secret it is a public client.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) secret: Option<String>,
}

/// Data of an access token.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) client_id: String,
    /// The user, or `None` for an app token.
    pub(super) user_id: Option<String>,
    pub(super) scopes: Vec<String>,
    /// When it expires; `None` for never.
    pub(super) expires_at: Option<Timestamp>,
    /// Whether it was revoked.
    revoked: bool,
    refresh: Option<String>,
}

impl Token {
    fn valid(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| now < end)
    }
}

#[derive(Debug, Clone)]
struct Refresh {
    client_id: String,
    user_id: String,
    scopes: Vec<String>,
    expires_at: Option<Timestamp>,
    spent: bool,
    revoked: bool,
}

/// An access token and its refresh token as issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The access token.
    pub access: String,
    /// The refresh token; app tokens have none.
    pub refresh: Option<String>,
    /// Seconds until the access token expires.
    pub expires_in: i64,
    /// The scopes granted.
    pub scopes: Vec<String>,
}

impl TokenPair {
    /// Returns the response of the command that issues a token.
    pub(super) fn to_json(&self) -> Value {
        json!({"access_token": self.access, "refresh_token": self.refresh, "expires_in": self.expires_in})
    }
}

/// Description of a token to issue.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSpec {
    /// The application; the world's first one when empty.
    pub client_id: String,
    /// The user, or `None` for an app token.
    pub user_id: Option<String>,
    /// The scopes granted.
    pub scopes: Vec<String>,
    /// Seconds until it expires (negative: already expired); the platform's usual lifetime when `None`.
    pub expires_in: Option<i64>,
    /// The access token's text; random when `None`.
    #[serde(rename = "access_token")]
    pub access: Option<String>,
    /// The refresh token's text; random for user tokens when `None`.
    #[serde(rename = "refresh_token")]
    pub refresh: Option<String>,
}

/// Why a refresh failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RefreshFailure {
    /// Unknown, expired or revoked.
    Invalid,
    /// A public client's one-time token was used a second time: the whole connection of this user is removed.
    SpentTwice { user_id: String },
}

/// All applications, tokens and grants.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) clients: BTreeMap<String, Client>,
    access: HashMap<String, Token>,
    refresh: HashMap<String, Refresh>,
    /// The scopes that a user has granted to an application, by (client, user).
    grants: BTreeMap<(String, String), Vec<String>>,
}

impl Tokens {
    /// Returns the data of the token `text`, while it is valid.
    pub(super) fn check(&self, text: &str, now: Timestamp) -> Option<&Token> {
        self.access.get(text).filter(|token| token.valid(now))
    }

    /// Returns the scopes that `user_id` has granted to `client_id`, `None` when not connected.
    pub(super) fn grant(&self, client_id: &str, user_id: &str) -> Option<&[String]> {
        self.grants
            .get(&(client_id.to_owned(), user_id.to_owned()))
            .map(Vec::as_slice)
    }

    /// Issues a token of any kind. A user token also records the user's grant.
    pub(super) fn issue(&mut self, spec: TokenSpec, now: Timestamp, chance: &Chance) -> TokenPair {
        let confidential = self
            .clients
            .get(&spec.client_id)
            .is_some_and(|client| client.secret.is_some());
        let usual = if spec.user_id.is_some() {
            USER_TOKEN_SECS
        } else {
            APP_TOKEN_SECS
        };
        let expires_in = spec.expires_in.unwrap_or(usual);
        let access = spec.access.unwrap_or_else(|| random_text(30, chance));
        let refresh = spec.user_id.as_ref().map(|user_id| {
            let text = spec.refresh.unwrap_or_else(|| random_text(50, chance));
            let record = Refresh {
                client_id: spec.client_id.clone(),
                user_id: user_id.clone(),
                scopes: spec.scopes.clone(),
                expires_at: (!confidential).then(|| now.plus_millis(PUBLIC_REFRESH_MS)),
                spent: false,
                revoked: false,
            };
            self.refresh.insert(text.clone(), record);
            self.grants
                .insert((spec.client_id.clone(), user_id.clone()), spec.scopes.clone());
            text
        });
        let token = Token {
            client_id: spec.client_id,
            user_id: spec.user_id,
            scopes: spec.scopes.clone(),
            expires_at: Some(now.plus_secs(expires_in)),
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

    /// Exchanges a refresh token. A public client's is consumed and its access tokens are revoked; a
    /// confidential client's stays valid.
    pub(super) fn refresh(
        &mut self,
        client_id: &str,
        text: &str,
        now: Timestamp,
        chance: &Chance,
    ) -> Result<TokenPair, RefreshFailure> {
        let known = self
            .refresh
            .get_mut(text)
            .filter(|known| known.client_id == client_id);
        let Some(known) = known else {
            return Err(RefreshFailure::Invalid);
        };
        if known.spent {
            return Err(RefreshFailure::SpentTwice {
                user_id: known.user_id.clone(),
            });
        }
        if known.revoked || known.expires_at.is_some_and(|end| end <= now) {
            return Err(RefreshFailure::Invalid);
        }
        let public = self
            .clients
            .get(client_id)
            .is_some_and(|client| client.secret.is_none());
        known.spent = public;
        let spec = TokenSpec {
            client_id: client_id.to_owned(),
            user_id: Some(known.user_id.clone()),
            scopes: known.scopes.clone(),
            refresh: (!public).then(|| text.to_owned()),
            ..TokenSpec::default()
        };
        if public {
            for token in self
                .access
                .values_mut()
                .filter(|token| token.refresh.as_deref() == Some(text))
            {
                token.revoked = true;
            }
        }
        Ok(self.issue(spec, now, chance))
    }

    /// Revokes a single access token; its refresh token stays valid. Returns whether it was valid.
    pub(super) fn revoke(&mut self, client_id: &str, text: &str, now: Timestamp) -> bool {
        let token = self.access.get_mut(text);
        let Some(token) = token.filter(|token| token.client_id == client_id && token.valid(now)) else {
            return false;
        };
        token.revoked = true;
        true
    }

    /// Makes an access token expire now. Returns whether it existed.
    pub(super) fn expire(&mut self, text: &str, now: Timestamp) -> bool {
        self.access
            .get_mut(text)
            .map(|token| token.expires_at = Some(now))
            .is_some()
    }

    /// Makes all access tokens of a user expire now. Returns how many.
    pub(super) fn expire_all_of(&mut self, user_id: &str, now: Timestamp) -> usize {
        let of_user = self
            .access
            .values_mut()
            .filter(|token| token.user_id.as_deref() == Some(user_id));
        of_user.map(|token| token.expires_at = Some(now)).count()
    }

    /// Removes the connection between a user and an application with every token and the grant.
    pub(super) fn disconnect(&mut self, client_id: &str, user_id: &str) {
        for token in self.access.values_mut() {
            token.revoked |= token.client_id == client_id && token.user_id.as_deref() == Some(user_id);
        }
        for refresh in self.refresh.values_mut() {
            refresh.revoked |= refresh.client_id == client_id && refresh.user_id == user_id;
        }
        self.grants.remove(&(client_id.to_owned(), user_id.to_owned()));
    }

    /// Returns the applications that `user_id` is connected to.
    pub(super) fn connections_of(&self, user_id: &str) -> Vec<String> {
        self.grants
            .keys()
            .filter(|(_, user)| user == user_id)
            .map(|(client, _)| client.clone())
            .collect()
    }
}

/// Returns lowercase letters and digits, as in Twitch's opaque values.
pub(super) fn random_text(length: usize, chance: &Chance) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction below one times 36 is an index"
    )]
    let letter = || char::from(LETTERS[(chance.fraction() * 36.0) as usize]);
    (0..length).map(|_| letter()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn tokens(secret: Option<&str>) -> (Tokens, TokenPair, Chance) {
        let mut tokens = Tokens::default();
        let chance = Chance::seeded(3);
        tokens.clients.insert(
            "app".into(),
            Client {
                secret: secret.map(str::to_owned),
            },
        );
        let spec = TokenSpec {
            client_id: "app".into(),
            user_id: Some("1".into()),
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
            Err(RefreshFailure::SpentTwice { user_id: "1".into() })
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
        assert!(tokens.revoke("app", &pair.access, NOW));
        assert!(!tokens.revoke("app", &pair.access, NOW));
        assert!(
            tokens
                .refresh("app", &pair.refresh.unwrap(), NOW, &chance)
                .is_ok()
        );
    }

    #[test]
    fn disconnecting_ends_everything() {
        let (mut tokens, pair, chance) = tokens(Some("s"));
        assert_eq!(tokens.connections_of("1"), ["app"]);
        tokens.disconnect("app", "1");
        assert!(tokens.check(&pair.access, NOW).is_none() && tokens.grant("app", "1").is_none());
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
