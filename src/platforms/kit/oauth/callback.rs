//! What a platform sends a browser back with after a consent, and the page that answers it.

use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use secrecy::SecretString;
use url::form_urlencoded;

/// The title of every page, by which another login recognizes this one.
pub const TITLE: &str = "<title>bitbrat login</title>";

/// The result of a consent.
#[derive(Debug)]
pub enum Callback {
    /// The code, which is exchanged for a token.
    Code(SecretString),
    /// The platform's name of the error, such as `access_denied`.
    Refused(String),
}

/// Reads `state` and the result from the query of a redirect address. `None`: there is neither a code nor an error.
///
/// The code is registered as a secret by the caller, once the state is known to be ours: anyone can send any number of others, which
/// would replace the secrets of this program among those that are masked.
pub fn parse(query: &str) -> (String, Option<Callback>) {
    let (mut state, mut code, mut error) = (None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "state" => state = state.or(Some(value)),
            "code" => code = code.or(Some(value)),
            "error" => error = error.or(Some(value)),
            _ => {}
        }
    }
    let callback = match (error, code.filter(|code| !code.is_empty())) {
        (Some(error), _) => Some(Callback::Refused(error.into_owned())),
        (None, Some(code)) => Some(Callback::Code(SecretString::from(code.into_owned()))),
        (None, None) => None,
    };
    (state.unwrap_or_default().into_owned(), callback)
}

/// Whether a browser only loads an address in advance. It would spend the code.
pub fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose"].iter().any(|name| {
        let value = headers.get(*name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.to_ascii_lowercase().contains("prefetch"))
    })
}

/// Returns a page, which is never cached and has no scripts. `text` repeats nothing of the request.
pub fn page(status: StatusCode, text: &str) -> Response<String> {
    let body = if text.is_empty() {
        String::new()
    } else {
        format!("<!doctype html><meta charset=\"utf-8\">{TITLE}<p>{text}</p>\n")
    };
    let response = Response::builder()
        .status(status)
        .header("Content-Type", "text/html; charset=utf-8")
        .header("Cache-Control", "no-store")
        .header("Referrer-Policy", "no-referrer")
        .header("Content-Security-Policy", "default-src 'none'")
        .header("Connection", "close");
    response.body(body).expect("fixed headers are valid")
}
