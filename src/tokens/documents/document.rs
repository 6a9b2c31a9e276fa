//! The platform's token document: two programs write it, in two shapes, into the same fields or beside each other's.
//!
//! | field | login and refresh of Twitch | other logins |
//! |---|---|---|
//! | expiry | `expiresIn` (s), `obtainmentTimestamp` (ms) | `expiresAt` (ISO 8601) |
//! | user | `userId` | `providerUserId` |
//! | `updatedAt` | number (ms) | text (ISO 8601) |
//!
//! Neither removes the other's fields, so those of the one that has not written last may be outdated.

use std::collections::BTreeSet;

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use crate::core::time::Timestamp;
use crate::secrets;
use crate::store::Version;
use crate::tokens::seed::fingerprint;
use crate::tokens::{RefreshToken, StoredToken};

const ACCESS: &str = "accessToken";
const REFRESH: &str = "refreshToken";
const SCOPE: &str = "scope";
const LIFETIME: &str = "expiresIn";
const OBTAINED: &str = "obtainmentTimestamp";
const EXPIRES: &str = "expiresAt";
const UPDATED: &str = "updatedAt";

/// A document of the platform.
pub struct PlatformDocument {
    /// Where it is, for people.
    pub place: String,
    pub fields: Map<String, Value>,
    pub version: Version,
    /// When it was last written, by the database's clock.
    pub written_at: Timestamp,
}

impl PlatformDocument {
    /// Returns the id of its user, if it has one.
    pub fn owner(&self) -> Option<String> {
        let mut names = ["userId", "providerUserId"];
        if self.is_by_login() {
            names.reverse();
        }
        names.into_iter().find_map(|name| match self.fields.get(name)? {
            Value::String(id) if !id.is_empty() => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        })
    }

    /// Returns its token, if it has one. The application is not in it.
    pub fn token(&self) -> Result<Option<StoredToken>, String> {
        let Some(access) = self.text(ACCESS)? else {
            return Ok(None);
        };
        let access = access.strip_prefix("oauth:").unwrap_or(access);
        let obtained = self
            .number(OBTAINED)
            .filter(|at| *at > 0)
            .map(Timestamp::from_millis);
        let lifetime = self.number(LIFETIME).filter(|seconds| *seconds > 0);
        let legacy = obtained.zip(lifetime).map(|(at, seconds)| at.plus_secs(seconds));
        let other = self.time(EXPIRES);
        let expires_at = match self.fields.get(UPDATED) {
            Some(Value::String(_)) => other.or(legacy),
            Some(Value::Number(_)) => legacy.or(other),
            // Too late an end costs a refused request, too early a one a refresh for nothing.
            _ => legacy.max(other),
        };
        let obtained_at = if self.is_by_login() {
            self.time(UPDATED)
        } else {
            obtained
        };
        Ok(Some(StoredToken {
            refresh: self.text(REFRESH)?.map(RefreshToken::fresh),
            user_id: self.owner(),
            scopes: self.scopes(),
            expires_at,
            ..StoredToken::unproven(secrets::secret(access), obtained_at.unwrap_or(self.written_at))
        }))
    }

    /// Returns whether it contains an authorization of a user beside a mere access token.
    pub fn is_refreshable(&self) -> bool {
        matches!(self.text(REFRESH), Ok(Some(_)))
    }

    /// Returns the fields that change with the token, and their values. A value that is missing is removed. Whose the document is never
    /// changes: a program that has the token of another user in the bot's place speaks as that user.
    pub fn change(
        &self,
        token: Option<&StoredToken>,
        now: Timestamp,
    ) -> (Vec<&'static str>, Map<String, Value>) {
        let mut names = vec![ACCESS, REFRESH, SCOPE, LIFETIME, OBTAINED, UPDATED];
        let has_end = self.fields.contains_key(EXPIRES);
        names.extend(has_end.then_some(EXPIRES));
        let updated = match self.fields.get(UPDATED) {
            Some(Value::String(_)) => json!(now),
            _ => now.as_millis().into(),
        };
        let mut values = Map::from_iter([(UPDATED.to_owned(), updated)]);
        if let Some(token) = token {
            let refresh = token
                .refresh
                .as_ref()
                .map(|refresh| refresh.secret.expose_secret());
            let lifetime = token
                .expires_at
                .map(|end| end.millis_since(token.obtained_at) / 1000);
            values.extend([
                (ACCESS.to_owned(), token.access.expose_secret().into()),
                (REFRESH.to_owned(), json!(refresh)),
                (SCOPE.to_owned(), json!(token.scopes)),
                (LIFETIME.to_owned(), json!(lifetime)),
                (OBTAINED.to_owned(), token.obtained_at.as_millis().into()),
            ]);
            if has_end {
                values.insert(EXPIRES.to_owned(), json!(token.expires_at));
            }
        }
        (names, values)
    }

