//! Tests of pages for people.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::core::facet::Facet;
use crate::core::observation::ErrorInfo;
use crate::core::source::PlatformName;
use crate::core::transition::Transition;
use crate::store::HistoryEntry;

const HTML: &str = "Accept: text/html,application/xhtml+xml\r\n";

async fn html(served: &Served, path: &str) -> (u16, String) {
    get(served, path, HTML).await
}

/// Text that strangers may choose.
fn hostile() -> Vec<String> {
    [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "javascript:alert(1)",
        "abc\u{202e}\u{2066}cba\u{200f}",
        "a\u{0}b\u{9b}31mc\r\nd",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["W".repeat(10_000)])
    .collect()
}

/// Returns pages with as many sources, whose texts strangers have chosen.
async fn pages_of(count: usize, texts: &[String]) -> (Web, Arc<Mutex<Vec<String>>>) {
    let (mut pages, unready) = web(None).await;
    let store = MemoryStore::new(Retention::default());
    let platforms = [PlatformName::Twitch, PlatformName::Kick, PlatformName::Discord];
    for number in 0..count {
        let platform = platforms[number % 3];
        let key: SourceKey = format!("{platform}:{}", 777_001_000 + number).parse().unwrap();
        let text = &texts[number % texts.len()];
        let error = ErrorInfo::new(Code::NotFound(platform), text);
        let link = |state| Fact::Connection {
            transport: Transport::Api,
            state,
        };
        let mut facts = vec![
            Fact::Profile {
                fields: [("displayName", text), ("title", text), ("category", text)]
                    .map(|(name, value)| (name.to_owned(), value.clone()))
                    .into(),
            },
            Fact::StreamSeen {
                stream_id: format!("{number}"),
                started_at: Some(pages.clock.now().plus_secs(-4000)),
            },
            Fact::Viewers {
                count: 1234 + number as u64,
                stream_id: Some(format!("{number}")),
            },
        ];
        facts.push(match number % 7 {
            0 => link(LinkState::Refused { error }),
            _ => link(LinkState::Up),
        });
        let seen: Vec<_> = facts
            .into_iter()
            .map(|fact| Observation::new(&key, pages.clock.now(), "twitch.helix", fact))
            .collect();
        let document = SourceDocument::from_knowledge(key, Knowledge::of(&seen));
        store.save(&[Write::new(document, None)]).await.remove(0).unwrap();
    }
    pages.store = Arc::new(store);
    let public = ["twitch:*"].map(|text| text.parse().unwrap()).to_vec();
    pages.configured = Arc::new(move || Configured {
        public: public.clone(),
        ..Configured::default()
    });
    (pages, unready)
}

#[tokio::test]
async fn start_page_is_html_for_browsers_and_json_for_programs() {
    let served = served(None).await;
    let (status, body) = html(&served, "/").await;
    assert_eq!(status, 200);
    for part in [
        "<!DOCTYPE html>",
        "lang=\"en\"",
        "Needs attention",
        "twitch:900200",
        "Skip to content",
    ] {
        assert!(body.contains(part), "{part}\n{body}");
    }
    assert_eq!(page(&served, "/").await.1["service"], "bitbrat");
    assert_eq!(
        get(&served, "/", "Accept: */*\r\n").await.1.chars().next(),
        Some('{')
    );
}

#[tokio::test]
async fn hostile_text_is_shown_as_text() {
    let served = serve_pages(pages_of(21, &hostile()).await, Limits::default()).await;
    let mut paths: Vec<String> = [
        "/",
        "/?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/public",
        "/_debug",
        "/nothing",
    ]
    .map(str::to_owned)
    .to_vec();
    for number in 0..6 {
        let platform = ["twitch", "kick", "discord"][number % 3];
        paths.push(format!("/sources/{platform}:{}", 777_001_000 + number));
    }
    paths.push("/badge/twitch:777001000.svg".into());
    paths.push("/sources/%3Cscript%3Ealert(1)%3C%2Fscript%3E".into());
    for path in paths {
        let (_, body) = html(&served, &path).await;
        for forbidden in [
            "<script>",
            "<img",
            "onerror=alert(1)>",
            "\u{202e}",
            "\u{2066}",
            "\u{0}",
            "\u{9b}",
            " style=",
        ] {
            assert!(!body.contains(forbidden), "{path}: {forbidden:?}\n{body}");
        }
        assert!(!body.contains("href=\"javascript:"), "{path}");
    }
}

