//! Events of one guild, and the facts that follow.

use serde_json::{Value, json};

use super::*;
use crate::core::code::Code;
use crate::core::observation::{Grants, LinkState};
use crate::core::source::PlatformName;

const GUILD: u64 = 9_001;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
}

fn following(options: GuildOptions, stream_from: Option<StreamFrom>) -> Guilds {
    let mut guilds = Guilds::new([(GUILD, options), (9_002, GuildOptions::default())], stream_from);
    let ready =
        json!({"user": {"id": "4001"}, "session_id": "a", "guilds": [{"id": "9001", "unavailable": true}]});
    let updates = guilds.update("READY", &ready.to_string(), at(0));
    assert_eq!(
        codes(&updates),
        [Code::NotFound(PlatformName::Discord)],
        "9002 is not listed"
    );
    assert_eq!((guilds.me(), guilds.available().count()), (Some(4_001), 0));
    guilds
}

#[test]
fn guilds_that_were_not_announced_are_missed_only_after_a_while() {
    let ready = |guilds: Value| json!({"session_id": "a", "guilds": guilds});
    for (announced, missed) in [
        (json!([]), vec![Code::NotFound(PlatformName::Discord)]),
        (json!(null), vec![]),
    ] {
        let known = [GUILD, 9_002].map(|id| (id, GuildOptions::default()));
        let mut guilds = Guilds::new(known, None);
        guilds.assume_bot_user(Id(4_001));
        assert_eq!(codes(&emit(&mut guilds, "READY", &ready(announced))), []);
        assert_eq!(guilds.me(), Some(4_001), "READY did not say");
        emit(&mut guilds, "GUILD_CREATE", &created());
        assert_eq!(guilds.available().collect::<Vec<_>>(), [GUILD]);
        let facts_of = guilds.report_missing();
        assert_eq!(codes(&facts_of), missed);
        assert!(facts_of.iter().all(|(id, _)| *id == 9_002));
        assert!(guilds.report_missing().is_empty(), "once is enough");
    }
}

fn created() -> Value {
    json!({"id": "9001", "name": "Lab", "owner_id": "77", "member_count": 120,
        "roles": [{"id": "9001", "permissions": "3148864"}, {"id": "9100", "permissions": "76800"}],
        "members": [{"user": {"id": "4001"}, "roles": ["9100"]}],
        "channels": [{"id": "9200", "type": 0, "permission_overwrites": []}, {"id": "broken"}],
        "threads": [], "stage_instances": [], "guild_scheduled_events": [], "voice_states": []})
}

fn live(options: GuildOptions, stream_from: Option<StreamFrom>) -> Guilds {
    let mut guilds = following(options, stream_from);
    emit(&mut guilds, "GUILD_CREATE", &created());
    assert_eq!(guilds.available().collect::<Vec<_>>(), [GUILD]);
    guilds
}

fn with_channel() -> GuildOptions {
    GuildOptions {
        channels: vec![9_200],
    }
}

fn emit(guilds: &mut Guilds, event: &str, data: &Value) -> GuildFacts {
    guilds.update(event, &data.to_string(), at(1))
}

fn codes(facts_of: &GuildFacts) -> Vec<Code> {
    let errors = facts_of.iter().filter_map(|(_, fact)| match fact {
        Fact::Connection {
            state: LinkState::Down { error } | LinkState::Refused { error },
            ..
        }
        | Fact::NoSuchSource { error } => error.code.known(),
        _ => None,
    });
    errors.collect()
}

fn grants(facts_of: &GuildFacts) -> Option<&Grants> {
    facts_of.iter().find_map(|(_, fact)| match fact {
        Fact::Permissions { grants, .. } => Some(&**grants),
        _ => None,
    })
}

fn holds(facts_of: &GuildFacts, name: &str) -> bool {
    grants(facts_of).expect("permissions are reported");
    facts_of
        .iter()
        .any(|(_, fact)| matches!(fact, Fact::Permissions { grants, .. } if grants.granted.contains(name)))
}

