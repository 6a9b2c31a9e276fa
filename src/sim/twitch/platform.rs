//! What the kit needs to serve the simulated Twitch: its addresses, its commands, and its events by their own names.

use std::sync::Arc;

use axum::Router;
use serde_json::{Value, json};

use super::commands::Command;
use super::handle::TwitchSim;
use super::world::{Knobs, World};
use super::{eventsub, helix, oauth};
use crate::core::time::Timestamp;
use crate::sim::directory::{EventGuide, SimSource, event};
use crate::sim::host::Host;
use crate::sim::kit::Setting;
use crate::sim::kit::commands::Fields;
use crate::sim::kit::failure::Failure;
use crate::sim::kit::handle::{Simulated, View};
use crate::sim::replay::{self, Account, AccountKeys, PlatformScript, Prepared, Replayed};

const ROLE: &str = "user_id";

const EVENTS: &[EventGuide] = &[
    event(
        "stream.online",
        "stream_id started_at viewers title game_name lag_ms silent",
        "a stream starts",
    ),
    event("stream.offline", "lag_ms silent", "the stream ends"),
    event(
        "channel.update",
        "title game_id game_name language tags",
        "title, category or language change",
    ),
    event("user.update", "login name", "the user is renamed"),
    event(
        "channel.chat.message",
        "text user_id count bits reply_to message_type reward_id color shared_with every_ms",
        "a chat message is sent",
    ),
    event(
        "channel.moderator.add",
        ROLE,
        "a user becomes moderator; the bot when none is named",
    ),
    event("channel.moderator.remove", ROLE, "a user is no longer moderator"),
    event("channel.vip.add", ROLE, "a user becomes VIP"),
    event("channel.vip.remove", ROLE, "a user is no longer VIP"),
    event("channel.ban", ROLE, "a user is banned"),
    event("channel.unban", ROLE, "a user is no longer banned"),
    event(
        "channel.moderate",
        "action user_id moderator_user_id reason seconds minutes viewers message_id text terms rules source",
        "a moderator acts, such as timeout, warn or slow",
    ),
    event(
        "user.authorization.revoke",
        "",
        "the user disconnects the application: its tokens die, its subscriptions are revoked",
    ),
];

const KEYS: AccountKeys = AccountKeys {
    client_id: "twitch.client_id",
    client_secret: "twitch.client_secret",
    access: "twitch.bot_access_token",
    refresh: "twitch.bot_refresh_token",
};

impl Replayed for World {
    fn set_up(twitch: &TwitchSim, script: &PlatformScript) -> Prepared {
        let (mut settings, logins) = replay::issue_accounts(twitch, script, &KEYS, |id| Some(id.to_owned()));
        settings.push(("twitch.eventsub", script.has_sockets().to_string()));
        Prepared {
            routes: oauth::routes(twitch.clone()),
            settings,
            logins,
            client_id: replay::CLIENT_ID,
            ..Prepared::default()
        }
    }

    fn account(twitch: &TwitchSim, token: &str) -> Option<Account> {
        replay::account_of(twitch, token, Clone::clone)
    }
}

impl Simulated for World {
    const NAME: &'static str = "twitch";
    const VIEWS: &'static [View<Self>] = &[("sockets", TwitchSim::eventsub_state)];
    const EVENTS: &'static [EventGuide] = EVENTS;
    type Command = Command;
    type Knobs = Knobs;

    fn new(host: &Host) -> Self {
        Self::new(Arc::clone(host.clock()), host.chance().clone())
    }

    fn routes(twitch: &TwitchSim) -> Router {
        oauth::routes(twitch.clone())
            .merge(helix::routes(twitch.clone()))
            .merge(eventsub::ws::routes(twitch.clone()))
    }

    fn bases(twitch: &TwitchSim) -> Vec<(&'static str, String)> {
        let urls = twitch.urls();
        vec![
            ("https://id.twitch.tv/oauth2", urls.auth),
            ("https://api.twitch.tv/helix", urls.helix),
            ("wss://eventsub.wss.twitch.tv/ws", urls.eventsub_ws),
        ]
    }

    fn addresses(twitch: &TwitchSim) -> Vec<Setting> {
        let urls = twitch.urls();
        vec![
            ("twitch.auth_url", urls.auth),
            ("twitch.helix_url", urls.helix),
            ("twitch.eventsub_rest_url", urls.eventsub_rest),
            ("twitch.eventsub_ws_url", urls.eventsub_ws),
        ]
    }

    fn knobs(&mut self) -> &mut Knobs {
        &mut self.knobs
    }

    fn truth(&mut self, _now: Timestamp) -> Value {
        self.to_json()
    }

    fn sources(&self) -> Vec<SimSource> {
        let truth = self.to_json();
        let channels = truth["channels"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        channels
            .map(|channel| SimSource {
                id: text(&channel["id"]),
                name: text(&channel["login"]),
            })
            .collect()
    }

    fn run(twitch: &TwitchSim, command: Command) -> Result<Value, Failure> {
        command.run(twitch)
    }

    fn cause(
        twitch: &TwitchSim,
        event: &str,
        id: &str,
        fields: &mut Fields,
    ) -> Result<&'static str, Failure> {
        let (command, more) = match event {
            "stream.online" => ("stream_up", json!({})),
            "stream.offline" => ("stream_down", json!({})),
            "channel.update" | "user.update" => ("channel", json!({})),
            "channel.chat.message" => ("chat", json!({})),
            "channel.moderate" => ("moderate", json!({})),
            "user.authorization.revoke" => ("disconnect", json!({"user_id": id})),
            "channel.moderator.add" => ("role", json!({"role": "moderator", "held": true})),
            "channel.moderator.remove" => ("role", json!({"role": "moderator", "held": false})),
            "channel.vip.add" => ("role", json!({"role": "vip", "held": true})),
            "channel.vip.remove" => ("role", json!({"role": "vip", "held": false})),
            "channel.ban" => ("role", json!({"role": "banned", "held": true})),
            "channel.unban" => ("role", json!({"role": "banned", "held": false})),
            unknown => return Err((404, format!("no event `{unknown}`"))),
        };
        if let Value::Object(more) = more {
            fields.extend(more);
        }
        if command != "disconnect" {
            fields.insert("id".to_owned(), id.into());
        }
        if command == "role" && !fields.contains_key("user_id") {
            let bot = twitch.with_world(|world, _| world.knobs.consent.clone());
            let bot = bot.ok_or((400, "`user_id` is missing: who is it about?".to_owned()))?;
            fields.insert("user_id".to_owned(), bot.into());
        }
        Ok(command)
    }

    fn sent(&self) -> u64 {
        self.eventsub.notified
    }

    fn repeat(twitch: &TwitchSim, event: &str, id: &str) {
        twitch.with_world(|world, _| match event {
            "channel.update" => world.send_channel(id),
            "user.update" => world.send_user(id),
            _ => {}
        });
    }
}
