//! Events of the simulated platforms: the available ones, and the result of one that was triggered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::output::view::{Block, Cell, Column, Glyph, Grid, Tone, View};
use crate::cli::output::{Note, Report};
use crate::core::time::Timestamp;

/// The events that a running simulator can cause.
#[derive(Debug, Clone)]
pub struct EventsReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The events.
    pub items: Vec<EventItem>,
}

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

impl Report for EventsReport {
    type Item = EventItem;
    const KIND: &'static str = "SimEventList";
    const CSV: &'static [&'static str] = &["platform", "event", "about"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<EventItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.event.clone()).collect()
    }

    fn view(&self) -> View {
        let rows = self.items.iter().map(|item| {
            vec![
                Cell::new(&item.platform).tone(Tone::Strong),
                Cell::new(&item.event),
                Cell::new(&item.about),
                Cell::new(item.fields.join(", ")).tone(Tone::Dim),
            ]
        });
        View {
            blocks: vec![Block::Table(Grid {
                columns: vec![
                    Column::kept("PLATFORM"),
                    Column::kept("EVENT"),
                    Column::kept("WHAT HAPPENS").elastic(24),
                    Column::ranked("FIELDS", 1).elastic(20),
                ],
                rows: rows.collect(),
                headed: true,
            })],
        }
    }
}

/// The result of an event that was triggered.
#[derive(Debug, Clone)]
pub struct TriggerReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The event.
    pub item: TriggerItem,
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

impl Report for TriggerReport {
    type Item = TriggerItem;
    const KIND: &'static str = "SimTrigger";
    const CSV: &'static [&'static str] = &["platform", "event", "source", "name", "receivers"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<TriggerItem> {
        vec![self.item.clone()]
    }

    fn names(&self) -> Vec<String> {
        vec![self.item.source.clone()]
    }

    fn view(&self) -> View {
        let item = &self.item;
        let receivers = match item.receivers {
            1 => "sent to 1 receiver".to_owned(),
            count => format!("sent to {count} receivers"),
        };
        let line = vec![
            Cell::new(&item.event).glyph(Glyph::Good).tone(Tone::Good),
            Cell::new(format!("at {} ({}), {receivers}", item.source, item.name)),
        ];
        View {
            blocks: vec![Block::Line(line)],
        }
    }

    fn notes(&self) -> Vec<Note> {
        if self.item.receivers > 0 {
            return Vec::new();
        }
        let what = "no client has subscribed to this event: what happened shows at the next poll only";
        vec![Note::hint(Tone::Warn, what, None)]
    }
}
