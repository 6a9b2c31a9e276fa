//! Discord: sources are guilds, an active scheduled event is the stream, and the bot's role is a role of the guild.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitbrat::clock::{Chance, Clock};
use bitbrat::core::observation::Identity;
use bitbrat::core::source::PlatformName;
use bitbrat::platforms::Platform;
use bitbrat::platforms::discord::{self, DiscordOptions, DiscordPlatform, StreamFrom};
use bitbrat::sim::discord::GuildSpec;
use bitbrat::sim::{Fault, FaultBody, Host, Sim};
use bitbrat::tokens::{MemoryTokenStore, StoredToken};
use parking_lot::Mutex;
use serde_json::json;

use super::{Concept, PlatformWorld, Request, SOURCES, start_sim, store_token};

const BOT: u64 = 4001;
const TOKEN: &str = "MTIz.secret-part.rest";
/// The role that grants [`DiscordWorld::PERMISSION`].
const ROLE: u64 = 9_900;
const KICK_MEMBERS: u64 = 1 << 1;
/// Places that faults of single guilds cover.
const PLACES: usize = 20;

pub struct DiscordWorld {
    sim: Sim,
    store: Arc<MemoryTokenStore>,
    secrets: Mutex<Vec<String>>,
    state: tempfile::TempDir,
}

fn id(place: usize) -> u64 {
    9_001 + u64::try_from(place).unwrap()
}

/// Returns the id of the event that is the stream of a guild.
fn event(place: usize) -> u64 {
    50_000 + id(place)
}

#[async_trait]
impl PlatformWorld for DiscordWorld {
    const NAME: PlatformName = PlatformName::Discord;
    const PERMISSION: &'static str = "KICK_MEMBERS";

    async fn start() -> Self {
        let sim = start_sim().await;
        sim.discord.add_bot(BOT, "bitbrat", TOKEN, 0);
        // They are refilled with time, which stands still.
        sim.discord.knobs(|knobs| {
            knobs.global_per_second = usize::MAX;
            knobs.bucket = u32::MAX;
        });
        let store = Arc::new(MemoryTokenStore::default());
        let token = StoredToken::unproven(TOKEN.to_owned(), sim.clock.now());
        store_token(&store, &discord::bot(), token).await;
        let world = Self {
            sim,
            store,
            secrets: Mutex::new(vec![TOKEN.to_owned()]),
            state: tempfile::tempdir().unwrap(),
        };
        (0..SOURCES).for_each(|place| world.create(place));
        world
    }

    fn has(concept: Concept) -> bool {
        match concept {
            Concept::Viewers | Concept::TokenExpiry => false,
            // A ban removes the bot from the guild.
            Concept::Bans => true,
        }
    }

    fn sim(&self) -> &Sim {
        &self.sim
    }

    fn host(&self) -> &Host {
        self.sim.discord.host()
    }

    fn adapter(&self, timeout: Duration) -> Box<dyn Platform> {
        let options = DiscordOptions {
            api_url: self.sim.discord.api_url(),
            stream_from: Some(StreamFrom::Event),
            state_dir: Some(self.state.path().to_owned()),
            timeout,
            requests_per_second: 1_000,
            ..DiscordOptions::default()
        };
        let clock: Arc<dyn Clock> = self.sim.clock.clone();
        let platform = DiscordPlatform::new(options, clock, Chance::seeded(1)).unwrap();
        Box::new(platform.following(self.store.clone()))
    }

    fn bot() -> Identity {
        discord::bot()
    }

    fn secrets(&self) -> Vec<String> {
        self.secrets.lock().clone()
    }

    fn id(place: usize) -> String {
        id(place).to_string()
    }

    fn name(place: usize) -> String {
        format!("Source {place}")
    }

    fn create(&self, place: usize) {
        self.sim.discord.put_guild(&GuildSpec {
            id: id(place),
            name: Some(Self::name(place)),
            ..GuildSpec::default()
        });
    }

    fn remove(&self, place: usize) {
        self.sim.discord.remove_guild(id(place));
    }

    fn go_live(&self, place: usize) {
        self.sim.discord.set_event(id(place), event(place), 2);
    }

    fn end_stream(&self, place: usize) {
        self.sim.discord.set_event(id(place), event(place), 3);
    }

    async fn set_role(&self, place: usize, held: bool) {
        self.sim
            .discord
            .put_role(id(place), ROLE, KICK_MEMBERS, Some(held));
    }

    async fn ban(&self, place: usize) {
        self.remove(place);
    }

    fn revoke_token(&self) {
        let token = self.sim.discord.reset_token(BOT, false).unwrap();
        self.secrets.lock().push(token);
    }

    async fn expire_token(&self) {
        unreachable!("tokens of bots do not expire");
    }

    async fn log_in(&self) {
        let token = self.sim.discord.reset_token(BOT, false).unwrap();
        self.secrets.lock().push(token.clone());
        let token = StoredToken::unproven(token, self.sim.clock.now());
        store_token(&self.store, &discord::bot(), token).await;
    }

    fn fail(&self, request: Request, fault: Fault) {
        const LIST: &str = "/api/v10/users/@me/guilds";
        let of_guilds = |resource: &str| -> Vec<String> {
            let guilds = (0..PLACES).map(id);
            guilds
                .map(|guild| format!("/api/v10/guilds/{guild}/{resource}"))
                .collect()
        };
        let faults = self.host().faults();
        let paths = match request {
            Request::Api => vec!["/api".to_owned()],
            Request::Sources => vec![LIST.to_owned()],
            Request::Streams => of_guilds("scheduled-events"),
            Request::Permissions => of_guilds("members"),
            Request::Token => {
                // The path of the list begins with that of the token's user; the list is answered as usual.
                faults.add(Fault::default().on(LIST));
                vec!["/api/v10/users/@me".to_owned()]
            }
        };
        for path in paths {
            faults.add(fault.clone().on(&path));
        }
    }

    fn rate_limit(seconds: u32) -> Fault {
        let body = json!({"message": "You are being rate limited.", "retry_after": f64::from(seconds), "global": false});
        Fault::status(429)
            .with_body(FaultBody::Json(body))
            .header("retry-after", &seconds.to_string())
            .header("x-ratelimit-scope", "user")
            .header("x-ratelimit-bucket", "feedfacefeedface")
    }

    fn errors_with_status_200() -> Vec<FaultBody> {
        vec![
            FaultBody::Json(json!({"message": "Unknown Guild", "code": 10_004})),
            FaultBody::Json(json!({"message": "401: Unauthorized", "code": 0})),
        ]
    }

    fn lists_with_an_odd_row(&self) -> Vec<(Request, FaultBody)> {
        let here = format!(r#"{{"id":{},"name":"half \ud83d","permissions":3148864}}"#, id(0));
        let rows = [r#"{"id":null,"name":"x"}"#, "[]", "7", "null"];
        rows.iter()
            .map(|odd| FaultBody::Text(format!("[{odd},{here}]")))
            .map(|body| (Request::Sources, body))
            .collect()
    }
}
