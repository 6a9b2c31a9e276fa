//! The bot's permissions, by every method that its tokens allow.

use bitbrat::core::observation::Fact;
use bitbrat::core::permission::{self, Allowed};
use bitbrat::core::source::PlatformName;
use bitbrat::core::verdict::{Holding, holding};
use bitbrat::platforms::Probe;
use bitbrat::platforms::twitch;
use bitbrat::sim::twitch::Role;
use bitbrat::sim::{Fault, FaultBody};
use serde_json::json;

use super::{BOT, RAT, SCOPES, Seen, World};

const BROADCASTER_SCOPES: [&str; 4] = [
    "moderation:read",
    "channel:read:vips",
    "channel:read:editors",
    "channel:read:subscriptions",
];

fn held(seen: &Seen, id: &str, permission: &str) -> Holding {
    holding(&seen.knowledge(id).evidence, permission).0
}

#[tokio::test]
async fn bot_token_reveals_only_moderator_and_broadcaster() {
    let world = World::confidential().await;
    world.twitch().add_channel("77", "other");
    world.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let seen = world.look(&[Probe::Permissions], &[RAT, "77", BOT]).await;
    for (id, moderator, broadcaster) in [
        (RAT, Holding::Yes, Holding::No),
        ("77", Holding::No, Holding::No),
        (BOT, Holding::Unknown(None), Holding::Yes),
    ] {
        assert_eq!(held(&seen, id, "MODERATOR"), moderator, "{id}");
        assert_eq!(held(&seen, id, "BROADCASTER"), broadcaster, "{id}");
        assert_eq!(held(&seen, id, "scope:user:read:chat"), Holding::Yes);
        assert_eq!(held(&seen, id, "scope:user:write:chat"), Holding::No);
        for role in ["EDITOR", "SUBSCRIBER"] {
            assert!(
                matches!(held(&seen, id, role), Holding::Unknown(Some(_))),
                "{role}"
            );
        }
    }
    assert_eq!(seen.summary.calls, 1);
    let permissions = seen.verdict(RAT).permissions;
    assert!(permissions.contains(&"MODERATOR".to_owned()), "{permissions:?}");
}

#[tokio::test]
async fn a_lead_moderator_is_a_moderator() {
    let world = World::confidential().await;
    world.twitch().set_role(RAT, BOT, Role::LeadModerator, true);
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    assert_eq!(held(&seen, RAT, "MODERATOR"), Holding::Yes);
}

#[tokio::test]
async fn broadcaster_token_reveals_vip_editor_and_subscriber() {
    let world = World::confidential().await;
    world
        .give_token(&twitch::broadcaster(RAT), RAT, &BROADCASTER_SCOPES)
        .await;
    for role in [Role::Vip, Role::Editor, Role::Subscriber] {
        world.twitch().set_role(RAT, BOT, role, true);
    }
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    for role in ["VIP", "EDITOR", "SUBSCRIBER"] {
        assert_eq!(held(&seen, RAT, role), Holding::Yes, "{role}");
    }
    assert_eq!(held(&seen, RAT, "MODERATOR"), Holding::No);
    assert_eq!(seen.summary.calls, 6);
    for role in [Role::Vip, Role::Editor, Role::Subscriber] {
        world.twitch().set_role(RAT, BOT, role, false);
    }
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    for role in ["VIP", "EDITOR", "SUBSCRIBER"] {
        assert_eq!(held(&seen, RAT, role), Holding::No, "{role}");
    }
}

#[tokio::test]
async fn missing_broadcaster_scope_makes_role_unknown_with_reason() {
    let world = World::confidential().await;
    world
        .give_token(&twitch::broadcaster(RAT), RAT, &["channel:read:vips"])
        .await;
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    assert_eq!(held(&seen, RAT, "VIP"), Holding::No);
    let Holding::Unknown(Some(reason)) = held(&seen, RAT, "EDITOR") else {
        panic!("EDITOR should be unknown");
    };
    assert!(reason.contains("channel:read:editors"), "{reason}");
}

#[tokio::test]
async fn temporarily_failing_list_keeps_the_earlier_result() {
    let world = World::confidential().await;
    world.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let mut reported = world.look(&[Probe::Permissions], &[RAT]).await;
    world.sim.clock.advance(600_000);
    let faults = world.twitch().host().faults();
    faults.add(Fault::status(500).on("/helix/moderation"));
    let failed = world.look(&[Probe::Permissions], &[RAT]).await;
    assert!(failed.grants(RAT, "twitch.moderated-channels").is_none());
    reported.observations.extend(failed.observations);
    assert_eq!(held(&reported, RAT, "MODERATOR"), Holding::Yes);
}

