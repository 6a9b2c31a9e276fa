//! The configured alerts, hooks and maintenance windows.

use std::fmt;
use std::time::Duration;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use super::trigger::{Trigger, TriggerKind};
use crate::config::SourceSelector;
use crate::core::time::Timestamp;

/// The default of `recover_after`.
pub const RECOVER_AFTER: Duration = Duration::from_secs(60);

/// The kind of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReceiverKind {
    /// A webhook of a Discord channel.
    Discord,
    /// An incoming webhook of Slack.
    Slack,
    /// Any program that accepts a JSON document, signed as Standard Webhooks describe.
    Webhook,
    /// A topic of ntfy.
    Ntfy,
}

impl ReceiverKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Discord, Self::Slack, Self::Webhook, Self::Ntfy];

    /// Returns the word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discord => "discord",
            Self::Slack => "slack",
            Self::Webhook => "webhook",
            Self::Ntfy => "ntfy",
        }
    }
}

/// Where messages go.
#[derive(Clone)]
pub struct Receiver {
    /// The kind.
    pub kind: ReceiverKind,
    /// The address. It is all that is needed to send messages there, so it is never shown.
    pub url: Url,
    /// The key that signs the requests of a webhook; decoded, without `whsec_`.
    pub signing_key: Option<Vec<u8>>,
    /// The bearer token of ntfy.
    pub token: Option<SecretString>,
    /// Whether plain HTTP and addresses inside a private network are allowed.
    pub allow_private: bool,
}

/// Without the address and the keys, which are secrets.
impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("kind", &self.kind)
            .field("allow_private", &self.allow_private)
            .finish_non_exhaustive()
    }
}

/// An `[[alert]]`.
#[derive(Debug, Clone)]
pub struct AlertRule {
    /// Its unique name.
    pub name: String,
    /// What it reports.
    pub on: Vec<Trigger>,
    /// The sources that it is about; all when empty.
    pub sources: Vec<SourceSelector>,
    /// The text of a message, with placeholders.
    pub template: Option<String>,
    /// How long a condition must be over before its end is reported.
    pub recover_after: Duration,
    /// Where it sends messages.
    pub receiver: Receiver,
}

impl AlertRule {
    /// Returns how long a condition of `kind` must last, if this alert reports it. An outage of a platform is the common cause of
    /// many sources that are down, so an alert on those reports it too.
    pub fn hold(&self, kind: TriggerKind) -> Option<Duration> {
        let of = |kind| self.on.iter().find(|trigger| trigger.kind == kind);
        let found = match kind {
            TriggerKind::PlatformOutage => of(kind).or_else(|| of(TriggerKind::SourceDown)),
            _ => of(kind),
        };
        found.map(|trigger| trigger.hold)
    }
}

/// A `[[hook]]`: a program that is run on changes.
#[derive(Debug, Clone)]
pub struct HookRule {
    /// Its unique name.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The changes that run it.
    pub on: Vec<TriggerKind>,
    /// The sources that it is about; all when empty.
    pub sources: Vec<SourceSelector>,
    /// How long a run may take.
    pub timeout: Duration,
    /// How many runs there may be at a time.
    pub at_most: u32,
}

/// A `[[maintenance]]`: a weekly time in which no messages are sent.
#[derive(Debug, Clone)]
pub struct MaintenanceWindow {
    /// Its name, for lists.
    pub name: String,
    /// The days on which it begins.
    pub days: Vec<Weekday>,
    /// When it begins, by the clock of the zone.
    pub start: Time,
    /// When it ends; on the next day if that is not later than the start.
    pub end: Time,
    /// The time zone.
    pub zone: TimeZone,
    /// The sources that it is about; all when empty.
    pub sources: Vec<SourceSelector>,
}

impl MaintenanceWindow {
    /// Returns the end of the window that contains `now`. Times that a change of the clock skips are moved forward.
    pub fn active_until(&self, now: Timestamp) -> Option<Timestamp> {
        let instant = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?;
        let today = instant.to_zoned(self.zone.clone()).date();
        // A window that began yesterday may last until today.
        [today.yesterday().ok()?, today].into_iter().find_map(|date| {
            if !self.days.contains(&date.weekday()) {
                return None;
            }
            let ends_on = if self.end > self.start {
                date
            } else {
                date.tomorrow().ok()?
            };
            let at = |date: jiff::civil::Date, time| {
                let zoned = date.to_datetime(time).to_zoned(self.zone.clone()).ok()?;
                Some(Timestamp::from_millis(zoned.timestamp().as_millisecond()))
            };
            let (start, end) = (at(date, self.start)?, at(ends_on, self.end)?);
            (start <= now && now < end).then_some(end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_clock_of_their_zone() {
        let window = MaintenanceWindow {
            name: "nightly".to_owned(),
            days: vec![Weekday::Saturday],
            start: "23:00".parse().unwrap(),
            end: "04:00".parse().unwrap(),
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            sources: Vec::new(),
        };
        let until = |at: &str| {
            window
                .active_until(at.parse().unwrap())
                .map(|end| end.to_string())
        };
        // In the night to 29 March 2026 the clock skips an hour, in the one to 25 October it repeats one.
        assert_eq!(until("2026-03-28T21:59:59Z"), None);
        let end = "2026-03-29T02:00:00.000Z".to_owned();
        assert_eq!(until("2026-03-28T22:00:00Z"), Some(end.clone()));
        assert_eq!(until("2026-03-29T01:59:59Z"), Some(end));
        assert_eq!(until("2026-03-29T02:00:00Z"), None);
        let end = "2026-10-25T03:00:00.000Z".to_owned();
        assert_eq!(until("2026-10-24T21:00:00Z"), Some(end.clone()));
        assert_eq!(until("2026-10-25T02:59:59Z"), Some(end));
        assert_eq!(until("2026-10-25T03:00:00Z"), None);
    }
}
