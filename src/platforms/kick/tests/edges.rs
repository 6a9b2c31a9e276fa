//! Limits, edges and outages: a failed probe changes what it proves and nothing else.

use std::time::Duration;

use super::super::options::APP;
use super::{ADA, Rig};
use crate::core::code::Code;
use crate::core::observation::{AuthResult, Identity};
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus::{Offline, Online};
use crate::core::verdict::Status;
use crate::platforms::{Platform, PlatformError, Probe};
use crate::sim::faults::{Fault, FaultBody, WireFault};
use crate::tokens::TokenStoreExt as _;

const LIST: &str = "/public/v1/users/livestreams";

async fn live_rig() -> Rig {
    let rig = Rig::start().await;
    rig.kick().go_live(ADA);
    rig.probe_one(ADA).await;
    assert_eq!(rig.record(ADA).stream_status, Online);
    rig.later(60);
    rig
}

#[tokio::test]
async fn api_failures_never_end_a_stream_or_revoke_a_token() {
    let waf = serde_json::json!({"error": "Request blocked by security policy.", "reference": "9e4db7e3"});
    for (fault, status) in [
        (
            Fault::status(403).with_body(FaultBody::Json(waf)),
            Status::Disconnected,
        ),
        (
            Fault::status(403).with_body(FaultBody::Html),
            Status::Disconnected,
        ),
        (
            Fault::status(401).with_body(FaultBody::Html),
            Status::Disconnected,
        ),
        (
            Fault::status(503).with_body(FaultBody::Html),
            Status::Disconnected,
        ),
        (Fault::body(FaultBody::Html), Status::Disconnected),
        (Fault::body(FaultBody::Empty), Status::Disconnected),
        (Fault::body(FaultBody::Garbage), Status::Disconnected),
        (Fault::body(FaultBody::Truncated), Status::Disconnected),
        (Fault::body(FaultBody::CutOff), Status::Disconnected),
        (Fault::body(FaultBody::Huge(4 << 20)), Status::Disconnected),
        (
            Fault::body(FaultBody::Json(serde_json::json!({"data": null}))),
            Status::Disconnected,
        ),
        (Fault::status(500), Status::Disconnected),
        (Fault::wire(WireFault::Reset), Status::Disconnected),
        (
            Fault::status(429).header("Retry-After", "3600"),
            // A server that limits the rate is reachable: existing evidence gets older, and nothing else changes.
            Status::Connected,
        ),
        (Fault::status(429), Status::Connected),
        // Without Kick's own message a refusal may come from any intermediary.
        (Fault::status(403), Status::Disconnected),
        (
            Fault::status(403).with_body(FaultBody::Json(
                serde_json::json!({"data": null, "message": "Forbidden"}),
            )),
            Status::Error,
        ),
    ] {
        let rig = live_rig().await;
        rig.fail(fault.clone().on(LIST));
        rig.probe(&[Probe::Stream, Probe::Viewers], &[ADA]).await;
        let record = rig.record(ADA);
        assert_eq!(record.stream_status, Online, "{fault:?}");
        assert_eq!(record.auth_status, Some(AuthResult::Valid), "{fault:?}");
        assert_eq!(record.status, status, "{fault:?} {:?}", record.last_error);
        assert!(record.last_error.is_some());
    }
}

