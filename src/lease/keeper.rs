//! The task that takes one lease, renews it, and ends the right to act when that fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{BootClock, Fence, FenceRegister, Guard, Holder, LeaseEngine, LeaseError, LeaseName, Terms};
use crate::clock::Chance;

/// Shortest time between renewals because of a changed note, as a part of the lease's duration.
const NOTES_PER_TTL: u32 = 15;

/// What became of the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// It is not held; the keeper tries to take it. The text is the newest reason, empty at first.
    Waiting(String),
    /// It is held. Whether the holder may act, the guard decides.
    Held { holder: Holder, fence: Fence },
    /// It was released; the keeper has ended.
    Released,
}

/// Keeps one lease. Its engine should have a connection of its own, so that no other work delays a renewal.
pub struct Keeper {
    pub engine: Arc<dyn LeaseEngine>,
    pub name: LeaseName,
    pub member: LeaseName,
    pub terms: Terms,
    pub clock: Arc<dyn BootClock>,
    pub chance: Chance,
    pub guard: Guard,
    /// What is written beside the lease; a change is written early.
    pub note: watch::Receiver<String>,
    pub state: watch::Sender<LeaseState>,
    /// The fences that were seen, across a loss of the engine's records.
    pub register: FenceRegister,
}

impl Keeper {
    /// Runs until `done`, then releases the lease. Every acquisition after a loss is that of a new holder.
    pub async fn run(mut self, done: CancellationToken) {
        loop {
            let holder = Holder::new(self.member.clone());
            let taken = tokio::select! {
                fence = self.take(&holder) => Some(fence),
                () = done.cancelled() => None,
            };
            let Some(fence) = taken else {
                break;
            };
            info!(lease = %self.name, fence = fence.0, "Took the lease");
            self.state.send_replace(LeaseState::Held {
                holder: holder.clone(),
                fence,
            });
            let lost = tokio::select! {
                reason = self.hold(&holder, fence) => Some(reason),
                () = done.cancelled() => None,
            };
            self.guard.end();
            let Some(reason) = lost else {
                self.release(&holder, fence).await;
                break;
            };
            warn!(lease = %self.name, fence = fence.0, reason, "Lost the lease");
            self.state.send_replace(LeaseState::Waiting(reason));
        }
        self.state.send_replace(LeaseState::Released);
    }

    /// Tries until the lease is taken.
    async fn take(&mut self, holder: &Holder) -> Fence {
        loop {
            let asked = self.clock.now();
            let note = self.note.borrow_and_update().clone();
            let request = self.engine.acquire(&self.name, holder, &note);
            let reason = match timeout(self.terms.patience(), request).await {
                Ok(Ok(Some(fence))) => match self.register.admit(fence, holder) {
                    Ok(()) => {
                        let jitter = self.terms.retry().mul_f64(self.chance.fraction() / 3.0);
                        self.guard.acquired(fence, asked, self.terms, jitter);
                        return fence;
                    }
                    Err(highest) => self.wiped(fence, highest).to_string(),
                },
                Ok(Ok(None)) => "another holder has it".to_owned(),
                Ok(Err(error)) => error.to_string(),
                // It may have been granted; then the next attempt of the same holder gets it.
                Err(_) => "the lease engine did not answer in time".to_owned(),
            };
            let is_new = self.state.send_if_modified(|state| {
                let next = LeaseState::Waiting(reason.clone());
                let differs = *state != next;
                *state = next;
                differs
            });
            if is_new {
                warn!(lease = %self.name, reason, "Cannot take the lease yet");
            }
            sleep(self.jittered(self.terms.retry())).await;
        }
    }

    fn wiped(&self, found: Fence, highest: Fence) -> LeaseError {
        LeaseError::Wiped {
            location: self.engine.location(),
            name: self.name.clone(),
            found,
            highest,
        }
    }

    /// Renews until the lease is lost, and returns why.
    async fn hold(&mut self, holder: &Holder, fence: Fence) -> String {
        loop {
            let pause = self.jittered(self.terms.renewal());
            let until_next = tokio::time::Instant::now() + pause;
            tokio::select! {
                () = tokio::time::sleep_until(until_next) => {}
                changed = self.note.changed() => match changed {
                    // Several changes at a time are one renewal.
                    Ok(()) => sleep(self.terms.ttl / NOTES_PER_TTL).await,
                    Err(_) => tokio::time::sleep_until(until_next).await,
                },
            }
            if let Err(reason) = self.renew(holder, fence).await {
                return reason;
            }
        }
    }

    /// Renews once, repeated while the engine fails and the right lasts.
    async fn renew(&mut self, holder: &Holder, fence: Fence) -> Result<(), String> {
        loop {
            // After a pause of the process, renewing would bring back a right that others may have got meanwhile.
            let left = self.guard.left();
            if left.is_zero() {
                return Err("it could not be renewed in time".to_owned());
            }
            let asked = self.clock.now();
            let note = self.note.borrow_and_update().clone();
            let request = self.engine.renew(&self.name, holder, fence, &note);
            let reason = match timeout(self.terms.patience().min(left), request).await {
                Ok(Ok(true)) if self.guard.renewed(asked, self.terms) => return Ok(()),
                Ok(Ok(true)) => return Err("its renewal was answered too late".to_owned()),
                Ok(Ok(false)) => return Err("it has expired by the clock of the engine".to_owned()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            debug!(lease = %self.name, reason, "The lease could not be renewed; trying again");
            sleep(
                self.terms
                    .retry()
                    .min(self.guard.left() + Duration::from_millis(1)),
            )
            .await;
        }
    }

    async fn release(&self, holder: &Holder, fence: Fence) {
        let request = self.engine.release(&self.name, holder, fence);
        match timeout(self.terms.patience(), request).await {
            Ok(Ok(())) => debug!(lease = %self.name, "Released the lease"),
            // It expires by itself.
            Ok(Err(error)) => debug!(lease = %self.name, error = %error, "The lease could not be released"),
            Err(_) => debug!(lease = %self.name, "The lease could not be released in time"),
        }
    }

    fn jittered(&self, time: Duration) -> Duration {
        time.mul_f64(0.9 + 0.2 * self.chance.fraction())
    }
}
