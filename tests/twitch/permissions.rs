//! What the bot may do, by every method that its tokens allow.

use bitbrat::core::permission::{self, Allowed};
use bitbrat::core::source::PlatformName;
use bitbrat::core::verdict::{Holding, holding};
use bitbrat::platforms::Probe;
use bitbrat::platforms::twitch;
use bitbrat::sim::Fault;
use bitbrat::sim::twitch::Role;

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
async fn the_bots_own_token_tells_moderators_and_broadcasters_and_no_more() {
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
        assert!(matches!(held(&seen, id, "EDITOR"), Holding::Unknown(Some(_))));
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
async fn a_broadcasters_token_tells_vips_editors_and_subscribers() {
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
    assert_eq!(seen.summary.calls, 5);
    for role in [Role::Vip, Role::Editor, Role::Subscriber] {
        world.twitch().set_role(RAT, BOT, role, false);
    }
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    for role in ["VIP", "EDITOR", "SUBSCRIBER"] {
        assert_eq!(held(&seen, RAT, role), Holding::No, "{role}");
    }
}

#[tokio::test]
async fn what_a_broadcaster_has_not_granted_is_unknown_with_the_scope_that_is_missing() {
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
async fn subscriptions_are_asked_for_one_by_one_only_when_wanted() {
    let mut world = World::confidential().await;
    world.twitch().add_channel("77", "other");
    world.twitch().set_role(RAT, BOT, Role::Subscriber, true);
    let seen = world.look(&[Probe::Permissions], &[RAT, "77"]).await;
    assert_eq!(world.requests("GET", "/helix/subscriptions/user"), 0);
    assert!(matches!(
        held(&seen, RAT, "SUBSCRIBER"),
        Holding::Unknown(Some(_))
    ));
    world.options.check_subscriptions = true;
    let seen = world.look(&[Probe::Permissions], &[RAT, "77"]).await;
    assert_eq!(held(&seen, RAT, "SUBSCRIBER"), Holding::Yes);
    assert_eq!(held(&seen, "77", "SUBSCRIBER"), Holding::No);
    assert_eq!(world.requests("GET", "/helix/subscriptions/user"), 2);
}

#[tokio::test]
async fn a_404_that_is_not_twitchs_no_is_not_a_no() {
    let mut world = World::confidential().await;
    world.options.check_subscriptions = true;
    let elsewhere = bitbrat::sim::FaultBody::Text("404 page not found\n".to_owned());
    world.twitch().host().faults().add(
        Fault::status(404)
            .with_body(elsewhere)
            .on("/helix/subscriptions/user"),
    );
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    assert!(matches!(
        held(&seen, RAT, "SUBSCRIBER"),
        Holding::Unknown(Some(_))
    ));
}

#[tokio::test]
async fn chatters_tell_a_moderator_where_wanted() {
    let mut world = World::confidential().await;
    world.options.check_chatters = true;
    world.twitch().add_channel("77", "other");
    world.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let seen = world.look(&[Probe::Permissions], &[RAT, "77"]).await;
    assert_eq!(seen.grants(RAT, "twitch.chatters").unwrap().0, ["MODERATOR"]);
    assert_eq!(seen.grants("77", "twitch.chatters").unwrap().1, ["MODERATOR"]);
}

#[tokio::test]
async fn a_list_that_fails_for_now_leaves_the_earlier_answer_standing() {
    let world = World::confidential().await;
    world.twitch().set_role(RAT, BOT, Role::Moderator, true);
    let mut told = world.look(&[Probe::Permissions], &[RAT]).await;
    world.sim.clock.advance(600_000);
    let faults = world.twitch().host().faults();
    faults.add(Fault::status(500).on("/helix/moderation"));
    let failed = world.look(&[Probe::Permissions], &[RAT]).await;
    assert!(failed.grants(RAT, "twitch.moderated-channels").is_none());
    told.observations.extend(failed.observations);
    assert_eq!(held(&told, RAT, "MODERATOR"), Holding::Yes);
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
    let seen = world.look(&[Probe::Permissions], &[RAT]).await;
    let evidence = seen.knowledge(RAT).evidence;
    let can = |name| permission::can(&evidence, permission::action(PlatformName::Twitch, name).unwrap());
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
