//! The fields by which sources are sorted.

use std::cmp::Ordering;
use std::str::FromStr;

use clap::ValueEnum;

use crate::config;
use crate::core::stream::StreamStatus;
use crate::core::verdict::{AuthStatus, Status};
use crate::view::source_row::SourceRow;

/// A field that sources are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortField {
    /// platform:id, the id by number
    Id,
    /// The display name
    Name,
    /// The platform
    Platform,
    /// CONNECTED, DISCONNECTED, ERROR
    Status,
    /// ONLINE, OFFLINE
    Stream,
    /// The number of viewers
    Viewers,
    /// VALID, EXPIRED, REVOKED
    Auth,
    /// The age of the oldest of status and stream
    Age,
    /// The latency
    Latency,
}

/// A field and its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    field: SortField,
    descending: bool,
}

impl FromStr for SortKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (descending, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text),
        };
        if let Ok(field) = SortField::from_str(name, true) {
            return Ok(Self { field, descending });
        }
        let fields = SortField::value_variants().iter();
        let fields: Vec<String> = fields
            .filter_map(SortField::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect();
        let meant = config::closest(name, fields.iter().map(String::as_str));
        let meant = meant.map_or_else(String::new, |meant| format!("did you mean `{meant}`? "));
        Err(format!(
            "there is no such field; {meant}use {}, or -FIELD for descending",
            fields.join(", ")
        ))
    }
}

impl SortKey {
    fn compare(self, one: &SourceRow, other: &SourceRow) -> Ordering {
        let directed = |order: Ordering| if self.descending { order.reverse() } else { order };
        match self.field {
            SortField::Id => directed(by_id(one, other)),
            SortField::Platform => directed(one.summary.key.platform().cmp(&other.summary.key.platform())),
            SortField::Name => self.by(one, other, |row| {
                row.summary.display_name.as_deref().map(str::to_lowercase)
            }),
            SortField::Status => self.by(one, other, |row| {
                let is_known = row.is_checked() || row.summary.status == Status::Error;
                is_known.then_some(match row.summary.status {
                    Status::Connected => 0,
                    Status::Disconnected => 1,
                    Status::Error => 2,
                })
            }),
            SortField::Stream => self.by(one, other, |row| match row.summary.stream_status {
                StreamStatus::Online => Some(0),
                StreamStatus::Offline => Some(1),
                StreamStatus::Unknown => None,
            }),
            SortField::Viewers => self.by(one, other, |row| row.summary.viewer_count),
            SortField::Auth => self.by(one, other, |row| {
                row.summary.auth_status.map(|auth| match auth {
                    AuthStatus::Valid => 0,
                    AuthStatus::Expired => 1,
                    AuthStatus::Revoked => 2,
                })
            }),
            SortField::Age => self.by(one, other, SourceRow::age_ms),
            SortField::Latency => self.by(one, other, |row| row.summary.latency_ms),
        }
    }

    /// Compares what is known of both; what is unknown is last in both directions.
    fn by<T: Ord>(
        self,
        one: &SourceRow,
        other: &SourceRow,
        value: impl Fn(&SourceRow) -> Option<T>,
    ) -> Ordering {
        match (value(one), value(other)) {
            (Some(one), Some(other)) if self.descending => other.cmp(&one),
            (Some(one), Some(other)) => one.cmp(&other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

/// Compares keys with ids as numbers: they have no leading zeros, so the longer one is greater.
fn by_id(one: &SourceRow, other: &SourceRow) -> Ordering {
    let (one, other) = (&one.summary.key, &other.summary.key);
    let ids = || {
        one.id()
            .len()
            .cmp(&other.id().len())
            .then(one.id().cmp(other.id()))
    };
    one.platform().cmp(&other.platform()).then_with(ids)
}

/// Compares two sources by `keys`, and those that are equal by id.
pub fn compare(keys: &[SortKey], one: &SourceRow, other: &SourceRow) -> Ordering {
    let keys = keys.iter().map(|key| key.compare(one, other));
    keys.fold(Ordering::Equal, Ordering::then)
        .then_with(|| by_id(one, other))
}
