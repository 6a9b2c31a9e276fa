//! The page of one source: timelines, sessions, permissions, and the evidence of each status.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::Event;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, StreamExt as _};
use maud::{Markup, html};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::timeline::{self, Period, Share, Span};
use super::{Page, Site, Timestamp, ago, command, failed, foreign, value};
use crate::blocking::blocking;
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::freshness::{Field, age_ms};
use crate::core::source::SourceKey;
use crate::core::verdict::{AuthStatus, explain};
use crate::store::HistoryEntry;
use crate::view::cell::{Cell, Glyph, Tone, printable};
use crate::view::detail::{Held, SourceInFull, TransportState};
use crate::view::{attention, cells, humane};
use crate::watch::runs::{self, Run};
use crate::web::api::found;
use crate::web::connections::Peer;
use crate::web::live::{Flush, LIFE, put, sse};
use crate::web::problem::Problem;

/// Transitions that a page shows at most: a week of a source that changes often.
const HISTORY: usize = 500;
/// Transitions in the table.
const LISTED: usize = 30;
/// Sessions in the table.
const SESSIONS: usize = 20;
/// How much of the stored evidence is shown, in characters.
const EVIDENCE: usize = 16_000;
/// How often the page is drawn again without a change: its ages grow.
const REDRAWN: Duration = Duration::from_secs(30);

/// Everything that a page shows.
struct Shown {
    source: SourceInFull,
    runs: Vec<Run>,
}

type Id = Result<Path<String>, PathRejection>;

async fn load(site: &Site, id: &str) -> Result<Shown, Problem> {
    let found = found(site, id, None).await?;
    let history = site.store.history(&found.document.key, HISTORY).await?;
    let directory = site.runs.clone();
    let now = site.clock.now();
    let runs = blocking(move || runs::read_in_daemon(&directory, now)).await;
    Ok(Shown {
        source: SourceInFull {
            as_of: now,
            row: found.row,
            document: found.document,
            listening: None,
            history: HistoryEntry::without_repeats(history),
        },
        runs,
    })
}

pub(super) async fn page(State(site): State<Site>, id: Id, headers: HeaderMap) -> Response {
    let loaded = match id {
        Ok(Path(id)) => load(&site, &id).await,
        Err(_) => Err(Problem::new(400, Code::ApiInvalidSource)),
    };
    match loaded {
        Ok(shown) => {
            let key = &shown.source.document.key;
            let name = shown.source.document.display_name();
            let name = name.map_or_else(|| key.to_string(), |name| printable(name.to_owned()));
            let page = Page {
                root: "../",
                title: &format!("{name} – bitbrat"),
                // Without the dot a browser reads the platform as a scheme.
                live: Some(format!("./{key}/live")),
                now: site.clock.now(),
                is_private: true,
                content: html! { @for (_, section) in sections(&site, &shown) { (section) } },
            };
            page.respond(200)
        }
        Err(problem) => failed(&site, &headers, "../", problem),
    }
}

/// Returns the parts of the page, each an element whose id is its name.
fn sections(site: &Site, shown: &Shown) -> Vec<(&'static str, Markup)> {
    let Shown { source, runs } = shown;
    vec![
        ("head", head(source)),
        ("now", states(source)),
        ("day", day(site, source, runs)),
        ("week", week(source, runs)),
        ("uptime", uptime(source, runs)),
        ("sessions", sessions(source)),
        ("can", permissions(source)),
        ("ways", transports(source)),
        ("past", past(source)),
        ("evidence", evidence(source)),
    ]
}

fn head(source: &SourceInFull) -> Markup {
    let key = &source.document.key;
    let rows = [source.row.clone()];
    let entries = attention::of(&rows, &[], &[]);
    html! {
        section #head .head {
            svg.defs aria-hidden="true" {
                pattern #unknown width="8" height="8" patternUnits="userSpaceOnUse" { path d="M0 8L8 0" {} }
                pattern #many width="4" height="8" patternUnits="userSpaceOnUse" { path.w d="M1 0V8" {} }
            }
            p.crumbs { a href="../" { "Sources" } " / " (key) }
            h1 { @match source.document.display_name() { Some(name) => (foreign(name)), None => (key) } }
            p.dim { (key.platform().rules().title) " " code { (key) }
                @if let Some(origin) = &source.row.configured { ", configured in " (origin) } @else { ", not configured" }
            }
            @if !entries.is_empty() {
                ul.attention { @for entry in &entries { li class=(if source.row.findings.needs_person() { "bad g-bad" } else { "warn g-warn" }) {
                    p.cause { (foreign(&entry.what)) }
                    @if let Some(text) = &entry.command { (command(text)) }
                } } }
            }
        }
    }
}

