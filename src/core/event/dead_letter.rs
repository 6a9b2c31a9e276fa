//! Dead letters: reports of messages that can never be processed, so that no message is lost silently.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use crate::core::code::Code;
use crate::core::event::wire::Routing;
use crate::core::time::Timestamp;

/// The type of a dead letter on the bus.
pub const DEAD_LETTER: &str = "router.deadletter.v1";

/// Permanent reason why a message cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unprocessable {
    /// The error.
    pub code: Code,
    /// Explanation for people.
    pub reason: String,
    /// Id in the message, if it could be parsed.
    pub original_id: Option<String>,
    /// Type in the message, if it could be parsed.
    pub original_type: Option<String>,
}

/// A dead letter, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own id, never that of the reported message: the platform marks the event of that id as failed.
    pub id: String,
    /// Message headers.
    pub attributes: BTreeMap<String, String>,
    /// JSON body.
    pub body: String,
}

impl Unprocessable {
    /// Creates a reason with `code`; the ids of the message are added later.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            original_id: None,
            original_type: None,
        }
    }

    /// Builds the dead letter for message `data`. Its id is derived from the message, so that a redelivered message is
    /// reported once. The contents are not copied, because they may be private chat or a secret.
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
        let dead = Unprocessable {
            original_id: Some("theirs".into()),
            ..Unprocessable::new(Code::JsonInvalid, "it is not JSON")
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
