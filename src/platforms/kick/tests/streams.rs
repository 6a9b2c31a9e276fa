//! Live, offline, hidden, removed: results of a probe for a channel.

use std::time::Duration;

use super::{ADA, BOT_ID, Rig, instant, key, metadata};
use crate::clock::Clock;
use crate::core::code::Code;
use crate::core::observation::Fact;
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus::{Offline, Online, Unknown};
use crate::core::verdict::Status;
use crate::platforms::{Platform, Probe};
use crate::sim::faults::{Fault, FaultBody};
use crate::sim::kick::{KickChannelSpec, KickStreamSpec};

#[tokio::test]
async fn a_live_channel_is_online_with_its_start_as_the_streams_name() {
    let rig = Rig::start().await;
    let started_at = rig.kick().go_live(ADA).unwrap();
    let summary = rig.probe_one(ADA).await;
    assert_eq!(summary.problems, []);
    let record = rig.record(ADA);
    assert_eq!((record.status, record.stream_status), (Status::Connected, Online));
    assert_eq!(record.viewer_count, Some(12));
    assert_eq!(record.metadata["session"]["streamId"], instant(&started_at));
    assert_eq!(record.display_name.as_deref(), Some("ada"));
    assert!(record.latency_ms.is_some());
}

#[tokio::test]
async fn an_offline_channel_is_connected_by_the_channels_own_answer() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| knobs.zero_start_time = true);
    rig.kick().put_channel(KickChannelSpec {
        id: ADA,
        name: Some("Ada".to_owned()),
        title: Some("Compilers".to_owned()),
        category: Some("Science".to_owned()),
        ..KickChannelSpec::default()
    });
    rig.probe_one(ADA).await;
    let record = rig.record(ADA);
    assert_eq!(
        (record.status, record.stream_status),
        (Status::Connected, Offline)
    );
    assert_eq!(record.viewer_count, None);
    let metadata = metadata(&record);
    assert_eq!(record.display_name.as_deref(), Some("Ada"));
    assert_eq!(
        (metadata["slug"].as_str(), metadata["title"].as_str()),
        ("ada", "Compilers")
    );
    assert_eq!(metadata["category"], "Science");
}

#[tokio::test]
async fn a_stream_ends_only_after_ninety_seconds_of_absence() {
    let rig = Rig::start().await;
    rig.kick().go_live(ADA);
    rig.probe_one(ADA).await;
    rig.kick().end_stream(ADA);
    for (seconds, expected) in [(30, Online), (30, Online), (31, Online), (60, Offline)] {
        rig.later(seconds);
        rig.probe(&[Probe::Stream], &[ADA]).await;
        assert_eq!(rig.record(ADA).stream_status, expected, "after {seconds} more");
    }
}

#[tokio::test]
async fn a_hidden_viewer_count_is_absent_and_never_zero() {
    let rig = Rig::start().await;
    let hidden = KickStreamSpec {
        hidden_count: true,
        ..KickStreamSpec::default()
    };
    rig.kick().go_live_with(ADA, &hidden);
    rig.probe_one(ADA).await;
    let record = rig.record(ADA);
    assert_eq!((record.stream_status, record.viewer_count), (Online, None));
    assert_eq!(metadata(&record)["viewerCountMaybeHidden"], "true");
    assert_eq!(metadata(&record)["viewerCountRaw"], "0");
}

#[tokio::test]
async fn momentary_drop_to_one_viewer_is_stored_raw_only() {
    let rig = Rig::start().await;
    rig.kick().go_live(ADA);
    rig.kick().set_viewers(ADA, 300);
    rig.probe(&[Probe::Viewers], &[ADA]).await;
    rig.later(60);
    rig.kick().blip(ADA, 1);
    rig.probe(&[Probe::Viewers], &[ADA]).await;
    let record = rig.record(ADA);
    assert_eq!(record.viewer_count, Some(300));
    assert_eq!(metadata(&record)["viewerCountRaw"], "1");
    assert_eq!(metadata(&record)["viewerCountMaybeHidden"], "false");
}

#[tokio::test]
async fn a_channel_that_vanishes_is_not_found_and_no_longer_offline() {
    let rig = Rig::start().await;
    rig.probe_one(ADA).await;
    assert_eq!(rig.record(ADA).stream_status, Offline);
    rig.kick().vanish(ADA, true);
    rig.later(700);
    rig.probe_one(ADA).await;
    let record = rig.record(ADA);
    assert_eq!((record.status, record.stream_status), (Status::Error, Unknown));
    assert_eq!(
        record.last_error.unwrap().code,
        Code::NotFound(PlatformName::Kick)
    );
    // Until it is checked again, its absence from the list still proves nothing.
    rig.later(60);
    rig.probe(&[Probe::Stream], &[ADA]).await;
    assert_eq!(rig.record(ADA).stream_status, Unknown);
    rig.kick().vanish(ADA, false);
    rig.later(700);
    rig.probe_one(ADA).await;
    assert_eq!(rig.record(ADA).status, Status::Connected);
    assert_eq!(rig.record(ADA).stream_status, Offline);
}

