//! The start page: what needs attention, then every source.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use maud::{Markup, html};
use tokio::sync::broadcast::error::RecvError;

use super::{Page, Site, ago, command, failed, fingerprint, foreign, value, wants_html};
use crate::core::freshness::age_ms;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::secrets;
use crate::view::attention::{self, Attention, Severity, Totals};
use crate::view::cell::{Cell, Glyph, Tone};
use crate::view::source_row::SourceRow;
use crate::view::sources::Sources;
use crate::view::{cells, humane, order};
use crate::watch::viewers::Recent;
use crate::web::api;
use crate::web::connections::Peer;
use crate::web::health;
use crate::web::live::{self, Flush, Updates, put};
use crate::web::problem::Problem;

/// Rows on a page.
const ROWS: usize = 100;
/// Sources named with a cause.
const NAMED: usize = 10;
/// Longest search text, in characters.
const SEARCH: usize = 80;

/// Orders that the page offers; the first is the usual one.
const ORDERS: [(&str, &str); 6] = [
    ("", "urgency"),
    ("name", "name"),
    ("-viewers", "viewers"),
    ("stream", "stream"),
    ("-age", "age"),
    ("id", "id"),
];

/// What the address selects. Unknown parameters and values are ignored: addresses are bookmarked and edited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::web) struct Query {
    search: String,
    platform: Option<PlatformName>,
    live: bool,
    failing: bool,
    sort: &'static str,
    page: usize,
}

impl Query {
    fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for (name, text) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "q" => parsed.search = text.trim().chars().take(SEARCH).collect(),
                "platform" => parsed.platform = text.parse().ok(),
                "show" => (parsed.live, parsed.failing) = (text == "live", text == "failing"),
                "sort" => {
                    let known = ORDERS.iter().find(|(order, _)| *order == text);
                    parsed.sort = known.map_or("", |(order, _)| order);
                }
                "page" => parsed.page = text.parse::<usize>().unwrap_or(1).clamp(1, 100_000) - 1,
                _ => {}
            }
        }
        parsed
    }

    /// Returns the address of another page of the same selection, relative to `path`.
    fn address(&self, path: &str, page: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let platform = self.platform.map(|platform| platform.to_string());
        let page = page + 1;
        for (name, value) in [
            ("q", self.search.clone()),
            ("platform", platform.unwrap_or_default()),
            ("show", self.show().to_owned()),
            ("sort", self.sort.to_owned()),
            ("page", if page > 1 { page.to_string() } else { String::new() }),
        ] {
            if !value.is_empty() {
                query.append_pair(name, &value);
            }
        }
        let query = query.finish();
        if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        }
    }

    fn show(&self) -> &'static str {
        match (self.live, self.failing) {
            (true, _) => "live",
            (_, true) => "failing",
            _ => "",
        }
    }

    fn selects(&self, row: &SourceRow) -> bool {
        let search = self.search.to_lowercase();
        let is_named = || {
            let key = row.summary.key.to_string();
            let name = row.summary.display_name.as_deref().unwrap_or_default();
            key.contains(&search) || name.to_lowercase().contains(&search)
        };
        self.platform
            .is_none_or(|platform| row.summary.key.platform() == platform)
            && (!self.live || row.is_live())
            && (!self.failing || row.is_failing())
            && (search.is_empty() || is_named())
    }

    /// Returns the rows that are selected, in their order.
    fn among<'a>(&self, rows: &'a [SourceRow]) -> Vec<&'a SourceRow> {
        let mut selected: Vec<_> = rows.iter().filter(|row| self.selects(row)).collect();
        match self.sort.parse() {
            Ok(key) => selected.sort_by(|one, other| order::compare(&[key], one, other)),
            // What needs attention is on the first page, however many sources there are.
            Err(_) => selected.sort_by_key(|row| row.urgency()),
        }
        selected
    }
}

pub(super) async fn page(
    State(site): State<Site>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if !wants_html(&headers) {
        return health::root(&site);
    }
    let query = Query::parse(query.as_deref());
    match api::known(&site, None).await {
        Ok(sources) => {
            site.viewers.lock().read(&sources.rows);
            let need = attention::of(&sources.rows, &sources.unusable, &(site.problems)()).len();
            let title = title(need);
            let page = Page {
                root: "",
                title: &title,
                live: Some(query.address("./live", query.page)),
                now: site.clock.now(),
                is_private: true,
                content: content(&site, &query, &sources),
            };
            page.respond(200)
        }
        Err(error) => failed(&site, &headers, "", error.into()),
    }
}

