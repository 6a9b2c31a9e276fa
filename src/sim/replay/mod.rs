//! Serves a recording of `watch --record`: recorded answers and frames, at the addresses of the simulator.
//!
//! Requests are answered by the record. Tokens are not in it, so what issues them is the simulator's own OAuth server, which
//! accepts any application here. The times in what is served are moved to the present.

mod answers;
mod dates;
mod script;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware;
use axum::routing::any;
use tokio_util::task::AbortOnDropHandle;

use self::answers::{Player, by_record, unrecorded};
use self::dates::Dates;
use super::host::{Host, Server, own};
use super::kit::oauth::{OAuth, TokenSpec};
use super::kit::{DemoLogin, PlatformSim, Setting, Simulated};
use super::{SimClock, SimOptions};
use crate::core::platform::{PlatformName, for_each_platform};
use crate::traffic::format::{Body, Webhook};

pub use script::{Account, PlatformScript, Script, Unusable, User};

/// The client id that a replay suggests. It accepts any other one, too.
pub const CLIENT_ID: &str = "replay";
/// The client secret that a replay suggests.
const CLIENT_SECRET: &str = "replay-secret";
/// The user of a bot's token where the recording does not contain one.
const UNKNOWN_USER: &str = "1";

/// How a recording is replayed.
#[derive(Clone)]
pub struct ReplayOptions {
    /// How many times faster than recorded frames, webhooks and answers follow.
    pub speed: u32,
    /// Where recorded webhooks are posted to.
    pub webhooks: String,
    /// Reports a request of which no answer was recorded.
    pub report: Report,
}

/// Takes a line for people.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// A platform that can be replayed.
pub trait Replayed: Simulated {
    /// Sets up the accounts of a recording: returns the routes that issue tokens, and what a client needs.
    fn set_up(sim: &PlatformSim<Self>, script: &PlatformScript) -> Prepared;

    /// Returns whose token this is; `None` for one that the simulator did not issue.
    fn account(_sim: &PlatformSim<Self>, _token: &str) -> Option<Account> {
        None
    }

    /// Posts a recorded webhook, signed anew.
    fn post(_sim: &PlatformSim<Self>, _url: &str, _webhook: &Webhook, _body: String) {}
}

/// What a client of a replayed platform needs.
#[derive(Default)]
pub struct Prepared {
    /// Routes of the simulator that answer where the recording does not.
    pub routes: Router,
    /// Paths that are never answered by the recording.
    pub own: &'static [&'static str],
    /// The client id in checks of tokens; a client may be configured with another one.
    pub client_id: &'static str,
    /// The client's settings, without addresses.
    pub settings: Vec<Setting>,
    /// The accounts with their new tokens.
    pub logins: Vec<DemoLogin>,
}

/// Keys of the settings of an application and its bot.
pub struct AccountKeys {
    /// The client id.
    pub client_id: &'static str,
    /// The client secret.
    pub client_secret: &'static str,
    /// The bot's access token.
    pub access: &'static str,
    /// The bot's refresh token.
    pub refresh: &'static str,
}

/// Issues new tokens for the accounts in a recording.
pub fn issue_accounts<W: OAuth>(
    sim: &PlatformSim<W>,
    script: &PlatformScript,
    keys: &AccountKeys,
    user_id: impl Fn(&str) -> Option<W::User>,
) -> (Vec<Setting>, Vec<DemoLogin>) {
    let secret = script.header.application.then_some(CLIENT_SECRET);
    sim.with_world(|world, _| {
        let tokens = world.tokens();
        tokens.accepts_any_client = true;
        tokens.add_client(CLIENT_ID, secret);
    });
    let mut settings = vec![(keys.client_id, CLIENT_ID.to_owned())];
    settings.extend(secret.map(|secret| (keys.client_secret, secret.to_owned())));
    let issue = |user: &User| {
        sim.issue_token(TokenSpec {
            client_id: CLIENT_ID.to_owned(),
            user_id: user_id(&user.id),
            scopes: user.scopes.clone(),
            ..TokenSpec::default()
        })
    };
    let unknown = User {
        id: UNKNOWN_USER.to_owned(),
        scopes: Vec::new(),
    };
    let bot = script.has_bot().then(|| script.bot().unwrap_or(&unknown));
    let platform = script.header.platform;
    let mut logins = Vec::new();
    let others = script.users.iter().filter(|user| Some(*user) != bot);
    let others = others.map(|user| (format!("{platform}/broadcaster:{}", user.id), user));
    let named = bot.map(|user| (format!("{platform}/bot"), user));
    for (account, user) in named.into_iter().chain(others) {
        let pair = issue(user);
        if logins.is_empty() && bot.is_some() {
            settings.push((keys.access, pair.access.clone()));
            settings.extend(pair.refresh.clone().map(|refresh| (keys.refresh, refresh)));
        }
        logins.push(DemoLogin {
            account,
            user_id: user.id.clone(),
            access: pair.access,
            refresh: pair.refresh,
            scopes: pair.scopes,
            client_id: Some(CLIENT_ID.to_owned()),
            issued: None,
        });
    }
    (settings, logins)
}

