//! Runs the programs of `[[hook]]`: the event on standard input, a limit of time, no shell, and no secret in the environment.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::rule::HookRule;
use super::step::hook_receiver;
use super::text::{Unit, clean, fit};
use crate::blocking::blocking;
use crate::clock::Clock;
use crate::lifecycle::Stop;
use crate::watch::state_file::{StateFile, StateFileError, StoredDelivery};

/// How often the queue is checked without a notification.
const IDLE: Duration = Duration::from_secs(1);
/// Variables that a program gets: those that it needs to find files and other programs. Every other one could be a secret.
const PASSED_ON: [&str; 11] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SYSTEMROOT",
    "TEMP",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];
/// How much of a failing program's standard error is logged, in characters.
const LOGGED: usize = 300;

/// Runs one hook.
pub struct HookRunner {
    /// Where the events wait.
    pub state_file: Arc<StateFile>,
    /// The hook.
    pub rule: HookRule,
    /// The time of its runs.
    pub clock: Arc<dyn Clock>,
    /// Notified when events wait.
    pub wake: Arc<Notify>,
}

impl HookRunner {
    /// Runs until it is stopped. Events that were not passed on by then wait in the file; a run that is in progress is not repeated.
    pub async fn run(self, stop: Stop) -> Result<(), StateFileError> {
        loop {
            let ran = match self.turn(&stop).await {
                Ok(ran) => ran,
                Err(error) if error.is_transient() => false,
                Err(error) => return Err(error),
            };
            if stop.is_requested() {
                return Ok(());
            }
            if ran {
                continue;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(IDLE) => {}
                () = stop.requested() => return Ok(()),
            }
        }
    }

    /// Passes the oldest events to as many runs as there may be at a time. Returns whether there were any.
    async fn turn(&self, stop: &Stop) -> Result<bool, StateFileError> {
        let (file, name) = (Arc::clone(&self.state_file), hook_receiver(&self.rule.name));
        let at_most = self.rule.at_most;
        let waiting = blocking(move || {
            let waiting = file.next_deliveries(&name, at_most)?;
            // Before the run: a program that acts on the world must not do so twice because we were killed.
            for delivery in &waiting {
                file.delivered(delivery, None, None)?;
            }
            Ok::<_, StateFileError>(waiting)
        });
        let waiting = waiting.await?;
        let runs = join_all(waiting.iter().map(|delivery| self.run_once(delivery)));
        let outcomes = tokio::select! {
            outcomes = runs => outcomes,
            () = stop.cut() => return Ok(true),
        };
        // Runs of one turn are concurrent: one that failed counts as the last.
        let failure = outcomes
            .iter()
            .find_map(|outcome| outcome.as_ref().err().cloned());
        if !outcomes.is_empty() {
            let (file, name) = (Arc::clone(&self.state_file), hook_receiver(&self.rule.name));
            let at = self.clock.now();
            blocking(move || file.record_attempt(&name, at, failure.as_deref())).await?;
        }
        Ok(!waiting.is_empty())
    }

    async fn run_once(&self, delivery: &StoredDelivery) -> Result<(), String> {
        let hook = &self.rule.name;
        let outcome = run(&self.rule, &delivery.kind, &delivery.message).await;
        match &outcome {
            Ok(()) => debug!(hook, trigger = delivery.kind, "Hook finished"),
            Err(reason) => warn!(hook, trigger = delivery.kind, reason, "The hook `{hook}` failed"),
        }
        outcome
    }
}

/// Runs the program of a hook once. The error is the reason for people.
pub async fn run(rule: &HookRule, trigger: &str, input: &str) -> Result<(), String> {
    let (program, args) = rule.command.split_first().ok_or("no program is configured")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(
            PASSED_ON
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .env("BITBRAT_HOOK", &rule.name)
        .env("BITBRAT_TRIGGER", trigger)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let stdin = child.stdin.take();
    let writing = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read it has closed it; that is its business.
            let _ = stdin.write_all(input.as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
    };
    let finishing = async {
        let ((), output) = tokio::join!(writing, child.wait_with_output());
        output
    };
    let output = match tokio::time::timeout(rule.timeout, finishing).await {
        Ok(output) => output.map_err(|error| format!("cannot wait for {program}: {error}"))?,
        Err(_) => {
            let seconds = rule.timeout.as_secs_f64();
            return Err(format!("{program} was stopped: it ran for more than {seconds} s"));
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let said = fit(
        &clean(&String::from_utf8_lossy(&output.stderr)),
        LOGGED,
        Unit::Characters,
    );
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    };
    Err(format!("{program} ended with {}{said}", output.status))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn hook(command: &[&str], timeout: Duration) -> HookRule {
        HookRule {
            name: "test".to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            on: Vec::new(),
            sources: Vec::new(),
            timeout,
            at_most: 1,
        }
    }

    #[tokio::test]
    async fn program_gets_the_event_and_a_bare_environment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let script = "cat > \"$1\"; env >> \"$1\"";
        let command = ["/bin/sh", "-c", script, "sh", path.to_str().unwrap()];
        let rule = hook(&command, Duration::from_secs(60));
        run(&rule, "stream.online", "{\"a\": \"$HOME; rm\"}")
            .await
            .unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("{\"a\": \"$HOME; rm\"}"), "{text}");
        assert!(text.contains("BITBRAT_TRIGGER=stream.online"), "{text}");
        // The test runner sets this one.
        assert!(!text.contains("CARGO"), "{text}");
    }

    #[tokio::test]
    async fn failures_and_endless_programs_are_reported() {
        let failing = hook(
            &["/bin/sh", "-c", "echo broken >&2; exit 3"],
            Duration::from_secs(60),
        );
        let error = run(&failing, "", "").await.unwrap_err();
        assert!(
            error.contains("exit status: 3") && error.ends_with("broken"),
            "{error}"
        );
        let endless = hook(&["/bin/sh", "-c", "sleep 600"], Duration::from_millis(50));
        assert!(run(&endless, "", "").await.unwrap_err().contains("was stopped"));
        let missing = hook(&["/nonexistent/program"], Duration::from_secs(1));
        assert!(
            run(&missing, "", "")
                .await
                .unwrap_err()
                .contains("cannot run /nonexistent")
        );
    }
}
