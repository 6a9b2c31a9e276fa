//! The program on a pseudo terminal, which `script` of util-linux provides, with a person who reads and types.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use super::Home;
use super::process::PATIENCE;

/// A line of bash on a terminal of 120 columns.
pub struct Pty {
    child: Child,
    keys: Option<ChildStdin>,
    bytes: mpsc::Receiver<Vec<u8>>,
    seen: Vec<u8>,
    /// How much of `seen` was waited for already.
    read: usize,
}

impl Pty {
    /// Starts `line`, in which `bitbrat` is the program.
    pub fn start(home: &Home, line: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_bitbrat");
        let setup = "stty cols 120 rows 50";
        let script = format!("bitbrat() {{ '{program}' \"$@\"; }}; {setup}; {line}");
        let words = [
            "script",
            "--quiet",
            "--return",
            "--echo",
            "always",
            "--command",
            &script,
            "/dev/null",
        ];
        let mut command = home.command_of(&words);
        let is_set = |name: &str| command.get_envs().any(|(known, _)| known == name);
        if !is_set("TERM") {
            command.env("TERM", "xterm");
        }
        let mut child = command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SHELL", "/bin/bash")
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut screen = child.stdout.take().unwrap();
        let (sender, bytes) = mpsc::channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut part) {
                if sender.send(part[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keys: child.stdin.take(),
            child,
            bytes,
            seen: Vec::new(),
            read: 0,
        }
    }

    /// Everything that was on the screen.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Waits for `text` after what was waited for before, and returns what came up to the end of its line, as far as it is there.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let new = String::from_utf8_lossy(&self.seen[self.read..]).into_owned();
            if let Some(at) = new.find(text) {
                self.read += at + text.len();
                return new[..at + text.len()].to_owned();
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.bytes.recv_timeout(left) {
                Ok(part) => self.seen.extend(part),
                Err(error) => panic!("{error}: `{text}` is not in:\n{new}\nafter:\n{}", self.said()),
            }
        }
    }

    /// Waits until `is_there` holds for everything that was written.
    #[track_caller]
    pub fn waits_until(&mut self, what: &str, is_there: impl Fn(&[u8]) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_there(&self.seen) {
            let left = until.saturating_duration_since(Instant::now());
            match self.bytes.recv_timeout(left) {
                Ok(part) => self.seen.extend(part),
                Err(error) => panic!("{error}: {what} after:\n{}", self.said()),
            }
        }
        self.read = self.seen.len();
    }

    /// Types `text`, as it is: Enter is `\n`, Ctrl-C is `\x03`.
    pub fn types(&mut self, text: &str) {
        let keys = self.keys.as_mut().unwrap();
        keys.write_all(text.as_bytes()).unwrap();
        keys.flush().unwrap();
    }

    /// Waits for a question and answers it.
    #[track_caller]
    pub fn answers(&mut self, question: &str, answer: &str) {
        self.shows(question);
        self.types(&format!("{answer}\n"));
    }

    /// Waits for the end and returns the exit code.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        while let Ok(part) = self
            .bytes
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.seen.extend(part);
        }
        drop(self.keys.take());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
