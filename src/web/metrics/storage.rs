//! What was stored, and what was read from the bus.

use std::time::Duration;

use super::catalog;
use super::exposition::{Exposition, Value};
use crate::persist;
use crate::web::Stored;

const DAY: Duration = Duration::from_hours(24);

/// Adds the requests to the store.
pub(super) fn collect(exposition: &mut Exposition, stored: &Stored) {
    let stats = stored.stats;
    exposition.set(&catalog::STORE_WRITES, &[], stats.writes);
    exposition.set(&catalog::STORE_READS, &[], stats.reads);
    exposition.set(&catalog::STORE_CONFLICTS, &[], stats.conflicts);
    exposition.set(&catalog::STORE_FAILURES, &[], stats.failures);
    exposition.set(&catalog::STORE_WAITING, &[], stats.urgent);
    if let Some(unusable) = stored.unusable {
        exposition.set(&catalog::STORE_UNUSABLE, &[], unusable);
    }
    if let Some(expected) = stored.expected_per_day {
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let expected = expected as f64 / DAY.as_secs_f64();
        exposition.set(&catalog::STORE_EXPECTED, &[], Value::Number(expected));
    }
}

/// Adds the messages of the bus.
pub(super) fn collect_bus(exposition: &mut Exposition, storing: &persist::overview::Overview) {
    let outcomes = [
        ("stored", storing.stored),
        ("postponed", storing.postponed),
        ("dead", storing.dead),
    ];
    for (outcome, count) in outcomes {
        exposition.set(&catalog::BUS_MESSAGES, &[outcome], count);
    }
    for (why, count) in &storing.ignored {
        let outcome = format!("ignored_{}", why.as_str());
        exposition.set(&catalog::BUS_MESSAGES, &[&outcome], *count);
    }
    exposition.set(&catalog::BUS_FOREIGN, &[], storing.foreign);
    exposition.set(&catalog::BUS_REDELIVERED, &[], storing.repeated);
    exposition.set(&catalog::CHAT_MESSAGES, &[], storing.chat_counted);
    exposition.set(&catalog::CHAT_REPEATED, &[], storing.chat_repeated);
    exposition.set(&catalog::CHAT_UNPLACED, &[], storing.chat_unplaced);
}