#[test]
fn complete_guild_is_connected_with_profile_and_permissions() {
    let mut guilds = following(GuildOptions::default(), None);
    let updates = emit(&mut guilds, "GUILD_CREATE", &created());
    // The profile comes first, so that the event of the connection contains the name.
    assert!(matches!(&updates[0].1, Fact::Profile { fields } if fields["memberCount"] == "120"));
    assert!(matches!(
        updates[1].1,
        Fact::Connection {
            state: LinkState::Up,
            ..
        }
    ));
    assert_eq!(updates[2].1, Fact::Exists);
    assert!(holds(&updates, "MANAGE_MESSAGES") && !holds(&updates, "ADMINISTRATOR"));
    let stranger = json!({"id": "5", "name": "Elsewhere", "owner_id": "1", "roles": []});
    assert_eq!(emit(&mut guilds, "GUILD_CREATE", &stranger), []);
}

#[test]
fn an_outage_is_not_a_removal() {
    let mut guilds = live(GuildOptions::default(), None);
    let updates = emit(
        &mut guilds,
        "GUILD_DELETE",
        &json!({"id": "9001", "unavailable": true}),
    );
    assert_eq!(codes(&updates), [Code::DiscordGuildUnavailable]);
    assert_eq!((guilds.available().count(), guilds.monitored().count()), (0, 1));
    emit(&mut guilds, "GUILD_CREATE", &created());
    assert_eq!(guilds.available().count(), 1);
    for removed in [json!({"id": "9001"}), json!({"id": "9001", "unavailable": false})] {
        assert_eq!(
            codes(&emit(&mut guilds, "GUILD_DELETE", &removed)),
            [Code::NotFound(PlatformName::Discord)]
        );
        assert_eq!(guilds.monitored().count(), 0);
    }
}

#[test]
fn deletion_with_an_unreadable_reason_is_no_removal() {
    for odd in [json!("true"), json!(1), json!([])] {
        let mut guilds = live(GuildOptions::default(), None);
        let stub = json!({"id": "9001", "unavailable": odd});
        assert_eq!(emit(&mut guilds, "GUILD_DELETE", &stub), [], "{odd}");
        assert_eq!(guilds.monitored().collect::<Vec<_>>(), [GUILD], "{odd}");
        assert_eq!(guilds.exact().count(), 0, "{odd}");
    }
}

#[test]
fn odd_row_in_ready_marks_no_guild_as_left() {
    for odd in [
        json!({"id": 0}),
        json!({"id": "0"}),
        json!({"id": -1}),
        json!({"id": "9002", "unavailable": "true"}),
        json!([]),
    ] {
        let mut guilds = Guilds::new(
            [(GUILD, GuildOptions::default()), (9_002, GuildOptions::default())],
            None,
        );
        let ready = json!({"user": {"id": "4001"}, "session_id": "a",
            "guilds": [odd, {"id": "9001", "unavailable": true}]});
        assert_eq!(emit(&mut guilds, "READY", &ready), [], "{odd}");
        assert_eq!(
            codes(&guilds.report_missing()),
            [Code::DiscordGuildUnavailable],
            "{odd}"
        );
        let ready = json!({"user": {"id": "4001"}, "session_id": "a", "guilds": [odd]});
        assert_eq!(emit(&mut guilds, "READY", &ready), [], "{odd}");
        assert_eq!(guilds.report_missing(), [], "{odd}");
    }
}

#[test]
fn guild_never_sent_completely_is_unavailable() {
    let mut guilds = following(GuildOptions::default(), None);
    assert_eq!(codes(&guilds.report_missing()), [Code::DiscordGuildUnavailable]);
    assert!(live(GuildOptions::default(), None).report_missing().is_empty());
}