#[tokio::test]
async fn odd_row_of_a_list_keeps_the_earlier_result() {
    let ids = [
        json!(null),
        json!(0),
        json!("0"),
        json!("abc"),
        json!(""),
        json!(true),
    ];
    let rows = ids.map(|id| json!({"broadcaster_id": id}));
    let rows = rows
        .into_iter()
        .chain([json!(null), json!([]), json!({}), json!("text")]);
    for row in rows {
        let world = World::confidential().await;
        world.twitch().set_role(RAT, BOT, Role::Moderator, true);
        let mut reported = world.look(&[Probe::Permissions], &[RAT]).await;
        world.sim.clock.advance(600_000);
        let body = FaultBody::Json(json!({"data": [row], "pagination": {}}));
        let faults = world.twitch().host().faults();
        faults.add(Fault::body(body).on("/helix/moderation/channels"));
        let odd = world.look(&[Probe::Permissions], &[RAT]).await;
        reported.observations.extend(odd.observations);
        assert_eq!(held(&reported, RAT, "MODERATOR"), Holding::Yes, "{row}");
    }
}

#[tokio::test]
async fn scopes_are_no_evidence_of_now_while_nothing_answers() {
    let world = World::confidential().await;
    let answered = world.look(&[Probe::Permissions], &[RAT]).await;
    assert!(answered.grants(RAT, "twitch.scopes").is_some());
    world.sim.clock.advance(3_600_000);
    world.twitch().host().go_down();
    let silent = world.look(&Probe::ALL, &[RAT]).await;
    for method in ["twitch.scopes", "twitch.identity"] {
        assert!(silent.grants(RAT, method).is_none(), "{method}");
    }
}

#[tokio::test]
async fn can_answers_yes_no_and_unknown_with_what_is_missing() {
    let world = World::confidential().await;
    let scopes = [
        &SCOPES[..],
        &["moderator:manage:banned_users", "channel:manage:broadcast"],
    ]
    .concat();
    world.give_token(&twitch::bot(), BOT, &scopes).await;
    world.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let seen = world
        .look(&[Probe::Connection, Probe::Auth, Probe::Permissions], &[RAT])
        .await;
    let evidence = seen.knowledge(RAT).evidence;
    let facts = permission::Facts {
        platform: PlatformName::Twitch,
        evidence: &evidence,
        now: None,
    };
    let can = |name| permission::can(facts, permission::action(PlatformName::Twitch, name).unwrap());
    assert_eq!(can("timeout").allowed, Allowed::Yes);
    assert!(can("timeout").as_of.is_some());
    let announce = can("announce");
    assert_eq!(announce.allowed, Allowed::No);
    assert_eq!(announce.missing, ["scope:moderator:manage:announcements"]);
    assert_eq!(can("edit-title").missing, ["BROADCASTER"]);
    let marker = can("create-marker");
    assert_eq!(marker.allowed, Allowed::Unknown);
    assert!(marker.unknown[0].contains("EDITOR"), "{marker:?}");
}

#[tokio::test]
async fn failed_permission_request_keeps_known_roles() {
    let own = |status: u16, words: &str| {
        let body = serde_json::json!({"error": "No", "status": status, "message": words});
        Fault::status(status).with_body(FaultBody::Json(body))
    };
    let mut faults = vec![
        own(400, "The ID in user_id is malformed"),
        own(401, "Missing scope: user:read:moderated_channels"),
        own(401, "Unauthorized by gateway"),
        own(403, "not now"),
        own(404, "not here"),
    ];
    for status in [400, 401, 403, 404, 500] {
        faults.push(Fault::status(status).with_body(FaultBody::Empty));
        faults.push(Fault::status(status).with_body(FaultBody::Text("no".to_owned())));
    }
    for fault in faults {
        let world = World::confidential().await;
        world.twitch().set_role(RAT, BOT, Role::Moderator, true);
        let mut reported = world.look(&[Probe::Permissions], &[RAT]).await;
        let before = reported.verdict(RAT).permissions;
        world.sim.clock.advance(60_000);
        world.fail(fault.clone().on("/helix/moderation"));
        let failed = world.look(&[Probe::Permissions], &[RAT]).await;
        assert!(
            failed.count(|fact| matches!(fact, Fact::Unanswered { .. })) > 0,
            "{fault:?}: it is a question without an answer"
        );
        let first = reported.knowledge(RAT);
        let known_since = holding(&first.evidence, "MODERATOR").1;
        reported.observations.extend(failed.observations);
        let later = reported.knowledge(RAT);
        // The same value, and the same age, as before.
        assert_eq!(
            holding(&later.evidence, "MODERATOR"),
            (Holding::Yes, known_since),
            "{fault:?}"
        );
        assert_eq!(reported.verdict(RAT).permissions, before, "{fault:?}");
    }
}

