//! The enum of a platform's commands is what its controls, its index and its documentation contain.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client;
use super::directory::rig;
use crate::sim::PlatformSim;
use crate::sim::kit::Simulated;
use crate::sim::kit::commands::{Fields, members, names};

const DOCUMENTATION: &str = include_str!("../../../docs/simulator.md");

async fn order<W: Simulated>(sim: &PlatformSim<W>, order: &str, fields: &Value) -> (u16, String) {
    let url = format!("{}/__sim/{}/{order}", sim.http(), W::NAME);
    let answer = client().post(url).json(fields).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.text().await.unwrap())
}

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
    let (status, text) = order(sim, "nonsense", &json!({})).await;
    assert_eq!(status, 400, "{text}");
    assert!(commands.iter().all(|name| text.contains(name)), "{text}");

    let mut documented = documented::<W>();
    for command in &commands {
        let members = members::<W::Command>(command);
        let row = documented.remove(command).unwrap_or_default();
        for member in &members {
            assert!(
                row.contains(&format!("`{member}`")),
                "{}: {command}: {member} is not documented",
                W::NAME
            );
        }
        let (status, text) = order(sim, command, &json!({"nonsense": true})).await;
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
        let fields = event.fields();
        for field in fields.iter().filter(|name| **name != "unavailable") {
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
