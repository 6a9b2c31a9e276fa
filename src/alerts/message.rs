//! What a message says, before a receiver gives it its form.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::incident::{Incident, MessageKind};
use super::text::clean;
use super::trigger::TriggerKind;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// How many affected sources are named.
const NAMED: usize = 10;
/// How many affected sources a program gets.
const LISTED: usize = 100;
/// The placeholders of a template.
const PLACEHOLDERS: [&str; 8] = [
    "title", "text", "state", "trigger", "subject", "sources", "count", "since",
];

/// A source in a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Affected {
    /// Its id.
    #[schemars(with = "String")]
    pub key: SourceKey,
    /// Its display name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// A message to one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its id: the same whenever it is sent again.
    pub id: String,
    /// What it reports about the incident.
    pub kind: MessageKind,
    /// The alert.
    pub alert: String,
    /// The key of the incident.
    pub incident: String,
    /// The kind of cause; a test has none.
    pub trigger: Option<TriggerKind>,
    /// What it is about.
    pub subject: String,
    /// The error code, or the account status.
    #[serde(default)]
    pub class: String,
    /// One line.
    pub title: String,
    /// Further lines.
    pub text: String,
    /// The text of the alert's template, in place of both.
    #[serde(default)]
    pub templated: Option<String>,
    /// The first affected sources.
    pub sources: Vec<Affected>,
    /// Number of affected sources.
    pub affected: usize,
    /// The first of those that are still not connected although the outage of their platform is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remaining: Vec<Affected>,
    /// When the incident began to be reported.
    pub opened_at: Option<Timestamp>,
    /// When it was over.
    pub closed_at: Option<Timestamp>,
    /// When the message was made.
    pub at: Timestamp,
    /// The command that fixes the cause.
    #[serde(default)]
    pub command: Option<String>,
}

impl Message {
    /// Builds the message of an incident.
    pub fn of(incident: &Incident, kind: MessageKind, template: Option<&str>, now: Timestamp) -> Self {
        let listed = |sources: &BTreeMap<SourceKey, String>| -> Vec<Affected> {
            let sources = sources.iter().take(LISTED).map(|(key, name)| Affected {
                key: key.clone(),
                name: clean(name),
            });
            sources.collect()
        };
        let is_over = kind == MessageKind::Close;
        let mut message = Self {
            id: incident.message_id(kind),
            kind,
            alert: incident.alert.clone(),
            incident: incident.key(),
            trigger: Some(incident.kind),
            subject: incident.stream.as_ref().unwrap_or(&incident.subject).clone(),
            class: incident.class.clone(),
            title: String::new(),
            text: String::new(),
            templated: None,
            sources: listed(&incident.sources),
            affected: incident.affected,
            remaining: if is_over {
                listed(&incident.remaining)
            } else {
                Vec::new()
            },
            opened_at: incident.opened_at,
            closed_at: incident.closed_at.filter(|_| is_over),
            at: now,
            command: command(incident).filter(|_| !is_over),
        };
        message.title = message.titled(incident);
        message.text = message.body(incident);
        message.templated = template.map(|template| message.fill(template, incident.since));
        message
    }

    /// Builds a test message.
    pub fn test(alert: &str, id: String, now: Timestamp) -> Self {
        Self {
            id,
            kind: MessageKind::Test,
            alert: alert.to_owned(),
            incident: format!("{alert}|test"),
            trigger: None,
            subject: "test".to_owned(),
            class: String::new(),
            title: format!("Test of the alert {alert}"),
            text: "This is a test. Nothing happened, and nothing has to be done.".to_owned(),
            templated: None,
            sources: Vec::new(),
            affected: 0,
            remaining: Vec::new(),
            opened_at: None,
            closed_at: None,
            at: now,
            command: None,
        }
    }