#[tokio::test]
async fn page_of_a_source_shows_ends_of_streams_as_proven() {
    let (pages, unready) = web(None).await;
    let found = pages.store.load(&key()).await.unwrap().unwrap();
    let start = Timestamp::from_millis(START);
    let entry = |minute: i64, to: &str, id: &str, rule: &str| {
        let at = start.plus_secs(minute * 60);
        let transition = Transition {
            facet: Facet::Stream,
            from: None,
            to: Some(to.to_owned()),
            at,
            rule: rule.to_owned(),
            stream_id: Some(id.to_owned()),
            initial: false,
        };
        HistoryEntry::new(&key(), at, transition)
    };
    // No daemon ran, so that only a pushed end is exact.
    let history = vec![
        entry(-60, "ONLINE", "s1", "stream.seen-in-poll"),
        entry(-50, "OFFLINE", "s1", "stream.pushed-end"),
        entry(-40, "ONLINE", "s2", "stream.seen-in-poll"),
        entry(-30, "OFFLINE", "s2", "stream.absent-from-poll"),
    ];
    let write = Write {
        history,
        ..Write::new(found.value, Some(found.version))
    };
    pages.store.save(&[write]).await.remove(0).unwrap();
    let served = serve_pages((pages, unready), Limits::default()).await;
    let (_, page) = html(&served, "/sources/twitch:900200").await;
    let streams = page.split("id=\"sessions\"").nth(1).unwrap();
    let streams = streams.split("</section>").next().unwrap();
    assert_eq!(streams.matches("<tr>").count(), 3, "{streams}");
    assert!(streams.contains(">between 2026-05-28 "), "{streams}");
    assert!(streams.contains(">10m<"), "{streams}");
}

#[tokio::test]
async fn page_of_a_hundred_rows_stays_small() {
    let names = ["PixelMeadow", "A name of usual length", "雪の庭"].map(str::to_owned);
    let served = serve_pages(pages_of(250, &names).await, Limits::default()).await;
    // The second sample gives the sparklines their line.
    html(&served, "/").await;
    let (_, body) = html(&served, "/").await;
    assert_eq!(body.matches("<tr id=").count(), 100);
    assert!(body.len() <= 96 * 1024, "{}", body.len());
    let (_, last) = html(&served, "/?page=3").await;
    assert_eq!(last.matches("<tr id=").count(), 50);
    let (_, beyond) = html(&served, "/?page=9").await;
    assert!(beyond.contains("First page"), "{beyond}");
    let (_, found) = html(&served, "/?q=777001007").await;
    assert_eq!(found.matches("<tr id=").count(), 1);
    let (_, page) = html(&served, "/sources/twitch:777001003").await;
    assert!(page.len() <= 120 * 1024, "{}", page.len());
}

#[tokio::test]
async fn every_page_forbids_foreign_content() {
    let served = served(None).await;
    for path in [
        "/",
        "/sources/twitch:900200",
        "/public",
        "/_debug",
        "/nothing",
        "/api/v1/sources",
    ] {
        let address = served.base.strip_prefix("http://").unwrap();
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{HTML}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let head = answer.split_once("\r\n\r\n").unwrap().0.to_lowercase();
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{head}"
        );
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
}

#[tokio::test]
async fn badge_and_public_page_show_listed_sources_only() {
    let served = serve_pages(pages_of(6, &["Rat".to_owned()]).await, Limits::default()).await;
    let (_, unknown) = get(&served, "/badge/twitch:1.svg", "").await;
    assert!(unknown.contains("N/A"));
    for path in ["/badge/kick:777001001.svg", "/badge/x", "/badge/%3Cscript%3E.svg"] {
        assert_eq!(get(&served, path, "").await, (200, unknown.clone()), "{path}");
    }
    let (_, listed) = get(&served, "/badge/twitch:777001000.svg", "").await;
    assert!(listed.contains("live 1,234"), "{listed}");
    let (_, public) = html(&served, "/public").await;
    assert!(
        public.contains("twitch:777001003") && !public.contains("kick:"),
        "{public}"
    );
}

