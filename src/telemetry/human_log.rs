//! Log lines for people: each event becomes a [`Record`], and a [`LineFormat`] decides what is printed for it.
//!
//! While a daemon runs ([`super::Bars::merge_lines`]), lines wait for a moment, so that several with the same cause are merged.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Bars;
use crate::clock::Clock;
use crate::core::time::Timestamp;
use crate::lifecycle::Stop;
use crate::secrets;

/// How long a line waits for others with the same cause: longer than the observations of one probe take to be processed, and too
/// short to be noticed.
const MERGE: Duration = Duration::from_millis(400);

/// Names of the events with lines of their own (`tracing`'s event names, which no format prints). Their fields are the contract
/// between the code that logs them and the [`LineFormat`].
pub mod names {
    /// The daemon has started: `sources`, `platforms`, `roles`, `store`, `bus`, `web`.
    pub const WATCHING: &str = "watching";
    /// The web server listens; its address is in [`WATCHING`], too.
    pub const SERVING: &str = "serving";
    /// The first check of all sources takes a while: `checked`, `sources`.
    pub const CHECKING: &str = "checking";
    /// Every source was checked once: `checked`, `sources`, `live`, `attention`, `disconnected`, `reason`.
    pub const CHECKED: &str = "checked";
    /// A verdict has changed: `source.key`, `display_name`, `facet`, `from`, `to`, `rule`, `by`, `initial`, `reason`, `lasted_s`;
    /// of permissions `gained` and `unproven` instead of `from` and `to`.
    pub const TRANSITION: &str = "transition";
    /// The state of an account has changed: `account`, `state`, `sources`, `command`.
    pub const ACCOUNT: &str = "account";
    /// A signal requests the end: `signal`.
    pub const STOPPING: &str = "stopping";
    /// The end: `ran_s`, `clean`, `writes`, `failures`.
    pub const STOPPED: &str = "stopped";
}

/// An event of the log. Known secrets are masked in its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub at: Timestamp,
    pub level: Level,
    /// One of [`names`], or the place in the code.
    pub name: &'static str,
    /// The module that logged it.
    pub target: String,
    pub message: String,
    /// Its other fields, in their order.
    pub fields: Vec<(&'static str, String)>,
}

impl Record {
    fn of(event: &Event<'_>, at: Timestamp) -> Self {
        let metadata = event.metadata();
        let mut record = Self {
            at,
            level: *metadata.level(),
            name: metadata.name(),
            target: metadata.target().to_owned(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut record);
        record
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns a field's value as a number; `None` also if it is none.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    fn set(&mut self, field: &Field, value: &str) {
        // Libraries log texts that no code of ours has masked.
        let value = secrets::mask(value).into_owned();
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.set(field, &text);
    }
}

/// Turns records into lines for people.
pub trait LineFormat: Send {
    /// Adds a record. Its line may be merged with others, or left out.
    fn add(&mut self, record: Record);

    /// Returns the text of all lines that were added, each with its line break, and forgets them.
    fn take(&mut self) -> String;
}

pub(super) struct Lines {
    format: Mutex<Box<dyn LineFormat>>,
    /// Whether lines wait to be merged. Without a task that prints them later they are printed at once.
    merges: AtomicBool,
    added: Notify,
}

impl Lines {
    pub(super) fn new(format: Box<dyn LineFormat>) -> Arc<Self> {
        Arc::new(Self {
            format: Mutex::new(format),
            merges: AtomicBool::new(false),
            added: Notify::new(),
        })
    }

    fn add(&self, record: Record, out: &Bars) {
        // An error is printed at once: the process may be about to end.
        let waits = self.merges.load(Ordering::Acquire) && record.level != Level::ERROR;
        let mut format = self.format.lock();
        format.add(record);
        if waits {
            self.added.notify_one();
        } else {
            print(&mut **format, out);
        }
    }

    /// Prints lines once they have waited, until the stop; from then on each is printed at once.
    pub(super) async fn merge(&self, out: &Bars, stop: &Stop) {
        self.merges.store(true, Ordering::Release);
        loop {
            tokio::select! {
                () = stop.requested() => break,
                () = self.added.notified() => {}
            }
            if !stop.sleep(MERGE).await {
                break;
            }
            print(&mut **self.format.lock(), out);
        }
        self.merges.store(false, Ordering::Release);
        print(&mut **self.format.lock(), out);
    }
}

/// Prints with the format locked, so that lines keep their order.
fn print(format: &mut dyn LineFormat, out: &Bars) {
    let text = format.take();
    if !text.is_empty() {
        // Nothing can be reported when even the log cannot be written.
        let _ = out.print(text.as_bytes());
    }
}

/// Collects records.
pub(super) struct HumanLayer {
    pub(super) lines: Arc<Lines>,
    pub(super) out: Bars,
    pub(super) clock: Arc<dyn Clock>,
}

impl<S: Subscriber> Layer<S> for HumanLayer {
    fn on_event(&self, event: &Event<'_>, _cx: Context<'_, S>) {
        self.lines.add(Record::of(event, self.clock.now()), &self.out);
    }
}

/// Returns the records that `act` logs, dated at the epoch.
#[cfg(test)]
pub(crate) fn recorded(act: impl FnOnce()) -> Vec<Record> {
    use tracing_subscriber::layer::SubscriberExt as _;

    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<Record>>>);

    impl<S: Subscriber> Layer<S> for Recorder {
        fn on_event(&self, event: &Event<'_>, _cx: Context<'_, S>) {
            self.0.lock().push(Record::of(event, Timestamp::EPOCH));
        }
    }

    let recorder = Recorder::default();
    let subscriber = tracing_subscriber::registry().with(recorder.clone());
    tracing::subscriber::with_default(subscriber, act);
    std::mem::take(&mut *recorder.0.lock())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_has_name_message_and_fields_in_order() {
        let error = std::io::Error::other("disk full");
        let records = recorded(|| {
            tracing::warn!(
                name: names::ACCOUNT, account = %"twitch/bot", sources = 3, missing = None::<u64>,
                error = &error as &dyn Error, "one {}", "message"
            );
        });
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!(
            (record.name, record.level, record.message.as_str()),
            (names::ACCOUNT, Level::WARN, "one message")
        );
        assert_eq!(
            record.fields,
            [
                ("account", "twitch/bot".to_owned()),
                ("sources", "3".to_owned()),
                ("error", "disk full".to_owned())
            ]
        );
        assert_eq!(
            (record.number("sources"), record.field("missing")),
            (Some(3), None)
        );
    }
}
