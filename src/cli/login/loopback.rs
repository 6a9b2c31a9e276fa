//! The listener on this machine that receives the result of a login in a browser.
//!
//! It serves one address and nothing else. Browsers open connections that send nothing, ask for icons and repeat requests, so "one
//! request" is one *accepted callback*. A wrong `state` ends nothing: any web page can send one. Both address families are needed:
//! for `localhost` Chromium tries IPv6 first, even where the system resolves it to IPv4 alone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::ExposeSecret as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::platforms::kit::oauth::callback::{self, Callback, is_prefetch};
use crate::secrets;

/// The path of the redirect address.
pub const PATH: &str = "/callback";
/// How long a connection may take to send the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Maximum size of a head in bytes.
const HEAD_SIZE: usize = 8 * 1024;
/// Connections that are served at the same time. When there are more, the oldest one that has sent nothing is closed: browsers open
/// such ones in advance, and they must not keep the real one waiting.
const CONNECTIONS: usize = 8;
/// How long responses may take to be sent after the login has ended.
const FAREWELL: Duration = Duration::from_millis(300);

/// The listener, before it serves.
#[derive(Debug)]
pub struct Loopback {
    sockets: Vec<TcpListener>,
    port: u16,
}

/// What the listener reports.
#[derive(Debug)]
pub enum Event {
    /// The result; it is reported once.
    Callback(Callback),
    /// A callback of another login.
    WrongState,
}

/// What a request means.
#[derive(Debug)]
enum Judged {
    Answer(StatusCode),
    WrongState,
    Callback(Callback),
}

impl Loopback {
    /// Binds the port for both address families. A machine without IPv6 has one only; a port that another program holds on either
    /// is an error, because that program would receive the code.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let v4 = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let mut sockets = vec![v4];
        match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
            Ok(v6) => sockets.push(v6),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => {}
        }
        Ok(Self { sockets, port })
    }

    /// Returns the redirect address, exactly as it has to be registered at the platform.
    pub fn redirect_uri(&self) -> String {
        redirect_uri(self.port)
    }

    /// Serves until `stop` is cancelled. The first callback with `state` is reported, and others get the same page.
    pub async fn serve(self, state: String, events: mpsc::Sender<Event>, stop: CancellationToken) {
        let shared = Arc::new(Shared {
            host: format!("localhost:{}", self.port),
            state,
            events,
            is_done: AtomicBool::new(false),
        });
        let mut connections = JoinSet::new();
        let mut open: VecDeque<Connection> = VecDeque::new();
        loop {
            tokio::select! {
                socket = accept(&self.sockets) => {
                    let Some(socket) = socket else { continue };
                    open.retain(|connection| !connection.task.is_finished());
                    if open.len() >= CONNECTIONS && !close_silent(&mut open) {
                        // Each of them is being answered, which takes a moment.
                        continue;
                    }
                    let is_silent = Arc::new(AtomicBool::new(true));
                    let task = connections.spawn(answer(socket, Arc::clone(&shared), Arc::clone(&is_silent)));
                    open.push_back(Connection { task, is_silent });
                }
                Some(_) = connections.join_next() => {}
                () = stop.cancelled() => break,
            }
        }
        drop(self.sockets);
        // The page for the browser may still be on its way; silent connections end with the set.
        let _ = tokio::time::timeout(FAREWELL, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
    }
}

/// Returns the redirect address with this port.
pub fn redirect_uri(port: u16) -> String {
    format!("http://localhost:{port}{PATH}")
}

/// Reads the result from the address that a browser was sent to, as its address bar shows it. `None` for an address that is not the
/// redirect address of this login.
pub fn read_pasted(address: &str, port: u16, state: &str) -> Option<Callback> {
    let url: url::Url = address.trim().parse().ok()?;
    let is_ours = url.host_str() == Some("localhost") && url.port() == Some(port) && url.path() == PATH;
    match result(url.query().unwrap_or_default(), state) {
        Judged::Callback(callback) if is_ours => Some(callback),
        _ => None,
    }
}

/// A connection that is open.
struct Connection {
    task: AbortHandle,
    /// Whether it has sent no request yet.
    is_silent: Arc<AtomicBool>,
}

/// Closes the oldest connection that has sent nothing; returns whether there was one.
fn close_silent(open: &mut VecDeque<Connection>) -> bool {
    let mut all = open.iter();
    let silent = all.position(|connection| connection.is_silent.load(Ordering::Acquire));
    let Some(silent) = silent.and_then(|index| open.remove(index)) else {
        return false;
    };
    silent.task.abort();
    true
}

