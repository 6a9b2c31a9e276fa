//! The routing rule for our events: without one the platform's router turns each of them into a dead letter.
//!
//! Rules are `JsonLogic`. The subset evaluated here is sufficient to determine the first rule that matches one of our events.

use serde_json::{Value, json};

use crate::core::event::EventKind;

/// Scope of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Every event about sources. The platform's own stream events then no longer reach chat workflows either.
    All,
    /// Only our own events: those that contain evidence.
    Ours,
}

/// Returns a rule for `configs/routingRules/rules/{id}`. Its `logic` is `JsonLogic` encoded as text, as the platform requires.
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

/// Effect of the platform's rules on our events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// This rule matches all of them and forwards none.
    Quiet(String),
    /// This rule forwards some of them.
    Loud(String),
    /// This rule has precedence, but its logic cannot be evaluated here.
    Unclear(String),
    /// No rule matches some of them: they become dead letters.
    Nowhere,
}

/// Returns the effect of `rules` (by id) on our events. The router applies the first match in ascending order of priority.
pub fn routed(rules: &[(String, Value)]) -> Routed {
    let priority = |rule: &Value| rule["priority"].as_f64().unwrap_or(f64::MAX);
    let mut enabled: Vec<_> = rules
        .iter()
        .filter(|(_, rule)| rule["enabled"] == true && rule["priority"].is_number())
        .collect();
    enabled.sort_by(|(_, one), (_, other)| priority(one).total_cmp(&priority(other)));
    let mut quiet = None;
    for kind in EventKind::ALL {
        match route(&enabled, &example(kind)) {
            Routed::Quiet(id) => quiet = Some(id),
            other => return other,
        }
    }
    quiet.map_or(Routed::Nowhere, Routed::Quiet)
}

fn route(rules: &[&(String, Value)], event: &Value) -> Routed {
    for (id, rule) in rules {
        let logic = rule["logic"]
            .as_str()
            .and_then(|logic| serde_json::from_str(logic).ok());
        match logic.and_then(|logic: Value| evaluate(&logic, event)) {
            None => return Routed::Unclear(id.clone()),
            Some(met) if is_true(&met) => {
                let slip = rule["routing"]["slip"].as_array();
                let ends_here = slip.is_some_and(Vec::is_empty) && rule["routing"]["stage"] == "meta";
                return if ends_here {
                    Routed::Quiet(id.clone())
                } else {
                    Routed::Loud(id.clone())
                };
            }
            Some(_) => {}
        }
    }
    Routed::Nowhere
}

/// A sample of our events with the fields that rules can test.
fn example(kind: EventKind) -> Value {
    json!({
        "v": "2", "type": kind.as_str(), "correlationId": "0f3a6c1e-5b1d-5c52-9a7e-3f0b8d2a4c11",
        "ingress": {"source": "ingress.bitbrat.probe", "connector": "system"},
        "identity": {"external": {"id": "777001", "platform": "twitch"}},
        "egress": {"destination": "", "connector": "system"},
        "payload": {"platform": "twitch", "id": "777001", "evidence": {"stream": {}}},
        "routing": {"stage": "meta", "slip": [], "history": []},
    })
}

/// Evaluates logic; `None` for an unsupported operation.
fn evaluate(logic: &Value, event: &Value) -> Option<Value> {
    let operation = match logic {
        Value::Object(operation) if operation.len() == 1 => operation,
        Value::Object(_) => return None,
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| evaluate(item, event)).collect();
            return items.map(Value::Array);
        }
        literal => return Some(literal.clone()),
    };
    let (name, given) = operation.iter().next()?;
    let given = match given {
        Value::Array(given) => given.clone(),
        single => vec![single.clone()],
    };
    if name == "var" {
        return Some(variable(&given, event));
    }
    let values: Vec<Value> = given
        .iter()
        .map(|value| evaluate(value, event))
        .collect::<Option<_>>()?;
    let first = values.first().cloned().unwrap_or(Value::Null);
    let second = values.get(1).cloned().unwrap_or(Value::Null);
    Some(match name.as_str() {
        "==" | "===" => (first == second).into(),
        "!=" | "!==" => (first != second).into(),
        "!" => (!is_true(&first)).into(),
        "!!" => is_true(&first).into(),
        "and" => values
            .iter()
            .find(|value| !is_true(value))
            .or(values.last())?
            .clone(),
        "or" => values
            .iter()
            .find(|value| is_true(value))
            .or(values.last())?
            .clone(),
        "in" => match (&first, &second) {
            (wanted, Value::Array(items)) => items.contains(wanted).into(),
            (Value::String(part), Value::String(whole)) => whole.contains(part.as_str()).into(),
            _ => false.into(),
        },
        _ => return None,
    })
}

fn variable(given: &[Value], event: &Value) -> Value {
    let otherwise = given.get(1).cloned().unwrap_or(Value::Null);
    match given.first().and_then(Value::as_str) {
        None => otherwise,
        Some("") => event.clone(),
        Some(path) => {
            let found = path.split('.').try_fold(event, |value, name| value.get(name));
            found.cloned().unwrap_or(otherwise)
        }
    }
}

/// Truth value of a value in `JsonLogic`.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    }
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

    #[test]
    fn first_matching_rule_decides_if_own_events_are_quiet() {
        let other = |priority: i32, logic: &Value| {
            let routing = json!({"stage": "initial", "slip": [{"id": "auth"}]});
            json!({"enabled": true, "priority": priority, "logic": logic.to_string(), "routing": routing})
        };
        let ours = |quiet| ("ours".to_owned(), rule(quiet));
        let catch_all = ("all".to_owned(), other(100, &json!(true)));
        let chat = (
            "chat".to_owned(),
            other(0, &json!({"===": [{"var": "type"}, "chat.message.v1"]})),
        );
        let odd = (
            "odd".to_owned(),
            other(0, &json!({"sentiment": [{"var": "message"}]})),
        );
        let first = (
            "first".to_owned(),
            other(0, &json!({"==": [{"var": ["ingress.connector"]}, "system"]})),
        );
        let mut off = ours(Quiet::All);
        off.1["enabled"] = false.into();
        let named = str::to_owned;
        for (rules, expected) in [
            (vec![], Routed::Nowhere),
            (vec![off.clone()], Routed::Nowhere),
            (vec![chat.clone()], Routed::Nowhere),
            (
                vec![catch_all.clone(), ours(Quiet::All)],
                Routed::Quiet(named("ours")),
            ),
            (
                vec![catch_all.clone(), chat.clone(), ours(Quiet::Ours)],
                Routed::Quiet(named("ours")),
            ),
            (vec![catch_all.clone(), off], Routed::Loud(named("all"))),
            (
                vec![catch_all.clone(), first, ours(Quiet::All)],
                Routed::Loud(named("first")),
            ),
            (vec![odd, ours(Quiet::All)], Routed::Unclear(named("odd"))),
        ] {
            assert_eq!(routed(&rules), expected, "{rules:?}");
        }
    }
}