#[test]
fn role_member_owner_and_channel_changes_apply_at_once() {
    let mut guilds = live(with_channel(), None);
    let role = json!({"guild_id": "9001", "role": {"id": "9100", "permissions": "0"}});
    let updates = emit(&mut guilds, "GUILD_ROLE_UPDATE", &role);
    assert!(!holds(&updates, "MANAGE_MESSAGES") && holds(&updates, "SEND_MESSAGES"));
    let mute = json!({"guild_id": "9001", "id": "9200", "type": 0,
        "permission_overwrites": [{"id": "9001", "type": 0, "allow": "0", "deny": "2048"}]});
    assert!(!holds(
        &emit(&mut guilds, "CHANNEL_UPDATE", &mute),
        "SEND_MESSAGES"
    ));
    let new_role = json!({"guild_id": "9001", "role": {"id": "9101", "permissions": "8"}});
    emit(&mut guilds, "GUILD_ROLE_CREATE", &new_role);
    let promoted = json!({"guild_id": "9001", "user": {"id": "4001"}, "roles": ["9100", "9101"]});
    assert!(holds(
        &emit(&mut guilds, "GUILD_MEMBER_UPDATE", &promoted),
        "ADMINISTRATOR"
    ));
    let other = json!({"guild_id": "9001", "user": {"id": "77"}, "roles": []});
    assert_eq!(emit(&mut guilds, "GUILD_MEMBER_UPDATE", &other), []);
    let gone = json!({"guild_id": "9001", "role_id": "9101"});
    assert!(!holds(
        &emit(&mut guilds, "GUILD_ROLE_DELETE", &gone),
        "ADMINISTRATOR"
    ));
    let owned = json!({"id": "9001", "name": "Lab", "owner_id": "4001", "roles": [{"id": "9001", "permissions": "0"}]});
    assert!(holds(&emit(&mut guilds, "GUILD_UPDATE", &owned), "ADMINISTRATOR"));
}

#[test]
fn a_timeout_masks_until_it_ends_by_itself() {
    let mut guilds = live(GuildOptions::default(), None);
    let punished = json!({"guild_id": "9001", "user": {"id": "4001"}, "roles": ["9100"],
        "communication_disabled_until": at(60).to_string()});
    let updates = emit(&mut guilds, "GUILD_MEMBER_UPDATE", &punished);
    assert_eq!(grants(&updates).unwrap().granted.len(), 2);
    assert_eq!(guilds.next_timeout_end(at(1)), Some(at(60)));
    assert!(holds(&guilds.recompute(at(60)), "MANAGE_MESSAGES"));
    assert_eq!(guilds.next_timeout_end(at(60)), None);
}

#[test]
fn unreadable_timeout_makes_what_it_may_take_unknown() {
    for options in [GuildOptions::default(), with_channel()] {
        let mut guilds = live(options, None);
        let punished = json!({"guild_id": "9001", "user": {"id": "4001"}, "roles": ["9100"],
            "communication_disabled_until": "garbage"});
        let updates = emit(&mut guilds, "GUILD_MEMBER_UPDATE", &punished);
        let all: Vec<_> = updates
            .iter()
            .filter_map(|(_, fact)| match fact {
                Fact::Permissions { grants, .. } => Some(&**grants),
                _ => None,
            })
            .collect();
        assert!(!all.is_empty());
        let any = |name: &str| all.iter().any(|grants| grants.unknown.contains_key(name));
        assert!(any("SEND_MESSAGES") && !any("VIEW_CHANNEL"), "{updates:?}");
        let held: Vec<_> = all.iter().flat_map(|grants| &grants.granted).collect();
        assert!(
            held.iter()
                .all(|name| ["VIEW_CHANNEL", "READ_MESSAGE_HISTORY"].contains(&name.as_str()))
        );
        assert_eq!(guilds.next_timeout_end(at(1)), None);
        let free = json!({"guild_id": "9001", "user": {"id": "4001"}, "roles": ["9100"],
            "communication_disabled_until": null});
        let updates = emit(&mut guilds, "GUILD_MEMBER_UPDATE", &free);
        assert!(holds(&updates, "SEND_MESSAGES"), "{updates:?}");
    }
}

