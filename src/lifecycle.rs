//! How the daemon lives and ends: named supervised tasks, a soft stop that drains, a hard stop that cuts.
//!
//! This is the one place that spawns. A task that ends before it was asked to, or panics, takes the process down under
//! its own name: a daemon with a dead part must not look healthy.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::failure::{ExitCode, Failure};

/// What a task ends with; an error is told under the task's name.
pub type TaskResult = Result<(), Box<dyn Error + Send + Sync>>;

/// How long tasks get to obey the hard stop before they are aborted.
const CUT: Duration = Duration::from_millis(250);

/// A signal from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop.
    Terminate,
    /// SIGINT: stop; a person asked.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Tells a task when to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Stop {
    /// A stop that nobody asks for, for parts that run outside of a daemon.
    pub fn never() -> Self {
        Self {
            soft: CancellationToken::new(),
            hard: CancellationToken::new(),
        }
    }

    /// Resolves when no new work should be taken.
    pub async fn requested(&self) {
        self.soft.cancelled().await;
    }

    /// Whether no new work should be taken.
    pub fn is_requested(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves when even work in progress should be dropped.
    pub async fn cut(&self) {
        self.hard.cancelled().await;
    }

    /// Waits, but not beyond a requested stop. Returns whether the whole time has passed.
    pub async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.requested() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// Spawns supervised tasks. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    stop: Stop,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, (String, AbortHandle)>>,
    ended: mpsc::UnboundedSender<Ended>,
}

/// A task that is no more.
struct Ended {
    id: u64,
    name: String,
    /// Whether it may end before a stop.
    brief: bool,
    outcome: Outcome,
}

enum Outcome {
    Returned(TaskResult),
    /// It panicked or was aborted.
    Vanished,
}

/// Reports the end of a task however it ends.
struct Report {
    ended: Option<Ended>,
    to: mpsc::UnboundedSender<Ended>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            // Nobody listens after the lifecycle is over, and then nobody needs to.
            let _ = self.to.send(ended);
        }
    }
}