fn states(source: &SourceInFull) -> Markup {
    let (summary, freshness, now) = (&source.row.summary, &source.row.freshness, source.as_of);
    let verdict = &source.document.verdict;
    let metadata = source.document.record().metadata;
    let text = |field: &str| {
        metadata
            .get(field)
            .and_then(|text| text.as_str())
            .map(str::to_owned)
    };
    let card = |title: &str, shown: Cell, at: Option<Timestamp>, rule: Option<&str>| {
        html! {
            div.card {
                h2 { (title) }
                p.big { (value(&shown)) }
                @if let Some(rule) = rule { p { (explain(rule)) } p.dim { code { (rule) } } }
                @if let Some(at) = at { p.dim { "confirmed " (ago(at, now)) } }
            }
        }
    };
    let auth = verdict.auth.as_ref();
    html! {
        section #now .cards aria-label="Now" {
            (card("Connection", cells::status(summary, freshness), verdict.status.at, Some(verdict.status.rule)))
            (card("Stream", cells::stream(summary, freshness, now), verdict.stream.at, Some(verdict.stream.rule)))
            div.card {
                h2 { "Viewers" }
                p.big { (value(&cells::viewers(summary, freshness))) }
                @if let Some(title) = text("title") { p { (foreign(&title)) } }
                @for field in ["category", "gameName", "game"] { @if let Some(category) = text(field) { p.dim { (foreign(&category)) } } }
                @if let Some(at) = summary.viewers_at { p.dim { "counted " (ago(at, now)) } }
            }
            (card("Authorization", cells::auth(summary, freshness), auth.and_then(|auth| auth.at), auth.map(|auth| auth.rule)))
        }
    }
}

const BANDS: [(Facet, &str); 3] = [
    (Facet::Status, "Connection"),
    (Facet::Auth, "Authorization"),
    (Facet::Stream, "Stream"),
];

fn axis(labels: &[String]) -> Markup {
    html! { p.axis aria-hidden="true" { @for label in labels { span { (label) } } } }
}

fn spans(source: &SourceInFull, facet: Facet, period: Period, runs: &[Run]) -> Vec<Span> {
    timeline::spans(&source.history, facet, period, runs, proven_until(source, facet))
}

/// Returns until when the present state is proven: until now, or until its evidence where that is too old to rely on.
fn proven_until(source: &SourceInFull, facet: Facet) -> Timestamp {
    let freshness = &source.row.freshness;
    let (field, age) = match facet {
        Facet::Auth => (Field::AuthStatus, freshness.auth_age_ms),
        Facet::Stream => (Field::StreamStatus, freshness.stream_age_ms),
        _ => (Field::Status, freshness.status_age_ms),
    };
    match age.and_then(|age| i64::try_from(age).ok()) {
        Some(age) if freshness.is_stale(field) => source.as_of.plus_millis(-age),
        _ => source.as_of,
    }
}

fn bands(source: &SourceInFull, runs: &[Run], period: Period, name: &str) -> Markup {
    html! {
        @for (facet, title) in BANDS {
            (timeline::band(&format!("{name}-{}", facet.as_str()), title, &spans(source, facet, period, runs), period))
        }
    }
}

fn day(site: &Site, source: &SourceInFull, runs: &[Run]) -> Markup {
    let period = Period::last(24, source.as_of);
    let viewers = site.viewers.lock();
    let hour = |hours: i64| cells::moment(source.as_of.plus_secs(-hours * 3600))[11..16].to_owned();
    html! {
        section #day .timeline aria-labelledby="day-title" {
            h2 #day-title { "Last 24 hours" }
            (bands(source, runs, period, "day"))
            (timeline::viewers(viewers.of(&source.document.key), period))
            (axis(&[hour(24), hour(18), hour(12), hour(6), "now (UTC)".to_owned()]))
            (legend())
        }
    }
}

