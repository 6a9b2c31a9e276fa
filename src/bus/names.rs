//! Names on the bus: topics as defined by the BitBrat platform, and our own subscriptions.

use std::fmt;

/// Topic of source events and inbound chat.
pub const INGRESS: &str = "internal.ingress.v1";
/// Common prefix of all topics of outbound chat: `internal.egress.v1` itself and one topic per instance below it.
pub const EGRESS: &str = "internal.egress";
/// Topic of reports about messages that can never be processed.
pub const DEAD_LETTERS: &str = "internal.deadletter.v1";
/// Topic of BitBrat's router for events without a rule.
pub const ROUTER_DEAD_LETTERS: &str = "internal.router.dlq.v1";
/// Topic of mutations for the state engine.
pub const STATE_MUTATIONS: &str = "internal.state.mutation.v1";
/// Topic of registrations with BitBrat's tool gateway.
pub const MCP_REGISTRATION: &str = "internal.mcp.registration.v1";

/// Converts names to and from those of a deployment with a prefix (`local.`, `staging.`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Creates the conversion for a prefix, which may be empty.
    pub fn with_prefix(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// Returns the full name of a topic. A name that already has the prefix is unchanged, as in BitBrat.
    pub fn full(&self, topic: &str) -> String {
        if topic.starts_with(&self.prefix) {
            topic.to_owned()
        } else {
            format!("{}{topic}", self.prefix)
        }
    }

    /// Returns the name of a topic without the prefix.
    pub fn bare<'a>(&self, full: &'a str) -> &'a str {
        full.strip_prefix(&self.prefix).unwrap_or(full)
    }

    /// Returns the filter subject of a NATS consumer.
    pub fn subject(&self, filter: &Filter) -> String {
        match filter {
            Filter::Topic(topic) => self.full(topic),
            Filter::Under(root) => format!("{}.>", self.full(root)),
        }
    }

    /// Returns the name of a durable NATS consumer, by BitBrat's convention. NATS does not allow dots in it.
    pub fn durable(&self, filter: &Filter, queue: &str) -> String {
        let subject = match filter {
            Filter::Topic(topic) => self.full(topic),
            Filter::Under(root) => self.full(root),
        };
        format!("{subject}-{queue}-durable").replace('.', "-")
    }

    /// Returns the name of a Pub/Sub subscription to one topic, by BitBrat's convention.
    pub fn subscription(&self, topic: &str, queue: &str) -> String {
        format!("{}.{queue}", self.full(topic))
    }
}

/// The topics of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    Topic(String),
    /// Every topic below this name.
    Under(String),
}

impl Filter {
    /// The topic of source events and inbound chat.
    pub fn ingress() -> Self {
        Self::Topic(INGRESS.to_owned())
    }

    /// Every topic of outbound chat.
    pub fn egress() -> Self {
        Self::Under(EGRESS.to_owned())
    }

    /// Returns whether the filter includes a topic (without prefix).
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Topic(wanted) => topic == wanted,
            Self::Under(root) => topic
                .strip_prefix(root.as_str())
                .is_some_and(|rest| rest.starts_with('.')),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => f.write_str(topic),
            Self::Under(root) => write!(f, "{root}.>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_platforms() {
        let names = Names::with_prefix("local.");
        assert_eq!(names.full(INGRESS), "local.internal.ingress.v1");
        assert_eq!(
            names.full("local.internal.ingress.v1"),
            "local.internal.ingress.v1"
        );
        assert_eq!(names.bare("local.internal.ingress.v1"), INGRESS);
        assert_eq!(names.subject(&Filter::egress()), "local.internal.egress.>");
        assert_eq!(
            names.durable(&Filter::ingress(), "bitbrat-persist"),
            "local-internal-ingress-v1-bitbrat-persist-durable"
        );
        assert_eq!(
            names.subscription(INGRESS, "bitbrat-persist"),
            "local.internal.ingress.v1.bitbrat-persist"
        );
        assert_eq!(Names::default().full(INGRESS), INGRESS);
    }

    #[test]
    fn filter_matches_whole_words_only() {
        assert!(Filter::egress().matches("internal.egress.v1.instance-7"));
        assert!(Filter::egress().matches("internal.egress.v1"));
        assert!(!Filter::egress().matches("internal.egressive.v1"));
        assert!(!Filter::ingress().matches("internal.ingress.v1.more"));
    }
}