#[tokio::test]
async fn ban_is_read_from_the_list_of_the_broadcaster() {
    for scope in ["moderation:read", "moderator:manage:banned_users"] {
        let world = World::confidential().await;
        world.give_token(&twitch::broadcaster(RAT), RAT, &[scope]).await;
        for banned in [false, true, false] {
            world.sim.clock.advance(60_000);
            world.twitch().set_role(RAT, BOT, Role::Banned, banned);
            let seen = world.look(&[Probe::Permissions], &[RAT]).await;
            let expected = if banned { Holding::Yes } else { Holding::No };
            assert_eq!(held(&seen, RAT, "BANNED"), expected, "{scope}");
            let evidence = &seen.knowledge(RAT).evidence;
            let facts = permission::Facts {
                platform: PlatformName::Twitch,
                evidence,
                now: None,
            };
            let chat = permission::action(PlatformName::Twitch, "send-chat").unwrap();
            let refused = permission::can(facts, chat).unmet == Some(permission::Unmet::Banned);
            assert_eq!(refused, banned, "{scope}");
            assert_eq!(permission::not_known(facts, chat), None, "{scope}");
        }
    }
}

#[tokio::test]
async fn unknown_ban_is_listed_as_not_covered() {
    let world = World::confidential().await;
    world
        .give_token(&twitch::broadcaster(RAT), RAT, &["channel:read:vips"])
        .await;
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    assert_eq!(held(&seen, RAT, "BANNED"), Holding::Unknown(None));
    let knowledge = seen.knowledge(RAT);
    let facts = permission::Facts {
        platform: PlatformName::Twitch,
        evidence: &knowledge.evidence,
        now: None,
    };
    for (action, expected) in [
        ("send-chat", Some("a ban by the channel")),
        ("read-chat", Some("a ban by the channel")),
        ("moderate", None),
    ] {
        let action = permission::action(PlatformName::Twitch, action).unwrap();
        assert_eq!(permission::not_known(facts, action), expected);
    }
}

#[tokio::test]
async fn lasting_failure_says_why_a_role_is_unknown() {
    let world = World::confidential().await;
    let no = serde_json::json!({"error": "Forbidden", "status": 403, "message": "not in this region"});
    let fault = Fault::status(403).with_body(FaultBody::Json(no));
    world.fail(fault.on("/helix/moderation"));
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    let Holding::Unknown(Some(reason)) = held(&seen, RAT, "MODERATOR") else {
        panic!("{:?}", held(&seen, RAT, "MODERATOR"));
    };
    assert!(reason.contains("not in this region"), "{reason}");
    // The later response applies, whatever the reason was.
    world.twitch().host().faults().clear();
    let mut all = seen;
    let later = world.look(&[Probe::Permissions], &[RAT]).await;
    all.observations.extend(later.observations);
    assert_eq!(held(&all, RAT, "MODERATOR"), Holding::No);
}

/// A server that answers the list of banned users with this row about the bot.
async fn banned_until(world: &World, end: &str) -> Seen {
    let row = serde_json::json!({"user_id": BOT, "expires_at": end});
    let body = serde_json::json!({"data": [row], "pagination": {}});
    let faults = world.twitch().host().faults();
    faults.clear();
    faults.add(Fault::body(FaultBody::Json(body)).on("/helix/moderation/banned"));
    world.look(&[Probe::Permissions], &[RAT]).await
}

#[tokio::test]
async fn timeout_counts_as_a_ban_until_it_ends() {
    let world = World::confidential().await;
    world
        .give_token(&twitch::broadcaster(RAT), RAT, &["moderation:read"])
        .await;
    for (end, expected) in [
        ("", Holding::Yes),
        ("2999-01-01T00:00:00Z", Holding::Yes),
        ("2001-01-01T00:00:00Z", Holding::No),
    ] {
        let seen = banned_until(&world, end).await;
        assert_eq!(held(&seen, RAT, "BANNED"), expected, "{end}");
    }
}
