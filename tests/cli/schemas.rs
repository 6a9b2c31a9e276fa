//! JSON output is stable: the schemas are shipped, and the output is valid by them.

use std::path::Path;

use bitbrat::cli::commands::schema;
use serde_json::Value;

use crate::support::Home;

fn validator(name: &str) -> jsonschema::Validator {
    let described = schema::ALL
        .iter()
        .find(|described| described.name == name)
        .unwrap();
    let schema: Value = serde_json::from_str(&schema::text(described)).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// Validates output against its schema.
#[track_caller]
pub fn is_valid(name: &str, json: &Value) {
    let validator = validator(name);
    let errors: Vec<_> = validator
        .iter_errors(json)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{json:#}");
    assert_eq!(json["apiVersion"], "bitbrat/v1");
}

/// To update them after an intended change: `for s in $(bitbrat schema -o name); do bitbrat schema $s > schemas/$s.json; done`
#[test]
fn the_shipped_schemas_are_those_that_are_printed() {
    let home = Home::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let mut shipped: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // The API's document and the list of tools are compared with their tables by tests beside those.
    shipped.retain(|name| !["mcp-tools.json", "openapi.json"].contains(&name.as_str()));
    shipped.sort();
    let mut expected: Vec<String> = schema::ALL
        .iter()
        .map(|described| format!("{}.json", described.name))
        .collect();
    expected.sort();
    assert_eq!(shipped, expected);
    for described in schema::ALL {
        let golden = std::fs::read_to_string(folder.join(format!("{}.json", described.name))).unwrap();
        let printed = home.run(&["schema", described.name]).exits(0).stdout;
        assert!(
            golden == printed,
            "schemas/{}.json differs from `bitbrat schema {0}`",
            described.name
        );
    }
}

#[test]
fn what_the_commands_print_is_valid_by_their_schemas() {
    let home = Home::new();
    for (name, words) in [
        ("sources", vec!["--demo", "sources", "status"]),
        ("sources", vec!["--demo", "sources", "list"]),
        ("sources", vec!["sources", "status"]),
        ("sources", vec!["--demo", "status", "--live", "--limit", "1"]),
        ("source", vec!["--demo", "describe", "kick:*"]),
        ("sources", vec!["--demo", "status", "--at", "1h"]),
        ("history", vec!["--demo", "history", "kick:*"]),
        ("sessions", vec!["--demo", "history", "twitch:*", "--sessions"]),
        ("diff", vec!["--demo", "diff", "--since", "1h"]),
        ("answer", vec!["--demo", "is-live", "kick:*", "--at", "1h"]),
        ("answer", vec!["--demo", "is-live", "kick:*"]),
        ("source", vec!["--demo", "sources", "describe", "twitch:777005"]),
        ("source", vec!["--demo", "sources", "describe", "twitch:777009"]),
        ("history", vec!["--demo", "sources", "history", "twitch:777001"]),
        ("answer", vec!["--demo", "sources", "is-live", "twitch:777001"]),
        (
            "answer",
            vec!["--demo", "sources", "can", "twitch:777002", "moderate"],
        ),
        (
            "answer",
            vec!["--demo", "sources", "wait", "twitch:777001", "--for", "live"],
        ),
        ("prune", vec!["--demo", "sources", "prune", "--dry-run"]),
        ("plan", vec!["--demo", "watch", "--plan"]),
        (
            "plan",
            vec!["--demo", "--set", "twitch.eventsub=false", "watch", "--plan"],
        ),
        ("probe", vec!["--demo", "probe"]),
        ("auth", vec!["--demo", "auth", "status"]),
        ("invites", vec!["--demo", "auth", "invite", "twitch", "--device"]),
        ("invites", vec!["auth", "invite", "--list"]),
        ("alerts", vec!["alert", "list"]),
        ("doctor", vec!["--demo", "doctor"]),
        ("preflight", vec!["--demo", "preflight", "--until", "2h"]),
        ("config", vec!["config", "show"]),
        ("check", vec!["config", "check"]),
        ("init", vec!["config", "init", "written.toml"]),
        ("schemas", vec!["schema"]),
        ("auth", vec!["--demo", "auth", "logout", "twitch"]),
        ("prune", vec!["--demo", "sources", "prune", "--yes"]),
        ("events", vec!["--demo", "events", "tail", "--for", "100ms"]),
    ] {
        let run = home.run(&[words.clone(), vec!["-o", "json"]].concat());
        is_valid(name, &run.json());
    }
}

#[test]
fn migrate_and_sim_output_match_their_schemas() {
    use std::io::Read as _;
    let home = Home::new();
    home.run(&[
        "--demo",
        "--set",
        "store.url=sqlite:from.db",
        "probe",
        "twitch:777001",
    ])
    .exits(0);
    let migrated = home.run(&["store", "migrate", "sqlite:from.db", "sqlite:to.db", "-o", "json"]);
    is_valid("migrate", &migrated.exits(0).json());
    let mut child = home
        .command(&["sim", "--port", "0", "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut printed = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    let mut byte = [0];
    // The report ends with the first closing brace that begins a line; the simulator keeps running.
    while !printed.ends_with(b"\n}\n") && stdout.read(&mut byte).unwrap() == 1 {
        printed.push(byte[0]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let json: Value = serde_json::from_slice(&printed).unwrap();
    is_valid("sim", &json);
    assert_eq!(json["items"].as_array().unwrap().len(), 3);
}

#[test]
fn a_report_of_another_kind_is_not_valid() {
    let json = Home::new().run(&["config", "show", "-o", "json"]).exits(0).json();
    assert!(!validator("sources").is_valid(&json));
}
