//! The platforms of one simulation, their controls, and the events that can be triggered by name.
//!
//! Every platform serves the same list, so that one port is enough to discover all of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::kit::failure::Failure;

/// An event that can be triggered, by the platform's own name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventGuide {
    pub name: &'static str,
    /// Fields that it accepts besides the source, separated by spaces.
    pub fields: &'static str,
    /// Description of the event.
    pub about: &'static str,
}

impl EventGuide {
    /// Returns the fields that it accepts besides the source.
    pub(super) fn fields(&self) -> Vec<&'static str> {
        self.fields.split_whitespace().collect()
    }
}

/// Describes an event.
pub(super) const fn event(name: &'static str, fields: &'static str, about: &'static str) -> EventGuide {
    EventGuide { name, fields, about }
}

/// Description of a simulated platform and its controls.
#[derive(Debug, Clone)]
pub struct Guide {
    /// Its name, as in `platform:id`.
    pub platform: &'static str,
    /// Its base URL.
    pub address: String,
    /// The URLs to configure a client with, by the setting that they replace.
    pub bases: Vec<(&'static str, String)>,
    /// Lists that can be requested below `/__sim/PLATFORM/`.
    pub views: Vec<&'static str>,
    /// The commands below `/__sim/PLATFORM/`.
    pub commands: Vec<&'static str>,
    /// The events that can be triggered.
    pub events: &'static [EventGuide],
}

/// A source in a simulated world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimSource {
    pub id: String,
    /// The name by which the platform finds it.
    pub name: String,
}

/// A simulated platform as listed in the directory.
pub(super) trait Listed: Send + Sync {
    /// Returns the description of the platform.
    fn guide(&self) -> Guide;

    /// Returns the sources in its world.
    fn sources(&self) -> Vec<SimSource>;

    /// Triggers an event of [`Guide::events`]; returns the command's response, and how many receivers it was sent to.
    fn trigger(&self, event: &str, id: &str, fields: Map<String, Value>) -> Result<(Value, u64), Failure>;
}

/// Returns a platform while it runs: the directory must not keep it alive.
type Door = Box<dyn Fn() -> Option<Arc<dyn Listed>> + Send + Sync>;

/// All platforms of one simulation. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Directory(Arc<Mutex<Vec<Door>>>);

impl Directory {
    /// Adds a platform.
    pub(super) fn add(&self, door: impl Fn() -> Option<Arc<dyn Listed>> + Send + Sync + 'static) {
        let mut doors = self.0.lock();
        doors.push(Box::new(door));
    }

    fn platforms(&self) -> Vec<Arc<dyn Listed>> {
        let doors = self.0.lock();
        doors.iter().filter_map(|door| door()).collect()
    }

    /// Returns the directory as JSON.
    pub(super) fn to_json(&self) -> Value {
        let platforms: Vec<_> = self.platforms().iter().map(|one| describe(&**one)).collect();
        json!({"simulator": "bitbrat", "version": env!("CARGO_PKG_VERSION"), "platforms": platforms})
    }

    /// Returns the events that can be triggered, by platform.
    pub(super) fn events(&self) -> Value {
        let events = self.platforms().into_iter().flat_map(|one| {
            let guide = one.guide();
            guide.events.iter().map(move |event| {
                json!({"platform": guide.platform, "event": event.name, "fields": event.fields(), "about": event.about})
            })
        });
        json!({"events": events.collect::<Vec<_>>()})
    }

