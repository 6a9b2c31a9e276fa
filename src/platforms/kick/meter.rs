//! Costs and side results of one probe: what every platform has, and the results of account checks.

use parking_lot::Mutex;

use super::account_check::Checked;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::platforms::ProbeSink;
use crate::platforms::kit::meter;

/// Meter of one probe.
#[derive(Default)]
pub(super) struct Meter<'a> {
    /// The requests and the problems.
    pub(super) calls: meter::Meter<'a>,
    checked: Mutex<Vec<(Identity, Checked)>>,
}

impl<'a> Meter<'a> {
    /// Creates a meter that reports progress to `sink`.
    pub(super) fn with_progress(sink: &'a dyn ProbeSink) -> Self {
        Self {
            calls: meter::Meter::with_progress(PlatformName::Kick, sink),
            ..Self::default()
        }
    }

    /// Records the result of an account check.
    pub(super) fn checked(&self, identity: &Identity, checked: Checked) {
        let mut all = self.checked.lock();
        all.retain(|(known, _)| known != identity);
        all.push((identity.clone(), checked));
    }

    /// Removes the result for `identity`.
    pub(super) fn forget_check(&self, identity: &Identity) {
        let mut all = self.checked.lock();
        all.retain(|(known, _)| known != identity);
    }

    /// Takes the results of account checks, the newest of each.
    pub(super) fn take_checked(&self) -> Vec<(Identity, Checked)> {
        std::mem::take(&mut self.checked.lock())
    }
}
