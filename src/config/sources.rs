//! `[[source]]` and the variables that name sources: what the bot attends.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::key::Key;
use super::layers::{FileLayer, Layer, Raw, RawTable};
use super::problem::{Origin, closest};
use super::reader::{Reader, clip};
use crate::core::source::{InvalidSourceKey, PlatformName, SourceKey};

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "sources",
        "Sources as platform:id or platform:name; replaces the [[source]] list of the file.",
    )
    .list()
    .such_as("twitch:123456 kick:ratcaster"),
    Key::new(
        "twitch.channels",
        "Logins of Twitch channels, in addition; a `#` in front is tolerated.",
    )
    .named(&["TWITCH_CHANNELS"])
    .list()
    .such_as("ratcaster catcaster"),
    Key::new("kick.channels", "Slugs of Kick channels, in addition.")
        .named(&["KICK_CHANNELS"])
        .list()
        .such_as("ratcaster"),
    Key::new("discord.guild_id", "A Discord guild, in addition.")
        .named(&["DISCORD_GUILD_ID"])
        .such_as("987654321"),
    Key::new(
        "discord.channels",
        "Channel ids that matter in that guild; all when none are given.",
    )
    .named(&["DISCORD_CHANNELS"])
    .list()
    .such_as("111111 222222"),
];

const FIELDS: [&str; 6] = ["platform", "id", "login", "slug", "priority", "channels"];

/// A source as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// The platform.
    pub platform: PlatformName,
    /// What it is called there.
    pub address: SourceAddress,
    /// Sources with a higher number are listened to first where a platform limits that; 0 unless given.
    pub priority: i64,
    /// Discord: the channels that matter; all when empty.
    pub channels: Vec<String>,
    /// Where it was configured.
    pub origin: Origin,
}

/// How a source is called in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceAddress {
    /// By its key.
    Id(SourceKey),
    /// By its login or slug, in lower case; resolved to the id once and remembered.
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