#[tokio::test]
async fn a_list_that_lags_behind_a_start_claims_nothing() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| knobs.list_lag_up_ms = 19_000);
    rig.kick().go_live(ADA);
    rig.probe_one(ADA).await;
    assert_eq!(rig.record(ADA).stream_status, Unknown, "{}", rig.facts(ADA));
    rig.later(20);
    rig.probe_one(ADA).await;
    assert_eq!(rig.record(ADA).stream_status, Online);
}

#[tokio::test]
async fn a_batch_that_loses_one_channel_is_checked_singly() {
    let rig = Rig::start().await;
    let others: Vec<u64> = (1..=20).map(|n| 881_000 + n).collect();
    for id in &others {
        rig.kick().add_channel(*id, &format!("other-{id}"));
    }
    // The first response omits all channels.
    let empty = FaultBody::Json(serde_json::json!({"data": [], "message": "OK"}));
    rig.fail(Fault::body(empty).on("/public/v1/channels").times(1));
    rig.probe(&[Probe::Connection], &others).await;
    for id in &others {
        assert_ne!(rig.record(*id).status, Status::Error, "{id} is not gone");
    }
    rig.probe(&[Probe::Connection], &others).await;
    assert!(
        others
            .iter()
            .all(|id| rig.record(*id).status == Status::Connected)
    );
}

#[tokio::test]
async fn channels_are_requested_in_batches_of_25() {
    let rig = Rig::start().await;
    let ids: Vec<u64> = (1..=60).map(|n| 881_000 + n).collect();
    for id in &ids {
        rig.kick().add_channel(*id, &format!("other-{id}"));
        rig.kick().go_live(*id);
    }
    rig.probe(&[Probe::Connection, Probe::Stream], &ids).await;
    let asked = rig.kick().host().journal().requests("GET", "/public/v1/channels");
    assert!(asked.iter().all(|request| request.query.len() <= 25));
    assert!(ids.iter().all(|id| rig.record(*id).stream_status == Online));
    assert_eq!(rig.calls("/public/v1/users/livestreams"), 1);
}

#[tokio::test]
async fn one_id_that_spoils_a_batch_stands_alone() {
    let rig = Rig::start().await;
    let ids: Vec<u64> = (1..=20).map(|n| 881_000 + n).collect();
    for id in &ids {
        rig.kick().add_channel(*id, &format!("other-{id}"));
        rig.kick().go_live(*id);
    }
    let body = serde_json::json!({"data": {}, "message": "Invalid request"});
    let mut spoilt = Fault::status(400)
        .with_body(FaultBody::Json(body))
        .on("/public/v1/users/livestreams");
    spoilt.query = Some("user_id=881007".to_owned());
    rig.fail(spoilt);
    rig.probe(&[Probe::Stream], &ids).await;
    for id in &ids {
        let online = rig.record(*id).stream_status == Online;
        assert_eq!(online, *id != 881_007, "{id}");
    }
}

#[tokio::test]
async fn slugs_are_resolved_one_by_one_and_remembered_by_id() {
    for unknown_is_400 in [false, true] {
        let rig = Rig::start().await;
        rig.kick().knobs(|knobs| knobs.unknown_slug_400 = unknown_is_400);
        let names = [
            "ada",
            "nobody",
            "https://kick.com/Ada",
            "@bitbrat-bot",
            "no such slug!",
        ];
        let names: Vec<_> = names.map(str::to_owned).to_vec();
        let expected = [Some(key(ADA)), None, Some(key(ADA)), Some(key(BOT_ID)), None];
        assert_eq!(rig.platform.resolve(&names).await.unwrap(), expected);
        assert_eq!(rig.calls("/public/v1/channels"), 3, "{unknown_is_400}");
        // A rename is tracked by id, and shows in the details.
        rig.kick().add_channel(ADA, "ada-lovelace");
        rig.probe_one(ADA).await;
        rig.later(700);
        rig.probe_one(ADA).await;
        assert_eq!(metadata(&rig.record(ADA))["slug"], "ada-lovelace");
        let renamed = rig.platform.resolve(&["ada-lovelace".to_owned()]).await.unwrap();
        assert_eq!(renamed, [Some(key(ADA))]);
    }
}

#[tokio::test]
async fn unknown_fields_cause_no_problem() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| {
        knobs.unknown_fields = true;
        knobs.expires_in_text = true;
    });
    rig.kick().go_live(ADA);
    assert_eq!(rig.probe_one(ADA).await.problems, []);
    assert_eq!(rig.record(ADA).stream_status, Online);
}

