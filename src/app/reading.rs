//! What the API, pages and agents may read.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::{App, eventsub_plan_by_memory};
use crate::core::source::SourceKey;
use crate::mcp::Options;
use crate::view::envelope::{UnusableItem, UnusableKind};
use crate::view::listening::Listening;
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

    /// Returns how the tools for agents are offered.
    pub fn agent_options(self: &Arc<Self>) -> Options {
        let app = Arc::clone(self);
        let listening = move |key: SourceKey| {
            let app = Arc::clone(&app);
            async move {
                let plan = eventsub_plan_by_memory(&app).await.ok()?;
                Listening::of(&plan, &key)
            }
            .boxed()
        };
        Options {
            prefix: self.settings.mcp.prefix.clone(),
            listening: Arc::new(listening),
        }
    }
}
