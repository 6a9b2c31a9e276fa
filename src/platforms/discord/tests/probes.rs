//! Results of a probe when Discord answers as documented.

use super::*;
use crate::core::code::Code;
use crate::core::observation::AuthResult;
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus;
use crate::core::verdict::Status;
use crate::platforms::discord::StreamFrom;
use crate::sim::discord::demo;
use crate::sim::{Fault, FaultBody};

#[tokio::test]
async fn demo_guilds_are_reported_with_their_actual_state() {
    let rig = Rig::empty().await;
    demo::populate(rig.discord());
    let platform = rig.platform(|options| {
        options.bot_token = Some(SecretString::from(demo::TOKEN));
        for (guild, channel) in demo::CHANNELS {
            let channels = vec![channel];
            options.guilds.insert(guild, GuildOptions { channels });
        }
    });
    let seen = probe(&platform, &Probe::ALL, &demo::GUILDS).await;

    let healthy = seen.record(demo::HEALTHY);
    assert_eq!(healthy.status, Status::Connected);
    assert_eq!(healthy.auth_status, Some(AuthResult::Valid));
    assert_eq!(healthy.stream_status, StreamStatus::Unknown);
    assert_eq!(healthy.viewer_count, None);
    assert_eq!(healthy.display_name.as_deref(), Some("Lantern Lab"));
    assert_eq!(healthy.metadata["guildName"], "Lantern Lab");
    assert_eq!(healthy.metadata["memberCount"], "1204");
    assert_eq!(healthy.metadata["presenceCount"], "317");
    assert_eq!(healthy.metadata["mode"], "poll");
    assert_eq!(healthy.metadata["permissionScope"], "channel:8880010");
    assert!(healthy.latency_ms.is_some());
    assert!(healthy.held().contains(&"READ_MESSAGE_HISTORY".to_owned()));
    assert!(healthy.last_error.is_none());

    let muted = seen.record(demo::MUTED);
    assert_eq!(
        (muted.status, muted.held()),
        (Status::Connected, &["VIEW_CHANNEL".to_owned()][..])
    );
    assert_eq!(muted.last_error.unwrap().code, Code::DiscordMissingPermissions);
    assert_eq!(muted.metadata["applicationId"], "888100");
    let advice = seen
        .summary
        .problems
        .iter()
        .find(|problem| problem.text.contains("https://"));
    assert!(
        advice
            .unwrap()
            .text
            .contains("client_id=888100&scope=bot&permissions=68608&guild_id=888002")
    );

    let timed_out = seen.record(demo::TIMED_OUT);
    assert_eq!(timed_out.held(), ["READ_MESSAGE_HISTORY", "VIEW_CHANNEL"]);
    let administered = seen.record(demo::ADMINISTERED);
    assert_eq!(administered.display_name.as_deref(), Some("雪の庭"));
    assert_eq!(administered.held().len(), 52);
    assert_eq!(administered.metadata["permissionScope"], "guild");

    let gone = seen.record(demo::GONE);
    assert_eq!(
        (gone.status, gone.auth_status),
        (Status::Error, Some(AuthResult::Valid))
    );
    assert_eq!(
        gone.last_error.as_ref().unwrap().code,
        Code::NotFound(PlatformName::Discord)
    );
    assert!(gone.held().is_empty());
    assert_eq!(rig.discord().gateway_counts().connections, 0);
}

#[tokio::test]
async fn two_thousand_guilds_are_read_in_ten_list_calls() {
    let rig = Rig::empty().await;
    let guilds: Vec<_> = (1..=2_000).map(|n| 10_000 + n * 3).collect();
    for id in &guilds {
        rig.discord().put_guild(&GuildSpec {
            id: *id,
            ..GuildSpec::default()
        });
    }
    let seen = rig.probe_once(&Probe::ALL, &guilds).await;
    assert_eq!((rig.calls("users/@me/guilds"), rig.calls("users/@me")), (10, 1));
    assert_eq!((seen.summary.calls, rig.total_calls()), (11, 11));
    for id in &guilds {
        let record = seen.record(*id);
        assert_eq!(
            (record.status, record.held().len()),
            (Status::Connected, 7),
            "{id}"
        );
    }
}

