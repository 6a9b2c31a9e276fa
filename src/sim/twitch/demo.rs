//! A small fictional Twitch in which every source is in a different state, for `--demo` and first tries.

use tokio_util::task::AbortOnDropHandle;

use super::handle::TwitchSim;
use super::members::Role;
use super::tokens::TokenSpec;
use super::world::{ChannelSpec, StreamSpec};
use crate::core::time::Timestamp;
use crate::sim::host::own;
use crate::sim::kit::{DemoLogin, DemoPlatform, Setting};

/// The application, a confidential client.
const CLIENT_ID: &str = "democlient0bitbrat0simulator00";
const CLIENT_SECRET: &str = "demosecret0bitbrat0simulator00";
/// The bot's user id.
const BOT: &str = "777100";
/// The scopes that a bot should have for complete probes.
const BOT_SCOPES: [&str; 6] = [
    "user:read:chat",
    "user:write:chat",
    "user:bot",
    "user:read:moderated_channels",
    "moderator:read:chatters",
    "user:read:subscriptions",
];
const BROADCASTER_SCOPES: [&str; 4] = [
    "channel:bot",
    "moderation:read",
    "channel:read:vips",
    "channel:read:editors",
];

/// Live with many viewers; the bot has no role there.
pub const CROWDED: &str = "777001";
/// Offline; the bot is moderator there.
pub const OFFLINE: &str = "777002";
/// Live for forty seconds, which polls do not show yet.
pub const JUST_LIVE: &str = "777003";
/// Live; the bot is moderator.
pub const MODERATED: &str = "777004";
/// Live; the bot is VIP, which only the broadcaster's own token shows. [`start_timeline`] ends its stream.
pub const VIP: &str = "777005";
/// Offline at first, and the bot has no role there. [`start_timeline`] makes it go live.
pub const PLAIN: &str = "777006";
/// Live; its display name differs from its login.
pub const RENAMED: &str = "777007";
/// The broadcaster's token has expired but can be refreshed.
pub const EXPIRED: &str = "777008";
/// The broadcaster has disconnected the application: token and refresh token are revoked.
pub const REVOKED: &str = "777009";
/// No such channel.
pub const MISSING: &str = "777010";

/// A token as an operator would have stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoToken {
    /// The user that it belongs to.
    pub user_id: String,
    pub access: String,
    pub refresh: String,
    pub scopes: Vec<String>,
    /// When it was obtained.
    pub obtained_at: Timestamp,
    /// Its lifetime in seconds when it was obtained.
    pub expires_in: i64,
}

/// A stream that pushed events show and polls do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpolledStream {
    /// The channel.
    pub user_id: String,
    pub stream_id: String,
    /// When it started.
    pub started_at: Timestamp,
}

/// Data about the demo world that a client needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoWorld {
    /// The application's id.
    pub client_id: String,
    /// The application's secret.
    pub client_secret: String,
    /// The bot's own token.
    pub bot: DemoToken,
    pub broadcasters: Vec<DemoToken>,
    /// The ids of all sources, including the one that does not exist.
    pub sources: Vec<String>,
    /// The stream that has just begun.
    pub just_live: UnpolledStream,
}

impl DemoPlatform for DemoWorld {
    fn sources(&self) -> Vec<String> {
        self.sources.clone()
    }

    fn application(&self) -> Vec<Setting> {
        vec![
            ("twitch.client_id", self.client_id.clone()),
            ("twitch.client_secret", self.client_secret.clone()),
            ("twitch.bot_user_id", self.bot.user_id.clone()),
        ]
    }

    fn tokens(&self) -> Vec<Setting> {
        vec![
            ("twitch.bot_access_token", self.bot.access.clone()),
            ("twitch.bot_refresh_token", self.bot.refresh.clone()),
        ]
    }