    fn titled(&self, incident: &Incident) -> String {
        let subject = &self.subject;
        let one = || match self.sources.first() {
            Some(source) if self.affected == 1 && !source.name.is_empty() => source.name.clone(),
            Some(source) if self.affected == 1 => source.key.to_string(),
            _ => format!("{} sources", self.affected),
        };
        let is_over = self.kind == MessageKind::Close;
        let title = match incident.kind {
            TriggerKind::AuthRevoked | TriggerKind::AuthExpired if is_over => {
                format!("{subject} is authorized again")
            }
            TriggerKind::AuthRevoked => format!("The authorization of {subject} was revoked"),
            TriggerKind::AuthExpired => format!("The authorization of {subject} has expired"),
            TriggerKind::AuthExpiring if is_over => {
                format!("{subject}: the warning about its expiry is over")
            }
            TriggerKind::AuthExpiring => format!("{subject} stops working within a day"),
            TriggerKind::SourceDown if is_over => format!("Connected again: {}", one()),
            TriggerKind::SourceDown => format!("Not connected: {}", one()),
            TriggerKind::PermissionLost if is_over => format!("Permissions are back: {}", one()),
            TriggerKind::PermissionLost => format!("Permissions were lost: {}", one()),
            TriggerKind::PlatformOutage if is_over && !incident.remaining.is_empty() => format!(
                "{} of {} affected sources of {} work again",
                self.affected.saturating_sub(incident.remaining.len()),
                self.affected,
                self.platform()
            ),
            TriggerKind::PlatformOutage if is_over => format!("{} of {} work again", one(), self.platform()),
            TriggerKind::PlatformOutage => format!("{} of {} are not connected", one(), self.platform()),
            TriggerKind::StreamOnline if is_over => format!("{} was live", one()),
            TriggerKind::StreamOnline => format!("{} is live", one()),
            TriggerKind::StreamOffline => format!("{} is offline", one()),
        };
        match self.kind {
            MessageKind::Flapping if self.stream_changes() => {
                format!(
                    "{} goes live and offline again and again; the next message follows when that has stopped",
                    one()
                )
            }
            MessageKind::Flapping => {
                format!("{title} (again and again; the next message follows when it is stable)")
            }
            MessageKind::Open | MessageKind::Close | MessageKind::Test => title,
        }
    }

    fn stream_changes(&self) -> bool {
        matches!(
            self.trigger,
            Some(TriggerKind::StreamOnline | TriggerKind::StreamOffline)
        )
    }

    fn platform(&self) -> &str {
        self.subject.split('/').next().unwrap_or_default()
    }

    fn body(&self, incident: &Incident) -> String {
        let mut lines = Vec::new();
        let detail = clean(&incident.detail);
        if self.kind != MessageKind::Close && !detail.is_empty() {
            lines.push(detail);
        }
        if self.affected > 1 || (self.affected == 1 && incident.kind < TriggerKind::SourceDown) {
            lines.push(format!("Affected: {}", named(&self.sources, self.affected)));
        }
        if !self.remaining.is_empty() {
            let remaining = named(&self.remaining, incident.remaining.len());
            lines.push(format!("Still not connected: {remaining}"));
        }
        match (self.kind, incident.closed_at) {
            (MessageKind::Close, Some(closed)) => lines.push(format!("From {} to {closed}", incident.since)),
            _ => lines.push(format!("Since {}", incident.since)),
        }
        lines.extend(self.command.as_ref().map(|command| format!("Next: {command}")));
        lines.join("\n")
    }

    fn fill(&self, template: &str, since: Timestamp) -> String {
        let mut text = template.to_owned();
        let trigger = self.trigger.map(TriggerKind::as_str).unwrap_or_default();
        // Last what platforms have written: it may look like a placeholder.
        for (name, value) in [
            ("state", self.kind.as_str().to_owned()),
            ("trigger", trigger.to_owned()),
            ("count", self.affected.to_string()),
            ("since", since.to_string()),
            ("subject", self.subject.clone()),
            ("sources", named(&self.sources, self.affected)),
            ("title", self.title.clone()),
            ("text", self.text.clone()),
        ] {
            text = text.replace(&format!("{{{name}}}"), &value);
        }
        text
    }
}

