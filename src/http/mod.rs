//! The one way to talk HTTP to a platform: timeouts, identification, bounded bodies, errors without secrets.
//!
//! It knows no platform. What an answer means is for `platforms::answer` and the adapters to say.

mod failure;
mod retry;
mod skew;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, Request, RequestBuilder, Url};
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::core::time::Timestamp;

pub use failure::HttpError;
pub use retry::Retries;
pub use skew::Skew;

/// Bounds of one exchange.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// How long a connection may take to come about, TLS included.
    pub connect_timeout: Duration,
    /// How long the whole exchange may take.
    pub timeout: Duration,
    /// The largest body that is read, in bytes.
    pub max_body: usize,
    /// Identification sent to the platform.
    pub user_agent: String,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            max_body: 16 * 1024 * 1024,
            user_agent: concat!("bitbrat/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Sends requests. Cloning shares the connections.
#[derive(Clone)]
pub struct Http(Arc<Shared>);

struct Shared {
    options: HttpOptions,
    clock: Arc<dyn Clock>,
    /// Through the system's proxy, where there is one.
    outside: OnceLock<reqwest::Client>,
    /// Past any proxy: a proxy knows nothing of our own loopback.
    loopback: OnceLock<reqwest::Client>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// When the head of the answer was here, by our own clock.
    pub received_at: Timestamp,
    /// From sending the request to the head of the answer.
    pub rtt: Duration,
}

impl Http {
    /// Prepares a client; nothing is opened yet.
    pub fn new(options: HttpOptions, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            options,
            clock,
            outside: OnceLock::new(),
            loopback: OnceLock::new(),
        }))
    }

    /// Returns the clock by which answers are dated.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// Starts building a request; [`Http::send`] sends it.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client(&url).request(method, url)
    }

    /// Sends `request` once and reads the answer to its end.
    pub async fn send(&self, request: Request) -> Result<Answer, HttpError> {
        let client = self.client(request.url()).clone();
        let sent = Instant::now();
        let mut response = client.execute(request).await.map_err(HttpError::from_reqwest)?;
        let rtt = sent.elapsed();
        let received_at = self.0.clock.now();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(HttpError::from_reqwest)? {
            if body.len() + chunk.len() > self.0.options.max_body {
                return Err(HttpError::TooLarge {
                    limit: self.0.options.max_body,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
            received_at,
            rtt,
        })
    }

    fn client(&self, url: &Url) -> &reqwest::Client {
        let own = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if own {
            self.0.loopback.get_or_init(|| self.build(true))
        } else {
            self.0.outside.get_or_init(|| self.build(false))
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that builds a client"
    )]
    fn build(&self, past_proxies: bool) -> reqwest::Client {
        let options = &self.0.options;
        let mut builder = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .pool_idle_timeout(Duration::from_secs(50))
            // No API redirects. A redirect is a captive portal or a mistyped address, and neither must see a token.
            .redirect(reqwest::redirect::Policy::none());
        if past_proxies {
            builder = builder.no_proxy();
        }
        builder
            .build()
            .expect("a client of fixed options and one TLS provider can always be built")
    }
}

impl Answer {
    /// Returns a header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns whether the body is a web page, as proxies, portals and edges send them in place of an API's answer.
    pub fn is_web_page(&self) -> bool {
        let declared = self
            .header(CONTENT_TYPE.as_str())
            .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
        declared || self.body.trim_ascii_start().first() == Some(&b'<')
    }

    /// Reads the body as JSON. The error tells what is wrong with it, never what is in it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        if self.body.trim_ascii().is_empty() {
            return Err(format!("the body of the {} answer is empty", self.status));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let what = match error.classify() {
                serde_json::error::Category::Eof => "the JSON ends early",
                serde_json::error::Category::Data => "the JSON has another shape",
                _ => "the body is not JSON",
            };
            // The error's own text may quote the body, so only the place is told.
            format!(
                "{what} (line {}, column {}, {} bytes)",
                error.line(),
                error.column(),
                self.body.len()
            )
        })
    }

    /// Returns the platform's own time of answering, by its `Date` header; `None` where a cache had it lying around.
    pub fn server_date(&self) -> Option<Timestamp> {
        let fresh = self.header("age").is_none_or(|age| age.trim() == "0");
        self.header("date").filter(|_| fresh).and_then(parse_http_date)
    }

    /// Returns how long the platform asks us to wait, by `Retry-After` or `Ratelimit-Reset` (Unix seconds).
    ///
    /// Both are read against the answer's own date, so that a wrong clock here does not matter.
    pub fn asked_wait(&self) -> Option<Duration> {
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

/// Reads the date format of HTTP headers.
fn parse_http_date(text: &str) -> Option<Timestamp> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim());
    parsed.ok().map(|at| Timestamp::from_millis(at.as_millisecond()))
}

#[cfg(test)]
impl Answer {
    /// An answer that nobody gave, for tests of what is made of answers.
    pub(crate) fn made_up(status: u16, headers: &[(&'static str, &str)], body: &str) -> Self {
        let header = |(name, value): &(&'static str, &str)| {
            let name = reqwest::header::HeaderName::from_static(name);
            (name, value.parse().expect("a test's header is one"))
        };
        Self {
            status,
            headers: headers.iter().map(header).collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
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
            let wait = answer(429, &headers, "").asked_wait();
            assert_eq!(wait, seconds.map(Duration::from_secs), "{headers:?}");
        }
    }

    #[test]
    fn web_pages_are_told_from_api_answers() {
        assert!(answer(200, &[("content-type", "text/HTML; charset=utf-8")], "hello").is_web_page());
        assert!(answer(502, &[], "\n <!DOCTYPE html>").is_web_page());
        assert!(!answer(200, &[("content-type", "application/json")], "{\"data\":[]}").is_web_page());
        assert!(!answer(404, &[("content-type", "text/plain")], "404 page not found").is_web_page());
    }

    #[test]
    fn what_is_wrong_with_a_body_is_told_without_quoting_it() {
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
    async fn network_failures_have_stable_codes_and_no_address() {
        let patient = HttpOptions::default();
        let hasty = HttpOptions {
            timeout: Duration::from_millis(200),
            ..HttpOptions::default()
        };
        let closed = {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}/?secret=hush", socket.local_addr().unwrap())
        };
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silence = format!("http://{}/?secret=hush", silent.local_addr().unwrap());
        let plain = format!("https://{}/?secret=hush", silent.local_addr().unwrap());
        // Longer than a part of a name may be, so that no name server has to be asked.
        let nowhere = format!("http://{}.invalid/?secret=hush", "nowhere".repeat(10));
        for (url, options, code, never_sent) in [
            (closed, &patient, "network.connect", true),
            (silence, &hasty, "network.timeout", false),
            (nowhere, &patient, "network.dns", true),
            (plain, &hasty, "network.timeout", false),
        ] {
            let http = Http::new(options.clone(), ManualClock::at(Timestamp::EPOCH));
            // Whoever runs the tests may be behind a proxy, which would look the name up for us.
            let _ = http.0.outside.set(http.build(true));
            let request = http.request(Method::GET, url.parse().unwrap()).build().unwrap();
            let error = http.send(request).await.unwrap_err();
            assert_eq!((error.code(), error.never_sent()), (code, never_sent), "{url}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_side_that_speaks_no_tls_is_told_as_such_and_not_asked_again() {
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
            (error.code(), error.may_heal()),
            ("network.tls", false),
            "{error}"
        );
        assert!(error.to_string().starts_with("no secure connection"), "{error}");
    }
}
