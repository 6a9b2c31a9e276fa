//! `[mcp]`: the interface for agents, and its registration with the platform's tool gateway.

use url::Url;

use super::key::Key;
use super::reader::Reader;
use super::{BusSettings, BusTarget, WebSettings};

const PREFIX: Key = Key::new(
    "mcp.prefix",
    "What the names of the tools begin with, or off. Clients that combine the tools of several servers need it.",
)
.or("bitbrat_");
const REGISTER: Key = Key::new(
    "mcp.register",
    "Whether `watch` registers the tools with the platform's tool gateway, over the bus.",
)
.or("false");
const NAME: Key = Key::new(
    "mcp.name",
    "Name under which the tool gateway stores this server.",
)
.or("bitbrat");
const URL: Key = Key::new(
    "mcp.url",
    "Address of `/sse` as the tool gateway reaches it. Default: that of web.public_url or web.listen.",
)
.such_as("http://bitbrat:8787/sse");
const VARIABLE: Key = Key::new(
    "mcp.variable",
    "Variable of the tool gateway that has the token of the web server; its name is published, the token is not.",
)
.or("BITBRAT_WEB_TOKEN");
const ROLES: Key = Key::new(
    "mcp.roles",
    "Roles of which a user of the platform needs one to use the tools. None by default: everybody may.",
)
.list()
.such_as("moderator broadcaster");

pub(super) const KEYS: &[Key] = &[PREFIX, REGISTER, NAME, URL, VARIABLE, ROLES];

/// Characters of a prefix at most. Names of tools have at most 60 characters.
const LONGEST: usize = 40;

#[derive(Debug, Clone)]
pub struct McpSettings {
    /// What the names of the tools begin with.
    pub prefix: String,
    /// How this server is registered, where it is.
    pub registration: Option<RegistrationSettings>,
}

/// How this server is registered with the tool gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationSettings {
    pub name: String,
    /// Address of the event stream, where it is not that of the web server itself.
    pub url: Option<String>,
    /// Variable of the gateway that has the token.
    pub variable: String,
    pub roles: Vec<String>,
}

pub(super) fn read(reader: &mut Reader<'_>, bus: &BusSettings, web: &WebSettings) -> McpSettings {
    let prefix = reader.made(&PREFIX, prefix).map(|found| found.value);
    let register = reader.switch(&REGISTER);
    let name = reader.made(&NAME, |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = text.len() <= 80 && text.chars().all(plain) && !text.starts_with("__");
        is_name
            .then(|| text.to_owned())
            .ok_or("expects at most 80 letters, digits, dots, dashes and underscores")
    });
    let url = reader.address(&URL, &["http", "https"]);
    let variable = reader.made(&VARIABLE, |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name =
            text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(plain);
        is_name
            .then(|| text.to_owned())
            .ok_or("expects the name of an environment variable")
    });
    let roles = reader.list(&ROLES).map(|found| found.value).unwrap_or_default();
    let origin = reader.origin(&REGISTER);
    let public = web.public_url.as_ref().map(Url::as_str);
    let public = public.map(|url| format!("{}/sse", url.trim_end_matches('/')));
    let url = url.map(|url| url.to_string()).or(public);
    let missing = missing(bus, web, url.as_deref()).filter(|_| register);
    if let Some((what, hint)) = missing {
        reader.refuse_with(&REGISTER, &origin, what, hint);
    }
    let registration = (register && missing.is_none()).then(|| RegistrationSettings {
        name: name.map_or_else(|| "bitbrat".to_owned(), |found| found.value),
        url,
        variable: variable.map_or_else(|| "BITBRAT_WEB_TOKEN".to_owned(), |found| found.value),
        roles,
    });
    McpSettings {
        prefix: prefix.unwrap_or_else(|| "bitbrat_".to_owned()),
        registration,
    }
}

/// Returns what a registration lacks, and what to do about it.
fn missing(bus: &BusSettings, web: &WebSettings, url: Option<&str>) -> Option<(&'static str, &'static str)> {
    // That it listens at every address of this machine says nothing about which one others reach.
    let is_anywhere = web.listen.is_some_and(|listen| listen.ip().is_unspecified());
    if matches!(bus.target, BusTarget::Local) {
        Some(("needs the platform's bus", "set bus.url to nats:// or pubsub:"))
    } else if web.listen.is_none() {
        let what = "needs the web server, which is off";
        Some((what, "set web.listen to an address"))
    } else if url.is_none() && is_anywhere {
        let what = "needs the address under which the tool gateway reaches this machine";
        Some((what, "set mcp.url, for example to http://bitbrat:8787/sse"))
    } else {
        None
    }
}

/// Reads a prefix that every host accepts. The platform's own tools begin with `bit`.
fn prefix(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_plain = text.chars().all(plain) && text.len() <= LONGEST;
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
    if text == "off" {
        Ok(String::new())
    } else if is_plain && starts {
        Ok(text.to_owned())
    } else {
        Err("expects off, or at most 40 small letters, digits and underscores, a letter first")
    }
}
