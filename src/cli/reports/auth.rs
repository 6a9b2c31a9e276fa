//! Identities and how they are authorized: `auth`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Block, Cell, Column, Glyph, Grid, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::core::time::Timestamp;
use crate::tokens::{login_command, remedy};

/// Identities and how they are authorized. It never contains a token.
#[derive(Debug, Clone)]
pub struct AuthReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The identities.
    pub items: Vec<IdentityItem>,
    /// What is worth knowing beside them.
    pub notes: Vec<Note>,
}

/// One identity as JSON shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityItem {
    /// Its name, such as `twitch/bot`.
    pub identity: String,
    /// The status of its token.
    pub status: AuthState,
    /// The account's login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The account's user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// When the access token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// How long that is from now, in milliseconds; negative when it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<i64>,
    /// Whether there is a refresh token.
    pub can_renew: bool,
    /// When it was last refreshed; absent if that was not tried yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub refreshed_at: Option<Timestamp>,
    /// How long ago that is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refreshed_ago_ms: Option<i64>,
    /// What it was granted.
    pub scopes: Vec<String>,
    /// Which scopes it should have and lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_scopes: Vec<MissingScope>,
    /// Whether the platform rejects the client id and secret.
    #[serde(skip)]
    pub client_rejected: bool,
    /// The reason, where the status alone is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A scope that an account lacks.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MissingScope {
    /// Its name.
    pub scope: String,
    /// What does not work without it.
    pub without: &'static str,
}

/// The status of an account's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthState {
    /// The platform accepted the token.
    Valid,
    /// The token has ended and could not be renewed.
    Expired,
    /// The grant is gone.
    Revoked,
    /// The platform refuses a token that nothing proves to have ever been valid.
    Rejected,
    /// There is no token.
    Missing,
    /// It was not checked, or the check brought no answer.
    Unknown,
}

impl Report for AuthReport {
    type Item = IdentityItem;
    const KIND: &'static str = "AuthList";
    const CSV: &'static [&'static str] = &[
        "identity",
        "status",
        "login",
        "userId",
        "expiresAt",
        "canRenew",
        "scopes",
        "reason",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<IdentityItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.identity.clone()).collect()
    }

    fn view(&self) -> View {
        if self.items.is_empty() {
            return View::default();
        }
        View {
            blocks: vec![Block::Table(Grid {
                columns: vec![
                    Column::kept("IDENTITY"),
                    Column::kept("STATUS"),
                    Column::ranked("ACCOUNT", 1),
                    Column::ranked("ENDS", 2),
                    Column::ranked("RENEWABLE", 4),
                    Column::ranked("WHY", 3).elastic(16),
                    Column::ranked("SCOPES", 5).wide(),
                ],
                rows: self.items.iter().map(cells).collect(),
                headed: true,
            })],
        }
    }

    fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.items.is_empty() {
            let what = "no identity is stored, and none is needed by the configured sources";
            notes.push(Note::hint(Tone::Warn, what, Some("bitbrat auth login twitch")));
        }
        notes.extend(self.notes.clone());
        for item in &self.items {
            let what = match item.status {
                AuthState::Valid | AuthState::Unknown => {
                    notes.extend(of_scopes(item));
                    continue;
                }
                AuthState::Expired => "has expired and could not be renewed",
                AuthState::Revoked => "was revoked; log in again",
                AuthState::Rejected => "is rejected; the token may be mistyped, expired or revoked",
                AuthState::Missing => "has no token",
            };
            let next = remedy(&item.identity, item.client_rejected);
            notes.push(Note::hint(
                Tone::Bad,
                format!("{} {what}", item.identity),
                Some(&next),
            ));
        }
        notes
    }
}

/// Returns what an account cannot do for lack of scopes. A new login requests all of them again.
fn of_scopes(item: &IdentityItem) -> Option<Note> {
    let lacks = |missing: &MissingScope| format!("{} ({})", missing.scope, missing.without);
    let lacks: Vec<String> = item.missing_scopes.iter().map(lacks).collect();
    let what = format!("{} lacks {}", item.identity, lacks.join("; "));
    let next = login_command(&item.identity);
    (!lacks.is_empty()).then(|| Note::hint(Tone::Warn, what, Some(&next)))
}

/// Whether the token can be refreshed: only a refresh that has worked shows that the client secret is right.
fn renewable(item: &IdentityItem) -> Cell {
    match item.refreshed_ago_ms {
        _ if !item.can_renew => Cell::none(),
        Some(ago) => {
            let ago = humane::age(ago.unsigned_abs());
            Cell::new(format!("yes (last refresh {ago} ago)"))
        }
        None => Cell::new("not tried yet"),
    }
}

fn cells(item: &IdentityItem) -> Vec<Cell> {
    let status = match item.status {
        AuthState::Valid => Cell::new("VALID").glyph(Glyph::Good).tone(Tone::Good),
        AuthState::Expired => Cell::new("EXPIRED").glyph(Glyph::Warn).tone(Tone::Warn),
        AuthState::Revoked => Cell::new("REVOKED").glyph(Glyph::Bad).tone(Tone::Bad),
        AuthState::Rejected => Cell::new("REJECTED").glyph(Glyph::Bad).tone(Tone::Bad),
        AuthState::Missing => Cell::new("MISSING").glyph(Glyph::Bad).tone(Tone::Bad),
        AuthState::Unknown => Cell::new("unknown").glyph(Glyph::Unknown).tone(Tone::Dim),
    };
    let account = match (&item.login, &item.user_id) {
        (Some(login), Some(id)) => Cell::new(format!("{login} ({id})")),
        (Some(one), None) | (None, Some(one)) => Cell::new(one),
        (None, None) => Cell::none(),
    };
    let ends = match item.expires_in_ms {
        Some(left) if left > 0 => Cell::new(format!("in {}", humane::span(left.unsigned_abs()))),
        Some(past) => Cell::new(format!("{} ago", humane::age(past.unsigned_abs()))).tone(Tone::Warn),
        None => Cell::none(),
    };
    vec![
        Cell::new(&item.identity).tone(Tone::Strong),
        status,
        account,
        ends,
        renewable(item),
        Cell::maybe(item.reason.as_deref()).tone(Tone::Dim),
        Cell::new(item.scopes.join(" ")).tone(Tone::Dim),
    ]
}