#[tokio::test]
async fn two_thousand_channels_stay_within_twenty_requests_a_minute() {
    // A window of two seconds, so that three probes do not take three minutes.
    let window = Duration::from_secs(2);
    let rig = Rig::with(|options| options.requests_per_minute = 20, window).await;
    let ids: Vec<u64> = (1..=2_000).map(|n| 890_000 + n).collect();
    for id in &ids {
        rig.kick().add_channel(*id, &format!("many-{id}"));
        rig.kick().go_live(*id);
    }
    let begun = tokio::time::Instant::now();
    for look in 0..3 {
        rig.forget();
        rig.probe(&[Probe::Stream, Probe::Viewers], &ids).await;
        assert_eq!(rig.seen_live(), 2_000, "look {look}");
    }
    let took = begun.elapsed();
    assert!(rig.calls("/public/v1/users/livestreams") >= 60);
    // Twenty are sent at once, the next twenty only after a window has passed since: that takes its time. The arrival times are
    // less reliable, since a stalled machine delays some of them.
    let sent = rig.kick().host().journal().total();
    let minutes = u32::try_from((sent - 1) / 20).unwrap();
    assert!(took >= window * minutes, "{sent} requests took only {took:?}");
    assert!(minutes <= 5, "{sent} requests for three looks");
}

/// A row of the list of live streams, as the simulator answers it.
fn listed(started_at: &str, viewers: u64, id: &str) -> serde_json::Value {
    serde_json::json!({"id": id, "title": "T", "started_at": started_at, "viewer_count": viewers,
        "broadcaster_user": {"id": ADA, "username": "Ada"}, "channel": {"slug": "ada"}})
}

#[tokio::test]
async fn newer_of_two_rows_for_one_channel_is_the_live_stream() {
    let rig = Rig::start().await;
    let now = rig.sim.clock.now();
    let (older, newer) = (now.plus_secs(-7_200).to_string(), now.plus_secs(-60).to_string());
    let rows = [listed(&older, 7, "old"), listed(&newer, 77, "new")];
    let reversed = [rows[1].clone(), rows[0].clone()];
    for list in ["/public/v1/users/livestreams", "/public/v1/livestreams"] {
        rig.kick().host().faults().clear();
        if list == "/public/v1/livestreams" {
            rig.fail(Fault::status(404).on("/public/v1/users/livestreams"));
        }
        for rows in [&rows, &reversed, &rows] {
            let body = serde_json::json!({"data": rows, "message": "OK"});
            let fault = Fault::body(FaultBody::Json(body)).on(list).times(1);
            rig.fail(fault);
            rig.later(5);
            rig.forget();
            rig.probe(&[Probe::Stream, Probe::Viewers], &[ADA]).await;
            let seen: Vec<_> = rig
                .reported()
                .into_iter()
                .filter_map(|reported| match std::sync::Arc::unwrap_or_clone(reported.fact) {
                    Fact::StreamSeen { stream_id, .. } => Some(stream_id),
                    _ => None,
                })
                .collect();
            assert_eq!(seen, [instant(&newer)], "{list}");
            assert_eq!(rig.record(ADA).viewer_count, Some(77), "{list}");
        }
    }
}

#[tokio::test]
async fn newer_of_two_rows_in_the_channel_list_counts() {
    let rig = Rig::start().await;
    let row = |title: &str, live: bool, start: &str| {
        serde_json::json!({"broadcaster_user_id": ADA, "slug": "ada", "stream_title": title,
            "stream": {"is_live": live, "start_time": start}})
    };
    let rows = [
        row("old", false, "0001-01-01T00:00:00Z"),
        row("older", true, "2026-01-01T10:00:00Z"),
        row("new", true, "2026-01-01T12:00:00Z"),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let data: Vec<_> = order.iter().map(|place: &usize| rows[*place].clone()).collect();
        let body = serde_json::json!({"data": data, "message": "OK"});
        rig.kick().host().faults().clear();
        rig.fail(Fault::body(FaultBody::Json(body)).on("/public/v1/channels"));
        rig.forget();
        rig.another_process()
            .probe(&[Probe::Stream].into(), &[key(ADA)], &rig.notebook)
            .await;
        assert_eq!(metadata(&rig.record(ADA))["title"], "new", "{order:?}");
    }
}

#[tokio::test]
async fn error_with_status_200_never_ends_a_stream() {
    for path in [
        "/public/v1/users/livestreams",
        "/public/v1/channels",
        "/public/v1/livestreams",
    ] {
        for body in [
            serde_json::json!({"data": [], "message": "Internal server error"}),
            serde_json::json!({"data": [], "message": "Unauthorized"}),
            serde_json::json!({"data": [], "error": "Internal Server Error", "status": 500, "message": "boom"}),
        ] {
            let rig = Rig::start().await;
            if path == "/public/v1/livestreams" {
                let gone = Fault::status(404).on("/public/v1/users/livestreams");
                rig.fail(gone);
            }
            rig.fail(Fault::body(FaultBody::Json(body.clone())).on(path));
            rig.probe_one(ADA).await;
            let record = rig.record(ADA);
            if path != "/public/v1/channels" {
                assert_eq!(record.stream_status, Unknown, "{path} {body}");
            }
            assert_eq!(
                rig.knowledge(ADA).evidence.existence.missing,
                None,
                "{path} {body}"
            );
            assert!(record.last_error.is_some(), "{path} {body}");
        }
    }
}
