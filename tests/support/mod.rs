//! Runs the program as a person would, in a home of its own.

pub mod bare_engine;
pub mod certificates;
pub mod flaky;
pub mod process;
pub mod proxy;
pub mod pty;
pub mod relay;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// An empty home directory, deleted after the test.
pub struct Home {
    directory: TempDir,
    environment: BTreeMap<String, String>,
}

/// The result of a run.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A port for a program that is stopped and started again: no other process is given it while the program is down.
pub struct ReservedPort {
    pub number: u16,
    /// Bound and never listening, so that a program that sets `SO_REUSEADDR` can listen beside it. Only Linux allows that.
    _socket: Option<tokio::net::TcpSocket>,
}

impl ReservedPort {
    pub fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self {
            number: socket.local_addr().unwrap().port(),
            _socket: cfg!(target_os = "linux").then_some(socket),
        }
    }
}

impl Home {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("work")).unwrap();
        Self {
            directory,
            environment: BTreeMap::new(),
        }
    }

    /// The directory in which the program is started.
    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Where the program keeps its state.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state/bitbrat")
    }

    /// Where `TMPDIR` is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file below the working directory.
    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.work().join(name), text).unwrap();
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Prepares a run, independent of the environment of the test process.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_through(&[], words)
    }

    /// As [`Home::command`], started by another program.
    pub fn command_through(&self, starter: &[&str], words: &[&str]) -> Command {
        let mut line = starter.to_vec();
        line.push(env!("CARGO_BIN_EXE_bitbrat"));
        line.extend(words);
        self.command_of(&line)
    }

    /// Prepares any command line, in the same environment.
    pub fn command_of(&self, line: &[&str]) -> Command {
        let mut command = Command::new(line[0]);
        let home = self.directory.path();
        command
            .args(&line[1..])
            .current_dir(self.work())
            .env_clear()
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_STATE_HOME", home.join("state"))
            .env("TMPDIR", home)
            .env("LC_ALL", "C.UTF-8")
            .envs(&self.environment);
        command
    }

    /// Runs a line of bash, in the same environment.
    pub fn shell(&self, line: &str) -> std::process::Output {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut command = self.command_through(&["bash", "-c", line], &[]);
        command.env("PATH", path).output().unwrap()
    }

    pub fn run(&self, words: &[&str]) -> Run {
        self.run_with(words, "")
    }

    /// Runs the program with something on standard input.
    pub fn run_with(&self, words: &[&str], input: &str) -> Run {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A program that does not read its input may have exited already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Run {
    /// Checks the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Checks that standard error contains a text.
    #[track_caller]
    pub fn names_account(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is not in\n{}", self.stderr);
        self
    }

    /// Checks that standard output contains a text.
    #[track_caller]
    pub fn shows(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "`{text}` is not in\n{}", self.stdout);
        self
    }

    /// Checks that there was no panic.
    #[track_caller]
    pub fn never_panics(self) -> Self {
        assert!(
            !self.stderr.contains("panicked") && self.code != 101,
            "{}",
            self.stderr
        );
        self
    }

    /// Returns standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in\n{}\n{}", self.stdout, self.stderr))
    }

    /// Returns the entry of a JSON report whose field has this value.
    #[track_caller]
    pub fn item(&self, field: &str, value: &str) -> Value {
        let json = self.json();
        let items = json["items"].as_array().expect("every report has items");
        items
            .iter()
            .find(|item| item[field] == value)
            .unwrap_or_else(|| panic!("no item with {field} {value} in {json:#}"))
            .clone()
    }
}

/// Returns the permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
