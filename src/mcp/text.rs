//! The answers of tools in sentences. Many clients show their model nothing else, so they contain verdict, age and reason.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::answers::Refusal;
use crate::view::answer::{Answer, AnswerItem};
use crate::view::attention::Attention;
use crate::view::cell::is_unsafe;
use crate::view::cells::moment;
use crate::view::detail::{SourceDetail, VerdictItem};
use crate::view::envelope::Envelope;
use crate::view::history::HistoryItem;
use crate::view::humane;
use crate::view::item::SourceItem;

/// What follows every answer that is not known.
const UNKNOWN: &str = "This is not known: do not present it as yes or no.";

/// Returns why a question could not be answered.
pub(super) fn refusal(problem: &Refusal) -> String {
    format!("unknown: {} ({}). {UNKNOWN}", problem.detail, problem.code)
}

/// Returns the answer to one question.
pub(super) fn answer(item: &AnswerItem) -> String {
    let verdict = match item.answer {
        Answer::Yes => "yes",
        Answer::No => "no",
        Answer::Unknown => "unknown",
    };
    let name = item
        .display_name
        .as_ref()
        .map(|name| format!(" ({})", clean(name)));
    let mut text = format!(
        "{verdict}: {} {}{}: {}",
        item.question,
        item.key,
        name.unwrap_or_default(),
        item.because
    );
    match item.age_ms {
        Some(age) => {
            let _ = write!(text, "; the evidence is {} old.", humane::duration(age));
        }
        None => text.push('.'),
    }
    if !item.missing.is_empty() {
        let _ = write!(text, " Missing: {}.", item.missing.join("; "));
    }
    if !item.not_covered.is_empty() {
        let _ = write!(
            text,
            " Not covered by this answer: {}.",
            item.not_covered.join("; ")
        );
    }
    if let Some(fix) = &item.fix {
        let _ = write!(text, " A person changes that with `{fix}`.");
    }
    if item.answer == Answer::Unknown {
        text = format!("{text} {UNKNOWN}");
    }
    text
}

/// Returns the state of each source, a line each.
pub(super) fn sources(list: &Envelope<SourceItem>, total: usize) -> String {
    let shown = list.items.len();
    let mut text = match (shown, total) {
        (0, _) => "No source matches.".to_owned(),
        _ if shown < total => format!("{shown} of {total} sources; use `offset` or a filter for the others:"),
        _ => format!("{}:", humane::count(shown as u64, "source")),
    };
    for item in &list.items {
        text = format!("{text}\n{}", state(&json(item)));
    }
    for unusable in &list.unusable {
        let _ = write!(text, "\n{}: cannot be shown: {}", unusable.id, unusable.reason);
    }
    text
}

/// Returns everything about one source but the stored evidence itself.
pub(super) fn source(list: &Envelope<SourceDetail>) -> String {
    let Some(source) = list.items.first() else {
        return String::new();
    };
    let item = json(source);
    let mut text = state(&item);
    let verdicts = &source.verdicts;
    let named = [
        ("connection", Some(&verdicts.status)),
        ("stream", Some(&verdicts.stream)),
        ("authorization", verdicts.auth.as_ref()),
    ];
    for (name, verdict) in named {
        if let Some(VerdictItem { because, .. }) = verdict {
            let _ = write!(text, "\nReason of the {name} status: {because}.");
        }
    }
    if let Some(title) = item["metadata"]["title"].as_str() {
        let _ = write!(text, "\nTitle (written by the streamer): \"{}\".", clean(title));
    }
    let permissions: Vec<&str> = strings(&item["permissions"]);
    if !permissions.is_empty() {
        let stale = if is_stale(&item, "permissions") {
            " (STALE, do not rely on them)"
        } else {
            ""
        };
        let _ = write!(
            text,
            "\nPermissions of the bot{stale}: {}.",
            permissions.join(", ")
        );
    }
    for transport in source
        .transports
        .iter()
        .filter(|transport| transport.last_up.is_some())
    {
        let up = transport.last_up.map(moment).unwrap_or_default();
        let _ = write!(text, "\nTransport {} last worked at {up}.", transport.name);
    }
    for account in &source.identities {
        let checked = moment(account.checked_at);
        let _ = write!(
            text,
            "\nAccount {} was {} when it was checked at {checked}.",
            account.identity, account.status
        );
    }
    for entry in &source.history {
        let _ = write!(text, "\n{}.", change(&json(entry)));
    }
    text
}

