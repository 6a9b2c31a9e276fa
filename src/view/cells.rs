//! Shows verdicts in tables, in one place, so that every command and page shows the same thing in the same way.

use std::collections::BTreeSet;

use crate::core::facet::Facet;
use crate::core::freshness::{Field, Freshness, age_ms};
use crate::core::permission::Ability;
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::core::verdict::{AuthStatus, Status};
use crate::view::cell::{Cell, Glyph, Tone};
use crate::view::humane;
use crate::view::past::{End, Session};

/// Returns `age` as in `4m ago`.
pub fn ago(age: u64) -> String {
    humane::age(age) + " ago"
}

/// Returns how long ago `at` was, or `never`.
pub fn seen(at: Option<Timestamp>, now: Timestamp) -> Cell {
    match at {
        Some(at) => Cell::new(ago(age_ms(at, now))).tone(Tone::Dim),
        None => Cell::new("never").tone(Tone::Dim),
    }
}

/// Returns a moment as people write it, in UTC.
pub fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {}Z", time.get(..8).unwrap_or_default())
}

/// Shows when a stream began.
pub fn session_start(session: &Session) -> Cell {
    session
        .start
        .map(moment)
        .map_or_else(|| Cell::label("start unknown").tone(Tone::Dim), Cell::new)
}

/// Shows when a stream ended, as exactly as that is proven.
pub fn session_end(session: &Session) -> Cell {
    match session.end {
        End::Live { .. } => Cell::label("live").glyph(Glyph::Live).tone(Tone::Live),
        End::At(end) => Cell::new(moment(end)),
        End::Between { proven, missing } => {
            Cell::new(format!("between {} and {}", moment(proven), moment(missing)))
        }
        End::Unknown { proven } => Cell::new(format!("unknown, after {}", moment(proven))),
    }
}

/// Shows how long a stream was, or how long at least.
pub fn session_length(session: &Session) -> Cell {
    let Some(start) = session.start else {
        return Cell::none();
    };
    match session.end {
        End::At(end) => Cell::new(humane::span(age_ms(start, end))),
        End::Live { proven } | End::Between { proven, .. } | End::Unknown { proven } => {
            Cell::new(format!("at least {}", humane::span(age_ms(start, proven))))
        }
    }
}

/// Marks a value that is too old to rely on.
fn aged(cell: Cell, stale: bool, age: Option<u64>) -> Cell {
    let Some(age) = age.filter(|_| stale) else {
        return cell;
    };
    let text = [&*cell.text, " ", &humane::age(age), " ago"].concat();
    Cell {
        text: text.into(),
        ..cell
    }
    .glyph(Glyph::Stale)
    .tone(Tone::Dim)
}

/// Shows the connection.
pub fn status(summary: &SourceSummary, freshness: &Freshness) -> Cell {
    let status = summary.status;
    if !summary.proven && status != Status::Error {
        return Cell::label("not checked yet")
            .glyph(Glyph::Unknown)
            .tone(Tone::Dim);
    }
    let (glyph, tone) = match status {
        Status::Connected => (Glyph::Up, Tone::Good),
        Status::Disconnected => (Glyph::Down, Tone::Warn),
        Status::Error => (Glyph::Bad, Tone::Bad),
    };
    let cell = Cell::label(status.as_str()).glyph(glyph).tone(tone);
    aged(cell, freshness.is_stale(Field::Status), freshness.status_age_ms)
}

/// Shows the stream; one that is live with how long it has been.
pub fn stream(summary: &SourceSummary, freshness: &Freshness, now: Timestamp) -> Cell {
    let status = summary.stream_status;
    let stale = freshness.is_stale(Field::StreamStatus);
    let cell = match (status, summary.started_at) {
        // How long it has been live is shown only while that is certain.
        (StreamStatus::Online, Some(start)) if !stale => {
            Cell::new(format!("ONLINE {}", humane::span(age_ms(start, now))))
        }
        (value, _) => Cell::label(value.as_str()),
    };
    let (glyph, tone) = match status {
        StreamStatus::Online => (Glyph::Live, Tone::Live),
        StreamStatus::Offline => (Glyph::Off, Tone::Plain),
        StreamStatus::Unknown => (Glyph::Unknown, Tone::Dim),
    };
    let cell = cell.glyph(glyph).tone(tone);
    aged(
        cell,
        freshness.is_stale(Field::StreamStatus),
        freshness.stream_age_ms,
    )
}

pub fn auth(summary: &SourceSummary, freshness: &Freshness) -> Cell {
    let cell = if summary.is_rejected() {
        // Documents have no value for a token that was never proven to be valid.
        Cell::label("REJECTED").glyph(Glyph::Bad).tone(Tone::Bad)
    } else {
        auth_status(summary.auth_status)
    };
    aged(cell, freshness.is_stale(Field::AuthStatus), freshness.auth_age_ms)
}

