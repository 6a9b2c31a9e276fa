//! Failures of commands as people see them: what went wrong, why, what to do next, and the exit code.
//!
//! Internally, every role has a typed error; here they are converted into one [`Failure`]. Rendering stays plain text; the
//! command line decides where it is written.

use std::error::Error;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Problems;
use crate::core::code::Code;
use crate::core::source::InvalidSourceKey;
use crate::os::Signal;
use crate::platforms::PlatformError;
use crate::store::StoreError;

/// Exit code of the process. The numbers are frozen; `bitbrat help exit-codes` prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// All healthy, or the predicate is true.
    Healthy = 0,
    /// bitbrat itself failed, or the predicate is false.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A source is down or degraded.
    Down = 3,
    /// An authorization is expired, revoked or missing.
    Unauthorized = 4,
    /// There is no such source.
    NoSuchSource = 5,
    /// The configuration is invalid.
    Configuration = 6,
    /// There is not enough evidence to answer.
    NoEvidence = 8,
    /// `wait` ran out of time.
    TimedOut = 124,
    /// Ended by SIGHUP, or because the terminal is gone.
    HungUp = 129,
    /// Interrupted by SIGINT, as by Ctrl-C.
    Interrupted = 130,
    /// Ended by SIGQUIT, as by Ctrl-\\.
    Quit = 131,
    /// Stopped by SIGTERM.
    Terminated = 143,
}

impl ExitCode {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 13] = [
        Self::Healthy,
        Self::Failed,
        Self::Usage,
        Self::Down,
        Self::Unauthorized,
        Self::NoSuchSource,
        Self::Configuration,
        Self::NoEvidence,
        Self::TimedOut,
        Self::HungUp,
        Self::Interrupted,
        Self::Quit,
        Self::Terminated,
    ];

    /// Returns the code of a command that a signal ended: 128 and the number of the signal, as shells report it.
    pub fn of_signal(signal: Signal) -> Self {
        match signal {
            Signal::Terminate => Self::Terminated,
            Signal::Interrupt => Self::Interrupted,
            Signal::Quit => Self::Quit,
            Signal::Reload => Self::HungUp,
        }
    }

    /// Returns the exit status as a number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Returns the code of a failure with this exit code, for programs.
    pub fn code(self) -> Code {
        match self {
            Self::Healthy => Code::Healthy,
            Self::Failed => Code::Failed,
            Self::Usage => Code::Usage,
            Self::Down => Code::Down,
            Self::Unauthorized => Code::CommandUnauthorized,
            Self::NoSuchSource => Code::NoSuchSource,
            Self::Configuration => Code::ConfigurationInvalid,
            Self::NoEvidence => Code::NoEvidence,
            Self::TimedOut => Code::TimedOut,
            Self::HungUp | Self::Interrupted | Self::Quit | Self::Terminated => Code::Interrupted,
        }
    }

    /// Returns a short description of the code.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Healthy => "all healthy, or the predicate is true",
            Self::Failed => "bitbrat failed, or the predicate is false",
            Self::Usage => "the command line is wrong",
            Self::Down => "a source is down or degraded",
            Self::Unauthorized => "an authorization is expired, revoked or missing",
            Self::NoSuchSource => "there is no such source",
            Self::Configuration => "the configuration is invalid",
            Self::NoEvidence => "not enough evidence to answer",
            Self::TimedOut => "`wait` timed out",
            Self::HungUp => "ended by SIGHUP: the terminal is gone",
            Self::Interrupted => "interrupted by SIGINT (Ctrl-C)",
            Self::Quit => "ended by SIGQUIT (Ctrl-\\)",
            Self::Terminated => "stopped by SIGTERM",
        }
    }

    /// Returns the code that takes precedence when several apply: an authorization before a source that is down before missing
    /// evidence before health (design decision); anything else takes precedence over these.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |code: Self| match code {
            Self::Healthy => 0,
            Self::NoEvidence => 1,
            Self::Down => 2,
            Self::Unauthorized => 3,
            _ => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// A failed command as programs see it: one line of JSON on standard error, after any warnings.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureDocument {
    /// Always `bitbrat/v1`.
    pub api_version: &'static str,
    /// Always `Error`.
    pub kind: &'static str,
    /// The stable name of the failure: `usage`, `no_such_source`, `configuration_invalid`, ….
    #[schemars(with = "String")]
    pub code: Code,
    /// The exit code of the process.
    pub exit_code: u8,
    /// What could not be done.
    pub message: String,
    /// Why, outermost cause first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// Returns `failure` as one line of JSON.
pub fn as_json(failure: &Failure) -> String {
    let document = FailureDocument {
        api_version: "bitbrat/v1",
        kind: "Error",
        code: failure.exit.code(),
        exit_code: failure.exit.number(),
        message: failure.what.clone(),
        causes: failure.causes.clone(),
        hints: failure.hints.clone(),
    };
    serde_json::to_string(&document).expect("text and numbers can be written as JSON") + "\n"
}

/// A failed command, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What could not be done.
    pub what: String,
    /// Why, outermost cause first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hints: Vec<String>,
    /// The exit code.
    pub exit: ExitCode,
}

