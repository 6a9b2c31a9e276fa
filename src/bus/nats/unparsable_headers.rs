//! Messages with headers that the client cannot parse.
//!
//! Any client may publish an invalid header: a line without a colon, a value that is not UTF-8, a status that only the server
//! sends. The server stores and delivers it, and the client library responds by dropping the connection, again on each
//! redelivery. Such a message is fetched from its stream by another request, in which headers are bytes, and settled by its
//! sequence number, so that it is reported once and the connection is kept.

use std::collections::BTreeMap;

use async_nats::header::HeaderName;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::response::Response;
use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{NatsBus, REQUEST_TIMEOUT};
use crate::bus::{BusError, Delivery, Message, Receipt, Settlement};
use crate::core::time::Timestamp;
use crate::secrets;

/// Maximum number of unsettled messages checked in one pass; more than a consumer may have.
const MAX_UNSETTLED: usize = 2000;

/// A message as stored in its stream.
#[derive(Debug, Deserialize)]
pub(super) struct Raw {
    subject: String,
    pub(super) seq: u64,
    #[serde(default)]
    hdrs: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    time: Option<String>,
}

#[derive(Deserialize)]
struct Got {
    message: Raw,
}

impl Raw {
    /// Returns why the client cannot parse it; `None` if it can.
    pub(super) fn fault(&self) -> Option<String> {
        let headers = decoded(self.hdrs.as_deref()?);
        fault(&headers).map(|why| format!("its headers cannot be read: {why}"))
    }

    /// Converts it to a message with the reason in `unreadable`.
    pub(super) fn into_message(self, bus: &NatsBus, why: String) -> Message {
        Message {
            topic: bus.names.bare(&self.subject).to_owned(),
            transport_id: self.seq.to_string(),
            attributes: BTreeMap::new(),
            data: self.data.as_deref().map(decoded).unwrap_or_default(),
            published_at: self.time.and_then(|time| time.parse::<Timestamp>().ok()),
            deliveries: 1,
            unreadable: Some(why),
        }
    }
}

fn decoded(text: &str) -> Bytes {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap_or_default()
        .into()
}

/// Parses headers like the client, and returns the error.
fn fault(headers: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(headers) else {
        return Some("they are not UTF-8".to_owned());
    };
    let mut lines = text.lines();
    let Some(rest) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else {
        return Some("they do not begin with NATS/1.0".to_owned());
    };
    if !rest.trim().is_empty() {
        return Some("they have a status, which only a server sends".to_owned());
    }
    let mut continues = false;
    for line in lines.filter(|line| !line.is_empty()) {
        if continues && line.starts_with(char::is_whitespace) {
            continue;
        }
        let Some((name, _)) = line.split_once(':') else {
            return Some("a line has no colon".to_owned());
        };
        if name.parse::<HeaderName>().is_err() {
            return Some("a name has characters that no name may have".to_owned());
        }
        continues = true;
    }
    None
}

