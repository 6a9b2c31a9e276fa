//! Lifecycle of the daemon: named supervised tasks, a soft stop that drains, a hard stop that cancels.
//!
//! Only this module spawns tasks. A task that exits before a stop was requested, or panics, terminates the process with an error
//! that contains its name: a daemon with a failed part must not pass for healthy.

#[cfg(unix)]
mod notify;
#[cfg(not(unix))]
#[path = "lifecycle/no_notify.rs"]
mod notify;
mod tasks;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

pub use self::tasks::{IntoTaskResult, Stop, TaskResult, Tasks};
use self::tasks::{TaskExit, TaskOutcome};
use crate::failure::{ExitCode, Failure};
use crate::os::{Signal, Signals};
use crate::telemetry::names;

/// How long tasks may take after the hard stop before they are aborted.
const CUT: Duration = Duration::from_millis(250);

/// Owns the tasks of a daemon from start to end.
pub struct Lifecycle {
    tasks: Tasks,
    exits: mpsc::UnboundedReceiver<TaskExit>,
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
    /// Starts without tasks and without signal handling.
    pub fn new() -> Self {
        Self::with_signals(mpsc::channel(1).1)
    }

    /// Starts without tasks, and handles the signals of the system from now on: one that arrives while the daemon is still
    /// starting must neither kill it nor be lost.
    pub fn listening() -> Result<Self, Failure> {
        let signals = system_signals()
            .map_err(|error| Failure::new(ExitCode::Failed, "cannot listen to signals").because(&error))?;
        Ok(Self::with_signals(signals))
    }

    /// Starts without tasks, with signals from elsewhere.
    pub fn with_signals(signals: mpsc::Receiver<Signal>) -> Self {
        let (tasks, exits) = Tasks::none();
        Self {
            tasks,
            exits,
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

    /// Runs the start of a daemon; `None` when a signal requested a stop before that was done. [`Lifecycle::run`] then only
    /// drains.
    pub async fn starting<T>(&mut self, start: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(start);
        loop {
            tokio::select! {
                started = &mut start => return Some(started),
                () = Self::handle_signal(&mut self.signals, &self.tasks, &self.reloads, &mut self.exit) => {
                    if self.tasks.stop().is_requested() {
                        return None;
                    }
                }
            }
        }
    }

    async fn handle_signal(
        signals: &mut mpsc::Receiver<Signal>,
        tasks: &Tasks,
        reloads: &watch::Sender<u64>,
        exit: &mut ExitCode,
    ) {
        match signals.recv().await {
            Some(Signal::Reload) => reloads.send_modify(|count| *count += 1),
            Some(signal) => {
                info!(name: names::STOPPING, ?signal, "Stopping");
                if signal == Signal::Interrupt {
                    *exit = ExitCode::Interrupted;
                }
                tasks.request_stop();
            }
            None => std::future::pending().await,
        }
    }

    /// Runs until a signal, a task that exited or [`Tasks::request_stop`] ends it, then drains for at most `grace`.
    pub async fn run(mut self, grace: Duration) -> Result<ExitCode, Failure> {
        let stop = self.tasks.stop();
        let mut dead: Option<Failure> = None;
        while !stop.is_requested() {
            tokio::select! {
                () = Self::handle_signal(&mut self.signals, &self.tasks, &self.reloads, &mut self.exit) => {}
                Some(exit) = self.exits.recv() => dead = self.on_task_exit(exit, false).or(dead),
                () = stop.requested() => {}
            }
            if dead.is_some() {
                self.tasks.request_stop();
            }
        }
        notify::stopping();
        let deadline = tokio::time::sleep(grace);
        tokio::pin!(deadline);
        let mut cut_because = None;
        while cut_because.is_none() && !self.tasks.running().is_empty() {
            tokio::select! {
                Some(exit) = self.exits.recv() => dead = dead.or(self.on_task_exit(exit, true)),
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
                match self.exits.recv().await {
                    Some(exit) => drop(self.on_task_exit(exit, true)),
                    None => break,
                }
            }
        };
        if tokio::time::timeout(CUT, left).await.is_err() {
            self.tasks.abort();
        }
    }

    /// Removes an exited task from the list; a failure when it exited unexpectedly.
    fn on_task_exit(&self, exit: TaskExit, stopping: bool) -> Option<Failure> {
        let TaskExit {
            id,
            name,
            brief,
            outcome,
        } = exit;
        self.tasks.strike(id);
        let stopping = stopping || self.tasks.stop().is_requested();
        let failure = match outcome {
            TaskOutcome::Returned(Ok(())) if stopping || brief => return None,
            TaskOutcome::Returned(Ok(())) => {
                Failure::new(ExitCode::Failed, format!("task `{name}` exited unexpectedly"))
            }
            TaskOutcome::Returned(Err(error)) => match error.downcast::<Failure>() {
                Ok(failure) => failure.while_doing(format!("task `{name}` failed")),
                Err(error) => {
                    let error: Box<dyn Error> = error;
                    Failure::new(ExitCode::Failed, format!("task `{name}` failed")).because(error.as_ref())
                }
            },
            TaskOutcome::Panicked => Failure::new(ExitCode::Failed, format!("task `{name}` panicked"))
                .hint("this is a bug in bitbrat; please report it with the log"),
        };
        error!(task = name, "{}", failure.what);
        Some(failure)
    }
}

/// Notifies the service manager that the daemon is ready, with its status, and resets its watchdog as long as `healthy` returns
/// true.
pub fn announce_ready(tasks: &Tasks, status: &str, healthy: impl Fn() -> bool + Send + 'static) {
    notify::ready(status);
    let Some(patience) = notify::watchdog() else {
        return;
    };
    tasks.spawn("service-watchdog", |stop| async move {
        while stop.sleep(patience / 3).await {
            if healthy() {
                notify::alive();
            }
        }
    });
}

/// Notifies the service manager of a changed status.
pub fn announce_status(status: &str) {
    notify::status(status);
}

/// Handles the signals of the system.
fn system_signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    let mut signals = Signals::new()?;
    // Only two stops have an effect.
    let (sender, receiver) = mpsc::channel(4);
    let forward = async move {
        while let Some(signal) = signals.recv().await {
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
