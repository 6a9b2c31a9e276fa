//! Errors of the web server, as RFC 9457 describes them.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::core::code::Code;
use crate::core::source::SourceKey;
use crate::secrets;
use crate::store::StoreError;

pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not answered.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: `code` names the problem.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
    /// The stable name of the problem; docs/errors.md lists them.
    #[schemars(with = "String")]
    pub(super) code: Code,
    /// What was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Box<str>>,
    /// The sources that have a name, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    sources: Vec<SourceKey>,
    /// Further members, for clients that know the same error by another form.
    #[serde(flatten)]
    #[schemars(skip)]
    more: Option<Box<Map<String, Value>>>,
    /// After how many seconds to try again.
    #[serde(skip)]
    retry_after: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: u16, code: Code) -> Self {
        let status = StatusCode::from_u16(status).expect("statuses are written as literals");
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: format!("{} {}", code.meaning(), code.remedy()),
            code,
            id: None,
            sources: Vec::new(),
            more: None,
            retry_after: None,
        }
    }

    /// Replaces the general description of the code.
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    pub(super) fn about(mut self, id: &str) -> Self {
        self.id = Some(id.chars().take(60).collect::<String>().into());
        self
    }

    pub(super) fn sources(mut self, sources: Vec<SourceKey>) -> Self {
        self.sources = sources;
        self
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more
            .get_or_insert_default()
            .insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// What is wrong, for a page.
    pub(super) fn text(&self) -> (u16, &'static str, &str) {
        (self.status, self.title, &self.detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = format!("{}; run `bitbrat doctor`", error.reason());
        Self::new(503, Code::ApiStoreUnavailable).detail(detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_value(&self).unwrap_or(Value::Null).to_string();
        // Reasons contain foreign text.
        let text = secrets::mask(&body).into_owned();
        let mut response = (status, [(CONTENT_TYPE, MEDIA_TYPE)], text).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
