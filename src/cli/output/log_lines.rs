//! Log lines for people: what has changed, in local time, with one line per change and per cause.
//!
//! The lines are made from the events' names and fields ([`names`]), never from the text of a message. What the first check finds
//! is not printed line by line: its summary has the numbers, followed by what needs attention.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use tracing::Level;

use self::layout::{Place, Spans};
use super::humane;
use super::view::{Glyph, Tone, printable};
use super::{Invocation, Style};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::core::verdict::{CLOSED_BY_US, GRANT_REVOKED, TOKEN_REJECTED};
use crate::telemetry::{LineFormat, Record, names};

mod layout;

/// How many sources a merged line names.
const NAMED: usize = 3;

/// Formats log lines for people.
pub struct LogLines {
    style: Style,
    /// Whether every event is printed, with its fields.
    verbose: bool,
    zone: TimeZone,
    /// Returns the columns of the terminal, `None` where lines may be of any length.
    columns: Box<dyn Fn() -> Option<usize> + Send>,
    invocation: &'static Invocation,
    pending: Queue,
    /// Problems that the first check has found. They are printed below its summary.
    found_first: Queue,
    checked: bool,
    /// Since when sources are not connected, for as long as they are not.
    lost: HashMap<String, Timestamp>,
    /// The day of the last line.
    day: Option<jiff::civil::Date>,
}

