//! What a probe run costs and what it finds out on the side: its calls and their progress, its problems, and the account checks
//! that it made.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::token_check::TokenChecks;
use crate::core::source::PlatformName;
use crate::platforms::{ProbeSink, ProbeSummary, Problem};

/// Maximum number of problems in the summary of one probe run. A person reads them; all others are in the observations.
const MAX_PROBLEMS: usize = 20;

/// The calls and the side results of one probe run.
#[derive(Default)]
pub struct Meter<'a> {
    progress: Option<(PlatformName, &'a dyn ProbeSink)>,
    sent: AtomicUsize,
    done: AtomicUsize,
    expected: AtomicUsize,
    /// The accounts that were checked during the run.
    pub checks: TokenChecks,
    problems: Mutex<Vec<Problem>>,
}

impl<'a> Meter<'a> {
    /// Reports progress to `sink`.
    pub fn with_progress(platform: PlatformName, sink: &'a dyn ProbeSink) -> Self {
        Self {
            progress: Some((platform, sink)),
            ..Self::silent()
        }
    }

    /// Reports progress to no sink.
    pub fn silent() -> Self {
        Self::default()
    }

    /// Counts a request, including retries.
    pub fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many requests were sent.
    pub fn count(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Increases the number of expected calls.
    pub fn expect(&self, calls: usize) {
        self.expected.fetch_add(calls, Ordering::Relaxed);
        self.emit();
    }

    /// Counts an expected call as done, whatever its result.
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.emit();
    }

    /// Reports progress where each request is expected for itself: all that were sent count as done.
    pub fn report_sent(&self) {
        self.done.store(self.count(), Ordering::Relaxed);
        self.emit();
    }

    /// Records a problem to show to users. One with the same text was recorded already if several requests fail for the same
    /// reason.
    pub fn problem(&self, problem: Problem) {
        let mut problems = self.problems.lock();
        if problems.len() < MAX_PROBLEMS && problems.iter().all(|known| known.text != problem.text) {
            problems.push(problem);
        }
    }

    /// Returns the result of the run; takes its problems.
    pub fn summary(&self) -> ProbeSummary {
        ProbeSummary {
            calls: self.count(),
            problems: std::mem::take(&mut self.problems.lock()),
        }
    }

    fn emit(&self) {
        if let Some((platform, sink)) = self.progress {
            let done = self.done.load(Ordering::Relaxed);
            let expected = self.expected.load(Ordering::Relaxed).max(done);
            sink.progress(platform, done, expected);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_recorded_once_and_bounded() {
        let meter = Meter::silent();
        for number in 0..30 {
            meter.problem(Problem::of_platform(format!("problem {}", number / 2)));
        }
        let taken = meter.summary().problems;
        let texts: Vec<_> = taken.iter().map(|problem| problem.text.as_str()).collect();
        assert_eq!((texts.len(), texts[0], texts[1]), (15, "problem 0", "problem 1"));
        for number in 0..30 {
            meter.problem(Problem::of_platform(format!("problem {number}")));
        }
        assert_eq!(meter.summary().problems.len(), MAX_PROBLEMS);
        assert_eq!(meter.summary().problems, []);
    }
}
