//! Tests of the tools for agents over HTTP: access control, limits, and the sessions of the older transport.

use futures_util::FutureExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;

const JSON: &str = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";

async fn open(served: &Served, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let address = served.base.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let host = match headers.contains("Host:") {
        true => String::new(),
        false => format!("Host: {address}\r\n"),
    };
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\n{host}Content-Length: {length}\r\n{headers}\r\n{body}");
    // A server that refuses a long body does not read it to its end.
    let _ = socket.write_all(request.as_bytes()).await;
    socket
}

async fn send(served: &Served, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let headers = format!("Connection: close\r\n{headers}");
    let mut socket = open(served, method, path, &headers, body).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn call(tool: &str, args: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": args}})
        .to_string()
}

/// An event stream of the older transport, after its first event.
struct Following {
    lines: BufReader<TcpStream>,
    /// The path for its messages.
    path: String,
}

impl Following {
    /// Opens one; the status if that is refused.
    async fn open(served: &Served) -> Result<Self, u16> {
        let mut lines = BufReader::new(open(served, "GET", "/sse", "", "").await);
        let mut line = String::new();
        lines.read_line(&mut line).await.unwrap();
        let status: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 {
            return Err(status);
        }
        let mut following = Self {
            lines,
            path: String::new(),
        };
        following.path = following.data().await;
        Ok(following)
    }

    /// Returns the data of the next event.
    async fn data(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.lines.read_line(&mut line).await.unwrap(),
                0,
                "the stream ended"
            );
            if let Some(data) = line.strip_prefix("data: ") {
                return data.trim_end().to_owned();
            }
        }
    }

    /// Begins the protocol.
    async fn begin(&mut self, served: &Served) {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
        }});
        assert_eq!(
            send(served, "POST", &self.path, JSON, &hello.to_string()).await.0,
            202
        );
        let reply: Value = serde_json::from_str(&self.data().await).unwrap();
        assert_eq!(reply["result"]["serverInfo"]["name"], "bitbrat");
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(
            send(served, "POST", &self.path, JSON, &ready.to_string()).await.0,
            202
        );
    }
}

#[tokio::test]
async fn invalid_json_is_answered_with_a_parse_error() {
    let served = served(None).await;
    for (text, code) in [("{", -32700), ("no", -32700), ("", -32700), ("[]", -32600)] {
        let (status, body) = send(&served, "POST", "/mcp", JSON, text).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &body["error"]["code"], body.get("id")),
            (400, &json!(code), Some(&Value::Null)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn both_transports_answer_the_same() {
    let served = served(None).await;
    let question = call("bitbrat_is_live", &json!({"source": "twitch:900200"}));
    let (status, body) = send(&served, "POST", "/mcp", JSON, &question).await;
    let today: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (
            status,
            &today["result"]["structuredContent"]["items"][0]["answer"]
        ),
        (200, &json!("no"))
    );
    let mut following = Following::open(&served).await.unwrap();
    following.begin(&served).await;
    assert_eq!(
        send(&served, "POST", &following.path, JSON, &question).await.0,
        202
    );
    let older: Value = serde_json::from_str(&following.data().await).unwrap();
    assert_eq!(
        older["result"]["structuredContent"],
        today["result"]["structuredContent"]
    );
}

#[tokio::test]
async fn agents_are_subject_to_the_access_control() {
    let paths = [
        ("POST", "/mcp"),
        ("GET", "/sse"),
        ("POST", "/message?sessionId=1"),
    ];
    let open = served(None).await;
    let guarded = served(Some("s3cret")).await;
    let question = call("bitbrat_attention", &json!({}));
    for (method, path) in paths {
        for headers in [
            "Host: rats.example\r\n",
            "Origin: http://rats.example\r\n",
            "Origin: null\r\n",
        ] {
            let headers = format!("{JSON}{headers}");
            let (status, _) = send(&open, method, path, &headers, &question).await;
            assert_eq!(status, 403, "{path} {headers}");
        }
        let wrong = format!("{JSON}Authorization: Bearer wrong\r\n");
        for headers in [JSON, &wrong] {
            assert_eq!(
                send(&guarded, method, path, headers, &question).await.0,
                401,
                "{path}"
            );
        }
    }
    let right = format!("{JSON}Host: bot.example\r\nAuthorization: Bearer s3cret\r\n");
    assert_eq!(send(&guarded, "POST", "/mcp", &right, &question).await.0, 200);
    assert_eq!(
        send(&guarded, "POST", "/message?sessionId=1", &right, "{}")
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn messages_of_agents_are_limited_and_checked() {
    let served = served(None).await;
    let following = Following::open(&served).await.unwrap();
    let long = call("bitbrat_is_live", &json!({"source": "x".repeat(70_000)}));
    for path in ["/mcp", &following.path] {
        assert_eq!(send(&served, "POST", path, JSON, &long).await.0, 413, "{path}");
    }
    for (method, path, body, expected) in [
        ("POST", following.path.as_str(), "no JSON", 400),
        ("POST", "/message", "{}", 404),
        ("POST", "/message?sessionId=other", "{}", 404),
        ("GET", "/message", "", 405),
        ("POST", "/sse", "", 405),
        ("GET", "/mcp", "", 405),
    ] {
        let (status, answer) = send(&served, method, path, JSON, body).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn thousand_dropped_streams_leave_no_session() {
    let served = served(None).await;
    for _ in 0..1000 {
        // The end of the one before may not have been noticed yet.
        while Following::open(&served).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    let mut open = Vec::new();
    while open.len() < 8 {
        match Following::open(&served).await {
            Ok(following) => open.push(following),
            Err(status) => assert_eq!(status, 503),
        }
    }
    assert_eq!(Following::open(&served).await.err(), Some(503), "eight at a time");
    // Those that are open still work.
    open[0].begin(&served).await;
}

/// Reports when it begins and when it is dropped.
struct Reported(mpsc::UnboundedSender<&'static str>);

impl Drop for Reported {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[tokio::test]
async fn disconnect_stops_the_work_of_a_call() {
    let (mut pages, unready) = web(None).await;
    let (sender, mut reports) = mpsc::unbounded_channel();
    pages.agents.listening = Arc::new(move |_| {
        let reported = Reported(sender.clone());
        async move {
            let _ = reported.0.send("begun");
            std::future::pending().await
        }
        .boxed()
    });
    let served = serve_pages((pages, unready), Limits::default()).await;
    let question = call("bitbrat_get_source", &json!({"source": "twitch:900200"}));
    let socket = open(&served, "POST", "/mcp", JSON, &question).await;
    assert_eq!(reports.recv().await, Some("begun"));
    drop(socket);
    assert_eq!(reports.recv().await, Some("dropped"));
    let mut following = Following::open(&served).await.unwrap();
    following.begin(&served).await;
    assert_eq!(
        send(&served, "POST", &following.path, JSON, &question).await.0,
        202
    );
    assert_eq!(reports.recv().await, Some("begun"));
    drop(following);
    assert_eq!(reports.recv().await, Some("dropped"));
}

#[tokio::test]
async fn panic_of_a_call_over_http_is_answered() {
    let (mut pages, unready) = web(None).await;
    pages.configured = Arc::new(|| panic!("a bug"));
    let served = serve_pages((pages, unready), Limits::default()).await;
    let (status, body) = send(
        &served,
        "POST",
        "/mcp",
        JSON,
        &call("bitbrat_list_sources", &json!({})),
    )
    .await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["result"]["isError"]), (200, &json!(true)));
    assert_eq!(body["result"]["structuredContent"]["code"], "api.internal");
}