#[tokio::test]
async fn ten_thousand_probes_never_identify() {
    const RUNS: usize = 10_000;
    let rig = Rig::start().await;
    rig.discord().knobs(|knobs| {
        knobs.global_per_second = usize::MAX;
        knobs.bucket = u32::MAX;
    });
    let platforms: Vec<_> = (0..10)
        .map(|_| rig.platform(|options| options.requests_per_second = u32::MAX))
        .collect();
    let runs = (0..RUNS).map(|n| {
        let probes = if n % 20 == 0 {
            &Probe::ALL[..]
        } else {
            &[Probe::Connection]
        };
        probe(&platforms[n % 10], probes, &[GUILD])
    });
    let mut connected = 0;
    let mut runs = futures_util::StreamExt::buffer_unordered(futures_util::stream::iter(runs), 16);
    while let Some(seen) = futures_util::StreamExt::next(&mut runs).await {
        connected += usize::from(seen.record(GUILD).status == Status::Connected);
    }
    assert_eq!(connected, RUNS);
    let gateway = rig.discord().gateway_counts();
    assert_eq!(
        (gateway.identifies, gateway.connections, rig.calls("gateway/bot")),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn unknown_fields_and_values_change_nothing() {
    let rig = Rig::start().await;
    let plain = rig.probe_channels(&[9_200]).await.record(GUILD);
    rig.discord().knobs(|knobs| {
        knobs.unknown_fields = true;
        knobs.no_rate_headers = true;
    });
    rig.discord().put_channel(&ChannelSpec {
        guild: GUILD,
        id: 9_999,
        kind: 77,
        ..ChannelSpec::default()
    });
    let strange = rig.probe_channels(&[9_200]).await.record(GUILD);
    assert_eq!(strange.held(), plain.held());
    assert!(!plain.held().is_empty());
}

#[tokio::test]
async fn guild_without_the_bot_is_an_error_with_valid_token() {
    for not_found in [true, false] {
        let rig = Rig::start().await;
        rig.discord().knobs(|knobs| knobs.outsider_404 = not_found);
        assert_eq!(
            rig.probe_once(&Probe::ALL, &[GUILD]).await.record(GUILD).status,
            Status::Connected
        );
        rig.discord().remove_guild(GUILD);
        let seen = rig.probe_once(&Probe::ALL, &[GUILD]).await;
        let record = seen.record(GUILD);
        assert_eq!(
            (record.status, record.auth_status),
            (Status::Error, Some(AuthResult::Valid))
        );
        assert_eq!(seen.error_code(GUILD).as_deref(), Some("discord.not_found"));
        assert_eq!(rig.discord().invalid_requests(), 0, "asking cost nothing");
    }
}

#[tokio::test]
async fn guild_left_while_live_has_no_stream() {
    let rig = Rig::start().await;
    rig.discord().set_event(GUILD, 9_500, 2);
    let platform = rig.platform(|options| options.stream_from = Some(StreamFrom::Event));
    let live = probe(&platform, &Probe::ALL, &[GUILD]).await;
    assert_eq!(live.record(GUILD).stream_status, StreamStatus::Online);
    rig.discord().remove_guild(GUILD);
    rig.pass(30_000);
    let left = probe(&platform, &Probe::ALL, &[GUILD]).await;
    let record = left.record_after(GUILD, &[&live]);
    assert_eq!(
        (record.status, record.stream_status),
        (Status::Error, StreamStatus::Unknown)
    );
    // A later failure does not bring it back.
    rig.pass(30_000);
    rig.fail(Fault::status(503));
    let failed = probe(&platform, &Probe::ALL, &[GUILD]).await;
    let record = failed.record_after(GUILD, &[&live, &left]);
    assert_eq!(
        (record.status, record.stream_status),
        (Status::Error, StreamStatus::Unknown)
    );
}

#[tokio::test]
async fn a_404_of_the_guild_list_marks_no_guild_gone() {
    let rig = Rig::start().await;
    rig.discord().set_event(GUILD, 9_500, 2);
    let platform = rig.platform(|options| options.stream_from = Some(StreamFrom::Event));
    let live = probe(&platform, &Probe::ALL, &[GUILD]).await;
    rig.clock.advance(30_000);
    let faults = rig.discord().host().faults();
    let of_discord = FaultBody::Json(serde_json::json!({"message": "404: Not Found", "code": 0}));
    let page = FaultBody::Text("404 page not found".to_owned());
    for body in [of_discord, FaultBody::Empty, FaultBody::Html, page] {
        faults.add(
            Fault::status(404)
                .with_body(body.clone())
                .on("/api/v10/users/@me/guilds"),
        );
        let failed = probe(&platform, &Probe::ALL, &[GUILD]).await;
        let record = failed.record_after(GUILD, &[&live]);
        assert_eq!(record.stream_status, StreamStatus::Online, "{body:?}");
        assert_eq!(record.status, Status::Connected, "{body:?}");
        assert!(
            record.held().contains(&"BAN_MEMBERS".to_owned())
                == live.record(GUILD).held().contains(&"BAN_MEMBERS".to_owned())
        );
        assert!(
            failed.error_code(GUILD).is_some(),
            "{body:?}: it is a question without an answer"
        );
        faults.clear();
    }
    let failed = probe(&platform, &Probe::ALL, &[GUILD]).await;
    rig.clock.advance(30_000);
    let again = probe(&platform, &Probe::ALL, &[GUILD]).await;
    assert_eq!(
        again.record_after(GUILD, &[&live, &failed]).status,
        Status::Connected
    );
}

#[tokio::test]
async fn hidden_and_missing_channels_are_distinguished() {
    let rig = Rig::start().await;
    for listed in [true, false] {
        rig.discord().knobs(|knobs| knobs.list_without_hidden = !listed);
        rig.discord().set_overwrite(9_200, BOT, 1, 0, 1 << 10);
        let hidden = rig.probe_channels(&[9_200]).await;
        assert!(
            hidden.claims() && !hidden.record(GUILD).held().contains(&"VIEW_CHANNEL".to_owned()),
            "{listed}"
        );
        assert_eq!(
            hidden.error_code(GUILD).as_deref(),
            Some("discord.missing_permissions")
        );
    }
    rig.discord().set_overwrite(9_200, BOT, 1, 0, 0);
    let missing = rig.probe_channels(&[9_200, 77_777]).await;
    assert_eq!(
        missing.error_code(GUILD).as_deref(),
        Some("discord.channel_not_found")
    );
    assert_eq!(missing.record(GUILD).metadata["permissionScope"], "channel:9200");
    let all_gone = rig.probe_channels(&[77_777]).await;
    assert!(all_gone.record(GUILD).held().is_empty());
}

#[tokio::test]
async fn a_thread_is_found_and_goes_by_its_channel() {
    let rig = Rig::start().await;
    rig.discord().put_channel(&ChannelSpec {
        guild: GUILD,
        id: 9_300,
        kind: 11,
        parent: Some(9_200),
        ..ChannelSpec::default()
    });
    rig.discord().put_role(GUILD, GUILD, 3_148_864 + (1 << 38), None);
    let open = rig.probe_channels(&[9_300]).await.record(GUILD);
    assert_eq!(open.metadata["channelPermissions"], "9300: ok");
    rig.discord().set_overwrite(9_200, GUILD, 0, 0, 1 << 38);
    let mute = rig.probe_channels(&[9_300]).await.record(GUILD);
    assert_eq!(
        mute.metadata["channelPermissions"],
        "9300: missing SEND_MESSAGES_IN_THREADS"
    );
}

#[tokio::test]
async fn new_channel_configuration_applies_at_next_probe() {
    let rig = Rig::start().await;
    let platform = rig.platform(|_| {});
    let scope = async || {
        let seen = probe(&platform, &[Probe::Permissions], &[GUILD]).await;
        seen.record(GUILD).metadata["permissionScope"].clone()
    };
    assert_eq!(scope().await, "guild");
    platform.configure(guild_options(GuildOptions {
        channels: vec![9_200],
    }));
    assert_eq!(scope().await, "channel:9200");
    platform.configure(BTreeMap::new());
    assert_eq!(scope().await, "guild");
}

#[tokio::test]
async fn what_a_category_denies_its_channels_do_not_inherit() {
    let rig = Rig::start().await;
    for (id, kind, parent) in [(9_300, 4, None), (9_301, 0, Some(9_300))] {
        rig.discord().put_channel(&ChannelSpec {
            guild: GUILD,
            id,
            kind,
            parent,
            ..ChannelSpec::default()
        });
    }
    let reported = async || {
        let record = rig.probe_channels(&[9_301]).await.record(GUILD);
        (record.metadata["channelPermissions"].clone(), record.permissions)
    };
    let before = reported().await;
    rig.discord().set_overwrite(9_300, GUILD, 0, 0, 1 << 10 | 1 << 11);
    assert_eq!(
        reported().await,
        before,
        "a synced channel holds copies; this one holds none"
    );
    rig.discord().set_overwrite(9_301, GUILD, 0, 0, 1 << 11);
    assert_ne!(reported().await, before);
}

#[tokio::test]
async fn exact_permissions_follow_roles_overwrites_and_timeouts() {
    let rig = Rig::start().await;
    let discord = rig.discord();
    let bits = |record: &SourceRecord| -> u64 {
        let names = record.held().iter();
        names
            .map(|name| {
                super::super::permissions::Permissions::named(name)
                    .unwrap()
                    .bits()
            })
            .sum()
    };
    let of = async || bits(&rig.probe_channels(&[9_200]).await.record(GUILD));
    assert_eq!(of().await, 3_222_592);
    discord.set_overwrite(9_200, GUILD, 0, 0, 2_048);
    assert_eq!(of().await, 3_220_544);
    discord.set_overwrite(9_200, BOT, 1, 2_048, 0);
    assert_eq!(of().await, 3_222_592);
    discord.put_role(GUILD, 9_100, 0, Some(true));
    discord.put_role(GUILD, 9_101, 0, Some(true));
    discord.set_overwrite(9_200, 9_100, 0, 0, 1_024);
    discord.set_overwrite(9_200, 9_101, 0, 1_024, 0);
    assert_eq!(of().await, 3_222_592);
    discord.time_out(GUILD, Some(rig.clock.now().plus_secs(60)));
    assert_eq!(of().await, 66_560);
    // An expired timeout stays set.
    discord.time_out(GUILD, Some(rig.clock.now().plus_secs(-1)));
    assert_eq!(of().await, 3_222_592);
    discord.put_guild(&GuildSpec {
        id: GUILD,
        owner: Some(BOT),
        ..GuildSpec::default()
    });
    assert_eq!(of().await, 8_866_461_766_385_663);
}

#[tokio::test]
async fn a_timeout_is_seen_where_the_list_leaves_it_out() {
    let rig = Rig::start().await;
    rig.discord()
        .time_out(GUILD, Some(rig.clock.now().plus_secs(3_600)));
    let seen = rig.probe_once(&[Probe::Permissions], &[GUILD]).await;
    assert_eq!(
        seen.record(GUILD).held(),
        ["READ_MESSAGE_HISTORY", "VIEW_CHANNEL"]
    );
    rig.discord().put_role(GUILD, GUILD + 1, 1 << 3, None);
    let seen = rig.probe_once(&[Probe::Permissions], &[GUILD]).await;
    assert_eq!(seen.record(GUILD).held().len(), 52, "administrators are exempt");
    assert_eq!(rig.calls("guilds/9001/members/4001"), 1);
}

#[tokio::test]
async fn unknown_permission_bit_is_reported_by_number() {
    let rig = Rig::start().await;
    rig.discord().put_role(GUILD, GUILD + 1, 1 << 47 | 1 << 60, None);
    let seen = rig.probe_once(&[Probe::Permissions], &[GUILD]).await;
    let held = seen.record(GUILD).permissions.unwrap();
    assert!(
        held.contains(&"BIT_47".to_owned()) && held.contains(&"BIT_60".to_owned()),
        "{held:?}"
    );
}

#[tokio::test]
async fn a_guild_has_no_stream_unless_one_is_mapped() {
    let rig = Rig::start().await;
    rig.discord().put_channel(&ChannelSpec {
        guild: GUILD,
        id: 9_202,
        kind: 13,
        ..ChannelSpec::default()
    });
    rig.discord().set_stage(9_202, Some("Q&A"));
    let seen = rig.probe_once(&[Probe::Stream, Probe::Viewers], &[GUILD]).await;
    assert_eq!((seen.observations.len(), rig.total_calls()), (0, 0));
    assert_eq!(seen.record(GUILD).stream_status, StreamStatus::Unknown);
}

#[tokio::test]
async fn stages_and_events_can_be_mapped() {
    let rig = Rig::start().await;
    let discord = rig.discord();
    discord.put_channel(&ChannelSpec {
        guild: GUILD,
        id: 9_202,
        kind: 13,
        ..ChannelSpec::default()
    });
    for from in [StreamFrom::Stage, StreamFrom::Event] {
        let platform = rig.platform(|all| all.stream_from = Some(from));
        let status = async || probe(&platform, &[Probe::Stream], &[GUILD]).await.record(GUILD);
        assert_eq!(status().await.stream_status, StreamStatus::Offline, "{from:?}");
        discord.set_event(GUILD, 9_500, 1);
        assert_eq!(status().await.stream_status, StreamStatus::Offline, "{from:?}");
        discord.set_stage(9_202, Some("Q&A"));
        discord.set_event(GUILD, 9_500, 2);
        let record = status().await;
        assert_eq!(
            (record.stream_status, record.viewer_count),
            (StreamStatus::Online, None),
            "{from:?}"
        );
        discord.set_stage(9_202, None);
        discord.set_event(GUILD, 9_500, 3);
        assert_eq!(status().await.stream_status, StreamStatus::Offline, "{from:?}");
    }
}

#[tokio::test]
async fn guilds_are_found_by_name_when_only_one_has_it() {
    let rig = Rig::start().await;
    for (id, name) in [(9_002, "Twin"), (9_003, "twin")] {
        rig.discord().put_guild(&GuildSpec {
            id,
            name: Some(name.into()),
            ..GuildSpec::default()
        });
    }
    let names = ["lab", "Twin", "Nowhere", "555"].map(str::to_owned);
    let found = rig.platform(|_| {}).resolve(&names).await.unwrap();
    assert_eq!(found, [Some(key(GUILD)), None, None, Some(key(555))]);
    let ids = rig.platform(|options| options.bot_token = None);
    assert_eq!(ids.resolve(&["7".to_owned()]).await.unwrap(), [Some(key(7))]);
}

/// Makes a path return this body.
fn answers(rig: &Rig, path: &str, body: &str) {
    let faults = rig.discord().host().faults();
    faults.clear();
    faults.add(Fault::body(FaultBody::Text(body.to_owned())).on(&format!("/api/v10{path}")));
}

#[tokio::test]
async fn one_odd_guild_in_the_list_disconnects_no_other() {
    let rig = Rig::start().await;
    let list = r#"[{"id":9001,"name":"Lab \ud83d","permissions":3148864},{"id":null,"name":"x"},[],7]"#;
    answers(&rig, "/users/@me/guilds", list);
    let seen = rig.probe_once(&[Probe::Connection], &[GUILD, 9_002]).await;
    let lab = seen.record(GUILD);
    assert_eq!(
        (lab.status, lab.metadata["guildName"].as_str()),
        (Status::Connected, Some("Lab \u{fffd}"))
    );
    let missing = seen.record(9_002);
    assert_ne!(missing.status, Status::Error, "it is not known to be left");
    assert_eq!(
        missing.last_error.unwrap().code,
        Code::Unreadable(PlatformName::Discord)
    );
}

#[tokio::test]
async fn row_with_an_impossible_guild_id_marks_no_guild_as_left() {
    for id in [
        "0",
        "\"0\"",
        "-9002",
        "9002.5",
        "9.87e17",
        "18446744073709551616",
        "true",
    ] {
        let rig = Rig::start().await;
        answers(
            &rig,
            "/users/@me/guilds",
            &format!(r#"[{{"id":{id},"name":"x"}},{{"id":"9001"}}]"#),
        );
        let seen = rig.probe_once(&[Probe::Connection], &[GUILD, 9_002]).await;
        assert_eq!(seen.record(GUILD).status, Status::Connected, "{id}");
        let missing = seen.record(9_002);
        assert_ne!(missing.status, Status::Error, "{id}");
        let code = missing.last_error.unwrap().code;
        assert_eq!(code, Code::Unreadable(PlatformName::Discord), "{id}");
    }
}

#[tokio::test]
async fn answer_without_the_guild_list_marks_no_guild_as_left() {
    for body in [
        "null",
        "{}",
        r#"{"data":null}"#,
        r#""x""#,
        "7",
        "",
        "[[]]",
        "[null]",
    ] {
        let rig = Rig::start().await;
        answers(&rig, "/users/@me/guilds", body);
        let seen = rig.probe_once(&[Probe::Connection], &[GUILD]).await;
        let gone = |seen: &Observation| matches!(*seen.fact, Fact::NoSuchSource { .. });
        assert!(!seen.observations.iter().any(gone), "{body}");
        let resolved = rig.platform(|_| {}).resolve(&["lab".to_owned()]).await;
        assert!(resolved.is_err(), "{body}");
    }
}

#[tokio::test]
async fn unreadable_owner_or_permissions_grant_nothing() {
    let many_digits = "9".repeat(41);
    for row in [
        r#"{"id":"9001","owner":"true","permissions":"1024"}"#.to_owned(),
        r#"{"id":"9001","owner":1,"permissions":"1024"}"#.to_owned(),
        format!(r#"{{"id":"9001","owner":false,"permissions":"{many_digits}"}}"#),
        r#"{"id":"9001","owner":false,"permissions":-8}"#.to_owned(),
    ] {
        let rig = Rig::start().await;
        answers(&rig, "/users/@me/guilds", &format!("[{row}]"));
        let seen = rig
            .probe_once(&[Probe::Connection, Probe::Permissions], &[GUILD])
            .await;
        let record = seen.record(GUILD);
        assert_eq!(record.status, Status::Connected, "{row}");
        assert!(record.permissions.is_none(), "{row}");
        let problems = &seen.summary.problems;
        assert!(
            problems
                .iter()
                .any(|problem| problem.text.contains("its permissions")),
            "{row}: {problems:?}"
        );
    }
}

#[tokio::test]
async fn a_channel_without_its_type_does_not_end_a_stream() {
    let rig = Rig::start().await;
    let mapped = |options: &mut DiscordOptions| options.stream_from = Some(StreamFrom::Stage);
    for (channels, absent) in [
        (r#"[{"id":"9202"}]"#, false),
        (r#"[{"id":"9202","type":null}]"#, false),
        ("[[]]", false),
        (r#"[{"id":"9200","type":0}]"#, true),
    ] {
        answers(&rig, "/guilds/9001/channels", channels);
        let seen = probe(&rig.platform(mapped), &[Probe::Stream], &[GUILD]).await;
        let reported = seen
            .observations
            .iter()
            .any(|reported| *reported.fact == Fact::StreamAbsent);
        assert_eq!(reported, absent, "{channels}");
    }
}

#[tokio::test]
async fn answer_is_dated_by_when_it_was_asked_for() {
    let rig = Rig::start().await;
    rig.discord().put_channel(&ChannelSpec {
        guild: GUILD,
        id: 9_202,
        kind: 13,
        ..ChannelSpec::default()
    });
    let platform = rig.platform(|options| options.stream_from = Some(StreamFrom::Stage));
    probe(&platform, &[Probe::Connection], &[GUILD]).await;
    rig.fail(Fault::delay(900).on("/api/v10/stage-instances"));
    let asked_at = rig.clock.now();
    let seen = probe(&platform, &[Probe::Stream], &[GUILD]).await;
    rig.discord().host().faults().clear();
    let absent = seen
        .observations
        .iter()
        .find(|reported| *reported.fact == Fact::StreamAbsent)
        .unwrap();
    assert!(
        absent.at.millis_since(asked_at) < 800,
        "{}",
        absent.at.millis_since(asked_at)
    );
}
