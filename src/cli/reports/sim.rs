//! The addresses of the simulated platforms, and a client's settings for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Listed;
use crate::cli::output::view::{Block, Cell, Column, Tone, View};
use crate::core::source::PlatformName;

/// One simulated platform.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SimItem {
    /// The platform.
    pub platform: PlatformName,
    /// Its base address.
    pub address: String,
    /// Where its controls are.
    pub controls: String,
    /// The sources in its world, as `platform:id`.
    pub sources: Vec<String>,
    /// A client's settings, as environment variables. The secrets are of the simulated world and open to all.
    pub environment: BTreeMap<String, String>,
    /// The logins of its world. Their tokens open nothing but the simulation.
    pub logins: Vec<SimLogin>,
}

/// A login of a simulated world.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SimLogin {
    /// The account, as `bitbrat auth login` names it.
    pub account: String,
    /// The user's id.
    pub user_id: String,
    /// The access token, or a bot's only token.
    pub access_token: String,
    /// The refresh token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The scopes granted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// Returns a client's settings, as lines of a `.env` file.
pub fn environment(items: &[SimItem]) -> String {
    let mut text = String::new();
    for (name, value) in items.iter().flat_map(|item| &item.environment) {
        let _ = writeln!(text, "{name}={value}");
    }
    let sources = items.iter().flat_map(|item| &item.sources);
    let sources: Vec<&str> = sources.map(String::as_str).collect();
    if !sources.is_empty() {
        let _ = writeln!(text, "BITBRAT_SOURCES=\"{}\"", sources.join(" "));
    }
    text
}

impl Listed for SimItem {
    const KIND: &'static str = "SimList";
    const CSV: &'static [&'static str] = &["platform", "address", "controls"];

    fn name(&self) -> String {
        self.platform.to_string()
    }

    fn view(items: &[Self]) -> View {
        let rows = items.iter().map(|item| {
            vec![
                Cell::new(item.platform.as_str()).tone(Tone::Strong),
                Cell::new(&item.address),
                Cell::new(&item.controls).tone(Tone::Dim),
            ]
        });
        let mut blocks = View::table(
            vec![
                Column::kept("PLATFORM"),
                Column::kept("ADDRESS"),
                Column::ranked("CONTROLS", 1),
            ],
            rows,
        )
        .blocks;
        blocks.push(Block::Gap);
        let logins = items.iter().flat_map(|item| &item.logins);
        let rows: Vec<_> = logins
            .map(|login| {
                vec![
                    Cell::new(&login.account).tone(Tone::Strong),
                    Cell::new(&login.access_token),
                    Cell::maybe(login.refresh_token.as_deref()).tone(Tone::Dim),
                ]
            })
            .collect();
        if !rows.is_empty() {
            blocks.extend(
                View::table(
                    vec![
                        Column::kept("ACCOUNT"),
                        Column::kept("TOKEN"),
                        Column::ranked("REFRESH TOKEN", 1),
                    ],
                    rows,
                )
                .blocks,
            );
            blocks.push(Block::Gap);
        }
        blocks.extend(
            environment(items)
                .lines()
                .map(|line| Block::Line(vec![Cell::new(line)])),
        );
        View { blocks }
    }
}
