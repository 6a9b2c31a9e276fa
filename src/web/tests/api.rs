//! Tests of the API.

use super::*;
use crate::web::api::openapi;

/// Returns status, headers and body of a request with these headers.
async fn whole(served: &Served, path: &str, headers: &str) -> (u16, String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = served.base.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (method, path) = path.split_once(' ').unwrap_or(("GET", path));
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// Returns pages with many sources, of which each third is live.
async fn many(count: usize) -> Served {
    let (mut pages, unready) = web(None).await;
    let store = MemoryStore::new(Retention::default());
    for number in 0..count {
        let key: SourceKey = format!("twitch:{}", 1000 + number).parse().unwrap();
        let mut facts = vec![Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        }];
        facts.push(match number % 3 {
            0 => Fact::StreamSeen {
                stream_id: format!("s{number}"),
                started_at: None,
            },
            _ => Fact::StreamAbsent,
        });
        let name = format!("Rat {number:03}");
        facts.push(Fact::Profile {
            fields: [("displayName".to_owned(), name)].into(),
        });
        let seen: Vec<_> = facts
            .into_iter()
            .map(|fact| Observation::new(&key, pages.clock.now(), "twitch.helix", fact))
            .collect();
        let document = SourceDocument::from_knowledge(key, Knowledge::of(&seen));
        store.save(&[Write::new(document, None)]).await.remove(0).unwrap();
    }
    pages.store = Arc::new(store);
    serve_pages((pages, unready), Limits::default()).await
}

#[tokio::test]
async fn list_is_filtered_sorted_and_paged() {
    let served = many(25).await;
    let mut next = "/api/v1/sources?live=true&sort=-name&limit=4".to_owned();
    let mut names = Vec::new();
    loop {
        let (status, body) = page(&served, &next).await;
        assert_eq!((status, &body["total"]), (200, &json!(9)), "{body}");
        let items = body["items"].as_array().unwrap();
        names.extend(
            items
                .iter()
                .map(|item| item["displayName"].as_str().unwrap().to_owned()),
        );
        match body["next"].as_str() {
            Some(path) => next = path.to_owned(),
            None => break,
        }
    }
    assert_eq!(names.len(), 9);
    assert_eq!((&*names[0], &*names[8]), ("Rat 024", "Rat 000"));
    for (query, count) in [
        ("source=twitch:1001", 1),
        ("source=twitch:rat%20*", 25),
        ("source=twitch:rat%20??0", 3),
        ("platform=kick", 0),
        ("failing=true", 0),
        ("live=false", 16),
    ] {
        let (_, body) = page(&served, &format!("/api/v1/sources?{query}")).await;
        assert_eq!(body["total"], count, "{query}");
    }
}

