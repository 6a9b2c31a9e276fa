//! One token's way to Discord, with what is asked over it beside looks: whose it is, its application, what is left of its
//! gateway sessions, the guilds that it is in.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OnceCell;

use super::answer::ApiError;
use super::facts;
use super::limits::Route;
use super::listing;
use super::rest::{Call, Rest, Tally, Told};
use super::wire::{Application, GatewayBot, Id, ListedGuild, Me};
use crate::core::observation::{Fact, Identity};
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::witnesses::Witnesses;

/// The bot as Discord knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BotUser {
    /// Its user id.
    pub id: String,
    /// Its name, where told.
    pub name: Option<String>,
}

/// How the budget of gateway sessions stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStarts {
    /// Sessions that we have begun within a day.
    pub ours: usize,
    /// Sessions that anybody may still begin, where told.
    pub left: Option<u64>,
}

/// One token's way to Discord, with what never changes about it.
pub(super) struct Connection {
    pub(super) identity: Identity,
    pub(super) rest: Rest,
    pub(super) me: OnceCell<Me>,
    application: OnceCell<Application>,
    /// What the list of guilds said last.
    pub(super) witnesses: Witnesses,
    /// What a gateway session knows exactly at this moment of the permissions in guilds.
    told: Mutex<BTreeMap<u64, Vec<Fact>>>,
}

impl Connection {
    /// Prepares to ask as `identity`.
    pub(super) fn new(identity: Identity, rest: Rest) -> Self {
        Self {
            identity,
            rest,
            me: OnceCell::new(),
            application: OnceCell::new(),
            witnesses: Witnesses::default(),
            told: Mutex::default(),
        }
    }

    /// Whether `token` is the one that it asks with.
    pub(super) fn uses(&self, token: &SecretString) -> bool {
        self.rest.token().expose_secret() == token.expose_secret()
    }

    /// What a gateway session knows exactly at this moment of the permissions in guilds.
    pub(super) fn told(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<Fact>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the application's id, asking once.
    pub(super) async fn application(&self, tally: &Tally) -> Result<Id, ApiError> {
        let ask = async || {
            let told: Result<Told<Application>, _> = self.rest.get(tally, plain("applications/@me")).await;
            told.map(|told| told.value)
        };
        Ok(self.application.get_or_try_init(ask).await?.id)
    }

    /// Asks whose the token is.
    pub(super) async fn whoami(&self) -> Result<BotUser, PlatformError> {
        let me: Told<Me> = self
            .rest
            .get(&Tally::default(), plain("users/@me"))
            .await
            .map_err(|error| facts::port_error(error, "the bot's own user"))?;
        Ok(BotUser {
            id: me.value.id.to_string(),
            name: me.value.username,
        })
    }

    /// Asks how the budget of gateway sessions stands; begins none.
    pub(super) async fn session_starts(&self, now: Timestamp) -> Result<SessionStarts, PlatformError> {
        let refused = |error| facts::port_error(error, "the gateway's budget");
        let tally = Tally::default();
        let me: Told<Me> = self.rest.get(&tally, plain("users/@me")).await.map_err(refused)?;
        let bot: Told<GatewayBot> = self
            .rest
            .get(&tally, plain("gateway/bot"))
            .await
            .map_err(refused)?;
        let limit = bot.value.session_start_limit;
        Ok(SessionStarts {
            ours: self.rest.memory().identifies(&me.value.id.to_string(), now),
            left: limit.map(|limit| limit.remaining),
        })
    }

    /// Returns the ids of guilds by name; a name that two guilds share belongs to neither.
    pub(super) async fn guilds_by_name(&self) -> Result<BTreeMap<String, Option<u64>>, PlatformError> {
        let mut names: BTreeMap<String, Option<u64>> = BTreeMap::new();
        let mut after = 0;
        loop {
            let path = format!("users/@me/guilds?limit={}&after={after}", listing::PAGE);
            let call = Call {
                route: Route {
                    template: "users/@me/guilds",
                    top: None,
                },
                path: &path,
            };
            let page: Told<Vec<ListedGuild>> = self
                .rest
                .get(&Tally::default(), call)
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
            if page.value.len() < listing::PAGE || last <= after {
                return Ok(names);
            }
            after = last;
        }
    }
}

/// A call to a path without ids, which is its own route.
fn plain(path: &'static str) -> Call<'static> {
    Call {
        route: Route {
            template: path,
            top: None,
        },
        path,
    }
}