fn week(source: &SourceInFull, runs: &[Run]) -> Markup {
    let period = Period::last(7 * 24, source.as_of);
    let date = |days: i64| cells::moment(source.as_of.plus_secs(-days * 86_400))[5..10].to_owned();
    html! {
        section #week .timeline aria-labelledby="week-title" {
            h2 #week-title { "Last 7 days" }
            (bands(source, runs, period, "week"))
            (axis(&[date(7), date(5), date(4), date(2), "now (UTC)".to_owned()]))
        }
    }
}

fn legend() -> Markup {
    let kinds = [
        ("good", "in order"),
        ("live", "live"),
        ("off", "offline"),
        ("warn", "degraded"),
        ("bad", "refused"),
        ("unknown", "unknown"),
        ("many", "many changes"),
        ("none", "no data"),
    ];
    html! {
        ul.legend aria-label="Legend" {
            @for (class, word) in kinds { li { svg viewBox="0 0 14 14" aria-hidden="true" { rect class=(class) width="14" height="14" {} } (word) } }
        }
    }
}

fn uptime(source: &SourceInFull, runs: &[Run]) -> Markup {
    let periods = [(24, "24 hours"), (7 * 24, "7 days")];
    html! {
        section #uptime aria-labelledby="uptime-title" {
            h2 #uptime-title { "Uptime" }
            table.plain {
                caption.vh { "Share of the time for which it is known" }
                thead { tr { th scope="col" { "Period" } th.num scope="col" { "Connected" } th.num scope="col" { "Authorized" } th.num scope="col" { "Live" } th.num scope="col" { "Known for" } } }
                tbody {
                    @for (hours, title) in periods {
                        @let period = Period::last(hours, source.as_of);
                        @let of = |facet, good| Share::of(&spans(source, facet, period, runs), good);
                        @let connected = of(Facet::Status, "CONNECTED");
                        @let live = of(Facet::Stream, "ONLINE");
                        tr {
                            th scope="row" { (title) }
                            td.num { (connected.text()) }
                            td.num { (of(Facet::Auth, "VALID").text()) }
                            td.num { @if live.known_ms == 0 { "no data" } @else { (humane::duration(live.good_ms)) } }
                            td.num { (humane::duration(connected.known_ms)) }
                        }
                    }
                }
            }
            p.dim { "Time in which bitbrat was not running, or had no proof, is not counted." }
        }
    }
}

/// One stream, from its start to its end.
#[derive(Debug, PartialEq, Eq)]
struct Session {
    /// `None` where it was live already when it was first seen, and the platform did not say since when.
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    id: Option<String>,
}

/// Returns the streams in a history that is newest first, newest first.
fn sessions_of(history: &[HistoryEntry]) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    let changes = history.iter().rev().map(|entry| &entry.transition);
    for change in changes.filter(|change| change.facet == Facet::Stream) {
        let is_open = sessions.last().is_some_and(|session| session.end.is_none());
        match change.to.as_deref() == Some("ONLINE") {
            true => {
                if is_open && let Some(open) = sessions.last_mut() {
                    open.end = Some(change.at);
                }
                sessions.push(Session {
                    start: (!change.initial).then_some(change.at),
                    end: None,
                    id: change.stream_id.clone(),
                });
            }
            false if is_open => {
                if let Some(open) = sessions.last_mut() {
                    open.end = Some(change.at);
                }
            }
            false => {}
        }
    }
    sessions.reverse();
    sessions
}