#[tokio::test]
async fn what_is_not_described_is_refused() {
    let served = served(None).await;
    for (path, status, code) in [
        ("/api/v1/sources?liev=true", 400, "api.invalid_query"),
        ("/api/v1/sources?live=yes", 400, "api.invalid_query"),
        ("/api/v1/sources?live=true&live=true", 400, "api.invalid_query"),
        ("/api/v1/sources?limit=0", 400, "api.invalid_query"),
        ("/api/v1/sources?limit=1001", 400, "api.invalid_query"),
        ("/api/v1/sources?sort=rats", 400, "api.invalid_query"),
        ("/api/v1/sources?source=", 400, "api.invalid_query"),
        ("/api/v1/sources?source=twitch:[", 404, "api.unknown_source"),
        ("/api/v1/sources?max_age=1h30m", 400, "api.invalid_max_age"),
        ("/api/v1/sources/%FF", 400, "api.invalid_source"),
        ("/api/v1/sources/twitch:900200/can/fly", 404, "api.unknown_action"),
        ("/api/v1/sources/twitch:1/is-live", 404, "api.unknown_source"),
        (
            "/api/v1/sources/twitch:900200/history?since=soon",
            400,
            "api.invalid_query",
        ),
        ("/api/v1/events", 503, "api.no_events"),
        ("/api/v1/nothing", 404, "api.not_found"),
        ("POST /api/v1/sources", 405, "api.method_not_allowed"),
        (
            "DELETE /api/v1/sources/twitch:900200",
            405,
            "api.method_not_allowed",
        ),
        ("POST /metrics", 405, "api.method_not_allowed"),
    ] {
        let (found, head, body) = whole(&served, path, "").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, &body["code"]), (status, &json!(code)), "{path}: {body}");
        assert_eq!(
            (&body["status"], &body["type"]),
            (&json!(status), &json!("about:blank"))
        );
        assert!(
            head.contains("content-type: application/problem+json"),
            "{path}: {head}"
        );
        assert!(!body["detail"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn unchanged_answer_is_not_sent_again() {
    let served = served(None).await;
    for path in [
        "/api/v1/sources",
        "/api/v1/sources/twitch:900200",
        "/api/v1/sources/twitch:900200/is-live",
        "/api/v1/accounts",
        "/api/v1/actions?platform=kick",
        "/api/v1/attention",
    ] {
        let (status, head, body) = whole(&served, path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        assert!(head.contains("cache-control: private, no-cache"), "{head}");
        let known = format!("If-None-Match: {}\r\n", tag.replace("w/", "W/"));
        let (status, head, body) = whole(&served, path, &known).await;
        assert_eq!((status, body.as_str()), (304, ""), "{path}");
        assert!(head.contains("etag: "), "{head}");
        let (status, _, body) = whole(&served, &format!("HEAD {path}"), "").await;
        assert_eq!((status, body.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn answers_are_the_ones_of_the_commands() {
    let served = served(None).await;
    let (_, body) = page(&served, "/api/v1/sources/ratcaster/is-live").await;
    let item = &body["items"][0];
    assert_eq!(
        (&body["kind"], &item["question"], &item["answer"]),
        (&json!("Answer"), &json!("live"), &json!("no"))
    );
    let path = "/api/v1/sources/twitch:900200/is-live?max_age=30s";
    let (_, body) = page(&served, path).await;
    assert_eq!(
        body["items"][0]["answer"], "unknown",
        "90 seconds are older than 30"
    );
    let (_, body) = page(&served, "/api/v1/sources/twitch:900200/can/send-chat").await;
    assert_eq!(body["items"][0]["question"], "can:send-chat");
    let (_, body) = page(&served, "/api/v1/accounts").await;
    assert_eq!(body["items"][0]["fix"], "bitbrat auth login twitch");
    let (_, body) = page(&served, "/api/v1/actions").await;
    assert!(body["items"].as_array().unwrap().len() > 10);
}

#[tokio::test]
async fn served_document_describes_every_path() {
    let served = served(None).await;
    let (status, text) = get(&served, "/api/v1/openapi.json", "").await;
    assert_eq!((status, text.as_str()), (200, openapi::text()));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().unwrap() {
        if path.ends_with("/events") {
            continue;
        }
        let path = path
            .replace("{id}", "twitch:900200")
            .replace("{action}", "send-chat");
        let (status, body) = page(&served, &path).await;
        assert_eq!(status, 200, "{path}: {body}");
        let reference =
            operations["get"]["responses"]["200"]["content"]["application/json"]["schema"].clone();
        let mut schema = json!({"components": document["components"]});
        schema["$ref"] = reference["$ref"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<_> = validator
            .iter_errors(&body)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{path}: {errors:?}");
    }
}

/// Reads a stream of events until `until` appears.
async fn events(served: &Served, headers: &str, until: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = served.base.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while !text.contains(until) {
        let count = socket.read(&mut part).await.unwrap();
        assert!(count > 0, "it ended before {until:?}: {text}");
        text += &String::from_utf8_lossy(&part[..count]);
    }
    text
}

#[tokio::test]
async fn events_resume_where_the_client_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bitbrat.db");
    let table = rusqlite::Connection::open(&file).unwrap();
    table
        .execute_batch("CREATE TABLE sent (seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL)")
        .unwrap();
    let publish = |name: &str| {
        let event = json!({
            "id": name, "source": "twitch:900200", "kind": "system.stream.online", "urgent": true, "at": "2026-05-28T20:26:40.000Z",
            "attributes": {}, "body": json!({"type": name}).to_string(),
        });
        table
            .execute("INSERT INTO sent (event) VALUES (?1)", [event.to_string()])
            .unwrap();
    };
    for name in ["a", "b", "c"] {
        publish(name);
    }
    table.execute("DELETE FROM sent WHERE seq = 1", []).unwrap();
    let (mut pages, unready) = web(None).await;
    pages.events = Some(file);
    let served = serve_pages((pages, unready), Limits::default()).await;
    let list = crate::web::pages::fingerprint("w1");
    let resumed = events(
        &served,
        &format!("Last-Event-ID: {list}-2\r\n"),
        &format!("id: {list}-3"),
    )
    .await;
    assert!(
        resumed.contains("event: event") && !resumed.contains(&format!("id: {list}-2\n")),
        "{resumed}"
    );
    // The last one is of another state directory.
    for gone in [
        format!("{list}-1"),
        format!("{list}-99"),
        "x".to_owned(),
        "2".to_owned(),
        "0123-2".to_owned(),
    ] {
        let text = events(&served, &format!("Last-Event-ID: {gone}\r\n"), "event: reset").await;
        assert!(!text.contains("id: "), "{text}");
    }
    // An event before the stream has begun is of the past.
    let publishing = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            publish("later");
        }
    };
    let fresh = tokio::select! {
        text = events(&served, "", "id: ") => text,
        () = publishing => unreachable!("it publishes until the end"),
    };
    assert!(fresh.contains("later") && !fresh.contains("\"a\""), "{fresh}");
}
