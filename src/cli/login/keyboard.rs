//! Questions on the terminal.

use std::io::{BufRead as _, IsTerminal as _};

use tokio::sync::mpsc;

use crate::cli::output::write_err;
use crate::failure::{ExitCode, Failure};

/// Lines that are typed at the terminal. Without a terminal no question is asked.
pub struct Keyboard(Option<mpsc::Receiver<String>>);

impl Keyboard {
    /// Reads lines where standard input and standard error are a terminal.
    ///
    /// A thread of its own reads them: a read of a terminal cannot be cancelled, and tokio would wait for it at the end.
    pub fn open() -> Self {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return Self(None);
        }
        let (lines, receiver) = mpsc::channel(4);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if lines.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        Self(Some(receiver))
    }

    /// Returns whether there is a terminal to ask on.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the next line; never without a terminal, or after its end.
    pub async fn line(&mut self) -> String {
        if let Some(lines) = &mut self.0
            && let Some(line) = lines.recv().await
        {
            return line;
        }
        self.0 = None;
        std::future::pending().await
    }

    /// Asks a question; Enter alone means `usual`. Without a terminal there is no answer.
    pub async fn confirms(&mut self, question: &str, usual: bool) -> Result<Option<bool>, Failure> {
        let Some(lines) = &mut self.0 else {
            return Ok(None);
        };
        let choice = if usual { "[Y/n]" } else { "[y/N]" };
        write_err(&format!("{question} {choice} "))?;
        let line = lines.recv().await;
        let line =
            line.ok_or_else(|| Failure::new(ExitCode::Interrupted, "the question was not answered"))?;
        Ok(Some(is_yes(&line, usual)))
    }
}

fn is_yes(line: &str, usual: bool) -> bool {
    match &*line.trim().to_lowercase() {
        "" => usual,
        "y" | "yes" => true,
        _ => false,
    }
}

/// Reads a secret from the terminal without showing it.
pub fn read_hidden(question: &str) -> Result<String, Failure> {
    write_err(question)?;
    console::Term::stderr()
        .read_secure_line()
        .map_err(|error| Failure::new(ExitCode::Usage, "cannot read from the terminal").because(&error))
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
