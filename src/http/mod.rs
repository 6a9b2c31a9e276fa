//! The HTTP client for all platforms: timeouts, identification, bounded bodies, errors without secrets.
//!
//! It is independent of the platforms. `platforms::kit::answer` and the adapters interpret responses.

mod failure;
mod retry;
mod skew;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, RETRY_AFTER,
};
use reqwest::{Method, Request, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::core::code::Code;
use crate::core::json;
use crate::core::time::Timestamp;
use crate::histogram::Histogram;
use crate::secrets;
use crate::tls;
use crate::traffic::Tap;

pub use failure::{HttpError, tls_reason};
pub use retry::Retries;
pub use skew::{
    ClockError, CorrectedClock, LenientClock, Skew, assume_clock_error, clock_error, measured_clock_error,
    own_clock_error,
};

/// Connections to one host that are kept for later calls.
const IDLE_PER_HOST: usize = 8;

/// Bounds of one exchange.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Timeout of establishing a connection, TLS included.
    pub connect_timeout: Duration,
    /// Timeout of the whole exchange.
    pub timeout: Duration,
    /// The largest body that is read, in bytes.
    pub max_body: usize,
    /// Identification sent to the platform.
    pub user_agent: String,
    /// Which addresses a name may have; all when `None`. It does not apply to addresses that are written as such, and must not be
    /// set where a proxy is used, whose own name would be checked.
    pub accepts_address: Option<fn(IpAddr) -> bool>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            max_body: 16 * 1024 * 1024,
            user_agent: concat!("bitbrat/", env!("CARGO_PKG_VERSION")).to_owned(),
            accepts_address: None,
        }
    }
}

/// Sends requests. Cloning shares the connections.
#[derive(Clone)]
pub struct Http {
    shared: Arc<Shared>,
    /// Counts how long exchanges take, those that fail included.
    durations: Option<Arc<Histogram>>,
    /// Records every exchange.
    tap: Option<Tap>,
}

struct Shared {
    options: HttpOptions,
    clock: Arc<dyn Clock>,
    /// Through the system's proxy, where there is one.
    outside: OnceLock<Client>,
    /// Without any proxy: a proxy cannot reach our own loopback.
    loopback: OnceLock<Client>,
}

struct Client {
    client: reqwest::Client,
    /// Why no certificate can be trusted, where that is so.
    untrusting: Option<String>,
}

/// A response, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// When the request was sent, by our own clock. The response proves nothing about what happened later.
    pub sent_at: Timestamp,
    /// When the head of the response was received, by our own clock.
    pub received_at: Timestamp,
    /// From sending the request to the head of the response.
    pub rtt: Duration,
}

