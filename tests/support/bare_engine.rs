//! The core of a daemon without platforms: writer, outbox and dispatcher. It receives changes through a file that only grows, and
//! publishes them to the given sink. For processes that are killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitbrat::clock::{Chance, Clock as _, SystemClock};
use bitbrat::core::event::InitialEvents;
use bitbrat::core::observation::Observation;
use bitbrat::core::source::SourceKey;
use bitbrat::lifecycle::Tasks;
use bitbrat::platforms::ProbeSink as _;
use bitbrat::store::retention::Retention;
use bitbrat::watch::dispatcher::{Dispatched, Dispatcher, Sink};
use bitbrat::watch::lock::StateLock;
use bitbrat::watch::observations::ObservationSender;
use bitbrat::watch::state_file::{StateFile, StateFileOptions};
use bitbrat::watch::tracker::Tracker;
use bitbrat::watch::writer::{Committer, Heartbeats, PendingCommits, Writer, WriterStats};
use tokio::sync::{Notify, watch};

/// Starts on the state of `sources` that an earlier one of this `name` left in the directory `state`. It reads all lines of the file
/// `platform`, one observation each, from the first on.
pub fn start(
    state: &Path,
    name: &str,
    sources: &[SourceKey],
    platform: PathBuf,
    sink: Arc<dyn Sink>,
    tasks: &Tasks,
) {
    let lock = StateLock::acquire(state).unwrap();
    let options = StateFileOptions {
        instance: name.to_owned(),
        bound: 100_000,
        has_sink: true,
        has_alerts: false,
        history: Some(Retention::default()),
    };
    let state_file = Arc::new(StateFile::open(&state.join("watch.db"), options).unwrap());
    let mut tracker = Tracker::new(name);
    state_file
        .restore(sources, |_, stored| tracker.restore(stored.unwrap()))
        .unwrap();
    let (observations, inputs) = ObservationSender::new();
    let wake = Arc::new(Notify::new());
    let (closing, closed) = watch::channel(false);
    let writer = Writer {
        tracker,
        committer: Committer::new(
            Arc::clone(&state_file),
            Arc::clone(&wake),
            Arc::new(WriterStats::since(SystemClock.now())),
            PendingCommits::default(),
        ),
        inputs,
        confirm_every: 300_000,
        heartbeats: Some(Heartbeats::Publish { period: 900_000 }),
        clock: Arc::new(SystemClock),
        closing,
        shutdown: false,
        initial_events: InitialEvents::default(),
        last_turn: None,
        results: None,
    };
    let sender = Dispatcher {
        state_file,
        sink,
        pace: None,
        wake,
        closing: closed,
        counts: Arc::new(Dispatched::default()),
        chance: Chance::random(),
    };
    tasks.spawn("writer", |stop| writer.run(stop));
    tasks.spawn("dispatcher", |stop| sender.run(stop));
    tasks.spawn("observations", |stop| async move {
        let _held = lock;
        let mut incoming = 0;
        while stop.sleep(Duration::from_millis(2)).await {
            let text = std::fs::read_to_string(&platform).unwrap_or_default();
            let reported = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            for line in reported.lines().skip(incoming) {
                observations.observe(serde_json::from_str::<Observation>(line).unwrap());
                incoming += 1;
            }
        }
    });
}
