//! `[[source]]` and the variables that list sources: what the bot monitors.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::key::Key;
use super::layers::{FileLayer, Layer, Raw, RawTable};
use super::problem::{Origin, closest};
use super::reader::{Reader, clip};
use super::source_arg::{SourceArg, invalid_pages, said};
use super::source_name::{float_as_id, is_float, name};
use crate::core::source::{InvalidSourceKey, PlatformName, SourceKey};
use crate::secrets;

pub const SOURCES: Key = Key::new(
    "sources",
    "Sources as platform:id, platform:name or a channel's URL; replaces the [[source]] list of the file.",
)
.list()
.environment_only()
.such_as("twitch:123456 kick:ratcaster");

pub(super) const KEYS: &[Key] = &[SOURCES];

const FIELDS: [&str; 6] = ["platform", "id", "login", "slug", "priority", "channels"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    pub platform: PlatformName,
    /// Its id or name there.
    pub address: SourceAddress,
    /// Sources with a higher number get subscriptions first where a platform limits them; 0 unless given.
    pub priority: i64,
    /// Discord: the channels that matter; all when empty.
    pub channels: Vec<String>,
    /// Where it was configured.
    pub origin: Origin,
}

/// How the configuration identifies a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceAddress {
    Id(SourceKey),
    /// By its login or slug, in lower case; resolved to the id once and cached.
    Name(String),
}

impl SourceSpec {
    fn new(platform: PlatformName, address: SourceAddress, origin: &Origin) -> Self {
        Self {
            platform,
            address,
            priority: 0,
            channels: Vec::new(),
            origin: origin.clone(),
        }
    }

    /// Returns the key, when the source is configured by its id.
    pub fn key(&self) -> Option<&SourceKey> {
        match &self.address {
            SourceAddress::Id(key) => Some(key),
            SourceAddress::Name(_) => None,
        }
    }
}

impl std::fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.address {
            SourceAddress::Id(key) => key.fmt(f),
            SourceAddress::Name(name) => f.pad(&format!("{}:{name}", self.platform)),
        }
    }
}

/// Reads all sources. `keys` are those of a platform that list sources.
pub(super) fn read(reader: &mut Reader<'_>, keys: fn(PlatformName) -> &'static [Key]) -> Vec<SourceSpec> {
    let mut all = Gathered::default();
    let named = reader.list(&SOURCES);
    if let Some(found) = named {
        warn_of_hidden(reader, &found.origin);
        for word in &found.value {
            match word_spec(word, &found.origin) {
                Ok(spec) => add(reader, &mut all, spec, SOURCES.path),
                Err(message) => reader.refuse(&SOURCES, &found.origin, message),
            }
        }
    } else if !reader.is_sealed(SOURCES.path) {
        let files = reader.layers().iter().filter_map(|layer| match layer {
            Layer::File(file) if !file.sources.is_empty() => Some(file),
            _ => None,
        });
        if let Some(file) = files.clone().next() {
            for (place, table) in file.sources.iter().enumerate() {
                if let Some(spec) = table_spec(reader, file, place + 1, table) {
                    add(reader, &mut all, spec, "source");
                }
            }
        }
    }
    let named = PlatformName::ALL
        .into_iter()
        .filter(|platform| platform.rules().names.is_some());
    for platform in named {
        let Some(key) = key_named(keys(platform), "channels") else {
            continue;
        };
        let Some(found) = reader.list(key) else { continue };
        let numbers = numbers_in(reader, key, &found.origin);
        for word in &found.value {
            if numbers.contains(word) {
                let message = format!(
                    "`{}` is a number, and a name is text: write it in quotes",
                    clip(word)
                );
                reader.refuse(key, &found.origin, message);
                continue;
            }
            match channel(platform, word) {
                Ok(address) => {
                    let spec = SourceSpec::new(platform, address, &found.origin);
                    add(reader, &mut all, spec, key.path);
                }
                Err(message) => reader.refuse(key, &found.origin, message),
            }
        }
    }
    let with_channels = PlatformName::ALL
        .into_iter()
        .filter(|platform| platform.rules().has_channels);
    for platform in with_channels {
        single(reader, &mut all, platform, keys(platform));
    }
    all.specs
}

