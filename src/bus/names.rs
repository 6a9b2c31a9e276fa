//! What things on the bus are called: topics as the BitBrat platform names them, and our own subscriptions.

use std::fmt;

/// Where sources' events and inbound chat go.
pub const INGRESS: &str = "internal.ingress.v1";
/// What every topic of outbound chat starts with: `internal.egress.v1` itself and one topic per instance below it.
pub const EGRESS: &str = "internal.egress";
/// Where messages that can never be used are reported.
pub const DEAD_LETTERS: &str = "internal.deadletter.v1";
/// Where the platform's router reports what it has no rule for.
pub const ROUTER_DEAD_LETTERS: &str = "internal.router.dlq.v1";
/// Where the state engine takes orders.
pub const STATE_MUTATIONS: &str = "internal.state.mutation.v1";

/// Names in front of which a deployment puts its prefix (`local.`, `staging.`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Takes the deployment's prefix, which may be empty.
    pub fn with_prefix(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// Returns the full name of a topic. A name that has the prefix already is left alone, as the platform does.
    pub fn full(&self, topic: &str) -> String {
        if topic.starts_with(&self.prefix) {
            topic.to_owned()
        } else {
            format!("{}{topic}", self.prefix)
        }
    }

    /// Returns a topic's name without the prefix.
    pub fn bare<'a>(&self, full: &'a str) -> &'a str {
        full.strip_prefix(&self.prefix).unwrap_or(full)
    }

    /// Returns the subject that a NATS consumer filters by.
    pub fn subject(&self, filter: &Filter) -> String {
        match filter {
            Filter::Topic(topic) => self.full(topic),
            Filter::Under(root) => format!("{}.>", self.full(root)),
        }
    }

    /// Returns the name of a durable NATS consumer, in the platform's manner. It has no dots: NATS forbids them.
    pub fn durable(&self, filter: &Filter, queue: &str) -> String {
        let subject = match filter {
            Filter::Topic(topic) => self.full(topic),
            Filter::Under(root) => self.full(root),
        };
        format!("{subject}-{queue}-durable").replace('.', "-")
    }

    /// Returns the name of a Pub/Sub subscription to one topic, in the platform's manner.
    pub fn subscription(&self, topic: &str, queue: &str) -> String {
        format!("{}.{queue}", self.full(topic))
    }
}

/// Which topics a subscription is to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// One topic.
    Topic(String),
    /// Every topic whose name goes on below this one.
    Under(String),
}

impl Filter {
    /// The topic of sources' events and inbound chat.
    pub fn ingress() -> Self {
        Self::Topic(INGRESS.to_owned())
    }

    /// Every topic of outbound chat.
    pub fn egress() -> Self {
        Self::Under(EGRESS.to_owned())
    }

    /// Returns whether a topic (without prefix) is meant.
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
    fn a_filter_means_whole_words() {
        assert!(Filter::egress().matches("internal.egress.v1.instance-7"));
        assert!(Filter::egress().matches("internal.egress.v1"));
        assert!(!Filter::egress().matches("internal.egressive.v1"));
        assert!(!Filter::ingress().matches("internal.ingress.v1.more"));
    }
}
