//! Limits on pages whose cost grows with the number of sources: few are rendered at a time, outside the threads that run
//! probes, and responses that clients do not read occupy a limited amount of memory.
//!
//! What is asked about one source does not wait for lists of all of them: a bot asks while somebody downloads everything.
//!
//! Health and metrics are small and not limited, so that a supervisor is answered whatever other clients do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pages;
use super::problem::Problem;
use crate::blocking::apart;
use crate::core::code::Code;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Pages of all sources rendered at a time, and as many of one source. Each occupies a core for as long as it takes, and reads
    /// the whole store.
    pub(super) rendered: usize,
    /// Requests that may wait for that.
    pub(super) waiting: usize,
    /// Memory for responses that clients have not read yet, in KiB.
    pub(super) unread: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rendered: 1,
            waiting: 64,
            unread: 32 * 1024,
        }
    }
}

/// A smaller response is not counted: as many as there may be connections fit into little memory.
const SMALL: usize = 64 * 1024;

/// Admits requests for expensive pages within the limits.
#[derive(Clone)]
pub(super) struct HeavyPages {
    lists: Lane,
    single: Lane,
    unread: Arc<Semaphore>,
    limits: Limits,
}

/// Requests that wait for each other.
#[derive(Clone)]
struct Lane {
    rendering: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Lane {
    fn new(rendered: usize) -> Self {
        Self {
            rendering: Arc::new(Semaphore::new(rendered)),
            waiting: Arc::default(),
        }
    }
}

/// What a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    AllSources,
    OneSource,
}

impl HeavyPages {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            lists: Lane::new(limits.rendered),
            single: Lane::new(limits.rendered),
            unread: Arc::new(Semaphore::new(limits.unread as usize)),
            limits,
        }
    }

    /// Waits until the request may be rendered; `None` if too many others wait already.
    async fn admit(&self, subject: Subject) -> Option<OwnedSemaphorePermit> {
        let lane = match subject {
            Subject::AllSources => &self.lists,
            Subject::OneSource => &self.single,
        };
        let waiting = QueuedRequest::count(&lane.waiting);
        let free = lane.rendering.available_permits();
        if waiting.before >= self.limits.waiting + free {
            return None;
        }
        Arc::clone(&lane.rendering).acquire_owned().await.ok()
    }

    /// Counts the body as unread until it was sent to the client, or the connection has ended; `None` if there is no memory left.
    fn hold(&self, body: Bytes) -> Option<Body> {
        if body.len() <= SMALL {
            return Some(Body::from(body));
        }
        // One response that is larger than the limit is possible while there is no other.
        let size = u32::try_from(body.len() / 1024).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.unread).try_acquire_many_owned(size.min(self.limits.unread));
        // The server keeps the bytes, not the body, until they are sent.
        memory.ok().map(|memory| {
            Body::from(Bytes::from_owner(Unread {
                body,
                _memory: memory,
            }))
        })
    }
}

struct QueuedRequest {
    count: Arc<AtomicUsize>,
    before: usize,
}

impl QueuedRequest {
    fn count(count: &Arc<AtomicUsize>) -> Self {
        Self {
            before: count.fetch_add(1, Ordering::AcqRel),
            count: Arc::clone(count),
        }
    }
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Unread {
    body: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Answers a request within the limits, or with 503 and when to send it again.
pub(super) async fn limited(State(pages): State<HeavyPages>, request: Request, next: Next) -> Response {
    let Some(subject) = subject(&request) else {
        return next.run(request).await;
    };
    let Some(permit) = pages.admit(subject).await else {
        return busy();
    };
    // Dropped with this future, when the client is gone or the request takes too long.
    let response = apart(async move {
        let _permit = permit;
        next.run(request).await
    })
    .await;
    let (head, body) = response.into_parts();
    let held = match to_bytes(body, usize::MAX).await {
        Ok(body) => pages.hold(body),
        Err(_) => None,
    };
    held.map_or_else(busy, |body| Response::from_parts(head, body))
}

/// Returns what a page shows; `None` if its cost does not grow with the number of sources. Streams have limits of their own.
fn subject(request: &Request) -> Option<Subject> {
    let path = request.uri().path();
    if path == "/api/v1/events" || path.ends_with("/live") {
        return None;
    }
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    if begins(&["/api/v1/sources/", "/sources/", "/badge/"]) {
        return Some(Subject::OneSource);
    }
    let is_index = path == "/" && pages::wants_html(request.headers());
    (is_index || path == "/public" || begins(&["/_debug/", "/api/"])).then_some(Subject::AllSources)
}

fn busy() -> Response {
    Problem::new(503, Code::ApiBusy).retry_after(5).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_about_one_source_do_not_wait_for_lists() {
        let of = |path: &str| subject(&Request::builder().uri(path).body(Body::empty()).unwrap());
        for (path, expected) in [
            ("/api/v1/sources", Some(Subject::AllSources)),
            ("/api/v1/attention", Some(Subject::AllSources)),
            ("/_debug/sources", Some(Subject::AllSources)),
            ("/public", Some(Subject::AllSources)),
            ("/api/v1/sources/twitch:1", Some(Subject::OneSource)),
            ("/api/v1/sources/twitch:1/is-live", Some(Subject::OneSource)),
            ("/sources/twitch:1", Some(Subject::OneSource)),
            ("/badge/twitch:1.svg", Some(Subject::OneSource)),
            ("/sources/twitch:1/live", None),
            ("/api/v1/events", None),
            ("/metrics", None),
            ("/livez", None),
            ("/mcp", None),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn list_that_is_rendered_delays_no_question() {
        let pages = HeavyPages::new(Limits {
            waiting: 0,
            ..Limits::default()
        });
        let list = pages.admit(Subject::AllSources).await;
        assert!(list.is_some() && pages.admit(Subject::AllSources).await.is_none());
        assert!(pages.admit(Subject::OneSource).await.is_some());
    }
}
