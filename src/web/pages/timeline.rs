//! Timelines: what a source was over a period, as bands of an SVG, tables and figures.

use maud::{Markup, html};

use super::Timestamp;
use crate::core::facet::Facet;
use crate::core::transition::Transition;
use crate::core::verdict::CLOSED_BY_US;
use crate::store::HistoryEntry;
use crate::view::{cells, humane};
use crate::watch::runs::Run;
use crate::watch::viewers::Recent;

/// Units of the width of a band.
const WIDTH: i64 = 1440;
/// Height of a band.
const HEIGHT: i64 = 20;
/// Spans that are narrower than this many units are drawn as one with those beside them.
const NARROW: i64 = 2;
/// Rows of a table beside a band.
const LISTED: usize = 40;

/// A period that ends now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period {
    pub(super) from: Timestamp,
    pub(super) now: Timestamp,
}

impl Period {
    pub(super) fn last(hours: i64, now: Timestamp) -> Self {
        Self {
            from: now.plus_secs(-hours * 3600),
            now,
        }
    }

    /// Returns the place of a moment in a band.
    fn place(self, at: Timestamp) -> i64 {
        let whole = self.now.millis_since(self.from).max(1);
        (at.millis_since(self.from) * WIDTH / whole).clamp(0, WIDTH)
    }
}

/// What a source was from one moment to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// A verdict.
    Is(String),
    /// Monitored, and nothing was proven.
    Unknown,
    /// No daemon was running.
    NoData,
}

impl State {
    fn of(change: &Transition) -> Self {
        if change.rule == CLOSED_BY_US {
            return Self::Unknown;
        }
        match change.to.as_deref() {
            None | Some("UNKNOWN" | "") => Self::Unknown,
            Some(value) => Self::Is(value.to_owned()),
        }
    }

    fn word(&self) -> &str {
        match self {
            Self::Is(value) => value,
            Self::Unknown => "unknown",
            Self::NoData => "no data (bitbrat was not running)",
        }
    }

    /// Returns the class of its color, and of the pattern where color would not be enough.
    fn class(&self) -> &'static str {
        match self {
            Self::NoData => "none",
            Self::Unknown => "unknown",
            Self::Is(value) => match value.as_str() {
                "CONNECTED" | "VALID" => "good",
                "ONLINE" => "live",
                "OFFLINE" => "off",
                "DISCONNECTED" | "EXPIRED" => "warn",
                _ => "bad",
            },
        }
    }
}

/// Returns what a source was in `period`. `history` is newest first; its latest state is proven until `proven_until`. `runs` is empty
/// where it is not known when daemons ran.
pub(super) fn spans(
    history: &[HistoryEntry],
    facet: Facet,
    period: Period,
    runs: &[Run],
    proven_until: Timestamp,
) -> Vec<Span> {
    let mut entries: Vec<_> = history
        .iter()
        .map(|entry| &entry.transition)
        .filter(|change| change.facet == facet)
        .collect();
    entries.reverse();
    let mut spans = Vec::new();
    // Before the first entry nothing was monitored.
    let mut begin = entries
        .first()
        .map_or(period.now, |first| first.at)
        .max(period.from);
    let mut state = State::Unknown;
    for change in entries {
        if change.at > begin {
            push(&mut spans, begin, change.at.min(period.now), state);
            begin = change.at;
        }
        state = State::of(change);
    }
    let proven = proven_until.clamp(begin, period.now);
    push(&mut spans, begin, proven, state);
    push(&mut spans, proven, period.now, State::Unknown);
    if runs.is_empty() {
        spans
    } else {
        with_gaps(spans, runs)
    }
}

fn push(spans: &mut Vec<Span>, from: Timestamp, until: Timestamp, state: State) {
    if until <= from {
        return;
    }
    match spans.last_mut() {
        Some(last) if last.state == state && last.until == from => last.until = until,
        _ => spans.push(Span { from, until, state }),
    }
}

/// Replaces what was when no daemon was running.
fn with_gaps(spans: Vec<Span>, runs: &[Run]) -> Vec<Span> {
    let mut result = Vec::new();
    for span in spans {
        let mut at = span.from;
        for run in runs
            .iter()
            .filter(|run| run.until > span.from && run.from < span.until)
        {
            push(&mut result, at, run.from.min(span.until), State::NoData);
            let (from, until) = (run.from.max(at), run.until.min(span.until));
            push(&mut result, from, until, span.state.clone());
            at = at.max(until);
        }
        push(&mut result, at, span.until, State::NoData);
    }
    result
}

