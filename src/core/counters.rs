//! Counters: one running total per writer that only increases; the value of a source is the sum over its writers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::join::Join;
use crate::core::time::Timestamp;

/// Running totals of one writer since its first write. A writer restores its totals before it resumes counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Chat messages received.
    pub messages_in: u64,
    /// Chat messages passed to delivery; whether they arrived is not reported.
    pub messages_out: u64,
    /// Failed requests, rejected subscriptions and similar errors.
    pub errors: u64,
    /// Reconnects, not counting the first connection.
    pub reconnects: u64,
    /// Time of the writer's last report.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub at: Option<Timestamp>,
}

/// Totals by writer.
pub type CounterTable = BTreeMap<String, Counters>;

impl Join for Counters {
    fn join(&mut self, other: Self) {
        self.messages_in = self.messages_in.max(other.messages_in);
        self.messages_out = self.messages_out.max(other.messages_out);
        self.errors = self.errors.max(other.errors);
        self.reconnects = self.reconnects.max(other.reconnects);
        self.at = self.at.max(other.at);
    }
}

/// Adds up all writers; `at` is the newest report.
pub fn sum(table: &CounterTable) -> Counters {
    table
        .values()
        .fold(Counters::default(), |total, writer| Counters {
            messages_in: total.messages_in.saturating_add(writer.messages_in),
            messages_out: total.messages_out.saturating_add(writer.messages_out),
            errors: total.errors.saturating_add(writer.errors),
            reconnects: total.reconnects.saturating_add(writer.reconnects),
            at: total.at.max(writer.at),
        })
}