pub(super) fn read(reader: &mut Reader<'_>) -> Vec<SourceSpec> {
    let mut all = Gathered::default();
    let named = reader.list("sources");
    if let Some(found) = named {
        for word in &found.value {
            match word_spec(word, &found.origin) {
                Ok(spec) => add(reader, &mut all, spec, "sources"),
                Err(message) => reader.refuse("sources", &found.origin, message),
            }
        }
    } else if !reader.is_sealed("sources") {
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
    for (path, platform) in [
        ("twitch.channels", PlatformName::Twitch),
        ("kick.channels", PlatformName::Kick),
    ] {
        let Some(found) = reader.list(path) else { continue };
        for word in &found.value {
            match name(platform, word) {
                Ok(name) => {
                    let spec = SourceSpec::new(platform, SourceAddress::Name(name), &found.origin);
                    add(reader, &mut all, spec, path);
                }
                Err(message) => reader.refuse(path, &found.origin, message),
            }
        }
    }
    guild(reader, &mut all);
    all.specs
}

/// The sources so far, and where each of them stands.
#[derive(Default)]
struct Gathered {
    specs: Vec<SourceSpec>,
    places: BTreeMap<(PlatformName, SourceAddress), usize>,
}

fn guild(reader: &mut Reader<'_>, all: &mut Gathered) {
    let guild = reader.made("discord.guild_id", |text| {
        SourceKey::new(PlatformName::Discord, text)
    });
    let channels = reader.list("discord.channels");
    let Some(found) = guild else { return };
    let mut spec = SourceSpec::new(
        PlatformName::Discord,
        SourceAddress::Id(found.value),
        &found.origin,
    );
    if let Some(channels) = channels {
        for id in &channels.value {
            if let Err(message) = numeric(id) {
                reader.refuse("discord.channels", &channels.origin, message);
            }
        }
        spec.channels = channels.value;
    }
    add(reader, all, spec, "discord.guild_id");
}

/// Adds a source. The same source from another origin is the same source; twice in one place is a slip of the pen.
fn add(reader: &mut Reader<'_>, all: &mut Gathered, spec: SourceSpec, key: &str) {
    match all.places.entry((spec.platform, spec.address.clone())) {
        Entry::Vacant(free) => {
            free.insert(all.specs.len());
            all.specs.push(spec);
        }
        Entry::Occupied(known) if all.specs[*known.get()].origin == spec.origin => {
            reader.refuse(key, &spec.origin, format!("`{spec}` stands there twice"));
        }
        Entry::Occupied(_) => {}
    }
}

/// Reads `platform:id`, `platform:name`, or `discord:id/channel/channel`.
fn word_spec(word: &str, origin: &Origin) -> Result<SourceSpec, String> {
    let (platform, id) = word
        .split_once(':')
        .ok_or_else(|| InvalidSourceKey::Shape(clip(word)).to_string())?;
    let platform: PlatformName = platform
        .parse()
        .map_err(|error: InvalidSourceKey| error.to_string())?;
    let mut parts = id.split('/');
    let id_alone = parts.next().unwrap_or_default();
    let channels: Vec<String> = parts.map(str::to_owned).collect();
    let with_channels = platform == PlatformName::Discord
        && !channels.is_empty()
        && channels.iter().all(|channel| numeric(channel).is_ok());
    if with_channels && let Ok(key) = SourceKey::new(platform, id_alone) {
        let mut spec = SourceSpec::new(platform, SourceAddress::Id(key), origin);
        spec.channels = channels;
        return Ok(spec);
    }
    let address = match SourceKey::new(platform, id) {
        Ok(key) => SourceAddress::Id(key),
        Err(_) => SourceAddress::Name(name(platform, id)?),
    };
    Ok(SourceSpec::new(platform, address, origin))
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
        reader.refuse_with(&key(field), &origin, "is not known", &hint);
    }
    let mut text = |field: &str| match table.get(field)? {
        Raw::Text(text) => Some(text.clone()),
        Raw::Plain(text) if field == "id" => Some(text.clone()),
        _ => {
            reader.refuse(&key(field), &origin, "expects text in quotes");
            None
        }
    };
    let (platform, id, login, slug) = (text("platform"), text("id"), text("login"), text("slug"));
    let Some(platform) = platform else {
        if !table.contains_key("platform") {
            let message = "is missing; use one of twitch, kick, discord";
            reader.refuse(&key("platform"), &origin, message);
        }
        return None;
    };
    let platform: PlatformName = match platform.parse::<PlatformName>() {
        Ok(platform) => platform,
        Err(error) => {
            reader.refuse(&key("platform"), &origin, error.to_string());
            return None;
        }
    };
    let (name_field, given_name) = match platform {
        PlatformName::Twitch => ("login", login.or(slug)),
        PlatformName::Kick => ("slug", slug.or(login)),
        PlatformName::Discord => ("id", None),
    };
    let address = match (id, given_name) {
        (Some(id), _) => SourceKey::new(platform, &id)
            .map(SourceAddress::Id)
            .map_err(|error| (key("id"), error.to_string())),
        (None, Some(given)) => name(platform, &given)
            .map(SourceAddress::Name)
            .map_err(|message| (key(name_field), message)),
        (None, None) => {
            let or = if platform == PlatformName::Discord {
                ""
            } else {
                " or `"
            };
            let names = if or.is_empty() {
                "`id`".to_owned()
            } else {
                format!("`id`{or}{name_field}`")
            };
            Err((format!("source #{place}"), format!("needs {names}")))
        }
    };
    let address = address
        .map_err(|(key, message)| reader.refuse(&key, &origin, message))
        .ok()?;
    let mut spec = SourceSpec::new(platform, address, &origin);
    match table.get("priority") {
        None => {}
        Some(Raw::Plain(number)) if number.parse::<i64>().is_ok() => {
            spec.priority = number.parse().unwrap_or_default();
        }
        Some(_) => reader.refuse(&key("priority"), &origin, "expects a whole number"),
    }
    match table.get("channels") {
        None => {}
        Some(Raw::List(channels)) if platform == PlatformName::Discord => {
            for message in channels.iter().filter_map(|id| numeric(id).err()) {
                reader.refuse(&key("channels"), &origin, message);
            }
            spec.channels.clone_from(channels);
        }
        Some(Raw::List(_)) => {
            reader.refuse(
                &key("channels"),
                &origin,
                format!("is for Discord only, not for {platform}"),
            );
        }
        Some(_) => reader.refuse(&key("channels"), &origin, "expects a list of channel ids"),
    }
    Some(spec)
}

fn numeric(id: &str) -> Result<(), String> {
    SourceKey::new(PlatformName::Discord, id)
        .map(|_| ())
        .map_err(|_| format!("`{}` is not a channel's id", clip(id)))
}

/// Checks a login or slug and writes it in lower case.
fn name(platform: PlatformName, given: &str) -> Result<String, String> {
    let name = given.trim_start_matches(['#', '@']).to_lowercase();
    let (longest, extra) = match platform {
        PlatformName::Twitch => (25, "_"),
        PlatformName::Kick => (60, "_-"),
        PlatformName::Discord => {
            return Err(format!(
                "`{}` is not a guild's id; Discord is configured by id",
                clip(given)
            ));
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    if name.is_empty() || name.len() > longest || !name.chars().all(plain) {
        return Err(format!("`{}` cannot be a name on {platform}", clip(given)));
    }
    Ok(name)
}

/// Counts sources by platform, for people.
pub fn by_platform(specs: &[SourceSpec]) -> BTreeMap<PlatformName, usize> {
    let mut counts = BTreeMap::new();
    for spec in specs {
        *counts.entry(spec.platform).or_default() += 1;
    }
    counts
}