/// Draws a band, and lists the same spans below it.
pub(super) fn band(id: &str, title: &str, spans: &[Span], period: Period) -> Markup {
    let described = described(title, spans, period);
    html! {
        div.band {
            h3 { (title) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" {
                title { (described) }
                @for (from, width, class) in merged(spans, period) {
                    rect class=(class) x=(from) width=(width) height=(HEIGHT) {}
                }
            }
            details id=(id) {
                summary { "As a table" }
                table.plain {
                    caption.vh { (title) }
                    thead { tr { th scope="col" { "From" } th scope="col" { "For" } th scope="col" { "State" } } }
                    tbody {
                        @for span in spans.iter().rev().take(LISTED) {
                            tr {
                                td { time datetime=(span.from.to_string()) { (cells::moment(span.from)) } }
                                td { (length(span)) }
                                td { span class={ "v " (span.state.class()) } { (span.state.word()) } }
                            }
                        }
                    }
                }
                @if spans.len() > LISTED { p.dim { "and " (spans.len() - LISTED) " older ones" } }
            }
        }
    }
}

fn length(span: &Span) -> String {
    humane::duration(millis(span))
}

fn millis(span: &Span) -> u64 {
    u64::try_from(span.until.millis_since(span.from)).unwrap_or(0)
}

/// The text for screen readers in place of the picture.
fn described(title: &str, spans: &[Span], period: Period) -> String {
    let latest = spans.last().map_or("no data", |span| span.state.word());
    let changes = spans.len().saturating_sub(1) as u64;
    let hours = period.now.since(period.from).as_secs() / 3600;
    format!(
        "{title}: {latest} now, {} in {hours} hours",
        humane::count(changes, "change")
    )
}

/// Returns the rectangles of spans. Many changes in little space are one hatched rectangle. Without data there is none.
fn merged(spans: &[Span], period: Period) -> Vec<(i64, i64, &'static str)> {
    let mut rectangles: Vec<(i64, i64, &'static str)> = Vec::new();
    for span in spans.iter().filter(|span| span.state != State::NoData) {
        let (from, until) = (period.place(span.from), period.place(span.until));
        let is_narrow = until - from < NARROW && spans.len() > 1;
        match rectangles.last_mut() {
            Some((start, width, class))
                if is_narrow && *start + *width >= from - 1 && (*width < NARROW * 4 || *class == "many") =>
            {
                *width = (until - *start).max(*width).max(1);
                *class = if *class == span.state.class() {
                    class
                } else {
                    "many"
                };
            }
            _ => rectangles.push((from, (until - from).max(1), span.state.class())),
        }
    }
    rectangles
}

/// Draws viewers as a line, broken where there is no count.
pub(super) fn viewers(recent: Option<&Recent>, period: Period) -> Markup {
    let Some(recent) = recent.filter(|recent| recent.points().len() > 1) else {
        return html! { p.dim { "Viewers are drawn from the start of bitbrat on; there are not enough counts yet." } };
    };
    let points: Vec<_> = recent.points().filter(|(at, _)| *at >= period.from).collect();
    let greatest = points
        .iter()
        .filter_map(|(_, count)| *count)
        .max()
        .unwrap_or(0)
        .max(1);
    let mut lines = vec![String::new()];
    for (at, count) in &points {
        match (count, lines.last_mut()) {
            (Some(count), Some(line)) => {
                let height = 58 - i64::try_from(u128::from(*count) * 56 / u128::from(greatest)).unwrap_or(0);
                line.push_str(&format!("{},{height} ", period.place(*at)));
            }
            _ => lines.push(String::new()),
        }
    }
    html! {
        div.band {
            h3 { "Viewers" }
            svg.line viewBox={ "0 0 " (WIDTH) " 60" } preserveAspectRatio="none" role="img" {
                title { "Viewers: at most " (humane::thousands(greatest)) " since " (cells::moment(recent.since())) }
                @for line in lines.iter().filter(|line| !line.is_empty()) {
                    polyline points=(line.trim_end()) vector-effect="non-scaling-stroke" {}
                }
            }
            p.dim { "At most " (humane::thousands(greatest)) ", since " (cells::moment(recent.since())) ", when bitbrat started or first saw the stream." }
        }
    }
}

/// How long a source was what it should be, of the time for which that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) good_ms: u64,
    pub(super) known_ms: u64,
}

impl Share {
    pub(super) fn of(spans: &[Span], good: &str) -> Self {
        let mut share = Self {
            good_ms: 0,
            known_ms: 0,
        };
        for span in spans {
            if let State::Is(value) = &span.state {
                share.known_ms += millis(span);
                share.good_ms += if value == good { millis(span) } else { 0 };
            }
        }
        share
    }

