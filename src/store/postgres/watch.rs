//! Watches the documents: notifications say when to look, and what changed is found by comparing versions.
//!
//! A notification is only a hint: none is received while the connection is interrupted, and none at all behind a pooler. So the
//! versions are also compared at intervals, which are short until a notification to ourselves has proven that they arrive.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Connection, Socket};

use super::client::SharedClient;
use super::error::Failure;
use super::tls::Stream;
use super::{SELECT, parse};
use crate::store::{StoreError, Stored};

/// Time between two comparisons while notifications arrive; each includes a notification to ourselves.
const PROVEN_INTERVAL: Duration = Duration::from_secs(15);
/// Time between two comparisons otherwise.
const UNPROVEN_INTERVAL: Duration = Duration::from_secs(1);
/// Notifications to ourselves that may stay out before the connection is given up.
const MISSED: u32 = 3;
/// Comparisons before notifications are tried again.
const LISTEN_AGAIN: u32 = 30;
/// Waiting time after an interruption; it doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The watcher's last state.
struct Watcher {
    client: SharedClient,
    listener: Option<Listener>,
    /// Comparisons until notifications are tried again.
    listen_in: u32,
    known: BTreeMap<String, (i64, Stored)>,
    is_first: bool,
    is_interrupted: bool,
    backoff: Duration,
}

/// A connection of its own that receives notifications.
struct Listener {
    client: tokio_postgres::Client,
    connection: Connection<Socket, Stream<Socket>>,
    /// The channel for notifications to ourselves.
    own_channel: String,
    is_proven: bool,
    /// Notifications to ourselves that were not received.
    missed: u32,
    /// Whether documents have changed since they were read.
    has_news: bool,
}

/// How long a notification to ourselves may take.
const TRIAL: Duration = Duration::from_secs(2);

/// Whether notifications are received: one to ourselves, within two seconds. Behind a pooler they are not.
pub async fn notifications_arrive(client: &SharedClient) -> bool {
    let opened = timeout(client.target.patience, Listener::open(client)).await;
    let Ok(Ok(mut listener)) = opened else {
        return false;
    };
    let _ = timeout(TRIAL, listener.until_proven()).await;
    listener.is_proven
}

/// Emits all documents now and after every change.
pub fn documents(client: SharedClient) -> BoxStream<'static, Result<Vec<Stored>, StoreError>> {
    let watcher = Watcher {
        client,
        listener: None,
        listen_in: 0,
        known: BTreeMap::new(),
        is_first: true,
        is_interrupted: false,
        backoff: FIRST_BACKOFF,
    };
    stream::unfold(watcher, |mut watcher| async move {
        let change = watcher.next().await;
        Some((change, watcher))
    })
    .boxed()
}