/// Returns the entries of a list that its file holds as numbers.
fn numbers_in(reader: &Reader<'_>, key: &Key, origin: &Origin) -> BTreeSet<String> {
    let of_file = |layer: &Layer| match layer {
        Layer::File(file) if *origin == Origin::File(file.path.clone()) => {
            file.numbers.get(key.path).cloned()
        }
        _ => None,
    };
    reader.layers().iter().find_map(of_file).unwrap_or_default()
}

/// Warns that `[[source]]` tables have no effect because a variable or flag lists sources too.
fn warn_of_hidden(reader: &mut Reader<'_>, by: &Origin) {
    if matches!(by, Origin::Demo) {
        return;
    }
    let hidden: Vec<_> = reader
        .layers()
        .iter()
        .filter_map(|layer| match layer {
            Layer::File(file) if !file.sources.is_empty() => Some((file.path.clone(), file.sources.len())),
            _ => None,
        })
        .collect();
    for (path, count) in hidden {
        let tables = if count == 1 { "table" } else { "tables" };
        let message = format!(
            "replaces the {count} [[source]] {tables} of {}, which do not count",
            path.display()
        );
        let hint = "unset it to use the file, or remove the tables";
        reader.warn_with(SOURCES.path, by, message, hint);
    }
}

/// The sources so far, and the index of each.
#[derive(Default)]
struct Gathered {
    specs: Vec<SourceSpec>,
    places: BTreeMap<(PlatformName, SourceAddress), usize>,
}

/// Reads the one source that a platform with channels takes from the environment.
fn single(reader: &mut Reader<'_>, all: &mut Gathered, platform: PlatformName, keys: &'static [Key]) {
    let Some(key) = key_named(keys, &format!("{}_id", platform.rules().source)) else {
        return;
    };
    let source = reader.made_of_plain(key, "an id in quotes", |text| {
        addressed(Some(platform), text).map(|(_, address)| address)
    });
    let channels = key_named(keys, "channels").and_then(|key| Some((key, reader.list(key)?)));
    let Some(found) = source else { return };
    let mut spec = SourceSpec::new(platform, found.value, &found.origin);
    if let Some((key, channels)) = channels {
        spec.channels = channel_ids(reader, platform, key.path, &channels.origin, &channels.value);
    }
    add(reader, all, spec, key.path);
}

fn key_named(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name() == name)
}

/// Adds a source. The same source from another origin is the same source; twice in one place is a mistake.
fn add(reader: &mut Reader<'_>, all: &mut Gathered, spec: SourceSpec, place: &str) {
    match &spec.address {
        SourceAddress::Id(key) => secrets::register_name(key.id()),
        SourceAddress::Name(name) => secrets::register_name(name),
    }
    match all.places.entry((spec.platform, spec.address.clone())) {
        Entry::Vacant(free) => {
            free.insert(all.specs.len());
            all.specs.push(spec);
        }
        Entry::Occupied(known) if all.specs[*known.get()].origin == spec.origin => {
            reader.refuse_at(place, &spec.origin, format!("`{spec}` stands there twice"));
        }
        Entry::Occupied(_) => {}
    }
}

/// Parses `platform:id`, `platform:name`, the address of a channel, or `discord:id/channel/channel`.
fn word_spec(word: &str, origin: &Origin) -> Result<SourceSpec, String> {
    if let Some((source, channels)) = word.split_once('/')
        && let Ok(key) = source.parse::<SourceKey>()
        && key.platform().rules().has_channels
    {
        let platform = key.platform();
        let mut spec = SourceSpec::new(platform, SourceAddress::Id(key), origin);
        let channels = channels.split('/').map(|text| channel_id(platform, text));
        spec.channels = channels.collect::<Result<_, _>>()?;
        return Ok(spec);
    }
    let (platform, address) = addressed(None, word)?;
    Ok(SourceSpec::new(platform, address, origin))
}

