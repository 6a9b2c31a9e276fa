//! What the kit needs to serve the simulated Kick: its addresses, its commands, and its events by their own names.

use std::sync::Arc;

use axum::{Router, middleware};
use serde_json::Value;

use super::commands::Command;
use super::delivery::Delivery;
use super::handle::KickSim;
use super::world::{KickKnobs, World};
use super::{oauth, rest, subscription_rest};
use crate::core::time::Timestamp;
use crate::sim::directory::{EventGuide, SimSource, event};
use crate::sim::host::Host;
use crate::sim::kit::Setting;
use crate::sim::kit::commands::Fields;
use crate::sim::kit::failure::Failure;
use crate::sim::kit::handle::{Simulated, View};
use crate::sim::replay::{self, Account, AccountKeys, PlatformScript, Prepared, Replayed};
use crate::traffic::format::Webhook;

const START: &str = "started_at viewers hidden_count lag_ms silent";
const END: &str = "lag_ms silent";

const EVENTS: &[EventGuide] = &[
    event(
        "livestream.status.updated",
        START,
        "a stream starts, or ends when one is running",
    ),
    event(
        "stream.online",
        START,
        "a stream starts (as livestream.status.updated)",
    ),
    event(
        "stream.offline",
        END,
        "the stream ends (as livestream.status.updated)",
    ),
    event(
        "livestream.metadata.updated",
        "title category slug name",
        "title or category change",
    ),
    event(
        "chat.message.sent",
        "text user_id count badges",
        "a chat message is sent",
    ),
];

const KEYS: AccountKeys = AccountKeys {
    client_id: "kick.client_id",
    client_secret: "kick.client_secret",
    access: "kick.bot_access_token",
    refresh: "kick.bot_refresh_token",
};

impl Replayed for World {
    fn set_up(kick: &KickSim, script: &PlatformScript) -> Prepared {
        start_webhooks(kick);
        let (mut settings, logins) = replay::issue_accounts(kick, script, &KEYS, |id| id.parse().ok());
        let has_webhooks = script.has_request("/events/subscriptions");
        settings.push(("kick.webhook", has_webhooks.to_string()));
        Prepared {
            routes: oauth::routes(kick.clone()).merge(rest::key_routes(kick.clone())),
            own: &[rest::PUBLIC_KEY],
            settings,
            logins,
            // Clients compare it with their own, and accept a check that does not name one.
            client_id: "",
        }
    }

    fn account(kick: &KickSim, token: &str) -> Option<Account> {
        replay::account_of(kick, token, ToString::to_string)
    }

    fn post(kick: &KickSim, url: &str, webhook: &Webhook, body: String) {
        kick.with_world(|world, now| world.post_again(url, webhook, body, now));
    }
}

impl Simulated for World {
    const NAME: &'static str = "kick";
    const VIEWS: &'static [View<Self>] = &[
        ("subscriptions", KickSim::subscriptions),
        ("deliveries", deliveries),
    ];
    const EVENTS: &'static [EventGuide] = EVENTS;
    type Command = Command;
    type Knobs = KickKnobs;

    fn new(host: &Host) -> Self {
        Self::new(Arc::clone(host.clock()), host.chance().clone())
    }

    fn routes(kick: &KickSim) -> Router {
        start_webhooks(kick);
        oauth::routes(kick.clone())
            .merge(rest::routes(kick.clone()))
            .merge(subscription_rest::routes(kick.clone()))
            .layer(middleware::from_fn_with_state(kick.clone(), rest::limit))
    }

    fn bases(kick: &KickSim) -> Vec<(&'static str, String)> {
        let urls = kick.urls();
        vec![
            ("https://id.kick.com", urls.auth),
            ("https://api.kick.com", urls.api),
        ]
    }

    fn addresses(kick: &KickSim) -> Vec<Setting> {
        let urls = kick.urls();
        vec![("kick.auth_url", urls.auth), ("kick.api_url", urls.api)]
    }

    fn knobs(&mut self) -> &mut KickKnobs {
        &mut self.knobs
    }

    fn truth(&mut self, _now: Timestamp) -> Value {
        self.describe()
    }

    fn sources(&self) -> Vec<SimSource> {
        let channels = self.channels.values();
        channels
            .map(|channel| SimSource {
                id: channel.id.to_string(),
                name: channel.slug.clone(),
            })
            .collect()
    }

    fn run(kick: &KickSim, command: Command) -> Result<Value, Failure> {
        command.run(kick)
    }

    fn cause(kick: &KickSim, event: &str, id: &str, fields: &mut Fields) -> Result<&'static str, Failure> {
        let number: u64 = id.parse().map_err(|_| (404, format!("no channel `{id}`")))?;
        let live = kick.with_world(|world, _| {
            let channel = world.channels.get_mut(&number);
            channel.is_some_and(|channel| channel.running().is_some())
        });
        let command = match event {
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
        Ok(command)
    }

    fn sent(&self) -> u64 {
        self.webhooks.posted
    }

    fn repeat(kick: &KickSim, event: &str, id: &str) {
        if let ("livestream.metadata.updated", Ok(id)) = (event, id.parse()) {
            kick.with_world(|world, now| world.send_metadata(id, now));
        }
    }
}

/// Starts the delivery of webhooks.
fn start_webhooks(kick: &KickSim) {
    let handle = kick.downgrade();
    let report = move |event: &str, accepted| {
        let Some(kick) = handle() else { return false };
        kick.with_world(|world, now| world.subscriptions.delivered(event, accepted, now));
        true
    };
    kick.with_world(|world, _| world.webhooks.start(kick.host(), report));
}

fn deliveries(kick: &KickSim) -> Value {
    kick.deliveries().iter().map(Delivery::to_json).collect()
}