#[tokio::test]
async fn request_of_another_site_is_refused_on_every_path() {
    let served = served(None).await;
    for path in [
        "/",
        "/live",
        "/sources/twitch:900200/live",
        "/api/v1/sources",
        "/api/v1/events",
        "/_debug",
    ] {
        let (status, _) = get(&served, path, "Origin: http://evil.example\r\n").await;
        assert_eq!(status, 403, "{path}");
        let (status, _) = get(&served, path, "Host: evil.example\r\n").await;
        assert_eq!(status, 403, "{path}");
    }
}

/// Opens a stream from an address of this machine, and returns what is received until `until` appears.
async fn follow(served: &Served, path: &str, from: [u8; 4], until: &str) -> (TcpStream, String) {
    follow_with(served, path, from, "", until).await
}

async fn follow_with(
    served: &Served,
    path: &str,
    from: [u8; 4],
    headers: &str,
    until: &str,
) -> (TcpStream, String) {
    let address: SocketAddr = served.base.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::from(from), 0).into()).unwrap();
    let mut socket = socket.connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let text = read_until(&mut socket, until).await;
    (socket, text)
}

async fn read_until(socket: &mut TcpStream, until: &str) -> String {
    let mut text = String::new();
    let mut part = [0; 4096];
    while !text.contains(until) {
        let count = socket.read(&mut part).await.unwrap();
        assert!(count > 0, "it ended before {until:?}: {text}");
        text += &String::from_utf8_lossy(&part[..count]);
    }
    text
}

#[tokio::test]
async fn changed_row_is_sent_to_who_follows() {
    let (pages, unready) = web(None).await;
    let (store, clock) = (Arc::clone(&pages.store), Arc::clone(&pages.clock));
    let served = serve_pages((pages, unready), Limits::default()).await;
    let (mut socket, first) = follow(&served, "/live", [127, 0, 0, 1], "</tr>").await;
    assert!(
        first.contains("event: put") && first.contains("OFFLINE"),
        "{first}"
    );
    let (mut one, first) = follow(
        &served,
        "/sources/twitch:900200/live",
        [127, 0, 0, 1],
        "id=\"evidence\"",
    )
    .await;
    assert!(first.contains("id=\"now\""), "{first}");
    let found = store.load(&key()).await.unwrap().unwrap();
    let mut document = found.value;
    let fact = Fact::StreamPush {
        live: true,
        stream_id: Some("s1".into()),
        started_at: Some(clock.now()),
    };
    document.join(Knowledge::from(&Observation::new(
        &key(),
        clock.now(),
        "twitch.eventsub",
        fact,
    )));
    store
        .save(&[Write::new(document, Some(found.version))])
        .await
        .remove(0)
        .unwrap();
    let text = read_until(&mut socket, "ONLINE").await;
    assert!(
        text.contains("event: put") && text.contains("s-twitch-900200"),
        "{text}"
    );
    assert!(read_until(&mut one, "ONLINE").await.contains("event: put"));
}

#[tokio::test]
async fn streams_are_limited_per_address_and_in_all() {
    let served = served(None).await;
    let mut open = Vec::new();
    for client in 0..8 {
        for _ in 0..8 {
            let (socket, _) = follow(&served, "/live", [127, 0, 1, client], "event: put").await;
            open.push(socket);
        }
    }
    let (_, refused) = follow(&served, "/live", [127, 0, 1, 99], "}").await;
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("api.too_many_streams"),
        "{refused}"
    );
    assert!(refused.to_lowercase().contains("retry-after: 30"), "{refused}");
    drop(open);
    loop {
        let (_, answer) = follow(&served, "/live", [127, 0, 1, 99], "\r\n\r\n").await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut own = Vec::new();
    for _ in 0..8 {
        own.push(follow(&served, "/live", [127, 0, 1, 50], "event: put").await.0);
    }
    let (_, refused) = follow(&served, "/live", [127, 0, 1, 50], "}").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
}

