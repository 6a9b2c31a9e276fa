//! How this server registers with the tool gateway of the BitBrat platform: one message at the start, one at a clean stop.
//!
//! The gateway connects to the address by the older transport of the protocol (`GET /sse`), and offers the tools to the platform's
//! bot. `env` are the headers of its requests; it replaces `${VARIABLE}` in them by its own environment, so that the token itself
//! is on no bus and in no store.

use serde_json::{Value, json};

use crate::bus::{Outgoing, names};
use crate::core::time::Timestamp;

/// Event type, and topic, of registrations.
const KIND: &str = names::MCP_REGISTRATION;

/// What is published about this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The name under which the gateway stores it.
    pub name: String,
    /// The address of its event stream, as the gateway reaches it.
    pub url: String,
    /// The variable of the gateway that has the token, where one is required.
    pub token_variable: Option<String>,
    /// Roles of which a user needs one to use the tools; everybody may use them if there is none.
    pub required_roles: Vec<String>,
}

/// Whether the gateway should connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Active,
    Inactive,
}

impl Registration {
    /// Returns the message for a state, dated `at`.
    pub fn message(&self, state: State, at: Timestamp) -> Outgoing {
        let Self { name, url, .. } = self;
        let id = format!("reg-{name}-{}", at.as_millis());
        let status = match state {
            State::Active => "active",
            State::Inactive => "inactive",
        };
        let mut payload = json!({"name": name, "transport": "sse", "url": url, "status": status});
        if let Some(variable) = &self.token_variable {
            payload["env"] = json!({"Authorization": format!("Bearer ${{{variable}}}")});
        }
        if !self.required_roles.is_empty() {
            payload["requiredRoles"] = json!(self.required_roles);
        }
        let body: Value = json!({
            "v": "2", "type": KIND, "correlationId": id, "payload": payload,
            "ingress": {"ingressAt": at, "source": "bitbrat", "connector": "system"},
            "identity": {"external": {"id": name, "platform": "system"}},
            "egress": {"destination": "system", "connector": "system"},
            "routing": {"stage": "meta", "slip": [], "history": []},
        });
        let attributes = [
            ("type", KIND.to_owned()),
            ("source", "bitbrat".to_owned()),
            ("correlationId", id.clone()),
            ("idempotencyKey", id.clone()),
        ];
        Outgoing {
            topic: names::MCP_REGISTRATION.to_owned(),
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            data: body.to_string().into(),
            id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_is_what_the_tool_gateway_expects() {
        let at = Timestamp::from_millis(1_780_000_000_000);
        let mut registration = Registration {
            name: "bitbrat".into(),
            url: "http://bot.internal:8787/sse".into(),
            token_variable: Some("BITBRAT_WEB_TOKEN".into()),
            required_roles: vec!["moderator".into()],
        };
        let message = registration.message(State::Active, at);
        let body: Value = serde_json::from_slice(&message.data).unwrap();
        let expected = json!({
            "v": "2", "type": "internal.mcp.registration.v1", "correlationId": "reg-bitbrat-1780000000000",
            "payload": {
                "name": "bitbrat", "transport": "sse", "url": "http://bot.internal:8787/sse", "status": "active",
                "env": {"Authorization": "Bearer ${BITBRAT_WEB_TOKEN}"}, "requiredRoles": ["moderator"],
            },
            "ingress": {"ingressAt": "2026-05-28T20:26:40.000Z", "source": "bitbrat", "connector": "system"},
            "identity": {"external": {"id": "bitbrat", "platform": "system"}},
            "egress": {"destination": "system", "connector": "system"},
            "routing": {"stage": "meta", "slip": [], "history": []},
        });
        assert_eq!(body, expected);
        assert_eq!(message.topic, "internal.mcp.registration.v1");
        assert_eq!(message.attributes["type"], "internal.mcp.registration.v1");
        registration.token_variable = None;
        registration.required_roles.clear();
        let message = registration.message(State::Inactive, at);
        let body: Value = serde_json::from_slice(&message.data).unwrap();
        let expected = json!({
            "name": "bitbrat", "transport": "sse", "url": "http://bot.internal:8787/sse", "status": "inactive",
        });
        assert_eq!(body["payload"], expected);
    }
}
