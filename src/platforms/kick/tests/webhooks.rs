//! Webhooks, from the simulated Kick's signature to observations, and subscriptions compared with its list.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{ADA, BOT_ID, Notebook, Rig, instant, key};
use crate::clock::Clock as _;
use crate::core::code::Code;
use crate::core::counters::Counters;
use crate::core::observation::{Fact, Observation};
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus::{Offline, Online};
use crate::core::verdict::Status;
use crate::platforms::kick::webhook::{self, PATH, WebhookCounts, WebhookListener};
use crate::platforms::{Probe, ProbeSink};
use crate::sim::faults::{Fault, FaultBody};
use crate::sim::kick::{KickChannelSpec, KickChatSpec, KickStreamSpec, WebhookKnobs};

/// A rig whose Kick delivers to a listener.
struct Hooked {
    rig: Rig,
    listener: Arc<WebhookListener>,
    out: mpsc::Receiver<Observation>,
    url: String,
    _server: AbortOnDropHandle<()>,
}

impl Hooked {
    async fn start() -> Self {
        Self::with_room_for(1_000).await
    }

    async fn with_room_for(places: usize) -> Self {
        Self::with(places, 0).await
    }

    /// `skew`: how far Kick's clock is ahead of ours, in milliseconds.
    async fn with(places: usize, skew: i64) -> Self {
        let rig = Rig::with(
            |options| options.bot_user_id = Some(BOT_ID),
            std::time::Duration::from_mins(1),
        )
        .await;
        rig.sim.clock.set_skew(skew);
        let (sender, out) = mpsc::channel(places);
        let listener = rig.platform.webhook_listener(sender, "test");
        listener.track(&[key(ADA)]);
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{PATH}", socket.local_addr().unwrap());
        let app = webhook::routes(Arc::clone(&listener));
        let server = crate::sim::host::own(async move { axum::serve(socket, app).await.unwrap() });
        rig.kick().set_webhook_url(Some(&url));
        let hooked = Self {
            rig,
            listener,
            out,
            url,
            _server: server,
        };
        let done = hooked.reconcile(&[]).await;
        assert_eq!((done.created, done.left), (3, 0), "{done:?}");
        hooked
    }

    async fn reconcile(&self, renew: &[u64]) -> super::super::Reconciled {
        let renew: Vec<_> = renew.iter().map(|id| key(*id)).collect();
        let platform = &self.rig.platform;
        platform
            .reconcile_webhooks(&[key(ADA)], &renew, 10, &self.rig.notebook)
            .await
            .unwrap()
    }

