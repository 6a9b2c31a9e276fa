//! Record of the requests to a simulated platform, so that a test can assert "exactly 100 calls". Never contains a secret.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::core::time::Timestamp;

/// Requests stored in full; older ones are only included in the counts.
const RETAINED: usize = 2_000;
/// Bytes of paths and queries stored in full: a client that sends a hundred ids at a time writes two kilobytes a request.
const TEXT: usize = 1 << 20;
/// Different method and path pairs counted by name; the rest is counted as `(other)`.
const PATHS: usize = 10_000;
/// Query parameters whose values are secrets.
const SECRET: [&str; 7] = [
    "access_token",
    "client_secret",
    "code",
    "code_verifier",
    "device_code",
    "refresh_token",
    "token",
];

/// One request as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it arrived, in simulated time.
    pub at: Timestamp,
    /// The method, upper case.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// All query parameters in order, secrets masked.
    pub query: Vec<(String, String)>,
}

/// The bounded record of all requests to one platform.
#[derive(Default)]
pub struct Journal(Mutex<Record>);

#[derive(Default)]
struct Record {
    total: u64,
    counts: BTreeMap<(String, String), Count>,
    recent: VecDeque<Entries>,
    /// Size of the texts in `recent`, in bytes.
    text: usize,
    in_flight: u64,
    peak: u64,
}

/// A stored request: its query is one string.
struct Entries {
    at: Timestamp,
    method: Box<str>,
    path: Box<str>,
    query: Box<str>,
}

impl Entries {
    fn size(&self) -> usize {
        self.method.len() + self.path.len() + self.query.len()
    }

    fn parameters(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .into_owned()
            .collect()
    }
}

#[derive(Default)]
struct Count {
    total: u64,
    statuses: BTreeMap<u16, u64>,
}

impl Journal {
    /// Records a request on its arrival; [`Visit::answered`] records its result.
    pub(super) fn arrived(&self, at: Timestamp, method: &str, path: &str, query: &str) -> Visit<'_> {
        let mut record = self.0.lock();
        let full = record.counts.len() >= PATHS;
        let mut key = (method.to_owned(), path.to_owned());
        if full && !record.counts.contains_key(&key) {
            "(other)".clone_into(&mut key.1);
        }
        record.total += 1;
        record.counts.entry(key.clone()).or_default().total += 1;
        record.in_flight += 1;
        record.peak = record.peak.max(record.in_flight);
        record.keep(Entries {
            at,
            method: method.into(),
            path: path.into(),
            query: masked(query).into(),
        });
        Visit { journal: self, key }
    }

    /// Records a message over an open websocket that is not simulated, as if it had been answered with 501.
    pub(super) fn not_simulated(&self, at: Timestamp, method: &str, path: &str) {
        self.arrived(at, method, path, "").answered(501);
    }

    /// Returns how often `method` was used on exactly `path`, regardless of the response.
    pub fn count(&self, method: &str, path: &str) -> u64 {
        self.0
            .lock()
            .counts
            .get(&(method.to_owned(), path.to_owned()))
            .map_or(0, |count| count.total)
    }

    /// Returns how many requests were made in all.
    pub fn total(&self) -> u64 {
        self.0.lock().total
    }

    /// Returns the most requests that were being answered at the same time.
    pub fn peak_in_flight(&self) -> u64 {
        self.0.lock().peak
    }

    /// Returns the stored requests by `method` on `path`, oldest first.
    pub fn requests(&self, method: &str, path: &str) -> Vec<Request> {
        let record = self.0.lock();
        record
            .recent
            .iter()
            .filter(|seen| *seen.method == *method && *seen.path == *path)
            .map(|seen| Request {
                at: seen.at,
                method: method.to_owned(),
                path: path.to_owned(),
                query: seen.parameters(),
            })
            .collect()
    }

    /// Removes everything except the requests still being answered.
    pub fn clear(&self) {
        let mut record = self.0.lock();
        *record = Record {
            in_flight: record.in_flight,
            peak: record.in_flight,
            ..Record::default()
        };
    }

    /// Returns the whole record as the controls show it.
    pub fn to_json(&self) -> Value {
        let record = self.0.lock();
        let counts: Vec<_> = record
            .counts
            .iter()
            .map(|((method, path), count)| {
                let statuses: BTreeMap<String, u64> = count
                    .statuses
                    .iter()
                    .map(|(status, times)| (status.to_string(), *times))
                    .collect();
                json!({"method": method, "path": path, "total": count.total, "statuses": statuses})
            })
            .collect();
        let recent: Vec<_> = record
            .recent
            .iter()
            .map(|seen| {
                let query = seen.parameters();
                json!({"at": seen.at, "method": seen.method, "path": seen.path, "query": query})
            })
            .collect();
        json!({"total": record.total, "peak_in_flight": record.peak, "counts": counts, "recent": recent})
    }
}

