//! A small fictional Kick in which every source is in a different state, for `--demo` and first tries.

use super::handle::KickSim;
use super::tokens::KickTokenSpec;
use super::world::{KickChannelSpec, KickStreamSpec};
use crate::sim::kit::{DemoLogin, DemoPlatform, Setting};

/// The application.
const CLIENT_ID: &str = "01DEMOKICKAPP0000SIMULATED0";
const CLIENT_SECRET: &str = "demokicksecret0simulated0000000000000000000000000";
/// The bot's user id.
pub const BOT: u64 = 888_100;
const BOT_SCOPES: [&str; 4] = ["user:read", "channel:read", "chat:write", "events:subscribe"];

/// Live; its subscriptions are listed, yet nothing is ever delivered.
pub const SILENT: u64 = 888_001;
/// Offline.
pub const OFFLINE: u64 = 888_002;
/// Live with a hidden viewer count.
pub const HIDDEN: u64 = 888_003;

/// Data about the demo world that a client needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoWorld {
    /// The application's id.
    pub client_id: String,
    /// The application's secret.
    pub client_secret: String,
    pub bot_user_id: String,
    /// The bot's access token.
    pub bot_access: String,
    /// Its refresh token.
    pub bot_refresh: String,
    pub bot_scopes: Vec<String>,
    pub sources: Vec<String>,
}

impl DemoPlatform for DemoWorld {
    fn sources(&self) -> Vec<String> {
        self.sources.clone()
    }

    fn application(&self) -> Vec<Setting> {
        vec![
            ("kick.client_id", self.client_id.clone()),
            ("kick.client_secret", self.client_secret.clone()),
            ("kick.bot_user_id", self.bot_user_id.clone()),
        ]
    }

    fn tokens(&self) -> Vec<Setting> {
        vec![
            ("kick.bot_access_token", self.bot_access.clone()),
            ("kick.bot_refresh_token", self.bot_refresh.clone()),
        ]
    }

    /// Clients store only the text of Kick's tokens: the platform returns the rest.
    fn logins(&self) -> Vec<DemoLogin> {
        vec![DemoLogin {
            account: "kick/bot".to_owned(),
            user_id: self.bot_user_id.clone(),
            access: self.bot_access.clone(),
            refresh: Some(self.bot_refresh.clone()),
            scopes: self.bot_scopes.clone(),
            client_id: Some(self.client_id.clone()),
            issued: None,
        }]
    }
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
    let bot = kick.issue_token(KickTokenSpec {
        client_id: CLIENT_ID.to_owned(),
        user_id: Some(BOT),
        scopes: BOT_SCOPES.map(str::to_owned).to_vec(),
        expires_in: None,
        access: Some(format!("{:0<48}", "demokickbotaccess")),
        refresh: Some(format!("{:0<48}", "demokickbotrefresh")),
    });
    DemoWorld {
        client_id: CLIENT_ID.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
        bot_user_id: BOT.to_string(),
        bot_access: bot.access,
        bot_refresh: bot.refresh.unwrap_or_default(),
        bot_scopes: BOT_SCOPES.map(str::to_owned).to_vec(),
        sources: [SILENT, OFFLINE, HIDDEN].map(|id| id.to_string()).to_vec(),
    }
}

/// The events that the silent channel's subscriptions are for.
const EVENTS: [&str; 3] = [
    "livestream.status.updated",
    "livestream.metadata.updated",
    "chat.message.sent",
];
