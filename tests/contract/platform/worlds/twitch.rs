//! Twitch: sources are channels, the bot's role is moderator.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitbrat::clock::{Chance, Clock};
use bitbrat::core::observation::Identity;
use bitbrat::core::source::PlatformName;
use bitbrat::http::{Http, HttpOptions};
use bitbrat::platforms::Platform;
use bitbrat::platforms::twitch::{self, TwitchOptions, TwitchPlatform};
use bitbrat::secrets;
use bitbrat::sim::twitch::{Role, TokenSpec};
use bitbrat::sim::{Fault, FaultBody, Host, Sim};
use bitbrat::tokens::{MemoryTokenStore, RefreshToken, StoredToken};
use parking_lot::Mutex;
use serde_json::json;

use super::{Concept, PlatformWorld, Request, SOURCES, start_sim, store_token};

const BOT: &str = "900100";
const CLIENT: &str = "app";
const SECRET: &str = "kx7Qd93mPz1vTb5wLr8s";
const SCOPES: [&str; 3] = [
    "user:read:chat",
    "user:write:chat",
    "user:read:moderated_channels",
];

pub struct TwitchWorld {
    sim: Sim,
    store: Arc<MemoryTokenStore>,
    secrets: Mutex<Vec<String>>,
}

impl TwitchWorld {
    async fn log_in_as(&self, identity: &Identity, user_id: &str, scopes: &[&str], refreshable: bool) {
        let pair = self.sim.twitch.issue_token(TokenSpec {
            client_id: CLIENT.to_owned(),
            user_id: Some(user_id.to_owned()),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..TokenSpec::default()
        });
        self.secrets.lock().push(pair.access.clone());
        self.secrets.lock().extend(pair.refresh.clone());
        let now = self.sim.clock.now();
        let token = StoredToken {
            refresh: pair.refresh.filter(|_| refreshable).map(RefreshToken::fresh),
            client_id: Some(CLIENT.to_owned()),
            user_id: Some(user_id.to_owned()),
            scopes: pair.scopes.into_iter().collect(),
            expires_at: Some(now.plus_secs(pair.expires_in)),
            ..StoredToken::unproven(pair.access, now)
        };
        store_token(&self.store, identity, token).await;
    }
}

#[async_trait]
impl PlatformWorld for TwitchWorld {
    const NAME: PlatformName = PlatformName::Twitch;
    const PERMISSION: &'static str = "MODERATOR";

    async fn start() -> Self {
        let sim = start_sim().await;
        sim.twitch.add_client(CLIENT, Some(SECRET));
        sim.twitch.add_channel(BOT, "bitbrat_bot");
        let world = Self {
            sim,
            store: Arc::default(),
            secrets: Mutex::new(vec![SECRET.to_owned()]),
        };
        (0..SOURCES).for_each(|place| world.create(place));
        world.log_in().await;
        world
    }

    fn has(concept: Concept) -> bool {
        match concept {
            Concept::Viewers | Concept::TokenExpiry | Concept::Bans => true,
        }
    }

    fn sim(&self) -> &Sim {
        &self.sim
    }

    fn host(&self) -> &Host {
        self.sim.twitch.host()
    }

    fn adapter(&self, timeout: Duration) -> Box<dyn Platform> {
        let urls = self.sim.twitch.urls();
        let options = TwitchOptions {
            auth_url: urls.auth.parse().unwrap(),
            helix_url: urls.helix.parse().unwrap(),
            client_id: Some(CLIENT.to_owned()),
            client_secret: Some(secrets::secret(SECRET)),
            ..TwitchOptions::default()
        };
        let clock: Arc<dyn Clock> = self.sim.clock.clone();
        let http = HttpOptions {
            timeout,
            ..HttpOptions::default()
        };
        let http = Http::new(http, Arc::clone(&clock));
        let store = self.store.clone();
        Box::new(TwitchPlatform::new(
            options,
            store,
            http,
            clock,
            Chance::seeded(1),
        ))
    }

