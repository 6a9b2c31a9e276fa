//! Leases within one process, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{BootClock, Fence, Holder, LeaseEngine, LeaseError, LeaseName, LeaseRecord, SharedText, Terms};

/// An engine that several members of one process share.
pub struct MemoryLeases {
    terms: Terms,
    clock: Arc<dyn BootClock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    leases: BTreeMap<LeaseName, Entry>,
    view: Option<(u64, String)>,
}

struct Entry {
    holder: Holder,
    fence: Fence,
    expires: Duration,
    note: String,
}

impl MemoryLeases {
    /// Creates an engine without leases, whose clock is `clock`.
    pub fn new(terms: Terms, clock: Arc<dyn BootClock>) -> Self {
        Self {
            terms,
            clock,
            state: Mutex::default(),
        }
    }
}

#[async_trait]
impl LeaseEngine for MemoryLeases {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        note: &str,
    ) -> Result<Option<Fence>, LeaseError> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let fence = match state.leases.get(name) {
            Some(entry) if now < entry.expires && entry.holder != *holder => return Ok(None),
            Some(entry) if now < entry.expires => entry.fence,
            Some(entry) => Fence(entry.fence.0 + 1),
            None => Fence(1),
        };
        let entry = Entry {
            holder: holder.clone(),
            fence,
            expires: now + self.terms.ttl,
            note: note.to_owned(),
        };
        state.leases.insert(name.clone(), entry);
        Ok(Some(fence))
    }

    async fn renew(
        &self,
        name: &LeaseName,
        holder: &Holder,
        fence: Fence,
        note: &str,
    ) -> Result<bool, LeaseError> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        match state.leases.get_mut(name) {
            Some(entry) if entry.holder == *holder && entry.fence == fence && now < entry.expires => {
                entry.expires = now + self.terms.ttl;
                note.clone_into(&mut entry.note);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn release(&self, name: &LeaseName, holder: &Holder, fence: Fence) -> Result<(), LeaseError> {
        let now = self.clock.now();
        if let Some(entry) = self.state.lock().leases.get_mut(name)
            && entry.holder == *holder
            && entry.fence == fence
        {
            entry.expires = entry.expires.min(now);
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<LeaseRecord>, LeaseError> {
        let now = self.clock.now();
        let state = self.state.lock();
        let live = state.leases.iter().filter(|(_, entry)| now < entry.expires);
        let record = |(name, entry): (&LeaseName, &Entry)| LeaseRecord {
            name: name.clone(),
            holder: entry.holder.clone(),
            fence: entry.fence,
            note: entry.note.clone(),
        };
        Ok(live.map(record).collect())
    }

    async fn view(&self) -> Result<Option<SharedText>, LeaseError> {
        let view = self.state.lock().view.clone();
        Ok(view.map(|(version, text)| SharedText {
            version: version.to_string(),
            text,
        }))
    }

    async fn replace_view(&self, base: Option<&str>, text: &str) -> Result<bool, LeaseError> {
        let mut state = self.state.lock();
        let version = state.view.as_ref().map(|(version, _)| *version);
        let is_current = version.map(|version| version.to_string()).as_deref() == base;
        if is_current {
            state.view = Some((version.unwrap_or(0) + 1, text.to_owned()));
        }
        Ok(is_current)
    }
}