    /// Returns the directory as a page.
    pub(super) fn to_html(&self) -> String {
        let mut page = String::from(HEAD);
        for platform in self.platforms() {
            let guide = platform.guide();
            let name = guide.platform;
            let _ = write!(
                page,
                "<h2>{name}</h2><p><a href=\"{0}/__sim/\">{0}</a></p><table>",
                guide.address
            );
            for (what, address) in &guide.bases {
                let _ = write!(page, "<tr><td>{what}<td><code>{}</code>", escaped(address));
            }
            page.push_str("</table><h3>Sources</h3><p>");
            for source in platform.sources() {
                let _ = write!(
                    page,
                    "<code>{name}:{}</code> {} ",
                    escaped(&source.id),
                    escaped(&source.name)
                );
            }
            page.push_str("</p><h3>Events</h3><table>");
            for event in guide.events {
                let _ = write!(
                    page,
                    "<tr><td><code>{}</code><td>{}<td>{}",
                    event.name,
                    event.about,
                    event.fields().join(", ")
                );
            }
            let _ = write!(
                page,
                "</table><h3>Orders</h3><p><code>POST /__sim/{name}/</code> {}</p><h3>Read</h3><p>",
                guide.commands.join(", ")
            );
            for view in &guide.views {
                let _ = write!(
                    page,
                    "<a href=\"{}/__sim/{name}/{view}\">{view}</a> ",
                    guide.address
                );
            }
            page.push_str("</p>");
        }
        page.push_str("</main></html>\n");
        page
    }

    /// Triggers `event` at the source that `text` identifies.
    pub(super) fn trigger(
        &self,
        event: &str,
        text: &str,
        fields: Map<String, Value>,
    ) -> Result<Value, Failure> {
        let platforms = self.platforms();
        let (wanted, name) = split(text);
        let asked: Vec<_> = platforms
            .iter()
            .filter(|one| wanted.is_none_or(|wanted| one.guide().platform == wanted))
            .collect();
        if asked.is_empty() {
            let names = platforms.iter().map(|one| one.guide().platform);
            let names: Vec<_> = names.collect();
            return Err((
                404,
                format!("no platform of `{text}` here, only {}", names.join(", ")),
            ));
        }
        let able: Vec<_> = asked
            .iter()
            .filter(|one| one.guide().events.iter().any(|known| known.name == event))
            .collect();
        if able.is_empty() {
            let names = asked.iter().flat_map(|one| one.guide().events.iter());
            let names: BTreeSet<_> = names.map(|known| known.name).collect();
            let names: Vec<_> = names.into_iter().collect();
            return Err((
                404,
                format!("no event `{event}` for `{text}`; known: {}", names.join(", ")),
            ));
        }
        let found: Vec<_> = able
            .iter()
            .flat_map(|one| {
                let matching = one.sources().into_iter().filter(|source| source.is_called(name));
                matching.map(move |source| (one, source))
            })
            .collect();
        match found.as_slice() {
            [(platform, source)] => {
                let guide = platform.guide();
                let takes = guide.events.iter().find(|known| known.name == event);
                let takes = takes.map(EventGuide::fields).unwrap_or_default();
                if let Some(unknown) = fields.keys().find(|name| !takes.contains(&name.as_str())) {
                    let takes = match takes.as_slice() {
                        [] => "none".to_owned(),
                        some => some.join(", "),
                    };
                    return Err((
                        400,
                        format!("`{event}` has no field `{unknown}`; it takes {takes}"),
                    ));
                }
                let (answer, receivers) = platform.trigger(event, &source.id, typed(fields))?;
                Ok(json!({
                    "platform": guide.platform, "event": event, "source": format!("{}:{}", guide.platform, source.id),
                    "name": source.name, "receivers": receivers, "answer": answer,
                }))
            }
            [] => {
                let known = able.iter().flat_map(|one| {
                    let platform = one.guide().platform;
                    let sources = one.sources().into_iter();
                    sources.map(move |source| format!("{platform}:{} ({})", source.id, source.name))
                });
                let known: Vec<_> = known.collect();
                Err((404, format!("no source `{text}`; known: {}", known.join(", "))))
            }
            several => {
                let several = several
                    .iter()
                    .map(|(one, source)| format!("{}:{}", one.guide().platform, source.id));
                let several: Vec<_> = several.collect();
                Err((400, format!("`{text}` is ambiguous: {}", several.join(", "))))
            }
        }
    }
}

