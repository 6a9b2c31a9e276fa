//! Invitations of other people: `auth invite`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::app::invites::{Invite, Outcome};
use crate::cli::output::Listed;
use crate::cli::output::view::{Block, Cell, Glyph, Tone, View};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;

/// One invitation as JSON shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InviteItem {
    /// The platform.
    pub platform: PlatformName,
    /// The state of the invitation.
    pub state: InviteState,
    /// The link to send, only when it is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The name of who was invited or has consented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The id of who was invited or has consented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// When it was created.
    #[schemars(with = "String")]
    pub created_at: Timestamp,
    /// Until when the link is valid.
    #[schemars(with = "String")]
    pub expires_at: Timestamp,
    /// When it was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub used_at: Option<Timestamp>,
    /// Whether the token is stored; without it only the consent is recorded.
    pub kept: bool,
    /// Why it was refused, or why the last use of a link that is still valid failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The state of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InviteState {
    /// The link can be used.
    Waiting,
    /// The owner of the channel has consented.
    Consented,
    /// The link was used, and nothing was stored.
    Refused,
    /// The link was not used in time.
    Expired,
}

impl InviteItem {
    pub fn new(invite: &Invite, now: Timestamp) -> Self {
        let mut item = Self {
            platform: invite.platform,
            state: if invite.is_waiting(now) {
                InviteState::Waiting
            } else {
                InviteState::Expired
            },
            link: None,
            login: invite.expected.as_ref().and_then(|person| person.login.clone()),
            user_id: invite.expected.as_ref().and_then(|person| person.id.clone()),
            scopes: invite.scopes.clone(),
            created_at: invite.created_at,
            expires_at: invite.expires_at,
            used_at: None,
            kept: false,
            reason: None,
        };
        match &invite.outcome {
            Some(Outcome::Consented { at, person, kept }) => {
                item.state = InviteState::Consented;
                (item.login, item.user_id) = (person.login.clone(), person.id.clone());
                (item.used_at, item.kept) = (Some(*at), *kept);
            }
            Some(Outcome::Refused { at, reason }) => {
                item.state = InviteState::Refused;
                (item.used_at, item.reason) = (Some(*at), Some(reason.clone()));
            }
            None if invite.state_hash.is_none() => {
                item.state = InviteState::Refused;
                item.reason = Some("receiving it was interrupted; send a new link".to_owned());
            }
            None => {
                let failed =
                    |why: &String| format!("the last use failed, and the link is still valid: {why}");
                let is_waiting = item.state == InviteState::Waiting;
                item.reason = invite.last_failure.as_ref().filter(|_| is_waiting).map(failed);
            }
        }
        item
    }

    fn who(&self) -> String {
        match (&self.login, &self.user_id) {
            (Some(login), Some(id)) => format!("{login} ({id})"),
            (Some(name), None) | (None, Some(name)) => name.clone(),
            (None, None) => "any account".to_owned(),
        }
    }
}

impl Listed for InviteItem {
    const KIND: &'static str = "InviteList";
    const CSV: &'static [&'static str] = &[
        "platform",
        "state",
        "login",
        "userId",
        "scopes",
        "createdAt",
        "expiresAt",
        "usedAt",
        "kept",
        "reason",
        "link",
    ];

    fn name(&self) -> String {
        self.link
            .clone()
            .unwrap_or_else(|| format!("{}:{}", self.platform, self.who()))
    }

    fn view(items: &[Self]) -> View {
        let line = |item: &Self| {
            if let Some(link) = &item.link {
                return Block::Line(vec![Cell::new(link)]);
            }
            let (glyph, tone, state) = match item.state {
                InviteState::Waiting => (
                    Glyph::Nothing,
                    Tone::Plain,
                    format!("waits until {}", item.expires_at),
                ),
                InviteState::Consented if item.kept => (
                    Glyph::Good,
                    Tone::Good,
                    "consented; the token is stored".to_owned(),
                ),
                InviteState::Consented => (Glyph::Good, Tone::Good, "consented".to_owned()),
                InviteState::Refused => (Glyph::Bad, Tone::Bad, "refused".to_owned()),
                InviteState::Expired => (Glyph::Nothing, Tone::Dim, "expired".to_owned()),
            };
            let mut cells = vec![
                Cell::new(format!("{} {}", item.platform, item.who()))
                    .glyph(glyph)
                    .tone(tone),
                Cell::new(format!("{state}: {}", item.scopes.join(" "))),
            ];
            if let Some(reason) = &item.reason {
                cells.push(Cell::new(reason).tone(Tone::Dim));
            }
            Block::Line(cells)
        };
        View {
            blocks: items.iter().map(line).collect(),
        }
    }
}