    /// Whether the program that keeps `updatedAt` as text has written last.
    fn is_by_login(&self) -> bool {
        self.fields.get(UPDATED).is_some_and(Value::is_string)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
            Some(_) => Err(format!("`{name}` is not text")),
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.fields.get(name)? {
            Value::String(text) => text.parse().ok(),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "milliseconds, which other programs may store as a fraction"
            )]
            number => number
                .as_i64()
                .or_else(|| number.as_f64().map(|number| number as i64)),
        }
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        self.fields.get(name)?.as_str()?.parse().ok()
    }

    fn scopes(&self) -> BTreeSet<String> {
        match self.fields.get(SCOPE) {
            Some(Value::Array(scopes)) => scopes
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            Some(Value::String(scopes)) => scopes.split_whitespace().map(str::to_owned).collect(),
            _ => BTreeSet::new(),
        }
    }
}

/// Returns a digest that identifies a pair and from which it cannot be derived.
pub fn digest_of(token: Option<&StoredToken>) -> Option<String> {
    let token = token?;
    let refresh = token.refresh.as_ref().map(|refresh| &refresh.secret);
    Some(fingerprint(token.access.expose_secret(), refresh))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(fields: Value) -> PlatformDocument {
        let Value::Object(fields) = fields else {
            panic!("an object");
        };
        PlatformDocument {
            place: "oauth/twitch/bot/token".to_owned(),
            fields,
            version: Version(String::new()),
            written_at: Timestamp::EPOCH.plus_secs(9),
        }
    }

    fn end(fields: Value) -> Option<Timestamp> {
        document(fields).token().unwrap().unwrap().expires_at
    }

    #[test]
    fn fields_of_the_program_that_wrote_last_count() {
        let at = |seconds| Some(Timestamp::EPOCH.plus_secs(seconds));
        let both = |updated: Value| {
            json!({ "accessToken": "hush", "expiresIn": 60, "obtainmentTimestamp": 1_000, "expiresAt": "1970-01-01T00:00:30Z",
                "userId": "7", "providerUserId": "8", "updatedAt": updated })
        };
        let (legacy, login) = (both(json!(1_000)), both(json!("1970-01-01T00:00:05Z")));
        assert_eq!(document(legacy.clone()).owner().as_deref(), Some("7"));
        assert_eq!(document(login.clone()).owner().as_deref(), Some("8"));
        assert_eq!(
            (end(legacy), end(login), end(both(Value::Null))),
            (at(61), at(30), at(61))
        );
    }

    #[test]
    fn unusual_fields_are_tolerated() {
        let token = document(
            json!({ "accessToken": "oauth:hush", "refreshToken": "", "scope": "a b", "expiresIn": 0.0,
            "obtainmentTimestamp": "5000", "userId": 7, "more": { "a": null } }),
        );
        assert_eq!(token.owner().as_deref(), Some("7"));
        let token = token.token().unwrap().unwrap();
        assert_eq!(
            (token.access.expose_secret(), token.refresh.is_none()),
            ("hush", true)
        );
        assert_eq!((token.scopes.len(), token.expires_at), (2, None));
        assert_eq!(token.obtained_at, Timestamp::EPOCH.plus_secs(5));
        for empty in [
            json!({}),
            json!({ "accessToken": null }),
            json!({ "accessToken": "" }),
        ] {
            assert!(document(empty).token().unwrap().is_none());
        }
    }

    #[test]
    fn unusable_document_is_an_error_without_its_content() {
        let error = document(json!({ "accessToken": ["hush"] })).token().unwrap_err();
        assert_eq!(error, "`accessToken` is not text");
    }
}
