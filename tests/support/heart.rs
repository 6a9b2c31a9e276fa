//! A daemon's heart without platforms: recorder, ledger and dispatcher. It hears of changes through a file that only grows, and
//! tells them wherever it is told to. For processes that are killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitbrat::clock::{Chance, SystemClock};
use bitbrat::core::observation::Observation;
use bitbrat::lifecycle::Tasks;
use bitbrat::platforms::ProbeSink as _;
use bitbrat::watch::dispatcher::{Dispatched, Dispatcher, Outlet};
use bitbrat::watch::intake::Intake;
use bitbrat::watch::ledger::Ledger;
use bitbrat::watch::lock::StateLock;
use bitbrat::watch::recorder::{Beat, Recorded, Recorder, Stuck};
use bitbrat::watch::tracker::Tracker;
use tokio::sync::{Notify, watch};

/// Starts on what an earlier one of this `name` left in the directory `state`. It hears all lines of the file `platform`, one
/// observation each, from the first on.
pub fn start(state: &Path, name: &str, platform: PathBuf, outlet: Arc<dyn Outlet>, tasks: &Tasks) {
    let lock = StateLock::take(state).unwrap();
    let ledger = Arc::new(Ledger::open(state, 100_000).unwrap());
    let mut tracker = Tracker::new(name);
    ledger
        .restore(|source, known| tracker.restore(source, known))
        .unwrap();
    let (intake, inputs) = Intake::new();
    let bell = Arc::new(Notify::new());
    let (closing, closed) = watch::channel(false);
    let writer = Recorder {
        tracker,
        ledger: Arc::clone(&ledger),
        inputs,
        beat: Beat::Publish { period: 900_000 },
        clock: Arc::new(SystemClock),
        bell: Arc::clone(&bell),
        closing,
        counts: Arc::new(Recorded::default()),
        farewell: false,
        stuck: Stuck::default(),
    };
    let sender = Dispatcher {
        ledger,
        outlet,
        pace: None,
        bell,
        closing: closed,
        counts: Arc::new(Dispatched::default()),
        chance: Chance::random(),
    };
    tasks.spawn("recorder", |stop| writer.run(stop));
    tasks.spawn("dispatcher", |stop| sender.run(stop));
    tasks.spawn("ear", |stop| async move {
        let _held = lock;
        let mut heard = 0;
        while stop.sleep(Duration::from_millis(2)).await {
            let text = std::fs::read_to_string(&platform).unwrap_or_default();
            let told = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            for line in told.lines().skip(heard) {
                intake.observe(serde_json::from_str::<Observation>(line).unwrap());
                heard += 1;
            }
        }
    });
}
