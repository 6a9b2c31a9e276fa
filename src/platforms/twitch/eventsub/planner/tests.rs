//! Plans for few and many channels, with and without authorizations.

use super::*;

fn source(id: u32) -> SourceKey {
    SourceKey::new(PlatformName::Twitch, &id.to_string()).unwrap()
}

fn channels(count: u32) -> Vec<Channel> {
    (1..=count)
        .map(|id| Channel {
            source: source(id),
            priority: 0,
            has_consented: false,
        })
        .collect()
}

fn account(identity: &str, user_id: &str, scopes: &[&str]) -> Account {
    Account {
        identity: Identity::named(identity),
        user_id: user_id.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    }
}

fn bot_only() -> PlannerInput {
    PlannerInput {
        bot: Some(account("twitch/bot", "900100", &["user:read:chat"])),
        ..PlannerInput::default()
    }
}

fn of_kind(plan: &Plan, kind: Kind) -> usize {
    plan.connections
        .iter()
        .flat_map(|connection| &connection.subscriptions)
        .filter(|planned| planned.subscription.kind == kind)
        .count()
}

#[test]
fn bot_alone_subscribes_to_five_channels_and_polls_the_rest() {
    let plan = plan(&channels(8), &bot_only());
    assert_eq!(
        (of_kind(&plan, Kind::Online), of_kind(&plan, Kind::Offline)),
        (5, 5)
    );
    assert_eq!((plan.cost, plan.polled.len(), plan.connections.len()), (10, 3, 1));
    assert!(plan.is_pushed(&source(5)) && !plan.is_pushed(&source(6)));
    assert!(
        plan.polled[0].reason.contains("10 points"),
        "{}",
        plan.polled[0].reason
    );
    assert_eq!(of_kind(&plan, Kind::Update), 0, "points go to who is live first");
}

#[test]
fn recorded_consents_cost_nothing_without_a_token() {
    let mut wanted = channels(12);
    for channel in &mut wanted[4..] {
        channel.has_consented = true;
    }
    let free = plan(&wanted, &bot_only());
    assert!(free.polled.is_empty(), "{:?}", free.polled);
    assert_eq!(free.connections.len(), 1, "all with the token of the bot");
    // Twitch's own count has precedence: the consent may have been withdrawn.
    let known = PlannerInput {
        costs: BTreeMap::from([("12".to_owned(), 1)]),
        ..bot_only()
    };
    let counted = plan(&wanted, &known);
    let highest = |plan: &Plan| plan.of(&source(12)).map(|(_, planned)| planned.cost).max();
    assert_eq!((highest(&free), highest(&counted)), (Some(0), Some(1)));
}

#[test]
fn points_that_are_left_over_bring_titles() {
    let plan = plan(&channels(3), &bot_only());
    assert_eq!((plan.cost, of_kind(&plan, Kind::Update)), (9, 3));
}

#[test]
fn priority_decides_where_points_are_short() {
    let mut wanted = channels(8);
    wanted[7].priority = 10;
    let plan = plan(&wanted, &bot_only());
    assert!(plan.is_pushed(&source(8)) && !plan.is_pushed(&source(5)));
}

#[test]
fn authorized_and_own_channels_are_free_and_come_first() {
    let mut wanted = channels(8);
    wanted.push(Channel {
        source: source(900_100),
        priority: -5,
        has_consented: false,
    });
    let mut known = bot_only();
    known.broadcasters = vec![account("twitch/broadcaster:8", "8", &["channel:bot"])];
    let plan = plan(&wanted, &known);
    assert!(plan.is_pushed(&source(8)) && plan.is_pushed(&source(900_100)));
    assert_eq!((of_kind(&plan, Kind::Online), plan.cost), (7, 10));
    let first = &plan.connections[0].subscriptions[0];
    assert_eq!(first.cost, 0, "the surest first");
}

#[test]
fn reported_costs_replace_expected_costs() {
    let mut known = bot_only();
    known.costs = (1..=8).map(|id: u32| (id.to_string(), 0)).collect();
    let plan = plan(&channels(8), &known);
    assert_eq!((plan.polled.len(), plan.cost), (0, 0));
}

#[test]
fn points_of_others_are_left_to_them() {
    let mut known = bot_only();
    known.limits.cost_of_others = 7;
    let plan = plan(&channels(8), &known);
    assert_eq!(
        (of_kind(&plan, Kind::Online), plan.cost, plan.cost_limit),
        (1, 3, 3)
    );
}

