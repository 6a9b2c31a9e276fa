//! The tools for agents by raw JSON-RPC, over every transport of the real program: the answers are those of the commands.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use bitbrat::bus::{EventBus, Filter, names};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::contract::bus::servers;
use crate::persist::world;
use crate::support::Home;
use crate::support::process::{Sim, ask, until, watch};

const JSON: &str = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";

/// A way to send a request and to get its response.
trait Client {
    fn request(&mut self, request: &Value) -> Value;

    fn call(&mut self, tool: &str, args: &Value) -> Value {
        let params = json!({"name": format!("bitbrat_{tool}"), "arguments": args});
        let request = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params});
        let response = self.request(&request);
        assert_eq!(response["result"]["isError"], false, "{tool} {args}: {response}");
        response["result"].clone()
    }
}

fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
    }})
}

fn initialized() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/initialized"})
}

/// `bitbrat mcp`.
struct Pipes {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Pipes {
    fn start(home: &Home, words: &[&str]) -> Self {
        let mut child = home
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut pipes = Self { child, stdin, stdout };
        let hello = pipes.request(&initialize());
        assert_eq!(hello["result"]["serverInfo"]["name"], "bitbrat");
        pipes.send(&initialized());
        pipes
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    /// Closes standard input, and returns the exit code.
    fn end(mut self) -> i32 {
        drop(self.stdin.take());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Client for Pipes {
    fn request(&mut self, request: &Value) -> Value {
        self.send(request);
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `POST /mcp`.
struct Http<'a>(&'a str);

impl Client for Http<'_> {
    fn request(&mut self, request: &Value) -> Value {
        let (status, body) = ask(self.0, "POST", "/mcp", JSON, &request.to_string()).unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// `GET /sse` with `POST /message`.
struct Sse<'a> {
    address: &'a str,
    events: BufReader<TcpStream>,
    path: String,
}

impl<'a> Sse<'a> {
    fn open(address: &'a str) -> Self {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(socket, "GET /sse HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut sse = Self {
            address,
            events: BufReader::new(socket),
            path: String::new(),
        };
        sse.path = sse.data();
        let hello = sse.request(&initialize());
        assert_eq!(hello["result"]["protocolVersion"], "2025-06-18");
        sse.post(&initialized());
        sse
    }

    fn post(&self, message: &Value) {
        let (status, body) = ask(self.address, "POST", &self.path, JSON, &message.to_string()).unwrap();
        assert_eq!(status, 202, "{body}");
    }

    fn data(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.events.read_line(&mut line).unwrap(), 0, "the stream ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return data.trim_end().to_owned();
            }
        }
    }
}

impl Client for Sse<'_> {
    fn request(&mut self, request: &Value) -> Value {
        self.post(request);
        serde_json::from_str(&self.data()).unwrap()
    }
}

/// Removes what differs between two moments.
fn without_times(mut list: Value) -> Value {
    let map = list.as_object_mut().unwrap();
    map.remove("asOf").unwrap();
    for item in map["items"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("ageMs");
    }
    list
}

/// Compares the answers of a tool with those of the command. The daemon checks sources meanwhile, so they may differ for a moment.
#[track_caller]
fn same(client: &mut dyn Client, home: &Home, tool: &str, args: &Value, words: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = client.call(tool, args);
        let printed = without_times(home.run(&[words, &["-o", "json"]].concat()).json());
        let answered = without_times(answer["structuredContent"].clone());
        if answered == printed {
            let text = answer["content"][0]["text"].as_str().unwrap();
            let verdict = printed["items"][0]["answer"].as_str().unwrap();
            assert!(text.starts_with(&format!("{verdict}: ")), "{text}");
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{words:?}: {answered:#} is not {printed:#}"
        );
    }
}

#[test]
fn agents_get_the_answers_of_the_commands() {
    let sim = Sim::start_with(&["--still"]);
    let sources: Vec<&str> = sim.sources.iter().map(String::as_str).collect();
    let home = sim.home(&sources);
    let (_daemon, address) = watch(&home);
    until(
        &address,
        "/api/v1/sources/twitch:777001/is-live",
        |status, body| status == 200 && body.contains(r#""answer":"yes""#),
    );
    let mut pipes = Pipes::start(&home, &["mcp"]);
    let mut clients: [&mut dyn Client; 3] = [&mut pipes, &mut Http(&address), &mut Sse::open(&address)];
    for client in &mut clients {
        let client = &mut **client;
        let list = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list"});
        assert_eq!(
            client.request(&list)["result"]["tools"].as_array().unwrap().len(),
            6
        );
        for source in &sources {
            let args = json!({"source": source});
            same(client, &home, "is_live", &args, &["is-live", source]);
            let args = json!({"source": source, "action": "send-chat"});
            same(client, &home, "can", &args, &["can", source, "send-chat"]);
        }
        let unknown = client.call("is_live", &json!({"source": "twitch:1"}));
        assert_eq!(
            unknown["structuredContent"]["problem"]["code"],
            "api.unknown_source"
        );
        let listed = client.call("list_sources", &json!({}));
        assert_eq!(
            listed["structuredContent"]["items"].as_array().unwrap().len(),
            sources.len()
        );
        let read = json!({"jsonrpc": "2.0", "id": 4, "method": "resources/read", "params": {"uri": "bitbrat://sources/twitch:777001"}});
        let text = client.request(&read)["result"]["contents"][0]["text"].clone();
        assert!(
            text.as_str().unwrap().contains(r#""kind":"SourceDetail""#),
            "{text}"
        );
        let read = json!({"jsonrpc": "2.0", "id": 5, "method": "resources/read", "params": {"uri": "bitbrat://sources/twitch:1"}});
        assert!(client.request(&read)["error"]["code"].as_i64().unwrap() < 0);
    }
    assert_eq!(pipes.end(), 0);
}

/// Starts and stops a daemon with a token, and checks what it publishes about itself.
async fn registers(bus: std::sync::Arc<dyn EventBus>, url: &str, prefix: &str) {
    let topic = Filter::Topic(names::MCP_REGISTRATION.to_owned());
    let mut messages = bus.tail(&topic, None).await.unwrap();
    let sim = tokio::task::block_in_place(Sim::start);
    let home = sim
        .home(&["twitch:777001"])
        .env("BITBRAT_BUS__URL", url)
        .env("BUS_PREFIX", prefix)
        .env("PUBSUB_EMULATOR_HOST", &servers::pubsub_host())
        .env("BITBRAT_WEB_TOKEN", "a-token-of-this-test")
        .env("BITBRAT_MCP__REGISTER", "true")
        .env("BITBRAT_MCP__ROLES", "moderator");
    let (mut daemon, address) = tokio::task::block_in_place(|| watch(&home));
    for status in ["active", "inactive"] {
        let message = messages.next().await.unwrap().unwrap();
        let body: Value = serde_json::from_slice(&message.data).unwrap();
        let expected = json!({
            "name": "bitbrat", "transport": "sse", "url": format!("http://{address}/sse"), "status": status,
            "env": {"Authorization": "Bearer ${BITBRAT_WEB_TOKEN}"}, "requiredRoles": ["moderator"],
        });
        assert_eq!(body["payload"], expected);
        assert_eq!(
            (&body["v"], &body["type"]),
            (&json!("2"), &json!(names::MCP_REGISTRATION))
        );
        if status == "active" {
            daemon.signal("-TERM");
            assert_eq!(tokio::task::block_in_place(|| daemon.ends()), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_registers_with_the_tool_gateway_over_nats() {
    let prefix = servers::prefix();
    servers::create_stream(&servers::nats_url(), &prefix).await;
    registers(world::nats_of(&prefix).await, &servers::nats_url(), &prefix).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_registers_with_the_tool_gateway_over_pubsub() {
    let name = servers::prefix().trim_end_matches('.').to_owned();
    let url = format!("pubsub:bitbrat-{name}");
    registers(world::pubsub_of(&name).await, &url, "local.").await;
}

#[test]
fn registration_that_cannot_work_is_refused() {
    let home = Home::new()
        .env("BITBRAT_SOURCES", "twitch:1")
        .env("BITBRAT_MCP__REGISTER", "true");
    home.run(&["watch"])
        .exits(6)
        .names_account("needs the platform's bus");
    let home = home.env("BITBRAT_BUS__URL", "nats://127.0.0.1:1");
    home.run(&["watch", "--set", "web.listen=off"])
        .exits(6)
        .names_account("needs the web server");
    let home = home
        .env("BITBRAT_WEB_TOKEN", "a-token-of-this-test")
        .env("BITBRAT_MCP__PREFIX", "Bad prefix");
    home.run(&["watch", "--set", "web.listen=0.0.0.0:0"])
        .exits(6)
        .names_account("needs the address under which")
        .names_account("BITBRAT_MCP__PREFIX");
}

#[test]
fn invalid_json_on_standard_input_is_answered() {
    let home = Home::new();
    let mut pipes = Pipes::start(&home, &["mcp"]);
    writeln!(pipes.stdin.as_mut().unwrap(), "{{\"jsonrpc\": ").unwrap();
    let mut line = String::new();
    pipes.stdout.read_line(&mut line).unwrap();
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&answer["error"]["code"], answer.get("id")),
        (&json!(-32700), Some(&Value::Null))
    );
    let refused = pipes.call("list_sources", &json!({"limit": 0}));
    assert_eq!(
        refused["structuredContent"]["problem"]["code"],
        "api.invalid_query"
    );
    assert_eq!(
        pipes.call("list_sources", &json!({}))["structuredContent"]["total"],
        0
    );
    assert_eq!(pipes.end(), 0);
}

#[test]
fn a_closed_standard_input_ends_mcp_quietly() {
    let home = Home::new();
    let run = home.run(&["mcp"]).exits(0).never_panics();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

#[test]
fn store_that_appears_later_is_read() {
    let sim = Sim::start_with(&["--still"]);
    let home = sim.home(&["twitch:777001"]);
    let mut pipes = Pipes::start(&home, &["mcp"]);
    let answer = |pipes: &mut Pipes| {
        let answer = pipes.call("is_live", &json!({"source": "twitch:777001"}));
        answer["structuredContent"]["items"][0]["answer"].clone()
    };
    assert_eq!(answer(&mut pipes), "unknown");
    home.run(&["probe", "--color", "never"]).exits(0);
    assert_eq!(answer(&mut pipes), "yes");
}

#[test]
fn demo_answers_without_any_configuration() {
    let home = Home::new();
    let mut pipes = Pipes::start(&home, &["--demo", "--still", "mcp"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = pipes.call("is_live", &json!({"source": "twitch:777001"}));
        if answer["structuredContent"]["items"][0]["answer"] == "yes" {
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(pipes.end(), 0);
}