/// Sends a form, and returns the response with its head.
async fn post(served: &Served, path: &str, headers: &str, body: &str) -> String {
    let address = served.base.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nConnection: close\r\n{headers}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Returns the header with which a browser sends back the cookie of a response.
fn cookie_of(answer: &str) -> String {
    let mut lines = answer.lines();
    let cookie = lines.find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

#[tokio::test]
async fn logout_ends_the_event_streams_of_its_login_only() {
    let served = served(Some("s3cret-token")).await;
    let log_in = async || cookie_of(&post(&served, "/login", "", "token=s3cret-token").await);
    let (own, other) = (log_in().await, log_in().await);
    let local = [127, 0, 0, 1];
    let mut streams = Vec::new();
    for (path, begun) in [
        ("/live", "</tr>"),
        ("/sources/twitch:900200/live", "id=\"evidence\""),
        ("/sse", "sessionId="),
    ] {
        streams.push(follow_with(&served, path, local, &own, begun).await.0);
    }
    let (mut of_other, _) = follow_with(&served, "/live", local, &other, "</tr>").await;
    let bearer = "Authorization: Bearer s3cret-token\r\n";
    let (mut of_program, _) = follow_with(&served, "/live", local, bearer, "</tr>").await;
    let answer = post(&served, "/logout", &own, "").await;
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    for stream in &mut streams {
        read_until(stream, "0\r\n\r\n").await;
    }
    assert_eq!(get(&served, "/api/v1/sources", &own).await.0, 401);
    served.unready.lock().push("the store does not answer".into());
    for stream in [&mut of_other, &mut of_program] {
        read_until(stream, "not ready").await;
    }
}

#[tokio::test]
async fn person_logs_in_with_the_token_and_gets_a_cookie() {
    let served = served(Some("s3cret-token")).await;
    let (status, form) = html(&served, "/sources/twitch:900200").await;
    assert_eq!(status, 401);
    assert!(
        form.contains("action=\"../login\"") && form.contains("type=\"password\""),
        "{form}"
    );
    let post = async |body: &str| post(&served, "/login", "", body).await;
    let answer = post("token=s3cret-token&next=%2Fsources%2Ftwitch%3A900200").await;
    let lower = answer.to_lowercase();
    assert!(
        answer.starts_with("HTTP/1.1 303") && lower.contains("location: sources/twitch:900200"),
        "{answer}"
    );
    let cookie = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains("s3cret"),
        "{cookie}"
    );
    let cookie = cookie_of(&answer);
    assert_eq!(
        get(&served, "/sources/twitch:900200", &format!("{HTML}{cookie}"))
            .await
            .0,
        200
    );
    assert_eq!(get(&served, "/api/v1/sources", &cookie).await.0, 200);
    assert_eq!(get(&served, "/api/v1/sources", "").await.0, 401);
    for _ in 0..5 {
        assert!(post("token=wrong").await.starts_with("HTTP/1.1 401"));
    }
    assert!(post("token=s3cret-token").await.starts_with("HTTP/1.1 429"));
    assert_eq!(get(&served, "/public", HTML).await.0, 200);
}

#[tokio::test]
async fn no_page_contains_a_secret() {
    let secret = "oauth:abcdefghijklmnopqrstuvwxyz0123";
    crate::secrets::register(secret);
    let served = serve_pages(pages_of(7, &[format!("why {secret}")]).await, Limits::default()).await;
    for path in [
        "/",
        "/sources/twitch:777001000",
        "/public",
        "/_debug",
        "/_debug/sources",
        "/_debug/twitch",
        "/api/v1/sources",
        "/api/v1/sources/twitch:777001000",
        "/api/v1/attention",
        "/api/v1/accounts",
        "/badge/twitch:777001000.svg",
        "/metrics",
    ] {
        let (status, body) = html(&served, path).await;
        assert_eq!(status, 200, "{path}");
        assert!(!body.contains(secret), "{path}\n{body}");
    }
    let (_, first) = follow(&served, "/live", [127, 0, 0, 1], "</tr>").await;
    assert!(!first.contains(secret), "{first}");
}
