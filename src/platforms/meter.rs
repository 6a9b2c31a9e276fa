//! Counts the calls of one look and tells how far it has come.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::ProbeSink;
use crate::core::source::PlatformName;

/// The calls of one look.
#[derive(Default)]
pub struct Meter<'a> {
    told: Option<(PlatformName, &'a dyn ProbeSink)>,
    sent: AtomicUsize,
    done: AtomicUsize,
    expected: AtomicUsize,
}

impl<'a> Meter<'a> {
    /// Counts for `sink`.
    pub fn telling(platform: PlatformName, sink: &'a dyn ProbeSink) -> Self {
        Self {
            told: Some((platform, sink)),
            ..Self::silent()
        }
    }

    /// Counts for nobody.
    pub fn silent() -> Self {
        Self::default()
    }

    /// Counts a request, repeats included.
    pub fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many requests were sent.
    pub fn count(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Announces more calls.
    pub fn expect(&self, calls: usize) {
        self.expected.fetch_add(calls, Ordering::Relaxed);
        self.tell();
    }

    /// Counts an announced call as done, however it went.
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        if let Some((platform, sink)) = self.told {
            let done = self.done.load(Ordering::Relaxed);
            let expected = self.expected.load(Ordering::Relaxed).max(done);
            sink.progress(platform, done, expected);
        }
    }
}
