//! What is stored about a refresh before its request is sent, so that a crash at any time leaves a trace.
//!
//! A one-time refresh token is spent as soon as the platform has processed the request, whether or not its answer arrives. Sending it
//! again can revoke the whole grant (<https://dev.twitch.tv/docs/authentication/refresh-tokens/>).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::core::time::Timestamp;

/// How long a refresh may take until another machine counts it as interrupted. Longer than the timeout of a request and its retries.
const LIFETIME_SECS: i64 = 60;
/// By how much the clocks of two machines may differ.
const SKEW_SECS: i64 = 30;

/// A refresh that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefreshIntent {
    /// Its random id.
    pub id: String,
    /// The lock domain of the process that refreshes; see [`TokenStore::lock_domain`](super::TokenStore::lock_domain).
    pub owner: String,
    /// The record's generation when it was begun.
    pub generation: u64,
    /// A keyed hash of the refresh token. The key is the id, so equal tokens of two refreshes have different hashes.
    pub rt_hash: String,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When other machines may count it as interrupted.
    pub deadline: Timestamp,
    /// How far it got.
    pub phase: IntentPhase,
}

/// How far a refresh got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum IntentPhase {
    /// Nothing was sent.
    Planned,
    /// The request may have been sent.
    Sent,
    /// It may have been sent a second time, after the answer to the first was lost and the access token had expired.
    Retried,
    /// The answer is lost and the refresh token is spent. Only a login helps, or the granted pair in the journal of the machine that
    /// received it.
    Lost,
}

impl RefreshIntent {
    /// Plans a refresh with the token `refresh`.
    pub fn plan(owner: &str, generation: u64, refresh: &SecretString, now: Timestamp) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self {
            rt_hash: keyed_hash(&id, refresh),
            id,
            owner: owner.to_owned(),
            generation,
            started_at: now,
            deadline: now.plus_secs(LIFETIME_SECS),
            phase: IntentPhase::Planned,
        }
    }

    /// Returns it in another phase.
    pub fn in_phase(self, phase: IntentPhase) -> Self {
        Self { phase, ..self }
    }

    /// Returns whether it is a refresh with the token `refresh`.
    pub fn is_of(&self, refresh: &SecretString) -> bool {
        self.rt_hash == keyed_hash(&self.id, refresh)
    }

    /// Returns whether a process of another lock domain than `domain` may be refreshing now.
    pub fn is_running_elsewhere(&self, domain: &str, now: Timestamp) -> bool {
        self.owner != domain && self.phase != IntentPhase::Lost && now < self.deadline.plus_secs(SKEW_SECS)
    }
}

fn keyed_hash(key: &str, refresh: &SecretString) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, refresh.expose_secret().as_bytes());
    URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(owner: &str) -> RefreshIntent {
        RefreshIntent::plan(owner, 1, &"refresh-token".to_owned().into(), Timestamp::EPOCH)
    }

    #[test]
    fn intent_recognizes_its_token_and_does_not_contain_it() {
        let (one, other) = (planned("here"), planned("here"));
        assert!(one.is_of(&"refresh-token".to_owned().into()));
        assert!(!one.is_of(&"another-token".to_owned().into()));
        assert_ne!(one.rt_hash, other.rt_hash);
        assert!(!serde_json::to_string(&one).unwrap().contains("refresh-token"));
    }

    #[test]
    fn intent_of_another_machine_is_respected_until_its_deadline() {
        let at = |second| Timestamp::EPOCH.plus_secs(second);
        for (owner, second, expected) in [("here", 0, false), ("there", 89, true), ("there", 90, false)] {
            let running = planned(owner).is_running_elsewhere("here", at(second));
            assert_eq!(running, expected, "{owner} {second}");
        }
        let lost = planned("there").in_phase(IntentPhase::Lost);
        assert!(!lost.is_running_elsewhere("here", at(0)));
    }
}