/// Returns whose token this is, by the tokens that were issued.
pub fn account_of<W: OAuth>(
    sim: &PlatformSim<W>,
    token: &str,
    id: impl Fn(&W::User) -> String,
) -> Option<Account> {
    sim.with_world(|world, _| {
        let owner = world.tokens().owner(token)?;
        Some(owner.map_or(Account::App, |user| Account::User(id(user))))
    })
}

/// A replayed platform.
pub struct ReplayedPlatform {
    /// The platform.
    pub platform: PlatformName,
    /// Its base address.
    pub address: String,
    /// The sources that were monitored, as `platform:id`.
    pub sources: Vec<String>,
    /// A client's settings.
    pub settings: Vec<Setting>,
    /// The accounts with their new tokens.
    pub logins: Vec<DemoLogin>,
}

/// A running replay. It stops when this is dropped.
pub struct Replay {
    /// The platforms in the recording.
    pub platforms: Vec<ReplayedPlatform>,
    servers: Vec<Server>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

macro_rules! replayed {
    ($($name:ident $module:ident $about:literal;)*) => {
        impl Replay {
            /// Starts serving a recording.
            pub async fn start(
                sim: SimOptions,
                mut script: Script,
                options: &ReplayOptions,
            ) -> io::Result<Self> {
                let host = Host::new(SimClock::new(sim.clock), sim.chance);
                let dates = Dates::new(script.header.started_at, script.first, options.speed);
                let dates = Arc::new(dates);
                let mut replay = Self { platforms: Vec::new(), servers: Vec::new(), tasks: Vec::new() };
                $(if let Some(recorded) = script.platforms.remove(&PlatformName::$name) {
                    let host = host.beside();
                    replay.serve::<super::$module::World>(host, sim.$module, recorded, &dates, options).await?;
                })*
                Ok(replay)
            }
        }
    };
}
for_each_platform!(replayed);

impl Replay {
    async fn serve<W: Replayed>(
        &mut self,
        host: Host,
        address: SocketAddr,
        script: PlatformScript,
        dates: &Arc<Dates>,
        options: &ReplayOptions,
    ) -> io::Result<()> {
        let script = Arc::new(script);
        let mut prepared = Prepared::default();
        let mut player = None;
        let (sim, server) = PlatformSim::<W>::start_with(host, address, |sim| {
            prepared = W::set_up(sim, &script);
            let begun = Player {
                sim: sim.clone(),
                script: Arc::clone(&script),
                dates: Arc::clone(dates),
                speed: options.speed,
                own: prepared.own,
                report: Arc::clone(&options.report),
                client_id: prepared.client_id,
            };
            let report = Arc::clone(&options.report);
            let missing =
                any(move |method: Method, uri: Uri| std::future::ready(unrecorded(&report, &method, &uri)));
            let routes = std::mem::take(&mut prepared.routes)
                .route("/", missing.clone())
                .route("/{*path}", missing)
                .layer(middleware::from_fn_with_state(begun.clone(), by_record::<W>));
            player = Some(begun);
            routes
        })
        .await?;
        if let Some(player) = player.filter(|_| !script.webhooks.is_empty()) {
            let url = options.webhooks.clone();
            self.tasks.push(own(post_webhooks(player, url)));
        }
        let mut settings = sim.addresses();
        settings.append(&mut prepared.settings);
        self.platforms.push(ReplayedPlatform {
            platform: script.header.platform,
            address: server.http(),
            sources: script.header.sources.clone(),
            settings,
            logins: prepared.logins,
        });
        self.servers.push(server);
        Ok(())
    }
}

/// Posts the recorded webhooks at their times, counted from the first request.
async fn post_webhooks<W: Replayed>(player: Player<W>, url: String) {
    /// How often it is checked whether the replay has begun.
    const CHECK: Duration = Duration::from_millis(100);
    let begun = loop {
        match player.dates.begun() {
            Some(begun) => break begun,
            None => tokio::time::sleep(CHECK).await,
        }
    };
    for (at, webhook) in &player.script.webhooks {
        let due = begun.plus_millis(player.dates.offset(*at));
        player.sim.clock().sleep_until(due).await;
        let body = webhook.body.as_ref().map(|body| player.served(body, *at));
        let body = body.unwrap_or_default();
        W::post(&player.sim, &url, webhook, body);
    }
}

/// Returns the text of a body; `serve` changes the JSON in it.
fn text(body: &Body, serve: impl FnOnce(&mut serde_json::Value)) -> String {
    match body {
        Body::Json(value) => {
            let mut value = value.clone();
            serve(&mut value);
            value.to_string()
        }
        Body::Text(text) => text.clone(),
        // As unreadable as what was received.
        Body::Unreadable(length) => "{".repeat(usize::try_from(*length).unwrap_or(1).min(1024 * 1024)),
    }
}