/// Shows the result of an authorization check.
pub fn auth_status(status: Option<AuthStatus>) -> Cell {
    let Some(status) = status else {
        return Cell::label("unknown").glyph(Glyph::Unknown).tone(Tone::Dim);
    };
    let (glyph, tone) = match status {
        AuthStatus::Valid => (Glyph::Good, Tone::Good),
        AuthStatus::Expired => (Glyph::Warn, Tone::Warn),
        AuthStatus::Revoked => (Glyph::Bad, Tone::Bad),
    };
    Cell::label(status.as_str()).glyph(glyph).tone(tone)
}

pub fn viewers(summary: &SourceSummary, freshness: &Freshness) -> Cell {
    let Some(count) = summary.viewer_count else {
        return Cell::none();
    };
    let cell = Cell::new(humane::thousands(count));
    if freshness.is_stale(Field::ViewerCount) {
        cell.glyph(Glyph::Stale).tone(Tone::Dim)
    } else {
        cell
    }
}

/// Shows what the bot can do, in terms that mean the same on every platform.
pub fn abilities(summary: &SourceSummary, freshness: &Freshness) -> Cell {
    let abilities = &summary.abilities;
    // Joined by a comma: a character beyond ASCII would have to be measured, a thousand times.
    let can: Vec<&str> = abilities.yes().map(Ability::label).collect();
    let cell = match can.as_slice() {
        [] if abilities.is_unknown() => {
            return Cell::label("unknown").glyph(Glyph::Unknown).tone(Tone::Dim);
        }
        [] => Cell::label("none"),
        some => Cell::new(some.join(", ")),
    };
    if freshness.is_stale(Field::Permissions) || freshness.is_stale(Field::AuthStatus) {
        cell.glyph(Glyph::Stale).tone(Tone::Dim)
    } else {
        cell
    }
}

/// Shows which roles and permissions the bot has, in the platform's terms.
pub fn roles(summary: &SourceSummary, freshness: &Freshness) -> Cell {
    let roles = &summary.roles;
    let cell = match roles.named.as_slice() {
        [] if summary.permissions_at.is_none() => {
            Cell::label("unknown").glyph(Glyph::Unknown).tone(Tone::Dim)
        }
        [] => Cell::label("none"),
        [one] if roles.count == 1 => Cell::new(&**one),
        few if few.len() == roles.count => Cell::new(few.join(", ")),
        _ => Cell::new(format!("{} permissions", roles.count)),
    };
    if freshness.is_stale(Field::Permissions) && cell.glyph.is_none() {
        cell.glyph(Glyph::Stale).tone(Tone::Dim)
    } else {
        cell
    }
}

pub fn change(transition: &Transition) -> Cell {
    if transition.facet == Facet::Permissions {
        return Cell::new(permissions_change(transition));
    }
    let side = |value: &Option<String>| match value.as_deref() {
        None | Some("") => "nothing".to_owned(),
        Some(value) => value.to_owned(),
    };
    if transition.initial {
        return Cell::new(format!("initially {}", side(&transition.to))).tone(tone_of(transition));
    }
    Cell::new(format!("{} to {}", side(&transition.from), side(&transition.to))).tone(tone_of(transition))
}

/// What a change means to its reader.
pub fn tone_of(transition: &Transition) -> Tone {
    match transition.to.as_deref() {
        Some("ONLINE") => Tone::Live,
        Some("CONNECTED" | "VALID") => Tone::Good,
        Some("ERROR" | "REVOKED") => Tone::Bad,
        Some("DISCONNECTED" | "EXPIRED") => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// Returns what was gained and what is not proven any more (its source of evidence may have become silent): roles by name, scopes
/// by their number.
fn permissions_change(transition: &Transition) -> String {
    let set = |side: &Option<String>| -> BTreeSet<String> {
        side.iter()
            .flat_map(|names| names.split(' '))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (before, after) = (set(&transition.from), set(&transition.to));
    if transition.initial {
        let initially = humane::permissions("initially", after.iter().map(String::as_str));
        return initially.unwrap_or_else(|| "initially nothing".to_owned());
    }
    let difference = |some: &BTreeSet<String>, others: &BTreeSet<String>| {
        let names: Vec<&str> = some.difference(others).map(String::as_str).collect();
        names.join(" ")
    };
    humane::permissions_change(&difference(&after, &before), &difference(&before, &after)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_permissions_names_roles_and_counts_scopes() {
        for (from, to, expected) in [
            ("", "MODERATOR scope:a scope:b", "gained MODERATOR, 2 scopes"),
            (
                "MODERATOR scope:a",
                "VIP scope:a",
                "gained VIP; no longer proven: MODERATOR",
            ),
            ("scope:a", "", "no longer proven: 1 scope"),
        ] {
            let transition = Transition {
                facet: Facet::Permissions,
                from: Some(from.into()),
                to: Some(to.into()),
                at: Timestamp::EPOCH,
                rule: "permissions.newest-answer".into(),
                stream_id: None,
                initial: false,
            };
            assert_eq!(change(&transition).text, *expected);
        }
    }
}