impl NatsBus {
    /// Returns deliveries of messages that the client cannot parse, as long as the bus is open.
    pub(super) fn unreadable(
        &self,
        consumer: PullConsumer,
    ) -> BoxStream<'static, Result<Delivery, BusError>> {
        let bus = self.clone();
        let reconnects = bus.reconnects.subscribe();
        let seen = std::collections::BTreeSet::<u64>::new();
        stream::unfold(
            (bus, consumer, reconnects, seen),
            |(bus, consumer, mut reconnects, mut seen)| async move {
                loop {
                    bus.wait_for_reconnect(&mut reconnects).await?;
                    let found = match bus.sweep(&consumer).await {
                        Ok(found) => found,
                        Err(reason) => {
                            debug!(bus = %bus.location, reason, "Cannot read unsettled messages");
                            continue;
                        }
                    };
                    // Settled messages are removed from the consumer before the next pass; one that is being processed is not
                    // delivered twice.
                    let fresh: Vec<_> = found
                        .into_iter()
                        .filter(|(raw, _)| seen.insert(raw.seq))
                        .map(|(raw, why)| Ok(bus.unreadable_delivery(&consumer, raw, why)))
                        .collect();
                    while seen.len() > MAX_UNSETTLED {
                        seen.pop_first();
                    }
                    if !fresh.is_empty() {
                        return Some((stream::iter(fresh), (bus, consumer, reconnects, seen)));
                    }
                }
            },
        )
        .flatten()
        .boxed()
    }

    /// Waits until the connection is restored after a loss; `None` if the bus is closed. Also returns after the ack wait: the
    /// client silently discards messages with a status that only the server sends (`NATS/1.0 100`).
    pub(super) async fn wait_for_reconnect(&self, reconnects: &mut watch::Receiver<u64>) -> Option<()> {
        match timeout(self.ack_wait, reconnects.changed()).await {
            Ok(Ok(())) | Err(_) => Some(()),
            Ok(Err(_)) => None,
        }
    }

    /// Checks the delivered but unsettled messages, and returns those that the client cannot parse.
    async fn sweep(&self, consumer: &PullConsumer) -> Result<Vec<(Raw, String)>, String> {
        let info = consumer.get_info().await.map_err(|error| error.to_string())?;
        if info.num_ack_pending == 0 {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let mut next = info.ack_floor.stream_sequence + 1;
        for _ in 0..MAX_UNSETTLED {
            if next > info.delivered.stream_sequence {
                break;
            }
            let filter = &info.config.filter_subject;
            let Some(raw) = self.fetch(&info.stream_name, filter, next).await? else {
                break;
            };
            next = raw.seq + 1;
            if raw.seq <= info.delivered.stream_sequence
                && let Some(why) = raw.fault()
            {
                found.push((raw, why));
            }
        }
        Ok(found)
    }

    /// Fetches the first message with this subject from `seq` on; `None` if there is none.
    pub(super) async fn fetch(&self, stream: &str, subject: &str, seq: u64) -> Result<Option<Raw>, String> {
        let request = json!({"seq": seq, "next_by_subj": subject});
        let got: Result<Response<Got>, _> = self
            .jetstream
            .request(format!("STREAM.MSG.GET.{stream}"), &request)
            .await;
        match got {
            Ok(Response::Ok(got)) => Ok(Some(got.message)),
            Ok(Response::Err { error }) if error.code() == 404 => Ok(None),
            Ok(Response::Err { error }) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn unreadable_delivery(&self, consumer: &PullConsumer, raw: Raw, why: String) -> Delivery {
        let info = consumer.cached_info();
        let (stream, subject) = (&info.stream_name, secrets::quote(&raw.subject));
        match self.connection_state.unusable(&format!("{subject}: {why}")) {
            Some(messages) => warn!(
                bus = %self.location, stream, sequence = raw.seq, messages,
                "A message on {subject} cannot be used: {why}"
            ),
            None => debug!(
                bus = %self.location, stream, sequence = raw.seq,
                "A message on {subject} cannot be used: {why}"
            ),
        }
        // The format of a delivered message's reply subject. The delivery count is unknown here, and the server ignores it.
        let subject = format!("$JS.ACK.{}.{}.1.{}.1.0.0", info.stream_name, info.name, raw.seq);
        let receipt = ByNumber {
            bus: self.clone(),
            subject,
        };
        Delivery::new(raw.into_message(self, why), Box::new(receipt))
    }
}

/// Settles a message by its sequence number in the stream. If dropped, it is redelivered after the ack wait.
struct ByNumber {
    bus: NatsBus,
    subject: String,
}

#[async_trait]
impl Receipt for ByNumber {
    async fn settle(self: Box<Self>, how: Settlement) {
        let answer: &[u8] = match how {
            Settlement::Done => b"+ACK",
            Settlement::Never => b"+TERM",
            // It is found again at its next delivery.
            Settlement::Again(_) => return,
        };
        let settled = self.bus.client.request(self.subject, Bytes::from_static(answer));
        if !matches!(timeout(REQUEST_TIMEOUT, settled).await, Ok(Ok(_))) {
            debug!("A message that cannot be read could not be settled");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_the_client_cannot_read_are_found() {
        for (headers, readable) in [
            (&b"NATS/1.0\r\nA: b\r\nC: d:e\r\n\r\n"[..], true),
            (b"NATS/1.0\r\nA: b\r\n folded\r\n\r\n", true),
            (b"NATS/1.0\r\n\r\n", true),
            (b"NATS/1.0\r\nno colon here\r\n\r\n", false),
            (b"NATS/1.0\r\nA: caf\xe9\r\n\r\n", false),
            (b"NATS/1.0\r\n: nameless\r\n\r\n", true),
            (b"NATS/1.0\r\nbad name: x\r\n\r\n", false),
            (b"NATS/1.0 503\r\n\r\n", false),
            (b"NATS/2.0\r\nA: b\r\n\r\n", false),
            (b"", false),
        ] {
            assert_eq!(fault(headers).is_none(), readable, "{}", headers.escape_ascii());
        }
    }
}
