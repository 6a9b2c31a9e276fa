//! Simulated conduits: limits, the shards, and which socket receives a message.

use serde_json::{Value, json};

use super::eventually;
use super::listener::{Listener, Received};
use super::twitch::{BOT, RAT, Rig, helix_error};
use crate::sim::twitch::{ConduitAct, SocketAct};

const CONDUITS: &str = "/eventsub/conduits";
const SHARDS: &str = "/eventsub/conduits/shards";
const SUBSCRIPTIONS: &str = "/eventsub/subscriptions";

/// A conduit with its application's token.
struct Made {
    rig: Rig,
    token: String,
    id: String,
}

impl Made {
    async fn with(shard_count: usize) -> Self {
        let rig = Rig::start().await;
        let token = rig.app_token();
        let (status, body) = rig
            .post(&token, CONDUITS, &json!({"shard_count": shard_count}))
            .await;
        assert_eq!(status, 200, "{body}");
        let id = body["data"][0]["id"].as_str().unwrap().to_owned();
        Self { rig, token, id }
    }

    /// Assigns shards to sessions.
    async fn attach(&self, shards: &[(usize, &str)]) -> (u16, Value) {
        let rows: Vec<_> = shards
            .iter()
            .map(|(id, session)| {
                json!({"id": id.to_string(), "transport": {"method": "websocket", "session_id": session}})
            })
            .collect();
        let body = json!({"conduit_id": self.id, "shards": rows});
        self.rig.patch(&self.token, SHARDS, &body).await
    }

    async fn shards(&self, more: &str) -> Value {
        let path = format!("{SHARDS}?conduit_id={}{more}", self.id);
        let (status, body) = self.rig.get(&self.token, &path).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn subscribe(&self, kind: &str, condition: &Value) -> (u16, Value) {
        let body = json!({
            "type": kind, "version": "1", "condition": condition,
            "transport": {"method": "conduit", "conduit_id": self.id},
        });
        self.rig.post(&self.token, SUBSCRIPTIONS, &body).await
    }

    fn dropped(&self) -> Value {
        self.rig.twitch().eventsub_state()["conduits"][0]["dropped"].clone()
    }

    async fn dead(&self, count: usize) {
        eventually("the shard is disabled", async || {
            let listed = self.shards("&status=websocket_disconnected").await;
            listed["data"].as_array().unwrap().len() == count
        })
        .await;
    }
}

#[tokio::test]
async fn conduit_limits_match_the_documentation() {
    let made = Made::with(2).await;
    let (rig, token) = (&made.rig, &made.token);
    for _ in 0..4 {
        assert_eq!(rig.post(token, CONDUITS, &json!({"shard_count": 1})).await.0, 200);
    }
    assert_eq!(rig.post(token, CONDUITS, &json!({"shard_count": 1})).await.0, 429);
    assert_eq!(
        rig.get(token, CONDUITS).await.1["data"].as_array().unwrap().len(),
        5
    );
    let user = rig.token(BOT, &["user:bot"]);
    assert_eq!(rig.get(&user, CONDUITS).await.0, 401);
    let many: Vec<_> = (0..101).map(|id| (id, "S")).collect();
    assert_eq!(made.attach(&many).await.0, 400);
    let resized = rig
        .patch(token, CONDUITS, &json!({"id": made.id, "shard_count": 5}))
        .await;
    assert_eq!(resized.1["data"][0]["shard_count"], 5);
    assert_eq!(
        rig.delete(token, &format!("{CONDUITS}?id={}", made.id)).await.0,
        204
    );
    assert_eq!(
        rig.get(token, &format!("{SHARDS}?conduit_id={}", made.id)).await,
        helix_error(404, "Not Found", "not found")
    );
}

#[tokio::test]
async fn accepted_update_may_contain_errors() {
    let made = Made::with(2).await;
    let listener = Listener::connect(&made.rig).await;
    let (status, body) = made
        .attach(&[(0, &listener.session), (1, "gone"), (2, &listener.session)])
        .await;
    assert_eq!(status, 202);
    assert_eq!(
        (&body["data"][0]["id"], &body["data"][0]["status"]),
        (&json!("0"), &json!("enabled"))
    );
    let errors: Vec<_> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["id"])
        .collect();
    assert_eq!(errors, ["1", "2"]);
    made.rig.twitch().conduit_knobs(|knobs| knobs.page_size = Some(1));
    assert_eq!(made.attach(&[(1, &listener.session)]).await.0, 202);
    let page = made.shards("").await;
    let cursor = page["pagination"]["cursor"].as_str().unwrap();
    assert_eq!(
        made.shards(&format!("&after={cursor}")).await["data"][0]["id"],
        "1"
    );
}

