//! Access to Discord with one token, with its requests outside probes: the bot's user, its application, the remaining session
//! starts, its guilds.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OnceCell;

use super::answer::ApiError;
use super::facts;
use super::gateway::frames;
use super::guild_list;
use super::limits::Route;
use super::rest::{Call, ME, Response, Rest, plain};
use super::wire::{Application, GatewayBot, Id, ListedGuild, Me};
use crate::core::observation::{Fact, Identity};
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::link_health::LinkHealth;
use crate::platforms::kit::meter::Meter;

/// State of the limit of gateway session starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStarts {
    /// Sessions that we have begun within a day.
    pub ours: usize,
    /// Remaining session starts of all programs with this token, where known.
    pub left: Option<u64>,
    /// The gateway's address.
    pub url: String,
}

/// Access to Discord with one token, with data about it that never changes.
pub(super) struct Connection {
    pub(super) identity: Identity,
    pub(super) rest: Rest,
    pub(super) me: OnceCell<Me>,
    application: OnceCell<Application>,
    /// Results of recent requests for the list of guilds.
    pub(super) link_health: LinkHealth,
    /// Permissions in guilds that a gateway session currently knows exactly.
    pub(super) emitted: Mutex<BTreeMap<u64, Vec<Fact>>>,
}

impl Connection {
    /// Prepares requests as `identity`.
    pub(super) fn new(identity: Identity, rest: Rest) -> Self {
        Self {
            identity,
            rest,
            me: OnceCell::new(),
            application: OnceCell::new(),
            link_health: LinkHealth::default(),
            emitted: Mutex::default(),
        }
    }

    pub(super) fn uses(&self, token: &SecretString) -> bool {
        self.rest.token.expose_secret() == token.expose_secret()
    }

    /// Returns the application's id, which is requested once.
    pub(super) async fn application(&self, meter: &Meter<'_>) -> Result<Id, ApiError> {
        let ask = async || {
            let emitted: Result<Response<Application>, _> =
                self.rest.get(meter, plain("applications/@me")).await;
            emitted.map(|emitted| emitted.value)
        };
        Ok(self.application.get_or_try_init(ask).await?.id)
    }

    /// Requests the user that the token belongs to.
    pub(super) async fn whoami(&self) -> Result<Me, PlatformError> {
        let me: Response<Me> = self
            .rest
            .get(&Meter::silent(), ME)
            .await
            .map_err(|error| facts::port_error(error, "the bot's own user"))?;
        Ok(me.value)
    }

    /// Requests the state of the limit of session starts; begins no session.
    pub(super) async fn session_starts(&self, now: Timestamp) -> Result<SessionStarts, PlatformError> {
        let refused = |error| facts::port_error(error, "the gateway's session limit");
        let meter = Meter::silent();
        let me: Response<Me> = self.rest.get(&meter, ME).await.map_err(refused)?;
        let bot: Response<GatewayBot> = self
            .rest
            .get(&meter, plain("gateway/bot"))
            .await
            .map_err(refused)?;
        let limit = bot.value.session_start_limit;
        Ok(SessionStarts {
            ours: self.rest.memory.identifies(&me.value.id.to_string(), now),
            left: limit.map(|limit| limit.remaining),
            url: frames::address(&bot.value.url),
        })
    }

    /// Returns the ids of guilds by name; a name that two guilds share maps to neither.
    pub(super) async fn guilds_by_name(&self) -> Result<BTreeMap<String, Option<u64>>, PlatformError> {
        let mut names: BTreeMap<String, Option<u64>> = BTreeMap::new();
        let mut after = 0;
        loop {
            let path = format!("users/@me/guilds?limit={}&after={after}", guild_list::PAGE);
            let call = Call {
                route: Route {
                    template: "users/@me/guilds",
                    top: None,
                },
                path: &path,
            };
            let page: Response<Vec<ListedGuild>> = self
                .rest
                .get(&Meter::silent(), call)
                .await
                .map_err(|error| facts::port_error(error, "the list of guilds"))?;
            for guild in &page.value {
                if let Some(name) = &guild.name {
                    names
                        .entry(name.to_lowercase())
                        .and_modify(|known| *known = known.filter(|id| *id == guild.id.0))
                        .or_insert(Some(guild.id.0));
                }
            }
            let last = page.value.iter().map(|guild| guild.id.0).max().unwrap_or(0);
            if page.value.len() < guild_list::PAGE || last <= after {
                return Ok(names);
            }
            after = last;
        }
    }
}
