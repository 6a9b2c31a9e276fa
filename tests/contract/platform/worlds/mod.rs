//! The worlds of the suite: a simulated platform, a bot that has logged in there, and what can happen to both.
//!
//! A new platform implements [`PlatformWorld`] and is added to the list in `tests/contract/platform/mod.rs`.

mod discord;
mod kick;
mod twitch;

use std::time::Duration;

use async_trait::async_trait;
use bitbrat::clock::ManualClock;
use bitbrat::core::observation::Identity;
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::platforms::Platform;
use bitbrat::sim::{Fault, FaultBody, Host, Sim, SimOptions};
use bitbrat::tokens::{MemoryTokenStore, StoredToken, TokenStoreExt as _};

pub use discord::DiscordWorld;
pub use kick::KickWorld;
pub use twitch::TwitchWorld;

/// Number of sources that exist at the start. Each is called by its place; later places do not exist.
pub const SOURCES: usize = 3;

/// Something that not every platform has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concept {
    /// The number of viewers of a stream.
    Viewers,
    /// Tokens that expire by themselves.
    TokenExpiry,
    /// A way to find out that the bot is banned.
    Bans,
}

/// A kind of request, as far as all platforms have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Every request to the API; requests about tokens are included only where the API answers them.
    Api,
    /// The list that shows which sources exist.
    Sources,
    /// The list that shows which sources are live.
    Streams,
    /// The request that determines the bot's permissions.
    Permissions,
    /// The request that checks the bot's token.
    Token,
}

/// A platform on loopback with [`SOURCES`] sources, none of them live, and a bot with a valid token.
#[async_trait]
pub trait PlatformWorld: Sized + Send + Sync {
    /// The platform.
    const NAME: PlatformName;
    /// A permission that [`PlatformWorld::set_role`] grants and takes.
    const PERMISSION: &'static str;

    /// Starts the platform at a fixed time, which moves only when the clock is advanced.
    async fn start() -> Self;

    /// Returns whether the platform has `concept`. If not, the situations state what holds instead.
    fn has(concept: Concept) -> bool;

    fn sim(&self) -> &Sim;

    /// Returns faults and journal of the platform.
    fn host(&self) -> &Host;

    /// Returns the adapter as another process would create it. `timeout` is how long it waits for a response.
    fn adapter(&self, timeout: Duration) -> Box<dyn Platform>;

    /// Returns the bot's account.
    fn bot() -> Identity;

    /// Returns the secrets that the adapter uses now.
    fn secrets(&self) -> Vec<String>;

    /// Returns the id of the source at `place`; ids ascend with places.
    fn id(place: usize) -> String;

    /// Returns the name by which people call the source at `place`.
    fn name(place: usize) -> String;

    /// Adds the source at `place`, or brings it back.
    fn create(&self, place: usize);

    /// Removes the source at `place`: deleted, suspended, or left by the bot.
    fn remove(&self, place: usize);

    fn go_live(&self, place: usize);

    fn end_stream(&self, place: usize);

    /// Gives the bot [`PlatformWorld::PERMISSION`] at `place`, or takes it.
    async fn set_role(&self, place: usize, held: bool);

    /// Bans the bot at `place`.
    async fn ban(&self, place: usize);

    /// Revokes the bot's token, without notice.
    fn revoke_token(&self);

    /// Replaces the bot's token by one that cannot be refreshed, and advances the clock until it has expired. Only with
    /// [`Concept::TokenExpiry`].
    async fn expire_token(&self);

    /// Logs the bot in again: the adapter finds another token in its store.
    async fn log_in(&self);

    /// Makes requests of this kind fail until [`PlatformWorld::heal`].
    fn fail(&self, request: Request, fault: Fault);

    /// Returns a rate limit in the platform's own format. One of more than a minute applies to a single endpoint, so that no
    /// adapter waits for it.
    fn rate_limit(seconds: u32) -> Fault;

    /// Returns errors that the platform reports with the status of a success.
    fn errors_with_status_200() -> Vec<FaultBody>;

    /// Returns answers that contain the source at place 0, live if the list is that of streams, not the one at place 1, and a
    /// row that may be about anything.
    fn lists_with_an_odd_row(&self) -> Vec<(Request, FaultBody)>;

    /// Ends all faults.
    fn heal(&self) {
        self.host().faults().clear();
    }

    /// Returns how many requests the faults have affected.
    fn failed_requests(&self) -> u64 {
        let faults = self.host().faults().to_json();
        let faults = faults["faults"].as_array().unwrap();
        faults.iter().filter_map(|fault| fault["harmed"].as_u64()).sum()
    }

    fn key(place: usize) -> SourceKey {
        SourceKey::new(Self::NAME, &Self::id(place)).unwrap()
    }
}

/// Starts the platforms at a fixed time.
async fn start_sim() -> Sim {
    let clock = ManualClock::at("2026-05-01T18:00:00Z".parse().unwrap());
    let options = SimOptions {
        clock,
        ..SimOptions::default()
    };
    Sim::start(options).await.unwrap()
}

/// Stores a token as a login does.
async fn store_token(store: &MemoryTokenStore, identity: &Identity, token: StoredToken) {
    store.set_token(identity, Some(token)).await.unwrap();
}
