//! Twitch's events by their own names, as `bitbrat sim trigger` and `POST /__sim/trigger` trigger them.

use serde_json::{Map, Value, json};

use super::control::carry_out;
use super::handle::TwitchSim;
use crate::sim::directory::{EventGuide, Guide, Listed, SimSource, count_sent};
use crate::sim::orders::Failure;

const ROLE: &[&str] = &["user_id"];

const EVENTS: &[EventGuide] = &[
    EventGuide {
        name: "stream.online",
        fields: &[
            "stream_id",
            "started_at",
            "viewers",
            "title",
            "game_name",
            "lag_ms",
            "silent",
        ],
        about: "a stream starts",
    },
    EventGuide {
        name: "stream.offline",
        fields: &["lag_ms", "silent"],
        about: "the stream ends",
    },
    EventGuide {
        name: "channel.update",
        fields: &["title", "game_id", "game_name", "language", "tags"],
        about: "title, category or language change",
    },
    EventGuide {
        name: "user.update",
        fields: &["login", "name"],
        about: "the user is renamed",
    },
    EventGuide {
        name: "channel.chat.message",
        fields: &[
            "text",
            "user_id",
            "count",
            "bits",
            "reply_to",
            "message_type",
            "reward_id",
            "color",
            "shared_with",
            "every_ms",
        ],
        about: "a chat message is sent",
    },
    EventGuide {
        name: "channel.moderator.add",
        fields: ROLE,
        about: "a user becomes moderator; the bot when none is named",
    },
    EventGuide {
        name: "channel.moderator.remove",
        fields: ROLE,
        about: "a user is no longer moderator",
    },
    EventGuide {
        name: "channel.vip.add",
        fields: ROLE,
        about: "a user becomes VIP",
    },
    EventGuide {
        name: "channel.vip.remove",
        fields: ROLE,
        about: "a user is no longer VIP",
    },
    EventGuide {
        name: "channel.ban",
        fields: ROLE,
        about: "a user is banned",
    },
    EventGuide {
        name: "channel.unban",
        fields: ROLE,
        about: "a user is no longer banned",
    },
    EventGuide {
        name: "channel.moderate",
        fields: &[
            "action",
            "user_id",
            "moderator_user_id",
            "reason",
            "seconds",
            "minutes",
            "viewers",
            "message_id",
            "text",
            "terms",
            "rules",
            "source",
        ],
        about: "a moderator acts, such as timeout, warn or slow",
    },
    EventGuide {
        name: "user.authorization.revoke",
        fields: &[],
        about: "the user disconnects the application: its tokens die, its subscriptions are revoked",
    },
];

const ORDERS: &[&str] = &[
    "channel",
    "channel_remove",
    "stream_up",
    "stream_down",
    "viewers",
    "stream_type",
    "flap",
    "role",
    "client",
    "token",
    "token_expire",
    "disconnect",
    "device",
    "knobs",
    "eventsub",
    "release",
    "socket",
    "reconnect",
    "revoke",
    "chat",
    "moderate",
    "emit",
];

impl Listed for TwitchSim {
    fn guide(&self) -> Guide {
        let urls = self.urls();
        Guide {
            platform: "twitch",
            address: self.http(),
            bases: vec![
                ("https://id.twitch.tv/oauth2", urls.auth),
                ("https://api.twitch.tv/helix", urls.helix),
                ("wss://eventsub.wss.twitch.tv/ws", urls.eventsub_ws),
            ],
            views: &["world", "sockets"],
            orders: ORDERS,
            events: EVENTS,
        }
    }

    fn sources(&self) -> Vec<SimSource> {
        let truth = self.truth();
        let channels = truth["channels"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        channels
            .map(|channel| SimSource {
                id: text(&channel["id"]),
                name: text(&channel["login"]),
            })
            .collect()
    }

    fn trigger(
        &self,
        event: &str,
        id: &str,
        mut fields: Map<String, Value>,
    ) -> Result<(Value, u64), Failure> {
        let (order, more) = match event {
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
        if order != "disconnect" {
            fields.insert("id".to_owned(), id.into());
        }
        if order == "role" && !fields.contains_key("user_id") {
            let bot = self.with_world(|world, _| world.knobs.consent.clone());
            let bot = bot.ok_or((400, "`user_id` is missing: who is it about?".to_owned()))?;
            fields.insert("user_id".to_owned(), bot.into());
        }
        let notified = || self.with_world(|world, _| world.eventsub.notified);
        let repeat = || {
            self.with_world(|world, _| match event {
                "channel.update" => world.send_channel(id),
                "user.update" => world.send_user(id),
                _ => {}
            });
        };
        count_sent(notified, || carry_out(self, order, Value::Object(fields)), repeat)
    }
}
