//! How changes of a Twitch channel's stream reach `watch`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::source::SourceKey;
use crate::platforms::twitch::eventsub::planner::Plan;
use crate::view::cell::{Cell, Glyph, Tone};
use crate::view::humane;

/// How changes of a source's stream reach us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listening {
    /// How.
    pub way: Way,
    /// Why it is only polled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Points of Twitch's that its subscriptions cost.
    pub cost: u32,
    /// What is subscribed to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<PlannedItem>,
}

/// How changes of a stream reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Twitch pushes them; polls confirm.
    Pushed,
    /// Polls alone.
    Polled,
}

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedItem {
    /// Twitch's name of the type.
    pub event_type: &'static str,
    /// Whose token it is made with.
    pub identity: String,
    /// Which of that account's sockets it is on, from 0.
    pub socket: usize,
    /// The points that it is expected to cost.
    pub cost: u32,
}

impl Listening {
    /// Returns the part of `plan` for a source; `None` when the plan does not contain it.
    pub fn of(plan: &Plan, source: &SourceKey) -> Option<Self> {
        let planned = plan.of(source).map(|(line, planned)| PlannedItem {
            event_type: planned.subscription.kind.name(),
            identity: line.identity.to_string(),
            socket: line.socket,
            cost: planned.cost,
        });
        let subscriptions: Vec<_> = planned.collect();
        let polled = plan.polled.iter().find(|polled| polled.source == *source);
        let way = if plan.is_pushed(source) {
            Way::Pushed
        } else {
            polled.map(|_| Way::Polled)?
        };
        Some(Self {
            way,
            reason: polled.map(|polled| polled.reason.to_string()),
            cost: subscriptions.iter().map(|planned| planned.cost).sum(),
            subscriptions,
        })
    }

    pub fn cell(&self) -> Cell {
        match self.way {
            Way::Pushed => Cell::new("pushed").glyph(Glyph::Good).tone(Tone::Good),
            Way::Polled => Cell::new("polled").glyph(Glyph::Off),
        }
    }

    pub fn sentence(&self) -> String {
        match self.way {
            Way::Pushed => format!(
                "by plan, changes of the stream are pushed over EventSub ({}), at a cost of {}",
                self.words(),
                humane::count(self.cost.into(), "point")
            ),
            Way::Polled => format!("by plan, the stream is polled and not pushed: {}", self.words()),
        }
    }

    /// Returns what is subscribed to, or why nothing is, in brief.
    pub fn words(&self) -> String {
        let names: Vec<_> = self
            .subscriptions
            .iter()
            .map(|planned| planned.event_type)
            .collect();
        match (&self.reason, names.is_empty()) {
            (Some(reason), true) => reason.clone(),
            (Some(reason), false) => format!("{reason}; {}", names.join(", ")),
            (None, _) => names.join(", "),
        }
    }
}
