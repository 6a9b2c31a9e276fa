//! What one look has cost and learnt on the way: calls, problems, and how authorisations were found.

use std::sync::{Mutex, PoisonError};

use super::auth::Checked;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::platforms::{ProbeSink, meter};

/// Problems told to a person in one look; the rest is in the documents.
const PROBLEMS: usize = 20;

/// The tally of one look.
#[derive(Default)]
pub(super) struct Meter<'a> {
    /// The calls.
    pub(super) calls: meter::Meter<'a>,
    problems: Mutex<Vec<String>>,
    checked: Mutex<Vec<(Identity, Checked)>>,
}

impl<'a> Meter<'a> {
    /// Counts for `sink`.
    pub(super) fn telling(sink: &'a dyn ProbeSink) -> Self {
        Self {
            calls: meter::Meter::telling(PlatformName::Kick, sink),
            ..Self::default()
        }
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
}