#[tokio::test]
async fn foreign_refusal_of_kick_is_no_refusal() {
    let foreign = serde_json::json!({"statusCode": 400, "error": "Bad Request", "message": "no"});
    for status in [400, 401, 403, 404] {
        for body in [
            FaultBody::Empty,
            FaultBody::Html,
            FaultBody::Text("no".to_owned()),
            FaultBody::Json(foreign.clone()),
        ] {
            let rig = live_rig().await;
            let fault = Fault::status(status).with_body(body);
            rig.fail(fault.clone().on("/public"));
            rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
            let record = rig.record(ADA);
            assert_eq!(record.stream_status, Online, "{fault:?}");
            assert_eq!(record.auth_status, Some(AuthResult::Valid), "{fault:?}");
            assert_eq!(record.status, Status::Disconnected, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn long_wait_that_an_edge_requests_ends_the_request() {
    let unreadable = serde_json::json!({"data": [], "error": "boom", "message": "OK"});
    for fault in [
        Fault::status(403).with_body(FaultBody::Html),
        Fault::status(503).with_body(FaultBody::Html),
        Fault::body(FaultBody::Json(unreadable)),
    ] {
        let rig = live_rig().await;
        rig.fail(fault.clone().header("Retry-After", "3600").on(LIST));
        let probe = rig.probe(&[Probe::Stream], &[ADA]);
        let ended = tokio::time::timeout(Duration::from_secs(60), probe).await;
        assert!(ended.is_ok(), "{fault:?}");
        assert_eq!(rig.record(ADA).stream_status, Online, "{fault:?}");
    }
}

#[tokio::test]
async fn one_failed_call_is_repeated() {
    for fault in [
        Fault::status(500),
        Fault::status(503).with_body(FaultBody::Html),
        Fault::status(403).with_body(FaultBody::Html),
        Fault::status(429).header("Retry-After", "1"),
        Fault::wire(WireFault::Reset),
    ] {
        let rig = live_rig().await;
        rig.fail(fault.clone().on(LIST).times(1));
        rig.probe(&[Probe::Stream], &[ADA]).await;
        let record = rig.record(ADA);
        assert_eq!(record.status, Status::Connected, "{fault:?}");
        assert!(record.last_error.is_none(), "{fault:?}");
    }
}

#[tokio::test]
async fn rate_limit_without_wait_pauses_all_requests() {
    let rig = live_rig().await;
    rig.fail(Fault::status(429));
    let summary = rig.probe_one(ADA).await;
    assert_eq!(summary.calls, 1, "{summary:?}");
    let sent = rig.kick().host().journal().total();
    rig.probe_one(ADA).await;
    assert_eq!(rig.kick().host().journal().total(), sent);
    assert_eq!(rig.platform.rate_limits()[0].left, 0);
    let resolved = rig.platform.resolve(&["somebody".to_owned()]).await;
    assert!(matches!(resolved, Err(PlatformError::RateLimited { .. })));
}

#[tokio::test]
async fn the_platforms_own_limit_a_minute_is_survived() {
    let rig = Rig::with(
        |options| options.patience = Duration::from_secs(5),
        Duration::from_mins(1),
    )
    .await;
    rig.kick().knobs(|knobs| {
        knobs.requests_per_minute = Some(1);
        knobs.retry_after = Some(1);
    });
    rig.kick().go_live(ADA);
    rig.probe(&[Probe::Stream], &[ADA]).await;
    assert!(rig.record(ADA).status != Status::Error);
    rig.kick().knobs(|knobs| knobs.requests_per_minute = None);
    rig.probe(&[Probe::Stream], &[ADA]).await;
    assert_eq!(rig.record(ADA).stream_status, Online);
}

#[tokio::test]
async fn failed_channel_request_keeps_stream_list_result() {
    let rig = live_rig().await;
    rig.later(700);
    rig.fail(Fault::status(500).on("/public/v1/channels"));
    rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
    let record = rig.record(ADA);
    assert_eq!((record.status, record.stream_status), (Status::Connected, Online));
    assert_eq!(record.last_error.unwrap().code, Code::Http(500));
}

#[tokio::test]
async fn failing_stream_list_does_not_make_connection_flap() {
    let rig = live_rig().await;
    let fault = rig.fail(Fault::status(500).on(LIST));
    // Every ten minutes the channels are requested too.
    for minute in 0..25 {
        rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
        assert_eq!(rig.record(ADA).status, Status::Disconnected, "minute {minute}");
        rig.later(60);
    }
    assert!(rig.calls("/public/v1/channels") >= 3);
    rig.kick().host().faults().remove(fault);
    rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
    assert_eq!(rig.record(ADA).status, Status::Connected);
}

#[tokio::test]
async fn recovered_stream_list_ends_failure_of_offline_channel() {
    let rig = Rig::start().await;
    rig.probe_one(ADA).await;
    rig.later(60);
    let faults = rig.kick().host().faults();
    let list = faults.add(Fault::status(500).on(LIST));
    rig.probe(&[Probe::Stream], &[ADA]).await;
    assert_eq!(rig.record(ADA).status, Status::Disconnected);
    faults.remove(list);
    rig.later(60);
    // A process that has no channel yet, and cannot request any.
    faults.add(Fault::status(500).on("/public/v1/channels"));
    let probes = [Probe::Stream].into();
    let another = rig.another_process();
    another.probe(&probes, &[super::key(ADA)], &rig.notebook).await;
    assert_eq!(rig.record(ADA).status, Status::Connected, "{}", rig.facts(ADA));
}

#[tokio::test]
async fn oauth_rate_limit_is_not_an_api_failure() {
    let rig = live_rig().await;
    // The application must obtain a new token, which is refused.
    rig.store.set_token(&Identity::named(APP), None).await.unwrap();
    let fault = Fault::status(429).header("Retry-After", "90");
    rig.fail(fault.on("/oauth"));
    rig.probe(&[Probe::Auth], &[ADA]).await;
    let record = rig.record(ADA);
    assert_eq!(record.status, Status::Connected);
    assert_eq!(
        record.last_error.unwrap().code,
        Code::RateLimited(PlatformName::Kick)
    );
}

#[tokio::test]
async fn requests_skipped_by_rate_limit_change_nothing() {
    let rig = live_rig().await;
    rig.fail(Fault::status(429));
    rig.probe(&[Probe::Stream], &[ADA]).await;
    let refused = rig.record(ADA);
    assert_eq!(refused.status, Status::Connected);
    assert_eq!(
        refused.last_error.as_ref().unwrap().code,
        Code::RateLimited(PlatformName::Kick)
    );
    rig.later(60);
    let summary = rig.probe(&[Probe::Stream], &[ADA]).await;
    assert_eq!((summary.calls, summary.problems.len()), (0, 1), "{summary:?}");
    assert_eq!(rig.record(ADA), refused, "nothing new is known");
}

#[tokio::test]
async fn older_stream_list_is_used_when_the_newer_is_missing() {
    let rig = Rig::start().await;
    rig.kick().go_live(ADA);
    let unknown = FaultBody::Json(serde_json::json!({"message": "Not Found"}));
    rig.fail(Fault::status(404).with_body(unknown).on(LIST));
    rig.probe_one(ADA).await;
    let record = rig.record(ADA);
    assert_eq!((record.status, record.stream_status), (Status::Connected, Online));
    assert_eq!(super::metadata(&record)["slug"], "ada");
    let asked = rig.calls(LIST);
    rig.later(60);
    rig.probe(&[Probe::Stream], &[ADA]).await;
    assert_eq!(rig.calls(LIST), asked, "it is not asked in vain again");
    assert!(rig.calls("/public/v1/livestreams") >= 2);
    rig.kick().end_stream(ADA);
    for _ in 0..3 {
        rig.later(60);
        rig.probe(&[Probe::Stream], &[ADA]).await;
    }
    assert_eq!(rig.record(ADA).stream_status, Offline);
}

#[tokio::test]
async fn an_unreadable_item_makes_no_absence() {
    let rig = live_rig().await;
    let odd = serde_json::json!({"data": [{"broadcaster_user": "who?"}], "message": "OK"});
    rig.fail(Fault::body(FaultBody::Json(odd)).on(LIST));
    for _ in 0..4 {
        rig.later(60);
        rig.probe(&[Probe::Stream], &[ADA]).await;
    }
    assert_eq!(rig.record(ADA).stream_status, Online);
}

/// Makes the list of live streams return this body.
fn list_answers(rig: &Rig, body: &str) {
    let faults = rig.kick().host().faults();
    faults.clear();
    faults.add(Fault::body(FaultBody::Text(body.to_owned())).on(LIST));
}

#[tokio::test]
async fn half_an_emoji_in_a_title_disconnects_nothing() {
    let rig = live_rig().await;
    let row = format!(
        r#"{{"id":"s","title":"cut \ud83d","started_at":"2026-06-01T11:00:00Z","viewer_count":"42",
        "broadcaster_user":{{"id":"{ADA}","username":null}},"category":null,"channel":null}}"#
    );
    list_answers(&rig, &format!(r#"{{"data":[{row}],"message":"OK"}}"#));
    rig.probe(&[Probe::Stream, Probe::Viewers], &[ADA]).await;
    let record = rig.record(ADA);
    assert_eq!(record.status, Status::Connected);
    assert_eq!(record.metadata["title"], "cut \u{fffd}");
    assert_eq!(record.viewer_count, Some(42));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_not_an_absence() {
    for rows in [
        r#"[{"id":null}]"#.to_owned(),
        "[[]]".to_owned(),
        "[null]".to_owned(),
        r#"[{"id":"x","started_at":"2026-06-01T11:00:00Z","broadcaster_user":{"id":12}}]"#.to_owned(),
        format!(r#"[{{"broadcaster_user":[{ADA}],"id":"x"}}]"#),
        r#"[{"id":"x","broadcaster_user":{"id":0}}]"#.to_owned(),
        r#"[{"id":"x","broadcaster_user":{"id":"0"}}]"#.to_owned(),
        r#"[{"broadcaster_user_id":-7}]"#.to_owned(),
        r#"[{"broadcaster_user_id":1e30}]"#.to_owned(),
    ] {
        let rig = live_rig().await;
        list_answers(&rig, &format!(r#"{{"data":{rows},"message":"OK"}}"#));
        for _ in 0..4 {
            rig.probe(&[Probe::Stream], &[ADA]).await;
            rig.later(60);
        }
        let record = rig.record(ADA);
        assert_eq!(
            (record.status, record.stream_status),
            (Status::Connected, Online),
            "{rows}"
        );
    }
}

#[tokio::test]
async fn slug_of_a_row_with_an_impossible_id_is_not_resolved() {
    for id in ["0", "\"0\"", "-7", "7.5", "1e30", "null"] {
        let rig = Rig::start().await;
        let body = format!(r#"{{"data":[{{"broadcaster_user_id":{id},"slug":"eve"}}],"message":"OK"}}"#);
        let fault = Fault::body(FaultBody::Text(body)).on("/public/v1/channels");
        rig.fail(fault);
        let resolved = rig.platform.resolve(&["eve".to_owned()]).await;
        assert!(!matches!(resolved, Ok(found) if found[0].is_some()), "{id}");
    }
}

#[tokio::test]
async fn impossible_viewer_count_is_left_out() {
    for viewers in [
        "-5",
        "1e30",
        "\"many\"",
        "\"-5\"",
        "true",
        "[7]",
        "18446744073709551616",
    ] {
        let rig = live_rig().await;
        rig.forget();
        let row = format!(
            r#"{{"id":"s","started_at":"2026-06-01T11:00:00Z","viewer_count":{viewers},"broadcaster_user":{{"id":{ADA}}}}}"#
        );
        list_answers(&rig, &format!(r#"{{"data":[{row}],"message":"OK"}}"#));
        rig.probe(&[Probe::Stream, Probe::Viewers], &[ADA]).await;
        let record = rig.record(ADA);
        assert_eq!(
            (record.stream_status, record.viewer_count),
            (Online, None),
            "{viewers}"
        );
    }
}

#[tokio::test]
async fn answer_without_its_list_ends_neither_stream_nor_channel() {
    for body in [
        r#"{"data":null,"message":"OK"}"#,
        r#"{"data":null}"#,
        r#"{"data":{},"message":"OK"}"#,
        r#"{"data":"x","message":"OK"}"#,
        r#"{"data":false,"message":"OK"}"#,
        r#"{"message":"OK"}"#,
        "{}",
        "null",
        "[]",
    ] {
        for path in ["/public/v1/channels", LIST, "/public/v1/users"] {
            let rig = live_rig().await;
            rig.kick().host().faults().clear();
            let fault = Fault::body(FaultBody::Text(body.to_owned())).on(path);
            rig.fail(fault);
            for _ in 0..4 {
                rig.later(700);
                rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
            }
            let record = rig.record(ADA);
            assert_eq!(record.stream_status, Online, "{path} {body}");
            assert_ne!(record.status, Status::Error, "{path} {body}");
        }
        let rig = Rig::start().await;
        let fault = Fault::body(FaultBody::Text(body.to_owned())).on("/public/v1/channels");
        rig.fail(fault);
        assert!(rig.platform.resolve(&["ada".to_owned()]).await.is_err(), "{body}");
        rig.probe_one(ADA).await;
        let record = rig.record(ADA);
        assert_ne!(record.status, Status::Error, "{body}: {:?}", record.last_error);
        assert!(!rig.facts(ADA).contains("NoSuchSource"), "{body}");
    }
}

#[tokio::test]
async fn probe_after_a_web_page_names_the_page_as_the_reason() {
    for status in [200, 403, 503] {
        let rig = live_rig().await;
        let page = FaultBody::Text("<!DOCTYPE html><title>Just a moment</title>".to_owned());
        let fault = Fault::status(status)
            .with_body(page)
            .header("content-type", "text/html");
        rig.fail(fault);
        for probe in ["first", "second"] {
            let summary = rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
            let texts: Vec<_> = summary.problems.iter().map(|problem| &problem.text).collect();
            assert!(!texts.is_empty(), "{status} {probe}");
            for text in texts {
                assert!(text.contains("a web page came"), "{status} {probe}: {text}");
            }
            rig.later(5);
        }
        assert_eq!(rig.record(ADA).stream_status, Online, "{status}");
        assert_eq!(rig.record(ADA).status, Status::Disconnected, "{status}");
    }
}