/// The title of the page, which a tab shows: with the number of causes that need attention.
fn title(need: usize) -> String {
    match need {
        0 => "bitbrat".to_owned(),
        _ => format!("({need}) bitbrat"),
    }
}

fn content(site: &Site, query: &Query, sources: &Sources) -> Markup {
    let selected = query.among(&sources.rows);
    let first = query.page * ROWS;
    let shown = selected.get(first..).unwrap_or_default();
    let shown = &shown[..shown.len().min(ROWS)];
    html! {
        h1 .vh { "Sources" }
        (frame(site, sources, ""))
        (filters(query))
        @if shown.is_empty() { (nothing(query, sources)) }
        @else {
            table.sources {
                caption.vh { "Sources with connection, stream, viewers, authorization and what the bot can do" }
                thead { tr {
                    th scope="col" { "Source" } th scope="col" { "Connection" } th scope="col" { "Stream" }
                    th.num scope="col" { "Viewers" } th scope="col" { "Authorization" } th scope="col" { "Bot can" }
                    th.num scope="col" { "Age" }
                } }
                tbody { @for row in shown { (self::row(site, row, "")) } }
            }
            (pages(query, first, shown.len(), selected.len()))
        }
        (accounts(site))
    }
}

/// What is above the table: numbers, and what needs attention. Updates replace it as a whole.
pub(in crate::web) fn frame(site: &Site, sources: &Sources, root: &str) -> Markup {
    let totals = Totals::of(&sources.rows);
    let entries = attention::of(&sources.rows, &sources.unusable, &(site.problems)());
    let reasons = site.reasons();
    html! {
        p #totals .totals {
            span { b { (humane::thousands(totals.sources)) } @if totals.sources == 1 { " source" } @else { " sources" } }
            span.live { b { (humane::thousands(totals.live)) } " live" }
            span { b { (humane::thousands(totals.connected)) } " connected" }
            @if totals.stale > 0 { span.warn { b { (humane::thousands(totals.stale)) } " stale" } }
            @if !reasons.is_empty() { a.warn href={ (root) "_debug" } { "not ready" } }
        }
        section #attention .attention .calm[entries.is_empty()] aria-labelledby="needs" data-title=(title(entries.len())) {
            h2 #needs { "Needs attention" @if !entries.is_empty() { " " span.count { (entries.len()) } } }
            @if entries.is_empty() { p.v.good.g-good { "Nothing. Every source is checked, connected and authorized." } }
            @else { ul { @for entry in entries.iter() { (cause(entry, root)) } } }
        }
    }
}

fn cause(entry: &Attention, root: &str) -> Markup {
    let (class, word) = match entry.severity {
        Severity::Person => ("bad g-bad", "Act"),
        Severity::Degraded => ("warn g-warn", "Watch"),
    };
    let count = entry.sources.len();
    html! {
        li class=(class) {
            p.cause {
                span.word { (word) } " " (foreign(&entry.what))
                @if let [key] = entry.sources.as_slice() { " " a href={ (root) "sources/" (key) } { "Open" span.vh { " " (key) } } }
            }
            @if let Some(text) = &entry.command { (command(text)) }
            @if count > 1 {
                details #{ "c-" (short(&entry.what)) } {
                    summary { (humane::count(count as u64, "source")) " affected" }
                    p.keys {
                        @for key in entry.sources.iter().take(NAMED) { a href={ (root) "sources/" (key) } { (key) } " " }
                        @if count > NAMED { "and " (count - NAMED) " more" }
                    }
                }
            }
        }
    }
}

/// A name for an element that stays the same while its text does. Numbers in it change.
fn short(text: &str) -> String {
    let words: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    fingerprint(&words)
}

/// What a screen reader announces when it changes.
pub(in crate::web) fn announcement(site: &Site, sources: &Sources) -> String {
    let entries = attention::of(&sources.rows, &sources.unusable, &(site.problems)());
    match entries.as_slice() {
        [] => "Nothing needs attention".to_owned(),
        [one] => format!("Needs attention: {}", one.what),
        [first, others @ ..] => format!("Needs attention: {}, and {} more", first.what, others.len()),
    }
}

