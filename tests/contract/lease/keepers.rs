//! Keepers in this process and in another one, which can be stopped.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use bitbrat::clock::Chance;
use bitbrat::lease::{
    BootClock, Fence, FenceRegister, Guard, Keeper, LeaseEngine, LeaseState, SystemBootClock, Terms,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::suite::name;
use super::worlds::{TTL, open_described};
use crate::support::process::again;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running keeper.
pub struct Kept {
    pub guard: Guard,
    pub note: watch::Sender<String>,
    pub state: watch::Receiver<LeaseState>,
    pub done: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kept {
    pub fn start(engine: Arc<dyn LeaseEngine>, member: &str) -> Self {
        Self::start_with(
            engine,
            member,
            Arc::new(SystemBootClock),
            FenceRegister::default(),
        )
    }

    pub fn start_with(
        engine: Arc<dyn LeaseEngine>,
        member: &str,
        clock: Arc<dyn BootClock>,
        register: FenceRegister,
    ) -> Self {
        let guard = Guard::new(Arc::clone(&clock));
        let (note, notes) = watch::channel(String::new());
        let (sender, state) = watch::channel(LeaseState::Waiting(String::new()));
        let keeper = Keeper {
            engine,
            name: name(),
            member: member.parse().unwrap(),
            terms: Terms::lasting(TTL),
            clock,
            chance: Chance::seeded(7),
            guard: guard.clone(),
            note: notes,
            state: sender,
            register,
        };
        let done = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "a test owns its tasks itself")]
        let task = tokio::spawn(keeper.run(done.clone()));
        Self {
            guard,
            note,
            state,
            done,
            task,
        }
    }

    /// Waits until it may act, and returns its fence.
    pub async fn acts(&mut self) -> Fence {
        let acting = async {
            loop {
                if let Some(fence) = self.guard.check() {
                    return fence;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, acting).await.expect("it takes the lease")
    }

    /// The fence of the acquisition that holds the lease.
    pub fn fence(&self) -> Option<Fence> {
        match &*self.state.borrow() {
            LeaseState::Held { fence, .. } => Some(*fence),
            _ => None,
        }
    }

    pub async fn reaches(&mut self, wanted: impl Fn(&LeaseState) -> bool) {
        let reached = self.state.wait_for(wanted);
        timeout(PATIENCE, reached).await.expect("it changes").unwrap();
    }
}

/// A process that keeps the lease and writes down each of its actions.
pub struct Stoppable {
    child: Child,
    directory: tempfile::TempDir,
}

const VARIABLES: [&str; 3] = ["LEASE_KIND", "LEASE_ENGINE", "LEASE_LOG"];

impl Drop for Stoppable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stoppable {
    pub fn start(kind: &str, description: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log").display().to_string();
        let mut command = again("contract::lease::keepers::holds_a_lease_and_writes_down_its_actions");
        for (variable, value) in VARIABLES.iter().zip([kind, description, &log]) {
            command.env(variable, value);
        }
        let quiet = std::process::Stdio::null;
        let child = command.stdout(quiet()).stderr(quiet()).spawn().unwrap();
        Self { child, directory }
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The fences of its actions.
    pub fn acts(&self) -> Vec<Fence> {
        let lines = self.lines();
        let fences = lines.iter().filter_map(|line| line.strip_prefix("act "));
        fences.map(|fence| Fence(fence.parse().unwrap())).collect()
    }

    /// Waits until it acts, and returns its fence.
    pub async fn acts_under(&self) -> Fence {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(fence) = self.acts().first() {
                return *fence;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("it never acts: {:?}", self.lines());
    }

    /// Waits until it has noticed that the lease is lost.
    pub async fn loses(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.lines().iter().any(|line| line == "lost") {
            assert!(Instant::now() < until, "it notices nothing: {:?}", self.lines());
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn signal(&mut self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

/// Runs in the other process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of `stopped_process_does_not_act_after_a_takeover`"]
async fn holds_a_lease_and_writes_down_its_actions() {
    let [kind, description, log] = VARIABLES.map(|variable| std::env::var(variable).unwrap());
    let mut log = std::fs::File::create(PathBuf::from(log)).unwrap();
    let kept = Kept::start(open_described(&kind, &description).await, "child");
    let mut has_acted = false;
    loop {
        if let Some(fence) = kept.guard.check() {
            log.write_all(format!("act {fence}\n").as_bytes()).unwrap();
            has_acted = true;
        } else if has_acted && kept.fence().is_none() {
            log.write_all(b"lost\n").unwrap();
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
