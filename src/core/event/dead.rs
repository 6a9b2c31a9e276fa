//! Dead letters: how a message that can never be used is reported, so that nothing disappears silently.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use crate::core::event::wire::Routing;
use crate::core::time::Timestamp;

/// The type of a dead letter on the bus.
pub const DEAD_LETTER: &str = "router.deadletter.v1";

/// Why a message cannot be used, now or ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Stable, dotted: `json.invalid`, `source.id`.
    pub code: &'static str,
    /// For people.
    pub reason: String,
    /// The id that the message carried.
    pub original_id: Option<String>,
    /// The type that it carried.
    pub original_type: Option<String>,
}

/// A dead letter, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own id. Never that of the message it reports, because the platform marks the event of that id as failed.
    pub id: String,
    /// Header fields.
    pub attributes: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Dead {
    /// Builds a reason.
    pub fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            original_id: None,
            original_type: None,
        }
    }

    /// Builds the letter that reports message `data`. The id follows from the message, so that a redelivered one is
    /// reported once. Nothing of its contents is copied: it may be somebody's chat, or a secret.
    pub fn letter(&self, data: &[u8], at: Timestamp) -> DeadLetter {
        let name = [b"bitbrat dead letter ".as_slice(), data].concat();
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, &name).to_string();
        let source = "ingress.bitbrat.persist";
        let body = json!({
            "v": "2", "type": DEAD_LETTER, "correlationId": id,
            "ingress": {"ingressAt": at.to_string(), "source": source, "connector": "system"},
            "identity": {"external": {"id": "bitbrat", "platform": "system"}},
            "egress": {"destination": "", "connector": "system"},
            "payload": {
                "reason": self.reason, "error": {"code": self.code, "message": self.reason},
                "originalCorrelationId": self.original_id, "originalType": self.original_type,
                "lastStepId": null, "slipSummary": "", "preview": format!("{} bytes", data.len()),
            },
            "routing": Routing::quiet(),
        });
        let attributes = [
            ("type", DEAD_LETTER),
            ("correlationId", id.as_str()),
            ("idempotencyKey", id.as_str()),
            ("source", source),
        ];
        DeadLetter {
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: body.to_string(),
            id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_letter_has_an_id_of_its_own_and_quotes_nothing() {
        let dead = Dead {
            original_id: Some("theirs".into()),
            ..Dead::new("json.invalid", "it is not JSON")
        };
        let letter = dead.letter(b"{\"accessToken\": \"hush\"", Timestamp::EPOCH);
        assert_eq!(
            letter,
            dead.letter(b"{\"accessToken\": \"hush\"", Timestamp::EPOCH)
        );
        assert_ne!(letter.id, dead.letter(b"other", Timestamp::EPOCH).id);
        assert!(!letter.body.contains("hush"));
        let body: Value = serde_json::from_str(&letter.body).unwrap();
        assert_eq!(body["payload"]["originalCorrelationId"], "theirs");
        assert_eq!(body["correlationId"], letter.id.as_str());
    }
}