/// Returns the state of one source in one line.
fn state(item: &Value) -> String {
    let name = item["displayName"]
        .as_str()
        .map(|name| format!(" ({})", clean(name)));
    let mut parts = vec![facet(item, "connection", "status", "statusAgeMs")];
    parts.push(facet(item, "stream", "streamStatus", "streamAgeMs"));
    if !item["viewerCount"].is_null() {
        parts.push(facet(item, "viewers", "viewerCount", "viewersAgeMs"));
    }
    parts.push(facet(item, "authorization", "authStatus", "authAgeMs"));
    let mut text = format!(
        "{}{}: {}.",
        plain(&item["key"]),
        name.unwrap_or_default(),
        parts.join(", ")
    );
    if let Some(error) = item["lastError"]["message"].as_str() {
        let _ = write!(
            text,
            " Last error: {} ({}).",
            clean(error),
            plain(&item["lastError"]["code"])
        );
    }
    text
}

/// Returns one value with its age, and whether it may be relied on.
fn facet(item: &Value, label: &str, field: &str, age: &str) -> String {
    let value = &item[field];
    if value.is_null() || value == "UNKNOWN" {
        return format!("{label} UNKNOWN");
    }
    match item[age].as_u64().map(humane::duration) {
        Some(age) if is_stale(item, field) => {
            format!(
                "{label} STALE (was {} {age} ago, do not rely on it)",
                plain(value)
            )
        }
        Some(age) => format!("{label} {} ({age} old)", plain(value)),
        None => format!("{label} {}", plain(value)),
    }
}

fn is_stale(item: &Value, field: &str) -> bool {
    strings(&item["stale"]).contains(&field)
}

/// Returns what changed, a line each.
pub(super) fn history(name: &str, list: &Envelope<HistoryItem>, total: usize) -> String {
    if list.items.is_empty() {
        return format!("No change of {} was observed in this period.", clean(name));
    }
    let shown = list.items.len();
    let cut = if shown < total {
        format!(" ({shown} of {total}; use `since` or `limit` for the others)")
    } else {
        String::new()
    };
    let mut text = format!("Changes of {}, newest first{cut}:", clean(name));
    for item in &list.items {
        let _ = write!(text, "\n{}", change(&json(item)));
        if let Some(lasted) = item.lasted_ms {
            let _ = write!(text, ", after {}", humane::duration(lasted));
        }
        let _ = write!(text, " ({})", item.because);
    }
    text
}

/// Returns one change.
fn change(entry: &Value) -> String {
    let or_unknown = |field: &str| entry[field].as_str().map_or_else(|| "unknown".to_owned(), clean);
    format!(
        "{}: {} changed from {} to {}",
        or_unknown("at"),
        or_unknown("facet"),
        or_unknown("from"),
        or_unknown("to")
    )
}

/// Returns what needs attention, a line each.
pub(super) fn attention(list: &Envelope<Attention>) -> String {
    if list.items.is_empty() {
        return "Nothing needs attention.".to_owned();
    }
    let mut text = format!("{}:", humane::count(list.items.len() as u64, "problem"));
    for entry in &list.items {
        let _ = write!(text, "\n{}", clean(&entry.what));
        if let Some(command) = &entry.command {
            let _ = write!(text, "; a person runs `{command}`");
        }
        if !entry.sources.is_empty() {
            let keys: Vec<_> = entry.sources.iter().take(20).map(ToString::to_string).collect();
            let more = entry.sources.len() - keys.len();
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            let _ = write!(text, " [{}{more}]", keys.join(", "));
        }
    }
    text
}

fn json(item: &impl Serialize) -> Value {
    serde_json::to_value(item).unwrap_or(Value::Null)
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Returns a value as text, without quotation marks.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), clean)
}

/// Returns foreign text on one line, without characters that change its direction.
fn clean(text: &str) -> String {
    text.chars().filter(|one| !is_unsafe(*one)).take(200).collect()
}
