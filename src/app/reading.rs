//! What the API, pages and agents may read.

use super::App;
use crate::view::envelope::{UnusableItem, UnusableKind};
use crate::view::reading::Configured;

impl App {
    /// Returns the part of the configuration that concerns sources.
    pub fn configured(&self) -> Configured {
        let sources = self.sources.all();
        let unresolved = sources.unresolved.into_iter().map(|unresolved| UnusableItem {
            what: UnusableKind::Name,
            id: unresolved.name,
            reason: unresolved.reason,
        });
        Configured {
            unresolved: unresolved.collect(),
            names: self.sources.resolved_names(),
            origins: sources
                .known
                .into_iter()
                .map(|source| (source.key, source.origin))
                .collect(),
            intervals: self.intervals(),
            public: self.settings.web.public.clone(),
        }
    }
}