    /// Waits until Kick has posted `count` deliveries in all; returns their statuses.
    async fn delivered(&self, count: usize) -> Vec<Option<u16>> {
        for _ in 0..1_000 {
            let all = self.rig.kick().deliveries();
            if all.len() >= count {
                return all.iter().map(|delivery| delivery.status).collect();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("only {:?}", self.rig.kick().deliveries());
    }

    /// Moves the listener's observations to the collecting sink.
    fn collect(&mut self) -> usize {
        let mut count = 0;
        while let Ok(observation) = self.out.try_recv() {
            self.rig.notebook.observe(observation);
            count += 1;
        }
        count
    }

    fn knobs(&self, change: impl FnOnce(&mut WebhookKnobs)) {
        self.rig.kick().knobs(|knobs| change(&mut knobs.webhooks));
    }
}

#[tokio::test]
async fn webhook_stream_is_online_at_once_and_its_end_final() {
    let mut hooked = Hooked::start().await;
    hooked.rig.kick().knobs(|knobs| {
        knobs.list_lag_up_ms = 10_000;
        knobs.list_lag_down_ms = 19_000;
    });
    let started_at = hooked.rig.kick().go_live(ADA).unwrap();
    assert_eq!(hooked.delivered(1).await, [Some(200)]);
    hooked.collect();
    let record = hooked.rig.record(ADA);
    assert_eq!((record.status, record.stream_status), (Status::Connected, Online));
    assert_eq!(record.metadata["session"]["streamId"], instant(&started_at));
    // The list uses the same id.
    hooked.rig.later(30);
    hooked.rig.probe(&[Probe::Stream, Probe::Viewers], &[ADA]).await;
    let record = hooked.rig.record(ADA);
    assert_eq!(record.metadata["session"]["streamId"], instant(&started_at));
    assert_eq!(record.viewer_count, Some(12));
    hooked.rig.later(30);
    hooked.rig.kick().end_stream(ADA);
    hooked.delivered(2).await;
    hooked.collect();
    assert_eq!(hooked.rig.record(ADA).stream_status, Offline);
    // The list still shows it for a while.
    hooked.rig.later(10);
    hooked.rig.probe(&[Probe::Stream], &[ADA]).await;
    assert_eq!(hooked.rig.record(ADA).stream_status, Offline);
    assert_eq!(hooked.listener.counts().accepted, 2);
}

#[tokio::test]
async fn webhook_start_without_a_time_is_completed_by_polls() {
    for started_at in [
        Some(json!(null)),
        Some(json!("")),
        Some(json!("0001-01-01T00:00:00Z")),
        None,
    ] {
        let mut hooked = Hooked::start().await;
        let mut body = json!({"broadcaster": {"user_id": ADA}, "is_live": true, "title": "T"});
        body.as_object_mut()
            .unwrap()
            .extend(started_at.map(|start| ("started_at".to_owned(), start)));
        hooked.rig.kick().emit(webhook::STATUS, ADA, &body);
        assert_eq!(hooked.delivered(1).await, [Some(200)], "{body}");
        hooked.collect();
        assert_eq!(hooked.rig.record(ADA).stream_status, Online, "{body}");
        let silent = KickStreamSpec {
            silent: true,
            ..KickStreamSpec::default()
        };
        let started_at = hooked.rig.kick().go_live_with(ADA, &silent).unwrap();
        hooked.rig.later(30);
        hooked.rig.probe(&[Probe::Stream], &[ADA]).await;
        let record = hooked.rig.record(ADA);
        assert_eq!(record.stream_status, Online, "{body}");
        assert_eq!(record.metadata["session"]["streamId"], instant(&started_at));
        hooked.rig.kick().end_stream(ADA);
        hooked.delivered(2).await;
        hooked.collect();
        assert_eq!(hooked.rig.record(ADA).stream_status, Offline, "{body}");
        assert_eq!(hooked.listener.counts().unusable, 0);
    }
}

#[tokio::test]
async fn webhook_start_in_the_future_hides_no_later_stream() {
    let mut hooked = Hooked::start().await;
    for ahead in [5, 20, 240] {
        let now = hooked.rig.sim.clock.now();
        let start = now.plus_secs(ahead).to_string();
        let before = hooked.rig.kick().deliveries().len();
        for (n, live) in [(1, true), (2, false)] {
            let body =
                json!({"broadcaster": {"user_id": ADA}, "is_live": live, "title": "T", "started_at": start});
            hooked.rig.kick().emit(webhook::STATUS, ADA, &body);
            assert_eq!(hooked.delivered(before + n).await.last(), Some(&Some(200)));
            hooked.rig.later(1);
        }
        hooked.collect();
        assert_eq!(hooked.rig.record(ADA).stream_status, Offline, "{ahead}");
        let silent = KickStreamSpec {
            silent: true,
            ..KickStreamSpec::default()
        };
        let started_at = hooked.rig.kick().go_live_with(ADA, &silent).unwrap();
        hooked.rig.later(5);
        hooked.rig.probe(&[Probe::Stream, Probe::Viewers], &[ADA]).await;
        let record = hooked.rig.record(ADA);
        assert_eq!(
            (record.stream_status, record.viewer_count),
            (Online, Some(12)),
            "{ahead}"
        );
        assert_eq!(record.metadata["session"]["streamId"], instant(&started_at));
        hooked.rig.kick().end_stream_with(ADA, Some(0), false);
        hooked.delivered(before + 3).await;
        hooked.collect();
        hooked.rig.later(120);
    }
}

#[tokio::test]
async fn titles_chat_and_badges_arrive_and_own_chat_is_not_counted() {
    let mut hooked = Hooked::start().await;
    let before = Counters {
        messages_in: 40,
        ..Counters::default()
    };
    hooked.listener.restore(&key(ADA), before);
    hooked.rig.kick().put_channel(KickChannelSpec {
        id: ADA,
        title: Some("Parsers".to_owned()),
        category: Some("Science".to_owned()),
        ..KickChannelSpec::default()
    });
    let said = KickChatSpec {
        count: 2,
        ..KickChatSpec::default()
    };
    hooked.rig.kick().chat(ADA, &said);
    let own = KickChatSpec {
        user_id: BOT_ID,
        badges: vec!["moderator".to_owned()],
        ..KickChatSpec::default()
    };
    hooked.rig.kick().chat(ADA, &own);
    assert_eq!(hooked.delivered(4).await, [Some(200); 4]);
    hooked.collect();
    let record = hooked.rig.record(ADA);
    assert_eq!(
        (&record.metadata["title"], &record.metadata["category"]),
        (&json!("Parsers"), &json!("Science"))
    );
    assert_eq!(record.metrics.messages_in, 42);
    assert_eq!(record.held(), ["badge:moderator"]);
    // The adapter stores the badge too, and lets it expire.
    hooked.rig.log_in(&["user:read"], 0).await;
    hooked.rig.later(8 * 86_400);
    hooked.rig.probe(&[Probe::Permissions], &[ADA]).await;
    assert!(
        !hooked
            .rig
            .record(ADA)
            .held()
            .contains(&"badge:moderator".to_owned())
    );
}

#[tokio::test]
async fn forged_and_replayed_deliveries_are_rejected_and_counted() {
    let mut hooked = Hooked::start().await;
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    hooked.delivered(1).await;
    hooked.collect();
    for (change, refused) in [
        (
            (|knobs: &mut WebhookKnobs| knobs.bad_signature = true) as fn(&mut WebhookKnobs),
            WebhookCounts {
                accepted: 1,
                forged: 1,
                ..WebhookCounts::default()
            },
        ),
        (
            |knobs| knobs.age_ms = 400_000,
            WebhookCounts {
                accepted: 1,
                forged: 1,
                stale: 1,
                ..WebhookCounts::default()
            },
        ),
        (
            |knobs| knobs.age_ms = -400_000,
            WebhookCounts {
                accepted: 1,
                forged: 1,
                stale: 2,
                ..WebhookCounts::default()
            },
        ),
        (
            |knobs| knobs.false_type = Some("livestream.status.updated".to_owned()),
            WebhookCounts {
                accepted: 1,
                forged: 2,
                stale: 2,
                ..WebhookCounts::default()
            },
        ),
    ] {
        hooked.knobs(change);
        let before = hooked.rig.kick().deliveries().len();
        hooked.rig.kick().chat(ADA, &KickChatSpec::default());
        let statuses = hooked.delivered(before + 1).await;
        assert_eq!(statuses.last(), Some(&Some(401)));
        assert_eq!(hooked.collect(), 0);
        assert_eq!(hooked.listener.counts(), refused);
        hooked.knobs(|knobs| *knobs = WebhookKnobs::default());
    }
}

#[tokio::test]
async fn webhooks_arrive_although_our_clock_is_wrong() {
    for skew in [-900_000, 900_000] {
        let mut hooked = Hooked::with(1_000, skew).await;
        hooked.rig.kick().go_live(ADA).unwrap();
        assert_eq!(hooked.delivered(1).await, [Some(200)], "{skew}");
        assert!(hooked.collect() > 0);
        assert_eq!(hooked.listener.counts().stale, 0, "{skew}");
    }
}

#[tokio::test]
async fn what_arrives_twice_counts_once() {
    let mut hooked = Hooked::start().await;
    hooked.knobs(|knobs| knobs.repeats = 2);
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    assert_eq!(hooked.delivered(3).await, [Some(200); 3]);
    hooked.knobs(|knobs| knobs.repeats = 0);
    // A second subscription delivers the same message under another message id.
    hooked.rig.kick().add_subscription("app", ADA, webhook::CHAT);
    hooked.reconcile(&[]).await;
    hooked.rig.kick().add_subscription("app", ADA, webhook::CHAT);
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    hooked.delivered(5).await;
    hooked.collect();
    assert_eq!(hooked.rig.record(ADA).metrics.messages_in, 2);
    let counts = hooked.listener.counts();
    assert_eq!((counts.accepted, counts.duplicate, counts.untracked), (2, 3, 0));
}

#[tokio::test]
async fn public_key_is_fetched_hourly_at_most_and_after_rotation() {
    let hooked = Hooked::start().await;
    let asked = || hooked.rig.calls("/public/v1/public-key");
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    hooked.delivered(1).await;
    assert_eq!(asked(), 1, "the built-in key is not the simulator's");
    hooked.knobs(|knobs| knobs.bad_signature = true);
    let many = KickChatSpec {
        count: 20,
        ..KickChatSpec::default()
    };
    hooked.rig.kick().chat(ADA, &many);
    hooked.delivered(21).await;
    assert_eq!(asked(), 1, "forgers cannot make us ask");
    hooked.knobs(|knobs| knobs.bad_signature = false);
    hooked.rig.later(3_601);
    hooked.rig.kick().rotate_key();
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    assert_eq!(hooked.delivered(22).await.last(), Some(&Some(200)));
    assert_eq!(asked(), 2);
}

#[tokio::test]
async fn a_key_behind_a_browser_challenge_leaves_the_old_one_in_place() {
    let hooked = Hooked::start().await;
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    hooked.delivered(1).await;
    let page = Fault::status(403)
        .with_body(FaultBody::Html)
        .on("/public/v1/public-key");
    hooked.rig.fail(page);
    hooked.rig.later(3_601);
    hooked.knobs(|knobs| knobs.bad_signature = true);
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    assert_eq!(hooked.delivered(2).await[1], Some(401));
    hooked.knobs(|knobs| knobs.bad_signature = false);
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    assert_eq!(hooked.delivered(3).await[2], Some(200));
}

#[tokio::test]
async fn bodies_are_bounded_and_other_events_and_channels_are_let_be() {
    let mut hooked = Hooked::start().await;
    let client = crate::sim::tests::client();
    let huge = client.post(&hooked.url).body(vec![b'x'; 1024 * 1024 + 1]);
    assert_eq!(huge.send().await.unwrap().status(), 413);
    let bare = client.post(&hooked.url).body("{}").send().await.unwrap();
    assert_eq!(bare.status(), 401);
    hooked.rig.kick().add_subscription("app", ADA, "channel.followed");
    hooked
        .rig
        .kick()
        .emit("channel.followed", ADA, &json!({"broadcaster": {}}));
    assert_eq!(hooked.delivered(1).await, [Some(200)]);
    hooked.listener.track(&[]);
    hooked.rig.kick().go_live(ADA);
    assert_eq!(hooked.delivered(2).await[1], Some(200));
    assert_eq!(hooked.collect(), 0);
    let counts = hooked.listener.counts();
    assert_eq!(
        (counts.oversized, counts.forged, counts.other, counts.untracked),
        (1, 1, 1, 1)
    );
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn signed_delivery_that_cannot_be_read_is_warned_about_once() {
    let hooked = Hooked::start().await;
    let log = Log::default();
    let writer = log.clone();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish(),
    );
    let start = r#""started_at":"2026-06-01T11:00:00Z""#;
    let bodies = [
        format!(r#"{{"broadcaster":{{"user_id":null}},"is_live":true,{start}}}"#),
        format!(r#"{{"broadcaster":{{"user_id":{ADA}}},"is_live":null,{start}}}"#),
        format!(r#"{{"broadcaster":{{"user_id":{ADA}}},"is_live":"true",{start}}}"#),
        format!(r#"{{"broadcaster":{{"user_id":{ADA}}},"is_live":0,{start}}}"#),
        format!(r#"{{"broadcaster":{{"user_id":{ADA}}},{start}}}"#),
        "{".to_owned(),
        "[]".to_owned(),
        String::new(),
    ];
    let mut sent = 0;
    let mut send = async |kind: &str, body: &str| {
        sent += 1;
        let (id, at) = (format!("01JZ{sent:022}"), hooked.rig.sim.clock.now().to_string());
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("kick-event-message-id", id.clone()),
            ("kick-event-message-timestamp", at.clone()),
            (
                "kick-event-signature",
                hooked.rig.kick().sign(&id, &at, body.as_bytes()),
            ),
            ("kick-event-type", kind.to_owned()),
            ("kick-event-version", "1".to_owned()),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        hooked.listener.receive(&headers, body.as_bytes()).await
    };
    for body in &bodies {
        assert_eq!(send(webhook::STATUS, body).await, 200, "{body}");
    }
    let warnings = || {
        let text = String::from_utf8(log.0.lock().clone()).unwrap();
        text.matches("cannot be read").count()
    };
    assert_eq!(warnings(), 1);
    assert_eq!(hooked.listener.counts().unusable, bodies.len() as u64);
    assert_eq!(send(webhook::METADATA, "{").await, 200);
    assert_eq!(warnings(), 2, "another type");
    hooked.rig.later(601);
    assert_eq!(send(webhook::STATUS, "{").await, 200);
    assert_eq!(warnings(), 3, "ten minutes later");
}

#[tokio::test]
async fn a_full_channel_holds_deliveries_off_and_takes_them_later() {
    let mut hooked = Hooked::with_room_for(4).await;
    hooked.knobs(|knobs| knobs.repeats = 1);
    hooked.rig.kick().go_live(ADA);
    hooked.delivered(2).await;
    // Proof, field and start are queued; the next one finds one place, which is all that it needs, and the third none.
    hooked.knobs(|knobs| knobs.repeats = 0);
    for _ in 0..2 {
        hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    }
    let statuses = hooked.delivered(4).await;
    assert_eq!(statuses.last(), Some(&Some(503)));
    assert!(hooked.listener.counts().held_off >= 1);
    let headers = HeaderMap::new();
    assert_eq!(hooked.listener.receive(&headers, b"{}").await, 401);
    hooked.collect();
    hooked.rig.kick().chat(ADA, &KickChatSpec::default());
    assert_eq!(hooked.delivered(5).await.last(), Some(&Some(200)));
}

#[tokio::test]
async fn webhook_with_missed_events_is_reported_and_renewed() {
    let hooked = Hooked::start().await;
    let poll = async |hooked: &Hooked| {
        let fresh = Notebook::default();
        let probes = [Probe::Stream].into();
        crate::platforms::Platform::probe(&hooked.rig.platform, &probes, &[key(ADA)], &fresh).await;
        for observation in fresh.0.into_inner() {
            hooked.listener.update(&observation);
        }
    };
    poll(&hooked).await;
    let silent = KickStreamSpec {
        silent: true,
        ..KickStreamSpec::default()
    };
    hooked.rig.kick().go_live_with(ADA, &silent);
    poll(&hooked).await;
    assert!(hooked.listener.take_missing().is_empty());
    hooked.rig.later(181);
    let found = hooked.listener.take_missing();
    assert_eq!(found.len(), 1);
    let reported = |code: Code| {
        let facts = found[0].1.iter().map(|seen| &seen.fact);
        facts
            .into_iter()
            .any(|fact| matches!(&**fact, Fact::Problem { error } if error.code == code))
    };
    assert!(reported(Code::PushSilent(PlatformName::Kick)));
    let before = hooked.rig.kick().subscriptions();
    let done = hooked.reconcile(&[ADA]).await;
    assert_eq!((done.created, done.deleted), (3, 3));
    assert_ne!(before, hooked.rig.kick().subscriptions());
    assert_eq!(
        hooked.rig.record(ADA).status,
        Status::Connected,
        "silence alone is no disconnection"
    );
}

#[tokio::test]
async fn subscriptions_are_reconciled_in_batches_leaving_others() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| knobs.duplicate_subscriptions = true);
    let ids: Vec<u64> = (1..=5).map(|n| 881_000 + n).collect();
    for id in &ids {
        rig.kick().add_channel(*id, &format!("other-{id}"));
    }
    for _ in 0..2 {
        rig.kick().add_subscription("app", ids[0], webhook::STATUS);
    }
    rig.kick().add_subscription("app", ADA, webhook::STATUS);
    let keys: Vec<_> = ids.iter().map(|id| key(*id)).collect();
    let reconcile = async |most| {
        rig.platform
            .reconcile_webhooks(&keys, &[], most, &rig.notebook)
            .await
            .unwrap()
    };
    let first = reconcile(3).await;
    assert_eq!((first.deleted, first.created, first.left), (1, 2 + 3, 3));
    assert_eq!(rig.record(ids[0]).status, Status::Connected);
    assert_eq!(rig.facts(ids[4]), "[]");
    let second = reconcile(10).await;
    assert_eq!((second.deleted, second.created, second.left), (0, 9, 0));
    let third = reconcile(10).await;
    assert_eq!((third.deleted, third.created, third.left), (0, 0, 0));
    assert_eq!(rig.kick().subscriptions().as_array().unwrap().len(), 16);
}

#[tokio::test]
async fn what_a_new_subscription_delivers_before_it_is_listed_counts() {
    let hooked = Hooked::start().await;
    let list = Fault::status(500).on("/public/v1/events/subscriptions");
    hooked.rig.fail(list.method("GET").after(1));
    let failed = hooked
        .rig
        .platform
        .reconcile_webhooks(&[key(ADA)], &[key(ADA)], 10, &hooked.rig.notebook)
        .await;
    assert!(failed.is_err(), "the new ones could not be listed");
    hooked.rig.kick().go_live(ADA);
    assert_eq!(hooked.delivered(1).await, [Some(200)]);
    let counts = hooked.listener.counts();
    assert_eq!((counts.accepted, counts.untracked), (1, 0));
}

#[tokio::test]
async fn events_of_subscriptions_that_are_not_listed_count() {
    let mut hooked = Hooked::start().await;
    // Another process deletes the subscriptions and creates them again, under other ids.
    hooked.rig.kick().drop_subscriptions(webhook::STATUS, Some(ADA));
    hooked.rig.kick().add_subscription("app", ADA, webhook::STATUS);
    hooked.rig.kick().go_live(ADA);
    assert_eq!(hooked.delivered(1).await, [Some(200)]);
    hooked.collect();
    assert_eq!(hooked.rig.record(ADA).stream_status, Online);
    let counts = hooked.listener.counts();
    assert_eq!((counts.accepted, counts.untracked), (1, 0));
}

#[tokio::test]
async fn subscription_errors_are_reported_but_only_streams_set_status() {
    for (event, status) in [
        (webhook::STATUS, Status::Disconnected),
        (webhook::CHAT, Status::Connected),
    ] {
        let rig = Rig::start().await;
        rig.probe_one(ADA).await;
        rig.kick().knobs(|knobs| {
            knobs
                .subscription_errors
                .insert(event.to_owned(), "not for you".to_owned());
        });
        rig.later(1);
        let platform = &rig.platform;
        let done = platform
            .reconcile_webhooks(&[key(ADA)], &[], 10, &rig.notebook)
            .await
            .unwrap();
        assert!(done.problems[0].contains("not for you"), "{done:?}");
        let record = rig.record(ADA);
        assert_eq!(record.status, status, "{event}");
        assert_eq!(record.last_error.unwrap().code, Code::KickSubscriptionMissing);
    }
}