struct Shared {
    host: String,
    state: String,
    events: mpsc::Sender<Event>,
    is_done: AtomicBool,
}

/// Accepts a connection on either socket; `None` after an error, such as too many open files.
async fn accept(sockets: &[TcpListener]) -> Option<TcpStream> {
    let accepting = sockets.iter().map(|socket| Box::pin(socket.accept()));
    let (accepted, _, _) = futures_util::future::select_all(accepting).await;
    match accepted {
        Ok((socket, _)) => Some(socket),
        Err(_) => {
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn answer(socket: TcpStream, shared: Arc<Shared>, is_silent: Arc<AtomicBool>) {
    let service = service_fn(move |request: Request<Incoming>| {
        is_silent.store(false, Ordering::Release);
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(&request, &shared).await) }
    });
    // Errors are those of browsers that close connections; nothing of a request is logged, because it contains the code.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

async fn respond(request: &Request<Incoming>, shared: &Shared) -> Response<String> {
    let judged = judge(
        request.method(),
        request.uri(),
        request.headers(),
        &shared.host,
        &shared.state,
    );
    match judged {
        Judged::Answer(status) => page(status),
        Judged::WrongState => {
            // The login goes on, and a report more or less changes nothing.
            let _ = shared.events.try_send(Event::WrongState);
            page(StatusCode::BAD_REQUEST)
        }
        Judged::Callback(callback) => {
            let answer = match &callback {
                Callback::Code(_) => page(StatusCode::OK),
                Callback::Refused(_) => refused_page(),
            };
            if !shared.is_done.swap(true, Ordering::AcqRel) {
                let _ = shared.events.send(Event::Callback(callback)).await;
            }
            answer
        }
    }
}

fn judge(method: &Method, uri: &Uri, headers: &HeaderMap, host: &str, state: &str) -> Judged {
    if method != Method::GET {
        return Judged::Answer(StatusCode::METHOD_NOT_ALLOWED);
    }
    if uri.path() == "/favicon.ico" {
        return Judged::Answer(StatusCode::NO_CONTENT);
    }
    let is_ours = headers
        .get(HOST)
        .is_some_and(|given| given.as_bytes() == host.as_bytes());
    if uri.path() != PATH || !is_ours {
        return Judged::Answer(StatusCode::NOT_FOUND);
    }
    if is_prefetch(headers) {
        return Judged::Answer(StatusCode::SERVICE_UNAVAILABLE);
    }
    result(uri.query().unwrap_or_default(), state)
}

/// Reads the result from a query. An error counts only with the right state: otherwise any web page could end a login.
fn result(query: &str, state: &str) -> Judged {
    let (given, callback) = callback::parse(query);
    if aws_lc_rs::constant_time::verify_slices_are_equal(given.as_bytes(), state.as_bytes()).is_err() {
        return Judged::WrongState;
    }
    if let Some(Callback::Code(code)) = &callback {
        secrets::register(code.expose_secret());
    }
    callback.map_or(Judged::Answer(StatusCode::BAD_REQUEST), Judged::Callback)
}

/// Returns a page. It repeats nothing of the request, and does not call the login successful: the code is not exchanged yet.
fn page(status: StatusCode) -> Response<String> {
    let text = match status {
        StatusCode::OK => "Received. Go back to the terminal to see the result; this page can be closed.",
        StatusCode::BAD_REQUEST => {
            "This page does not belong to the login that waits now. Use the newest link in the terminal."
        }
        StatusCode::NO_CONTENT => "",
        _ => "There is nothing here.",
    };
    callback::page(status, text)
}

/// Returns the page after a consent that was not given.
fn refused_page() -> Response<String> {
    let text = "No login was granted. Go back to the terminal to see why; this page can be closed.";
    callback::page(StatusCode::OK, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST_NAME: &str = "localhost:17563";

    fn judged(method: &str, target: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        map.insert(HOST, HOST_NAME.parse().unwrap());
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let method: Method = method.parse().unwrap();
        match judge(&method, &target.parse().unwrap(), &map, HOST_NAME, "right") {
            Judged::Answer(status) => status.as_u16().to_string(),
            Judged::WrongState => "wrong state".to_owned(),
            Judged::Callback(Callback::Code(code)) => format!("code {}", code.expose_secret()),
            Judged::Callback(Callback::Refused(error)) => format!("refused {error}"),
        }
    }

    #[test]
    fn only_a_code_with_the_right_state_is_masked_from_then_on() {
        for (state, masked) in [("wrong", false), ("right", true)] {
            let code = format!("callback-0451-{state}-Vx9qT2");
            judged("GET", &format!("/callback?code={code}&state={state}"), &[]);
            assert_eq!(!secrets::mask(&code).contains(&code), masked, "{state}");
        }
    }

    #[test]
    fn only_the_callback_with_its_state_counts() {
        for (method, target, expected) in [
            ("GET", "/callback?code=the-code&state=right", "code the-code"),
            ("GET", "/callback?state=right&code=a%2Bb+c", "code a+b c"),
            (
                "GET",
                "/callback?error=access_denied&state=right",
                "refused access_denied",
            ),
            ("GET", "/callback?code=the-code&state=wrong", "wrong state"),
            ("GET", "/callback?error=access_denied", "wrong state"),
            (
                "GET",
                "/callback?code=the-code&state=wrong&state=right",
                "wrong state",
            ),
            ("GET", "/callback?state=right", "400"),
            ("GET", "/callback?state=right&code=", "400"),
            ("GET", "/callback/?code=the-code&state=right", "404"),
            ("GET", "/", "404"),
            ("GET", "/favicon.ico", "204"),
            ("OPTIONS", "/callback?code=the-code&state=right", "405"),
            ("POST", "/callback?code=the-code&state=right", "405"),
            ("HEAD", "/callback?code=the-code&state=right", "405"),
        ] {
            assert_eq!(judged(method, target, &[]), expected, "{method} {target}");
        }
    }

    #[test]
    fn prefetch_and_foreign_host_spend_no_code() {
        let target = "/callback?code=the-code&state=right";
        for (header, expected) in [
            (("sec-purpose", "prefetch;prerender"), "503"),
            (("purpose", "prefetch"), "503"),
            (("host", "evil.example"), "404"),
            (("host", "127.0.0.1:17563"), "404"),
        ] {
            assert_eq!(judged("GET", target, &[header]), expected, "{header:?}");
        }
    }

    #[test]
    fn pasted_address_counts_only_if_it_is_this_login() {
        let read = |address: &str| read_pasted(address, 17563, "right").is_some();
        assert!(read(" http://localhost:17563/callback?code=a&state=right\n"));
        for address in [
            "http://localhost:17563/callback?code=a&state=wrong",
            "http://localhost:1/callback?code=a&state=right",
            "http://localhost:17563/?code=a&state=right",
            "https://evil.example/callback?code=a&state=right",
            "code=a&state=right",
            "",
        ] {
            assert!(!read(address), "{address}");
        }
    }

    #[test]
    fn page_repeats_nothing_and_is_never_cached() {
        for status in [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND] {
            let page = page(status);
            assert_eq!(page.headers()["cache-control"], "no-store");
            assert_eq!(page.headers()["referrer-policy"], "no-referrer");
            assert!(!page.body().contains("success"), "{}", page.body());
        }
    }

    async fn exchanged(port: u16, target: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Serves on a free port while `visit` runs.
    async fn visited(visit: impl AsyncFnOnce(u16)) {
        let mut listener = Loopback::bind(0).await.unwrap();
        // Both families would have to get the same free port.
        listener.port = listener.sockets[0].local_addr().unwrap().port();
        let port = listener.port;
        let (events, _seen) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let serving = listener.serve("right".to_owned(), events, stop.clone());
        let visiting = async {
            visit(port).await;
            stop.cancel();
        };
        tokio::join!(serving, visiting);
    }

    #[tokio::test]
    async fn silent_connections_do_not_delay_the_callback() {
        visited(async |port| {
            let mut silent = Vec::new();
            for _ in 0..24 {
                silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
            }
            let callback = exchanged(port, "/callback?code=the-code&state=right");
            let answer = tokio::time::timeout(HEAD_TIME / 2, callback).await;
            assert!(answer.expect("it waited for a silent one").contains("Received"));
        })
        .await;
    }

    #[tokio::test]
    async fn page_of_a_refused_consent_does_not_call_it_received() {
        visited(async |port| {
            let answer = exchanged(port, "/callback?error=access_denied&state=right").await;
            assert!(
                answer.contains("No login was granted") && !answer.contains("access_denied"),
                "{answer}"
            );
        })
        .await;
    }

    #[tokio::test]
    async fn both_address_families_are_bound_where_there_are_two() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let has_v6 = std::net::TcpListener::bind("[::1]:0").is_ok();
        let listener = Loopback::bind(port).await.unwrap();
        assert_eq!(listener.sockets.len(), 1 + usize::from(has_v6));
    }

    #[tokio::test]
    async fn port_of_another_program_is_not_shared() {
        let held = Loopback::bind(0).await.unwrap();
        let port = held.sockets[0].local_addr().unwrap().port();
        let error = Loopback::bind(port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
