//! Events of the simulated platforms: the available ones, and the result of one that was triggered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::output::view::{Block, Cell, Column, Glyph, Tone, View};
use crate::cli::output::{Listed, Note};

/// One event.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EventItem {
    /// The platform.
    pub platform: String,
    /// The platform's own name for the event.
    pub event: String,
    /// Fields that can be given with `--field`.
    pub fields: Vec<String>,
    /// What happens.
    pub about: String,
}

impl Listed for EventItem {
    const KIND: &'static str = "SimEventList";
    const CSV: &'static [&'static str] = &["platform", "event", "about"];

    fn name(&self) -> String {
        self.event.clone()
    }

    fn view(items: &[Self]) -> View {
        let rows = items.iter().map(|item| {
            vec![
                Cell::new(&item.platform).tone(Tone::Strong),
                Cell::new(&item.event),
                Cell::new(&item.about),
                Cell::new(item.fields.join(", ")).tone(Tone::Dim),
            ]
        });
        View::table(
            vec![
                Column::kept("PLATFORM"),
                Column::kept("EVENT"),
                Column::kept("WHAT HAPPENS").elastic(24),
                Column::ranked("FIELDS", 1).elastic(20),
            ],
            rows,
        )
    }
}

/// One event that was caused.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TriggerItem {
    /// The platform.
    pub platform: String,
    /// The platform's own name for the event.
    pub event: String,
    /// The source, as `platform:id`.
    pub source: String,
    /// The source's name at the platform.
    pub name: String,
    /// To how many subscriptions or sessions the event was sent; without any, polls alone can show what happened.
    pub receivers: u64,
    /// What else the simulator answered, such as the id of a new stream.
    pub answer: Value,
}

impl Listed for TriggerItem {
    const KIND: &'static str = "SimTrigger";
    const CSV: &'static [&'static str] = &["platform", "event", "source", "name", "receivers"];

    fn name(&self) -> String {
        self.source.clone()
    }

    fn view(items: &[Self]) -> View {
        let line = |item: &Self| {
            let receivers = match item.receivers {
                1 => "sent to 1 receiver".to_owned(),
                count => format!("sent to {count} receivers"),
            };
            Block::Line(vec![
                Cell::new(&item.event).glyph(Glyph::Good).tone(Tone::Good),
                Cell::new(format!("at {} ({}), {receivers}", item.source, item.name)),
            ])
        };
        View {
            blocks: items.iter().map(line).collect(),
        }
    }

    fn notes(items: &[Self]) -> Vec<Note> {
        if items.iter().any(|item| item.receivers > 0) {
            return Vec::new();
        }
        let what = "no client has subscribed to this event: what happened shows at the next poll only";
        vec![Note::hint(Tone::Warn, what, None)]
    }
}
