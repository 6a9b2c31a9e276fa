//! The enum of a platform's commands is what its controls, its index and its documentation contain.

use std::collections::BTreeMap;

use serde_json::json;

use super::command;
use super::directory::rig;
use crate::sim::PlatformSim;
use crate::sim::kit::Simulated;
use crate::sim::kit::commands::{Fields, members, names};

const DOCUMENTATION: &str = include_str!("../../../docs/simulator.md");

/// Returns the names in the first column of the table of a platform's commands, each with its row.
fn documented<W: Simulated>() -> BTreeMap<&'static str, &'static str> {
    let title = format!("### Commands: `POST /__sim/{}/…`", W::NAME);
    let (_, section) = DOCUMENTATION.split_once(&title).unwrap();
    let (section, _) = section.split_once("\n#").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let named = rows.flat_map(|row| {
        let first = row.split('|').nth(1).unwrap();
        first.split('`').skip(1).step_by(2).map(move |name| (name, row))
    });
    named.collect()
}

async fn check<W: Simulated>(sim: &PlatformSim<W>, source: &str) {
    let commands = names::<W::Command>();
    let (status, body) = command(sim, "nonsense", &json!({})).await;
    let text = body["error"].as_str().unwrap();
    assert_eq!(status, 400, "{text}");
    assert!(commands.iter().all(|name| text.contains(name)), "{text}");

    let mut documented = documented::<W>();
    for name in &commands {
        let members = members::<W::Command>(name);
        let row = documented.remove(name).unwrap_or_default();
        for member in &members {
            assert!(
                row.contains(&format!("`{member}`")),
                "{}: {name}: {member} is not documented",
                W::NAME
            );
        }
        let (status, body) = command(sim, name, &json!({"nonsense": true})).await;
        let text = body["error"].as_str().unwrap();
        assert_eq!(status, 400, "{text}");
        assert!(members.iter().all(|name| text.contains(name)), "{text}");
    }
    assert!(documented.is_empty(), "not commands: {documented:?}");

    for event in W::EVENTS {
        let command = match W::cause(sim, event.name, source, &mut Fields::new()) {
            Ok(command) => command,
            // A stream that does not run cannot end.
            Err((409, _)) => continue,
            Err((_, error)) => panic!("{}: {error}", event.name),
        };
        let members = members::<W::Command>(command);
        // Whether a guild is unavailable selects the command.
        for field in event.fields().iter().filter(|name| **name != "unavailable") {
            assert!(
                members.contains(field),
                "{}: {command} has no member {field}",
                event.name
            );
        }
    }
}

#[tokio::test]
async fn commands_are_those_of_the_enum() {
    let rig = rig().await;
    rig.twitch()
        .knobs(|knobs| knobs.consent = Some(super::twitch::BOT.to_owned()));
    check(rig.twitch(), super::twitch::RAT).await;
    check(&rig.sim.discord, "9001").await;
    check(&rig.sim.kick, "7").await;
}
