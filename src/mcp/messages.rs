//! Messages as they arrive, and the transport on standard input and output: one message a line.
//!
//! The transport of the SDK drops what is no JSON. A client that waits for the response to such a request would wait forever, and
//! JSON-RPC has an error for it: <https://www.jsonrpc.org/specification#error_object>.

use std::io;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rmcp::model::{ErrorCode, RequestId};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::Mutex;

/// Maximum size of a message in bytes: calls of these tools have some hundred.
const MOST: usize = 1024 * 1024;

/// What was received.
#[derive(Debug)]
pub enum Received {
    Message(Box<RxJsonRpcMessage<RoleServer>>),
    /// A notification of an unknown kind. Nothing is answered to a notification.
    Ignored,
    /// The response to something that is no message.
    Refused(Value),
}

/// Reads a message.
pub fn read(text: &[u8]) -> Received {
    let value: Value = match serde_json::from_slice(text) {
        Ok(value) => value,
        Err(error) => {
            let what = format!("this is not JSON ({error}); send one JSON-RPC message a line");
            return Received::Refused(refusal(None, ErrorCode::PARSE_ERROR, &what));
        }
    };
    if let Ok(message) = serde_json::from_slice(text) {
        return Received::Message(Box::new(message));
    }
    let id = value.get("id");
    if id.is_none() && value.get("method").is_some_and(Value::is_string) {
        return Received::Ignored;
    }
    let id: Option<RequestId> = id.and_then(|id| serde_json::from_value(id.clone()).ok());
    let what = "this is not a JSON-RPC request of the protocol; its `method` or `params` are wrong";
    Received::Refused(refusal(id.as_ref(), ErrorCode::INVALID_REQUEST, what))
}

/// Returns an error. Its id is null where that of the request is not known.
fn refusal(id: Option<&RequestId>, code: ErrorCode, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

/// A transport of one message a line.
pub(super) struct Lines<R, W> {
    from: BufReader<R>,
    /// The line that is being read. A read may be dropped and begun again in the middle of it.
    line: Vec<u8>,
    is_too_long: bool,
    to: Arc<Mutex<W>>,
    /// A response that is being written.
    refusing: Option<BoxFuture<'static, io::Result<()>>>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin + Send + 'static> Lines<R, W> {
    pub(super) fn new(from: R, to: W) -> Self {
        Self {
            from: BufReader::new(from),
            line: Vec::new(),
            is_too_long: false,
            to: Arc::new(Mutex::new(to)),
            refusing: None,
        }
    }

    /// Reads the next line; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Received>> {
        loop {
            let part = self.from.fill_buf().await?;
            let is_end = part.is_empty();
            let end = part.iter().position(|byte| *byte == b'\n');
            let text = &part[..end.unwrap_or(part.len())];
            let fits = !self.is_too_long && self.line.len() + text.len() <= MOST;
            if fits {
                self.line.extend_from_slice(text);
            }
            self.is_too_long = !fits;
            let count = text.len() + usize::from(end.is_some());
            self.from.consume(count);
            if end.is_none() && !is_end {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if std::mem::take(&mut self.is_too_long) {
                let what = format!("a message has at most {MOST} bytes");
                let refused = refusal(None, ErrorCode::INVALID_REQUEST, &what);
                return Ok(Some(Received::Refused(refused)));
            }
            // Some programs on Windows begin a stream with a byte order mark.
            let line = line
                .strip_prefix("\u{feff}".as_bytes())
                .unwrap_or(&line)
                .trim_ascii();
            if !line.is_empty() {
                return Ok(Some(read(line)));
            }
            if is_end {
                return Ok(None);
            }
        }
    }

    fn write(
        &self,
        message: serde_json::Result<Vec<u8>>,
    ) -> impl Future<Output = io::Result<()>> + Send + use<R, W> {
        let to = Arc::clone(&self.to);
        async move {
            let mut line = message?;
            line.push(b'\n');
            let mut to = to.lock().await;
            to.write_all(&line).await?;
            to.flush().await
        }
    }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.write(serde_json::to_vec(&message))
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            if let Some(refusing) = &mut self.refusing {
                let written = refusing.await;
                self.refusing = None;
                written.ok()?;
            }
            match self.next().await.ok()?? {
                Received::Message(message) => return Some(*message),
                Received::Ignored => {}
                Received::Refused(response) => {
                    self.refusing = Some(self.write(serde_json::to_vec(&response)).boxed());
                }
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.to.lock().await.flush().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

    /// Sends lines, and returns the ids of the messages and what was answered to the others.
    async fn exchanged(lines: &[u8]) -> (usize, Vec<Value>) {
        let (mut input, from) = duplex(64);
        let (to, mut output) = duplex(64 * 1024);
        let mut transport = Lines::new(from, to);
        let received = async {
            let mut count = 0;
            while transport.receive().await.is_some() {
                count += 1;
            }
            drop(transport);
            count
        };
        let sent = async {
            input.write_all(lines).await.unwrap();
            drop(input);
        };
        let (count, ()) = tokio::join!(received, sent);
        let mut text = String::new();
        output.read_to_string(&mut text).await.unwrap();
        let answers = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (count, answers.collect())
    }

    #[tokio::test]
    async fn what_is_no_json_is_answered_with_a_parse_error() {
        for text in ["{", "no", "[1,", "\"\\ud800", "{\"id\":1}{", "\u{202e}"] {
            let (count, answers) = exchanged(format!("{text}\n\n{PING}\n").as_bytes()).await;
            assert_eq!(count, 1, "{text}");
            let [answer] = answers.as_slice() else {
                panic!("{text}: {answers:?}")
            };
            assert_eq!(answer["error"]["code"], -32700, "{text}");
            assert!(answer.as_object().unwrap()["id"].is_null(), "{answer}");
        }
        let (_, answers) = exchanged(b"\xff\xfe\n").await;
        assert_eq!(answers[0]["error"]["code"], -32700);
    }

    #[tokio::test]
    async fn json_that_is_no_message_is_an_invalid_request() {
        for (text, id) in [
            ("[]", Value::Null),
            ("7", Value::Null),
            (r#"{"jsonrpc":"2.0","id":"a","method":7}"#, json!("a")),
        ] {
            let (count, answers) = exchanged(format!("{text}\n{PING}").as_bytes()).await;
            assert_eq!(
                (count, &answers[0]["error"]["code"]),
                (1, &json!(-32600)),
                "{text}"
            );
            assert_eq!(answers[0]["id"], id, "{text}");
        }
    }

    #[tokio::test]
    async fn too_long_line_is_refused_and_the_next_one_read() {
        let long = "x".repeat(MOST + 1);
        let (count, answers) = exchanged(format!("{long}\n{PING}\n").as_bytes()).await;
        assert_eq!((count, answers.len()), (1, 1));
        assert_eq!(answers[0]["error"]["code"], -32600);
    }

    #[tokio::test]
    async fn unknown_notification_is_not_answered() {
        let (_, answers) = exchanged(b"{\"jsonrpc\":\"2.0\",\"method\":\"x/y\",\"params\":7}\n").await;
        assert_eq!(answers, Vec::<Value>::new());
    }
}