impl Http {
    /// Creates a client; no connection is opened yet.
    pub fn new(options: HttpOptions, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                clock,
                outside: OnceLock::new(),
                loopback: OnceLock::new(),
            }),
            durations: None,
            tap: None,
        }
    }

    /// Returns a client with the same connections that counts in `durations` how long its exchanges take.
    #[must_use]
    pub fn timed(&self, durations: Arc<Histogram>) -> Self {
        Self {
            durations: Some(durations),
            ..self.clone()
        }
    }

    /// Returns a client with the same connections whose exchanges are recorded, if there is a recording.
    #[must_use]
    pub fn recorded(&self, tap: Option<Tap>) -> Self {
        Self { tap, ..self.clone() }
    }

    /// Returns what records the traffic of this client.
    pub fn tap(&self) -> Option<&Tap> {
        self.tap.as_ref()
    }

    /// Returns the clock by which responses are dated.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// Starts building a request; [`Http::send`] sends it.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client(&url).client.request(method, url)
    }

    /// Sends `request` once and reads the response to its end.
    pub async fn send(&self, request: Request) -> Result<Answer, HttpError> {
        let begun = Instant::now();
        let sent = self.tap.as_ref().and_then(|tap| tap.sent(&request));
        let answer = self.exchange(request).await;
        if let Some((tap, sent)) = self.tap.as_ref().zip(sent) {
            tap.answered(sent, &answer);
        }
        if let Some(durations) = &self.durations {
            durations.record(begun.elapsed());
        }
        answer
    }

    async fn exchange(&self, request: Request) -> Result<Answer, HttpError> {
        remember_secrets(&request);
        let Client { client, untrusting } = self.client(request.url());
        if let Some(reason) = untrusting.as_ref().filter(|_| request.url().scheme() == "https") {
            return Err(HttpError::Network {
                code: Code::NetworkTls,
                reason: reason.clone(),
                never_sent: true,
            });
        }
        let url = request.url().clone();
        let proxy = || proxy_of(&url).map(|proxy| place_of(&proxy));
        let (sent, sent_at) = (Instant::now(), self.shared.clock.now());
        let outcome = client.execute(request).await;
        let mut response =
            outcome.map_err(|error| HttpError::from_reqwest(error).over(proxy().as_deref()))?;
        // Only proxies send this status, and it is about their own credentials.
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(HttpError::of_proxy_credentials(proxy().as_deref()));
        }
        let rtt = sent.elapsed();
        let received_at = self.shared.clock.now();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(HttpError::from_reqwest)? {
            if body.len() + chunk.len() > self.shared.options.max_body {
                return Err(HttpError::TooLarge {
                    limit: self.shared.options.max_body,
                    status: response.status().as_u16(),
                });
            }
            body.extend_from_slice(&chunk);
        }
        let body = body.freeze();
        let answer = Answer {
            status: response.status().as_u16(),
            headers: masked(std::mem::take(response.headers_mut())),
            // A success may contain a new token, which is stored; any other body is only ever quoted.
            body: if response.status().is_success() {
                body
            } else {
                secrets::mask_body(body)
            },
            // A clock that was set back during the exchange is right only now.
            sent_at: sent_at.min(received_at),
            received_at,
            rtt,
        };
        skew::record_machine_clock(&answer);
        Ok(answer)
    }

    fn client(&self, url: &Url) -> &Client {
        if is_loopback(url) {
            self.shared.loopback.get_or_init(|| self.build(true))
        } else {
            self.shared.outside.get_or_init(|| self.build(false))
        }
    }

    fn build(&self, past_proxies: bool) -> Client {
        let built = match tls::has_special_file() {
            // Building it would read that file.
            true => None,
            false => self.prepared(past_proxies).build().ok(),
        };
        match built {
            Some(client) => Client {
                client,
                untrusting: None,
            },
            // Of all that is configured here only the system's certificates can be missing. Plain HTTP needs none, and what needs
            // some has to fail with that reason and nothing else.
            None => Client {
                client: self
                    .prepared(past_proxies)
                    .tls_backend_preconfigured(tls::distrusting())
                    .build()
                    .expect(
                        "a client of fixed options and one TLS provider can be built without certificates",
                    ),
                untrusting: Some(tls::without_roots()),
            },
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that builds a client"
    )]
    fn prepared(&self, past_proxies: bool) -> reqwest::ClientBuilder {
        let options = &self.shared.options;
        let builder = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .pool_idle_timeout(Duration::from_secs(50))
            // After a burst of calls the others would stay open, a descriptor each.
            .pool_max_idle_per_host(IDLE_PER_HOST)
            // No API redirects. A redirect is a captive portal or a mistyped address, and neither must receive a token.
            .redirect(reqwest::redirect::Policy::none());
        let builder = match options.accepts_address {
            Some(accepts) => builder.dns_resolver(Arc::new(FilteringResolver(accepts))),
            None => builder,
        };
        if past_proxies { builder.no_proxy() } else { builder }
    }
}

/// Resolves names to those of their addresses that are accepted.
struct FilteringResolver(fn(IpAddr) -> bool);

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let accepts = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let accepted: Vec<SocketAddr> = found.filter(|address| accepts(address.ip())).collect();
            if accepted.is_empty() {
                return Err("the name has only addresses inside a private network".into());
            }
            let addresses: Addrs = Box::new(accepted.into_iter());
            Ok(addresses)
        })
    }
}

