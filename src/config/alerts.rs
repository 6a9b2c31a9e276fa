//! `[[alert]]`, `[[hook]]` and `[[maintenance]]`: messages about changes, programs that are run on them, and times without messages.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use url::Url;

use super::SourceSelector;
use super::layers::{Layer, Raw, RawTable};
use super::problem::{Origin, closest};
use super::reader::{Reader, clip, duration, words};
use crate::alerts::message::template_problem;
use crate::alerts::rule::{AlertRule, HookRule, MaintenanceWindow, RECOVER_AFTER, Receiver, ReceiverKind};
use crate::alerts::trigger::{Trigger, TriggerKind};
use crate::secrets;

mod written;

pub use self::written::WrittenField;

/// The lists of tables that this file reads.
pub(super) const TABLES: [&str; 3] = ["alert", "hook", "maintenance"];

const ALERT: [&str; 12] = [
    "name",
    "type",
    "url",
    "url_env",
    "on",
    "sources",
    "template",
    "secret",
    "secret_env",
    "token_env",
    "recover_after",
    "allow_private",
];
const HOOK: [&str; 6] = ["name", "command", "on", "sources", "timeout", "at_most"];
const MAINTENANCE: [&str; 6] = ["name", "days", "start", "end", "timezone", "sources"];

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Alerts, hooks and maintenance windows.
#[derive(Debug, Clone, Default)]
pub struct AlertSettings {
    /// The alerts.
    pub alerts: Vec<AlertRule>,
    /// The programs that are run on changes.
    pub hooks: Vec<HookRule>,
    /// When no messages are sent.
    pub windows: Vec<MaintenanceWindow>,
    /// All of it as it was written, for people; without secrets.
    pub written: Vec<WrittenField>,
}

