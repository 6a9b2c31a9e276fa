//! Invariants that must hold once nothing changes any more.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cluster::sources;
use super::story::Story;

/// Compares every document with the simulator's state.
pub fn states(story: &Story) -> Vec<String> {
    let items = match story.cluster.items(&["sources", "status"]) {
        Ok(items) => items,
        Err(error) => return vec![error],
    };
    let mut problems = Vec::new();
    for source in sources() {
        let Some(item) = items.iter().find(|item| item["key"] == source.as_str()) else {
            problems.push(format!("{source} is not reported"));
            continue;
        };
        let live = story.live.get(&source);
        let stream = if live.is_some() { "ONLINE" } else { "OFFLINE" };
        for (field, expected) in [
            ("status", "CONNECTED"),
            ("authStatus", "VALID"),
            ("streamStatus", stream),
        ] {
            if item[field] != expected {
                problems.push(format!(
                    "{source}: {field} is {}, not {expected}; {}",
                    item[field], item["lastError"]
                ));
            }
        }
        if let Some((stream, viewers)) = live {
            let reported = &item["metadata"]["session"]["streamId"];
            if !same_stream(reported, stream) {
                problems.push(format!("{source}: the stream is {reported}, not {stream}"));
            }
            if !source.starts_with("discord") && item["viewerCount"] != *viewers {
                problems.push(format!(
                    "{source}: {} viewers, not {viewers}",
                    item["viewerCount"]
                ));
            }
        }
        if item["stale"].as_array().is_some_and(|stale| !stale.is_empty()) {
            problems.push(format!("{source}: {} is stale", item["stale"]));
        }
    }
    problems
}

/// Checks that every history is a chain in which no stream is invented, doubled or, while it is live, missing.
pub fn histories(story: &Story) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources() {
        let words = ["sources", "history", &source, "--limit", "1000"];
        match story.cluster.items(&words) {
            Ok(items) => problems.extend(history(story, &source, &items)),
            Err(error) => problems.push(error),
        }
    }
    problems
}

fn history(story: &Story, source: &str, newest_first: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut last: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut announced: Vec<&Value> = Vec::new();
    for entry in newest_first.iter().rev() {
        let facet = entry["facet"].as_str().unwrap_or_default();
        if let Some(before) = last.insert(facet, entry)
            && before["to"] != entry["from"]
        {
            problems.push(format!(
                "{source}: {facet} history does not join: {before} then {entry}"
            ));
        }
        if facet == "stream" && entry["to"] == "ONLINE" {
            announced.push(&entry["streamId"]);
        }
    }
    let ever = story.streams.get(source).map_or(&[][..], Vec::as_slice);
    for id in &announced {
        if !ever.iter().any(|stream| same_stream(id, stream)) {
            problems.push(format!("{source}: stream {id} never was"));
        }
    }
    for stream in ever {
        let times = announced.iter().filter(|id| same_stream(id, stream)).count();
        let live = story.live.get(source).is_some_and(|(live, _)| live == stream);
        if times > 1 {
            problems.push(format!("{source}: stream {stream} was announced {times} times"));
        }
        if times == 0 && live {
            problems.push(format!("{source}: stream {stream} was never announced"));
        }
    }
    if !problems.is_empty() {
        let lines = newest_first.iter().map(|entry| {
            format!(
                "\n      {} {} {} -> {} {} {}",
                entry["at"], entry["facet"], entry["from"], entry["to"], entry["streamId"], entry["rule"]
            )
        });
        problems.push(format!(
            "{source}: its history, newest first:{}",
            lines.collect::<String>()
        ));
    }
    problems
}

/// Whether a reported stream id is that of this stream. A platform without ids identifies a stream by its start time, which may
/// be formatted in several ways.
fn same_stream(reported: &Value, stream: &str) -> bool {
    let Some(reported) = reported.as_str() else {
        return false;
    };
    let instant = |text: &str| text.parse::<jiff::Timestamp>().ok();
    reported == stream || instant(reported).is_some_and(|at| instant(stream) == Some(at))
}
