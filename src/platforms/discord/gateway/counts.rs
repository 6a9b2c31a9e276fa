//! Counts chat messages, errors and reconnects per guild, each message once. Pure.
//!
//! Counting needs no content and so no privileged intent. Totals only grow; a process starts from those it had stored.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::super::GuildOptions;
use super::super::wire::{Id, lenient};
use crate::core::counters::Counters;
use crate::core::time::Timestamp;
use crate::platforms::kit::dedup::RecentIds;
use crate::platforms::kit::lenient::{count, flag};
use crate::platforms::kit::totals::Totals;

/// Message ids stored for deduplication. A Resume replays at most what was missed since the last event.
const REMEMBERED: usize = 20_000;
/// Kinds of messages that are chat: usual ones and replies. Joins, pins, boosts, notices and the like are not.
const CHAT: [u64; 2] = [0, 19];

/// Running totals of all followed guilds.
#[derive(Debug)]
pub struct Counts {
    pub totals: Totals<u64>,
    received: RecentIds,
}

#[derive(Deserialize)]
struct Message {
    id: Id,
    channel_id: Id,
    #[serde(default)]
    guild_id: Option<Id>,
    author: Author,
    /// A type that cannot be parsed does not count as a usual message.
    #[serde(rename = "type", default = "usual", deserialize_with = "count")]
    kind: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    webhook_id: Option<Id>,
}

#[derive(Deserialize)]
struct Author {
    id: Id,
    #[serde(default, deserialize_with = "flag")]
    bot: Option<bool>,
}

/// Default type of a message without one.
#[expect(clippy::unnecessary_wraps, reason = "it stands for a field")]
fn usual() -> Option<u64> {
    Some(0)
}

impl Counts {
    /// Continues counting from `totals`. Messages of other bots and of webhooks do not count.
    pub fn new(totals: BTreeMap<u64, Counters>) -> Self {
        Self {
            totals: Totals::new(totals),
            received: RecentIds::new(Duration::MAX, REMEMBERED),
        }
    }

    /// Continues counting from `totals`; returns those from before.
    pub fn replace_totals(&mut self, totals: BTreeMap<u64, Counters>) -> BTreeMap<u64, Counters> {
        std::mem::replace(&mut self.totals, Totals::new(totals))
            .all()
            .clone()
    }

