//! What of a transition is worth a line in the log, and how the line reads.

use std::collections::BTreeSet;

use tracing::{debug, info};

use crate::core::facet::Facet;
use crate::core::source::SourceKey;
use crate::core::transition::Transition;
use crate::watch::tracker::Step;

/// Logs one transition. First words about a source, and our own goodbye, are no news to a person unless they are bad:
/// ten thousand sources would say tens of thousands of them at each start and stop.
pub(super) fn log(source: &SourceKey, transition: &Transition, step: &Step) {
    let by = step.by.as_str();
    let (facet, at, rule) = (transition.facet.as_str(), transition.at, transition.rule.as_str());
    let to = transition.to.as_deref().unwrap_or("unknown");
    let from = transition.from.as_deref().unwrap_or("unknown");
    let first = match transition.facet {
        Facet::Status => step.quiet_before,
        _ => matches!(from, "unknown" | "UNKNOWN" | ""),
    };
    let expected = first || rule == "status.closed";
    if transition.facet == Facet::Permissions {
        let (gained, unproven) = (missing(from, to), missing(to, from));
        if expected {
            debug!(source.key = %source, facet, gained, unproven, %at, by, "`{source}`: permissions are known");
        } else {
            info!(source.key = %source, facet, gained, unproven, %at, by, "`{source}`: permissions changed");
        }
    } else if expected && !matches!(to, "ERROR" | "REVOKED" | "EXPIRED" | "ONLINE") {
        debug!(source.key = %source, facet, from, to, %at, rule, by, "`{source}`: {facet} {from} → {to}");
    } else if let ("ERROR" | "DISCONNECTED", Some(error)) = (to, step.after.record().last_error) {
        // Whoever is woken by this line should not have to look elsewhere for the reason.
        let why = error.message;
        info!(source.key = %source, facet, from, to, %at, rule, by, "`{source}`: {facet} {from} → {to}: {why}");
    } else {
        info!(source.key = %source, facet, from, to, %at, rule, by, "`{source}`: {facet} {from} → {to}");
    }
}

/// Returns the words of `after` that `before` has not.
fn missing(before: &str, after: &str) -> String {
    let known: BTreeSet<&str> = before.split(' ').collect();
    let words: Vec<&str> = after.split(' ').filter(|word| !known.contains(word)).collect();
    words.join(" ")
}