fn filters(query: &Query) -> Markup {
    let option =
        |value: &str, text: &str, chosen: bool| html! { option value=(value) selected[chosen] { (text) } };
    html! {
        form.filters role="search" {
            label.vh for="q" { "Search by name or id" }
            input #q name="q" type="search" value=(query.search) maxlength=(SEARCH) placeholder="Name or id" autocomplete="off";
            label { span { "Platform" } select name="platform" {
                (option("", "all", query.platform.is_none()))
                @for name in PlatformName::ALL { (option(name.as_str(), name.rules().title, query.platform == Some(name))) }
            } }
            label { span { "Show" } select name="show" {
                (option("", "all", query.show().is_empty()))
                (option("live", "live", query.live))
                (option("failing", "failing", query.failing))
            } }
            label { span { "Sort by" } select name="sort" {
                @for (order, text) in ORDERS { (option(order, text, query.sort == order)) }
            } }
            button type="submit" { "Apply" }
            @if *query != (Query { page: query.page, ..Query::default() }) { a.clear href="./" { "Clear" } }
        }
    }
}

fn nothing(query: &Query, sources: &Sources) -> Markup {
    html! {
        div.empty {
            @if sources.rows.is_empty() {
                p { "No sources are configured and none are stored." }
                p { "Add one to the configuration, or set everything up:" }
                (command("bitbrat init"))
            } @else {
                p { "None of " (humane::count(sources.rows.len() as u64, "source")) " matches." }
                @if query.page > 0 { p { a href=(query.address("./", 0)) { "First page" } } }
                @else { p { a href="./" { "Show all sources" } } }
            }
        }
    }
}

fn pages(query: &Query, first: usize, shown: usize, all: usize) -> Markup {
    html! {
        nav.pages aria-label="Parts of the list" {
            @if query.page > 0 { a rel="prev" href=(query.address("./", query.page - 1)) { "Previous" } }
            span { (humane::thousands(first as u64 + 1)) "–" (humane::thousands((first + shown) as u64)) " of " (humane::thousands(all as u64)) }
            @if first + shown < all { a rel="next" href=(query.address("./", query.page + 1)) { "Next" } }
        }
    }
}

/// Returns the name of a source as the id of an element.
pub(in crate::web) fn element_id(key: &SourceKey) -> String {
    format!("s-{}-{}", key.platform(), key.id())
}

/// One row. Titles of columns are on narrow screens added by the style.
pub(in crate::web) fn row(site: &Site, row: &SourceRow, root: &str) -> Markup {
    let now = site.clock.now();
    let (summary, freshness) = (&row.summary, &row.freshness);
    let viewers = site.viewers.lock();
    let confirmed = summary.status_at.min(summary.stream_at).or(summary.status_at);
    html! {
        tr #(element_id(&summary.key)) {
            th scope="row" {
                a href={ (root) "sources/" (summary.key) } data-k=(summary.key) {
                    @match &summary.display_name { Some(name) => (foreign(name)), None => (summary.key) }
                }
                small { (summary.key) }
                @if let Some(note) = row.note() { p.note .bad[row.findings.needs_person()] { (foreign(&note)) } }
            }
            td { (value(&cells::status(summary, freshness))) }
            td { (value(&cells::stream(summary, freshness, now))) }
            td.num { (spark(viewers.of(&summary.key))) (value(&cells::viewers(summary, freshness))) }
            td { (value(&cells::auth(summary, freshness))) }
            td { (value(&cells::abilities(summary, freshness))) }
            td.num { @match confirmed { Some(at) => (age(at, now)), None => (value(&Cell::label("never").tone(Tone::Dim))) } }
        }
    }
}

fn age(at: Timestamp, now: Timestamp) -> Markup {
    html! { time.age datetime=(at.to_string()) { (humane::age(age_ms(at, now))) } }
}

/// Draws recent viewers; the number beside it is the latest.
fn spark(recent: Option<&Recent>) -> Markup {
    let Some(recent) = recent.filter(|recent| recent.points().len() > 1) else {
        return Markup::default();
    };
    let counts: Vec<_> = recent.points().map(|(_, count)| count).collect();
    let greatest = counts.iter().flatten().max().copied().unwrap_or(0).max(1);
    let mut lines = vec![String::new()];
    for (place, count) in counts.iter().enumerate() {
        match (count, lines.last_mut()) {
            (Some(count), Some(line)) => {
                let height = 14 - (u128::from(*count) * 13 / u128::from(greatest)).min(13);
                line.push_str(&format!("{},{height} ", place * 2));
            }
            _ => lines.push(String::new()),
        }
    }
    html! {
        svg.spark viewBox="0 0 60 16" aria-hidden="true" {
            @for line in lines.iter().filter(|line| !line.is_empty()) { polyline points=(line.trim_end()) {} }
        }
    }
}

