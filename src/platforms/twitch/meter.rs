//! Counts the calls of one look and tells how far it has come.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::core::source::PlatformName;
use crate::platforms::ProbeSink;

/// The calls of one look.
pub(super) struct Meter<'a> {
    sink: Option<&'a dyn ProbeSink>,
    sent: AtomicUsize,
    done: AtomicUsize,
    expected: AtomicUsize,
}

impl<'a> Meter<'a> {
    /// Counts for `sink`.
    pub(super) fn telling(sink: &'a dyn ProbeSink) -> Self {
        Self {
            sink: Some(sink),
            ..Self::silent()
        }
    }

    /// Counts for nobody.
    pub(super) fn silent() -> Self {
        Self {
            sink: None,
            sent: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            expected: AtomicUsize::new(0),
        }
    }

    /// Counts a request, repeats included.
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many requests were sent.
    pub(super) fn count(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Announces more calls.
    pub(super) fn expect(&self, calls: usize) {
        self.expected.fetch_add(calls, Ordering::Relaxed);
        self.tell();
    }

    /// Counts an announced call as done, however it went.
    pub(super) fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        if let Some(sink) = self.sink {
            let done = self.done.load(Ordering::Relaxed);
            let expected = self.expected.load(Ordering::Relaxed).max(done);
            sink.progress(PlatformName::Twitch, done, expected);
        }
    }
}
