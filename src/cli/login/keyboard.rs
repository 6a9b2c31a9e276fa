//! Questions on the terminal.

use std::io::{BufRead as _, IsTerminal as _};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::sync::mpsc;

use crate::cli::output::write_err;
use crate::failure::{ExitCode, Failure};

/// Lines that are typed at the terminal. Without a terminal no question is asked.
pub struct Keyboard {
    is_there: bool,
    lines: Option<mpsc::Receiver<String>>,
}

impl Keyboard {
    /// Asks where standard input and standard error are a terminal. Nothing is read before the first question.
    pub fn open() -> Self {
        Self {
            is_there: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
            lines: None,
        }
    }

    /// Returns whether there is a terminal to ask on.
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// Returns the next line; `None` after the end of the input.
    ///
    /// A thread of its own reads the lines: a read of a terminal cannot be cancelled, and tokio would wait for it at the end. There
    /// is one per process, because a second one would miss what the first one has read.
    async fn next(&mut self) -> Option<String> {
        let lines = self.lines.get_or_insert_with(|| {
            let (lines, receiver) = mpsc::channel(4);
            std::thread::spawn(move || {
                for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                    if lines.blocking_send(line).is_err() {
                        break;
                    }
                }
            });
            receiver
        });
        lines.recv().await
    }

    /// Returns the next line; never without a terminal, or after its end.
    pub async fn line(&mut self) -> String {
        if self.is_there
            && let Some(line) = self.next().await
        {
            return line;
        }
        self.is_there = false;
        std::future::pending().await
    }

    /// Asks a question and returns what was typed.
    pub async fn asks(&mut self, question: &str) -> Result<String, Failure> {
        write_err(question)?;
        let line = self.next().await;
        let line =
            line.ok_or_else(|| Failure::new(ExitCode::Interrupted, "the question was not answered"))?;
        Ok(line.trim().to_owned())
    }

    /// Asks a question; Enter alone means `usual`. Without a terminal there is no answer.
    pub async fn confirms(&mut self, question: &str, usual: bool) -> Result<Option<bool>, Failure> {
        if !self.is_there {
            return Ok(None);
        }
        let choice = if usual { "[Y/n]" } else { "[y/N]" };
        let line = self.asks(&format!("{question} {choice} ")).await?;
        Ok(Some(is_yes(&line, usual)))
    }

    /// Asks for a secret, which the terminal does not show.
    pub async fn asks_hidden(&mut self, question: &str) -> Result<String, Failure> {
        crate::os::end_on_hangup().map_err(|error| {
            Failure::new(ExitCode::Failed, "cannot prepare the terminal for a secret").because(&error)
        })?;
        let _hidden = Hidden::begin();
        self.asks(question).await
    }
}

/// What is typed is not shown until this is dropped, also by a signal that ends the command.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Self {
        let Ok(shown) = termios::tcgetattr(std::io::stdin()) else {
            return Self(None);
        };
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        let is_set = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &hidden);
        Self(is_set.is_ok().then_some(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(shown) = &self.0 {
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, shown);
        }
    }
}

fn is_yes(line: &str, usual: bool) -> bool {
    match &*line.trim().to_lowercase() {
        "" => usual,
        "y" | "yes" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_or_enter_confirms() {
        for (line, expected) in [
            ("", true),
            ("y\n", true),
            ("YES", true),
            ("n", false),
            ("what?", false),
        ] {
            assert_eq!(is_yes(line, true), expected, "{line}");
        }
        assert!(!is_yes("", false) && is_yes("y", false));
    }
}
