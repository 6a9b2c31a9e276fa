//! The list of paths, for operators.

use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::{Page, Site};
use crate::core::source::PlatformName;
use crate::web::api;

pub(super) async fn page(State(site): State<Site>) -> Response {
    let mut paths: Vec<(String, &str)> = [
        ("healthz", "Whether the process answers; /livez returns the same"),
        ("health", "The same in the form of BitBrat's state engine"),
        ("readyz", "Whether every required part works, and what does not"),
        ("metrics", "Metrics for Prometheus, as text or OpenMetrics"),
        ("api/v1/openapi.json", "The API, described by OpenAPI 3.1"),
        ("public", "The sources that are shown to everybody"),
        ("_debug/sources", "Every stored document with its evidence"),
        (
            "_debug/bus",
            "What is stored from the bus, and the chat that is counted on it",
        ),
        ("_debug/config", "The configuration at the start, without secrets"),
        ("_debug/connectors", "Every platform, in the form of a connector"),
        (
            "_debug/counters",
            "Every counter of the metrics, summed over its labels",
        ),
        ("_debug/instance", "This process: its name and its platforms"),
    ]
    .map(|(path, about)| (path.to_owned(), about))
    .to_vec();
    let platforms = PlatformName::ALL.into_iter();
    paths.extend(platforms.map(|name| (format!("_debug/{name}"), "A platform, in the form of a connector")));
    let listeners = site
        .overview()
        .map(|overview| overview.listeners)
        .unwrap_or_default();
    paths.extend(listeners.into_iter().filter_map(|(name, _)| {
        let (platform, listener) = name.split_once('-')?;
        Some((
            format!("_debug/{platform}/{listener}"),
            "A listener and what it is subscribed to",
        ))
    }));
    let routes = api::ROUTES.iter();
    paths.extend(routes.map(|route| (route.path.trim_start_matches('/').to_owned(), route.summary)));
    let reasons = site.reasons();
    let content = html! {
        h1 { "Debug" }
        @if reasons.is_empty() { p { "This process is ready." } }
        @else {
            p { "This process is not ready:" }
            ul { @for reason in &reasons { li { (super::foreign(reason)) } } }
        }
        table.plain {
            caption.vh { "Paths" }
            thead { tr { th scope="col" { "Path" } th scope="col" { "What it has" } } }
            tbody {
                @for (path, about) in &paths {
                    tr {
                        td { @if path.contains('{') { code { "/" (path) } } @else { a href=(path) { code { "/" (path) } } } }
                        td { (about) }
                    }
                }
            }
        }
    };
    let page = Page {
        root: "",
        title: "Debug – bitbrat",
        live: None,
        now: site.clock.now(),
        is_private: true,
        content,
    };
    page.respond(200)
}