    fn logins(&self) -> Vec<DemoLogin> {
        let login = |account: String, token: &DemoToken| DemoLogin {
            account,
            user_id: token.user_id.clone(),
            access: token.access.clone(),
            refresh: Some(token.refresh.clone()),
            scopes: token.scopes.clone(),
            client_id: Some(self.client_id.clone()),
            issued: Some((token.obtained_at, token.expires_in)),
        };
        let broadcasters = self.broadcasters.iter();
        let broadcasters =
            broadcasters.map(|token| login(format!("twitch/broadcaster:{}", token.user_id), token));
        std::iter::once(login("twitch/bot".to_owned(), &self.bot))
            .chain(broadcasters)
            .collect()
    }
}

pub fn populate(twitch: &TwitchSim) -> DemoWorld {
    twitch.add_client(CLIENT_ID, Some(CLIENT_SECRET));
    twitch.knobs(|knobs| knobs.consent = Some(BOT.to_owned()));
    twitch.put_channel(channel(BOT, "bitbrat_bot", "BitBrat_Bot", "", ""));
    add_channels(twitch);
    start_streams(twitch);
    give_roles(twitch);
    let wall = twitch.clock().wall();
    let just_live = UnpolledStream {
        user_id: JUST_LIVE.to_owned(),
        stream_id: "40900003".to_owned(),
        started_at: wall.plus_secs(-40),
    };
    let bot = issue(twitch, BOT, "demobot", &BOT_SCOPES, wall, 13_211);
    let broadcasters = vec![
        issue(twitch, VIP, "demovelvet", &BROADCASTER_SCOPES, wall, 12_000),
        issue(
            twitch,
            EXPIRED,
            "demobrass",
            &BROADCASTER_SCOPES,
            wall.plus_secs(-18_000),
            14_400,
        ),
        issue(
            twitch,
            REVOKED,
            "demopaper",
            &BROADCASTER_SCOPES,
            wall.plus_secs(-7_200),
            14_400,
        ),
    ];
    twitch.disconnect(REVOKED);
    DemoWorld {
        client_id: CLIENT_ID.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
        bot,
        broadcasters,
        sources: (777_001..=777_010).map(|id: u32| id.to_string()).collect(),
        just_live,
    }
}

fn add_channels(twitch: &TwitchSim) {
    for (id, login, name, title, game) in [
        (
            CROWDED,
            "pixelmeadow",
            "PixelMeadow",
            "Building a castle, block by block",
            "Minecraft",
        ),
        (
            OFFLINE,
            "quietharbor",
            "QuietHarbor",
            "Back on Friday",
            "Just Chatting",
        ),
        (
            JUST_LIVE,
            "sunriseforge",
            "SunriseForge",
            "First light at the forge",
            "Makers & Crafting",
        ),
        (
            MODERATED,
            "teapotacademy",
            "TeapotAcademy",
            "Rust for the patient",
            "Software and Game Development",
        ),
        (
            VIP,
            "velvetacorn",
            "VelvetAcorn",
            "Watercolours and small talk",
            "Art",
        ),
        (
            PLAIN,
            "cobaltlantern",
            "CobaltLantern",
            "Night train across the map",
            "Trains",
        ),
        (RENAMED, "yukinoniwa", "雪の庭", "雪の夜に", "Music"),
        (
            EXPIRED,
            "brassnightingale",
            "BrassNightingale",
            "Evening rehearsal",
            "Music",
        ),
        (
            REVOKED,
            "paperlighthouse",
            "PaperLighthouse",
            "Reading aloud",
            "Talk Shows & Podcasts",
        ),
    ] {
        twitch.put_channel(channel(id, login, name, title, game));
    }
}

fn start_streams(twitch: &TwitchSim) {
    let wall = twitch.clock().wall();
    let started = |id: &str, stream_id: &str, seconds: i64, viewers: u64, lag_ms: i64| {
        let spec = StreamSpec {
            stream_id: Some(stream_id.to_owned()),
            started_at: Some(wall.plus_secs(-seconds)),
            viewers: Some(viewers),
            lag_ms: Some(lag_ms),
            ..StreamSpec::default()
        };
        twitch.go_live_with(id, &spec);
    };
    started(CROWDED, "40900001", 9_240, 12_847, 0);
    // Polls lag three minutes behind at worst; it began forty seconds ago.
    started(JUST_LIVE, "40900003", 40, 3, 140_000);
    started(MODERATED, "40900004", 3_905, 214, 0);
    started(VIP, "40900005", 1_500, 37, 0);
    started(RENAMED, "40900007", 5_400, 96, 0);
}

