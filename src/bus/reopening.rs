//! Keeps a durable subscription open: subscribes again whenever it ends, with increasing backoff.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{BusError, Deliveries, Delivery, EventBus, Recovery, Subscription};
use crate::clock::{Backoff, Chance};

/// First and longest backoff between attempts.
const RETRY_BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(30),
};

/// A subscription that reopens itself.
pub struct ReopeningSubscription {
    bus: Arc<dyn EventBus>,
    to: Subscription,
    chance: Chance,
    open: Option<Deliveries>,
    opened_at: Instant,
    failures: u32,
    is_open: Arc<AtomicBool>,
}

impl ReopeningSubscription {
    /// Creates the follower without connecting.
    pub fn new(bus: Arc<dyn EventBus>, to: Subscription, chance: Chance) -> Self {
        Self {
            bus,
            to,
            chance,
            open: None,
            opened_at: Instant::now(),
            failures: 0,
            is_open: Arc::default(),
        }
    }

    /// Waits for the next message, reopening the subscription as often as necessary. Cancel-safe: dropping the future loses no
    /// message.
    pub async fn next(&mut self) -> Delivery {
        loop {
            let Some(open) = &mut self.open else {
                match self.bus.subscribe(&self.to).await {
                    Ok(deliveries) => self.opened(deliveries),
                    Err(error) => self.wait_after(&error).await,
                }
                continue;
            };
            match open.next().await {
                Some(Ok(delivery)) => {
                    self.failures = 0;
                    return delivery;
                }
                Some(Err(error)) => {
                    self.closed();
                    self.wait_after(&error).await;
                }
                // The stream ends without an error when it has to be opened again.
                None => self.closed(),
            }
        }
    }

    /// Returns a message that is available without waiting.
    pub fn ready(&mut self) -> Option<Delivery> {
        // An error is reported when `next` waits for it.
        self.open.as_mut()?.next().now_or_never()??.ok()
    }

    /// Returns a flag that shows whether the subscription is open, for callers that cannot ask while a message is awaited. The
    /// subscription is open as soon as the bus accepts it, even if there is nothing to read.
    pub fn is_open(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_open)
    }

    fn opened(&mut self, deliveries: Deliveries) {
        self.open = Some(deliveries);
        self.opened_at = Instant::now();
        self.is_open.store(true, Ordering::Relaxed);
        if self.failures > 0 {
            info!(
                bus = self.bus.location(),
                queue = self.to.queue,
                "Messages are read again"
            );
        }
    }

    fn closed(&mut self) {
        self.open = None;
        self.is_open.store(false, Ordering::Relaxed);
        // A failure after some time of operation is a new one and is reported again.
        if self.opened_at.elapsed() > RETRY_BACKOFF.longest {
            self.failures = 0;
        }
    }

    async fn wait_after(&mut self, error: &BusError) {
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_power_of_two() {
            warn!(
                bus = self.bus.location(), queue = self.to.queue, attempt = self.failures, error = %error,
                hint = error.hint(), "Messages cannot be read; trying again"
            );
        }
        let failures = match error.recovery() {
            Recovery::Retry => self.failures,
            // Four times as long.
            Recovery::RetrySlowly | Recovery::GiveUp => self.failures.saturating_add(2),
        };
        sleep(RETRY_BACKOFF.draw(failures, &self.chance)).await;
    }
}
