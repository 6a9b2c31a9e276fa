//! Access control: any client on this machine, and elsewhere clients that send the token.

use crate::core::code::Code;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{Web, answer};

/// Paths that a supervisor requests without a token; they return only health.
const OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Accepts or rejects a request.
///
/// Without a token the server listens on loopback only, and then a request must have a loopback host: a page on the internet
/// whose name was pointed at 127.0.0.1 must not read a person's debug pages through their browser.
pub(super) async fn guard(State(web): State<Web>, request: Request, next: Next) -> Response {
    let open = OPEN.contains(&request.uri().path());
    let mut response = match &web.token {
        _ if open => next.run(request).await,
        Some(token) if shows(request.headers(), token.expose_secret()) => next.run(request).await,
        Some(_) => {
            let mut refused = answer(401, json!({"error": Code::ApiUnauthorized}));
            refused
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refused
        }
        None if names_loopback(&request) => next.run(request).await,
        None => answer(403, json!({"error": Code::ApiForbiddenHost})),
    };
    let headers = response.headers_mut();
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Whether the one `Authorization` header contains the token. The scheme's name is case-insensitive (RFC 9110, 11.1).
fn shows(headers: &HeaderMap, token: &str) -> bool {
    let Some((scheme, shown)) = only(headers, &AUTHORIZATION).and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let same = aws_lc_rs::constant_time::verify_slices_are_equal(shown.trim().as_bytes(), token.as_bytes());
    scheme.eq_ignore_ascii_case("bearer") && same.is_ok()
}

/// Returns the value of a header that must not be sent twice: it would be undefined which one applies.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
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
