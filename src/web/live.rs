//! Live updates of pages by server-sent events: fragments that are rendered once for every client.
//!
//! One task reads the store after a commit, renders the rows that changed, and broadcasts them. It never waits for a client: one
//! that falls behind gets the current state of its page instead of what it missed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use super::Site;
use super::api;
use super::pages::index;
use super::problem::Problem;
use crate::core::code::Code;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::secrets;
use crate::store::{SourceStore, StoreError, Stored};
use crate::view::source_row::SourceRow;
use crate::view::sources::Sources;

/// For how long changes are collected before they are rendered: one probe changes several sources.
const COALESCE: Duration = Duration::from_millis(150);
/// How often pages are updated at least: verdicts become stale without any commit.
const TICK: Duration = Duration::from_secs(2);
/// For how long a read of a store that bills reads serves every client.
const SHARED: Duration = Duration::from_secs(5);
/// The share of time that updates may take: after each, ten times its duration passes.
const SHARE: u32 = 10;
/// Time between two announcements to screen readers.
const ANNOUNCED: Duration = Duration::from_secs(10);
/// Updates that a client may be behind.
const BEHIND: usize = 64;
/// After this a client connects again, so that a connection that is not read does not last forever.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// A client that was sent nothing for this long is sent a sign of life, which its script sees.
const BEAT: Duration = Duration::from_secs(15);

/// After which time a client connects again once its connection is gone.
const RETRY: Duration = Duration::from_secs(1);

/// How many clients may follow at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) streams: usize,
    pub(super) per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 64,
            per_address: 8,
        }
    }
}

/// One update.
pub(super) struct Flush {
    number: u64,
    /// The rows that changed.
    pub(super) rows: BTreeMap<SourceKey, Arc<str>>,
    /// What is above and below the table, if it changed.
    pub(super) frame: Option<Arc<str>>,
    /// What a screen reader should announce.
    pub(super) announcement: Option<Arc<str>>,
}

/// The clients that follow, and what they share.
pub(super) struct Hub {
    flushes: broadcast::Sender<Arc<Flush>>,
    open: Arc<Mutex<BTreeMap<Option<IpAddr>, usize>>>,
    limits: Limits,
    /// Names this process in positions: those of another one mean nothing here.
    boot: String,
    number: AtomicU64,
    wake: Notify,
    pub(super) listing: Listing,
}

/// What a page of all sources reads.
#[derive(Default)]
pub(super) struct Listing(tokio::sync::Mutex<Option<(Instant, StoredSources)>>);

type StoredSources = Vec<Stored<Arc<SourceSummary>>>;

impl Listing {
    /// Returns the stored sources. Where reads are billed, clients share one read for a few seconds.
    pub(super) async fn read(&self, store: &dyn SourceStore) -> Result<StoredSources, StoreError> {
        if !store.bills_reads() {
            return store.summaries().await;
        }
        let mut kept = self.0.lock().await;
        if let Some((at, stored)) = &*kept
            && at.elapsed() < SHARED
        {
            return Ok(stored.clone());
        }
        let stored = store.summaries().await?;
        *kept = Some((Instant::now(), stored.clone()));
        Ok(stored)
    }
}

/// A place among the clients that may follow. It is free again once this is dropped.
pub(super) struct Place {
    address: Option<IpAddr>,
    open: Arc<Mutex<BTreeMap<Option<IpAddr>, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

impl Hub {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            flushes: broadcast::Sender::new(BEHIND),
            open: Arc::default(),
            limits,
            boot: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
            number: AtomicU64::new(0),
            wake: Notify::new(),
            listing: Listing::default(),
        }
    }

    /// Takes a place, if there is one.
    pub(super) fn place(&self, address: Option<IpAddr>) -> Result<Place, Problem> {
        let mut open = self.open.lock();
        let all: usize = open.values().sum();
        let own = open.get(&address).copied().unwrap_or(0);
        if all >= self.limits.streams || own >= self.limits.per_address {
            return Err(Problem::new(503, Code::ApiTooManyStreams).retry_after(30));
        }
        *open.entry(address).or_default() += 1;
        Ok(Place {
            address,
            open: Arc::clone(&self.open),
        })
    }

    /// Follows the updates from now on.
    pub(super) fn follow(&self) -> broadcast::Receiver<Arc<Flush>> {
        let receiver = self.flushes.subscribe();
        self.wake.notify_one();
        receiver
    }

    /// Returns the position of the newest update, or of `flush`.
    pub(super) fn position(&self, flush: Option<&Flush>) -> String {
        let number = flush.map_or_else(|| self.number.load(Ordering::Relaxed), |flush| flush.number);
        format!("{}:{number}", self.boot)
    }

    /// Whether a client has followed another process before this one.
    pub(super) fn is_foreign(&self, headers: &HeaderMap) -> bool {
        let seen = last_event_id(headers);
        seen.is_some_and(|seen| seen.split(':').next() != Some(&self.boot))
    }
}

/// Returns the position that a client has seen last.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<String> {
    headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned)
}

/// What a page is sent while it is open.
pub(super) trait Updates: Send + 'static {
    /// Waits for the next events, of which there may be none; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Vec<Event>>> + Send;
}

