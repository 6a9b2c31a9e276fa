//! Kick's events by their own names, as `bitbrat sim trigger` and `POST /__sim/trigger` trigger them.

use serde_json::{Map, Value};

use super::control::carry_out;
use super::handle::KickSim;
use super::webhooks::metadata_event;
use crate::sim::directory::{EventGuide, Guide, Listed, SimSource, count_sent};
use crate::sim::orders::Failure;

const START: &[&str] = &["started_at", "viewers", "hidden_count", "lag_ms", "silent"];
const END: &[&str] = &["lag_ms", "silent"];

const EVENTS: &[EventGuide] = &[
    EventGuide {
        name: "livestream.status.updated",
        fields: START,
        about: "a stream starts, or ends when one is running",
    },
    EventGuide {
        name: "stream.online",
        fields: START,
        about: "a stream starts (as livestream.status.updated)",
    },
    EventGuide {
        name: "stream.offline",
        fields: END,
        about: "the stream ends (as livestream.status.updated)",
    },
    EventGuide {
        name: "livestream.metadata.updated",
        fields: &["title", "category", "slug", "name"],
        about: "title or category change",
    },
    EventGuide {
        name: "chat.message.sent",
        fields: &["text", "user_id", "count", "badges"],
        about: "a chat message is sent",
    },
];

const ORDERS: &[&str] = &[
    "channel",
    "stream_up",
    "stream_down",
    "viewers",
    "blip",
    "app",
    "token",
    "token_expire",
    "token_revoke",
    "disconnect",
    "refresh_age_out",
    "scope_shrink",
    "webhook",
    "subscribe",
    "unsubscribe",
    "chat",
    "emit",
    "rotate_key",
    "knobs",
];

impl Listed for KickSim {
    fn guide(&self) -> Guide {
        let urls = self.urls();
        Guide {
            platform: "kick",
            address: self.http(),
            bases: vec![
                ("https://id.kick.com", urls.auth),
                ("https://api.kick.com", urls.api),
            ],
            views: &["world", "subscriptions", "deliveries"],
            orders: ORDERS,
            events: EVENTS,
        }
    }

    fn sources(&self) -> Vec<SimSource> {
        self.with_world(|world, _| {
            let channels = world.channels.values();
            channels
                .map(|channel| SimSource {
                    id: channel.id.to_string(),
                    name: channel.slug.clone(),
                })
                .collect()
        })
    }

    fn trigger(
        &self,
        event: &str,
        id: &str,
        mut fields: Map<String, Value>,
    ) -> Result<(Value, u64), Failure> {
        let number: u64 = id.parse().map_err(|_| (404, format!("no channel `{id}`")))?;
        let live = self.with_world(|world, _| {
            let channel = world.channels.get_mut(&number);
            channel.is_some_and(|channel| channel.running().is_some())
        });
        let order = match event {
            "stream.online" if live => return Err((409, format!("kick:{id} is live already"))),
            "stream.offline" if !live => return Err((409, format!("kick:{id} is not live"))),
            "livestream.status.updated" | "stream.offline" if live => "stream_down",
            "livestream.status.updated" | "stream.online" => "stream_up",
            "livestream.metadata.updated" => "channel",
            "chat.message.sent" => "chat",
            unknown => return Err((404, format!("no event `{unknown}`"))),
        };
        fields.insert("id".to_owned(), number.into());
        if let Some(user) = fields.get("user_id").and_then(Value::as_str) {
            let user: u64 = user
                .parse()
                .map_err(|_| (400, "`user_id` is not a number".to_owned()))?;
            fields.insert("user_id".to_owned(), user.into());
        }
        let posted = || self.posted();
        let repeat = || {
            let metadata = event == "livestream.metadata.updated";
            let body = self.with_world(|world, _| {
                let channel = world.channels.get(&number).filter(|_| metadata)?;
                Some(metadata_event(channel))
            });
            if let Some(body) = body {
                self.emit(event, number, &body);
            }
        };
        count_sent(posted, || carry_out(self, order, fields), repeat)
    }
}
