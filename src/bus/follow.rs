//! Keeps a durable subscription open: subscribes again whenever it ends, with growing patience.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{BusError, Deliveries, Delivery, EventBus, Recovery, Subscription};
use crate::clock::Chance;

/// First and longest wait before another attempt.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// A subscription that heals.
pub struct Follow {
    bus: Arc<dyn EventBus>,
    to: Subscription,
    chance: Chance,
    open: Option<Deliveries>,
    failures: u32,
}

impl Follow {
    /// Starts without connecting.
    pub fn new(bus: Arc<dyn EventBus>, to: Subscription, chance: Chance) -> Self {
        Self {
            bus,
            to,
            chance,
            open: None,
            failures: 0,
        }
    }

    /// Waits for the next message, however often the subscription has to be opened for it. Giving up the wait loses
    /// nothing.
    pub async fn next(&mut self) -> Delivery {
        loop {
            let Some(open) = &mut self.open else {
                match self.bus.subscribe(&self.to).await {
                    Ok(deliveries) => self.open = Some(deliveries),
                    Err(error) => self.wait_after(&error).await,
                }
                continue;
            };
            match open.next().await {
                Some(Ok(delivery)) => {
                    if std::mem::take(&mut self.failures) > 0 {
                        info!(
                            bus = self.bus.location(),
                            queue = self.to.queue,
                            "Messages are read again"
                        );
                    }
                    return delivery;
                }
                Some(Err(error)) => {
                    self.open = None;
                    self.wait_after(&error).await;
                }
                // It ends without an error when it wants to be opened afresh.
                None => self.open = None,
            }
        }
    }

    /// Returns a message that is here already.
    pub fn ready(&mut self) -> Option<Delivery> {
        // An error is told again when it is waited for.
        self.open.as_mut()?.next().now_or_never()??.ok()
    }

    /// Whether it reads at all.
    pub fn is_open(&self) -> bool {
        self.open.is_some() && self.failures == 0
    }

    async fn wait_after(&mut self, error: &BusError) {
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_power_of_two() {
            warn!(
                bus = self.bus.location(), queue = self.to.queue, attempt = self.failures, error = %error,
                hint = error.hint(), "Messages cannot be read; trying again"
            );
        }
        let (first, longest) = PATIENCE;
        let ceiling = match error.recovery() {
            Recovery::Retry => first.saturating_mul(1 << self.failures.min(7)).min(longest),
            Recovery::RetrySlowly | Recovery::GiveUp => {
                longest.min(first.saturating_mul(1 << self.failures.min(7)) * 4)
            }
        };
        sleep(first + ceiling.mul_f64(self.chance.fraction())).await;
    }
}