/// Answers with the updates of a page. One of another process is loaded again first: its script and style may be other ones.
pub(super) fn follow(site: &Site, headers: &HeaderMap, place: Place, updates: impl Updates) -> Response {
    let reload = site.hub.is_foreign(headers).then(|| {
        let event = Event::default().event("reload").data("{}");
        event.id(site.hub.position(None))
    });
    let updates = stream::unfold(updates, |mut updates| async move {
        let events = updates.next().await?;
        Some((stream::iter(events), updates))
    });
    sse(site, stream::iter(reload).chain(updates.flatten()), place)
}

/// Answers with events until the server stops or the client has to connect again. The place is held that long.
pub(super) fn sse(site: &Site, events: impl Stream<Item = Event> + Send + 'static, place: Place) -> Response {
    let stop = site.stop.clone();
    let events = events
        .take_until(tokio::time::sleep(LIFE))
        .take_until(async move { stop.requested().await })
        .map(move |event| {
            let _held = &place;
            Ok::<_, Infallible>(event)
        });
    // A named event: a script does not see comments, and could not distinguish silence from a dead connection.
    let beat = Event::default().event("beat").data("{}");
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(BEAT).event(beat));
    let headers = [(CACHE_CONTROL.as_str(), "no-store"), ("x-accel-buffering", "no")];
    let mut response: Response = events.into_response();
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, axum::http::HeaderValue::from_static(value));
    }
    response
}

/// Elements that replace those with their ids.
pub(super) fn put(html: String, position: String) -> Event {
    // Reasons of platforms are foreign text.
    Event::default()
        .event("put")
        .id(position)
        .retry(RETRY)
        .data(secrets::masked(html))
}

/// What clients have been sent.
#[derive(Default)]
struct Sent {
    rows: BTreeMap<SourceKey, SourceRow>,
    frame: Arc<str>,
    announcement: Arc<str>,
    announced: Option<Instant>,
}

/// Renders and broadcasts what changes, for as long as the server runs.
pub(super) async fn run(site: Site) -> Infallible {
    let mut commits = site.commits.clone();
    let mut sent: Option<Sent> = None;
    loop {
        if site.hub.flushes.receiver_count() == 0 {
            // Nothing is read or kept while no page is open: a remote store bills each read.
            sent = None;
            site.hub.wake.notified().await;
        } else {
            tokio::select! {
                () = site.hub.wake.notified() => {}
                () = committed(&mut commits) => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
        tokio::time::sleep(COALESCE).await;
        if let Some(commits) = &mut commits {
            commits.borrow_and_update();
        }
        let began = Instant::now();
        // The store reports its own errors; pages keep what they show, with its age.
        let Ok(sources) = api::known(&site, None).await else {
            continue;
        };
        site.viewers.lock().read(&sources.rows);
        sent = Some(update(&site, sources, sent));
        tokio::time::sleep((began.elapsed() * SHARE).min(Duration::from_secs(5))).await;
    }
}

/// Waits for the next commit of this process; forever, if it commits nothing.
async fn committed(commits: &mut Option<watch::Receiver<u64>>) {
    let is_open = match commits {
        Some(commits) => commits.changed().await.is_ok(),
        None => false,
    };
    if !is_open {
        std::future::pending::<()>().await;
    }
}

fn update(site: &Site, sources: Sources, before: Option<Sent>) -> Sent {
    let frame: Arc<str> = index::frame(site, &sources, "").into_string().into();
    let announcement: Arc<str> = index::announcement(site, &sources).into();
    // With the first client everything counts as changed: what has changed since it loaded its page is not known.
    let mut sent = before.unwrap_or_default();
    let mut rows = BTreeMap::new();
    let is_same = |before: &SourceRow, row: &SourceRow| {
        before.summary == row.summary
            && before.freshness.stale == row.freshness.stale
            && before.configured == row.configured
    };
    for row in sources.rows {
        if sent
            .rows
            .get(&row.summary.key)
            .is_some_and(|before| is_same(before, &row))
        {
            continue;
        }
        let html = index::row(site, &row, "").into_string();
        rows.insert(row.summary.key.clone(), html.into());
        sent.rows.insert(row.summary.key.clone(), row);
    }
    let is_new = frame != sent.frame;
    let is_first = sent.announced.is_none();
    let is_due = sent.announced.is_none_or(|at| at.elapsed() >= ANNOUNCED);
    let announced = (announcement != sent.announcement && is_due).then(|| {
        sent.announcement = Arc::clone(&announcement);
        sent.announced = Some(Instant::now());
        announcement
    });
    // A page that was just loaded shows it already.
    let announced = announced.filter(|_| !is_first);
    sent.frame = Arc::clone(&frame);
    if !rows.is_empty() || is_new || announced.is_some() {
        let flush = Flush {
            number: site.hub.number.fetch_add(1, Ordering::Relaxed) + 1,
            rows,
            frame: is_new.then_some(frame),
            announcement: announced,
        };
        // Without a client there is no receiver, and none is needed.
        let _ = site.hub.flushes.send(Arc::new(flush));
    }
    sent
}
