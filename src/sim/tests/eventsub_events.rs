//! Simulated EventSub notifications: changes, chat, revocations, and all delivery faults.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::listener::Listener;
use super::twitch::{BOT, RAT, Rig};
use crate::clock::Clock;
use crate::core::time::Timestamp;
use crate::sim::twitch::{ChannelSpec, ChatSpec, Duplicate, Role};

pub(super) const MODERATE: [&str; 8] = [
    "moderator:read:warnings",
    "moderator:read:blocked_terms",
    "moderator:read:chat_settings",
    "moderator:read:unban_requests",
    "moderator:read:banned_users",
    "moderator:read:chat_messages",
    "moderator:read:moderators",
    "moderator:read:vips",
];

/// Subscribes a new socket to `kinds` about [`RAT`] as `user` with `scopes`.
pub(super) async fn listening(rig: &Rig, user: &str, scopes: &[&str], kinds: &[&str]) -> Listener {
    let token = rig.token(user, scopes);
    let listener = Listener::connect(rig).await;
    for kind in kinds {
        let condition = match *kind {
            "channel.chat.message" => json!({"broadcaster_user_id": RAT, "user_id": user}),
            "channel.moderate" => json!({"broadcaster_user_id": RAT, "moderator_user_id": user}),
            "user.update" => json!({"user_id": RAT}),
            _ => json!({"broadcaster_user_id": RAT}),
        };
        let (status, body) = listener.subscribe_to(rig, &token, kind, &condition).await;
        assert_eq!(status, 202, "{kind}: {body}");
    }
    listener
}

pub(super) fn event(message: &Value) -> (&str, &Value) {
    (
        message["metadata"]["subscription_type"].as_str().unwrap(),
        &message["payload"]["event"],
    )
}