#[test]
fn unreadable_event_makes_permissions_unknown_not_wrong() {
    let mut guilds = live(GuildOptions::default(), None);
    let broken = json!({"guild_id": "9001", "role": {"id": "9100", "permissions": {"new": "format"}}});
    assert_eq!(emit(&mut guilds, "GUILD_ROLE_UPDATE", &broken), []);
    assert_eq!(guilds.unread(), 1);
    let fine = json!({"guild_id": "9001", "role": {"id": "9100", "permissions": "8"}});
    assert_eq!(
        emit(&mut guilds, "GUILD_ROLE_UPDATE", &fine),
        [],
        "nothing until the guild is told as a whole"
    );
    assert!(grants(&emit(&mut guilds, "GUILD_CREATE", &created())).is_some());
}

#[test]
fn odd_role_matters_only_if_it_may_be_the_bots() {
    let odd = |roles: &Value| {
        let mut event = created();
        event["roles"] = roles.clone();
        let mut guilds = following(GuildOptions::default(), None);
        grants(&emit(&mut guilds, "GUILD_CREATE", &event)).cloned()
    };
    let everyone = json!({"id": "9001", "permissions": "3148864"});
    let own = json!({"id": "9100", "permissions": "76800"});
    let usual = odd(&json!([everyone, own]));
    assert!(usual.is_some());
    for strange in [
        json!({"id": "9101", "permissions": null}),
        json!({"permissions": "8"}),
        json!([]),
        json!(7),
    ] {
        assert_eq!(odd(&json!([everyone, own, strange])), usual, "{strange}");
        assert_eq!(odd(&json!([everyone, strange])), None, "{strange}");
        assert_eq!(odd(&json!([strange, own])), None, "{strange}");
    }
}

#[test]
fn a_missing_member_entry_is_asked_for() {
    let mut guilds = following(GuildOptions::default(), None);
    let mut without = created();
    without["members"] = json!([]);
    assert!(grants(&emit(&mut guilds, "GUILD_CREATE", &without)).is_none());
    assert_eq!(guilds.without_member().collect::<Vec<_>>(), [GUILD]);
    let member = serde_json::from_value(json!({"roles": ["9100"]})).unwrap();
    assert!(holds(
        &guilds.apply_member(GUILD, member, at(2)),
        "MANAGE_MESSAGES"
    ));
    assert_eq!(guilds.without_member().count(), 0);
}

