//! Published events as server-sent events: the lines of `events tail`, resumable by position.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};

use super::Site;
use super::query::{Checked, NoQuery};
use crate::bus::event_lines::{Wanted, lines};
use crate::core::code::Code;
use crate::watch::sent_events;
use crate::web::connections::Peer;
use crate::web::live::{last_event_id, sse};
use crate::web::pages::fingerprint;
use crate::web::problem::Problem;

/// How often the file is read where no commit of this process announces an event, and after one: events are listed when the bus
/// has acknowledged them.
const POLL: Duration = Duration::from_millis(500);

pub(super) async fn follow(
    State(site): State<Site>,
    peer: Option<Extension<Peer>>,
    _: Checked<NoQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(file) = site.events.clone() else {
        let detail = "this process publishes no events; ask the one that runs `watch --role ingest`";
        return Err(Problem::new(503, Code::ApiNoEvents).detail(detail));
    };
    let place = site.hub.place(peer.map(|Extension(Peer(address))| address))?;
    let list = fingerprint(&site.instance);
    Ok(sse(&site, after(file, list, last_event_id(&headers)), place))
}

/// Reads the events after the position that the client has seen; without one, from now on. Positions begin with the name of the
/// list, because another state directory has other events at the same numbers.
fn after(file: PathBuf, list: String, seen: Option<String>) -> impl Stream<Item = Event> + Send {
    let number = |seen: &str| {
        let (of, number) = seen.split_once('-')?;
        number.parse::<i64>().ok().filter(|_| of == list)
    };
    // A position of another list, or of an unknown form, is one that is gone.
    let position = seen.map(|seen| number(&seen).unwrap_or(-1));
    let start = (file, list, position, true);
    stream::unfold(start, |(file, list, position, first)| async move {
        if !first {
            tokio::time::sleep(POLL).await;
        }
        let (position, events): (_, BoxStream<'static, Event>) =
            match sent_events::after(file.clone(), position).await {
                Ok(Some((position, messages))) => {
                    let messages = messages.into_iter().map(Ok::<_, Infallible>);
                    let lines = lines(stream::iter(messages), Wanted::default());
                    let list = list.clone();
                    let events = lines.filter_map(move |line| {
                        let event = line.ok().and_then(|line| {
                            let id = format!("{list}-{}", line.transport_id);
                            Event::default().id(id).event("event").json_data(&line).ok()
                        });
                        std::future::ready(event)
                    });
                    (Some(position), events.boxed())
                }
                Ok(None) => {
                    let reset = Event::default().event("reset").data("{}");
                    (None, stream::iter([reset]).boxed())
                }
                // The file is read again at the next turn.
                Err(_) => (position, stream::empty().boxed()),
            };
        Some((events, (file, list, position, false)))
    })
    .flatten()
}
