//! The results of `preflight`.

use schemars::JsonSchema;
use serde::Serialize;

use super::doctor::{self, Check, Outcome, Row};
use crate::cli::output::view::View;
use crate::cli::output::{Listed, Note};
use crate::failure::ExitCode;

/// One check before a show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightCheck {
    /// What it belongs to: `state`, `tokens`, `store`, `bus`, `sources`, or a platform.
    pub area: String,
    /// What was checked.
    pub name: String,
    /// How it came out.
    pub outcome: Readiness,
    /// What was found.
    pub detail: String,
    /// The command to run next, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether it is about the authorization of an account.
    #[serde(skip)]
    pub is_authorization: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Readiness {
    /// Does not work.
    Fail,
    /// Not proven within the time limit.
    Unknown,
    /// Works, but needs attention.
    Warn,
    /// As it should be.
    Ok,
}

impl Readiness {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

impl From<Check> for PreflightCheck {
    fn from(check: Check) -> Self {
        Self {
            is_authorization: check.name.starts_with("identity"),
            outcome: match check.outcome {
                Outcome::Ok => Readiness::Ok,
                Outcome::Skipped => Readiness::Unknown,
                Outcome::Warn => Readiness::Warn,
                Outcome::Fail => Readiness::Fail,
            },
            area: check.area,
            name: check.name,
            detail: check.detail,
            next: check.next,
        }
    }
}

impl PreflightCheck {
    /// Marks it as one of an account's authorization.
    #[must_use]
    pub fn of_authorization(self) -> Self {
        Self {
            is_authorization: true,
            ..self
        }
    }

    fn row(&self) -> Row<'_> {
        Row {
            area: &self.area,
            name: &self.name,
            word: self.outcome.as_str(),
            outcome: match self.outcome {
                Readiness::Ok => Outcome::Ok,
                Readiness::Unknown => Outcome::Skipped,
                Readiness::Warn => Outcome::Warn,
                Readiness::Fail => Outcome::Fail,
            },
            detail: &self.detail,
            next: self.next.as_deref(),
        }
    }
}

/// Returns the exit code of all checks: a warning is no failure, and what was not proven is.
pub fn exit_code(checks: &[PreflightCheck]) -> ExitCode {
    let failed = |check: &PreflightCheck| check.outcome == Readiness::Fail;
    if checks.iter().any(|check| failed(check) && check.is_authorization) {
        ExitCode::Unauthorized
    } else if checks
        .iter()
        .any(|check| failed(check) || check.outcome == Readiness::Unknown)
    {
        ExitCode::Down
    } else {
        ExitCode::Healthy
    }
}

impl Listed for PreflightCheck {
    const KIND: &'static str = "PreflightReport";
    const CSV: &'static [&'static str] = &["area", "name", "outcome", "detail", "next"];

    fn name(&self) -> String {
        format!("{}/{}", self.area, self.name)
    }

    fn view(items: &[Self]) -> View {
        doctor::view(items.iter().map(Self::row))
    }

    fn notes(items: &[Self]) -> Vec<Note> {
        doctor::notes(items.iter().map(Self::row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorization_outranks_what_else_fails() {
        let check = |name: &str, outcome| PreflightCheck::from(Check::new("twitch", name, outcome, ""));
        let bot = |outcome| check("identity twitch/bot", outcome);
        let store = |outcome| check("reachable", outcome);
        for (checks, expected) in [
            (vec![], 0),
            (vec![bot(Outcome::Ok), store(Outcome::Warn)], 0),
            (vec![bot(Outcome::Ok), store(Outcome::Fail)], 3),
            (vec![bot(Outcome::Skipped), store(Outcome::Ok)], 3),
            (vec![bot(Outcome::Fail), store(Outcome::Fail)], 4),
        ] {
            assert_eq!(exit_code(&checks).number(), expected, "{checks:?}");
        }
    }
}
