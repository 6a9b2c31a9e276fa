//! The serialized format of records and tokens, the only one that contains them in the clear.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::{fs, io};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::{RefreshIntent, RefreshState, RefreshToken, StoredToken, TokenError, TokenKind, TokenRecord};
use crate::core::time::Timestamp;
use crate::store::Version;
use crate::{os, secrets};

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RecordOnDisk {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<TokenOnDisk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<TokenOnDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seeds: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<RefreshIntent>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The only serialized format of tokens.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenOnDisk {
    #[serde(default)]
    kind: KindOnDisk,
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    refresh_state: Option<StateOnDisk>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    login: Option<String>,
    #[serde(default)]
    scopes: BTreeSet<String>,
    obtained_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    refreshed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    expires_at: Option<Timestamp>,
}

#[derive(Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindOnDisk {
    #[default]
    User,
    App,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
enum StateOnDisk {
    Refused { at: Timestamp, reason: String },
}

/// Returns a version that follows from the content, so that a change by an editor is detected like any other.
pub(super) fn version_of(record: Option<&RecordOnDisk>) -> Version {
    let Some(record) = record else {
        return Version(String::new());
    };
    let content = serde_json::to_vec(record).expect("text and numbers can be written as JSON");
    let digest = digest::digest(&digest::SHA256, &content);
    Version(URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]))
}

/// Returns a number for the state of a file; 0 where there is none. A write creates a new file, so its inode, length or modification time differs; an
/// editor that writes in place changes at least one of the latter two.
pub(super) fn revision_of(path: &Path) -> Result<u64, TokenError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => {
            let path = path.to_owned();
            return Err(TokenError::Read { path, source });
        }
    };
    let mut hasher = DefaultHasher::new();
    metadata.len().hash(&mut hasher);
    metadata.modified().ok().hash(&mut hasher);
    os::file_id(&metadata).hash(&mut hasher);
    Ok(hasher.finish())
}

impl From<&TokenRecord> for RecordOnDisk {
    fn from(record: &TokenRecord) -> Self {
        Self {
            token: record.token.as_ref().map(TokenOnDisk::from),
            pending: record.pending.as_ref().map(TokenOnDisk::from),
            seeds: record.seeds.clone(),
            generation: record.generation,
            intent: record.intent.clone(),
        }
    }
}

impl From<&StoredToken> for TokenOnDisk {
    fn from(token: &StoredToken) -> Self {
        let refresh = token.refresh.as_ref();
        Self {
            kind: match token.kind {
                TokenKind::User => KindOnDisk::User,
                TokenKind::App => KindOnDisk::App,
            },
            access_token: token.access.expose_secret().to_owned(),
            refresh_token: refresh.map(|refresh| refresh.secret.expose_secret().to_owned()),
            refresh_state: refresh.and_then(|refresh| match &refresh.state {
                RefreshState::Ready => None,
                RefreshState::Refused { at, reason } => Some(StateOnDisk::Refused {
                    at: *at,
                    reason: reason.clone(),
                }),
            }),
            client_id: token.client_id.clone(),
            user_id: token.user_id.clone(),
            login: token.login.clone(),
            scopes: token.scopes.clone(),
            obtained_at: token.obtained_at,
            refreshed_at: token.refreshed_at,
            expires_at: token.expires_at,
        }
    }
}

impl From<RecordOnDisk> for TokenRecord {
    fn from(record: RecordOnDisk) -> Self {
        Self {
            token: record.token.map(StoredToken::from),
            pending: record.pending.map(StoredToken::from),
            seeds: record.seeds,
            generation: record.generation,
            intent: record.intent,
        }
    }
}

impl From<TokenOnDisk> for StoredToken {
    fn from(token: TokenOnDisk) -> Self {
        let state = match token.refresh_state {
            None => RefreshState::Ready,
            Some(StateOnDisk::Refused { at, reason }) => RefreshState::Refused { at, reason },
        };
        for name in token.login.iter().chain(&token.user_id) {
            secrets::register_name(name);
        }
        Self {
            kind: match token.kind {
                KindOnDisk::User => TokenKind::User,
                KindOnDisk::App => TokenKind::App,
            },
            access: secrets::secret(token.access_token),
            refresh: token.refresh_token.map(|secret| RefreshToken {
                secret: secrets::secret(secret),
                state,
            }),
            client_id: token.client_id,
            user_id: token.user_id,
            login: token.login,
            scopes: token.scopes,
            obtained_at: token.obtained_at,
            refreshed_at: token.refreshed_at,
            expires_at: token.expires_at,
        }
    }
}
