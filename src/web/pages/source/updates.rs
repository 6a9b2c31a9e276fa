//! Live updates of the page of one source: the parts that changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{Id, Site, load, sections};
use crate::core::code::Code;
use crate::core::source::SourceKey;
use crate::web::connections::Peer;
use crate::web::live::{Flush, Updates, follow, put};
use crate::web::problem::Problem;

/// How often the page is drawn again without a change: its ages grow.
const REDRAWN: Duration = Duration::from_secs(30);

/// Updates of the page: the parts that changed.
pub(in crate::web::pages) async fn live(
    State(site): State<Site>,
    peer: Option<Extension<Peer>>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::new(400, Code::ApiInvalidSource))?;
    let place = site.hub.place(peer.map(|Extension(Peer(address))| address))?;
    let key = load(&site, &id).await?.source.document.key;
    let following = Following {
        updates: site.hub.follow(),
        key,
        sent: BTreeMap::new(),
        is_first: true,
        site: site.clone(),
    };
    Ok(follow(&site, &headers, place, following))
}

struct Following {
    site: Site,
    updates: Receiver<Arc<Flush>>,
    key: SourceKey,
    /// The parts of the page as they were sent.
    sent: BTreeMap<&'static str, String>,
    is_first: bool,
}

impl Updates for Following {
    async fn next(&mut self) -> Option<Vec<Event>> {
        let position = self.site.hub.position(None);
        if !std::mem::take(&mut self.is_first) {
            let changed = async {
                loop {
                    match self.updates.recv().await {
                        Ok(flush) if flush.rows.contains_key(&self.key) => return true,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => return true,
                        Err(RecvError::Closed) => return false,
                    }
                }
            };
            if !tokio::time::timeout(REDRAWN, changed).await.unwrap_or(true) {
                return None;
            }
        }
        let Ok(shown) = load(&self.site, &self.key.to_string()).await else {
            // A source that was removed, or a store that does not answer: tried again at the next update.
            return Some(Vec::new());
        };
        let mut html = String::new();
        for (name, section) in sections(&self.site, &shown) {
            let section = section.into_string();
            if self.sent.get(name) != Some(&section) {
                html += &section;
                self.sent.insert(name, section);
            }
        }
        let is_changed = !html.is_empty();
        Some(is_changed.then(|| put(html, position)).into_iter().collect())
    }
}