    /// Counts a `MESSAGE_CREATE`. `options` returns the configuration of a guild, `parent` the channel of a thread.
    pub fn message<'a>(
        &mut self,
        data: &str,
        me: Option<u64>,
        options: impl Fn(u64) -> Option<&'a GuildOptions>,
        parent: impl Fn(u64, u64) -> Option<u64>,
    ) {
        let Ok(message) = serde_json::from_str::<Message>(data) else {
            return;
        };
        // Direct messages have no guild.
        let Some(guild) = message.guild_id.map(|id| id.0) else {
            return;
        };
        let Some(options) = options(guild) else {
            return;
        };
        let channel = message.channel_id.0;
        let here = options.channels.is_empty()
            || options.channels.contains(&channel)
            || parent(guild, channel).is_some_and(|parent| options.channels.contains(&parent));
        if !here || !message.kind.is_some_and(|kind| CHAT.contains(&kind)) {
            return;
        }
        let own = me == Some(message.author.id.0);
        let automatic = message.author.bot == Some(true) || message.webhook_id.is_some();
        if (automatic && !own) || !self.is_new(message.id.0) {
            return;
        }
        self.totals.count(&guild, |totals| {
            if own {
                totals.messages_out += 1;
            } else {
                totals.messages_in += 1;
            }
        });
    }

    /// Adds one reconnect for these guilds.
    pub fn reconnected(&mut self, guilds: impl Iterator<Item = u64>) {
        for guild in guilds {
            self.totals.count(&guild, |totals| totals.reconnects += 1);
        }
    }

    /// Adds one error for these guilds.
    pub fn failed(&mut self, guilds: impl Iterator<Item = u64>) {
        for guild in guilds {
            self.totals.count(&guild, |totals| totals.errors += 1);
        }
    }

    fn is_new(&mut self, id: u64) -> bool {
        // Only their number limits the ids: what a Resume replays may be of any age.
        self.received.is_new_number(id, Timestamp::EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn message(id: u64, more: &Value) -> String {
        let mut message = json!({"id": id.to_string(), "channel_id": "9200", "guild_id": "9001", "type": 0,
            "author": {"id": "77"}, "content": ""});
        if let (Value::Object(message), Value::Object(more)) = (&mut message, more.clone()) {
            message.extend(more);
        }
        message.to_string()
    }

    fn counted(channels: &[u64], messages: &[Value]) -> (u64, u64) {
        let options = GuildOptions {
            channels: channels.to_vec(),
        };
        let mut counts = Counts::new(BTreeMap::new());
        for (id, more) in (1..).zip(messages) {
            counts.message(
                &message(id, more),
                Some(4_001),
                |guild| (guild == 9_001).then_some(&options),
                |_, thread| (thread == 9_300).then_some(9_200),
            );
        }
        let changes = counts.totals.take_changes(Timestamp::EPOCH);
        let totals = changes.first().map(|(_, totals)| *totals).unwrap_or_default();
        (totals.messages_in, totals.messages_out)
    }

    #[test]
    fn people_count_in_the_bot_itself_out_and_machines_not_at_all() {
        for (what, message, expected) in [
            ("a person", json!({}), (1, 0)),
            ("a reply", json!({"type": 19}), (1, 0)),
            ("itself", json!({"author": {"id": "4001", "bot": true}}), (0, 1)),
            ("another bot", json!({"author": {"id": "5", "bot": true}}), (0, 0)),
            (
                "a webhook",
                json!({"webhook_id": "6", "author": {"id": "6"}}),
                (0, 0),
            ),
            ("somebody joined", json!({"type": 7}), (0, 0)),
            ("a slash command", json!({"type": 20}), (0, 0)),
            ("a kind of tomorrow", json!({"type": 99}), (0, 0)),
            ("a direct message", json!({"guild_id": null}), (0, 0)),
            ("another guild", json!({"guild_id": "9002"}), (0, 0)),
        ] {
            assert_eq!(counted(&[], &[message]), expected, "{what}");
        }
    }

    #[test]
    fn only_configured_channels_and_their_threads_count() {
        let messages = [
            json!({}),
            json!({"channel_id": "9201"}),
            json!({"channel_id": "9300"}),
            json!({"channel_id": "9301"}),
        ];
        assert_eq!(counted(&[9_200], &messages), (2, 0));
        assert_eq!(counted(&[], &messages), (4, 0));
    }

    #[test]
    fn a_message_counts_once_however_often_it_comes() {
        let options = GuildOptions::default();
        let mut counts = Counts::new(BTreeMap::new());
        for id in [1, 2, 1, 2, 3, 3] {
            counts.message(&message(id, &json!({})), None, |_| Some(&options), |_, _| None);
        }
        assert_eq!(counts.totals.take_changes(Timestamp::EPOCH)[0].1.messages_in, 3);
    }

    #[test]
    fn counters_continue_from_stored_values_and_report_changes() {
        let stored = Counters {
            messages_in: 40,
            ..Counters::default()
        };
        let options = GuildOptions::default();
        let mut counts = Counts::new(BTreeMap::from([(9_001, stored), (9_002, stored)]));
        assert!(counts.totals.take_changes(Timestamp::EPOCH).is_empty());
        counts.message(&message(1, &json!({})), None, |_| Some(&options), |_, _| None);
        counts.reconnected([9_001].into_iter());
        let changes = counts.totals.take_changes(Timestamp::EPOCH);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].1.messages_in, changes[0].1.reconnects), (41, 1));
        assert!(counts.totals.take_changes(Timestamp::EPOCH).is_empty());
    }

    #[test]
    fn memory_of_messages_is_bounded() {
        let mut counts = Counts::new(BTreeMap::new());
        for id in 0..u64::try_from(REMEMBERED).unwrap() + 10 {
            assert!(counts.is_new(id));
        }
        assert_eq!(counts.received.memory().len(), REMEMBERED);
    }
}
