//! Live, offline, hidden, vanished: what a look makes of a channel.

use std::time::Duration;

use super::{ADA, BOT_ID, Rig, key, metadata};
use crate::core::stream::StreamStatus::{Offline, Online, Unknown};
use crate::core::verdict::Status;
use crate::platforms::{Platform, Probe};
use crate::sim::faults::{Fault, FaultBody};
use crate::sim::kick::{KickChannelSpec, KickStreamSpec};

#[tokio::test]
async fn a_live_channel_is_online_with_its_start_as_the_streams_name() {
    let rig = Rig::start().await;
    let started_at = rig.kick().go_live(ADA).unwrap();
    let summary = rig.look_at(ADA).await;
    assert_eq!(summary.problems, [""; 0]);
    let record = rig.record(ADA);
    assert_eq!((record.status, record.stream_status), (Status::Connected, Online));
    assert_eq!(record.viewer_count, Some(12));
    assert_eq!(record.metadata["session"]["streamId"], started_at.as_str());
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
    rig.look_at(ADA).await;
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
    rig.look_at(ADA).await;
    rig.kick().end_stream(ADA);
    for (seconds, expected) in [(30, Online), (30, Online), (31, Online), (60, Offline)] {
        rig.later(seconds);
        rig.look(&[Probe::Stream], &[ADA]).await;
        assert_eq!(rig.record(ADA).stream_status, expected, "after {seconds} more");
    }
}

#[tokio::test]
async fn zero_viewers_may_be_hidden_and_never_mean_offline() {
    let rig = Rig::start().await;
    let hidden = KickStreamSpec {
        hidden_count: true,
        ..KickStreamSpec::default()
    };
    rig.kick().go_live_with(ADA, &hidden);
    rig.look_at(ADA).await;
    let record = rig.record(ADA);
    assert_eq!((record.stream_status, record.viewer_count), (Online, Some(0)));
    assert_eq!(metadata(&record)["viewerCountMaybeHidden"], "true");
}

#[tokio::test]
async fn a_blip_to_one_viewer_is_kept_raw_and_not_believed() {
    let rig = Rig::start().await;
    rig.kick().go_live(ADA);
    rig.kick().set_viewers(ADA, 300);
    rig.look(&[Probe::Viewers], &[ADA]).await;
    rig.later(60);
    rig.kick().blip(ADA, 1);
    rig.look(&[Probe::Viewers], &[ADA]).await;
    let record = rig.record(ADA);
    assert_eq!(record.viewer_count, Some(300));
    assert_eq!(metadata(&record)["viewerCountRaw"], "1");
    assert_eq!(metadata(&record)["viewerCountMaybeHidden"], "false");
}

#[tokio::test]
async fn a_channel_that_vanishes_is_not_found_and_no_longer_offline() {
    let rig = Rig::start().await;
    rig.look_at(ADA).await;
    assert_eq!(rig.record(ADA).stream_status, Offline);
    rig.kick().vanish(ADA, true);
    rig.later(700);
    rig.look_at(ADA).await;
    let record = rig.record(ADA);
    assert_eq!((record.status, record.stream_status), (Status::Error, Unknown));
    assert_eq!(record.last_error.unwrap().code, "kick.not_found");
    // Until it is looked up again, its absence from the list stays meaningless.
    rig.later(60);
    rig.look(&[Probe::Stream], &[ADA]).await;
    assert_eq!(rig.record(ADA).stream_status, Unknown);
    rig.kick().vanish(ADA, false);
    rig.later(700);
    rig.look_at(ADA).await;
    assert_eq!(rig.record(ADA).status, Status::Connected);
    assert_eq!(rig.record(ADA).stream_status, Offline);
}

#[tokio::test]
async fn a_channel_that_never_was_is_never_called_offline() {
    let rig = Rig::start().await;
    rig.look_at(999_999).await;
    let record = rig.record(999_999);
    assert_eq!((record.status, record.stream_status), (Status::Error, Unknown));
}

#[tokio::test]
async fn a_list_that_lags_behind_a_start_claims_nothing() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| knobs.list_lag_up_ms = 19_000);
    rig.kick().go_live(ADA);
    rig.look_at(ADA).await;
    assert_eq!(rig.record(ADA).stream_status, Unknown, "{}", rig.facts(ADA));
    rig.later(20);
    rig.look_at(ADA).await;
    assert_eq!(rig.record(ADA).stream_status, Online);
}

#[tokio::test]
async fn a_batch_that_loses_one_channel_is_checked_singly() {
    let rig = Rig::start().await;
    let others: Vec<u64> = (1..=20).map(|n| 881_000 + n).collect();
    for id in &others {
        rig.kick().add_channel(*id, &format!("other-{id}"));
    }
    // The first answer loses everybody.
    let empty = FaultBody::Json(serde_json::json!({"data": [], "message": "OK"}));
    rig.kick()
        .host()
        .faults()
        .add(Fault::body(empty).on("/public/v1/channels").times(1));
    rig.look(&[Probe::Connection], &others).await;
    for id in &others {
        assert_ne!(rig.record(*id).status, Status::Error, "{id} is not gone");
    }
    rig.look(&[Probe::Connection], &others).await;
    assert!(
        others
            .iter()
            .all(|id| rig.record(*id).status == Status::Connected)
    );
}

#[tokio::test]
async fn channels_are_asked_for_in_twenty_fives_so_that_none_is_corrupted() {
    let rig = Rig::start().await;
    let ids: Vec<u64> = (1..=60).map(|n| 881_000 + n).collect();
    for id in &ids {
        rig.kick().add_channel(*id, &format!("other-{id}"));
        rig.kick().go_live(*id);
    }
    rig.look(&[Probe::Connection, Probe::Stream], &ids).await;
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
    let mut spoilt = Fault::status(400).on("/public/v1/users/livestreams");
    spoilt.query = Some("user_id=881007".to_owned());
    rig.kick().host().faults().add(spoilt);
    rig.look(&[Probe::Stream], &ids).await;
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
        // A rename is followed by id, and shows in the details.
        rig.kick().add_channel(ADA, "ada-lovelace");
        rig.look_at(ADA).await;
        rig.later(700);
        rig.look_at(ADA).await;
        assert_eq!(metadata(&rig.record(ADA))["slug"], "ada-lovelace");
        let renamed = rig.platform.resolve(&["ada-lovelace".to_owned()]).await.unwrap();
        assert_eq!(renamed, [Some(key(ADA))]);
    }
}

#[tokio::test]
async fn unknown_fields_are_no_trouble() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| {
        knobs.unknown_fields = true;
        knobs.expires_in_text = true;
    });
    rig.kick().go_live(ADA);
    assert_eq!(rig.look_at(ADA).await.problems, [""; 0]);
    assert_eq!(rig.record(ADA).stream_status, Online);
}

#[tokio::test]
async fn two_thousand_channels_stay_within_twenty_requests_a_minute() {
    // A minute of two seconds, so that three looks do not take three minutes.
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
        rig.look(&[Probe::Stream, Probe::Viewers], &ids).await;
        assert_eq!(rig.seen_live(), 2_000, "look {look}");
    }
    let took = begun.elapsed();
    assert!(rig.calls("/public/v1/users/livestreams") >= 60);
    // Twenty go at once, the next twenty only when a minute has passed since: that takes its time. When each of them arrived
    // says less, since a machine that stalls delays some of them.
    let sent = rig.kick().host().journal().total();
    let minutes = u32::try_from((sent - 1) / 20).unwrap();
    assert!(took >= window * minutes, "{sent} requests took only {took:?}");
    assert!(minutes <= 5, "{sent} requests for three looks");
}
