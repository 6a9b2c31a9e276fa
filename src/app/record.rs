//! Stores what a command has observed, on the path of the daemon: the same writer, with SQLite or a bus the same file and outbox,
//! and with a remote store a persister.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};

use super::App;
use crate::blocking::blocking;
use crate::bus::EventBus;
use crate::bus::state_mutations::StateMutationBus;
use crate::config::{BusTarget, StoreTarget};
use crate::core::observation::Observation;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::transition::Transition;
use crate::failure::Failure;
use crate::http::CorrectedClock;
use crate::lifecycle::Stop;
use crate::store::{SourceStore, StoreError};
use crate::watch::dispatcher::{Dispatched, Dispatcher};
use crate::watch::engine::SPREAD;
use crate::watch::instance;
use crate::watch::lock::{SendingLock, StateLock};
use crate::watch::observations::ObservationSender;
use crate::watch::sinks::BusSink;
use crate::watch::state_file::{StateFile, StateFileError, StateFileOptions};
use crate::watch::tracker::Tracker;
use crate::watch::writer::{Committer, PendingCommits, Results, Writer, WriterStats};

/// How long a command connects to the bus and sends events. What is left then waits in the outbox.
const SENDING: Duration = Duration::from_secs(5);
/// How often it checks whether everything is sent.
const POLL: Duration = Duration::from_millis(20);
/// Writers of the file. While one commits, others read and merge.
const WRITERS: usize = 2;

/// Stores observations, a few hundred sources at a time.
pub struct Recorder<'a> {
    app: &'a App,
    /// The writers of the file, where the store or the bus needs it. Each has sources of its own.
    file: Vec<Mutex<FileWriter>>,
    /// The number of the next portion.
    next: AtomicUsize,
    /// The remote store.
    remote: Option<Arc<dyn SourceStore>>,
}

struct FileWriter {
    writer: Writer,
    state_file: Arc<StateFile>,
}

#[derive(Debug, Default)]
pub struct Recorded {
    pub transitions: BTreeMap<SourceKey, Vec<Transition>>,
    /// The documents of the observed sources, in short; without those that cannot be used.
    pub summaries: Vec<SourceSummary>,
    /// Failures to store, with their reasons.
    pub failures: Vec<(SourceKey, StoreError)>,
}

impl App {
    /// Prepares to store observations in `store`.
    pub async fn recorder(&self, store: Arc<dyn SourceStore>) -> Result<Recorder<'_>, Failure> {
        let is_remote = !matches!(self.settings.store.target, StoreTarget::Sqlite(_));
        let over_bus = self.settings.bus.target != BusTarget::Local;
        let file = if over_bus || !is_remote {
            self.file_writers(over_bus).await?
        } else {
            Vec::new()
        };
        Ok(Recorder {
            app: self,
            file,
            next: AtomicUsize::default(),
            remote: is_remote.then_some(store),
        })
    }

    async fn file_writers(&self, over_bus: bool) -> Result<Vec<Mutex<FileWriter>>, Failure> {
        // Without a name: whichever daemon uses the file sends its events.
        let state_file = self.state_file(String::new(), over_bus).await?;
        let writers = (0..WRITERS).map(|_| Mutex::new(self.file_writer(Arc::clone(&state_file))));
        Ok(writers.collect())
    }

    fn file_writer(&self, state_file: Arc<StateFile>) -> FileWriter {
        let (_, inputs) = ObservationSender::new();
        let stats = Arc::new(WriterStats::since(self.clock.now()));
        let mut committer = Committer::new(
            Arc::clone(&state_file),
            Arc::default(),
            stats,
            PendingCommits::default(),
        );
        committer.retries = false;
        let writer = Writer {
            tracker: Tracker::of_command(),
            committer,
            inputs,
            confirm_every: 0,
            heartbeats: None,
            clock: CorrectedClock::new(Arc::clone(&self.machine_clock)),
            closing: watch::Sender::new(false),
            shutdown: false,
            initial_events: self.settings.bus.initial_events,
            last_turn: None,
            results: Some(Results::default()),
        };
        FileWriter { writer, state_file }
    }

    /// Opens the file for commands about alerts; `None` if no daemon or probe has created it yet.
    pub async fn alert_file(&self) -> Result<Option<Arc<StateFile>>, StateFileError> {
        if !self.state_file_path().exists() {
            return Ok(None);
        }
        self.state_file(String::new(), false).await.map(Some)
    }

    async fn state_file(&self, instance: String, has_sink: bool) -> Result<Arc<StateFile>, StateFileError> {
        let options = StateFileOptions {
            instance,
            bound: self.settings.watch.outbox,
            has_sink,
            has_alerts: self.settings.alerts.is_used(),
            history: matches!(self.settings.store.target, StoreTarget::Sqlite(_)).then(|| self.retention()),
        };
        let path = self.state_file_path();
        let opened = blocking(move || StateFile::open(&path, options)).await?;
        Ok(Arc::new(opened))
    }

    /// Sends what waits in the outbox, also what a daemon has left there. Returns once all of it is sent.
    async fn send_waiting(&self) -> Result<(), Failure> {
        let name = match &self.settings.watch.instance {
            Some(name) => name.clone(),
            None => instance::name(&self.settings.state_dir).unwrap_or_default(),
        };
        let state_file = self.state_file(name, true).await?;
        let Some(bus) = self.bus().await? else {
            return Ok(());
        };
        let (_open, closing) = watch::channel(false);
        let dispatcher = Dispatcher {
            state_file: Arc::clone(&state_file),
            sink: Arc::new(BusSink(self.publishing(&bus))),
            pace: Some(SPREAD),
            wake: Arc::new(Notify::new()),
            closing,
            counts: Arc::new(Dispatched::default()),
            chance: self.chance.clone(),
        };
        let emptied = async {
            while state_file.depth().events > 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            done = dispatcher.run(Stop::never()) => done?,
            () = emptied => {}
        }
        bus.close().await;
        Ok(())
    }

    /// Returns the bus as events are published to it.
    pub fn publishing(&self, bus: &Arc<dyn EventBus>) -> Arc<dyn EventBus> {
        if self.settings.bus.state_mutations {
            Arc::new(StateMutationBus(Arc::clone(bus)))
        } else {
            Arc::clone(bus)
        }
    }
}

