//! What is shown to everybody: the sources that the configuration makes public, with few facts each.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::response::Response;
use maud::{Markup, html};

use super::{Page, Site, ago, failed, fingerprint, foreign};
use crate::core::freshness::{Field, age_ms};
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::view::cell::printable;
use crate::view::humane;
use crate::view::source_row::SourceRow;
use crate::web::api::{known, with_tag};

/// The only facts about a source that are public. A type of its own: a field that is added elsewhere does not appear here.
#[derive(Debug, PartialEq, Eq)]
struct PublicSource {
    key: SourceKey,
    name: Option<String>,
    stream: Stream,
    started_at: Option<Timestamp>,
    viewers: Option<u64>,
    updated_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Live,
    Offline,
    /// Not known, or too old to rely on.
    Unknown,
}

impl PublicSource {
    fn of(row: &SourceRow) -> Self {
        let summary = &row.summary;
        let stream = match summary.stream_status {
            _ if row.freshness.is_stale(Field::StreamStatus) => Stream::Unknown,
            StreamStatus::Online => Stream::Live,
            StreamStatus::Offline => Stream::Offline,
            StreamStatus::Unknown => Stream::Unknown,
        };
        let is_live = stream == Stream::Live;
        let is_counted = is_live && !row.freshness.is_stale(Field::ViewerCount);
        Self {
            key: summary.key.clone(),
            name: summary.display_name.as_deref().map(str::to_owned),
            stream,
            started_at: summary.started_at.filter(|_| is_live),
            viewers: summary.viewer_count.filter(|_| is_counted),
            updated_at: summary.stream_at,
        }
    }
}

/// Returns the public sources among `rows`.
fn public(site: &Site, rows: &[SourceRow]) -> Vec<PublicSource> {
    let selectors = (site.configured)().public;
    let is_public = |row: &&SourceRow| selectors.iter().any(|selector| selector.selects(&row.summary));
    rows.iter().filter(is_public).map(PublicSource::of).collect()
}

pub(super) async fn page(State(site): State<Site>, headers: HeaderMap) -> Response {
    let sources = match known(&site, None).await {
        Ok(sources) => public(&site, &sources.rows),
        Err(error) => return failed(&site, &headers, "", error.into()),
    };
    let now = site.clock.now();
    let content = html! {
        h1 { "Streams" }
        @if sources.is_empty() { p { "No source is public. The setting " code { "web.public" } " names those that should be." } }
        @else {
            table.plain {
                caption.vh { "Streams" }
                thead { tr { th scope="col" { "Channel" } th scope="col" { "Stream" } th.num scope="col" { "Viewers" } th scope="col" { "Updated" } } }
                tbody { @for source in &sources { (row(source, now)) } }
            }
        }
    };
    let page = Page {
        root: "",
        title: "Streams – bitbrat",
        live: None,
        now,
        is_private: false,
        content,
    };
    page.respond(200)
}

fn row(source: &PublicSource, now: Timestamp) -> Markup {
    let (class, word) = match source.stream {
        Stream::Live => ("v live g-live", "live"),
        Stream::Offline => ("v g-off", "offline"),
        Stream::Unknown => ("v dim g-unknown", "unknown"),
    };
    html! {
        tr {
            th scope="row" { @match &source.name { Some(name) => (foreign(name)), None => (source.key) } " " small { (source.key) } }
            td { span class=(class) { (word) @if let Some(at) = source.started_at { " " (humane::span(age_ms(at, now))) } } }
            td.num { @if let Some(count) = source.viewers { (humane::thousands(count)) } @else { "–" } }
            td { @match source.updated_at { Some(at) => (ago(at, now)), None => "never" } }
        }
    }
}

/// The badge of a source: `/badge/twitch:777001.svg`. Always a picture: an error would be shown as a broken one, and would reveal
/// which sources exist.
pub(super) async fn badge(
    State(site): State<Site>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let key = file
        .strip_suffix(".svg")
        .and_then(|id| id.parse::<SourceKey>().ok());
    let mut shown = None;
    if let Some(key) = key
        && let Ok(sources) = known(&site, None).await
    {
        shown = public(&site, &sources.rows)
            .into_iter()
            .find(|source| source.key == key);
    }
    let text = draw(shown.as_ref());
    let tag = format!("\"{}\"", fingerprint(&text));
    let mut response = with_tag(&headers, &tag, "public, max-age=60", "image/svg+xml", text);
    let own = response.headers_mut();
    own.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    own.insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// Longest label, in characters.
const LABEL: usize = 24;

fn draw(source: Option<&PublicSource>) -> String {
    let label = source
        .and_then(|source| source.name.as_deref())
        .unwrap_or("stream");
    let label: String = printable(label.to_owned()).chars().take(LABEL).collect();
    let (word, color) = match source {
        None => ("N/A".to_owned(), "#6b7280"),
        Some(source) => match (source.stream, source.viewers) {
            (Stream::Live, Some(count)) => (format!("live {}", humane::thousands(count)), "#6d28d9"),
            (Stream::Live, None) => ("live".to_owned(), "#6d28d9"),
            (Stream::Offline, _) => ("offline".to_owned(), "#4b5563"),
            (Stream::Unknown, _) => ("unknown".to_owned(), "#6b7280"),
        },
    };
    let (left, right) = (width(&label) + 12, width(&word) + 12);
    let all = left + right;
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(all) height="20" role="img" aria-label={ (label) ": " (word) } {
            rect width=(all) height="20" rx="3" fill=(color) {}
            path d={ "M3 0h" (left - 3) "v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" } fill="#2f3640" {}
            g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-rendering="geometricPrecision" {
                text x="6" y="14" textLength=(left - 12) { (label) }
                text x=(left + 6) y="14" textLength=(right - 12) { (word) }
            }
        }
    };
    svg.into_string()
}

/// Returns the width of a text in pixels, about as the font of badges has it.
fn width(text: &str) -> usize {
    let tenths = text.chars().map(|c| match c {
        'i' | 'l' | 'j' | '.' | ',' | ':' | ';' | '|' | '\'' | '!' | 'I' => 36,
        'f' | 't' | 'r' | ' ' | '/' | '(' | ')' | '-' => 45,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 98,
        'A'..='Z' => 76,
        _ if c.is_ascii() => 68,
        _ => 110,
    });
    usize::div_ceil(tenths.sum(), 10).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{old_knowledge, ratcaster, revoked};

    #[test]
    fn badge_says_only_what_is_certain() {
        for (story, word) in [
            (ratcaster(), "live 12,345"),
            (revoked(), "offline"),
            (old_knowledge(), "unknown"),
        ] {
            let svg = draw(Some(&PublicSource::of(&story.row())));
            assert!(svg.contains(word) && svg.len() <= 1024, "{word}: {svg}");
        }
        let hostile = PublicSource {
            name: Some("\"><script>\u{202e}x".into()),
            ..PublicSource::of(&ratcaster().row())
        };
        let svg = draw(Some(&hostile));
        assert!(!svg.contains("<script>") && !svg.contains('\u{202e}'), "{svg}");
        assert!(draw(None).contains("N/A"));
    }
}
