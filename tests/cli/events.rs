//! `events` and `doctor bus` on every bus, as a person uses them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bitbrat::cli::commands::schema;
use bitbrat::core::event::wire;
use bitbrat::core::observation::{Fact, LinkState, Transport};
use serde_json::{Value, json};

use crate::contract::bus::servers;
use crate::contract::store::worlds::emulator;
use crate::persist::world::{Ingester, now};
use crate::support::{Home, ReservedPort, Run};

const ONLINE: &str = r#"{
  "v": "2", "type": "system.stream.online", "correlationId": "by-hand-1",
  "ingress": {"ingressAt": "2026-11-20T10:00:02.100Z", "source": "ingress.twitch.eventsub", "connector": "twitch"},
  "payload": {"platform": "twitch", "id": "777001", "streamId": "40999888777", "startedAt": "2026-11-20T10:00:00.000Z"}
}"#;

fn lines(run: &Run) -> Vec<Value> {
    run.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The checks of an area, by name.
fn checks(run: &Run) -> BTreeMap<String, (String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let json = run.json();
    let items = json["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            (
                text(&item["name"]),
                (text(&item["outcome"]), text(&item["detail"]), text(&item["next"])),
            )
        })
        .collect()
}

#[test]
fn every_published_event_matches_the_schema() {
    let home = Home::new();
    let printed = home.run(&["events", "schema"]).exits(0).json();
    assert_eq!(printed, wire::schema());
    let validator = jsonschema::validator_for(&printed).unwrap();
    let mut ingester = Ingester::default();
    let key = "twitch:777001".parse().unwrap();
    let up = Fact::Connection {
        transport: Transport::Api,
        state: LinkState::Up,
    };
    let push = |live| Fact::StreamPush {
        live,
        stream_id: Some("40999888777".to_owned()),
        started_at: None,
    };
    let mut reported = 0;
    for (seconds, fact) in [(0, up), (1, push(true)), (2, push(false))] {
        for event in ingester.observes(&key, now().plus_secs(seconds), fact) {
            let body: Value = serde_json::from_str(&event.body).unwrap();
            let errors: Vec<_> = validator
                .iter_errors(&body)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{errors:#?} in {body:#}");
            reported += 1;
        }
    }
    assert_eq!(reported, 3);
    assert!(!validator.is_valid(&json!({"type": "system.stream.online"})));
}

#[test]
fn a_tail_of_the_demo_shows_a_world_of_its_own_in_every_form() {
    let home = Home::new();
    let run = home
        .run(&["--demo", "events", "tail", "--limit", "3"])
        .exits(0)
        .never_panics();
    for line in lines(&run) {
        assert_eq!(
            (&line["topic"], &line["meaning"]),
            (&json!("internal.ingress.v1"), &json!("source"))
        );
        assert_eq!(line["type"], line["event"]["type"]);
    }
    assert_eq!(lines(&run).len(), 3);
    let table = home
        .run(&["--demo", "events", "tail", "--limit", "2", "-o", "table"])
        .exits(0);
    assert_eq!(table.stdout.lines().count(), 2, "{}", table.stdout);
    let json = home
        .run(&["--demo", "events", "tail", "--limit", "2", "-o", "json"])
        .exits(0)
        .json();
    let described = schema::ALL
        .iter()
        .find(|described| described.name == "events")
        .unwrap();
    let schema: Value = serde_json::from_str(&schema::text(described)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(&json)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:#?} in {json:#}");
    let csv = home
        .run(&["--demo", "events", "tail", "--limit", "2", "-o", "csv"])
        .exits(0);
    assert!(csv.stdout.starts_with("publishedAt,topic,type"), "{}", csv.stdout);
    assert_eq!(csv.stdout.lines().count(), 3);
}

#[test]
fn local_bus_tail_shows_events_of_another_process() {
    let home = Home::new();
    let file = format!("store.url=sqlite:{}", home.work().join("shared.db").display());
    home.run(&["--demo", "--set", &file, "watch", "--once"]).exits(4);
    // It ends by its limit: how soon the first line is printed depends on the machine.
    let tail = |limit: &str, more: &[&str]| {
        let words = [
            &[
                "--set", &file, "events", "tail", "--since", "1h", "--for", "60s", "--limit", limit,
            ],
            more,
        ]
        .concat();
        lines(&home.run(&words).exits(0))
    };
    let all = tail("11", &[]);
    assert_eq!(all.len(), 11);
    let one = tail("2", &["--source", "twitch:777001"]);
    assert!(
        !one.is_empty() && one.iter().all(|line| line["source"] == "twitch:777001"),
        "{one:#?}"
    );
    let is_online = |line: &Value| line["event"]["type"] == "system.stream.online";
    let online = tail("2", &["--type", "system.stream.online"]);
    assert!(!online.is_empty() && online.iter().all(is_online));
    assert!(!all.iter().all(is_online));
    // Without a start time, earlier events are not shown.
    let run = home
        .run(&["--set", &file, "events", "tail", "--for", "1s"])
        .exits(0);
    assert_eq!(run.stdout, "");
    home.run(&["events", "tail", "--for", "1s"])
        .exits(0)
        .names_account("bitbrat watch");
}

#[test]
fn what_cannot_be_published_is_refused_before_anything_is() {
    let home = Home::new()
        .file("broken.json", "{\"type\": ")
        .file("half.json", &format!("{ONLINE}\n{{\"type\": 7}}"))
        .file(
            "unknown.json",
            "{\"type\": \"made.up\", \"correlationId\": \"x\"}",
        )
        .file(
            "dead.json",
            r#"{"type": "system.source.status", "payload": {"platform": "twitch", "id": "a/b"}}"#,
        )
        .file("empty.json", "")
        .file("list.json", "[1]")
        .file("online.json", ONLINE);
    for (file, reason) in [
        ("missing.json", "cannot read missing.json"),
        ("broken.json", "is not JSON"),
        ("half.json", "event 2 in half.json"),
        ("unknown.json", "bitbrat does not use events of its type"),
        ("dead.json", "dead letter"),
        ("empty.json", "there is no event"),
        ("list.json", "not a JSON object"),
    ] {
        home.run(&["events", "publish", file])
            .never_panics()
            .exits(2)
            .names_account(reason);
    }
    home.run(&["events", "tail", "--since", "yesterday", "--for", "1s"])
        .exits(2)
        .names_account("10m");
    home.run(&["events", "tail", "-o", "json"])
        .exits(2)
        .names_account("--limit");
    // An address without a server.
    let nobody = ReservedPort::new();
    let away = format!("bus.url=nats://127.0.0.1:{}", nobody.number);
    home.run(&["--set", &away, "events", "publish", "online.json"])
        .exits(1)
        .names_account("cannot publish to")
        .names_account("doctor bus");
    home.run(&["--set", &away, "events", "tail", "--for", "20s"])
        .exits(1)
        .names_account("cannot follow");
    let run = home
        .run(&["--set", &away, "doctor", "bus", "-o", "json"])
        .exits(1);
    let checks = checks(&run);
    assert_eq!(checks["reachable"].0, "FAIL", "{checks:#?}");
    assert!(!checks["reachable"].2.is_empty());
    assert_eq!(checks["consumer"].0, "SKIPPED");
}

#[test]
fn with_the_local_bus_a_published_event_goes_into_the_store() {
    let home = Home::new()
        .file("online.json", ONLINE)
        .env("BITBRAT_SOURCES", "twitch:777001");
    let run = home
        .run(&["events", "publish", "online.json", "-o", "json"])
        .exits(0);
    let item = run.item("id", "by-hand-1");
    assert_eq!(
        (&item["outcome"], &item["source"]),
        (&json!("stored"), &json!("twitch:777001"))
    );
    let described = schema::ALL
        .iter()
        .find(|described| described.name == "publish")
        .unwrap();
    let schema: Value = serde_json::from_str(&schema::text(described)).unwrap();
    assert!(jsonschema::is_valid(&schema, &run.json()));
    let status = home.run(&["sources", "status", "-o", "json"]);
    assert_eq!(status.item("key", "twitch:777001")["streamStatus"], "ONLINE");
    let again = home
        .run_with(&["events", "publish", "-", "-o", "json"], ONLINE)
        .exits(0);
    assert_eq!(again.item("id", "by-hand-1")["outcome"], "duplicate");
    home.run(&["doctor", "bus"]).exits(0).shows("local");
}

/// On NATS: first without a stream, then with the stream, then with a consumer; and what is published shows in a tail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_doctor_leads_from_nothing_to_a_bus_that_works() {
    let server = servers::NatsServer::start().await;
    let home = Home::new()
        .file("online.json", ONLINE)
        .env("NATS_URL", &server.url())
        .env("BUS_PREFIX", "here.")
        .env("MESSAGE_BUS_DRIVER", "nats");
    let doctor = || checks(&home.run(&["doctor", "bus", "-o", "json"]));
    let found = doctor();
    assert_eq!(found["stream"].0, "FAIL", "{found:#?}");
    assert!(
        found["stream"]
            .2
            .contains("nats stream add BITBRAT --subjects='here.>'"),
        "{found:#?}"
    );
    home.run(&["events", "publish", "online.json"])
        .exits(1)
        .names_account("here.internal.ingress.v1");

    servers::create_stream_on(&server.url(), "BITBRAT", &["elsewhere.>"]).await;
    let found = doctor();
    assert!(
        found["stream"].0 == "FAIL" && found["stream"].1.contains("here.internal.ingress.v1"),
        "{found:#?}"
    );

    servers::create_stream_on(&server.url(), "HERE", &["here.>"]).await;
    let found = doctor();
    assert_eq!(found["reachable"].0, "OK", "{found:#?}");
    assert!(
        found["stream"].1.contains("HERE") && found["stream"].1.contains("here.>"),
        "{found:#?}"
    );
    assert_eq!(
        (found["consumer"].0.as_str(), found["chat in"].0.as_str()),
        ("WARN", "WARN")
    );
    assert_eq!(found["dead letters"].0, "OK");
    let rule = &found["routing rule"];
    assert!(
        rule.0 == "SKIPPED" && rule.2.contains("configs/routingRules/rules/"),
        "{found:#?}"
    );
    assert!(rule.2.contains("system.stream.offline"), "{found:#?}");
    assert!(found["volume"].1.contains("events a day"));

    let run = home
        .run(&["events", "publish", "online.json", "-o", "json"])
        .exits(0);
    assert_eq!(run.item("id", "by-hand-1")["outcome"], "published");
    let run = home
        .run(&["events", "publish", "online.json", "-o", "json"])
        .exits(0);
    assert_eq!(run.item("id", "by-hand-1")["outcome"], "duplicate");
    let run = home
        .run(&["events", "tail", "--since", "10m", "--limit", "1"])
        .exits(0);
    let line = lines(&run).remove(0);
    assert_eq!(line["source"], "twitch:777001");
    assert_eq!(line["attributes"]["idempotencykey"], "by-hand-1");
    let nobody = home
        .run(&[
            "events", "tail", "--since", "10m", "--source", "twitch:1", "--for", "1s",
        ])
        .exits(0);
    assert_eq!(nobody.stdout, "");

    // The platform's router had no rule for it.
    let letter = json!({"type": "router.deadletter.v1", "correlationId": "l1", "payload": {"originalType": "system.stream.online"}});
    let client = async_nats::connect(server.url()).await.unwrap();
    client
        .publish("here.internal.router.dlq.v1", letter.to_string().into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let rule = doctor().remove("routing rule").unwrap();
        if rule.0 == "WARN" {
            assert!(
                rule.1.contains("1 of our events") && rule.2.contains("routingRules"),
                "{rule:?}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "{rule:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pubsub_tail_shows_events_published_after_its_start() {
    let project = format!("bitbrat-{}", servers::prefix().trim_end_matches('.'));
    let home = Home::new()
        .file("online.json", ONLINE)
        .env("PUBSUB_EMULATOR_HOST", &servers::pubsub_host())
        .env("BITBRAT_BUS__URL", &format!("pubsub:{project}"))
        .env("BUS_PREFIX", "local.");
    // The emulator creates the topic with the first message.
    home.run(&["events", "publish", "online.json"]).exits(0);
    let tail = home
        .command(&["events", "tail", "--limit", "1", "--for", "60s"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let waiting = std::thread::spawn(move || tail.wait_with_output().unwrap());
    let deadline = Instant::now() + Duration::from_secs(50);
    while !waiting.is_finished() && Instant::now() < deadline {
        home.run(&["events", "publish", "online.json"]).exits(0);
    }
    let output = waiting.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["source"], "twitch:777001");
    let found = checks(&home.run(&["doctor", "bus", "-o", "json"]).exits(0));
    assert_eq!(
        (found["topic"].0.as_str(), found["consumer"].0.as_str()),
        ("OK", "WARN"),
        "{found:#?}"
    );
    assert!(found["chat in"].1.contains("bitbrat-chat"), "{found:#?}");
}

/// The platform's rules are in Firestore, where `doctor` reads them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_finds_or_prints_the_firestore_routing_rule() {
    let prefix = servers::prefix();
    servers::create_stream(&servers::nats_url(), &prefix).await;
    let project = format!("test-{}", uuid::Uuid::new_v4().simple());
    let home = Home::new()
        .env("BITBRAT_BUS__URL", &servers::nats_url())
        .env("BUS_PREFIX", &prefix)
        .env("BITBRAT_STORE__URL", &format!("firestore:{project}"))
        .env("FIRESTORE_EMULATOR_HOST", &emulator());
    let rule = || {
        checks(&home.run(&["doctor", "bus", "-o", "json"]).exits(0))
            .remove("routing rule")
            .unwrap()
    };
    let missing = rule();
    assert_eq!(missing.0, "WARN", "{missing:?}");
    let printed: Value = serde_json::from_str(&missing.2[missing.2.find('{').unwrap()..]).unwrap();
    let field = |name: &str| printed[name].as_str().unwrap_or_default();
    let fields = json!({"fields": {
        "enabled": {"booleanValue": true}, "priority": {"integerValue": "1"}, "logic": {"stringValue": field("logic")},
        "routing": {"mapValue": {"fields": {"stage": {"stringValue": "meta"}, "slip": {"arrayValue": {}}}}},
    }});
    #[expect(
        clippy::disallowed_methods,
        reason = "a plain client, to write what another program would"
    )]
    let http = reqwest::Client::new();
    let url = format!(
        "http://{}/v1/projects/{project}/databases/(default)/documents/configs/routingRules/rules/bitbrat-sources",
        emulator()
    );
    let written = http
        .patch(url)
        .header("authorization", "Bearer owner")
        .header("content-type", "application/json")
        .body(fields.to_string())
        .send()
        .await
        .unwrap();
    assert!(written.status().is_success(), "{written:?}");
    let installed = rule();
    assert!(
        installed.0 == "OK" && installed.1.contains("bitbrat-sources"),
        "{installed:?}"
    );
}
