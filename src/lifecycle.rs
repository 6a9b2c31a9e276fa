//! How the daemon lives and ends: named supervised tasks, a soft stop that drains, a hard stop that cuts.
//!
//! This is the one place that spawns. A task that ends before it was asked to, or panics, takes the process down under
//! its own name: a daemon with a dead part must not look healthy.

mod tasks;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use self::tasks::{Ended, Outcome};
pub use self::tasks::{IntoTaskResult, Stop, TaskResult, Tasks};
use crate::failure::{ExitCode, Failure};

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
        let (tasks, ended) = Tasks::none();
        Self {
            tasks,
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
                self.tasks.request_stop();
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
            self.cut(&stop).await;
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

    async fn cut(&mut self, stop: &Stop) {
        stop.force();
        let left = async {
            while !self.tasks.running().is_empty() {
                match self.ended.recv().await {
                    Some(ended) => drop(self.buried(ended, true)),
                    None => break,
                }
            }
        };
        if tokio::time::timeout(CUT, left).await.is_err() {
            self.tasks.abort();
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
        self.tasks.strike(id);
        let stopping = stopping || self.tasks.stop().is_requested();
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