#[tokio::test]
async fn message_for_dead_shard_goes_to_one_other_shard() {
    let made = Made::with(3).await;
    let about = json!({"broadcaster_user_id": RAT});
    assert_eq!(made.subscribe("stream.online", &about).await.0, 202);
    assert_eq!(made.subscribe("stream.online", &about).await.0, 409);
    let mut sockets = Vec::new();
    for shard in 0..3 {
        let listener = Listener::connect(&made.rig).await;
        assert_eq!(made.attach(&[(shard, &listener.session)]).await.0, 202);
        sockets.push(listener);
    }
    let twitch = made.rig.twitch();
    let own = crate::sim::twitch::shard_of(RAT, 3);
    twitch.go_live(RAT);
    let notification = sockets[own].message_of("notification").await;
    assert_eq!(
        notification["payload"]["subscription"]["transport"]["method"],
        "conduit"
    );
    twitch.spoil_sockets(&sockets[own].session, &SocketAct::Close(4000));
    assert_eq!(sockets[own].end().await, Received::Closed(4000));
    eventually("one shard is disabled", async || {
        made.shards("&status=enabled").await["data"]
            .as_array()
            .unwrap()
            .len()
            == 2
    })
    .await;
    twitch.go_live(RAT);
    let next = (own + 1) % 3;
    sockets[next].message_of("notification").await;
    assert_eq!(made.dropped(), 0);
    twitch.spoil_sockets(&sockets[next].session, &SocketAct::Reset);
    made.dead(1).await;
    twitch.go_live(RAT);
    assert_eq!(made.dropped(), 1);
}

#[tokio::test]
async fn disabled_shard_is_reported_late_twice_or_not_at_all() {
    let made = Made::with(2).await;
    let client = json!({"client_id": "app"});
    assert_eq!(made.subscribe("conduit.shard.disabled", &client).await.0, 202);
    let mut listener = Listener::connect(&made.rig).await;
    assert_eq!(
        made.attach(&[(0, &listener.session), (1, &listener.session)])
            .await
            .0,
        202
    );
    let twitch = made.rig.twitch();
    twitch.conduit_knobs(|knobs| knobs.disabled_twice = true);
    twitch.spoil_shard("", 1, ConduitAct::Disable);
    for _ in 0..2 {
        let message = listener.message_of("notification").await;
        assert_eq!(message["payload"]["event"]["shard_id"], "1");
    }
    twitch.conduit_knobs(|knobs| knobs.disabled_lost = true);
    assert_eq!(made.attach(&[(1, &listener.session)]).await.0, 202);
    twitch.spoil_shard("", 1, ConduitAct::Disable);
    assert_eq!(
        made.shards("&status=enabled").await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn shrunk_conduit_may_list_ghosts() {
    for ghosts in [false, true] {
        let made = Made::with(2).await;
        let listener = Listener::connect(&made.rig).await;
        assert_eq!(
            made.attach(&[(0, &listener.session), (1, &listener.session)])
                .await
                .0,
            202
        );
        made.rig
            .twitch()
            .conduit_knobs(|knobs| knobs.ghost_shards = ghosts);
        let smaller = json!({"id": made.id, "shard_count": 1});
        assert_eq!(made.rig.patch(&made.token, CONDUITS, &smaller).await.0, 200);
        let listed = made.shards("").await["data"].as_array().unwrap().len();
        assert_eq!(listed, if ghosts { 2 } else { 1 });
    }
}

#[tokio::test]
async fn chat_over_conduit_needs_an_invitation() {
    let made = Made::with(1).await;
    let chat = json!({"broadcaster_user_id": RAT, "user_id": BOT});
    made.rig.token(BOT, &["user:read:chat", "user:bot"]);
    assert_eq!(made.subscribe("channel.chat.message", &chat).await.0, 403);
    made.rig.token(RAT, &["channel:bot"]);
    assert_eq!(made.subscribe("channel.chat.message", &chat).await.0, 202);
}