fn id(message: &Value) -> String {
    message["metadata"]["message_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn title_and_name_changes_are_sent() {
    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:bot"], &["channel.update", "user.update"]).await;
    rig.command(
        "channel",
        &json!({"id": RAT, "title": "building", "game_name": "Chess"}),
    )
    .await;
    let update = listener.message().await;
    let (kind, body) = event(&update);
    assert_eq!(
        (kind, &body["title"], &body["category_name"]),
        ("channel.update", &json!("building"), &json!("Chess"))
    );
    assert_eq!(update["metadata"]["subscription_version"], json!("2"));
    rig.twitch().put_channel(ChannelSpec {
        id: RAT.into(),
        login: Some("ratcaster2".into()),
        ..ChannelSpec::default()
    });
    let renamed = listener.message().await;
    assert_eq!(
        (event(&renamed).0, &event(&renamed).1["user_login"]),
        ("user.update", &json!("ratcaster2"))
    );
}

#[tokio::test]
async fn role_changes_are_sent_to_broadcaster_and_moderators() {
    let rig = Rig::start().await;
    let kinds = [
        "channel.moderator.add",
        "channel.moderator.remove",
        "channel.vip.add",
        "channel.vip.remove",
    ];
    let mut owner = listening(&rig, RAT, &["moderation:read", "channel:read:vips"], &kinds).await;
    rig.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let mut moderator = listening(&rig, BOT, &MODERATE, &["channel.moderate"]).await;
    let added = owner.message().await;
    assert_eq!(
        (event(&added).0, &event(&added).1["user_id"]),
        ("channel.moderator.add", &json!(BOT))
    );
    rig.twitch().set_role(RAT, "778899", Role::Vip, true);
    assert_eq!(event(&owner.message().await).0, "channel.vip.add");
    let message = moderator.message().await;
    let (_, action) = event(&message);
    assert_eq!(
        (&action["action"], &action["vip"]["user_id"]),
        (&json!("vip"), &json!("778899"))
    );
    assert!(action["mod"].is_null());
    rig.twitch().set_role(RAT, BOT, Role::Moderator, false);
    assert_eq!(event(&owner.message().await).0, "channel.moderator.remove");
    assert_eq!(event(&moderator.message().await).1["action"], json!("unmod"));
    let ended = moderator.message_of("revocation").await;
    assert_eq!(
        ended["payload"]["subscription"]["status"],
        json!("moderator_removed")
    );
    rig.twitch().set_role(RAT, BOT, Role::Vip, true);
    assert_eq!(event(&owner.message().await).0, "channel.vip.add");
    rig.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let received = [
        event(&owner.message().await).0.to_owned(),
        event(&owner.message().await).0.to_owned(),
    ];
    assert_eq!(received, ["channel.vip.remove", "channel.moderator.add"]);
}

#[tokio::test]
async fn chat_carries_badges_and_copies_of_shared_lines() {
    let rig = Rig::start().await;
    rig.twitch().add_channel("900300", "squeaker");
    rig.twitch().set_role(RAT, BOT, Role::LeadModerator, true);
    rig.twitch().set_role(RAT, BOT, Role::Subscriber, true);
    let mut listener = listening(&rig, BOT, &["user:read:chat"], &["channel.chat.message"]).await;
    let said = rig.twitch().chat(
        RAT,
        &ChatSpec {
            count: 3,
            ..ChatSpec::default()
        },
    );
    for expected in &said {
        let line = listener.message().await;
        let (_, body) = event(&line);
        assert_eq!(body["message_id"], json!(expected));
        assert_ne!(&id(&line), expected);
        assert!(body["source_broadcaster_user_id"].is_null() && body["source_message_id"].is_null());
    }
    let own = json!({"id": RAT, "user_id": BOT, "text": "beep"});
    rig.command("chat", &own).await;
    let line = listener.message().await;
    let (_, body) = event(&line);
    assert_eq!(
        (&body["chatter_user_id"], &body["message"]["text"]),
        (&json!(BOT), &json!("beep"))
    );
    let badges: Vec<_> = body["badges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|badge| &badge["set_id"])
        .collect();
    assert_eq!(badges, [&json!("lead_moderator"), &json!("subscriber")]);
    let shared = json!({"id": "900300", "shared_with": [RAT]});
    let (_, origin) = rig.command("chat", &shared).await;
    let copy = listener.message().await;
    let (_, body) = event(&copy);
    assert_eq!(body["source_broadcaster_user_id"], json!("900300"));
    assert_eq!(body["source_message_id"], origin["message_ids"][0]);
    assert_ne!(body["message_id"], origin["message_ids"][0]);
}

#[tokio::test]
async fn chat_can_flow_by_the_clock() {
    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:read:chat"], &["channel.chat.message"]).await;
    rig.command("chat", &json!({"id": RAT, "count": 3, "every_ms": 1_000}))
        .await;
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        rig.sim.clock.advance(1_000);
        let line = listener.message_of("notification").await;
        seen.insert(event(&line).1["message_id"].as_str().unwrap().to_owned());
    }
}

#[tokio::test]
async fn revocations_come_with_every_status() {
    for status in [
        "authorization_revoked",
        "user_removed",
        "version_removed",
        "moderator_removed",
        "chat_user_banned",
        "brand_new",
    ] {
        let rig = Rig::start().await;
        let mut listener = listening(&rig, BOT, &["user:bot"], &["stream.online"]).await;
        let (_, done) = rig
            .command("revoke", &json!({"type": "stream.online", "status": status}))
            .await;
        assert_eq!(done, json!({"count": 1}));
        let message = listener.message_of("revocation").await;
        assert_eq!(message["payload"]["subscription"]["status"], json!(status));
        assert_eq!(message["payload"].get("event"), None);
        rig.twitch().go_live(RAT);
        assert!(listener.silent_for(std::time::Duration::from_millis(50)).await);
    }
}

#[tokio::test]
async fn what_happens_in_the_world_revokes_what_depended_on_it() {
    let rig = Rig::start().await;
    let mut listener = listening(
        &rig,
        BOT,
        &["user:read:chat"],
        &["channel.chat.message", "stream.online"],
    )
    .await;
    rig.twitch().set_role(RAT, BOT, Role::Banned, true);
    let banned = listener.message_of("revocation").await;
    assert_eq!(
        banned["payload"]["subscription"]["status"],
        json!("chat_user_banned")
    );
    rig.twitch().remove_channel(RAT);
    let removed = listener.message_of("revocation").await;
    assert_eq!(
        removed["payload"]["subscription"]["status"],
        json!("user_removed")
    );

    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:bot"], &["stream.online"]).await;
    rig.twitch().disconnect(BOT);
    let revoked = listener.message_of("revocation").await;
    assert_eq!(
        revoked["payload"]["subscription"]["status"],
        json!("authorization_revoked")
    );
}

#[tokio::test]
async fn an_expired_token_does_not_touch_the_socket() {
    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:bot"], &["stream.online"]).await;
    rig.twitch().expire_tokens_of(BOT);
    rig.twitch().go_live(RAT);
    listener.message_of("notification").await;
}

#[tokio::test]
async fn notifications_can_come_twice() {
    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:bot"], &["stream.online", "stream.offline"]).await;
    rig.twitch()
        .eventsub_knobs(|knobs| knobs.duplicate = Some(Duplicate::SameId));
    rig.twitch().go_live(RAT);
    let (first, second) = (listener.message().await, listener.message().await);
    assert_eq!(first, second);
    rig.command("eventsub", &json!({"duplicate": "fresh_id"})).await;
    rig.twitch().end_stream(RAT);
    let (first, second) = (listener.message().await, listener.message().await);
    assert_ne!(id(&first), id(&second));
    assert_eq!(event(&first), event(&second));
}

#[tokio::test]
async fn notifications_can_be_held_lost_old_and_out_of_order() {
    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:bot"], &["stream.online", "stream.offline"]).await;
    rig.command("eventsub", &json!({"hold": true})).await;
    rig.twitch().go_live(RAT);
    rig.twitch().end_stream(RAT);
    assert_eq!(
        rig.command("release", &json!({"newest_first": true})).await.1,
        json!({"count": 2})
    );
    let order = [
        event(&listener.message().await).0.to_owned(),
        event(&listener.message().await).0.to_owned(),
    ];
    assert_eq!(order, ["stream.offline", "stream.online"]);

    rig.command("eventsub", &json!({"drop_events": true})).await;
    rig.twitch().go_live(RAT);
    rig.command("eventsub", &json!({"drop_events": false, "age_ms": 660_000}))
        .await;
    rig.twitch().end_stream(RAT);
    let late = listener.message().await;
    assert_eq!(event(&late).0, "stream.offline");
    let at: Timestamp = late["metadata"]["message_timestamp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(rig.sim.clock.now().millis_since(at) >= 660_000);
}

#[tokio::test]
async fn any_event_can_be_emitted_by_hand() {
    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:bot"], &["stream.offline"]).await;
    let order = json!({"type": "stream.offline", "condition": ["broadcaster_user_id", RAT],
        "event": {"id": "1", "broadcaster_user_id": RAT}});
    assert_eq!(rig.command("emit", &order).await.1, json!({"count": 1}));
    assert_eq!(event(&listener.message().await).1["id"], json!("1"));
}

#[tokio::test]
async fn skewed_platform_sends_skewed_times() {
    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:bot"], &["stream.online"]).await;
    rig.sim.clock.set_skew(900_000);
    let stream = rig.twitch().go_live(RAT).unwrap();
    let message = listener.message().await;
    let at: Timestamp = message["metadata"]["message_timestamp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(at.millis_since(rig.sim.clock.now()) > 890_000);
    assert!(stream.started_at.millis_since(rig.sim.clock.now()) > 890_000);
}

#[tokio::test]
async fn a_line_of_chat_has_every_documented_part() {
    let rig = Rig::start().await;
    let mut listener = listening(&rig, BOT, &["user:read:chat"], &["channel.chat.message"]).await;
    let parent = rig.twitch().chat(RAT, &ChatSpec::default()).remove(0);
    listener.message().await;
    rig.command(
        "chat",
        &json!({"id": RAT, "text": "hi @BitBrat_Bot Kappa Cheer100 ok", "bits": 100, "reply_to": parent,
            "message_type": "user_intro", "reward_id": "r1", "color": "", "user_id": RAT}),
    )
    .await;
    let received = listener.message().await;
    let (_, body) = event(&received);
    let parts: Vec<_> = body["message"]["fragments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["type"].as_str().unwrap(), part["text"].as_str().unwrap()))
        .collect();
    assert_eq!(
        parts,
        [
            ("text", "hi "),
            ("mention", "@BitBrat_Bot"),
            ("text", " "),
            ("emote", "Kappa"),
            ("text", " "),
            ("cheermote", "Cheer100"),
            ("text", " ok"),
        ]
    );
    let fragments = &body["message"]["fragments"];
    assert_eq!(fragments[1]["mention"]["user_id"], json!(BOT));
    assert_eq!(
        fragments[3]["emote"],
        json!({"id": "25", "emote_set_id": "0", "owner_id": "0", "format": ["static"]})
    );
    assert_eq!(
        fragments[5]["cheermote"],
        json!({"prefix": "cheer", "bits": 100, "tier": 100})
    );
    assert_eq!(body["cheer"], json!({"bits": 100}));
    let reply = &body["reply"];
    assert_eq!(
        (&reply["parent_message_id"], &reply["parent_message_body"]),
        (&json!(parent), &json!("hello from the simulator"))
    );
    assert_eq!(
        (&reply["parent_user_login"], &reply["thread_user_name"]),
        (&json!("squeak"), &json!("Squeak"))
    );
    assert_eq!(
        (
            &body["message_type"],
            &body["channel_points_custom_reward_id"],
            &body["color"]
        ),
        (&json!("user_intro"), &json!("r1"), &json!(""))
    );
}