/// Returns the proxy that requests to an address are sent over, by the rules of the client.
pub(crate) fn proxy_of(url: &Url) -> Option<Intercept> {
    if is_loopback(url) {
        return None;
    }
    let scheme = match url.scheme() {
        "wss" | "https" => "https",
        _ => "http",
    };
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    let uri = format!("{scheme}://{host}:{port}/").parse().ok()?;
    Matcher::from_system().intercept(&uri)
}

/// Returns `HOST:PORT` of a proxy, without its user and password.
pub(crate) fn place_of(proxy: &Intercept) -> String {
    let uri = proxy.uri();
    let host = uri.host().unwrap_or_default();
    match uri.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Whether an address is on this machine, for which no proxy is used.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        // For schemes other than those of the web, the parser takes an address for a name.
        Some(url::Host::Domain(name)) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns whether the body is a web page, as proxies, portals and edges send them in place of an API's response.
    pub fn is_web_page(&self) -> bool {
        let declared = self
            .header(CONTENT_TYPE.as_str())
            .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
        declared || self.body.trim_ascii_start().first() == Some(&b'<')
    }

    /// Parses the body as JSON, repaired where that is possible. The error describes the problem, never the content.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        self.read(|text| serde_json::from_str(text))
    }

    /// Parses the body as a JSON object; a list, whose members would be taken for the fields in their order, is not one.
    pub fn object<T: DeserializeOwned>(&self) -> Result<T, String> {
        self.read(|text| json::read_object(text))
    }

    fn read<T>(&self, parse: impl FnOnce(&str) -> serde_json::Result<T>) -> Result<T, String> {
        if self.body.trim_ascii().is_empty() {
            return Err(format!("the body of the {} answer is empty", self.status));
        }
        parse(&json::repair(&self.body)).map_err(|error| {
            let what = match error.classify() {
                serde_json::error::Category::Eof => "the JSON ends early",
                serde_json::error::Category::Data => "the JSON has another shape",
                _ => "the body is not JSON",
            };
            // The error's own text may quote the body, so only the position is reported.
            format!(
                "{what} (line {}, column {}, {} bytes)",
                error.line(),
                error.column(),
                self.body.len()
            )
        })
    }

    /// Returns the platform's own time of the response, by its `Date` header; `None` for a cached response.
    pub fn server_date(&self) -> Option<Timestamp> {
        let fresh = self.header("age").is_none_or(|age| age.trim() == "0");
        self.header("date").filter(|_| fresh).and_then(parse_http_date)
    }

    /// Returns how long the platform requests us to wait, by `Retry-After` or `Ratelimit-Reset` (Unix seconds).
    ///
    /// Both are relative to the response's own date, so that a wrong clock here does not matter.
    pub fn requested_wait(&self) -> Option<Duration> {
        let now = self.server_date().unwrap_or(self.received_at);
        if let Some(text) = self.header(RETRY_AFTER.as_str()) {
            let seconds = text.trim().parse::<f64>().ok().filter(|seconds| *seconds >= 0.0);
            if let Some(wait) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                return Some(wait);
            }
            if let Some(at) = parse_http_date(text) {
                return Some(at.since(now));
            }
        }
        let reset: i64 = self.header("ratelimit-reset")?.trim().parse().ok()?;
        Some(Timestamp::from_millis(reset.saturating_mul(1000)).since(now))
    }
}

/// Registers secrets of the request: a response may repeat the request.
fn remember_secrets(request: &Request) {
    for (name, value) in request.headers() {
        let secret = value.is_sensitive() || *name == AUTHORIZATION || *name == PROXY_AUTHORIZATION;
        if let Some(value) = value.to_str().ok().filter(|_| secret) {
            secrets::register(value);
        }
    }
    secrets::register_url(request.url());
    let form = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if form.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        let body = request
            .body()
            .and_then(reqwest::Body::as_bytes)
            .unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(body) {
            if secrets::FIELDS.contains(&name.as_ref()) {
                secrets::register(&value);
            }
        }
    }
}

