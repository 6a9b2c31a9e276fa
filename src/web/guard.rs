//! Access control: any client on this machine, and elsewhere clients that send the token or have logged in.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::{Authority, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;

use super::Site;
use super::pages;
use super::pages::login::{self, Login};
use super::problem::Problem;
use crate::core::code::Code;

/// Paths that a supervisor requests without a token; they return only health.
const HEALTH: [&str; 4] = ["/health", "/healthz", "/livez", "/readyz"];

/// No page loads anything from elsewhere, runs a script of its own text or is shown inside another one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Whether a path is answered without a token: health, what was made public by configuration, and what a login needs.
fn is_open(path: &str) -> bool {
    HEALTH.contains(&path)
        || path == "/public"
        || path == "/login"
        || path.starts_with("/badge/")
        || path.starts_with("/assets/")
}

/// Accepts or rejects a request.
///
/// Without a token the server listens on loopback only, and then a request must have a loopback host: a page on the internet
/// whose name was pointed at 127.0.0.1 must not read a person's pages through their browser. A request that a page of another
/// site sends by script has that site as its origin, and is refused wherever the server listens.
pub(super) async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let headers = request.headers();
    let mut login = None;
    let refused = if HEALTH.contains(&path.as_str()) {
        None
    } else if site.token.is_none() && !names_loopback(&request) {
        Some(Problem::new(403, Code::ApiForbiddenHost).into_response())
    } else if !path.starts_with("/badge/") && !is_same_origin(headers) {
        Some(Problem::new(403, Code::ApiForbiddenOrigin).into_response())
    } else {
        let token = site.token.as_ref().filter(|_| !is_open(&path));
        let shown = token.filter(|token| {
            let token = token.expose_secret();
            if shows(headers, token) {
                return false;
            }
            login = login::login_of(headers, token, &site.ended, site.clock.now());
            login.is_none()
        });
        shown.map(|_| unauthorized(&request))
    };
    let mut response = match refused {
        Some(response) => response,
        None => until_logout(next.run(request).await, login, &site),
    };
    let headers = response.headers_mut();
    for (name, value) in [(CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, POLICY)] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Ends an event stream together with the login that it was opened with: it would last beyond that. Other responses are short.
fn until_logout(response: Response, login: Option<Login>, site: &Site) -> Response {
    let kind = response.headers().get(CONTENT_TYPE);
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let Some(login) = login.filter(|_| is_stream) else {
        return response;
    };
    let (ended, now) = (Arc::clone(&site.ended), site.clock.now());
    let over = async move { login.ended(&ended, now).await };
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(over))))
}

/// Asks a program for the token, and a person to log in.
fn unauthorized(request: &Request) -> Response {
    if pages::wants_html(request.headers()) {
        let wanted = request.uri().path_and_query().map_or("/", |path| path.as_str());
        return login::form(401, wanted, None);
    }
    let mut refused = Problem::new(401, Code::ApiUnauthorized).into_response();
    refused
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

/// Whether the one `Authorization` header contains the token. The scheme's name is case-insensitive (RFC 9110, 11.1).
fn shows(headers: &HeaderMap, token: &str) -> bool {
    let Some((scheme, shown)) = only(headers, &AUTHORIZATION).and_then(|value| value.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer") && is_same(shown.trim(), token)
}

/// Compares secrets in constant time.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// Returns the value of a header that must not be sent twice: it would be undefined which one applies.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether no origin is named, or the one that the request is sent to. Behind a proxy the scheme of both may differ.
fn is_same_origin(headers: &HeaderMap) -> bool {
    if !headers.contains_key(ORIGIN) {
        return true;
    }
    let origin = only(headers, &ORIGIN).and_then(|origin| origin.parse::<Uri>().ok());
    let origin = origin.as_ref().and_then(Uri::authority).map(Authority::as_str);
    match (origin, only(headers, &HOST)) {
        (Some(origin), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// Whether a request has this machine as its host, in its one `Host` header and, where it has one, in its target.
fn names_loopback(request: &Request) -> bool {
    let target = request.uri().authority().map(Authority::as_str);
    only(request.headers(), &HOST).is_some_and(is_loopback) && target.is_none_or(is_loopback)
}

/// Whether `host`, in the form of a `Host` header, is this machine. Parsed strictly: what cannot be parsed is another one.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let is_own = address
                    .parse::<Ipv6Addr>()
                    .is_ok_and(|address| address.is_loopback());
                return is_own && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => host
            .split_once(':')
            .map_or((host, None), |(name, port)| (name, Some(port))),
    };
    // A name with a trailing dot is the same name.
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_own = name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback());
    is_own && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text.is_empty() || text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_of_another_origin_is_recognized() {
        for (origin, expected) in [
            (None, true),
            (Some("http://localhost:8787"), true),
            (Some("https://LOCALHOST:8787"), true),
            (Some("http://localhost:8788"), false),
            (Some("http://localhost:8787.evil.example"), false),
            (Some("http://evil.example"), false),
            (Some("null"), false),
            (Some(""), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("localhost:8787"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(is_same_origin(&headers), expected, "{origin:?}");
        }
    }

    #[test]
    fn only_this_machines_names_are_loopback_hosts() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:8787", true),
            ("localhost.", true),
            ("127.0.0.1", true),
            ("127.8.9.1:1", true),
            ("127.0.0.1.", true),
            ("[::1]", true),
            ("[::1]:8787", true),
            ("[0:0:0:0:0:0:0:1]", true),
            ("[::1].evil.example", false),
            ("[::1]evil.example", false),
            ("[::1]:80.evil.example", false),
            ("[::1", false),
            ("::1", false),
            ("[::2]", false),
            ("[127.0.0.1]", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1:80.evil.example", false),
            ("127.1", false),
            ("localhost.evil.example", false),
            ("localhost..", false),
            ("localhost:99999", false),
            ("localhost:80:80", false),
            ("localhost@evil.example", false),
            ("evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
