//! Read-only overview of the persister role, for metrics and debug pages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::Persister;
use super::chat::{self, Tally};
use super::consumer;
use crate::clock::Clock;
use crate::core::counters::Counters;
use crate::core::event::read::Ignored;
use crate::core::source::SourceKey;

/// State of the persister role.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Messages whose knowledge is stored.
    pub stored: u64,
    /// Those among `stored` that other programs sent.
    pub foreign: u64,
    /// Messages to be redelivered because the store failed.
    pub postponed: u64,
    /// Messages that can never be processed.
    pub dead: u64,
    /// Messages delivered more than once.
    pub repeated: u64,
    /// Number of ignored messages by reason.
    pub ignored: BTreeMap<Ignored, u64>,
    /// Documents and history entries written.
    pub writes: u64,
    /// Writes that failed because of a newer version by another writer.
    pub conflicts: u64,
    /// Chat messages counted since startup.
    pub chat_counted: u64,
    /// Chat messages whose id had been counted before.
    pub chat_repeated: u64,
    /// Chat messages of an unknown channel.
    pub chat_unplaced: u64,
    /// Chat totals and rates by source.
    pub chat: BTreeMap<SourceKey, Chat>,
}

/// Chat totals and rate of one source.
#[derive(Debug, Clone, Copy)]
pub struct Chat {
    /// Totals of this process, including earlier runs.
    pub totals: Counters,
    /// Messages in the last full minute, in both directions.
    pub per_minute: u64,
}

/// Function that creates a current overview.
pub type View = Arc<dyn Fn() -> Overview + Send + Sync>;

/// Data sources of an overview.
pub struct ViewOf {
    /// Counters of the consumer.
    pub counts: Arc<consumer::Counts>,
    /// Provides the write statistics.
    pub persister: Arc<Persister>,
    /// Counters of the chat counter.
    pub chat: Arc<chat::Counts>,
    /// Provides the chat totals.
    pub tally: Arc<Tally>,
    /// Clock for rates.
    pub clock: Arc<dyn Clock>,
}

impl ViewOf {
    pub fn overview(&self) -> Overview {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (stats, now) = (self.persister.stats(), self.clock.now());
        let of_source = |(source, totals): (SourceKey, Counters)| {
            let per_minute = self.tally.per_minute(&source, now);
            (source, Chat { totals, per_minute })
        };
        Overview {
            stored: count(&self.counts.stored),
            foreign: count(&self.counts.foreign),
            postponed: count(&self.counts.postponed),
            dead: count(&self.counts.dead),
            repeated: count(&self.counts.repeated),
            ignored: self.counts.ignored(),
            writes: stats.writes,
            conflicts: stats.conflicts,
            chat_counted: count(&self.chat.counted),
            chat_repeated: count(&self.chat.repeated),
            chat_unplaced: count(&self.chat.unplaced),
            chat: self.tally.totals().into_iter().map(of_source).collect(),
        }
    }
}

impl Overview {
    /// Returns the page `/_debug/bus`.
    pub fn to_json(&self) -> Value {
        let ignored: BTreeMap<_, _> = self
            .ignored
            .iter()
            .map(|(why, count)| (why.as_str(), count))
            .collect();
        let chat: BTreeMap<_, _> = self
            .chat
            .iter()
            .map(|(source, chat)| {
                let Chat { totals, per_minute } = chat;
                let figures = json!({
                    "messagesIn": totals.messages_in, "messagesOut": totals.messages_out, "perMinute": per_minute,
                });
                (source.to_string(), figures)
            })
            .collect();
        json!({
            "enabled": true, "stored": self.stored, "foreign": self.foreign, "postponed": self.postponed, "dead": self.dead,
            "repeated": self.repeated, "ignored": ignored, "writes": self.writes, "conflicts": self.conflicts,
            "chat": {
                "counted": self.chat_counted, "repeated": self.chat_repeated, "unplaced": self.chat_unplaced,
                "sources": chat,
            },
        })
    }
}
