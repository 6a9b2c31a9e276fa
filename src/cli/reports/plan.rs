//! Which channels get subscriptions and which are polled: `watch --plan`, and the same of one source in `sources describe`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Cell, Column, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::core::time::Timestamp;
use crate::platforms::twitch::eventsub::planner::{Channel, Plan, PushTransport};
use crate::view::listening::Listening;

/// The plan for every Twitch channel.
#[derive(Debug, Clone)]
pub struct PlanReport {
    pub as_of: Timestamp,
    /// The channels, in the order of the configuration.
    pub channels: Vec<Channel>,
    pub plan: Plan,
}

/// The plan for one source, as JSON shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanItem {
    /// The source.
    pub key: String,
    /// Its priority: higher ones are listened to first where points are short.
    pub priority: i64,
    #[serde(flatten)]
    listening: Listening,
    /// What the whole plan takes of the bot's allowance.
    pub allowance: Allowance,
}

/// What a plan takes of the bot's allowance with Twitch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allowance {
    /// Points used.
    pub cost: u32,
    /// Points that there are.
    pub cost_limit: u32,
    /// Sockets used by the bot.
    pub sockets: usize,
    /// Sockets left free for reconnecting.
    pub spare_sockets: usize,
    /// Sockets of broadcasters, each with its own token and allowance.
    pub broadcaster_sockets: usize,
}

impl PlanReport {
    fn allowance(&self) -> Allowance {
        let (bot, theirs): (Vec<_>, Vec<_>) = self
            .plan
            .connections
            .iter()
            .filter(|line| line.identity.as_str() != crate::platforms::twitch::APP)
            .partition(|line| line.identity.as_str() == crate::platforms::twitch::BOT);
        Allowance {
            cost: self.plan.cost,
            cost_limit: self.plan.cost_limit,
            sockets: bot.len(),
            spare_sockets: self.plan.spare_sockets,
            broadcaster_sockets: theirs.len(),
        }
    }
}

impl Report for PlanReport {
    type Item = PlanItem;
    const KIND: &'static str = "ListeningPlan";
    const CSV: &'static [&'static str] = &["key", "priority", "way", "cost", "reason"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<PlanItem> {
        let allowance = self.allowance();
        let items = self.channels.iter().filter_map(|channel| {
            Some(PlanItem {
                key: channel.source.to_string(),
                priority: channel.priority,
                listening: Listening::of(&self.plan, &channel.source)?,
                allowance,
            })
        });
        items.collect()
    }

    fn names(&self) -> Vec<String> {
        self.channels
            .iter()
            .map(|channel| channel.source.to_string())
            .collect()
    }

    fn view(&self) -> View {
        let rows: Vec<_> = self
            .items()
            .iter()
            .map(|item| {
                let socket = item.listening.subscriptions.first();
                vec![
                    Cell::new(&item.key),
                    Cell::new(item.priority.to_string()),
                    item.listening.cell(),
                    Cell::new(item.listening.cost.to_string()),
                    Cell::maybe(socket.map(|planned| format!("{} {}", planned.identity, planned.socket))),
                    Cell::new(item.listening.words()).tone(Tone::Dim),
                ]
            })
            .collect();
        if rows.is_empty() {
            return View::default();
        }
        View::wrapped(
            vec![
                Column::kept("SOURCE"),
                Column::ranked("PRIORITY", 4).right(),
                Column::kept("STREAM"),
                Column::ranked("COST", 2).right(),
                Column::ranked("SOCKET", 5).wide(),
                Column::ranked("WHAT OR WHY", 1).elastic(20),
            ],
            rows,
        )
    }

    fn notes(&self) -> Vec<Note> {
        if self.channels.is_empty() {
            let what = "no Twitch channel is configured; only Twitch limits what is listened to";
            return vec![Note::hint(Tone::Warn, what, None)];
        }
        let allowance = self.allowance();
        let summary = format!(
            "{} pushed, {} polled; the bot uses {} of {} points and {}, {} kept free to reconnect",
            self.channels.len() - self.plan.polled.len().min(self.channels.len()),
            self.plan.polled.len(),
            allowance.cost,
            allowance.cost_limit,
            humane::count(allowance.sockets as u64, "socket"),
            allowance.spare_sockets,
        );
        let mut notes = vec![Note::Summary(vec![Cell::new(summary)])];
        if !self.plan.transport_reason.is_empty() {
            let over = match self.plan.transport {
                PushTransport::Websocket => "websockets",
                PushTransport::Conduit => "a conduit",
            };
            let transport = format!("pushed over {over}: {}", self.plan.transport_reason);
            notes.push(Note::Summary(vec![Cell::new(transport)]));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::PlatformName;
    use crate::core::source::SourceKey;
    use crate::platforms::twitch::eventsub::planner::{Account, PlannerInput, plan};
    use crate::view::listening::Way;

    #[test]
    fn plan_lists_cost_or_polling_reason_of_each_channel() {
        let channels: Vec<_> = (1..=6)
            .map(|id: i64| Channel {
                source: SourceKey::new(PlatformName::Twitch, &id.to_string()).unwrap(),
                priority: -id,
                has_consented: false,
            })
            .collect();
        let bot = Account {
            identity: crate::platforms::twitch::bot(),
            user_id: "900100".to_owned(),
            scopes: std::collections::BTreeSet::new(),
        };
        let known = PlannerInput {
            bot: Some(bot),
            ..PlannerInput::default()
        };
        let report = PlanReport {
            as_of: Timestamp::EPOCH,
            plan: plan(&channels, &known),
            channels,
        };
        let items = report.items();
        let ways: Vec<_> = items
            .iter()
            .map(|item| (item.listening.way, item.listening.cost))
            .collect();
        let pushed = (Way::Pushed, 2);
        assert_eq!(ways, [pushed, pushed, pushed, pushed, pushed, (Way::Polled, 0)]);
        assert!(items[5].listening.words().contains("10 points"));
        let expected = Allowance {
            cost: 10,
            cost_limit: 10,
            sockets: 1,
            spare_sockets: 1,
            broadcaster_sockets: 0,
        };
        assert_eq!(items[0].allowance, expected);
        let stranger = SourceKey::new(PlatformName::Kick, "1").unwrap();
        assert_eq!(Listening::of(&report.plan, &stranger), None);
    }
}