fn give_roles(twitch: &TwitchSim) {
    for (channel, role) in [
        (OFFLINE, Role::Moderator),
        (MODERATED, Role::Moderator),
        (MODERATED, Role::Subscriber),
        (VIP, Role::Vip),
        (EXPIRED, Role::Editor),
    ] {
        twitch.set_role(channel, BOT, role, true);
    }
}

fn channel(id: &str, login: &str, name: &str, title: &str, game: &str) -> ChannelSpec {
    let text = |text: &str| Some(text.to_owned());
    ChannelSpec {
        id: id.to_owned(),
        login: text(login),
        name: text(name),
        title: text(title),
        game_name: text(game),
        ..ChannelSpec::default()
    }
}

/// Issues a token with a readable text of the usual length, so that it is easily distinguished from a real one.
fn issue(
    twitch: &TwitchSim,
    user_id: &str,
    label: &str,
    scopes: &[&str],
    obtained_at: Timestamp,
    expires_in: i64,
) -> DemoToken {
    let scopes: Vec<_> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let left = obtained_at
        .plus_secs(expires_in)
        .millis_since(twitch.clock().wall())
        / 1000;
    let pair = twitch.issue_token(TokenSpec {
        client_id: CLIENT_ID.to_owned(),
        user_id: Some(user_id.to_owned()),
        scopes: scopes.clone(),
        expires_in: Some(left),
        access: Some(format!("{label:0<14}access0000000000")),
        refresh: Some(format!("{label:0<14}refresh00000000000000000000000000000")),
    });
    DemoToken {
        user_id: user_id.to_owned(),
        access: pair.access,
        refresh: pair.refresh.unwrap_or_default(),
        scopes,
        obtained_at,
        expires_in,
    }
}

/// Starts the timeline of the demo world: [`PLAIN`] goes live after eight simulated seconds, [`VIP`] ends after fourteen. The bot
/// may subscribe to events of both, so that a daemon shows the changes at once.
///
/// It stops when the handle is dropped.
pub fn start_timeline(twitch: &TwitchSim) -> AbortOnDropHandle<()> {
    let twitch = twitch.clone();
    own(async move {
        move_on(&twitch).await;
    })
}

/// Like [`start_timeline`], but waits until the streams were polled and both have subscriptions: on a slow machine a daemon
/// starts slowly, and an earlier change would be no transition for it. After one simulated minute it starts anyway.
pub fn start_timeline_for_listeners(twitch: &TwitchSim) -> AbortOnDropHandle<()> {
    let twitch = twitch.clone();
    own(async move {
        for _ in 0..60 * 4 {
            if is_monitored(&twitch) {
                break;
            }
            twitch.clock().sleep(250).await;
        }
        move_on(&twitch).await;
    })
}

async fn move_on(twitch: &TwitchSim) {
    twitch.clock().sleep(8_000).await;
    twitch.go_live_with(
        PLAIN,
        &StreamSpec {
            viewers: Some(8),
            ..StreamSpec::default()
        },
    );
    twitch.clock().sleep(6_000).await;
    twitch.end_stream(VIP);
}

fn is_monitored(twitch: &TwitchSim) -> bool {
    let state = twitch.eventsub_state();
    let hears = |kind: &str, channel: &str| {
        let mut subscriptions = state["subscriptions"].as_array().into_iter().flatten();
        subscriptions.any(|one| {
            one["type"] == kind
                && one["condition"]["broadcaster_user_id"] == channel
                && one["status"] == "enabled"
        })
    };
    twitch.host().journal().count("GET", "/helix/streams") > 0
        && hears("stream.online", PLAIN)
        && hears("stream.offline", VIP)
}
