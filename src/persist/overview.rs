//! How the persister role is doing, for metrics and debug pages: read, never touched.

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

/// How the persister role is doing.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Messages whose knowledge is stored.
    pub stored: u64,
    /// Those of them that other programs sent.
    pub foreign: u64,
    /// Messages to be delivered again because the store was in trouble.
    pub postponed: u64,
    /// Messages that can never be used.
    pub dead: u64,
    /// Messages delivered more than once.
    pub repeated: u64,
    /// Messages that meant nothing, by why.
    pub ignored: BTreeMap<Ignored, u64>,
    /// Documents and history entries written.
    pub writes: u64,
    /// Writes that someone else had overtaken.
    pub conflicts: u64,
    /// Chat messages counted.
    pub chat_counted: u64,
    /// Chat messages whose id had been counted before.
    pub chat_repeated: u64,
    /// Chat messages of a channel that nobody knows.
    pub chat_unplaced: u64,
    /// Chat by source.
    pub chat: BTreeMap<SourceKey, Chat>,
}

/// The chat of one source.
#[derive(Debug, Clone, Copy)]
pub struct Chat {
    /// All that this process has counted, also before it was last started.
    pub totals: Counters,
    /// Messages in the last full minute, in and out.
    pub per_minute: u64,
}

/// What is told about the persister role; built anew for each question.
pub type View = Arc<dyn Fn() -> Overview + Send + Sync>;

/// Where an overview is taken from.
pub struct ViewOf {
    /// What the consumer did.
    pub counts: Arc<consumer::Counts>,
    /// What was written.
    pub persister: Arc<Persister>,
    /// What the counter of chat did.
    pub chat: Arc<chat::Counts>,
    /// What it counted.
    pub tally: Arc<Tally>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl ViewOf {
    /// Returns how things are.
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
