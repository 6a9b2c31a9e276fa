//! The commands below `/__sim/kick/`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::KickChatSpec;
use super::handle::KickSim;
use super::tokens::KickTokenSpec;
use super::world::{KickChannelSpec, KickKnobs, KickStreamSpec};
use crate::sim::kit::commands::{Change, Of};
use crate::sim::kit::failure::Failure;

/// A command; `docs/simulator.md` describes each.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Channel(KickChannelSpec),
    StreamUp(Of<u64, KickStreamSpec>),
    StreamDown {
        id: u64,
        lag_ms: Option<i64>,
        #[serde(default)]
        silent: bool,
    },
    Viewers {
        id: u64,
        viewers: u64,
    },
    Blip {
        id: u64,
        answers: u32,
    },
    App {
        client_id: String,
        client_secret: String,
    },
    Token(KickTokenSpec),
    TokenExpire {
        token: String,
    },
    TokenRevoke {
        token: String,
    },
    Disconnect {
        user_id: Option<u64>,
    },
    RefreshAgeOut {
        user_id: u64,
    },
    ScopeShrink {
        user_id: u64,
        scope: String,
    },
    Webhook {
        url: Option<String>,
    },
    Subscribe {
        client_id: String,
        broadcaster_user_id: u64,
        event: String,
    },
    Unsubscribe {
        #[serde(default)]
        event: String,
        broadcaster_user_id: Option<u64>,
    },
    Chat(Of<u64, KickChatSpec>),
    Emit {
        id: u64,
        event: String,
        body: Value,
    },
    RotateKey {},
    Knobs(Change<KickKnobs>),
}

/// Returns what was found, or 404.
fn found<T>(found: Option<T>) -> Result<T, Failure> {
    found.ok_or_else(|| (404, "no such channel, stream or token".to_owned()))
}

impl Command {
    /// Executes the command; returns the body of the response.
    pub(super) fn run(self, kick: &KickSim) -> Result<Value, Failure> {
        match self {
            Self::Channel(spec) => kick.put_channel(spec),
            Self::StreamUp(Of { id, rest }) => {
                return Ok(json!({"started_at": found(kick.go_live_with(id, &rest))?}));
            }
            Self::StreamDown { id, lag_ms, silent } => {
                return Ok(json!({"started_at": found(kick.end_stream_with(id, lag_ms, silent))?}));
            }
            Self::Viewers { id, viewers } => kick.set_viewers(id, viewers),
            Self::Blip { id, answers } => kick.blip(id, answers),
            Self::App {
                client_id,
                client_secret,
            } => kick.add_app(&client_id, &client_secret),
            Self::Token(spec) => return Ok(kick.issue_token(spec).to_json()),
            Self::TokenExpire { token } => found(kick.expire_token(&token).then_some(()))?,
            Self::TokenRevoke { token } => found(kick.revoke_token(&token).then_some(()))?,
            Self::Disconnect { user_id } => kick.disconnect(user_id),
            Self::RefreshAgeOut { user_id } => kick.age_out_refresh(user_id),
            Self::ScopeShrink { user_id, scope } => kick.shrink_scope(user_id, &scope),
            Self::Webhook { url } => kick.set_webhook_url(url.as_deref()),
            Self::Subscribe {
                client_id,
                broadcaster_user_id,
                event,
            } => kick.add_subscription(&client_id, broadcaster_user_id, &event),
            Self::Unsubscribe {
                event,
                broadcaster_user_id,
            } => return Ok(json!({"count": kick.drop_subscriptions(&event, broadcaster_user_id)})),
            Self::Chat(Of { id, rest }) => {
                return Ok(json!({"message_ids": found(kick.chat(id, &rest))?}));
            }
            Self::Emit { id, event, body } => return Ok(json!({"count": kick.emit(&event, id, &body)})),
            Self::RotateKey {} => kick.rotate_key(),
            Self::Knobs(change) => return kick.with_world(|world, _| change.apply(&mut world.knobs)),
        }
        Ok(Value::Null)
    }
}
