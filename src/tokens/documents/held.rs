//! A document of the platform, and our own beside it: together a record.

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use super::document::{PlatformDocument, digest_of};
use crate::core::observation::Identity;
use crate::store::Version;
use crate::tokens::on_disk::{RecordOnDisk, TokenOnDisk};
use crate::tokens::{StoredToken, TokenError, TokenRecord};

/// The name of the collection or table of our own documents.
pub const OWN: &str = "bitbrat_tokens";
/// The member of such a document with the digest of the pair that it is about.
const DIGEST: &str = "pair";
const IDENTITY: &str = "identity";

/// A document that exists, and our own for it.
pub struct Held {
    pub identity: Identity,
    pub document: PlatformDocument,
    pub own: Option<(Map<String, Value>, Version)>,
}

impl Held {
    pub fn version(&self) -> Version {
        let own = self.own.as_ref().map_or("", |(_, version)| version.0.as_str());
        Version(format!("{}/{own}", self.document.version.0))
    }

    pub fn record(&self) -> Result<TokenRecord, TokenError> {
        let unusable = |reason: String| TokenError::Document {
            document: self.document.place.clone(),
            reason,
        };
        let mut token = self.document.token().map_err(unusable)?;
        let own = self.own.as_ref().map(|(fields, _)| fields);
        let own = own.filter(|own| own.get(IDENTITY).and_then(Value::as_str) == Some(self.identity.as_str()));
        let Some(own) = own else {
            let generation = u64::from(token.is_some());
            return Ok(TokenRecord {
                token,
                generation,
                ..TokenRecord::default()
            });
        };
        let is_same = own.get(DIGEST).and_then(Value::as_str) == digest_of(token.as_ref()).as_deref();
        let mut own = own.clone();
        let described = own.remove("token");
        let mut record: TokenRecord = parse::<RecordOnDisk>(Value::Object(own))
            .map_err(unusable)?
            .into();
        if is_same {
            if let (Some(token), Some(Value::Object(mut described))) = (&mut token, described) {
                described.extend(secret_members(token));
                let described: TokenOnDisk = parse(Value::Object(described)).map_err(unusable)?;
                let user_id = token.user_id.take();
                *token = StoredToken::from(described);
                token.user_id = user_id.or(token.user_id.take());
            }
            record.token = token;
        } else {
            if let Some(token) = token.as_mut().filter(|token| token.user_id.is_none()) {
                // Whose place it is does not change with the token; who the token is of, the platform has to say.
                token.user_id =
                    described.and_then(|described| described["userId"].as_str().map(str::to_owned));
            }
            record.replace_token(token);
        }
        Ok(record)
    }

    /// Fails if the document must not contain a token of this user.
    pub fn require_owner(
        &self,
        before: Option<&StoredToken>,
        token: &StoredToken,
        is_new_pair: bool,
    ) -> Result<(), TokenError> {
        let owner = self.document.owner();
        let owner = owner.as_ref().or_else(|| before?.user_id.as_ref());
        let is_right = match (owner, &token.user_id) {
            (Some(owner), Some(found)) => owner == found,
            // Known after the platform was asked; until then no other pair may be put there.
            _ => !is_new_pair,
        };
        if is_right {
            return Ok(());
        }
        let user =
            |id: Option<&String>| id.map_or_else(|| "an unknown user".to_owned(), |id| format!("user {id}"));
        Err(TokenError::OtherOwner {
            document: self.document.place.clone(),
            owner: user(owner),
            found: user(token.user_id.as_ref()),
        })
    }
}

/// Returns the members of a stored token that contain its pair.
fn secret_members(token: &StoredToken) -> Map<String, Value> {
    let refresh = token
        .refresh
        .as_ref()
        .map(|refresh| refresh.secret.expose_secret().into());
    let access = Value::from(token.access.expose_secret());
    let refresh = refresh.map(|refresh| ("refreshToken".to_owned(), refresh));
    [("accessToken".to_owned(), access)]
        .into_iter()
        .chain(refresh)
        .collect()
}

/// Returns our own document for a record. The pair is in the platform's only.
pub fn own_fields(identity: &Identity, record: &TokenRecord, digest: Option<String>) -> Map<String, Value> {
    let fields =
        serde_json::to_value(RecordOnDisk::from(record)).expect("text and numbers can be written as JSON");
    let Value::Object(mut fields) = fields else {
        unreachable!("a record is an object");
    };
    if let (Some(Value::Object(described)), Some(token)) = (fields.get_mut("token"), &record.token) {
        for secret in secret_members(token).keys() {
            described.remove(secret);
        }
    }
    fields.insert(DIGEST.to_owned(), digest.into());
    fields.insert(IDENTITY.to_owned(), identity.as_str().into());
    fields
}

/// The parser's own message may quote a token.
fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value)
        .map_err(|_| format!("what {OWN} contains about it is damaged; delete that document"))
}
