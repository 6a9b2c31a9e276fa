//! The page of one source: timelines, sessions, permissions, and the evidence of each status.

mod updates;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use maud::{Markup, html};

use super::timeline::{self, Period, Share, Span};
use super::{Page, Site, Timestamp, ago, command, failed, foreign, value};
use crate::blocking::blocking;
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::freshness::{Field, age_ms};
use crate::core::verdict::{AuthStatus, explain};
use crate::store::HistoryEntry;
use crate::view::cell::{Cell, Glyph, Tone, printable};
use crate::view::detail::{Held, SourceInFull, TransportState};
use crate::view::{attention, cells, humane, past};
use crate::watch::runs::{self, Run};
use crate::web::api::found;
use crate::web::problem::Problem;

pub(super) use updates::live;

/// Transitions that a page shows at most: a week of a source that changes often.
const HISTORY: usize = 500;
/// Transitions in the table.
const LISTED: usize = 30;
/// Sessions in the table.
const SESSIONS: usize = 20;
/// How much of the stored evidence is shown, in characters.
const EVIDENCE: usize = 16_000;

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
        ("sessions", sessions(source, runs)),
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

/// Returns the streams of a source, newest first. One whose proof is too old to rely on is not live.
fn streams(source: &SourceInFull, runs: &[Run]) -> Vec<past::Session> {
    let runs: Vec<past::Run> = runs
        .iter()
        .map(|&Run { from, until }| past::Run { from, until })
        .collect();
    let verdict = &source.document.verdict;
    let broadcast = verdict.broadcast.as_ref();
    let current = broadcast.and_then(|stream| Some((stream.stream_id.as_str(), stream.started_at?)));
    let mut streams = past::sessions(&source.history, current, &runs, verdict.stream.at);
    if let Some(newest) = streams.first_mut().filter(|_| !source.row.is_live())
        && let past::End::Live { proven } = newest.end
    {
        newest.end = past::End::Unknown { proven };
    }
    streams
}

fn sessions(source: &SourceInFull, runs: &[Run]) -> Markup {
    let sessions = streams(source, runs);
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
                                td { (value(&cells::session_start(session))) }
                                td { (value(&cells::session_end(session))) }
                                td.num { (value(&cells::session_length(session))) }
                                td { code { (session.stream_id.as_deref().unwrap_or("–")) } }
                            }
                        }
                    }
                }
            }
        }
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