    /// Returns it in words: `99.98 %`, never rounded up to 100.
    pub(super) fn text(self) -> String {
        if self.known_ms == 0 {
            return "no data".to_owned();
        }
        let hundredths = u128::from(self.good_ms) * 10_000 / u128::from(self.known_ms);
        format!("{}.{:02} %", hundredths / 100, hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(minute * 60)
    }

    fn history(changes: &[(i64, &str)]) -> Vec<HistoryEntry> {
        let key = "twitch:1".parse().unwrap();
        let entries = changes.iter().map(|(minute, to)| {
            let transition = Transition {
                facet: Facet::Status,
                from: None,
                to: Some((*to).to_owned()),
                at: at(*minute),
                rule: "rule".into(),
                stream_id: None,
                initial: false,
            };
            HistoryEntry::new(&key, at(*minute), transition)
        });
        entries.rev().collect()
    }

    fn shown(spans: &[Span]) -> Vec<(i64, i64, String)> {
        let minute = |time: Timestamp| time.millis_since(at(0)) / 60_000;
        let shown = spans.iter().map(|span| {
            let word = span.state.word().split(' ').next().unwrap().to_owned();
            (minute(span.from), minute(span.until), word)
        });
        shown.collect()
    }

    #[test]
    fn own_downtime_and_unknown_are_no_state() {
        let changes = history(&[(10, "CONNECTED"), (30, "UNKNOWN"), (40, "CONNECTED")]);
        let period = Period {
            from: at(0),
            now: at(100),
        };
        let runs = [(5, 50), (60, 100)].map(|(from, until)| Run {
            from: at(from),
            until: at(until),
        });
        let spans = spans(&changes, Facet::Status, period, &runs, period.now);
        let expected = [
            (10, 30, "CONNECTED"),
            (30, 40, "unknown"),
            (40, 50, "CONNECTED"),
            (50, 60, "no"),
            (60, 100, "CONNECTED"),
        ];
        assert_eq!(
            shown(&spans),
            expected.map(|(from, until, word)| (from, until, word.to_owned()))
        );
        let share = Share::of(&spans, "CONNECTED");
        assert_eq!((share.good_ms, share.known_ms), (70 * 60_000, 70 * 60_000));
    }

    #[test]
    fn state_is_shown_until_its_last_proof() {
        let changes = history(&[(10, "CONNECTED")]);
        let period = Period {
            from: at(0),
            now: at(100),
        };
        let spans = spans(&changes, Facet::Status, period, &[], at(70));
        assert_eq!(
            shown(&spans),
            [(10, 70, "CONNECTED".to_owned()), (70, 100, "unknown".to_owned())]
        );
        assert_eq!(Share::of(&spans, "CONNECTED").known_ms, 60 * 60_000);
    }

    #[test]
    fn own_stop_is_no_state_of_the_platform() {
        let mut changes = history(&[(10, "CONNECTED"), (40, "DISCONNECTED"), (50, "CONNECTED")]);
        changes[1].transition.rule = CLOSED_BY_US.into();
        let period = Period {
            from: at(0),
            now: at(100),
        };
        let spans = spans(&changes, Facet::Status, period, &[], period.now);
        assert_eq!(shown(&spans)[1], (40, 50, "unknown".to_owned()));
        assert_eq!(Share::of(&spans, "CONNECTED").text(), "100.00 %");
    }

    #[test]
    fn period_begins_with_the_state_before_it() {
        let changes = history(&[(-500, "CONNECTED"), (50, "ERROR")]);
        let period = Period {
            from: at(0),
            now: at(100),
        };
        let spans = spans(&changes, Facet::Status, period, &[], period.now);
        assert_eq!(
            shown(&spans),
            [(0, 50, "CONNECTED".to_owned()), (50, 100, "ERROR".to_owned())]
        );
        assert_eq!(Share::of(&spans, "CONNECTED").text(), "50.00 %");
        assert_eq!(merged(&spans, period), [(0, 720, "good"), (720, 720, "bad")]);
    }

    #[test]
    fn many_changes_in_little_space_are_one_rectangle() {
        let changes: Vec<(i64, &str)> = (0..400)
            .map(|minute| (minute, if minute % 2 == 0 { "CONNECTED" } else { "ERROR" }))
            .collect();
        let period = Period {
            from: at(-10_000),
            now: at(400),
        };
        let spans = spans(&history(&changes), Facet::Status, period, &[], period.now);
        let rectangles = merged(&spans, period);
        assert!(rectangles.len() <= 200, "{}", rectangles.len());
        assert!(rectangles.iter().any(|(.., class)| *class == "many"));
    }

    #[test]
    fn share_is_never_rounded_up() {
        let share = Share {
            good_ms: 999_999,
            known_ms: 1_000_000,
        };
        assert_eq!(share.text(), "99.99 %");
        assert_eq!(
            Share {
                good_ms: 0,
                known_ms: 0
            }
            .text(),
            "no data"
        );
    }
}
