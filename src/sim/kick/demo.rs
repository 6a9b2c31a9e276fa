//! A small fictional Kick in which every source is in a different state, for `--demo` and first tries.

use super::handle::KickSim;
use super::tokens::KickTokenSpec;
use super::world::{KickChannelSpec, KickStreamSpec};
use crate::sim::kit::{DemoLogin, DemoPlatform, Setting};

/// The application.
pub const CLIENT_ID: &str = "01DEMOKICKAPP0000SIMULATED0";
pub const CLIENT_SECRET: &str = "demokicksecret0simulated0000000000000000000000000";
/// The bot's user id.
pub const BOT: u64 = 888_100;
const ACCESS: &str = "demokickbotaccess";
const REFRESH: &str = "demokickbotrefresh";
const BOT_SCOPES: [&str; 4] = ["user:read", "channel:read", "chat:write", "events:subscribe"];

/// Live; its subscriptions are listed, yet nothing is ever delivered.
pub const SILENT: u64 = 888_001;
/// Offline.
pub const OFFLINE: u64 = 888_002;
/// Live with a hidden viewer count.
pub const HIDDEN: u64 = 888_003;

/// The ids of all sources.
pub const SOURCES: [u64; 3] = [SILENT, OFFLINE, HIDDEN];

/// The demo world as a client of it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoWorld;

impl DemoPlatform for DemoWorld {
    fn sources(&self) -> Vec<String> {
        SOURCES.map(|id| id.to_string()).to_vec()
    }

    fn application(&self) -> Vec<Setting> {
        vec![
            ("kick.client_id", CLIENT_ID.to_owned()),
            ("kick.client_secret", CLIENT_SECRET.to_owned()),
            ("kick.bot_user_id", BOT.to_string()),
        ]
    }

    fn tokens(&self) -> Vec<Setting> {
        vec![
            ("kick.bot_access_token", padded(ACCESS)),
            ("kick.bot_refresh_token", padded(REFRESH)),
        ]
    }

    /// Clients store only the text of Kick's tokens: the platform returns the rest.
    fn logins(&self) -> Vec<DemoLogin> {
        vec![DemoLogin {
            account: "kick/bot".to_owned(),
            user_id: BOT.to_string(),
            access: padded(ACCESS),
            refresh: Some(padded(REFRESH)),
            scopes: BOT_SCOPES.map(str::to_owned).to_vec(),
            client_id: Some(CLIENT_ID.to_owned()),
            issued: None,
        }]
    }
}

/// Returns a token of the length that Kick's have.
fn padded(name: &str) -> String {
    format!("{name:0<48}")
}

pub fn populate(kick: &KickSim) -> DemoWorld {
    kick.add_app(CLIENT_ID, CLIENT_SECRET);
    kick.knobs(|knobs| {
        knobs.consent = Some(BOT);
        knobs.webhooks.drop = true;
    });
    for (id, slug, name, title, category) in [
        (BOT, "bitbrat-bot", "BitBrat_Bot", "", ""),
        (
            SILENT,
            "marblefalcon",
            "MarbleFalcon",
            "Speedruns until it rains",
            "Retro Games",
        ),
        (
            OFFLINE,
            "tinderboxtales",
            "TinderboxTales",
            "Back on Sunday",
            "Just Chatting",
        ),
        (
            HIDDEN,
            "gravelgarden",
            "GravelGarden",
            "Raking sand, counting grains",
            "ASMR",
        ),
    ] {
        let text = |text: &str| Some(text.to_owned());
        kick.put_channel(KickChannelSpec {
            id,
            slug: text(slug),
            name: text(name),
            title: text(title),
            category: text(category),
            vanished: None,
        });
    }
    let wall = kick.clock().wall();
    let live = |id, seconds: i64, viewers, hidden_count| {
        kick.go_live_with(
            id,
            &KickStreamSpec {
                started_at: Some(wall.plus_secs(-seconds)),
                viewers: Some(viewers),
                hidden_count,
                lag_ms: Some(0),
                silent: true,
            },
        );
    };
    live(SILENT, 6_300, 381, false);
    live(HIDDEN, 2_700, 54, true);
    for event in EVENTS {
        kick.add_subscription(CLIENT_ID, SILENT, event);
    }
    kick.issue_token(KickTokenSpec {
        client_id: CLIENT_ID.to_owned(),
        user_id: Some(BOT),
        scopes: BOT_SCOPES.map(str::to_owned).to_vec(),
        expires_in: None,
        access: Some(padded(ACCESS)),
        refresh: Some(padded(REFRESH)),
    });
    DemoWorld
}

/// The events that the silent channel's subscriptions are for.
const EVENTS: [&str; 3] = [
    "livestream.status.updated",
    "livestream.metadata.updated",
    "chat.message.sent",
];
