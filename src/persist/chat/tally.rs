//! Persistent chat totals: a message's id and the total that it changes are written in one transaction, so that a redelivered
//! message is not counted again, even after a crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::core::counters::Counters;
use crate::core::event::chat::Direction;
use crate::core::join::Join;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::persist::chat::Pace;

/// Number of stored ids. A bus redelivers a message within minutes, and this is hours of busy chat.
const IDS: i64 = 100_000;

/// Totals by source.
pub struct Tally(Mutex<State>);

struct State {
    file: Connection,
    totals: BTreeMap<SourceKey, Counters>,
    pace: Pace,
}

/// The tally's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the totals of chat cannot be kept")]
pub struct TallyError(#[from] rusqlite::Error);

impl Tally {
    /// Opens the tally at `path`, or creates it.
    pub fn open(path: &Path) -> Result<Self, TallyError> {
        Self::with(Connection::open(path)?)
    }

    fn with(file: Connection) -> Result<Self, TallyError> {
        file.busy_timeout(Duration::from_secs(5))?;
        file.pragma_update(None, "journal_mode", "WAL")?;
        file.pragma_update(None, "synchronous", "NORMAL")?;
        file.execute_batch(
            "CREATE TABLE IF NOT EXISTS totals (
                 source TEXT PRIMARY KEY, messages_in INTEGER NOT NULL, messages_out INTEGER NOT NULL, at INTEGER NOT NULL
             ) STRICT;
             CREATE TABLE IF NOT EXISTS counted (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE) STRICT;",
        )?;
        let totals = {
            let mut rows = file.prepare("SELECT source, messages_in, messages_out, at FROM totals")?;
            let read = rows.query_map([], |row| {
                let source: String = row.get(0)?;
                let figure = |column| {
                    row.get::<_, i64>(column)
                        .map(|value| u64::try_from(value).unwrap_or(0))
                };
                let totals = Counters {
                    messages_in: figure(1)?,
                    messages_out: figure(2)?,
                    at: Some(Timestamp::from_millis(row.get(3)?)),
                    ..Counters::default()
                };
                Ok((source, totals))
            })?;
            let read = read.collect::<Result<Vec<_>, _>>()?;
            read.into_iter()
                .filter_map(|(source, totals)| Some((source.parse().ok()?, totals)))
                .collect()
        };
        Ok(Self(Mutex::new(State {
            file,
            totals,
            pace: Pace::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Totals in memory change only after their transaction was committed.
        self.0.lock()
    }

    /// Merges totals that were stored elsewhere with our writer name; the greater ones are used.
    pub fn restore(&self, source: &SourceKey, totals: Counters) {
        let chat = Counters {
            messages_in: totals.messages_in,
            messages_out: totals.messages_out,
            at: totals.at,
            ..Counters::default()
        };
        self.state().totals.entry(source.clone()).or_default().join(chat);
    }

    /// Counts messages, each id and direction once. Returns how many were new.
    pub fn count(
        &self,
        incoming: &[(String, Direction, SourceKey)],
        now: Timestamp,
    ) -> Result<u64, TallyError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let change = state
            .file
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changed: BTreeMap<&SourceKey, Counters> = BTreeMap::new();
        let mut new = Vec::new();
        {
            let mut remember = change.prepare_cached("INSERT OR IGNORE INTO counted (id) VALUES (?1)")?;
            for (id, direction, source) in incoming {
                let side = match direction {
                    Direction::In => "in",
                    Direction::Out => "out",
                };
                if remember.execute([format!("{side} {id}")])? == 0 {
                    continue;
                }
                let totals = changed
                    .entry(source)
                    .or_insert_with(|| state.totals.get(source).copied().unwrap_or_default());
                match direction {
                    Direction::In => totals.messages_in += 1,
                    Direction::Out => totals.messages_out += 1,
                }
                totals.at = totals.at.max(Some(now));
                new.push(source);
            }
            let mut keep = change.prepare_cached("INSERT OR REPLACE INTO totals VALUES (?1, ?2, ?3, ?4)")?;
            for (source, totals) in &changed {
                let figure = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
                let at = totals.at.unwrap_or(now).as_millis();
                let (read, sent) = (figure(totals.messages_in), figure(totals.messages_out));
                keep.execute(params![source.to_string(), read, sent, at])?;
            }
            let mut forget = change.prepare_cached(
                "DELETE FROM counted WHERE number <= (SELECT max(number) FROM counted) - ?1",
            )?;
            forget.execute([IDS])?;
        }
        change.commit()?;
        for source in &new {
            state.pace.note(source, now);
        }
        for (source, totals) in changed {
            state.totals.insert(source.clone(), totals);
        }
        Ok(new.len() as u64)
    }

    pub fn totals(&self) -> BTreeMap<SourceKey, Counters> {
        self.state().totals.clone()
    }

    /// Returns the messages of a source in the last full minute, in both directions.
    pub fn per_minute(&self, source: &SourceKey, now: Timestamp) -> u64 {
        self.state().pace.per_minute(source, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SourceKey {
        "twitch:1".parse().unwrap()
    }

    fn incoming(ids: &[&str]) -> Vec<(String, Direction, SourceKey)> {
        ids.iter()
            .map(|id| ((*id).to_owned(), Direction::In, key()))
            .collect()
    }

    #[test]
    fn a_message_counts_once_also_across_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chat.db");
        let tally = Tally::open(&path).unwrap();
        assert_eq!(
            tally
                .count(&incoming(&["a", "b", "a"]), Timestamp::EPOCH)
                .unwrap(),
            2
        );
        drop(tally);
        let tally = Tally::open(&path).unwrap();
        assert_eq!(tally.count(&incoming(&["b", "c"]), Timestamp::EPOCH).unwrap(), 1);
        let out = [("a".to_owned(), Direction::Out, key())];
        assert_eq!(tally.count(&out, Timestamp::EPOCH).unwrap(), 1);
        let totals = tally.totals()[&key()];
        assert_eq!((totals.messages_in, totals.messages_out), (3, 1));
    }

    #[test]
    fn totals_go_on_from_what_the_store_has_and_never_fall() {
        let tally = Tally::with(Connection::open_in_memory().unwrap()).unwrap();
        let stored = |messages_in| Counters {
            messages_in,
            ..Counters::default()
        };
        tally.restore(&key(), stored(100));
        tally.count(&incoming(&["a"]), Timestamp::EPOCH).unwrap();
        assert_eq!(tally.totals()[&key()].messages_in, 101);
        tally.restore(&key(), stored(50));
        assert_eq!(tally.totals()[&key()].messages_in, 101);
    }
}