/// Parses a source as it may be written wherever an id is accepted. `beside` is the platform from a separate field.
pub(super) fn addressed(
    beside: Option<PlatformName>,
    text: &str,
) -> Result<(PlatformName, SourceAddress), String> {
    let text = text.trim();
    let of_platform = |platform| SourceArg::of(platform, text.trim_start_matches('#'));
    let arg = match beside {
        // A guild's name may hold a colon; no login or slug does.
        Some(platform) if !text.contains([':', '/']) => of_platform(platform)?,
        Some(platform) if platform.rules().names.is_none() => match text.parse() {
            Ok(arg) => arg,
            Err(error) if text.contains("://") || is_invalid_page(text) => return Err(error),
            Err(_) => of_platform(platform)?,
        },
        _ => text.parse()?,
    };
    let (platform, address) = match arg {
        SourceArg::Key(key) => (key.platform(), SourceAddress::Id(key)),
        SourceArg::Name {
            platform: Some(platform),
            name,
        } => (platform, SourceAddress::Name(name)),
        SourceArg::Name { platform: None, .. } => {
            return Err(said(&InvalidSourceKey::Shape(text.to_owned())));
        }
    };
    match beside {
        Some(beside) if beside != platform => Err(format!(
            "is on {platform}, but the platform beside it is {beside}"
        )),
        _ => Ok((platform, address)),
    }
}

/// Whether text begins as an address that leads to no source.
fn is_invalid_page(text: &str) -> bool {
    let rest = |domain: &str| text.strip_prefix(domain).map(|rest| rest.starts_with('/'));
    invalid_pages().any(|(domain, _)| rest(domain) == Some(true))
}

/// Parses a login or slug, or the address of that channel.
pub(super) fn channel(platform: PlatformName, text: &str) -> Result<SourceAddress, String> {
    if text.contains([':', '/']) {
        return addressed(Some(platform), text).map(|(_, address)| address);
    }
    name(platform, text).map(SourceAddress::Name)
}