impl Recorder<'_> {
    /// Merges observations of a few hundred sources into the stored documents. Returns when they are stored or have failed. Several
    /// portions may be recorded concurrently if they have no source in common.
    pub async fn record(&self, observations: Vec<Observation>) -> Result<Recorded, StoreError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let file = self.file.get(turn % WRITERS);
        let Some(store) = &self.remote else {
            let Some(file) = file else {
                return Ok(Recorded::default());
            };
            return file.lock().await.record(observations, None).await;
        };
        let persister = self.app.persister(Arc::clone(store)).brief();
        if let Some(file) = file {
            let mut file = file.lock().await;
            file.record(observations.clone(), Some(store.as_ref())).await?;
        }
        let mut applied = persister.observe(&observations).await;
        let flushed = persister.flush().await;
        for (key, transitions) in flushed.transitions {
            applied.transitions.entry(key).or_default().extend(transitions);
        }
        Ok(Recorded {
            transitions: applied.transitions,
            summaries: persister.summaries().await,
            // What failed at first and was stored by the flush is no failure.
            failures: flushed.failures,
        })
    }

    /// Sends for a few seconds what waits in the outbox, unless a daemon does. Returns how many events wait then for the next one.
    pub async fn finish(self) -> usize {
        let files: Vec<FileWriter> = self.file.into_iter().map(Mutex::into_inner).collect();
        let Some(state_file) = files.first().map(|file| Arc::clone(&file.state_file)) else {
            return 0;
        };
        let app = self.app;
        let directory = &app.settings.state_dir;
        if state_file.depth().events == 0 || StateLock::is_taken(directory) {
            return 0;
        }
        // What could not be sent stays in the outbox, whatever the reason.
        let _ = tokio::time::timeout(SENDING, async {
            let _sending = SendingLock::take(directory).await;
            // A daemon that started meanwhile sends, as soon as the lock is released.
            if !StateLock::is_taken(directory) {
                let _ = app.send_waiting().await;
            }
        })
        .await;
        let waiting = blocking(move || state_file.count_waiting()).await.unwrap_or(0);
        let deferred = files.iter().map(|file| file.writer.committer.pending.deferred());
        waiting + deferred.sum::<usize>()
    }
}

impl FileWriter {
    async fn record(
        &mut self,
        observations: Vec<Observation>,
        remote: Option<&dyn SourceStore>,
    ) -> Result<Recorded, StoreError> {
        let sources: BTreeSet<SourceKey> = observations
            .iter()
            .map(|observation| observation.source.clone())
            .collect();
        let sources: Vec<SourceKey> = sources.into_iter().collect();
        self.restore(&sources, remote).await?;
        let stored = self.writer.store(observations).await;
        stored.map_err(StateFileError::into_reason)?;
        let results = self.writer.results.replace(Results::default());
        let Results {
            mut transitions,
            summaries: mut written,
            failures,
        } = results.unwrap_or_default();
        let tracker = &mut self.writer.tracker;
        transitions.retain(|source, _| !tracker.writes.is_protected(source));
        let usable = sources
            .iter()
            .filter(|source| !tracker.writes.is_protected(source));
        let summaries = usable.filter_map(|source| {
            written
                .remove(source)
                .or_else(|| Some(SourceSummary::of(&tracker.document(source)?)))
        });
        let summaries = summaries.collect();
        tracker.clear();
        Ok(Recorded {
            transitions,
            summaries,
            failures,
        })
    }

    /// Reads what is stored about the sources.
    async fn restore(
        &mut self,
        sources: &[SourceKey],
        remote: Option<&dyn SourceStore>,
    ) -> Result<(), StoreError> {
        let latest = self.writer.clock.latest();
        let (state_file, wanted) = (Arc::clone(&self.state_file), sources.to_vec());
        let read = blocking(move || {
            let mut read = Vec::new();
            state_file.restore(&wanted, |source, stored| read.push((source, stored)))?;
            Ok::<_, StateFileError>(read)
        });
        for (source, stored) in read.await.map_err(StateFileError::into_reason)? {
            let reason = match stored {
                Ok(mut stored) => {
                    stored.value.drop_future(latest);
                    self.writer.tracker.restore(stored);
                    continue;
                }
                Err(reason) => reason,
            };
            let document_id = source.to_string();
            let error = StoreError::Unusable {
                document_id,
                source: reason,
            };
            self.writer.protect(&source, error);
            // What was published about it is not published again.
            let published = self
                .state_file
                .published(&source)
                .map_err(StateFileError::into_reason)?;
            if let Some(published) = published {
                self.writer.tracker.merge_published(&source, published);
            }
        }
        let Some(remote) = remote else {
            return Ok(());
        };
        for (source, stored) in sources.iter().zip(remote.load_some(sources).await) {
            // Without it, what is known there counts as new, and is published once more under the same ids.
            if let Ok(Some(stored)) = stored {
                let known = &stored.value.knowledge;
                self.writer.tracker.merge_stored(source, known, false);
            }
        }
        Ok(())
    }
}
