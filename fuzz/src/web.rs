//! HTTP: answers with their headers, and what clients ask the API and the tools.

use std::time::Duration;

use bitbrat::http::Answer;
use bitbrat::platforms::kit::oauth::callback;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::now;

/// Reads an input as an answer: the status, a line for each header, an empty line, the body. Without a status it is all body.
pub fn answer(data: &[u8]) -> Answer {
    let mut headers = HeaderMap::new();
    let mut rest = data;
    let mut status = 200;
    if let Some((first, after)) = line(data)
        && let Some(number) = std::str::from_utf8(first).ok().and_then(|text| text.parse::<u16>().ok())
        // What an HTTP client accepts.
        && (100..1000).contains(&number)
    {
        status = number;
        rest = after;
        while let Some((header, after)) = line(rest) {
            rest = after;
            let Some(colon) = header.iter().position(|byte| *byte == b':') else {
                break;
            };
            let name = HeaderName::from_bytes(&header[..colon]);
            let value = HeaderValue::from_bytes(header[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
    }
    Answer {
        status,
        headers,
        body: Bytes::copy_from_slice(rest),
        sent_at: now(),
        received_at: now(),
        rtt: Duration::from_millis(20),
    }
}

fn line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((data[..end].trim_ascii_end(), &data[end + 1..]))
}

/// The headers of an answer that every platform's client reads.
pub fn http_headers(data: &[u8]) {
    let answer = answer(data);
    let date = answer.server_date();
    let wait = answer.requested_wait();
    let _ = (answer.is_web_page(), answer.json::<serde_json::Value>());
    let _ = date.map(|date| date.to_string());
    let day = Duration::from_hours(24);
    assert!(wait.is_none_or(|wait| wait <= day), "a wait is added to times");
    bitbrat::http::Skew::default().update(&answer);
}

/// A query of the API, or of an address that a browser is sent back to.
pub fn api_query(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else {
        return;
    };
    bitbrat::web::fuzzing::query(query, now());
    let _ = callback::parse(query);
}

/// The arguments of a tool.
pub fn mcp_args(data: &[u8]) {
    if let Ok(serde_json::Value::Object(args)) = serde_json::from_slice(data) {
        bitbrat::mcp::fuzzing::arguments(&args, now());
    }
}