impl Record {
    /// Stores a request, and removes the oldest ones when necessary.
    fn keep(&mut self, request: Entries) {
        self.text += request.size();
        self.recent.push_back(request);
        while self.recent.len() > RETAINED || self.text > TEXT {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.text -= oldest.size();
        }
    }
}

/// A request that is being answered.
pub(super) struct Visit<'a> {
    journal: &'a Journal,
    key: (String, String),
}

impl Visit<'_> {
    /// Records the status that was sent.
    pub(super) fn answered(&self, status: u16) {
        if let Some(count) = self.journal.0.lock().counts.get_mut(&self.key) {
            *count.statuses.entry(status).or_default() += 1;
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut record = self.journal.0.lock();
        record.in_flight = record.in_flight.saturating_sub(1);
    }
}

/// Returns a query with secret values masked.
fn masked(query: &str) -> String {
    let pairs = url::form_urlencoded::parse(query.as_bytes()).map(|(key, value)| {
        let value = if SECRET.contains(&key.as_ref()) {
            "***".into()
        } else {
            value
        };
        (key, value)
    });
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_method_and_path_and_keeps_queries() {
        let journal = Journal::default();
        for _ in 0..3 {
            journal
                .arrived(Timestamp::EPOCH, "GET", "/helix/streams", "user_id=1&user_id=2")
                .answered(200);
        }
        journal
            .arrived(Timestamp::EPOCH, "POST", "/helix/streams", "")
            .answered(404);
        assert_eq!(journal.count("GET", "/helix/streams"), 3);
        assert_eq!(journal.total(), 4);
        assert_eq!(journal.peak_in_flight(), 1);
        let first = &journal.requests("GET", "/helix/streams")[0];
        assert_eq!(
            first.query,
            [("user_id".into(), "1".into()), ("user_id".into(), "2".into())]
        );
        journal.clear();
        assert_eq!(journal.total(), 0);
    }

    #[test]
    fn secrets_in_queries_are_masked() {
        let journal = Journal::default();
        drop(journal.arrived(
            Timestamp::EPOCH,
            "POST",
            "/oauth2/revoke",
            "token=hunter2&client_id=abc",
        ));
        let shown = journal.to_json().to_string();
        assert!(shown.contains("abc") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn memory_is_bounded_whatever_is_asked() {
        let journal = Journal::default();
        for n in 0..PATHS + 50 {
            drop(journal.arrived(Timestamp::EPOCH, "GET", &format!("/{n}"), ""));
        }
        assert_eq!(journal.count("GET", "(other)"), 50);
        assert_eq!(journal.0.lock().recent.len(), RETAINED);
        let ids: Vec<_> = (0..100).map(|n| format!("user_id={n:012}")).collect();
        for _ in 0..RETAINED {
            drop(journal.arrived(Timestamp::EPOCH, "GET", "/helix/streams", &ids.join("&")));
        }
        let kept = journal.requests("GET", "/helix/streams");
        assert!((400..RETAINED).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept[0].query.len(), 100);
        let text = |record: &Record| record.recent.iter().map(Entries::size).sum::<usize>();
        assert!(text(&journal.0.lock()) <= TEXT);
    }
}
