//! Follows the events that processes on this machine have committed or sent, by reading their file from another process. Without a
//! bus this is the only way: with SQLite events are only listed in the file.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::Value;
use tokio::time::sleep;

use super::state_file::{StateFileError, sent_since};
use crate::blocking::blocking;
use crate::bus::{Message, names};
use crate::core::event::Event;
use crate::core::event::fields::text;
use crate::core::time::Timestamp;

/// How often the file is read.
const POLL: Duration = Duration::from_millis(250);

/// Follows published events from the file at `path`: from `since` if they are still stored (the last thousand events),
/// otherwise from now. Waits for a file that does not exist yet.
pub fn follow(
    path: PathBuf,
    since: Option<Timestamp>,
) -> BoxStream<'static, Result<Message, StateFileError>> {
    let start = Following {
        path,
        since,
        seen: None,
        ready: VecDeque::new(),
    };
    stream::unfold(start, |mut following| async move {
        loop {
            if let Some(message) = following.ready.pop_front() {
                return Some((Ok(message), following));
            }
            let first = following.seen.is_none();
            if let Err(error) = following.probe().await {
                return Some((Err(error), following));
            }
            if !first && following.ready.is_empty() {
                sleep(POLL).await;
            }
        }
    })
    .boxed()
}

/// Returns the events after the position `after`, oldest first, and the position of the last one; `None` if the event at that
/// position is no longer stored. Without a position it returns the newest position alone.
pub async fn after(path: PathBuf, after: Option<i64>) -> Result<Option<(i64, Vec<Message>)>, StateFileError> {
    let from = after.map_or(0, |after| after.saturating_sub(1));
    let mut found = blocking(move || match path.exists() {
        true => sent_since(&path, Some(from)),
        false => Ok(Vec::new()),
    })
    .await?;
    let newest = found.last().map_or(0, |(position, _)| *position);
    match after {
        None => return Ok(Some((newest, Vec::new()))),
        // Nothing had been published when the client connected first.
        Some(0) => {}
        Some(after) if found.first().is_some_and(|(position, _)| *position == after) => drop(found.remove(0)),
        Some(_) => return Ok(None),
    }
    let messages = found
        .into_iter()
        .map(|(position, event)| message(position, event));
    Ok(Some((newest, messages.collect())))
}

/// Returns whether the file at `path` lists any event.
pub fn has_events(path: &Path) -> bool {
    path.exists() && sent_since(path, Some(0)).is_ok_and(|events| !events.is_empty())
}

struct Following {
    path: PathBuf,
    since: Option<Timestamp>,
    /// Number of the newest event that was read.
    seen: Option<i64>,
    ready: VecDeque<Message>,
}

impl Following {
    async fn probe(&mut self) -> Result<(), StateFileError> {
        let (path, seen) = (self.path.clone(), self.seen);
        let everything = seen.or(self.since.map(|_| 0));
        let found = blocking(move || {
            if path.exists() {
                sent_since(&path, everything)
            } else {
                Ok(Vec::new())
            }
        })
        .await?;
        let newest = found.last().map_or(seen.unwrap_or(0), |(number, _)| *number);
        self.seen = Some(newest);
        // Without a start time, events published before the first read are skipped.
        let past = seen.is_none() && self.since.is_none();
        if !past {
            let since = self.since;
            let messages = found.into_iter().map(|(number, event)| message(number, event));
            self.ready
                .extend(messages.filter(|message| message.published_at >= since));
        }
        Ok(())
    }
}

fn message(number: i64, event: Event) -> Message {
    let body: Value = serde_json::from_str(&event.body).unwrap_or(Value::Null);
    let observed = text(&body, &["ingress", "ingressAt"]).and_then(|at| at.parse().ok());
    let attributes: BTreeMap<_, _> = event
        .attributes
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    Message {
        topic: names::INGRESS.to_owned(),
        transport_id: number.to_string(),
        attributes,
        data: event.body.into(),
        published_at: Some(observed.unwrap_or(event.at)),
        deliveries: 1,
        unreadable: None,
    }
}