fn sessions(source: &SourceInFull) -> Markup {
    let mut sessions = sessions_of(&source.history);
    let is_live = source.row.is_live();
    // The platform's own time of the start is better than that of its first observation.
    if let Some(current) = sessions.first_mut().filter(|session| session.end.is_none()) {
        current.start = source.row.summary.started_at.or(current.start);
    }
    html! {
        section #sessions aria-labelledby="sessions-title" {
            h2 #sessions-title { "Streams" }
            @if sessions.is_empty() { p.dim { "None is recorded." } }
            @else {
                table.plain {
                    caption.vh { "Streams, newest first" }
                    thead { tr { th scope="col" { "Began" } th scope="col" { "Ended" } th.num scope="col" { "Length" } th scope="col" { "Id" } } }
                    tbody {
                        @for session in sessions.iter().take(SESSIONS) {
                            tr {
                                td { @match session.start { Some(at) => (cells::moment(at)), None => "start unknown" } }
                                td { @match session.end { Some(at) => (cells::moment(at)), None => (value(&open(is_live))) } }
                                td.num { @if let Some(start) = session.start { (humane::duration(age_ms(start, session.end.unwrap_or(source.as_of)))) } @else { "–" } }
                                td { code { (session.id.as_deref().unwrap_or("–")) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn open(is_live: bool) -> Cell {
    match is_live {
        true => Cell::label("live").glyph(Glyph::Live).tone(Tone::Live),
        false => Cell::label("unknown").glyph(Glyph::Unknown).tone(Tone::Dim),
    }
}

fn permissions(source: &SourceInFull) -> Markup {
    let holdings = source.holdings();
    let (denied, others): (Vec<_>, Vec<_>) =
        holdings.into_iter().partition(|holding| holding.held == Held::No);
    let abilities = cells::abilities(&source.row.summary, &source.row.freshness);
    html! {
        section #can aria-labelledby="can-title" {
            h2 #can-title { "What the bot can do" }
            p.big { (value(&abilities)) }
            details #can-all {
                summary { (humane::count(others.len() as u64, "permission")) " reported, " (denied.len()) " denied" }
                table.plain {
                    caption.vh { "Permissions" }
                    thead { tr { th scope="col" { "Permission" } th scope="col" { "Held" } th scope="col" { "Method" } th scope="col" { "Checked" } } }
                    tbody {
                        @for holding in &others {
                            tr {
                                th scope="row" { code { (holding.permission) } }
                                td { (value(&held(holding.held))) }
                                td { @match &holding.reason { Some(reason) => (foreign(reason)), None => (holding.methods.join(", ")) } }
                                td { @match holding.at { Some(at) => (ago(at, source.as_of)), None => "never" } }
                            }
                        }
                    }
                }
                @if !denied.is_empty() {
                    p.dim { "Not held: " @for holding in &denied { code { (holding.permission) } " " } }
                }
            }
        }
    }
}

fn held(held: Held) -> Cell {
    match held {
        Held::Yes => Cell::label("yes").glyph(Glyph::Good).tone(Tone::Good),
        Held::No => Cell::label("no").glyph(Glyph::Off),
        Held::Unknown => Cell::label("unknown").glyph(Glyph::Unknown).tone(Tone::Warn),
    }
}

fn transports(source: &SourceInFull) -> Markup {
    let now = source.as_of;
    let state = |state: TransportState| match state {
        TransportState::Up => Cell::label("up").glyph(Glyph::Up).tone(Tone::Good),
        TransportState::Closed => Cell::label("closed").glyph(Glyph::Down).tone(Tone::Dim),
        TransportState::Down => Cell::label("down").glyph(Glyph::Down).tone(Tone::Warn),
        TransportState::Refused => Cell::label("refused").glyph(Glyph::Bad).tone(Tone::Bad),
    };
    html! {
        section #ways aria-labelledby="ways-title" {
            h2 #ways-title { "Connections and accounts" }
            table.plain {
                caption.vh { "How the platform is reached" }
                thead { tr { th scope="col" { "Way" } th scope="col" { "State" } th scope="col" { "Last proof" } th scope="col" { "Last failure" } } }
                tbody {
                    @for way in source.transports() {
                        tr {
                            th scope="row" { code { (way.name) } }
                            td { (value(&state(way.state))) }
                            td { @match way.last_up { Some(at) => (ago(at, now)), None => "never" } }
                            td { @match way.last_failure { Some(at) => { (ago(at, now)) " " (foreign(way.failure.as_deref().unwrap_or_default())) } None => "none" } }
                        }
                    }
                }
            }
            table.plain {
                caption.vh { "Accounts" }
                thead { tr { th scope="col" { "Account" } th scope="col" { "Token" } th scope="col" { "Expires" } th scope="col" { "Checked" } } }
                tbody {
                    @for account in source.identities() {
                        tr {
                            th scope="row" { code { (account.identity) } }
                            td { (value(&cells::auth_status(Some(account.status)))) @if let Some(reason) = &account.reason { p.dim { (foreign(reason)) } } }
                            td { @match account.expires_at {
                                _ if account.status != AuthStatus::Valid => "–",
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

fn past(source: &SourceInFull) -> Markup {
    html! {
        section #past aria-labelledby="past-title" {
            h2 #past-title { "History" }
            @if source.history.is_empty() { p.dim { "Nothing has changed since it was first checked." } }
            @else {
                table.plain {
                    caption.vh { "Changes, newest first" }
                    thead { tr { th scope="col" { "At" } th scope="col" { "What" } th scope="col" { "Change" } th scope="col" { "Why" } } }
                    tbody {
                        @for entry in source.history.iter().take(LISTED) {
                            @let change = &entry.transition;
                            tr {
                                td { time datetime=(change.at.to_string()) { (cells::moment(change.at)) } }
                                td { (change.facet.as_str()) }
                                td { (value(&cells::change(change))) }
                                td.dim { (explain(&change.rule)) }
                            }
                        }
                    }
                }
                @if source.history.len() > LISTED { (command(&format!("bitbrat sources history {}", source.document.key))) }
            }
        }
    }
}

fn evidence(source: &SourceInFull) -> Markup {
    let stored = serde_json::to_string_pretty(&source.document.knowledge.evidence).unwrap_or_default();
    let cut: String = stored.chars().take(EVIDENCE).collect();
    html! {
        section #evidence aria-labelledby="evidence-title" {
            h2 #evidence-title { "Evidence" }
            details #evidence-all {
                summary { "As it is stored" }
                pre tabindex="0" { (printable_lines(&cut)) @if cut.len() < stored.len() { "\n…" } }
            }
        }
    }
}

/// Keeps the lines of our own JSON, in which foreign text has no line breaks.
fn printable_lines(text: &str) -> String {
    let lines = text.lines().map(printable);
    lines.collect::<Vec<_>>().join("\n")
}

/// Updates of the page: the parts that changed.
pub(super) async fn live(
    State(site): State<Site>,
    peer: Option<Extension<Peer>>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::new(400, Code::ApiInvalidSource))?;
    let place = site.hub.place(peer.map(|Extension(Peer(address))| address))?;
    let key = load(&site, &id).await?.source.document.key;
    let start = Following {
        updates: site.hub.follow(),
        key,
        sent: BTreeMap::new(),
        is_first: true,
        reload: site.hub.is_foreign(&headers),
        site: site.clone(),
    };
    let events = stream::unfold(start, |mut following| async move {
        let event = following.next().await?;
        Some((stream::iter(event.map(Ok::<_, Infallible>)), following))
    });
    let stop = site.stop.clone();
    let events = events
        .flatten()
        .take_until(tokio::time::sleep(LIFE))
        .take_until(async move { stop.requested().await });
    Ok(sse(events, place).into_response())
}

struct Following {
    site: Site,
    updates: Receiver<Arc<Flush>>,
    key: SourceKey,
    /// The parts of the page as they were sent.
    sent: BTreeMap<&'static str, String>,
    is_first: bool,
    reload: bool,
}

impl Following {
    /// Returns the next event, if there is one already; `None` at the end.
    async fn next(&mut self) -> Option<Option<Event>> {
        let position = self.site.hub.position(None);
        if std::mem::take(&mut self.reload) {
            return Some(Some(Event::default().event("reload").id(position).data("{}")));
        }
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
            return Some(None);
        };
        let mut html = String::new();
        for (name, section) in sections(&self.site, &shown) {
            let section = section.into_string();
            if self.sent.get(name) != Some(&section) {
                html += &section;
                self.sent.insert(name, section);
            }
        }
        Some((!html.is_empty()).then(|| put(html, position)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::transition::Transition;

    #[test]
    fn sessions_end_where_the_next_one_begins() {
        let key = "twitch:1".parse().unwrap();
        let at = |minute: i64| Timestamp::from_millis(1_780_000_000_000).plus_secs(minute * 60);
        let entry = |minute: i64, to: &str, id: Option<&str>, initial: bool| {
            let transition = Transition {
                facet: Facet::Stream,
                from: None,
                to: Some(to.to_owned()),
                at: at(minute),
                rule: "rule".into(),
                stream_id: id.map(str::to_owned),
                initial,
            };
            HistoryEntry::new(&key, at(minute), transition)
        };
        let history = [
            entry(50, "ONLINE", Some("c"), false),
            entry(40, "OFFLINE", Some("b"), false),
            entry(30, "ONLINE", Some("b"), false),
            entry(10, "ONLINE", Some("a"), true),
        ];
        let session = |start: Option<i64>, end: Option<i64>, id: &str| Session {
            start: start.map(at),
            end: end.map(at),
            id: Some(id.to_owned()),
        };
        assert_eq!(
            sessions_of(&history),
            [
                session(Some(50), None, "c"),
                session(Some(30), Some(40), "b"),
                session(None, Some(30), "a"),
            ]
        );
    }
}