impl Tasks {
    /// Starts a task that is to live until it is stopped.
    pub fn spawn<F, R>(&self, name: impl Into<String>, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = R> + Send + 'static,
        R: IntoTaskResult,
    {
        self.start(name.into(), false, task(self.shared.stop.clone()));
    }

    /// Starts a task that may end by itself, but not by panic or error.
    pub fn spawn_brief<F, R>(&self, name: impl Into<String>, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = R> + Send + 'static,
        R: IntoTaskResult,
    {
        self.start(name.into(), true, task(self.shared.stop.clone()));
    }

    /// Returns what tells when to stop.
    pub fn stop(&self) -> Stop {
        self.shared.stop.clone()
    }

    /// Asks every task to stop softly, as a signal would.
    pub fn request_stop(&self) {
        self.shared.stop.soft.cancel();
    }

    /// Returns the names of the tasks that run.
    pub fn running(&self) -> Vec<String> {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().map(|(name, _)| name.clone()).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    fn start<R: IntoTaskResult>(
        &self,
        name: String,
        brief: bool,
        task: impl Future<Output = R> + Send + 'static,
    ) {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let mut report = Report {
            ended: Some(Ended {
                id,
                name: name.clone(),
                brief,
                outcome: Outcome::Vanished,
            }),
            to: self.shared.ended.clone(),
        };
        // Held while spawning: the task cannot be reported as ended before it stands in the table.
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = tokio::spawn(async move {
            let result = task.await.into_task_result();
            if let Some(ended) = &mut report.ended {
                ended.outcome = Outcome::Returned(result);
            }
        });
        running.insert(id, (name, handle.abort_handle()));
    }
}

/// What a task's future may yield.
pub trait IntoTaskResult {
    /// Turns it into a result.
    fn into_task_result(self) -> TaskResult;
}

impl IntoTaskResult for () {
    fn into_task_result(self) -> TaskResult {
        Ok(())
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> IntoTaskResult for Result<(), E> {
    fn into_task_result(self) -> TaskResult {
        self.map_err(Into::into)
    }
}

/// Owns the tasks of a daemon from start to end.
pub struct Lifecycle {
    tasks: Tasks,
    ended: mpsc::UnboundedReceiver<Ended>,
    reloads: watch::Sender<u64>,
    /// Signals from outside; none arrive before [`Lifecycle::listening`].
    signals: mpsc::Receiver<Signal>,
    exit: ExitCode,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// Starts without tasks, and deaf to signals.
    pub fn new() -> Self {
        Self::with_signals(mpsc::channel(1).1)
    }

    /// Starts without tasks, listening to the signals of the system from now on: one that comes while the daemon is still
    /// being put together must neither kill it nor be lost.
    pub fn listening() -> Result<Self, Failure> {
        let signals = system_signals()
            .map_err(|error| Failure::new(ExitCode::Failed, "cannot listen to signals").because(&error))?;
        Ok(Self::with_signals(signals))
    }

    /// Starts without tasks, with signals from elsewhere.
    pub fn with_signals(signals: mpsc::Receiver<Signal>) -> Self {
        let (sender, ended) = mpsc::unbounded_channel();
        let shared = Shared {
            stop: Stop::never(),
            next: AtomicU64::new(0),
            running: Mutex::new(BTreeMap::new()),
            ended: sender,
        };
        Self {
            tasks: Tasks {
                shared: Arc::new(shared),
            },
            ended,
            reloads: watch::Sender::new(0),
            signals,
            exit: ExitCode::Healthy,
        }
    }

    /// Returns what spawns tasks.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Returns a counter that moves with each SIGHUP.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// As [`Lifecycle::run`], with signals from elsewhere.
    pub async fn run_with(
        mut self,
        signals: mpsc::Receiver<Signal>,
        grace: Duration,
    ) -> Result<ExitCode, Failure> {
        self.signals = signals;
        self.run(grace).await
    }

    /// Puts a daemon together; `None` when a signal asked to stop before that was done. [`Lifecycle::run`] then only drains.
    pub async fn starting<T>(&mut self, start: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(start);
        loop {
            tokio::select! {
                started = &mut start => return Some(started),
                () = Self::heed(&mut self.signals, &self.tasks, &self.reloads, &mut self.exit) => {
                    if self.tasks.stop().is_requested() {
                        return None;
                    }
                }
            }
        }
    }

    /// Waits for a signal and does what it asks for.
    async fn heed(
        signals: &mut mpsc::Receiver<Signal>,
        tasks: &Tasks,
        reloads: &watch::Sender<u64>,
        exit: &mut ExitCode,
    ) {
        match signals.recv().await {
            Some(Signal::Reload) => reloads.send_modify(|count| *count += 1),
            Some(signal) => {
                info!(?signal, "Stopping");
                if signal == Signal::Interrupt {
                    *exit = ExitCode::Interrupted;
                }
                tasks.request_stop();
            }
            None => std::future::pending().await,
        }
    }

    /// Runs until a signal, a dead task or [`Tasks::request_stop`] ends it, then drains for at most `grace`.
    pub async fn run(mut self, grace: Duration) -> Result<ExitCode, Failure> {
        let stop = self.tasks.stop();
        let mut dead: Option<Failure> = None;
        while !stop.is_requested() {
            tokio::select! {
                () = Self::heed(&mut self.signals, &self.tasks, &self.reloads, &mut self.exit) => {}
                Some(ended) = self.ended.recv() => dead = self.buried(ended, false).or(dead),
                () = stop.requested() => {}
            }
            if dead.is_some() {
                stop.soft.cancel();
            }
        }
        notify(&[NotifyState::Stopping]);
        let deadline = tokio::time::sleep(grace);
        tokio::pin!(deadline);
        let mut cut_because = None;
        while cut_because.is_none() && !self.tasks.running().is_empty() {
            tokio::select! {
                Some(ended) = self.ended.recv() => dead = dead.or(self.buried(ended, true)),
                Some(signal) = self.signals.recv() => {
                    if signal != Signal::Reload {
                        cut_because = Some("a second signal");
                    }
                }
                () = &mut deadline => cut_because = Some("the end of the grace period"),
            }
        }
        if let Some(reason) = cut_because {
            let left = self.tasks.running().join(", ");
            warn!(
                tasks = left,
                "Cutting off what has not stopped, because of {reason}"
            );
            self.cut(stop).await;
            dead = dead.or_else(|| {
                let what = format!("stopped by {reason} while these were at work: {left}");
                Some(
                    Failure::new(ExitCode::Failed, what)
                        .hint("what was in progress continues at the next start"),
                )
            });
        }
        dead.map_or(Ok(self.exit), Err)
    }

    async fn cut(&mut self, stop: Stop) {
        stop.hard.cancel();
        let left = async {
            while !self.tasks.running().is_empty() {
                match self.ended.recv().await {
                    Some(ended) => drop(self.buried(ended, true)),
                    None => break,
                }
            }
        };
        if tokio::time::timeout(CUT, left).await.is_err() {
            let running = self
                .tasks
                .shared
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            running.values().for_each(|(_, handle)| handle.abort());
        }
    }

    /// Strikes an ended task off the list; a failure when it should have lived.
    fn buried(&self, ended: Ended, stopping: bool) -> Option<Failure> {
        let Ended {
            id,
            name,
            brief,
            outcome,
        } = ended;
        let mut running = self
            .tasks
            .shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.remove(&id);
        drop(running);
        let stopping = stopping || self.tasks.shared.stop.is_requested();
        let failure = match outcome {
            Outcome::Returned(Ok(())) if stopping || brief => return None,
            Outcome::Returned(Ok(())) => Failure::new(
                ExitCode::Failed,
                format!("task `{name}` ended although nobody stopped it"),
            ),
            Outcome::Returned(Err(error)) => match error.downcast::<Failure>() {
                Ok(failure) => failure.while_doing(format!("task `{name}` failed")),
                Err(error) => {
                    let error: Box<dyn Error> = error;
                    Failure::new(ExitCode::Failed, format!("task `{name}` failed")).because(error.as_ref())
                }
            },
            Outcome::Vanished => Failure::new(ExitCode::Failed, format!("task `{name}` panicked"))
                .hint("this is a bug in bitbrat; please report it with the log"),
        };
        error!(task = name, "{}", failure.what);
        Some(failure)
    }
}

/// Tells the service manager that we are ready and what we do, and keeps its watchdog content as long as `healthy` says so.
pub fn announce_ready(tasks: &Tasks, status: &str, healthy: impl Fn() -> bool + Send + 'static) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    tasks.spawn("service-watchdog", |stop| async move {
        while stop.sleep(patience / 3).await {
            if healthy() {
                notify(&[NotifyState::Watchdog]);
            }
        }
    });
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "The service manager could not be told");
    }
}

/// Listens to SIGTERM, SIGINT and SIGHUP.
fn system_signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    // Two stops are all that anyone acts on.
    let (sender, receiver) = mpsc::channel(4);
    let forward = async move {
        loop {
            let signal = tokio::select! {
                Some(()) = terminate.recv() => Signal::Terminate,
                Some(()) = interrupt.recv() => Signal::Interrupt,
                Some(()) = reload.recv() => Signal::Reload,
                else => return,
            };
            if sender.send(signal).await.is_err() {
                return;
            }
        }
    };
    // It outlives every task on purpose, so it is not one of them: the second signal must still arrive.
    #[expect(clippy::disallowed_methods, reason = "not a task of the daemon, see above")]
    tokio::spawn(forward);
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn lifecycle() -> (Lifecycle, mpsc::Sender<Signal>) {
        let (sender, receiver) = mpsc::channel(4);
        (Lifecycle::with_signals(receiver), sender)
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_stops_every_task_and_waits_for_its_work() {
        let (lifecycle, signals) = lifecycle();
        let (done, mut drained) = mpsc::channel(1);
        lifecycle.tasks().spawn("worker", |stop| async move {
            stop.requested().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            done.send(()).await.unwrap();
        });
        signals.send(Signal::Terminate).await.unwrap();
        assert_eq!(lifecycle.run(GRACE).await, Ok(ExitCode::Healthy));
        assert!(drained.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_during_the_start_ends_it_and_drains_what_was_started() {
        let (mut lifecycle, signals) = lifecycle();
        let tasks = lifecycle.tasks();
        let (done, mut drained) = mpsc::channel(1);
        let start = async {
            tasks.spawn("worker", |stop| async move {
                stop.requested().await;
                done.send(()).await.unwrap();
            });
            signals.send(Signal::Reload).await.unwrap();
            signals.send(Signal::Interrupt).await.unwrap();
            std::future::pending::<()>().await;
        };
        assert_eq!(lifecycle.starting(start).await, None);
        assert_eq!(lifecycle.run(GRACE).await, Ok(ExitCode::Interrupted));
        assert!(drained.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_is_not_disturbed_is_handed_on() {
        let (mut lifecycle, signals) = lifecycle();
        signals.send(Signal::Reload).await.unwrap();
        let start = tokio::time::sleep(Duration::from_secs(1));
        assert_eq!(lifecycle.starting(start).await, Some(()));
        assert_eq!(
            *lifecycle.reloads().borrow(),
            1,
            "it is looked at after the start"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupt_shows_in_the_exit_code() {
        let (lifecycle, signals) = lifecycle();
        lifecycle
            .tasks()
            .spawn("worker", |stop| async move { stop.requested().await });
        signals.send(Signal::Interrupt).await.unwrap();
        assert_eq!(lifecycle.run(GRACE).await, Ok(ExitCode::Interrupted));
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_signal_forces() {
        let (lifecycle, signals) = lifecycle();
        lifecycle
            .tasks()
            .spawn("stubborn", |_| std::future::pending::<()>());
        signals.send(Signal::Terminate).await.unwrap();
        signals.send(Signal::Terminate).await.unwrap();
        let before = tokio::time::Instant::now();
        let failure = lifecycle.run(GRACE).await.unwrap_err();
        assert!(
            failure.what.contains("second signal") && failure.what.contains("stubborn"),
            "{failure}"
        );
        assert!(before.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_ends_what_does_not_stop() {
        let (lifecycle, signals) = lifecycle();
        lifecycle
            .tasks()
            .spawn("stubborn", |_| std::future::pending::<()>());
        signals.send(Signal::Terminate).await.unwrap();
        let before = tokio::time::Instant::now();
        let failure = lifecycle.run(GRACE).await.unwrap_err();
        assert!(failure.what.contains("grace period"), "{failure}");
        assert!(before.elapsed() >= GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_dies_takes_the_process_down_under_its_name() {
        async fn panics(_: Stop) {
            panic!("boom");
        }
        async fn fails(_: Stop) -> Result<(), std::io::Error> {
            Err(std::io::Error::other("no socket"))
        }
        async fn returns(_: Stop) {}
        for (kind, expected) in [
            (0, "task `it` panicked"),
            (1, "task `it` failed"),
            (2, "task `it` ended although nobody stopped it"),
        ] {
            let (lifecycle, _signals) = lifecycle();
            let tasks = lifecycle.tasks();
            tasks.spawn("other", |stop| async move { stop.requested().await });
            match kind {
                0 => tasks.spawn("it", panics),
                1 => tasks.spawn("it", fails),
                _ => tasks.spawn("it", returns),
            }
            let failure = lifecycle.run(GRACE).await.unwrap_err();
            assert_eq!(
                (failure.what.as_str(), failure.exit),
                (expected, ExitCode::Failed)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_brief_task_may_end_and_a_hang_up_only_reloads() {
        let (lifecycle, signals) = lifecycle();
        let tasks = lifecycle.tasks();
        let mut reloads = lifecycle.reloads();
        tasks.spawn_brief("brief", |_| async {});
        tasks.spawn("reloader", |stop| async move {
            reloads.changed().await.unwrap();
            stop.requested().await;
        });
        signals.send(Signal::Reload).await.unwrap();
        let running = tasks.clone();
        tasks.spawn("observer", |stop| async move {
            while running.running().contains(&"brief".to_owned()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            running.request_stop();
            stop.requested().await;
        });
        assert_eq!(lifecycle.run(GRACE).await, Ok(ExitCode::Healthy));
    }
}