impl SimSource {
    fn is_called(&self, text: &str) -> bool {
        self.id == text || (!text.is_empty() && self.name.to_lowercase() == text.to_lowercase())
    }
}

/// Converts fields from a command line, which are strings, to their types, by their names.
fn typed(fields: Map<String, Value>) -> Map<String, Value> {
    const LISTS: [&str; 5] = ["tags", "shared_with", "terms", "rules", "badges"];
    const OTHERS: &str = "viewers lag_ms count bits every_ms seconds minutes kind copies status members presences silent \
         hidden_count held streaming unavailable permissions";
    fields
        .into_iter()
        .map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            let typed = match text {
                Some(text) if LISTS.contains(&name.as_str()) => {
                    let items = text.split(',').map(str::trim);
                    items.filter(|item| !item.is_empty()).collect()
                }
                Some(text) if OTHERS.split(' ').any(|other| other == name) => {
                    serde_json::from_str(&text).unwrap_or(value)
                }
                _ => value,
            };
            (name, typed)
        })
        .collect()
}

/// Splits `platform:name`, a bare name, or the address of a channel's page.
fn split(text: &str) -> (Option<&str>, &str) {
    const SITES: [(&str, &str); 3] = [
        ("twitch.tv/", "twitch"),
        ("kick.com/", "kick"),
        ("discord.com/channels/", "discord"),
    ];
    for (site, platform) in SITES {
        if let Some((before, path)) = text.split_once(site)
            && (before.is_empty() || before.ends_with("//") || before.ends_with('.'))
        {
            let name = path.split(['/', '?', '#']).next().unwrap_or_default();
            return (Some(platform), name);
        }
    }
    match text.split_once(':') {
        Some((platform, name)) => (Some(platform), name),
        None => (None, text),
    }
}

fn describe(platform: &dyn Listed) -> Value {
    let guide = platform.guide();
    let bases: Map<String, Value> = guide
        .bases
        .iter()
        .map(|(what, address)| ((*what).to_owned(), json!(address)))
        .collect();
    let sources: Vec<_> = platform
        .sources()
        .iter()
        .map(|source| json!({"id": format!("{}:{}", guide.platform, source.id), "name": source.name}))
        .collect();
    let events: Vec<_> = guide.events.iter().map(|event| event.name).collect();
    json!({
        "platform": guide.platform, "address": guide.address, "bases": bases, "sources": sources, "events": events,
        "orders": guide.commands, "views": guide.views, "controls": CONTROLS,
    })
}

/// The controls that every platform has, below `/__sim/`.
const CONTROLS: [&str; 7] = ["", "events", "trigger", "faults", "requests", "clock", "server"];

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>bitbrat simulator</title>\
    <meta name=viewport content=\"width=device-width\">\
    <style>body{font:15px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}td{padding:.1rem .8rem .1rem 0;\
    vertical-align:top}code{font-size:.9em}</style><main><h1>bitbrat simulator</h1>\
    <p>Simulated platforms. Cause an event with <code>bitbrat sim trigger EVENT SOURCE</code> or \
    <code>POST /__sim/trigger</code> <code>{\"event\":…,\"source\":…,\"fields\":{…}}</code>.</p>\
    <p>On every platform: <a href=events>events</a>, <a href=faults>faults</a>, <a href=requests>requests</a>, \
    <a href=clock>clock</a>, and <code>POST /__sim/server</code>.</p>";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_by_id_name_or_address() {
        for (text, expected) in [
            ("twitch:777002", (Some("twitch"), "777002")),
            ("quietharbor", (None, "quietharbor")),
            (
                "https://www.twitch.tv/quietharbor",
                (Some("twitch"), "quietharbor"),
            ),
            ("kick.com/marblefalcon?a=b", (Some("kick"), "marblefalcon")),
            (
                "https://discord.com/channels/888001/8880010",
                (Some("discord"), "888001"),
            ),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