impl Watcher {
    async fn next(&mut self) -> Result<Vec<Stored>, StoreError> {
        loop {
            if !self.is_first && !self.is_interrupted {
                self.wait().await;
            }
            self.listen().await;
            match self.refresh().await {
                Ok(changed) => {
                    self.is_interrupted = false;
                    self.backoff = FIRST_BACKOFF;
                    if changed || std::mem::take(&mut self.is_first) {
                        self.is_first = false;
                        return Ok(self.known.values().map(|(_, stored)| stored.clone()).collect());
                    }
                }
                Err(failure) => {
                    if !std::mem::replace(&mut self.is_interrupted, true) {
                        return Err(failure.explain(&self.client.target));
                    }
                    sleep(self.backoff).await;
                    self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }

    /// Waits until the documents should be read.
    async fn wait(&mut self) {
        let Some(listener) = &mut self.listener else {
            self.listen_in = self.listen_in.saturating_sub(1);
            return sleep(UNPROVEN_INTERVAL).await;
        };
        let interval = match listener.is_proven {
            true => PROVEN_INTERVAL,
            false => UNPROVEN_INTERVAL,
        };
        let is_usable = match timeout(interval, listener.until_news()).await {
            Ok(is_open) => is_open,
            Err(_) => listener.missed < MISSED && listener.ping().await.is_ok(),
        };
        if !is_usable {
            self.listener = None;
        }
    }

    /// Opens the connection for notifications if there is none. It is opened before the documents are read, so that no change is
    /// missed in between; without it they are read more often.
    async fn listen(&mut self) {
        if self.listener.is_some() || self.listen_in > 0 || self.client.is_pooled() {
            return;
        }
        self.listen_in = LISTEN_AGAIN;
        match timeout(self.client.target.patience, Listener::open(&self.client)).await {
            Ok(Ok(listener)) => self.listener = Some(listener),
            Ok(Err(failure)) => {
                let error = failure.explain(&self.client.target);
                tracing::debug!(%error, "No notifications of changes; documents are compared every second");
            }
            Err(_) => {}
        }
    }

    /// Reads what has changed. Returns whether anything has.
    async fn refresh(&mut self) -> Result<bool, Failure> {
        if let Some(listener) = &mut self.listener {
            listener.has_news = false;
        }
        let rows = self
            .client
            .query("SELECT id, version FROM {s}.documents", &[])
            .await?;
        let mut versions: BTreeMap<String, i64> = BTreeMap::new();
        for row in &rows {
            versions.insert(row.try_get(0)?, row.try_get(1)?);
        }
        let before = self.known.len();
        self.known.retain(|id, _| versions.contains_key(id));
        let mut changed = self.known.len() != before;
        versions.retain(|id, version| self.known.get(id).is_none_or(|(known, _)| known != version));
        let ids: Vec<String> = versions.into_keys().collect();
        for portion in ids.chunks(500) {
            let select = format!("{SELECT} WHERE id = ANY($1)");
            for row in self
                .client
                .query(&select, &[(&portion, Type::TEXT_ARRAY)])
                .await?
            {
                let (version, stored) = parse(&row)?;
                self.known.insert(stored.document_id.clone(), (version, stored));
                changed = true;
            }
        }
        Ok(changed)
    }
}

impl Listener {
    async fn open(client: &SharedClient) -> Result<Self, Failure> {
        let connector = client.connector().await?;
        let (session, connection) = client.config().connect(connector).await?;
        let schema = &client.target.schema;
        let mut listener = Self {
            client: session,
            connection,
            own_channel: format!("{schema}_{}", &uuid::Uuid::new_v4().simple().to_string()[..16]),
            is_proven: false,
            missed: 0,
            has_news: false,
        };
        let statement = format!(
            "LISTEN \"{schema}_changes\"; LISTEN \"{0}\"; NOTIFY \"{0}\"",
            listener.own_channel
        );
        listener.execute(&statement).await?;
        Ok(listener)
    }

    /// Notifies ourselves, and counts it as missed until it is received.
    async fn ping(&mut self) -> Result<(), Failure> {
        self.missed += 1;
        if self.missed > 1 {
            self.is_proven = false;
        }
        let statement = format!("NOTIFY \"{}\"", self.own_channel);
        match timeout(UNPROVEN_INTERVAL * 5, self.execute(&statement)).await {
            Ok(done) => done,
            Err(_) => Err(Failure::Late),
        }
    }

    /// Executes a statement. The connection only makes progress while it is polled here and in [`Listener::until_news`].
    async fn execute(&mut self, statement: &str) -> Result<(), Failure> {
        let Self {
            client, connection, ..
        } = self;
        let mut received = Vec::new();
        let done = {
            let mut executing = std::pin::pin!(client.batch_execute(statement));
            loop {
                tokio::select! {
                    done = &mut executing => break done.map_err(Failure::from),
                    message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                        Some(Ok(message)) => received.push(message),
                        Some(Err(error)) => break Err(error.into()),
                        None => break Err(Failure::Late),
                    },
                }
            }
        };
        for message in received {
            self.receive(&message);
        }
        done
    }

    /// Waits for a change. Returns whether the connection is still open.
    async fn until_news(&mut self) -> bool {
        while !self.has_news {
            match poll_fn(|cx| self.connection.poll_message(cx)).await {
                Some(Ok(message)) => self.receive(&message),
                Some(Err(_)) | None => return false,
            }
        }
        true
    }

    /// Waits for the notification to ourselves, or the end of the connection.
    async fn until_proven(&mut self) {
        while !self.is_proven {
            match poll_fn(|cx| self.connection.poll_message(cx)).await {
                Some(Ok(message)) => self.receive(&message),
                Some(Err(_)) | None => return,
            }
        }
    }

    fn receive(&mut self, message: &AsyncMessage) {
        if let AsyncMessage::Notification(notification) = message {
            if notification.channel() == self.own_channel {
                self.is_proven = true;
                self.missed = 0;
            } else {
                self.has_news = true;
            }
        }
    }
}
