//! Kick: sources are channels. Kick shows no roles, so the bot's role is a scope.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitbrat::clock::{Chance, Clock};
use bitbrat::core::observation::Identity;
use bitbrat::core::source::PlatformName;
use bitbrat::http::{Http, HttpOptions};
use bitbrat::platforms::Platform;
use bitbrat::platforms::kick::{self, KickOptions, KickPlatform};
use bitbrat::secrets;
use bitbrat::sim::kick::KickTokenSpec;
use bitbrat::sim::{Fault, FaultBody, Host, Sim};
use bitbrat::tokens::{MemoryTokenStore, RefreshToken, StoredToken};
use parking_lot::Mutex;
use serde_json::json;

use super::{Concept, PlatformWorld, Request, SOURCES, start_sim, store_token};

const BOT: u64 = 880_100;
const SECRET: &str = "kx7Qd93mPz1vTb5wLr8s";
const SCOPES: [&str; 3] = ["user:read", "channel:read", "chat:write"];
/// The scope that stands for a role.
const ROLE: &str = "moderation:ban";

pub struct KickWorld {
    sim: Sim,
    store: Arc<MemoryTokenStore>,
    secrets: Mutex<Vec<String>>,
}

fn id(place: usize) -> u64 {
    880_200 + u64::try_from(place).unwrap()
}

impl KickWorld {
    async fn log_in_with(&self, scopes: &[&str], refreshable: bool) {
        let tokens = self.sim.kick.issue_token(KickTokenSpec {
            client_id: "app".to_owned(),
            user_id: Some(BOT),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..KickTokenSpec::default()
        });
        self.secrets.lock().push(tokens.access.clone());
        self.secrets.lock().extend(tokens.refresh.clone());
        let now = self.sim.clock.now();
        let token = StoredToken {
            refresh: tokens.refresh.filter(|_| refreshable).map(RefreshToken::fresh),
            scopes: tokens.scopes.into_iter().collect(),
            expires_at: Some(now.plus_secs(tokens.expires_in)),
            ..StoredToken::unproven(tokens.access, now)
        };
        store_token(&self.store, &kick::bot(), token).await;
    }
}

#[async_trait]
impl PlatformWorld for KickWorld {
    const NAME: PlatformName = PlatformName::Kick;
    const PERMISSION: &'static str = "scope:moderation:ban";

    async fn start() -> Self {
        let sim = start_sim().await;
        sim.kick.add_app("app", SECRET);
        sim.kick.add_channel(BOT, "bitbrat-bot");
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
            Concept::Viewers | Concept::TokenExpiry => true,
            // No request shows who is banned.
            Concept::Bans => false,
        }
    }

    fn sim(&self) -> &Sim {
        &self.sim
    }

    fn host(&self) -> &Host {
        self.sim.kick.host()
    }

    fn adapter(&self, timeout: Duration) -> Box<dyn Platform> {
        let urls = self.sim.kick.urls();
        let options = KickOptions {
            auth_url: urls.auth.parse().unwrap(),
            api_url: urls.api.parse().unwrap(),
            client_id: Some("app".to_owned()),
            client_secret: Some(secrets::secret(SECRET)),
            requests_per_minute: 1_000,
            ..KickOptions::default()
        };
        let clock: Arc<dyn Clock> = self.sim.clock.clone();
        let http = HttpOptions {
            timeout,
            ..HttpOptions::default()
        };
        let http = Http::new(http, Arc::clone(&clock));
        let store = self.store.clone();
        Box::new(KickPlatform::new(options, store, http, clock, Chance::seeded(1)))
    }

    fn bot() -> Identity {
        kick::bot()
    }

    fn secrets(&self) -> Vec<String> {
        self.secrets.lock().clone()
    }

    fn id(place: usize) -> String {
        id(place).to_string()
    }

    fn name(place: usize) -> String {
        format!("source-{place}")
    }

    fn create(&self, place: usize) {
        self.sim.kick.add_channel(id(place), &Self::name(place));
        self.sim.kick.vanish(id(place), false);
    }

    fn remove(&self, place: usize) {
        self.sim.kick.vanish(id(place), true);
    }

    fn go_live(&self, place: usize) {
        self.sim.kick.go_live(id(place)).unwrap();
    }

    fn end_stream(&self, place: usize) {
        self.sim.kick.end_stream(id(place)).unwrap();
    }

    /// A scope applies to all channels, and only a new login can add one.
    async fn set_role(&self, _place: usize, held: bool) {
        if held {
            self.log_in_with(&[SCOPES.as_slice(), &[ROLE]].concat(), true)
                .await;
        } else {
            self.sim.kick.shrink_scope(BOT, ROLE);
        }
    }

    /// Kick reports a ban to nobody, so there is nothing to change.
    async fn ban(&self, _place: usize) {}

    fn revoke_token(&self) {
        self.sim.kick.disconnect(Some(BOT));
    }

    async fn expire_token(&self) {
        self.log_in_with(&SCOPES, false).await;
        self.sim.clock.advance(3 * 3_600_000);
    }

    async fn log_in(&self) {
        self.log_in_with(&SCOPES, true).await;
    }

    fn fail(&self, request: Request, fault: Fault) {
        let path = match request {
            Request::Api => "/public",
            Request::Sources => "/public/v1/channels",
            Request::Streams => "/public/v1/users/livestreams",
            Request::Permissions | Request::Token => "/oauth/token/introspect",
        };
        self.host().faults().add(fault.on(path));
    }

    fn rate_limit(seconds: u32) -> Fault {
        Fault::status(429)
            .with_body(FaultBody::Json(json!({"message": "Too Many Requests"})))
            .header("Retry-After", &seconds.to_string())
    }

    fn errors_with_status_200() -> Vec<FaultBody> {
        vec![
            FaultBody::Json(json!({"data": [], "message": "Internal server error"})),
            FaultBody::Json(json!({"data": [], "message": "Unauthorized"})),
            FaultBody::Json(
                json!({"data": [], "error": "Internal Server Error", "status": 500, "message": "boom"}),
            ),
        ]
    }

    fn lists_with_an_odd_row(&self) -> Vec<(Request, FaultBody)> {
        let (here, other) = (id(0), id(1));
        let live = format!(
            r#"{{"id":"s","title":"half \ud83d","started_at":"2026-05-01T17:00:00Z","viewer_count":"37",
            "broadcaster_user":{{"id":"{here}","username":null}},"category":null,"channel":null}}"#
        );
        let rows = [
            r#"{"id":null}"#.to_owned(),
            "[]".to_owned(),
            "null".to_owned(),
            r#"{"id":"x","started_at":"2026-05-01T11:00:00Z","broadcaster_user":{"id":12}}"#.to_owned(),
            format!(r#"{{"broadcaster_user":[{other}],"id":"x"}}"#),
            r#"{"broadcaster_user":"who?"}"#.to_owned(),
        ];
        rows.iter()
            .map(|odd| FaultBody::Text(format!(r#"{{"data":[{odd},{live}],"message":"OK"}}"#)))
            .map(|body| (Request::Streams, body))
            .collect()
    }
}
