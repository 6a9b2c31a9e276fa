//! How a call is run: within limits, without a panic that nobody answers, and no longer than its client waits.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use rmcp::model::{CallToolResult, ContentBlock, ErrorData};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Tools;
use crate::blocking::apart;
use crate::core::code::Code;
use crate::secrets;
use crate::store::StoreError;

/// How long a call may take, the wait for others included. The web server ends requests after ten seconds.
const TIME: Duration = Duration::from_secs(8);

/// What a tool answers: the same as a structure and as text, because clients show their model one or the other.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) value: Value,
    pub(super) text: String,
}

/// Something that a person has to repair.
#[derive(Debug)]
pub(super) struct Failed {
    code: Code,
    detail: String,
}

impl Failed {
    fn new(code: Code) -> Self {
        Self {
            code,
            detail: format!("{} {}", code.meaning(), code.remedy()),
        }
    }

    pub(super) fn of(code: Code, detail: String) -> Self {
        Self { code, detail }
    }

    /// Returns it as an error of the protocol, for requests whose results cannot be errors.
    pub(super) fn as_error(&self) -> ErrorData {
        let data = json!({"code": self.code});
        let detail = secrets::mask(&self.detail).into_owned();
        match self.code {
            Code::ApiUnknownSource => ErrorData::resource_not_found(detail, Some(data)),
            _ => ErrorData::internal_error(detail, Some(data)),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self {
            code: Code::ApiStoreUnavailable,
            detail: format!("{}; run `bitbrat doctor`", error.reason()),
        }
    }
}

/// Runs `work` within the limits: few calls at a time, apart from the threads that run probes, for a limited time and until the
/// client cancels it or is gone.
pub(super) async fn limited<T: Send + 'static>(
    tools: &Tools,
    cancelled: &CancellationToken,
    work: impl Future<Output = Result<T, Failed>> + Send + 'static,
) -> Result<Result<T, Failed>, ErrorData> {
    let run = async {
        let permit = tools.free.acquire().await;
        let done = apart(AssertUnwindSafe(work).catch_unwind()).await;
        drop(permit);
        done
    };
    tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(ErrorData::internal_error("cancelled by the client", None)),
        () = tools.gone.cancelled() => Err(ErrorData::internal_error("the client is gone", None)),
        done = tokio::time::timeout(TIME, run) => Ok(match done {
            Ok(Ok(done)) => done,
            // The panic itself was logged by the hook.
            Ok(Err(_panic)) => {
                error!("A call of an agent panicked");
                Err(Failed::new(Code::ApiInternal))
            }
            Err(_elapsed) => Err(Failed::new(Code::ApiTimeout)),
        }),
    }
}

/// Returns the result of a tool. Names and reasons are foreign text, so known secrets are masked.
pub(super) fn result(answered: Result<Answered, Failed>) -> CallToolResult {
    match answered {
        Ok(Answered { value, text }) => {
            let mut result = CallToolResult::structured(masked(value));
            result.content = vec![ContentBlock::text(secrets::mask(&text).into_owned())];
            result
        }
        Err(Failed { code, detail }) => {
            let detail = secrets::mask(&detail).into_owned();
            let mut result = CallToolResult::structured_error(json!({"code": code, "detail": detail}));
            result.content = vec![ContentBlock::text(format!("{detail} ({code})"))];
            result
        }
    }
}

/// Returns a value without known secrets.
fn masked(value: Value) -> Value {
    let text = value.to_string();
    match secrets::mask(&text) {
        std::borrow::Cow::Borrowed(_) => value,
        std::borrow::Cow::Owned(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
    }
}