#[test]
fn unlisted_channel_yields_guild_permissions_only() {
    let options = GuildOptions {
        channels: vec![9_200, 9_999],
    };
    let mut guilds = following(options, None);
    let facts_of = emit(&mut guilds, "GUILD_CREATE", &created());
    let methods: Vec<_> = facts_of
        .iter()
        .filter_map(|(_, fact)| match fact {
            Fact::Permissions { method, .. } => Some(method.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        methods,
        [crate::core::permission::GUILD_METHOD],
        "the guild answers for itself"
    );
}

#[test]
fn stream_state_is_not_reported_without_a_mapping() {
    let mut guilds = live(GuildOptions::default(), None);
    let stage = json!({"guild_id": "9001", "id": "9400", "channel_id": "9202"});
    assert_eq!(emit(&mut guilds, "STAGE_INSTANCE_CREATE", &stage), []);
}

#[test]
fn streams_begin_and_end_with_what_is_mapped() {
    let stage = |guild: &str| json!({"guild_id": guild, "id": "9400", "channel_id": "9202"});
    let event = |status: u64| json!({"guild_id": "9001", "id": "9500", "name": "Live", "status": status});
    let voice = |streaming: bool| {
        json!({"guild_id": "9001", "channel_id": "9201", "user_id": "77",
        "session_id": "v1", "self_stream": streaming})
    };
    for (from, id, start, end) in [
        (
            StreamFrom::Stage,
            "9400",
            ("STAGE_INSTANCE_CREATE", stage("9001")),
            ("STAGE_INSTANCE_DELETE", stage("9001")),
        ),
        (
            StreamFrom::Event,
            "9500",
            ("GUILD_SCHEDULED_EVENT_UPDATE", event(2)),
            ("GUILD_SCHEDULED_EVENT_UPDATE", event(3)),
        ),
        (
            StreamFrom::GoLive,
            "go-live-77-v1",
            ("VOICE_STATE_UPDATE", voice(true)),
            ("VOICE_STATE_UPDATE", voice(false)),
        ),
    ] {
        let mut guilds = following(GuildOptions::default(), Some(from));
        let updates = emit(&mut guilds, "GUILD_CREATE", &created());
        assert!(updates.contains(&(GUILD, Fact::StreamAbsent)), "{from:?}");
        let push = |facts_of: GuildFacts| match &facts_of[..] {
            [(GUILD, Fact::StreamPush { live, stream_id, .. })] => Some((*live, stream_id.clone().unwrap())),
            _ => None,
        };
        let began = push(emit(&mut guilds, start.0, &start.1));
        assert_eq!(began, Some((true, id.to_owned())), "{from:?}");
        assert_eq!(emit(&mut guilds, start.0, &start.1), [], "reported once");
        assert_eq!(
            push(emit(&mut guilds, end.0, &end.1)),
            Some((false, id.to_owned())),
            "{from:?}"
        );
    }
}

#[test]
fn running_stream_is_detected_at_guild_create() {
    let mut guilds = following(GuildOptions::default(), Some(StreamFrom::Event));
    let mut running = created();
    running["guild_scheduled_events"] = json!([{"id": "9500", "status": 2}, {"id": "9501", "status": 1}]);
    let updates = emit(&mut guilds, "GUILD_CREATE", &running);
    let seen = Fact::StreamSeen {
        stream_id: "9500".into(),
        started_at: None,
    };
    assert!(updates.contains(&(GUILD, seen)));
}

#[test]
fn a_stage_that_cannot_be_read_is_not_an_ended_stream() {
    let mut odd = created();
    odd["stage_instances"] = json!([{"id": null, "channel_id": "9202"}]);
    let mut guilds = following(GuildOptions::default(), Some(StreamFrom::Stage));
    let facts_of = emit(&mut guilds, "GUILD_CREATE", &odd);
    assert!(
        !facts_of.iter().any(|(_, fact)| *fact == Fact::StreamAbsent),
        "{facts_of:?}"
    );
    odd["stage_instances"] = json!([]);
    let facts_of = emit(&mut guilds, "GUILD_CREATE", &odd);
    assert!(facts_of.iter().any(|(_, fact)| *fact == Fact::StreamAbsent));
}

#[test]
fn unreadable_voice_state_neither_starts_nor_ends_a_stream() {
    let voice = |self_stream: Value| {
        json!({"guild_id": "9001", "channel_id": "9201", "user_id": "77", "session_id": "v1",
            "self_stream": self_stream})
    };
    for odd in [json!("true"), json!("false"), json!(1), json!({})] {
        let mut guilds = live(GuildOptions::default(), Some(StreamFrom::GoLive));
        assert_eq!(
            emit(&mut guilds, "VOICE_STATE_UPDATE", &voice(odd.clone())),
            [],
            "{odd}"
        );
        assert_eq!(
            emit(&mut guilds, "VOICE_STATE_UPDATE", &voice(json!(true))).len(),
            1,
            "{odd}"
        );
        assert_eq!(
            emit(&mut guilds, "VOICE_STATE_UPDATE", &voice(odd.clone())),
            [],
            "{odd}"
        );
        let mut whole = created();
        whole["voice_states"] = json!([voice(odd.clone())]);
        let updates = emit(&mut guilds, "GUILD_CREATE", &whole);
        assert!(!updates.contains(&(GUILD, Fact::StreamAbsent)), "{odd}");
    }
}

#[test]
fn ids_may_be_numbers_or_texts() {
    let mut odd = created();
    odd["id"] = json!(9001);
    odd["stage_instances"] = json!([{"id": 9400, "channel_id": 9202.0}]);
    let mut guilds = following(GuildOptions::default(), Some(StreamFrom::Stage));
    let facts_of = emit(&mut guilds, "GUILD_CREATE", &odd);
    assert!(
        facts_of
            .iter()
            .any(|(_, fact)| matches!(fact, Fact::StreamSeen { stream_id, .. } if stream_id == "9400"))
    );
}