/// A line that waits to be printed.
struct Entry {
    at: Timestamp,
    glyph: Option<Glyph>,
    tone: Tone,
    what: What,
    /// Further lines, below the text.
    below: Vec<(&'static str, String)>,
    /// Fields, where they are shown.
    fields: Vec<(&'static str, String)>,
    /// Lines with the same key and cause are merged; a line without a key stands alone.
    key: Option<String>,
    subjects: Vec<Subject>,
    /// How many events it stands for.
    times: usize,
}

/// The text of a line; `{}` is replaced by what it is about.
enum What {
    /// About sources: for one of them, and for several.
    Sources {
        one: String,
        many: String,
        /// How it was found out, where that is worth saying.
        origin: Option<String>,
    },
    /// About something else, whose kind is named in the singular.
    Other { text: String, kind: &'static str },
}

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    key: String,
    name: Option<String>,
}

impl LogLines {
    /// Creates the format of a process. With `verbose` every event has a line of its own with its fields.
    pub fn new(
        style: Style,
        verbose: bool,
        zone: TimeZone,
        columns: impl Fn() -> Option<usize> + Send + 'static,
        invocation: &'static Invocation,
    ) -> Self {
        Self {
            style,
            verbose,
            zone,
            columns: Box::new(columns),
            invocation,
            pending: Queue::default(),
            found_first: Queue::default(),
            checked: false,
            lost: HashMap::new(),
            day: None,
        }
    }

    /// Returns a record's line, or `None` if it has none.
    fn entry(&mut self, record: &Record) -> Option<Entry> {
        match record.name {
            names::WATCHING => Some(watching(record)),
            // Its address is a part of the line above.
            names::SERVING if !self.verbose => None,
            names::CHECKING => Some(checking(record)),
            names::CHECKED => Some(checked(record)),
            names::TRANSITION => self.transition(record),
            names::ACCOUNT => Some(self.account(record)),
            names::STOPPING => Some(stopping(record)),
            names::STOPPED => Some(stopped(record)),
            _ => Some(self.message(record)),
        }
    }

    fn transition(&mut self, record: &Record) -> Option<Entry> {
        let (facet, to) = (record.field("facet")?, record.field("to").unwrap_or_default());
        let key = record.field("source.key")?;
        let is_initial = record.field("initial") == Some("true");
        let words = match facet {
            "stream" => stream_words(record, to),
            "status" => self.status_words(record, key, to, is_initial),
            "permissions" => permission_words(record)?,
            // One line per account reports it, however many sources need the account.
            _ if !self.verbose => return None,
            _ => Words::same(
                Glyph::Unknown,
                Tone::Plain,
                format!("Authorization of {{}}: {to}"),
            ),
        };
        let is_of_account = matches!(record.field("rule"), Some(GRANT_REVOKED | TOKEN_REJECTED));
        if !self.verbose && is_of_account && to == "ERROR" {
            return None;
        }
        let Words {
            glyph,
            tone,
            one,
            many,
        } = words;
        let platform = key.split(':').next().unwrap_or_default();
        let cause = many.as_ref().map(|many| format!("{platform} {many}"));
        let origin = match facet {
            "stream" => origin(record.field("by").unwrap_or_default()),
            _ => None,
        };
        let what = What::Sources {
            many: many.unwrap_or_else(|| one.clone()),
            one,
            origin,
        };
        let mut entry = Entry::new(record, Some(glyph), tone, what);
        entry.key = cause;
        entry.subjects.push(Subject {
            key: key.to_owned(),
            name: record.field("display_name").map(str::to_owned),
        });
        if !is_initial || self.verbose {
            return Some(entry);
        }
        if to == "ERROR" {
            if self.checked {
                return Some(entry);
            }
            self.found_first.push(entry);
        }
        None
    }

    fn status_words(&mut self, record: &Record, key: &str, to: &str, is_initial: bool) -> Words {
        let because = record.field("reason").map(|reason| format!(": {reason}"));
        let because = because.unwrap_or_default();
        if to == "CONNECTED" {
            let again = if is_initial { "" } else { " again" };
            let after = self.lost.remove(key).map(|since| {
                let millis = u64::try_from(record.at.millis_since(since)).unwrap_or(0);
                format!(" after {}", humane::duration(millis))
            });
            let after = after.unwrap_or_default();
            return Words {
                glyph: Glyph::Up,
                tone: Tone::Good,
                one: format!("{{}} is connected{again}{after}"),
                many: Some(format!("{{}} are connected{again}{after}")),
            };
        }
        if record.field("rule") == Some(CLOSED_BY_US) {
            return Words {
                glyph: Glyph::Down,
                tone: Tone::Dim,
                one: "{} is not connected any more".to_owned(),
                many: Some("{} are not connected any more".to_owned()),
            };
        }
        self.lost.entry(key.to_owned()).or_insert(record.at);
        let (glyph, tone, one, many) = match (to, is_initial) {
            ("ERROR", _) => (Glyph::Bad, Tone::Bad, "needs attention", "need attention"),
            (_, true) => (Glyph::Down, Tone::Warn, "is not connected", "are not connected"),
            (_, false) => (
                Glyph::Down,
                Tone::Warn,
                "lost its connection",
                "lost their connection",
            ),
        };
        Words {
            glyph,
            tone,
            one: format!("{{}} {one}{because}"),
            many: Some(format!("{{}} {many}{because}")),
        }
    }

    fn account(&self, record: &Record) -> Entry {
        let account = record.field("account").unwrap_or("an account");
        let state = record.field("state").unwrap_or_default();
        if state == "VALID" {
            let text = format!("{account} is authorized again");
            return Entry::new(
                record,
                Some(Glyph::Good),
                Tone::Good,
                What::Other { text, kind: "" },
            );
        }
        let what = match state {
            "EXPIRED" => "expired",
            "REJECTED" => "was rejected",
            _ => "was revoked",
        };
        let command = record
            .field("command")
            .and_then(|command| self.invocation.advise(command));
        let command = command
            .map(|command| format!(": run `{command}`"))
            .unwrap_or_default();
        let text = format!("{account} {what}{command}");
        let mut entry = Entry::new(
            record,
            Some(Glyph::Bad),
            Tone::Bad,
            What::Other { text, kind: "source" },
        );
        entry.times = usize::try_from(record.number("sources").unwrap_or(0)).unwrap_or(0);
        entry
    }

    /// Returns the line of any other event: its message with its cause, and what it is about where the message does not name it.
    fn message(&self, record: &Record) -> Entry {
        let mut text = record.message.clone();
        let mut append = |separator: &str, field: &str| {
            if let Some(value) = record.field(field).filter(|value| !value.is_empty())
                && !text.contains(value)
            {
                text.push_str(separator);
                text.push_str(value);
            }
        };
        append(": ", "error");
        append(": ", "reason");
        append("; ", "hint");
        let text = self.invocation.advise_in(&text);
        let (glyph, tone) = match record.level {
            Level::ERROR => (Some(Glyph::Bad), Tone::Bad),
            Level::WARN => (Some(Glyph::Warn), Tone::Warn),
            Level::INFO => (None, Tone::Plain),
            Level::DEBUG | Level::TRACE => (None, Tone::Dim),
        };
        let about = SUBJECTS.iter().find_map(|(field, kind)| {
            let value = record.field(field)?;
            (!record.message.contains(value)).then_some((value, *kind))
        });
        let library = record.target.split("::").next().unwrap_or_default();
        let about = about.or((library != "bitbrat" && !library.is_empty()).then_some((library, "module")));
        let key = format!("{} {text}", record.level);
        let kind = about.map_or("", |(_, kind)| kind);
        let mut entry = Entry::new(record, glyph, tone, What::Other { text, kind });
        entry.key = Some(key);
        entry.subjects.extend(about.map(|(key, _)| Subject {
            key: key.to_owned(),
            name: None,
        }));
        entry
    }

    fn print(&mut self, text: &mut String, entry: &Entry) {
        let at = jiff::Timestamp::from_millisecond(entry.at.as_millis()).unwrap_or_default();
        let at = at.to_zoned(self.zone.clone());
        let place = Place::new(self.style, (self.columns)());
        if self.day.replace(at.date()).is_some_and(|day| day != at.date()) {
            let rule = if self.style.unicode { "──" } else { "--" };
            let day = format!("{rule} {}", at.strftime("%a, %-d %b %Y"));
            text.push_str(&self.style.paint(Tone::Dim, &day));
            text.push('\n');
        }
        let mut spans = Spans::default();
        let (main, aside) = entry.texts(self.style);
        spans.push(entry.tone, &printable(main));
        if let Some(aside) = aside {
            spans.push_whole(Tone::Dim, &printable(format!("({aside})")));
        }
        for (name, value) in &entry.fields {
            let quoted = value.is_empty() || value.contains(' ');
            let field = if quoted {
                format!("{name}={value:?}")
            } else {
                format!("{name}={value}")
            };
            spans.push(Tone::Dim, &printable(field));
        }
        place.first(
            text,
            &at.strftime("%H:%M:%S").to_string(),
            entry.glyph,
            entry.tone,
            &spans,
        );
        for (label, value) in &entry.below {
            place.below(text, label, &printable(value.as_str()));
        }
    }
}

impl LineFormat for LogLines {
    fn add(&mut self, record: Record) {
        let Some(mut entry) = self.entry(&record) else {
            return;
        };
        if self.verbose {
            entry.key = None;
            // Those of the start have lines of their own.
            if entry.below.is_empty() {
                entry.fields.clone_from(&record.fields);
            }
        }
        let found_first = match record.name {
            names::CHECKED | names::CHECKING | names::STOPPED => self.found_first.take(),
            _ => Vec::new(),
        };
        let dated = found_first.into_iter().map(|found| Entry {
            at: record.at,
            ..found
        });
        let lines: Vec<Entry> = if record.name == names::STOPPED {
            dated.chain([entry]).collect()
        } else {
            std::iter::once(entry).chain(dated).collect()
        };
        for line in lines {
            self.pending.push(line);
        }
        self.checked |= record.name == names::CHECKED;
    }

    fn take(&mut self) -> String {
        let mut text = String::new();
        for entry in self.pending.take() {
            self.print(&mut text, &entry);
        }
        text
    }
}

impl Entry {
    fn new(record: &Record, glyph: Option<Glyph>, tone: Tone, what: What) -> Self {
        Self {
            at: record.at,
            glyph,
            tone,
            what,
            below: Vec::new(),
            fields: Vec::new(),
            key: None,
            subjects: Vec::new(),
            times: 1,
        }
    }

    /// Returns the text, and what stands in parentheses behind it.
    fn texts(&self, style: Style) -> (String, Option<String>) {
        match (&self.what, &self.subjects[..]) {
            (What::Sources { one, origin, .. }, [source]) => {
                let text = one.replacen("{}", source.name.as_ref().unwrap_or(&source.key), 1);
                let key = source.name.as_ref().map(|_| source.key.clone());
                let aside: Vec<String> = key.into_iter().chain(origin.clone()).collect();
                (text, (!aside.is_empty()).then(|| aside.join(", ")))
            }
            (What::Sources { many, .. }, sources) => {
                let platform = sources.first().map_or("", |source| platform_title(&source.key));
                let count = humane::thousands(sources.len() as u64);
                let text = many.replacen("{}", &format!("{count} {platform} sources"), 1);
                (text, Some(listed(sources)))
            }
            // The message of a count has the count as its aside.
            (What::Other { text, kind: "source" }, []) => {
                (text.clone(), Some(humane::count(self.times as u64, "source")))
            }
            (What::Other { text, .. }, [] | [_]) if self.times > 1 => {
                let times = if style.unicode { "×" } else { "x" };
                (text.clone(), Some(format!("{}{times}", self.times)))
            }
            (What::Other { text, .. }, []) => (text.clone(), None),
            (What::Other { text, .. }, [subject]) => (text.clone(), Some(subject.key.clone())),
            (What::Other { text, kind }, subjects) => {
                (text.clone(), Some(humane::count(subjects.len() as u64, kind)))
            }
        }
    }
}

/// Lines in their order, those with one cause merged.
#[derive(Default)]
struct Queue {
    lines: Vec<Entry>,
    /// The newest line with a key.
    by_key: HashMap<String, usize>,
    /// The newest line about a subject.
    by_subject: HashMap<String, usize>,
}

impl Queue {
    /// Adds a line, or merges it into one with the same cause, unless there is a newer line about its subject: the changes of one
    /// source keep their order.
    fn push(&mut self, entry: Entry) {
        let same = entry.key.as_ref().and_then(|key| self.by_key.get(key)).copied();
        let subjects = entry.subjects.iter();
        let newest = subjects
            .filter_map(|subject| self.by_subject.get(&subject.key).copied())
            .max();
        if let Some(place) = same.filter(|place| newest.is_none_or(|newest| newest <= *place)) {
            let line = &mut self.lines[place];
            line.times += entry.times;
            for subject in entry.subjects {
                // Otherwise the line names it already.
                if self.by_subject.insert(subject.key.clone(), place) != Some(place) {
                    line.subjects.push(subject);
                }
            }
            return;
        }
        let place = self.lines.len();
        if let Some(key) = &entry.key {
            self.by_key.insert(key.clone(), place);
        }
        for subject in &entry.subjects {
            self.by_subject.insert(subject.key.clone(), place);
        }
        self.lines.push(entry);
    }

    /// Returns the lines, and forgets them.
    fn take(&mut self) -> Vec<Entry> {
        std::mem::take(self).lines
    }
}

/// What is printed about one source, and about several with the same cause; `many` is `None` where each has a line of its own.
struct Words {
    glyph: Glyph,
    tone: Tone,
    one: String,
    many: Option<String>,
}

impl Words {
    /// The same words, however many sources they are about.
    fn same(glyph: Glyph, tone: Tone, words: String) -> Self {
        Self {
            glyph,
            tone,
            one: words.clone(),
            many: Some(words),
        }
    }
}

fn stream_words(record: &Record, to: &str) -> Words {
    let was_live = record.field("from") == Some("ONLINE");
    let (glyph, tone, one) = match to {
        "ONLINE" if was_live => (Glyph::Live, Tone::Live, "{} went live again".to_owned()),
        "ONLINE" => (Glyph::Live, Tone::Live, "{} went live".to_owned()),
        "OFFLINE" => {
            let ended = match record.number("lasted_s") {
                Some(seconds) => format!("{{}} ended after {}", humane::duration(seconds * 1000)),
                None if was_live => "{} ended".to_owned(),
                None => "{} is offline".to_owned(),
            };
            (Glyph::Ended, Tone::Plain, ended)
        }
        _ => {
            let unknown = "{}: it is unknown whether the stream is live".to_owned();
            (Glyph::Unknown, Tone::Warn, unknown)
        }
    };
    Words {
        glyph,
        tone,
        one,
        many: None,
    }
}

/// Returns `None` if no permission was gained or lost.
fn permission_words(record: &Record) -> Option<Words> {
    let gained = record.field("gained").unwrap_or_default();
    let unproven = record.field("unproven").unwrap_or_default();
    let change = humane::permissions_change(gained, unproven)?;
    let (glyph, tone) = match unproven {
        // `unknown` stands for permissions that were not known before.
        "" | "unknown" => (Glyph::Good, Tone::Good),
        _ => (Glyph::Warn, Tone::Warn),
    };
    Some(Words::same(glyph, tone, format!("Permissions in {{}}: {change}")))
}

/// Fields that say what a message is about, with their noun.
const SUBJECTS: [(&str, &str); 5] = [
    ("connection", "connection"),
    ("source.key", "source"),
    ("account", "account"),
    ("sink", "sink"),
    ("bus", "bus"),
];

fn watching(record: &Record) -> Entry {
    let sources = record.number("sources").unwrap_or(0);
    let text = match (sources, record.field("platforms")) {
        (0, _) => format!("Running {}", record.field("roles").unwrap_or("without sources")),
        (_, Some(platforms)) => format!("Watching {}: {platforms}", humane::count(sources, "source")),
        (_, None) => format!("Watching {}", humane::count(sources, "source")),
    };
    let mut entry = Entry::new(
        record,
        Some(Glyph::Up),
        Tone::Plain,
        What::Other { text, kind: "" },
    );
    for label in ["store", "bus", "web"] {
        if let Some(value) = record.field(label) {
            entry.below.push((label, value.to_owned()));
        }
    }
    entry
}

fn checking(record: &Record) -> Entry {
    let number = |field| humane::thousands(record.number(field).unwrap_or(0));
    let text = format!(
        "Checked {} of {} sources so far",
        number("checked"),
        number("sources")
    );
    Entry::new(record, None, Tone::Plain, What::Other { text, kind: "" })
}

fn checked(record: &Record) -> Entry {
    let number = |field| record.number(field).unwrap_or(0);
    let (attention, disconnected) = (number("attention"), number("disconnected"));
    let mut text = format!(
        "Checked {} of {}: {} live",
        humane::thousands(number("checked")),
        humane::count(number("sources"), "source"),
        humane::thousands(number("live"))
    );
    if disconnected > 0 {
        text.push_str(&format!(", {} not connected", humane::thousands(disconnected)));
    }
    if attention > 0 {
        let verb = if attention == 1 { "needs" } else { "need" };
        text.push_str(&format!(", {} {verb} attention", humane::thousands(attention)));
    }
    if let Some(reason) = record.field("reason") {
        text.push_str(&format!(" ({reason})"));
    }
    let (glyph, tone) = match (disconnected, attention) {
        (0, 0) => (Glyph::Good, Tone::Good),
        _ => (Glyph::Warn, Tone::Warn),
    };
    Entry::new(record, Some(glyph), tone, What::Other { text, kind: "" })
}

fn stopping(record: &Record) -> Entry {
    let text = match record.field("signal") {
        Some("Interrupt") => "Stopping; Ctrl-C again aborts",
        Some("Terminate") => "Stopping (SIGTERM)",
        _ => "Stopping",
    };
    let text = text.to_owned();
    Entry::new(record, None, Tone::Plain, What::Other { text, kind: "" })
}

fn stopped(record: &Record) -> Entry {
    let is_clean = record.field("clean") == Some("true");
    let mut text = if is_clean {
        "Stopped"
    } else {
        "Stopped with a failure"
    }
    .to_owned();
    if let Some(seconds) = record.number("ran_s") {
        text.push_str(&format!(" after {}", humane::duration(seconds * 1000)));
    }
    if let Some(writes) = record.number("writes") {
        text.push_str(&format!("; {} to the store", humane::count(writes, "write")));
    }
    if let Some(failures) = record.number("failures").filter(|failures| *failures > 0) {
        text.push_str(&format!(", {} failed", humane::thousands(failures)));
    }
    let (glyph, tone) = match is_clean {
        true => (Glyph::Ended, Tone::Plain),
        false => (Glyph::Bad, Tone::Bad),
    };
    Entry::new(record, Some(glyph), tone, What::Other { text, kind: "" })
}

/// Returns how a change of a stream was found out.
fn origin(by: &str) -> Option<String> {
    let origin = match by.split_once('.')?.1 {
        "eventsub" => "EventSub",
        "helix" | "api" => "poll",
        other => other,
    };
    Some(origin.to_owned())
}

fn platform_title(key: &str) -> &'static str {
    let platform = key
        .split(':')
        .next()
        .and_then(|name| name.parse::<PlatformName>().ok());
    platform.map_or("other", |platform| platform.rules().title)
}

/// Returns the names of the first sources, and how many there are besides.
fn listed(sources: &[Subject]) -> String {
    let name = |source: &Subject| source.name.clone().unwrap_or_else(|| source.key.clone());
    let names: Vec<String> = sources.iter().take(NAMED).map(name).collect();
    match sources.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {} more", names.join(", "), humane::thousands(more as u64)),
    }
}

#[cfg(test)]
mod tests;