impl AlertSettings {
    /// Whether anything needs the changes of sources.
    pub fn is_used(&self) -> bool {
        !self.alerts.is_empty() || !self.hooks.is_empty()
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> AlertSettings {
    let mut settings = AlertSettings::default();
    let mut written = Vec::new();
    for mut table in tables(reader, "alert", &ALERT) {
        table.write_down(&ALERT, &mut written);
        settings.alerts.extend(alert(reader, &mut table));
    }
    for mut table in tables(reader, "hook", &HOOK) {
        table.write_down(&HOOK, &mut written);
        settings.hooks.extend(hook(reader, &mut table));
    }
    for mut table in tables(reader, "maintenance", &MAINTENANCE) {
        table.write_down(&MAINTENANCE, &mut written);
        settings.windows.extend(window(reader, &mut table));
    }
    settings.written = written;
    settings
}

/// Returns the tables of the first file that has any, and reports unknown fields, and names that are missing or used twice.
fn tables(reader: &mut Reader<'_>, kind: &'static str, fields: &[&str]) -> Vec<Table> {
    if reader.is_sealed(kind) {
        return Vec::new();
    }
    let mut files = reader.layers().iter().filter_map(|layer| match layer {
        Layer::File(file) => Some((Origin::File(file.path.clone()), file.tables.get(kind)?)),
        _ => None,
    });
    let Some((origin, found)) = files.find(|(_, found)| !found.is_empty()) else {
        return Vec::new();
    };
    let (mut names, mut all) = (BTreeSet::new(), Vec::new());
    for (place, fields_of) in found.iter().enumerate() {
        let mut table = Table {
            kind,
            place: format!("{kind} #{}", place + 1),
            name: String::new(),
            fields: fields_of.clone(),
            origin: origin.clone(),
            failed: false,
        };
        for field in fields_of.keys().filter(|field| !fields.contains(&field.as_str())) {
            let hint = closest(field, fields.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
            let hint = hint.unwrap_or_else(|| format!("it has {}", fields.join(", ")));
            let field = (reader.shown_path)(field);
            reader.refuse_at_with(
                &format!("{}: {field}", table.place),
                &origin,
                "is not known",
                &hint,
            );
        }
        if let Some(name) = table.required(reader, "name") {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > 64 || !name.chars().all(is_name) {
                let message = "expects 1 to 64 letters, digits, dots, dashes or underscores";
                table.refuse(reader, "name", message.to_owned());
            } else if !names.insert(name.clone()) {
                table.refuse(reader, "name", format!("`{name}` stands there twice"));
            }
            table.name = name;
        }
        all.push(table);
    }
    all
}

/// A table, and where it is in the file.
struct Table {
    kind: &'static str,
    place: String,
    name: String,
    fields: RawTable,
    origin: Origin,
    /// Whether it has a problem, so that it is not used.
    failed: bool,
}

impl Table {
    /// Adds its known fields in the form in which they may be shown.
    fn write_down(&self, fields: &[&str], written: &mut Vec<WrittenField>) {
        let name = match self.name.as_str() {
            name if name.is_empty() || self.failed || secrets::is_credential(name) => self.place.clone(),
            name => format!("{}.{name}", self.kind),
        };
        let known = fields.iter().filter(|field| **field != "name");
        written.extend(known.filter_map(|field| {
            Some(WrittenField {
                key: format!("{name}.{field}"),
                value: written::shown(field, self.fields.get(*field)?),
                origin: self.origin.clone(),
            })
        }));
    }

    fn refuse(&mut self, reader: &mut Reader<'_>, field: &str, message: String) {
        reader.refuse_at(&format!("{}: {field}", self.place), &self.origin, message);
        self.failed = true;
    }

    fn text(&mut self, reader: &mut Reader<'_>, field: &str) -> Option<String> {
        match self.fields.get(field)? {
            Raw::Text(text) => Some(text.clone()),
            _ => {
                self.refuse(reader, field, "expects text in quotes".to_owned());
                None
            }
        }
    }

    fn required(&mut self, reader: &mut Reader<'_>, field: &str) -> Option<String> {
        if !self.fields.contains_key(field) {
            self.refuse(reader, field, "is missing".to_owned());
            return None;
        }
        self.text(reader, field)
    }

    fn list(&mut self, reader: &mut Reader<'_>, field: &str) -> Vec<String> {
        match self.fields.get(field) {
            None => Vec::new(),
            Some(Raw::List(words)) => words.clone(),
            Some(_) => {
                self.refuse(reader, field, "expects a list of texts".to_owned());
                Vec::new()
            }
        }
    }

    /// Parses each entry of a list, and reports those that cannot be parsed.
    fn parsed<T>(
        &mut self,
        reader: &mut Reader<'_>,
        field: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for word in self.list(reader, field) {
            match parse(&word) {
                Ok(parsed) => all.push(parsed),
                Err(reason) => self.refuse(reader, field, format!("`{}`: {reason}", clip(&word))),
            }
        }
        all
    }

    fn selectors(&mut self, reader: &mut Reader<'_>) -> Vec<SourceSelector> {
        self.parsed(reader, "sources", str::parse)
    }

    fn duration(
        &mut self,
        reader: &mut Reader<'_>,
        field: &str,
        default: Duration,
        longest: Duration,
    ) -> Duration {
        let Some(text) = self.text(reader, field) else {
            return default;
        };
        match duration(&text) {
            Ok(found) if found <= longest => return found,
            Ok(_) => self.refuse(reader, field, format!("is at most {}", words(longest))),
            Err(reason) => self.refuse(reader, field, reason),
        }
        default
    }

    /// Reads a secret from the field, or from the variable that the field with `_env` names.
    fn secret(&mut self, reader: &mut Reader<'_>, field: &str) -> Option<String> {
        let by_variable = format!("{field}_env");
        let value = match (self.text(reader, field), self.text(reader, &by_variable)) {
            (Some(_), Some(_)) => {
                self.refuse(
                    reader,
                    field,
                    format!("is given twice: as `{field}` and as `{by_variable}`"),
                );
                None
            }
            (Some(value), None) => Some(value),
            (None, Some(name)) => {
                let value = variable(reader, &name);
                if value.is_none() {
                    let message = format!("the variable `{}` is not set", clip(&name));
                    self.refuse(reader, &by_variable, message);
                }
                value
            }
            (None, None) => None,
        }?;
        secrets::register(&value);
        Some(value)
    }
}

/// Returns a variable of the environment or of `.env`.
fn variable(reader: &Reader<'_>, name: &str) -> Option<String> {
    let of = |layer: &Layer| match layer {
        Layer::Variables(_, variables) => variables.get(name).map(|value| value.trim().to_owned()),
        _ => None,
    };
    reader
        .layers()
        .iter()
        .find_map(of)
        .filter(|value| !value.is_empty())
}

fn alert(reader: &mut Reader<'_>, table: &mut Table) -> Option<AlertRule> {
    let kind = table.required(reader, "type").and_then(|text| {
        let kind = ReceiverKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        if kind.is_none() {
            let names = ReceiverKind::ALL.map(ReceiverKind::as_str).join(", ");
            table.refuse(reader, "type", format!("`{}` is not one of {names}", clip(&text)));
        }
        kind
    });
    let on: Vec<Trigger> = table.parsed(reader, "on", str::parse);
    if on.is_empty() && !table.failed {
        table.refuse(
            reader,
            "on",
            "lists nothing to report, such as \"auth.revoked\"".to_owned(),
        );
    }
    let sources = table.selectors(reader);
    let template = table.text(reader, "template");
    if let Some(problem) = template.as_deref().and_then(template_problem) {
        table.refuse(reader, "template", problem);
    }
    let longest = Duration::from_secs(24 * 3600);
    let recover_after = table.duration(reader, "recover_after", RECOVER_AFTER, longest);
    let allow_private = switch(reader, table, "allow_private");
    let url = address(reader, table, allow_private);
    let signing_key = signing_key(reader, table);
    let token = table.secret(reader, "token").map(secrets::secret);
    for (field, given, of) in [
        ("secret", signing_key.is_some(), ReceiverKind::Webhook),
        ("token_env", token.is_some(), ReceiverKind::Ntfy),
    ] {
        if given && kind.is_some_and(|kind| kind != of) {
            table.refuse(reader, field, format!("is for type = \"{}\" only", of.as_str()));
        }
    }
    let receiver = Receiver {
        kind: kind?,
        url: url?,
        signing_key,
        token,
        allow_private,
    };
    if receiver.kind == ReceiverKind::Ntfy && receiver.url.path().trim_matches('/').is_empty() {
        table.refuse(
            reader,
            "url",
            "has no topic; write it as https://ntfy.sh/TOPIC".to_owned(),
        );
    }
    (!table.failed).then(|| AlertRule {
        name: table.name.clone(),
        on,
        sources,
        template,
        recover_after,
        receiver,
    })
}

fn switch(reader: &mut Reader<'_>, table: &mut Table, field: &str) -> bool {
    match table.fields.get(field) {
        None => false,
        Some(Raw::Plain(text)) if text == "true" || text == "false" => text == "true",
        Some(_) => {
            table.refuse(reader, field, "expects true or false".to_owned());
            false
        }
    }
}

/// Reads the address of a receiver. No message repeats it: it is a secret.
fn address(reader: &mut Reader<'_>, table: &mut Table, allow_private: bool) -> Option<Url> {
    if !table.fields.contains_key("url") && !table.fields.contains_key("url_env") {
        table.refuse(
            reader,
            "url",
            "is missing; give it as `url`, or the variable that has it as `url_env`".to_owned(),
        );
        return None;
    }
    let text = table.secret(reader, "url")?;
    let problem = match text.parse::<Url>() {
        Err(error) => format!("is not an address ({error})"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) => {
            "does not start with https://".to_owned()
        }
        Ok(url) if url.scheme() == "http" && !allow_private => {
            "is plain HTTP; use https://, or set allow_private = true for a receiver of your own network"
                .to_owned()
        }
        Ok(url) if crate::alerts::receivers::is_private(&url) && !allow_private => {
            "is an address inside a private network; set allow_private = true if that is meant".to_owned()
        }
        Ok(url) => {
            // Parts of it that a message of a receiver may repeat.
            let parts = url.path_segments().into_iter().flatten();
            parts.filter(|part| part.len() >= 12).for_each(secrets::register);
            return Some(url);
        }
    };
    table.refuse(reader, "url", problem);
    None
}

/// Reads the key that signs requests, as Standard Webhooks write it.
fn signing_key(reader: &mut Reader<'_>, table: &mut Table) -> Option<Vec<u8>> {
    let text = table.secret(reader, "secret")?;
    let key = text
        .strip_prefix("whsec_")
        .and_then(|key| STANDARD.decode(key).ok());
    match key {
        Some(key) if (24..=64).contains(&key.len()) => {
            secrets::register(text.trim_start_matches("whsec_"));
            Some(key)
        }
        _ => {
            let message = "expects `whsec_` and 24 to 64 bytes in base64; make one with `echo whsec_$(openssl rand -base64 32)`";
            table.refuse(reader, "secret", message.to_owned());
            None
        }
    }
}

fn hook(reader: &mut Reader<'_>, table: &mut Table) -> Option<HookRule> {
    let command = table.list(reader, "command");
    if command.first().is_none_or(String::is_empty) && !table.failed {
        let message = "expects the program and its arguments as a list, such as [\"/usr/local/bin/notify\", \"--json\"]";
        table.refuse(reader, "command", message.to_owned());
    }
    let on: Vec<TriggerKind> = table.parsed(reader, "on", |word| {
        let kind: TriggerKind = word.parse()?;
        match kind {
            TriggerKind::AuthExpiring | TriggerKind::PlatformOutage => {
                Err("is no change of one source; use an [[alert]] for it".to_owned())
            }
            kind => Ok(kind),
        }
    });
    if on.is_empty() && !table.failed {
        table.refuse(
            reader,
            "on",
            "lists nothing to react to, such as \"stream.online\"".to_owned(),
        );
    }
    let sources = table.selectors(reader);
    let longest = Duration::from_secs(600);
    let timeout = table.duration(reader, "timeout", Duration::from_secs(30), longest);
    let at_most = match table.fields.get("at_most") {
        None => 2,
        Some(Raw::Plain(text)) => text.parse().unwrap_or(0),
        Some(_) => 0,
    };
    if !(1..=64).contains(&at_most) {
        table.refuse(
            reader,
            "at_most",
            "expects a whole number from 1 to 64".to_owned(),
        );
    }
    (!table.failed).then(|| HookRule {
        name: table.name.clone(),
        command,
        on,
        sources,
        timeout,
        at_most,
    })
}

fn window(reader: &mut Reader<'_>, table: &mut Table) -> Option<MaintenanceWindow> {
    let mut days = table.parsed(reader, "days", |word| {
        let found = DAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let names = DAYS.map(|(name, _)| name).join(", ");
        found.map(|(_, day)| *day).ok_or_else(|| format!("use {names}"))
    });
    if days.is_empty() {
        days = DAYS.map(|(_, day)| day).to_vec();
    }
    let mut time = |field: &str| {
        let text = table.required(reader, field)?;
        let time: Option<Time> = text.parse().ok();
        if time.is_none() {
            table.refuse(
                reader,
                field,
                format!("`{}` is not a time such as 04:30", clip(&text)),
            );
        }
        time
    };
    let (start, end) = (time("start"), time("end"));
    let zone = table.required(reader, "timezone").and_then(|name| {
        let zone = TimeZone::get(&name).ok();
        if zone.is_none() {
            let message = format!("`{}` is not a time zone such as Europe/Berlin", clip(&name));
            table.refuse(reader, "timezone", message);
        }
        zone
    });
    let sources = table.selectors(reader);
    let window = MaintenanceWindow {
        name: table.name.clone(),
        days,
        start: start?,
        end: end?,
        zone: zone?,
        sources,
    };
    (!table.failed).then_some(window)
}

#[cfg(test)]
mod tests;