/// Returns the first of `all` sources and the number of the others.
fn named(sources: &[Affected], all: usize) -> String {
    let names = sources
        .iter()
        .take(NAMED)
        .map(|source| match source.name.as_str() {
            "" => source.key.to_string(),
            name => format!("{name} ({})", source.key),
        });
    let mut text = names.collect::<Vec<_>>().join(", ");
    let more = all.saturating_sub(sources.len().min(NAMED));
    if more > 0 {
        let _ = write!(text, ", …and {more} more");
    }
    text
}

/// Returns the command that fixes the cause of an incident, or shows more.
fn command(incident: &Incident) -> Option<String> {
    let is_account = incident.subject.contains('/');
    match incident.kind {
        TriggerKind::AuthRevoked | TriggerKind::AuthExpired | TriggerKind::AuthExpiring => {
            Some(crate::tokens::login_command(&incident.subject))
        }
        TriggerKind::SourceDown | TriggerKind::PermissionLost if is_account => {
            Some(crate::tokens::login_command(&incident.subject))
        }
        TriggerKind::SourceDown | TriggerKind::PermissionLost if incident.subject.contains(':') => {
            Some(format!("bitbrat describe {}", incident.subject))
        }
        TriggerKind::SourceDown | TriggerKind::PermissionLost | TriggerKind::PlatformOutage => {
            let platform = incident.subject.split('/').next()?;
            Some(format!("bitbrat doctor {platform}"))
        }
        TriggerKind::StreamOnline | TriggerKind::StreamOffline => None,
    }
}

/// Returns what is wrong with a template.
pub fn template_problem(template: &str) -> Option<String> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let name = after.split_once('}').map_or(after, |(name, _)| name);
        if !PLACEHOLDERS.contains(&name) {
            let known = PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(", ");
            return Some(format!("has an unknown placeholder; it may contain {known}"));
        }
        rest = after;
    }
    (template.chars().count() > 1500).then(|| "has more than 1500 characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(kind: TriggerKind, subject: &str, sources: usize) -> Incident {
        let now = Timestamp::from_millis(1_780_000_000_000);
        let mut incident = Incident::new("ops", &(kind, subject.to_owned()));
        let names = (1..=sources).map(|number| {
            let key = format!("twitch:{number}").parse().unwrap();
            (key, format!("Rat{number}"))
        });
        incident.sources = names.collect();
        incident.affected = sources;
        incident.since = now;
        incident.opened_at = Some(now);
        incident
    }

    #[test]
    fn message_names_cause_sources_and_next_step() {
        let now = Timestamp::from_millis(1_780_000_060_000);
        let mut revoked = incident(TriggerKind::AuthRevoked, "twitch/bot", 12);
        revoked.detail = "password\u{202e}\nchanged".to_owned();
        let message = Message::of(&revoked, MessageKind::Open, None, now);
        assert_eq!(message.title, "The authorization of twitch/bot was revoked");
        assert!(
            message
                .text
                .starts_with("password changed\nAffected: Rat1 (twitch:1), "),
            "{}",
            message.text
        );
        assert!(
            message.text.contains(", …and 2 more\nSince 2026-"),
            "{}",
            message.text
        );
        assert!(
            message.text.ends_with("Next: bitbrat auth login twitch"),
            "{}",
            message.text
        );
        revoked.closed_at = Some(now);
        let message = Message::of(
            &revoked,
            MessageKind::Close,
            Some("[{state}] {title}: {count}"),
            now,
        );
        let expected = "[close] twitch/bot is authorized again: 12";
        assert_eq!(message.templated.as_deref(), Some(expected));
        let live = incident(TriggerKind::StreamOnline, "twitch:1/77", 1);
        assert_eq!(
            Message::of(&live, MessageKind::Open, None, now).title,
            "Rat1 is live"
        );
    }

    #[test]
    fn templates_have_known_placeholders() {
        assert_eq!(template_problem("{title} {text}"), None);
        assert!(template_problem("{nmae}").unwrap().contains("{subject}"));
        assert!(template_problem("{title").unwrap_or_default().is_empty());
        assert!(template_problem(&"x".repeat(1501)).is_some());
    }
}
