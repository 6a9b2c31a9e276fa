//! The task that applies the rules: when events have arrived, and when a deadline has passed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::step::{StepContext, step};
use crate::blocking::blocking;
use crate::clock::Clock;
use crate::config::AlertSettings;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::lifecycle::Stop;
use crate::watch::state_file::{AlertState, StateFile, StateFileError};

/// How often the rules check whether events have arrived.
const TICK: Duration = Duration::from_millis(500);
/// How long the rules rest when nothing has arrived and no deadline is due: mutes and accounts are checked at least this often.
const LONGEST_REST: Duration = Duration::from_secs(15);
/// Events in one transaction.
const EVENTS: u32 = 500;

/// Applies the rules.
pub struct AlertEngine {
    /// Where events and the state of the rules are.
    pub state_file: Arc<StateFile>,
    /// The rules; a reload replaces them.
    pub settings: watch::Receiver<Arc<AlertSettings>>,
    /// The time by which causes are dated.
    pub clock: Arc<dyn Clock>,
    /// Returns the number of monitored sources of each platform.
    pub monitored: Arc<dyn Fn() -> BTreeMap<PlatformName, usize> + Send + Sync>,
    /// Returns when accounts stop working.
    pub expiries: Arc<dyn Fn() -> BTreeMap<Identity, Timestamp> + Send + Sync>,
    /// Notified when messages wait.
    pub wake: Arc<Notify>,
}

impl AlertEngine {
    /// Runs until it is stopped. What has not been processed by then waits in the file.
    pub async fn run(self, stop: Stop) -> Result<(), StateFileError> {
        let mut settings = self.settings.clone();
        let this = Arc::new(self);
        let mut next = Timestamp::EPOCH;
        let mut is_failing = false;
        loop {
            if !settings.borrow_and_update().is_used() {
                tokio::select! {
                    Ok(()) = settings.changed() => continue,
                    () = stop.requested() => return Ok(()),
                }
            }
            let own = Arc::clone(&this);
            match blocking(move || own.turn(next)).await {
                Ok(due) => {
                    if std::mem::take(&mut is_failing) {
                        info!("Alerts are evaluated again");
                    }
                    next = due;
                }
                Err(error) if error.is_transient() => {
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(%error, "Alerts cannot be evaluated now; events wait in the state file");
                    }
                }
                Err(error) => return Err(error),
            }
            if !stop.sleep(TICK).await {
                return Ok(());
            }
            if settings.has_changed().unwrap_or(false) {
                next = Timestamp::EPOCH;
            }
        }
    }

    /// Applies the rules if there is anything to do, and returns when there will be. `next` is what the last turn returned.
    fn turn(&self, next: Timestamp) -> Result<Timestamp, StateFileError> {
        let now = self.clock.now();
        let rests = now < next && next.since(now) <= LONGEST_REST;
        if rests && !self.state_file.has_alert_input()? {
            return Ok(next);
        }
        let (monitored, expiries) = ((self.monitored)(), (self.expiries)());
        let settings = Arc::clone(&self.settings.borrow());
        let cx = StepContext {
            settings: &settings,
            monitored: &monitored,
            expiries: &expiries,
            now,
        };
        let (state, new) = self
            .state_file
            .step_alerts(EVENTS, now, |state, inputs| step(state, inputs, &cx))?;
        if new > 0 {
            self.wake.notify_waiters();
        }
        Ok(next_deadline(&state, now))
    }
}

fn next_deadline(state: &AlertState, now: Timestamp) -> Timestamp {
    let deadlines = state.incidents.values().filter_map(|incident| incident.due);
    let ends = state.mutes.iter().map(|mute| mute.until);
    let next = deadlines.chain(ends).min();
    next.unwrap_or(now.plus(LONGEST_REST)).min(now.plus(LONGEST_REST))
}
