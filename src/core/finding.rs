//! What was checked for `doctor`, and what was found.

/// Something that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked: `gateway`, `stream`, `subscription` and the like.
    pub about: &'static str,
    /// The result.
    pub level: Level,
    /// What was found, in one sentence.
    pub detail: String,
    /// What to do or run next, if there is anything.
    pub next: Option<String>,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but needs attention.
    Warn,
    /// Does not work.
    Fail,
}

impl Finding {
    /// Creates a finding without a next step.
    pub fn new(about: &'static str, level: Level, detail: impl Into<String>) -> Self {
        Self {
            about,
            level,
            detail: detail.into(),
            next: None,
        }
    }

    /// Adds what to do or run next.
    #[must_use]
    pub fn next(self, next: impl Into<String>) -> Self {
        let next = Some(next.into());
        Self { next, ..self }
    }
}