impl Failure {
    /// Builds a failure without cause or hint.
    pub fn new(exit: ExitCode, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            exit,
        }
    }

    /// Appends `error` and its chain of sources.
    #[must_use]
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Appends a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a cause that is known as a text.
    #[must_use]
    pub fn cause(mut self, text: impl Into<String>) -> Self {
        self.causes.push(text.into());
        self
    }

    /// Returns what failed and its causes on one line.
    pub fn with_causes(&self) -> String {
        let causes = self.causes.iter().map(String::as_str);
        let words: Vec<_> = std::iter::once(self.what.as_str()).chain(causes).collect();
        words.join(": ")
    }

    /// Prepends the operation that failed: the former headline becomes the first cause.
    #[must_use]
    pub fn while_doing(mut self, what: impl Into<String>) -> Self {
        self.causes
            .insert(0, std::mem::replace(&mut self.what, what.into()));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {}", cause.replace('\n', "\n    "))?;
        }
        for hint in &self.hints {
            write!(f, "\n  hint: {}", hint.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

impl Error for Failure {}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = match &error {
            StoreError::Unusable { .. } => Self::new(ExitCode::Failed, "a stored document cannot be used")
                .hint("run `bitbrat doctor` to list every document that cannot be used"),
            StoreError::Unavailable { .. } => Self::new(ExitCode::Failed, "the store cannot be used now")
                .hint("try again; `bitbrat doctor` shows what is wrong with the store"),
            StoreError::Refused { hint, .. } => {
                Self::new(ExitCode::Failed, "the store refused").hint(hint.clone())
            }
            StoreError::NewerSchema { .. } => {
                Self::new(ExitCode::Failed, "the store belongs to a newer bitbrat").hint("upgrade bitbrat")
            }
            StoreError::Conflict { .. } | StoreError::Rejected { .. } => {
                Self::new(ExitCode::Failed, "a document could not be stored")
            }
        };
        failure.because(&error)
    }
}

impl From<PlatformError> for Failure {
    fn from(error: PlatformError) -> Self {
        match &error {
            PlatformError::Unauthorized { platform, .. } => {
                let hint =
                    format!("run `bitbrat auth status {platform}`, then `bitbrat auth login {platform}`");
                Self::new(ExitCode::Unauthorized, error.to_string()).hint(hint)
            }
            PlatformError::NotConfigured { .. } => Self::new(ExitCode::Configuration, error.to_string())
                .hint("run `bitbrat config show` to see what is set and where from"),
            PlatformError::OtherAccount { .. } => Self::new(ExitCode::Unauthorized, error.to_string())
                .hint("log in with that account's own token"),
            PlatformError::TokenStore { .. } => Self::new(ExitCode::Failed, error.to_string())
                .hint("run `bitbrat doctor tokens` to see what is wrong with it"),
            PlatformError::RateLimited { .. } => {
                Self::new(ExitCode::NoEvidence, error.to_string()).hint("try again in a minute")
            }
            PlatformError::Unavailable {
                code: Code::NetworkTooManyFiles,
                ..
            } => Self::new(ExitCode::NoEvidence, error.to_string())
                .hint("raise the limit of open files (`ulimit -n`), or stop what holds connections open"),
            PlatformError::Unavailable { .. } => Self::new(ExitCode::NoEvidence, error.to_string())
                .hint("run `bitbrat doctor` to check DNS, TLS and the configured addresses"),
            PlatformError::Forbidden { .. }
            | PlatformError::Unreadable { .. }
            | PlatformError::ClientRejected { .. }
            | PlatformError::Rejected { .. } => Self::new(ExitCode::Failed, error.to_string()),
        }
    }
}

impl From<InvalidSourceKey> for Failure {
    fn from(error: InvalidSourceKey) -> Self {
        Self::new(ExitCode::Usage, error.to_string())
            .hint("run `bitbrat sources list` to see the configured sources")
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        let count = problems.0.len();
        let mut failure = Self::new(
            ExitCode::Configuration,
            match count {
                1 => "the configuration has a problem".to_owned(),
                _ => format!("the configuration has {count} problems"),
            },
        );
        for problem in &problems.0 {
            failure.causes.push(problem.to_string());
        }
        for hint in problems.0.iter().filter_map(|problem| problem.hint.clone()) {
            if !failure.hints.contains(&hint) {
                failure.hints.push(hint);
            }
        }
        if failure.hints.is_empty() {
            failure
                .hints
                .push("correct it, then run `bitbrat config check`".to_owned());
        }
        failure
    }
}

/// Returns an error with all of its causes, on one line, not masked yet.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::PlatformName;

    #[test]
    fn a_failure_prints_what_why_and_what_next() {
        let failure = Failure::new(ExitCode::Failed, "cannot poll `twitch:1234`")
            .because(&PlatformError::Unauthorized {
                platform: PlatformName::Twitch,
                reason: "invalid access token".into(),
            })
            .hint("run `bitbrat doctor`");
        assert_eq!(
            failure.to_string(),
            "error: cannot poll `twitch:1234`\n  caused by: twitch refused the credentials: invalid access token\n  \
             hint: run `bitbrat doctor`"
        );
    }

    #[test]
    fn the_numbers_are_frozen() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 8, 124, 129, 130, 131, 143]);
    }

    #[test]
    fn authorization_takes_precedence_among_exit_codes() {
        use ExitCode::{Down, Healthy, NoEvidence, Unauthorized};
        for (codes, expected) in [
            (vec![Healthy, NoEvidence], NoEvidence),
            (vec![NoEvidence, Down, Healthy], Down),
            (vec![Down, Unauthorized, NoEvidence], Unauthorized),
            (vec![Healthy], Healthy),
        ] {
            let worst = codes.iter().copied().reduce(ExitCode::worse);
            assert_eq!(worst, Some(expected), "{codes:?}");
        }
    }

    #[test]
    fn repeated_cause_is_listed_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("no route")]
        struct Inner;
        #[derive(Debug, thiserror::Error)]
        #[error("no route")]
        struct Outer(#[source] Inner);
        let failure = Failure::new(ExitCode::Failed, "x").because(&Outer(Inner));
        assert_eq!(failure.causes, ["no route"]);
    }
}
