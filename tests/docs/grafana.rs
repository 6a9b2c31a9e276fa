//! The dashboard for Grafana, as far as it can be checked without one; `scripts/prometheus.sh` runs its queries.

use std::collections::BTreeSet;

use serde_json::Value;

fn text(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&text("contrib/grafana/bitbrat.json")).unwrap()
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

#[test]
fn dashboard_can_be_imported_into_any_grafana() {
    let dashboard = dashboard();
    assert_eq!(
        (&dashboard["uid"], &dashboard["id"]),
        (&"bitbrat".into(), &Value::Null)
    );
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    assert!(
        dashboard.get("__inputs").is_none(),
        "inputs are asked for only by hand"
    );
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let source = variables
        .iter()
        .find(|variable| variable["type"] == "datasource")
        .unwrap();
    assert_eq!(
        (&source["name"], &source["query"]),
        (&"datasource".into(), &"prometheus".into())
    );
    let through_variable = |part: &Value, what: &Value| {
        assert_eq!(part["datasource"]["uid"], "${datasource}", "{what}");
    };
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        through_variable(variable, &variable["name"]);
    }
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        through_variable(panel, &panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            through_variable(target, &panel["title"]);
        }
    }
}

#[test]
fn panels_have_their_own_place_unit_and_description() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let (x, y, width, height) = (side("x"), side("y"), side("w"), side("h"));
        assert!(width > 0 && height > 0 && x + width <= 24, "{title}");
        for column in x..x + width {
            for line in y..y + height {
                assert!(cells.insert((column, line)), "{title} covers another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(unit.is_some_and(|unit| !unit.is_empty()), "{title} has no unit");
        let description = panel["description"].as_str();
        assert!(
            description.is_some_and(|text| text.ends_with('.')),
            "{title} has no description"
        );
        assert!(
            !panel["targets"].as_array().unwrap().is_empty(),
            "{title} has no query"
        );
    }
}

/// The metrics that a text names: of histograms the family.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter));
    let metrics = words.filter(|word| word.starts_with("bitbrat_") || word.starts_with("process_"));
    metrics
        .map(|name| name.trim_end_matches("_bucket").to_owned())
        .collect()
}

#[test]
fn dashboard_and_rules_use_metrics_that_are_documented() {
    let documented = metrics_in(&text("docs/metrics.md"));
    for path in ["contrib/grafana/bitbrat.json", "contrib/prometheus/rules.yml"] {
        let used = metrics_in(&text(path));
        let unknown: Vec<_> = used.difference(&documented).collect();
        assert!(!used.is_empty() && unknown.is_empty(), "{path}: {unknown:?}");
    }
}

#[test]
fn each_alert_waits_and_is_tested_quiet_and_firing() {
    let rules: serde_norway::Value = serde_norway::from_str(&text("contrib/prometheus/rules.yml")).unwrap();
    let tests: serde_norway::Value =
        serde_norway::from_str(&text("contrib/prometheus/rules.test.yml")).unwrap();
    let tested = tests["tests"].as_sequence().unwrap().iter();
    let tested: Vec<_> = tested
        .flat_map(|test| test["alert_rule_test"].as_sequence().unwrap())
        .collect();
    for rule in rules["groups"][0]["rules"].as_sequence().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            rule["for"].is_string() && rule["keep_firing_for"].is_string(),
            "{name}"
        );
        let own = tested.iter().filter(|test| test["alertname"] == rule["alert"]);
        let fires = own.map(|test| !test["exp_alerts"].as_sequence().unwrap().is_empty());
        let mut order: Vec<bool> = fires.collect();
        order.dedup();
        assert_eq!(order, [false, true, false], "{name}");
    }
}