/// Masks secrets that were repeated in headers, some of which are kept as names.
fn masked(mut headers: HeaderMap) -> HeaderMap {
    for value in headers.values_mut() {
        if let Ok(text) = value.to_str()
            && let std::borrow::Cow::Owned(masked) = secrets::mask(text)
            && let Ok(masked) = HeaderValue::try_from(masked)
        {
            *value = masked;
        }
    }
    headers
}

/// Parses the date format of HTTP headers.
fn parse_http_date(text: &str) -> Option<Timestamp> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim());
    parsed.ok().map(|at| Timestamp::from_millis(at.as_millisecond()))
}

#[cfg(test)]
impl Answer {
    /// A made-up response, for tests of its interpretation.
    pub(crate) fn made_up(status: u16, headers: &[(&'static str, &str)], body: &str) -> Self {
        let header = |(name, value): &(&'static str, &str)| {
            let name = reqwest::header::HeaderName::from_static(name);
            (name, value.parse().expect("a test's header is one"))
        };
        Self {
            status,
            headers: headers.iter().map(header).collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            sent_at: Timestamp::EPOCH,
            received_at: Timestamp::EPOCH,
            rtt: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        Answer {
            received_at: "2026-05-01T18:00:00Z".parse().unwrap(),
            ..Answer::made_up(status, headers, body)
        }
    }

    #[test]
    fn a_wait_is_read_from_either_header_against_the_servers_date() {
        let date = ("date", "Fri, 01 May 2026 19:00:00 GMT");
        for (headers, seconds) in [
            (vec![("retry-after", "2")], Some(2)),
            (
                vec![date, ("retry-after", "Fri, 01 May 2026 19:00:09 GMT")],
                Some(9),
            ),
            (vec![date, ("ratelimit-reset", "1777662030")], Some(30)),
            (vec![date, ("ratelimit-reset", "1777661000")], Some(0)),
            (vec![("retry-after", "soon")], None),
            (vec![("retry-after", "1e30")], None),
            (vec![], None),
        ] {
            let wait = answer(429, &headers, "").requested_wait();
            assert_eq!(wait, seconds.map(Duration::from_secs), "{headers:?}");
        }
    }

    #[test]
    fn web_pages_are_distinguished_from_api_answers() {
        assert!(answer(200, &[("content-type", "text/HTML; charset=utf-8")], "hello").is_web_page());
        assert!(answer(502, &[], "\n <!DOCTYPE html>").is_web_page());
        assert!(!answer(200, &[("content-type", "application/json")], "{\"data\":[]}").is_web_page());
        assert!(!answer(404, &[("content-type", "text/plain")], "404 page not found").is_web_page());
    }

    #[test]
    fn body_error_is_described_without_quoting_the_body() {
        for (body, what) in [
            ("", "empty"),
            (" \n", "empty"),
            ("[1, 2, 3", "ends early"),
            ("hush", "not JSON"),
            ("\"hush\"", "another shape"),
        ] {
            let error = answer(200, &[], body).json::<Vec<u8>>().unwrap_err();
            assert!(error.contains(what) && !error.contains("hush"), "{body}: {error}");
        }
    }

    #[tokio::test]
    async fn a_body_larger_than_the_bound_is_not_read() {
        use futures_util::{StreamExt, stream};
        let piece = Bytes::from(vec![b' '; 64 * 1024]);
        let endless = axum::Router::new().fallback(move || {
            let piece = piece.clone();
            async move { axum::body::Body::from_stream(stream::repeat(piece).map(Ok::<_, std::io::Error>)) }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio_util::task::AbortOnDropHandle::new(serve(listener, endless));
        let http = Http::new(HttpOptions::default(), ManualClock::at(Timestamp::EPOCH));
        let request = http.request(Method::GET, url.parse().unwrap()).build().unwrap();
        let error = http.send(request).await.unwrap_err();
        assert!(matches!(error, HttpError::TooLarge { .. }), "{error}");
        drop(server);
    }

    #[expect(clippy::disallowed_methods, reason = "the test owns the task by its handle")]
    fn serve(listener: tokio::net::TcpListener, app: axum::Router) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
    }

    #[tokio::test]
    async fn an_error_that_repeats_the_request_is_masked() {
        let echo = axum::Router::new().fallback(|request: axum::extract::Request| async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 10_000).await.unwrap();
            let text = format!("{:?} {}", head.headers, String::from_utf8_lossy(&body));
            let status = if head.uri.path() == "/token" { 200 } else { 400 };
            let message = serde_json::json!({"message": text, "refresh_token": "http-refresh-s3cret-01"});
            (
                axum::http::StatusCode::from_u16(status).unwrap(),
                [("x-bucket", head.headers["authorization"].clone())],
                message.to_string(),
            )
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio_util::task::AbortOnDropHandle::new(serve(listener, echo));
        let http = Http::new(HttpOptions::default(), ManualClock::at(Timestamp::EPOCH));
        let ask = async |path: &str| {
            let url = format!("{base}{path}").parse().unwrap();
            let form = [
                ("client_secret", "http-client/s3cret+02"),
                ("refresh_token", "http-refresh-s3cret-01"),
            ];
            let request = http
                .request(Method::POST, url)
                .bearer_auth("http-access-s3cret-03")
                .form(&form);
            http.send(request.build().unwrap()).await.unwrap()
        };
        let refused = ask("/other").await;
        let shown = format!("{:?} {}", refused.headers, String::from_utf8_lossy(&refused.body));
        assert!(
            shown.contains(crate::secrets::MASK) && !shown.contains("s3cret"),
            "{shown}"
        );
        // A response with a token is read unchanged.
        let granted = ask("/token").await;
        let granted: serde_json::Value = granted.json().unwrap();
        assert_eq!(granted["refresh_token"], "http-refresh-s3cret-01");
        drop(server);
    }

    #[tokio::test]
    async fn network_failures_have_stable_codes_and_no_address() {
        let patient = HttpOptions::default();
        let hasty = HttpOptions {
            timeout: Duration::from_millis(200),
            ..HttpOptions::default()
        };
        // Bound and never listening: connections are refused, and no other process is given the port.
        let reserved = tokio::net::TcpSocket::new_v4().unwrap();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = format!("http://{}/?secret=hush", reserved.local_addr().unwrap());
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silence = format!("http://{}/?secret=hush", silent.local_addr().unwrap());
        let plain = format!("https://{}/?secret=hush", silent.local_addr().unwrap());
        // Longer than a label of a name may be, so that no request to a name server is needed.
        let nowhere = format!("http://{}.invalid/?secret=hush", "nowhere".repeat(10));
        for (url, options, code, never_sent) in [
            (closed, &patient, Code::NetworkConnect, true),
            (silence, &hasty, Code::NetworkTimeout, false),
            (nowhere, &patient, Code::NetworkDns, true),
            (plain, &hasty, Code::NetworkTimeout, false),
        ] {
            let http = Http::new(options.clone(), ManualClock::at(Timestamp::EPOCH));
            // The machine that runs the tests may use a proxy, which would resolve the name for us.
            let _ = http.shared.outside.set(http.build(true));
            let request = http.request(Method::GET, url.parse().unwrap()).build().unwrap();
            let error = http.send(request).await.unwrap_err();
            assert_eq!((error.code(), error.never_sent()), (code, never_sent), "{url}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn non_tls_server_is_a_permanent_tls_error() {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        });
        let http = Http::new(HttpOptions::default(), Arc::new(crate::clock::SystemClock));
        let request = http.request(
            reqwest::Method::GET,
            format!("https://{address}/").parse().unwrap(),
        );
        let error = http.send(request.build().unwrap()).await.unwrap_err();
        assert_eq!(
            (error.code(), error.is_retryable()),
            (Code::NetworkTls, false),
            "{error}"
        );
        assert!(error.to_string().starts_with("no secure connection"), "{error}");
    }
}