/// Reads one `[[source]]`.
fn table_spec(
    reader: &mut Reader<'_>,
    file: &FileLayer,
    place: usize,
    table: &RawTable,
) -> Option<SourceSpec> {
    let origin = Origin::File(file.path.clone());
    let key = |field: &str| format!("source #{place}: {field}");
    for field in table.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
        let hint = closest(field, FIELDS.into_iter()).map(|meant| format!("did you mean `{meant}`?"));
        let hint = hint.unwrap_or_else(|| format!("a source has {}", FIELDS.join(", ")));
        let field = (reader.shown_path)(field);
        reader.refuse_at_with(&key(&field), &origin, "is not known", &hint);
    }
    let mut text = |field: &str| match table.get(field)? {
        Raw::Text(text) => Some(text.clone()),
        Raw::Plain(text) if field == "id" => number_id(text)
            .map_err(|message| reader.refuse_at(&key(field), &origin, message))
            .ok(),
        _ => {
            reader.refuse_at(&key(field), &origin, "expects text in quotes");
            None
        }
    };
    let (platform, id, login, slug) = (text("platform"), text("id"), text("login"), text("slug"));
    if id.is_none() && table.contains_key("id") {
        return None;
    }
    let named: Option<PlatformName> = match platform.map(|platform| platform.parse()) {
        None => None,
        Some(Ok(platform)) => Some(platform),
        Some(Err(error)) => {
            reader.refuse_at(&key("platform"), &origin, said(&error));
            return None;
        }
    };
    let names = named.and_then(|platform| platform.rules().names.as_ref());
    let has_slug = names.is_some_and(|names| names.field == "slug");
    let (given_name, name_field) = match (has_slug, login, slug) {
        (_, Some(login), None) => (Some(login), "login"),
        (_, None, Some(slug)) | (true, _, Some(slug)) => (Some(slug), "slug"),
        (_, login, _) => (login, "login"),
    };
    let found = match (named, &id, &given_name) {
        (None, Some(text), _) if is_addressed(text) => {
            addressed(None, text).map_err(|message| ("id", message))
        }
        (None, None, Some(text)) if is_addressed(text) => {
            addressed(None, text).map_err(|message| (name_field, message))
        }
        (None, ..) => {
            if !table.contains_key("platform") {
                let names = PlatformName::ALL.map(PlatformName::as_str).join(", ");
                let message = format!("is missing; use one of {names}");
                reader.refuse_at(&key("platform"), &origin, message);
            }
            return None;
        }
        (named, Some(text), _) => addressed(named, text).map_err(|message| ("id", message)),
        (Some(_), None, Some(text)) if names.is_none() => {
            addressed(named, text).map_err(|message| (name_field, message))
        }
        // Digits alone are a name here.
        (Some(platform), None, Some(text)) => channel(platform, text)
            .map(|address| (platform, address))
            .map_err(|message| (name_field, message)),
        (Some(_), None, None) => {
            let needs = match names {
                Some(names) => format!("needs `id` or `{}`", names.field),
                None => "needs `id`".to_owned(),
            };
            reader.refuse_at(&format!("source #{place}"), &origin, needs);
            return None;
        }
    };
    let (platform, address) = found
        .map_err(|(field, message)| reader.refuse_at(&key(field), &origin, message))
        .ok()?;
    let mut spec = SourceSpec::new(platform, address, &origin);
    match table.get("priority") {
        None => {}
        Some(Raw::Plain(number)) if number.parse::<i64>().is_ok() => {
            spec.priority = number.parse().unwrap_or_default();
        }
        Some(_) => reader.refuse_at(&key("priority"), &origin, "expects a whole number"),
    }
    match table.get("channels") {
        None => {}
        Some(Raw::List(channels)) if platform.rules().has_channels => {
            spec.channels = channel_ids(reader, platform, &key("channels"), &origin, channels);
        }
        Some(Raw::List(_)) => {
            reader.refuse_at(
                &key("channels"),
                &origin,
                format!(
                    "is for {} only, not for {platform}",
                    PlatformName::with_channels()
                ),
            );
        }
        Some(_) => reader.refuse_at(&key("channels"), &origin, "expects a list of channel ids"),
    }
    Some(spec)
}

/// Whether text contains its platform.
fn is_addressed(text: &str) -> bool {
    text.parse::<SourceArg>()
        .is_ok_and(|arg| !matches!(arg, SourceArg::Name { platform: None, .. }))
}

/// Parses ids of a source's channels, and reports what is none.
fn channel_ids(
    reader: &mut Reader<'_>,
    platform: PlatformName,
    place: &str,
    origin: &Origin,
    texts: &[String],
) -> Vec<String> {
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        match channel_id(platform, text) {
            Ok(id) => ids.push(id),
            Err(message) => reader.refuse_at(place, origin, message),
        }
    }
    ids
}

/// Parses the id of a channel, or the address of its page.
fn channel_id(platform: PlatformName, text: &str) -> Result<String, String> {
    if is_float(text) {
        return Err(float_as_id(text));
    }
    let of_address = text
        .split_once("/channels/")
        .and_then(|(_, rest)| rest.split('/').nth(1));
    let id = of_address.unwrap_or(text);
    SourceKey::new(platform, id)
        .map(|_| id.to_owned())
        .map_err(|_| format!("`{}` is not a channel's id", clip(text)))
}

/// Returns a value that a file holds as a number or a boolean, if it can be an id. It is never a name, whatever letters it prints as.
fn number_id(text: &str) -> Result<String, String> {
    if is_float(text) {
        return Err(float_as_id(text));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "`{}` is a number or a boolean that no id can be; write the id in quotes",
            clip(text)
        ));
    }
    Ok(text.to_owned())
}
