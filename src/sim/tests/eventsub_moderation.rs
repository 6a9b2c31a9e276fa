//! `channel.moderate` of the simulated EventSub, in both versions.

use std::collections::BTreeSet;

use serde_json::json;

use super::eventsub_events::{MODERATE, event, listening};
use super::listener::Listener;
use super::twitch::{BOT, RAT, Rig};
use crate::sim::twitch::{ModerationSpec, Role};

/// Subscribes to `channel.moderate` in a version; returns the status.
async fn moderate_in(rig: &Rig, listener: &Listener, token: &str, version: &str) -> u16 {
    let order = json!({"type": "channel.moderate", "version": version,
        "condition": {"broadcaster_user_id": RAT, "moderator_user_id": BOT},
        "transport": {"method": "websocket", "session_id": listener.session}});
    rig.post(token, "/eventsub/subscriptions", &order).await.0
}

#[tokio::test]
async fn moderation_v2_needs_the_scope_for_warnings() {
    let rig = Rig::start().await;
    rig.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let seven = rig.token(BOT, &MODERATE[1..]);
    let listener = Listener::connect(&rig).await;
    assert_eq!(moderate_in(&rig, &listener, &seven, "2").await, 403);
    assert_eq!(moderate_in(&rig, &listener, &seven, "1").await, 202);
    let eight = rig.token(BOT, &MODERATE);
    assert_eq!(moderate_in(&rig, &listener, &eight, "2").await, 202);
}

#[tokio::test]
async fn moderation_v1_has_no_warnings() {
    let rig = Rig::start().await;
    rig.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let token = rig.token(BOT, &MODERATE);
    let mut first = Listener::connect(&rig).await;
    let mut second = Listener::connect(&rig).await;
    assert_eq!(moderate_in(&rig, &first, &token, "1").await, 202);
    assert_eq!(moderate_in(&rig, &second, &token, "2").await, 202);
    let act = |action: &str| ModerationSpec {
        action: action.to_owned(),
        user_id: Some(BOT.to_owned()),
        rules: vec!["be kind".to_owned()],
        ..ModerationSpec::default()
    };
    assert_eq!(rig.twitch().moderate(RAT, &act("warn")), Ok(1));
    assert_eq!(rig.twitch().moderate(RAT, &act("slow")), Ok(2));
    let warned = second.message().await;
    let warn = &event(&warned).1["warn"];
    assert_eq!(
        (&warn["user_id"], &warn["reason"], &warn["chat_rules_cited"]),
        (&json!(BOT), &json!("simulated"), &json!(["be kind"]))
    );
    let received = first.message().await;
    assert_eq!(received["metadata"]["subscription_version"], "1");
    let (_, body) = event(&received);
    assert_eq!(
        (&body["action"], &body["slow"], body.get("warn")),
        (&json!("slow"), &json!({"wait_time_seconds": 30}), None)
    );
    assert!(event(&second.message().await).1["warn"].is_null());
}

/// The objects of which a moderation event has one at most, separated by spaces.
const OBJECTS: &str = "\
    followers slow vip unvip mod unmod ban unban timeout untimeout raid unraid delete automod_terms \
    unban_request warn shared_chat_ban shared_chat_unban shared_chat_timeout shared_chat_untimeout \
    shared_chat_delete";

#[tokio::test]
async fn every_act_of_moderation_has_its_own_object() {
    let rig = Rig::start().await;
    rig.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let mut listener = listening(&rig, BOT, &MODERATE, &["channel.moderate"]).await;
    let user = ["user_id", "user_login", "user_name"];
    let with = |more: &[&'static str]| [&user[..], more].concat();
    for (action, object, fields) in [
        ("ban", "ban", with(&["reason"])),
        ("timeout", "timeout", with(&["reason", "expires_at"])),
        ("unban", "unban", with(&[])),
        ("untimeout", "untimeout", with(&[])),
        ("clear", "", vec![]),
        ("emoteonlyoff", "", vec![]),
        ("followers", "followers", vec!["follow_duration_minutes"]),
        ("slow", "slow", vec!["wait_time_seconds"]),
        ("raid", "raid", with(&["viewer_count"])),
        ("unraid", "unraid", with(&[])),
        ("delete", "delete", with(&["message_id", "message_body"])),
        ("mod", "mod", with(&[])),
        ("unvip", "unvip", with(&[])),
        (
            "add_blocked_term",
            "automod_terms",
            vec!["action", "list", "terms", "from_automod"],
        ),
        (
            "deny_unban_request",
            "unban_request",
            with(&["is_approved", "moderator_message"]),
        ),
        ("warn", "warn", with(&["reason", "chat_rules_cited"])),
        ("shared_chat_ban", "shared_chat_ban", with(&["reason"])),
        (
            "shared_chat_timeout",
            "shared_chat_timeout",
            with(&["reason", "expires_at"]),
        ),
        (
            "shared_chat_delete",
            "shared_chat_delete",
            with(&["message_id", "message_body"]),
        ),
    ] {
        let (status, _) = rig
            .command("moderate", &json!({"id": RAT, "action": action, "user_id": BOT}))
            .await;
        assert_eq!(status, 200, "{action}");
        let received = listener.message().await;
        let (_, body) = event(&received);
        assert_eq!(body["action"], action);
        for whose in ["broadcaster_user", "source_broadcaster_user", "moderator_user"] {
            for part in ["id", "login", "name"] {
                assert!(body.get(format!("{whose}_{part}")).is_some(), "{whose}_{part}");
            }
        }
        for other in OBJECTS.split_whitespace() {
            let shown = body
                .get(other)
                .unwrap_or_else(|| panic!("{action}: {other} is absent"));
            assert_eq!(shown.is_null(), other != object, "{action}: {other}");
        }
        let shown: BTreeSet<_> = body[object]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str())
            .collect();
        assert_eq!(shown, fields.into_iter().collect::<BTreeSet<_>>(), "{action}");
    }
    let (status, body) = rig
        .command("moderate", &json!({"id": RAT, "action": "dance"}))
        .await;
    assert!(
        status == 400 && body["error"].as_str().unwrap().contains("untimeout"),
        "{body}"
    );
}
