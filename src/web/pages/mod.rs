//! Pages for people. Complete without a script; with one, fragments are replaced as they change.

mod assets;
mod debug_index;
pub(super) mod index;
pub(super) mod login;
pub(super) mod public;
pub(super) mod source;
mod timeline;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::Router;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use maud::{DOCTYPE, Markup, html};

use super::Site;
use super::problem::Problem;
use crate::core::time::Timestamp;
use crate::secrets;
use crate::view::cell::{Cell, Glyph, Tone, printable};
use crate::view::cells;

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/", get(index::page))
        .route("/live", get(index::live))
        .route("/sources/{id}", get(source::page))
        .route("/sources/{id}/live", get(source::live))
        .route("/public", get(public::page))
        .route("/badge/{file}", get(public::badge))
        .route("/login", get(login::page).post(login::submit))
        .route("/logout", post(login::leave))
        .route("/_debug", get(debug_index::page))
        .route("/favicon.ico", get(assets::icon))
        .route("/assets/{file}", get(assets::file))
}

/// Whether a client prefers a page: a browser names HTML, a program names anything or JSON.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(','));
    types.any(|accepted| {
        let mut parts = accepted.split(';').map(str::trim);
        let is_html = parts
            .next()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        // A weight of zero excludes a type (RFC 9110, 12.4.2).
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
        is_html && weight.is_none_or(|weight| weight > 0.0)
    })
}

/// What stands around the content of a page.
struct Page<'a> {
    /// Relative path of the start page, so that the server may be behind any prefix.
    root: &'a str,
    title: &'a str,
    /// Where the updates of the page come from, relative to the page.
    live: Option<String>,
    now: Timestamp,
    /// Whether only those who may see everything see it; it then links to the other pages.
    is_private: bool,
    content: Markup,
}

impl Page<'_> {
    fn respond(self, status: u16) -> Response {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let text = self.render().into_string();
        // Reasons of listeners and platforms are foreign text.
        let text = secrets::mask(&text).into_owned();
        (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
    }

    fn render(self) -> Markup {
        let Self {
            root,
            title,
            live,
            now,
            is_private,
            content,
        } = self;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) }
                    link rel="icon" type="image/svg+xml" href={ (root) "assets/icon.svg" };
                    link rel="stylesheet" href={ (root) "assets/" (assets::style()) };
                    script defer src={ (root) "assets/" (assets::script()) } {}
                    @if live.is_some() { noscript { meta http-equiv="refresh" content="30"; } }
                }
                body data-live=[live.as_deref()] data-now=(now.as_millis()) {
                    a.skip href="#main" { "Skip to content" }
                    header.top {
                        a.brand href=(home(root)) { "bitbrat" }
                        @if is_private {
                            nav aria-label="Pages" {
                                a href=(home(root)) { "Sources" }
                                a href={ (root) "_debug" } { "Debug" }
                            }
                        }
                        @if live.is_some() {
                            span #state .state { "as of " (clock(now)) }
                            button.help type="button" data-help aria-label="Keyboard shortcuts" { "?" }
                        }
                    }
                    main #main { (content) }
                    p #announce .vh role="status" {}
                    @if live.is_some() { (shortcuts()) }
                }
            }
        }
    }
}

/// The relative address of the start page: an empty one would be the page itself.
fn home(root: &str) -> &str {
    if root.is_empty() { "./" } else { root }
}

fn shortcuts() -> Markup {
    let keys = [
        ("/", "search"),
        ("j", "next source"),
        ("k", "previous source"),
        ("Enter", "open the source"),
        ("?", "this help"),
        ("Esc", "close, or leave the search"),
    ];
    html! {
        dialog #help aria-labelledby="help-title" {
            h2 #help-title { "Keyboard" }
            dl { @for (key, what) in keys { dt { kbd { (key) } } dd { (what) } } }
            label { input #keys type="checkbox" checked; " Single keys are shortcuts" }
            form method="dialog" { button { "Close" } }
        }
    }
}

/// An error as a page for a browser, and as a document for a program.
pub(super) fn failed(site: &Site, headers: &HeaderMap, root: &str, problem: Problem) -> Response {
    if !wants_html(headers) {
        return problem.into_response();
    }
    let (status, title, detail) = problem.text();
    let content = html! {
        h1 { (title) }
        p { (foreign(detail)) }
        p { a href=(home(root)) { "All sources" } }
    };
    let page = Page {
        root,
        title: "bitbrat",
        live: None,
        now: site.clock.now(),
        is_private: true,
        content,
    };
    page.respond(status)
}

/// The answer to a path that does not exist.
pub(super) fn not_found(site: &Site, headers: &HeaderMap) -> Response {
    failed(
        site,
        headers,
        "/",
        Problem::new(404, crate::core::code::Code::ApiNotFound),
    )
}

/// A short name for content, which changes with it.
pub(super) fn fingerprint(content: &str) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Text of a platform: without control characters, and isolated from the direction of the text around it.
fn foreign(text: &str) -> Markup {
    html! { bdi { (printable(text)) } }
}

/// A value as tables show it: a word with a color and, before it, a symbol of its meaning.
fn value(cell: &Cell) -> Markup {
    let class = [tone(cell.tone), cell.glyph.map_or("", symbol)]
        .iter()
        .filter(|class| !class.is_empty())
        .fold("v".to_owned(), |classes, class| classes + " " + class);
    html! { span class=(class) { (cell.text) } }
}

fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "",
        Tone::Good => "good",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
        Tone::Live => "live",
        Tone::Dim => "dim",
        Tone::Strong => "strong",
    }
}

fn symbol(glyph: Glyph) -> &'static str {
    match glyph {
        Glyph::Up => "g-up",
        Glyph::Down => "g-down",
        Glyph::Bad => "g-bad",
        Glyph::Live => "g-live",
        Glyph::Off | Glyph::Ended => "g-off",
        Glyph::Unknown => "g-unknown",
        Glyph::Good => "g-good",
        Glyph::Warn => "g-warn",
        Glyph::Next => "",
        Glyph::Nothing => "g-nothing",
        Glyph::Stale => "g-stale",
    }
}

/// A time with how long ago it was.
fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let age = cells::seen(Some(at), now).text;
    html! { time.ago datetime=(at.to_string()) title=(cells::moment(at)) { (age) } }
}

/// The time of day, in UTC.
fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} UTC", text.get(11..19).unwrap_or_default())
}

/// A command that fixes something, with a button that copies it.
fn command(text: &str) -> Markup {
    html! {
        span.cmd {
            code { (text) }
            button.copy type="button" data-copy=(text) { "Copy" }
        }
    }
}
