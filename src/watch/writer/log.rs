//! Decides which transitions are logged, and formats them.

use std::collections::BTreeSet;

use tracing::{debug, info};

use crate::core::facet::Facet;
use crate::core::source::SourceKey;
use crate::core::transition::Transition;
use crate::core::verdict::CLOSED_BY_US;
use crate::telemetry::names;
use crate::watch::tracker::Step;

/// Logs one transition. First observations of a source and our own shutdown are not worth a log entry unless they report a
/// problem: ten thousand sources would cause tens of thousands of entries at each start and stop.
pub(super) fn log(source: &SourceKey, transition: &Transition, step: &Step) {
    let by = step.by.as_str();
    let (facet, at, rule) = (transition.facet.as_str(), transition.at, transition.rule.as_str());
    let to = transition.to.as_deref().unwrap_or("unknown");
    let from = transition.from.as_deref().unwrap_or("unknown");
    let first = match transition.facet {
        Facet::Status => step.unproven_before,
        _ => matches!(from, "unknown" | "UNKNOWN" | ""),
    };
    let expected = first || transition.initial || rule == CLOSED_BY_US;
    let initial = expected.then_some(true);
    let display_name = step.after.display_name();
    if transition.facet == Facet::Permissions {
        let (gained, unproven) = (missing(from, to), missing(to, from));
        if expected {
            debug!(
                name: names::TRANSITION, { source.key = %source, display_name, facet, gained, unproven, initial, %at, by },
                "`{source}`: permissions are known"
            );
        } else {
            info!(
                name: names::TRANSITION, { source.key = %source, display_name, facet, gained, unproven, %at, by },
                "`{source}`: permissions changed"
            );
        }
    } else if expected && !matches!(to, "ERROR" | "REVOKED" | "EXPIRED" | "ONLINE") {
        debug!(
            name: names::TRANSITION, { source.key = %source, display_name, facet, from, to, initial, %at, rule, by },
            "`{source}`: {facet} {from} → {to}"
        );
    } else if let ("ERROR" | "DISCONNECTED", Some(error)) = (to, step.after.cause()) {
        // The reason belongs to the log entry of the change.
        let reason = error.message;
        info!(
            name: names::TRANSITION, { source.key = %source, display_name, facet, from, to, initial, reason, %at, rule, by },
            "`{source}`: {facet} {from} → {to}: {reason}"
        );
    } else {
        let lasted_s = (to == "OFFLINE").then(|| lasted(step)).flatten();
        info!(
            name: names::TRANSITION, { source.key = %source, display_name, facet, from, to, initial, lasted_s, %at, rule, by },
            "`{source}`: {facet} {from} → {to}"
        );
    }
}

/// Returns how many seconds the stream lasted that has just ended, if its start is known.
fn lasted(step: &Step) -> Option<u64> {
    let broadcast = step.after.verdict.broadcast.as_ref()?;
    Some(broadcast.ended_at?.since(broadcast.started_at?).as_secs())
}

/// Returns the parts of `after` that `before` does not contain.
fn missing(before: &str, after: &str) -> String {
    let known: BTreeSet<&str> = before.split(' ').collect();
    let words: Vec<&str> = after.split(' ').filter(|word| !known.contains(word)).collect();
    words.join(" ")
}
