//! The commands below `/__sim/twitch/`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::eventsub::{
    ChatSpec, ConduitAct, ConduitKnobs, EventSubKnobs, ModerationSpec, Reconnect, SocketAct,
};
use super::handle::{EndSpec, TwitchSim};
use super::members::Role;
use super::tokens::TokenSpec;
use super::world::{ChannelSpec, Knobs, StreamSpec};
use crate::sim::kit::commands::{Change, Of};
use crate::sim::kit::failure::Failure;
use crate::sim::kit::oauth::DeviceState;

/// A command; `docs/simulator.md` describes each.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Channel(ChannelSpec),
    ChannelRemove {
        id: String,
    },
    StreamUp(Of<String, StreamSpec>),
    StreamDown(Of<String, EndSpec>),
    Viewers {
        id: String,
        viewers: u64,
    },
    StreamType {
        id: String,
        r#type: String,
    },
    Flap {
        id: String,
        polls: u32,
    },
    Role {
        id: String,
        user_id: String,
        role: Role,
        held: Option<bool>,
    },
    Client {
        client_id: String,
        client_secret: Option<String>,
    },
    Token(TokenSpec),
    TokenExpire {
        user_id: Option<String>,
        token: Option<String>,
    },
    Disconnect {
        user_id: String,
    },
    Device {
        #[serde(default)]
        code: String,
        state: Decision,
        #[serde(default)]
        user_id: String,
        #[serde(default)]
        message: String,
    },
    Knobs(Change<Knobs>),
    Eventsub(Change<EventSubKnobs>),
    Conduits(Change<ConduitKnobs>),
    ConduitRemove {
        #[serde(default)]
        conduit_id: String,
    },
    Shard {
        #[serde(default)]
        conduit_id: String,
        shard: usize,
        act: ConduitAct,
    },
    AppTokensRevoke {
        client_id: String,
    },
    Release {
        #[serde(default)]
        newest_first: bool,
    },
    Socket {
        #[serde(default)]
        session_id: String,
        act: SocketAct,
    },
    Reconnect {
        #[serde(default)]
        session_id: String,
        #[serde(default)]
        how: Reconnect,
    },
    Revoke {
        #[serde(default)]
        r#type: String,
        #[serde(default)]
        subscription_id: String,
        status: String,
    },
    Chat(Of<String, ChatSpec>),
    Moderate(Of<String, ModerationSpec>),
    Emit {
        r#type: String,
        /// One key of the condition and its value.
        condition: (String, String),
        event: Value,
    },
}

/// What a user does with a device code.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Granted,
    Denied,
    Expired,
}

/// Returns what was found, or 404.
fn found<T>(found: Option<T>) -> Result<T, Failure> {
    found.ok_or_else(|| (404, "no such channel, stream, token or code".to_owned()))
}

fn counted(count: usize) -> Value {
    json!({"count": count})
}

impl Command {
    /// Executes the command; returns the body of the response.
    pub(super) fn run(self, twitch: &TwitchSim) -> Result<Value, Failure> {
        match self {
            Self::Channel(spec) => twitch.put_channel(spec),
            Self::ChannelRemove { id } => found(twitch.remove_channel(&id).then_some(()))?,
            Self::StreamUp(Of { id, rest }) => {
                let stream = found(twitch.go_live_with(&id, &rest))?;
                return Ok(json!({"stream_id": stream.id, "started_at": stream.started_at}));
            }
            Self::StreamDown(Of { id, rest }) => {
                let stream = found(twitch.end_stream_with(&id, &rest))?;
                return Ok(json!({"stream_id": stream.id}));
            }
            Self::Viewers { id, viewers } => twitch.set_viewers(&id, viewers),
            Self::StreamType { id, r#type } => twitch.set_stream_type(&id, &r#type),
            Self::Flap { id, polls } => twitch.flap(&id, polls),
            Self::Role {
                id,
                user_id,
                role,
                held,
            } => twitch.set_role(&id, &user_id, role, held.unwrap_or(true)),
            Self::Client {
                client_id,
                client_secret,
            } => twitch.add_client(&client_id, client_secret.as_deref()),
            Self::Token(spec) => return Ok(twitch.issue_token(spec).to_json()),
            Self::TokenExpire { user_id, token } => {
                let by_text = token.is_some_and(|text| twitch.expire_token(&text));
                let by_user = user_id.is_some_and(|user| twitch.expire_tokens_of(&user) > 0);
                found((by_text || by_user).then_some(()))?;
            }
            Self::Disconnect { user_id } => twitch.disconnect(&user_id),
            Self::Device {
                code,
                state,
                user_id,
                message,
            } => {
                let state = match state {
                    Decision::Granted => DeviceState::Granted(user_id),
                    // Twitch does not document its response after a decline; this is its one terminal message.
                    Decision::Denied if message.is_empty() => {
                        DeviceState::Denied("invalid device code".to_owned())
                    }
                    Decision::Denied => DeviceState::Denied(message),
                    Decision::Expired => DeviceState::Expired,
                };
                found((twitch.decide_device(&code, &state) > 0).then_some(()))?;
            }
            Self::Knobs(change) => return twitch.with_world(|world, _| change.apply(&mut world.knobs)),
            Self::Eventsub(change) => {
                return twitch.with_world(|world, _| change.apply(&mut world.eventsub.knobs));
            }
            Self::Conduits(change) => {
                return twitch.with_world(|world, _| change.apply(&mut world.eventsub.conduit_knobs));
            }
            Self::ConduitRemove { conduit_id } => return Ok(counted(twitch.remove_conduits(&conduit_id))),
            Self::Shard {
                conduit_id,
                shard,
                act,
            } => return Ok(counted(twitch.spoil_shard(&conduit_id, shard, act))),
            Self::AppTokensRevoke { client_id } => twitch.revoke_app_tokens(&client_id),
            Self::Release { newest_first } => return Ok(counted(twitch.release(newest_first))),
            Self::Socket { session_id, act } => return Ok(counted(twitch.spoil_sockets(&session_id, &act))),
            Self::Reconnect { session_id, how } => {
                return Ok(counted(twitch.reconnect_sockets(&session_id, &how)));
            }
            Self::Revoke {
                r#type,
                subscription_id,
                status,
            } => {
                return Ok(counted(twitch.revoke_subscriptions(
                    &r#type,
                    &subscription_id,
                    &status,
                )));
            }
            Self::Chat(Of { id, rest }) if rest.every_ms > 0 => twitch.chat_on(&id, rest),
            Self::Chat(Of { id, rest }) => return Ok(json!({"message_ids": twitch.chat(&id, &rest)})),
            Self::Moderate(Of { id, rest }) => {
                let count = twitch.moderate(&id, &rest).map_err(|error| (400, error))?;
                return Ok(counted(count));
            }
            Self::Emit {
                r#type,
                condition: (key, value),
                event,
            } => return Ok(counted(twitch.emit(&r#type, &key, &value, &event))),
        }
        Ok(Value::Null)
    }
}
