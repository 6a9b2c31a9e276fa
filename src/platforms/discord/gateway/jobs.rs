//! What the gateway listener asks for and waits for: permission to begin a session, a socket, a member, a token's fate.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::super::answer::ApiError;
use super::super::connection::Connection;
use super::super::facts;
use super::super::limits::Route;
use super::super::rest::{Call, Tally, Told};
use super::super::wire::{GatewayBot, GuildMember, Me};
use super::frames;
use super::machine::Input;

/// A socket to the gateway.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long opening a socket may take.
const OPENING: Duration = Duration::from_secs(10);
/// Bounds of the wait before a session is asked for again that must not be begun yet (ms).
const ASK_AGAIN: (u64, u64) = (5_000, 3_600_000);
/// How long to leave it after a spent share of Identifies; one becomes free when the oldest is a day old (ms).
pub(super) const SPENT: u64 = 600_000;

/// What a job has brought.
pub(super) enum Done {
    Input(Input),
    Opened(Result<Box<Socket>, String>),
    Member(u64, Option<GuildMember>),
}

/// Opens a socket.
pub(super) async fn open(url: String) -> Done {
    // The future is large, and only its result stays.
    let opening = Box::pin(connect_async(frames::address(&url)));
    Done::Opened(match tokio::time::timeout(OPENING, opening).await {
        Ok(Ok((socket, _))) => Ok(Box::new(socket)),
        Ok(Err(error)) => Err(format!("the gateway cannot be reached: {error}")),
        Err(_) => Err("the gateway does not answer".to_owned()),
    })
}

const ME: Call<'static> = Call {
    route: Route {
        template: "users/@me",
        top: None,
    },
    path: "users/@me",
};

/// How Identifies are rationed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ration {
    /// So many a day are ours.
    pub(super) cap: usize,
    /// So many of Discord's must be left.
    pub(super) reserve: u64,
    /// So long they lie apart.
    pub(super) spacing: Duration,
}

/// Finds out whether a session may be begun: by the token, by our own record, and by what Discord says is left.
pub(super) async fn ask(connection: Arc<Connection>, ration: Ration) -> Done {
    Done::Input(match permission(&connection, ration).await {
        Ok(url) => Input::Permitted(url),
        Err(ApiError::TokenRefused { .. }) => Input::TokenDead,
        Err(ApiError::Held { until, reason }) => {
            let now = connection.rest.clock().now();
            let wait = u64::try_from(until.millis_since(now)).unwrap_or(0);
            Input::Denied {
                retry_in: wait.clamp(ASK_AGAIN.0, ASK_AGAIN.1),
                code: "discord.held".to_owned(),
                message: reason,
            }
        }
        Err(error) => Input::AskFailed {
            code: facts::code(&error).unwrap_or("discord.held").to_owned(),
            message: error.to_string(),
        },
    })
}

async fn permission(connection: &Connection, ration: Ration) -> Result<String, ApiError> {
    let rest = &connection.rest;
    let ask = async || {
        let me: Result<Told<Me>, _> = rest.get(&Tally::default(), ME).await;
        me.map(|me| me.value)
    };
    let me = connection.me.get_or_try_init(ask).await?.id;
    let now = rest.clock().now();
    let used = rest.memory().identifies(&me.to_string(), now);
    if used >= ration.cap {
        return Err(ApiError::Held {
            until: now.plus_millis(i64::try_from(SPENT).unwrap_or(i64::MAX)),
            reason: format!("{used} gateway sessions were begun within a day, as many as we allow ourselves"),
        });
    }
    // A process that is started again and again would else spend an Identify on being refused for its haste.
    let last = rest.memory().last_identify(&me.to_string());
    let since = last.map_or(ration.spacing, |last| now.since(last));
    tokio::time::sleep(ration.spacing.saturating_sub(since)).await;
    let call = Call {
        route: Route {
            template: "gateway/bot",
            top: None,
        },
        path: "gateway/bot",
    };
    let told: Told<GatewayBot> = rest.get(&Tally::default(), call).await?;
    let limit = told.value.session_start_limit;
    if let Some(limit) = limit.filter(|limit| limit.remaining < ration.reserve) {
        let left = limit.remaining;
        let wait = i64::try_from(limit.reset_after).unwrap_or(i64::MAX);
        return Err(ApiError::Held {
            until: now.plus_millis(wait),
            reason: format!("only {left} session starts are left today; they are left to the bot itself"),
        });
    }
    Ok(told.value.url)
}

/// Finds out whether a token that the gateway refused is dead.
pub(super) async fn confirm(connection: Arc<Connection>) -> Done {
    let told: Result<Told<Me>, _> = connection.rest.get(&Tally::default(), ME).await;
    Done::Input(match told {
        Ok(_) => Input::TokenWorks,
        Err(error) => {
            if !matches!(error, ApiError::TokenRefused { .. }) {
                // The gateway's word alone is as definite as a 401.
                connection.rest.refused_by_gateway(connection.rest.clock().now());
            }
            Input::TokenDead
        }
    })
}

/// Asks for the bot's own member entry of a guild.
pub(super) async fn member(connection: Arc<Connection>, guild: u64, me: u64) -> Done {
    let path = format!("guilds/{guild}/members/{me}");
    let route = Route {
        template: "guilds/{}/members/{}",
        top: Some(guild),
    };
    let call = Call { route, path: &path };
    let told: Result<Told<GuildMember>, _> = connection.rest.get(&Tally::default(), call).await;
    Done::Member(guild, told.ok().map(|told| told.value))
}