#[test]
fn authorized_channels_fill_two_sockets_and_spare_the_third() {
    let mut known = bot_only();
    known.chat = true;
    known.broadcasters = (1..=400)
        .map(|id| {
            account(
                &format!("twitch/broadcaster:{id}"),
                &id.to_string(),
                &["channel:bot"],
            )
        })
        .collect();
    let plan = plan(&channels(400), &known);
    let of_bot: Vec<_> = plan
        .connections
        .iter()
        .map(|connection| connection.subscriptions.len())
        .collect();
    assert_eq!(of_bot, [300, 300]);
    assert_eq!((of_kind(&plan, Kind::Online), plan.polled.len()), (300, 100));
    assert_eq!(plan.spare_sockets, 1);
    for connection in &plan.connections {
        let (starts, ends): (Vec<_>, Vec<_>) = connection
            .subscriptions
            .iter()
            .partition(|planned| planned.subscription.kind == Kind::Online);
        assert_eq!(starts.len(), ends.len(), "no start is parted from its end");
    }
}

#[test]
fn chat_is_subscribed_for_100_channels_by_priority() {
    let mut known = bot_only();
    assert_eq!(of_kind(&plan(&channels(150), &known), Kind::Chat), 0);
    known.chat = true;
    let plan_with_chat = plan(&channels(150), &known);
    assert_eq!(of_kind(&plan_with_chat, Kind::Chat), 100);
    assert_eq!(plan_with_chat.cost, 10);
    known.bot = Some(account("twitch/bot", "900100", &[]));
    assert_eq!(
        of_kind(&plan(&channels(3), &known), Kind::Chat),
        0,
        "without the scope"
    );
}

#[test]
fn roles_use_broadcaster_token_on_own_connection() {
    let mut known = bot_only();
    known.broadcasters = vec![
        account(
            "twitch/broadcaster:1",
            "1",
            &["moderation:read", "channel:read:vips"],
        ),
        account("twitch/broadcaster:2", "2", &["channel:manage:vips"]),
        account("twitch/broadcaster:77", "77", &["moderation:read"]),
    ];
    let plan = plan(&channels(2), &known);
    let connections: Vec<_> = plan
        .connections
        .iter()
        .map(|connection| (connection.user_id.as_str(), connection.subscriptions.len()))
        .collect();
    assert_eq!(connections, [("900100", 6), ("1", 4), ("2", 2)]);
}

#[test]
fn without_bot_broadcasters_subscribe_to_own_channels() {
    let known = PlannerInput {
        broadcasters: vec![account("twitch/broadcaster:1", "1", &["moderation:read"])],
        ..PlannerInput::default()
    };
    let plan = plan(&channels(2), &known);
    assert!(plan.is_pushed(&source(1)));
    assert_eq!(plan.connections[0].subscriptions.len(), 5);
    assert_eq!(plan.polled[0].source, source(2));
}

/// Plans this number of channels for the bot, with a choice of transport.
fn chosen(count: u32, transport: TransportChoice, can_be_app: bool) -> Plan {
    let known = PlannerInput {
        transport,
        can_be_app,
        ..bot_only()
    };
    plan(&channels(count), &known)
}

#[test]
fn conduit_is_chosen_when_channels_exceed_websockets() {
    use PushTransport::{Conduit, Websocket};
    use TransportChoice as Choice;
    for (count, choice, can_be_app, expected, polled, reason) in [
        (5, Choice::Auto, true, Websocket, 0, "suffice for 5 channels"),
        (6, Choice::Auto, true, Conduit, 0, "1 of 6 channels exceed"),
        (6, Choice::Auto, false, Websocket, 1, "needs twitch.client_id"),
        (6, Choice::Websocket, true, Websocket, 1, "is `websocket`"),
        (1, Choice::Conduit, true, Conduit, 0, "is `conduit`"),
        (1, Choice::Conduit, false, Websocket, 1, "needs twitch.client_id"),
        (5_001, Choice::Conduit, true, Conduit, 1, "is `conduit`"),
    ] {
        let plan = chosen(count, choice, can_be_app);
        assert_eq!(
            (plan.transport, plan.polled.len()),
            (expected, polled),
            "{count} {choice:?}"
        );
        assert!(
            plan.transport_reason.contains(reason),
            "{}",
            plan.transport_reason
        );
    }
}

#[test]
fn conduit_in_use_is_kept_when_websockets_would_suffice() {
    let known = PlannerInput {
        transport: TransportChoice::Auto,
        can_be_app: true,
        uses_conduit: true,
        ..bot_only()
    };
    let plan = plan(&channels(1), &known);
    assert_eq!(plan.transport, PushTransport::Conduit);
    assert_eq!(plan.connections[0].identity.as_str(), APP);
}

#[test]
fn chat_stays_on_websockets_beside_a_conduit() {
    let known = PlannerInput {
        transport: TransportChoice::Conduit,
        can_be_app: true,
        chat: true,
        ..bot_only()
    };
    let plan = plan(&channels(1), &known);
    let counts: Vec<_> = plan
        .connections
        .iter()
        .map(|connection| (connection.identity.as_str(), connection.subscriptions.len()))
        .collect();
    assert_eq!(counts, [(APP, 3), ("twitch/bot", 1)]);
}
