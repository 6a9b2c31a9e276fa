//! Named tasks: spawning, stopping, and the list of running tasks.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// Result of a task; an error is reported under the task's name.
pub type TaskResult = Result<(), Box<dyn Error + Send + Sync>>;

#[derive(Debug, Clone)]
pub struct Stop {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Stop {
    /// A stop that is never requested, for parts that run outside of a daemon.
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

    /// Returns the stop of a part that may end before the rest: requested with this one, or by [`Stop::request`].
    #[must_use]
    pub fn of_part(&self) -> Self {
        Self {
            soft: self.soft.child_token(),
            hard: self.hard.clone(),
        }
    }

    /// Asks whatever has this stop to stop softly; of a part, nothing else.
    pub fn request(&self) {
        self.soft.cancel();
    }

    /// Makes every task drop even work in progress.
    pub(super) fn force(&self) {
        self.hard.cancel();
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
    running: Mutex<Running>,
    exits: mpsc::UnboundedSender<TaskExit>,
}

type Running = BTreeMap<u64, (String, AbortHandle)>;

pub(super) struct TaskExit {
    pub(super) id: u64,
    pub(super) name: String,
    /// Whether it may exit before a stop.
    pub(super) brief: bool,
    pub(super) outcome: TaskOutcome,
}

/// How it ended.
pub(super) enum TaskOutcome {
    /// By itself.
    Returned(TaskResult),
    /// It panicked or was aborted.
    Panicked,
}

/// Reports the end of a task however it ends.
struct Report {
    exits: Option<TaskExit>,
    to: mpsc::UnboundedSender<TaskExit>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(exits) = self.exits.take() {
            // After the end of the lifecycle there is no receiver, and none is needed.
            let _ = self.to.send(exits);
        }
    }
}

impl Tasks {
    /// Starts without tasks; the receiver gets the exits of later ones.
    pub(super) fn none() -> (Self, mpsc::UnboundedReceiver<TaskExit>) {
        let (sender, exits) = mpsc::unbounded_channel();
        let shared = Shared {
            stop: Stop::never(),
            next: AtomicU64::new(0),
            running: Mutex::new(Running::new()),
            exits: sender,
        };
        let tasks = Self {
            shared: Arc::new(shared),
        };
        (tasks, exits)
    }

    /// Starts a task that is to run until it is stopped.
    pub fn spawn<F, R>(&self, name: impl Into<String>, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = R> + Send + 'static,
        R: IntoTaskResult,
    {
        self.start(name.into(), false, task(self.shared.stop.clone()));
    }

    /// Starts a task that may end by itself, but not by panic or error.
    pub fn spawn_finite<F, R>(&self, name: impl Into<String>, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = R> + Send + 'static,
        R: IntoTaskResult,
    {
        self.start(name.into(), true, task(self.shared.stop.clone()));
    }

    pub fn stop(&self) -> Stop {
        self.shared.stop.clone()
    }

    /// Asks every task to stop softly, as a signal would.
    pub fn request_stop(&self) {
        self.shared.stop.request();
    }

    /// Returns the names of the tasks that run.
    pub fn running(&self) -> Vec<String> {
        self.list().values().map(|(name, _)| name.clone()).collect()
    }

    /// Takes a task off the list.
    pub(super) fn strike(&self, id: u64) {
        self.list().remove(&id);
    }

    pub(super) fn abort(&self) {
        self.list().values().for_each(|(_, handle)| handle.abort());
    }

    fn list(&self) -> MutexGuard<'_, Running> {
        self.shared.running.lock()
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
            exits: Some(TaskExit {
                id,
                name: name.clone(),
                brief,
                outcome: TaskOutcome::Panicked,
            }),
            to: self.shared.exits.clone(),
        };
        // Held while spawning: the exit of a task cannot be reported before the task is in the table.
        let mut running = self.list();
        let handle = tokio::spawn(async move {
            let result = task.await.into_task_result();
            if let Some(exits) = &mut report.exits {
                exits.outcome = TaskOutcome::Returned(result);
            }
        });
        running.insert(id, (name, handle.abort_handle()));
    }
}

/// What a task's future may yield.
pub trait IntoTaskResult {
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