/// The accounts that sources need, and when their tokens expire.
fn accounts(site: &Site) -> Markup {
    let Some(overview) = site
        .overview()
        .filter(|overview| !overview.summary.accounts.is_empty())
    else {
        return Markup::default();
    };
    let now = site.clock.now();
    html! {
        section #accounts aria-labelledby="accounts-title" {
            h2 #accounts-title { "Accounts" }
            table.plain {
                caption.vh { "Accounts that sources need" }
                thead { tr { th scope="col" { "Account" } th scope="col" { "Token" } th scope="col" { "Expires" } th scope="col" { "Checked" } } }
                tbody {
                    @for account in &overview.summary.accounts {
                        tr {
                            th scope="row" { code { (account.identity) } }
                            td { (value(&token(&account.state))) }
                            td { @match account.expires_at {
                                _ if account.state != "VALID" => "–",
                                Some(at) if at > now => { "in " (humane::span(age_ms(now, at))) }
                                Some(at) => (ago(at, now)),
                                None => "never",
                            } }
                            td { (ago(account.checked_at, now)) }
                        }
                    }
                }
            }
        }
    }
}

/// Shows the state of a token.
pub(super) fn token(state: &str) -> Cell {
    let (glyph, tone) = match state {
        "VALID" => (Glyph::Good, Tone::Good),
        "EXPIRED" => (Glyph::Warn, Tone::Warn),
        _ => (Glyph::Bad, Tone::Bad),
    };
    Cell::new(state).glyph(glyph).tone(tone)
}

/// Updates of the start page: at first its whole state, then the rows on it that change.
pub(super) async fn live(
    State(site): State<Site>,
    peer: Option<Extension<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = site.hub.place(peer.map(|Extension(Peer(address))| address))?;
    let query = Query::parse(query.as_deref());
    let following = Following {
        updates: site.hub.follow(),
        query,
        keys: BTreeSet::new(),
        is_current: false,
        site: site.clone(),
    };
    Ok(live::follow(&site, &headers, place, following))
}

struct Following {
    site: Site,
    updates: tokio::sync::broadcast::Receiver<Arc<Flush>>,
    query: Query,
    /// The sources on the page.
    keys: BTreeSet<SourceKey>,
    /// Whether its whole state was sent, so that updates are enough.
    is_current: bool,
}

impl Updates for Following {
    async fn next(&mut self) -> Option<Vec<Event>> {
        if !self.is_current {
            return Some(self.state().await);
        }
        match self.updates.recv().await {
            Ok(flush) => Some(self.events(&flush)),
            Err(RecvError::Lagged(_)) => {
                self.updates = self.updates.resubscribe();
                self.is_current = false;
                Some(Vec::new())
            }
            Err(RecvError::Closed) => None,
        }
    }
}

impl Following {
    async fn state(&mut self) -> Vec<Event> {
        let Ok(sources) = api::known(&self.site, None).await else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Vec::new();
        };
        self.is_current = true;
        let selected = self.query.among(&sources.rows);
        let rows = selected.into_iter().skip(self.query.page * ROWS).take(ROWS);
        let mut html = frame(&self.site, &sources, "").into_string();
        self.keys = rows.clone().map(|row| row.summary.key.clone()).collect();
        html += &table(rows.map(|row| self::row(&self.site, row, "").into_string()));
        vec![put(html, self.site.hub.position(None))]
    }

    fn events(&self, flush: &Flush) -> Vec<Event> {
        let mut html = flush.frame.as_deref().unwrap_or_default().to_owned();
        let rows = flush.rows.iter().filter(|(key, _)| self.keys.contains(key));
        html += &table(rows.map(|(_, row)| row.to_string()));
        let mut events = Vec::new();
        if !html.is_empty() {
            events.push(put(html, self.site.hub.position(Some(flush))));
        }
        let announcement = flush.announcement.as_deref();
        events.extend(announcement.map(|text| Event::default().event("say").data(secrets::mask(text))));
        events
    }
}

/// Rows as a browser reads them: outside of a table it would drop them.
fn table(rows: impl Iterator<Item = String>) -> String {
    let rows: String = rows.collect();
    match rows.as_str() {
        "" => rows,
        rows => format!("<table><tbody>{rows}</tbody></table>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_keeps_the_selection_and_ignores_what_is_unknown() {
        let query = Query::parse(Some("q=rat+%26&show=live&platform=kick&sort=-viewers&page=3&x=1"));
        assert_eq!((query.page, query.live, query.sort), (2, true, "-viewers"));
        let expected = "live?q=rat+%26&platform=kick&show=live&sort=-viewers&page=2";
        assert_eq!(query.address("live", 1), expected);
        let odd = Query::parse(Some("platform=myspace&sort=%3Cscript%3E&page=-1&show=x"));
        assert_eq!(odd, Query::default());
        assert_eq!(odd.address("./", 0), "./");
    }
}
