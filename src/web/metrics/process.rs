//! The process itself, under the names that Prometheus' client libraries use.

use super::catalog;
use super::exposition::Exposition;
use crate::core::time::Timestamp;
use crate::{descriptors, os};

/// Adds what the system reports about this process.
pub(super) fn collect(exposition: &mut Exposition, started_at: Timestamp) {
    exposition.set(&catalog::PROCESS_START_TIME, &[], started_at);
    if let Some(time) = os::cpu_time() {
        exposition.set(&catalog::PROCESS_CPU, &[], time);
    }
    if let Some(bytes) = os::resident_memory() {
        exposition.set(&catalog::PROCESS_MEMORY, &[], bytes);
    }
    if let Some(open) = descriptors::open() {
        exposition.set(&catalog::PROCESS_OPEN_FDS, &[], open);
    }
    if let Some(limit) = descriptors::reported_limit() {
        exposition.set(&catalog::PROCESS_MAX_FDS, &[], limit);
    }
}
