//! Asynchronous jobs of the gateway listener: permission to begin a session, opening a socket, a member entry, checking a token.

use std::sync::Arc;
use std::time::Duration;

use super::super::answer::ApiError;
use super::super::connection::Connection;
use super::super::facts;
use super::super::limits::Route;
use super::super::rest::{Call, ME, Response, plain};
use super::super::wire::{GatewayBot, GuildMember, Me};
use super::frames;
use super::machine::Input;
use crate::core::code::Code;
use crate::platforms::kit::meter::Meter;
use crate::websocket;

pub(super) use crate::websocket::Socket;

/// Timeout for opening a socket.
const OPENING: Duration = Duration::from_secs(10);
/// Bounds of the wait before asking again whether a session may be begun (ms).
const ASK_AGAIN: (u64, u64) = (5_000, 3_600_000);
/// Wait after the daily share of Identifies is used up; one becomes free when the oldest is a day old (ms).
pub(super) const SPENT: u64 = 600_000;

/// Result of a job.
pub(super) enum Done {
    Input(Input),
    Opened(Result<Box<Socket>, (Code, String)>),
    Member(u64, Option<GuildMember>),
}

pub(super) async fn open(connection: Arc<Connection>, url: String) -> Done {
    // Boxed because the future is large; only its result is kept.
    let address = frames::address(&url);
    let opening = Box::pin(websocket::open(&address, None, connection.rest.tap()));
    Done::Opened(match tokio::time::timeout(OPENING, opening).await {
        Ok(Ok(socket)) => Ok(Box::new(socket)),
        Ok(Err(error)) => Err((
            error.code,
            format!("the gateway cannot be reached: {}", error.reason),
        )),
        Err(_) => Err((Code::NetworkTimeout, "the gateway does not answer".to_owned())),
    })
}

/// Limits for sending Identifies.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdentifyLimits {
    /// Identifies per day that this program may use.
    pub(super) cap: usize,
    /// Session starts that must remain of Discord's limit.
    pub(super) reserve: u64,
    /// Minimum time between two Identifies.
    pub(super) spacing: Duration,
}

/// Checks whether a session may be begun: by the token, by our own record, and by what Discord reports as remaining.
pub(super) async fn ask(connection: Arc<Connection>, limits: IdentifyLimits) -> Done {
    Done::Input(match permission(&connection, limits).await {
        Ok(url) => Input::Permitted(url),
        Err(ApiError::TokenRefused { .. }) => Input::TokenRejected,
        Err(ApiError::Held { until, reason }) => {
            let now = connection.rest.clock.now();
            let wait = u64::try_from(until.millis_since(now)).unwrap_or(0);
            Input::Denied {
                retry_in: wait.clamp(ASK_AGAIN.0, ASK_AGAIN.1),
                code: Code::DiscordNotSent,
                message: reason,
            }
        }
        Err(error) => Input::AskFailed {
            code: facts::code(&error).unwrap_or(Code::DiscordNotSent),
            message: error.to_string(),
        },
    })
}

async fn permission(connection: &Connection, limits: IdentifyLimits) -> Result<String, ApiError> {
    let rest = &connection.rest;
    let ask = async || {
        let me: Result<Response<Me>, _> = rest.get(&Meter::silent(), ME).await;
        me.map(|me| me.value)
    };
    let me = connection.me.get_or_try_init(ask).await?.id;
    let now = rest.clock.now();
    let used = rest.memory.identifies(&me.to_string(), now);
    if used >= limits.cap {
        return Err(ApiError::Held {
            until: now.plus_millis(i64::try_from(SPENT).unwrap_or(i64::MAX)),
            reason: format!("{used} gateway sessions were begun within a day, as many as we allow ourselves"),
        });
    }
    // Otherwise a process that is restarted repeatedly would spend an Identify on a refusal for starting too soon.
    let last = rest.memory.last_identify(&me.to_string());
    let since = last.map_or(limits.spacing, |last| now.since(last));
    tokio::time::sleep(limits.spacing.saturating_sub(since)).await;
    let response: Response<GatewayBot> = rest.get(&Meter::silent(), plain("gateway/bot")).await?;
    let limit = response.value.session_start_limit;
    if let Some(limit) = limit.filter(|limit| limit.remaining < limits.reserve) {
        let left = limit.remaining;
        let wait = i64::try_from(limit.reset_after).unwrap_or(i64::MAX);
        return Err(ApiError::Held {
            until: now.plus_millis(wait),
            reason: format!("only {left} session starts are left today; they are left to the bot itself"),
        });
    }
    Ok(response.value.url)
}

/// Checks whether a token that the gateway refused is really invalid.
pub(super) async fn confirm(connection: Arc<Connection>) -> Done {
    let response: Result<Response<Me>, _> = connection.rest.get(&Meter::silent(), ME).await;
    Done::Input(match response {
        Ok(_) => Input::TokenWorks,
        Err(error) => {
            if !matches!(error, ApiError::TokenRefused { .. }) {
                // The gateway's refusal alone is as definite as a 401.
                connection.rest.remember_refusal(connection.rest.clock.now());
            }
            Input::TokenRejected
        }
    })
}

/// Requests the bot's own member entry of a guild.
pub(super) async fn member(connection: Arc<Connection>, guild: u64, me: u64) -> Done {
    let path = format!("guilds/{guild}/members/{me}");
    let route = Route {
        template: "guilds/{}/members/{}",
        top: Some(guild),
    };
    let call = Call { route, path: &path };
    let response: Result<Response<GuildMember>, _> = connection.rest.get(&Meter::silent(), call).await;
    Done::Member(guild, response.ok().map(|response| response.value))
}
