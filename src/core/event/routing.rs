//! The routing rule that keeps our events quiet: without one the platform's router files each of them as a dead letter.

use serde_json::{Value, json};

use crate::core::event::EventKind;

/// How much a rule quiets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Every event about sources. The platform's own stream events then no longer reach chat workflows either.
    All,
    /// Our own events only: those that carry evidence.
    Ours,
}

/// Returns a rule for `configs/routingRules/rules/{id}`. Its `logic` is `JsonLogic` as a text, which the platform demands.
pub fn rule(quiet: Quiet) -> Value {
    let kinds = json!({"in": [{"var": "type"}, EventKind::ALL.map(EventKind::as_str)]});
    let logic = match quiet {
        Quiet::All => kinds,
        Quiet::Ours => json!({"and": [kinds, {"!!": [{"var": "payload.evidence"}]}]}),
    };
    json!({
        "enabled": true, "priority": 1, "description": "source state: no further routing",
        "logic": logic.to_string(), "routing": {"stage": "meta", "slip": []}, "enrichments": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_the_one_that_was_tried_against_the_platform() {
        let rule = rule(Quiet::All);
        let logic: Value = serde_json::from_str(rule["logic"].as_str().unwrap()).unwrap();
        assert_eq!(
            logic,
            json!({"in": [{"var": "type"}, ["system.source.status", "system.stream.online", "system.stream.offline"]]})
        );
        assert_eq!(rule["routing"], json!({"stage": "meta", "slip": []}));
    }
}
