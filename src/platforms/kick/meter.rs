//! What one look has cost and learnt on the way: calls, problems, and how authorisations were found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::auth::Checked;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::platforms::ProbeSink;

/// Problems told to a person in one look; the rest is in the documents.
const PROBLEMS: usize = 20;

/// The tally of one look.
#[derive(Default)]
pub(super) struct Meter<'a> {
    sink: Option<&'a dyn ProbeSink>,
    sent: AtomicUsize,
    done: AtomicUsize,
    expected: AtomicUsize,
    problems: Mutex<Vec<String>>,
    checked: Mutex<Vec<(Identity, Checked)>>,
}

impl<'a> Meter<'a> {
    /// Counts for `sink`.
    pub(super) fn telling(sink: &'a dyn ProbeSink) -> Self {
        Self {
            sink: Some(sink),
            ..Self::default()
        }
    }

    /// Counts a request, repeats included.
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many requests were sent.
    pub(super) fn count(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Announces more calls.
    pub(super) fn expect(&self, calls: usize) {
        self.expected.fetch_add(calls, Ordering::Relaxed);
        self.tell();
    }

    /// Counts an announced call as done, however it went.
    pub(super) fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// Notes a problem worth telling a person.
    pub(super) fn complain(&self, problem: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS && !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Takes the problems.
    pub(super) fn problems(&self) -> Vec<String> {
        std::mem::take(&mut self.problems.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes how an authorisation was found.
    pub(super) fn checked(&self, identity: &Identity, checked: Checked) {
        let mut all = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, _)| known != identity);
        all.push((identity.clone(), checked));
    }

    /// Takes what was found of authorisations, the newest of each.
    pub(super) fn take_checked(&self) -> Vec<(Identity, Checked)> {
        std::mem::take(&mut self.checked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self) {
        if let Some(sink) = self.sink {
            let done = self.done.load(Ordering::Relaxed);
            let expected = self.expected.load(Ordering::Relaxed).max(done);
            sink.progress(PlatformName::Kick, done, expected);
        }
    }
}
