//! Closes a durable subscription in order, so that the next reader does not have to wait for prefetched messages.
//!
//! A bus delivers messages ahead of their reader, and no other reader gets them until they are settled or the bus has waited
//! long enough: 20 s on Pub/Sub and a minute on NATS. Therefore a reader that closes first receives what is in flight, then
//! closes, and then returns all of it. A message that is returned earlier would be delivered to the closing reader again.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::{BusError, Deliveries, Delivery, in_background};

/// If no message arrives for this long, none is in flight.
const IDLE_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum time to receive messages. The bus limits the number of unsettled messages, so this ends on a busy bus too.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time for which closing a bus waits for its readers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Readers that are closing.
#[derive(Clone, Default)]
pub(super) struct Leaving(TaskTracker);

impl Leaving {
    /// Wraps deliveries that are closed in order when they are dropped; `closed` runs after they are closed.
    pub(super) fn in_order(
        &self,
        open: Deliveries,
        closed: impl Future<Output = ()> + Send + 'static,
    ) -> Deliveries {
        Reader {
            open: Some((open, Box::pin(closed))),
            begun: false,
            leaving: self.clone(),
        }
        .boxed()
    }

    /// Runs the last task of a reader in the background.
    pub(super) fn last(&self, task: impl Future<Output = ()> + Send + 'static) {
        in_background(self.0.track_future(task));
    }

    /// Waits for closing readers, for a limited time.
    pub(super) async fn wait(&self) {
        self.0.close();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.0.wait()).await;
    }
}

struct Reader {
    open: Option<(Deliveries, BoxFuture<'static, ()>)>,
    /// Whether it was ever read. Before that nothing is in flight, and checking would open the subscription.
    begun: bool,
    leaving: Leaving,
}

impl Stream for Reader {
    type Item = Result<Delivery, BusError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.begun = true;
        match &mut self.open {
            Some((open, _)) => open.poll_next_unpin(cx),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((open, closed)) = self.open.take().filter(|_| self.begun) {
            self.leaving.last(leave(open, closed));
        }
    }
}

async fn leave(mut open: Deliveries, closed: BoxFuture<'static, ()>) {
    let mut held = Vec::new();
    let end = Instant::now() + DRAIN_TIMEOUT;
    while let Ok(Some(Ok(delivery))) = timeout_at(end.min(Instant::now() + IDLE_TIMEOUT), open.next()).await {
        held.push(delivery);
    }
    drop(open);
    closed.await;
    for delivery in held {
        delivery.nak(Duration::ZERO).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use async_trait::async_trait;
    use futures_util::stream;
    use parking_lot::Mutex;

    use super::*;
    use crate::bus::{Message, Receipt, Settlement};

    type CallLog = Arc<Mutex<Vec<String>>>;

    struct LoggingReceipt(CallLog, usize);

    #[async_trait]
    impl Receipt for LoggingReceipt {
        async fn settle(self: Box<Self>, how: Settlement) {
            self.0.lock().push(format!("{} {how:?}", self.1));
        }
    }

    /// A stream that delivers `many` messages, one per millisecond.
    fn line(log: &CallLog, many: usize) -> Deliveries {
        struct Line(CallLog);
        impl Drop for Line {
            fn drop(&mut self) {
                self.0.lock().push("closed".to_owned());
            }
        }
        let line = Line(log.clone());
        let messages = stream::iter(0..many).then(move |n| {
            let receipt = Box::new(LoggingReceipt(line.0.clone(), n));
            async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let message = Message {
                    topic: "there".to_owned(),
                    transport_id: n.to_string(),
                    attributes: BTreeMap::new(),
                    data: bytes::Bytes::new(),
                    published_at: None,
                    deliveries: 1,
                    unreadable: None,
                };
                Ok(Delivery::new(message, receipt))
            }
        });
        messages.chain(stream::pending()).boxed()
    }

    fn finished(log: &CallLog) -> impl Future<Output = ()> + Send + 'static {
        let log = log.clone();
        async move { log.lock().push("finished".to_owned()) }
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_reader_closes_before_returning_unread_messages() {
        let (leaving, log) = (Leaving::default(), CallLog::default());
        let mut reader = leaving.in_order(line(&log, 3), finished(&log));
        reader.next().await.unwrap().unwrap().ack().await;
        drop(reader);
        leaving.wait().await;
        let log = log.lock();
        assert_eq!(
            log[..],
            ["0 Done", "closed", "finished", "1 Again(0ns)", "2 Again(0ns)"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn unused_reader_closes_without_reading() {
        let (leaving, log) = (Leaving::default(), CallLog::default());
        drop(leaving.in_order(line(&log, 3), finished(&log)));
        leaving.wait().await;
        assert_eq!(log.lock()[..], ["closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bus_without_end_is_left_all_the_same() {
        let (leaving, log) = (Leaving::default(), CallLog::default());
        let mut reader = leaving.in_order(line(&log, usize::MAX), finished(&log));
        reader.next().await.unwrap().unwrap().ack().await;
        drop(reader);
        leaving.wait().await;
        let log = log.lock();
        assert!(log.contains(&"closed".to_owned()), "{log:?}");
        assert!(log.last().unwrap().ends_with("Again(0ns)"), "{log:?}");
    }
}