    fn bot() -> Identity {
        twitch::bot()
    }

    fn secrets(&self) -> Vec<String> {
        self.secrets.lock().clone()
    }

    fn id(place: usize) -> String {
        (900_200 + place).to_string()
    }

    fn name(place: usize) -> String {
        format!("source{place}")
    }

    fn create(&self, place: usize) {
        self.sim.twitch.add_channel(&Self::id(place), &Self::name(place));
    }

    fn remove(&self, place: usize) {
        self.sim.twitch.remove_channel(&Self::id(place));
    }

    fn go_live(&self, place: usize) {
        self.sim.twitch.go_live(&Self::id(place)).unwrap();
    }

    fn end_stream(&self, place: usize) {
        self.sim.twitch.end_stream(&Self::id(place)).unwrap();
    }

    async fn set_role(&self, place: usize, held: bool) {
        let channel = Self::id(place);
        self.sim.twitch.set_role(&channel, BOT, Role::Moderator, held);
    }

    /// Only the broadcaster's token shows who is banned.
    async fn ban(&self, place: usize) {
        let channel = Self::id(place);
        self.log_in_as(
            &twitch::broadcaster(&channel),
            &channel,
            &["moderation:read"],
            true,
        )
        .await;
        self.sim.twitch.set_role(&channel, BOT, Role::Banned, true);
    }

    fn revoke_token(&self) {
        self.sim.twitch.disconnect(BOT);
    }

    async fn expire_token(&self) {
        self.log_in_as(&twitch::bot(), BOT, &SCOPES, false).await;
        self.sim.clock.advance(5 * 3_600_000);
    }

    async fn log_in(&self) {
        self.log_in_as(&twitch::bot(), BOT, &SCOPES, true).await;
    }

    fn fail(&self, request: Request, fault: Fault) {
        let path = match request {
            Request::Api => "/helix",
            Request::Sources => "/helix/users",
            Request::Streams => "/helix/streams",
            Request::Permissions => "/helix/moderation",
            Request::Token => "/oauth2/validate",
        };
        self.host().faults().add(fault.on(path));
    }

    fn rate_limit(seconds: u32) -> Fault {
        let points_left = if seconds > 60 { "5" } else { "0" };
        Fault::status(429)
            .header("Retry-After", &seconds.to_string())
            .header("Ratelimit-Remaining", points_left)
    }

    fn errors_with_status_200() -> Vec<FaultBody> {
        vec![
            FaultBody::Json(
                json!({"data": [], "error": "Internal Server Error", "status": 500, "message": "boom"}),
            ),
            FaultBody::Json(
                json!({"data": [], "error": "Unauthorized", "status": 401, "message": "Invalid OAuth token"}),
            ),
        ]
    }

    fn lists_with_an_odd_row(&self) -> Vec<(Request, FaultBody)> {
        let (here, other) = (Self::id(0), Self::id(1));
        let stream = format!(
            r#"{{"id":40900001,"user_id":{here},"type":"live","title":"half \ud83d","viewer_count":"37","game_name":null}}"#
        );
        let user = format!(r#"{{"id":"{here}","login":null}}"#);
        let list =
            |odd: &str, row: &str| FaultBody::Text(format!(r#"{{"data":[{odd},{row}],"pagination":{{}}}}"#));
        let streams = [
            r#"{"id":null,"user_id":null}"#.to_owned(),
            format!(r#"{{"id":null,"user_id":"{other}","type":"live"}}"#),
            r#"{"id":"1","user_id":""}"#.to_owned(),
            r#"{"id":"1","user_id":"424242","type":"live"}"#.to_owned(),
            "[]".to_owned(),
            "7".to_owned(),
        ];
        let users = [r#"{"id":null}"#, "[]", r#"{"id":"424242"}"#];
        let streams = streams.iter().map(|odd| (Request::Streams, list(odd, &stream)));
        let users = users.iter().map(|odd| (Request::Sources, list(odd, &user)));
        streams.chain(users).collect()
    }
}
