//! The gateway's frames: parsed tolerantly, written as documented.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::machine::{Kind, Session};
use crate::core::json::read_object;
use crate::platforms::kit::lenient::{count, id, id_text, lenient};
use crate::secrets;

/// A frame as received. Its payload is parsed only where it is needed.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    #[serde(deserialize_with = "id")]
    op: u64,
    #[serde(borrow, default)]
    d: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "count")]
    s: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    t: Option<String>,
}

#[derive(Deserialize)]
struct Hello {
    #[serde(default, deserialize_with = "count")]
    heartbeat_interval: Option<u64>,
}

#[derive(Deserialize)]
struct Ready {
    #[serde(deserialize_with = "id_text")]
    session_id: String,
    /// Absent from a mock server that has one address only.
    #[serde(default, deserialize_with = "lenient")]
    resume_gateway_url: Option<String>,
}

impl<'a> Frame<'a> {
    /// Parses a frame from repaired text; `None` when it is not one.
    pub fn read(text: &'a str) -> Option<Self> {
        read_object(text).ok()
    }

    /// Returns the event's name, if it is an event.
    pub fn event(&self) -> Option<&str> {
        self.t.as_deref().filter(|_| self.op == 0)
    }

    /// Returns the payload as text.
    pub fn data(&self) -> &'a str {
        self.d.map_or("null", RawValue::get)
    }

    /// Returns the frame's meaning for the connection. A frame that lacks a field required for its op has none.
    pub fn kind(&self) -> Kind {
        let seq = self.s.unwrap_or(0);
        let read = match self.op {
            0 => match self.event() {
                Some("READY") => serde_json::from_str(self.data())
                    .ok()
                    .map(|ready: Ready| Kind::Ready {
                        session_id: ready.session_id,
                        url: ready.resume_gateway_url.unwrap_or_default(),
                        seq,
                    }),
                Some("RESUMED") => Some(Kind::Resumed { seq }),
                _ => Some(Kind::Event { seq }),
            },
            1 => Some(Kind::HeartbeatRequested),
            7 => Some(Kind::Reconnect),
            // Anything that is not clearly resumable is not.
            9 => Some(Kind::Invalid(self.data().trim() == "true")),
            10 => serde_json::from_str(self.data())
                .ok()
                .and_then(|hello: Hello| hello.heartbeat_interval.map(Kind::Hello)),
            11 => Some(Kind::Ack),
            _ => None,
        };
        read.unwrap_or(Kind::Other)
    }
}

/// Logs the beginning of a frame that is none of the gateway's. Something between may repeat our own frames, which contain the
/// token, so secrets are masked.
pub fn log_unreadable(text: &str) {
    tracing::debug!(
        bytes = text.len(),
        frame = secrets::quote(text),
        "A frame of Discord's gateway cannot be read"
    );
}

/// Writes op 2. The result contains the token: it is sent and must not be logged.
pub fn identify(token: &SecretString, intents: u64) -> String {
    json!({"op": 2, "d": {"token": token.expose_secret(), "intents": intents,
        "properties": {"os": std::env::consts::OS, "browser": "bitbrat", "device": "bitbrat"},
        "large_threshold": 50, "shard": [0, 1]}})
    .to_string()
}

/// Writes op 6. The result contains the token: it is sent and must not be logged.
pub fn resume(token: &SecretString, session: &Session) -> String {
    json!({"op": 6, "d": {"token": token.expose_secret(), "session_id": session.id, "seq": session.seq}})
        .to_string()
}

/// Writes op 1.
pub fn heartbeat(seq: Option<u64>) -> String {
    json!({"op": 1, "d": seq}).to_string()
}

/// Returns the address of a socket at `base`, with the API version and the encoding in use. The path and other query parameters
/// of `base` are kept as they are, since servers may distinguish `/gateway` and `/gateway/`.
pub fn address(base: &str) -> String {
    let base = base.split('#').next().unwrap_or_default();
    let (place, query) = base.split_once('?').unwrap_or((base, ""));
    let (scheme, place) = match place.split_once("://") {
        Some(("http", rest)) => ("ws", rest),
        Some(("https", rest)) => ("wss", rest),
        Some((scheme, rest)) => (scheme, rest),
        None => ("wss", place),
    };
    let slash = if place.contains('/') { "" } else { "/" };
    let mut address = format!("{scheme}://{place}{slash}?v=10&encoding=json");
    let ours = ["v", "encoding", "compress"];
    let resume_state = query.split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !name.is_empty() && !ours.contains(&name)
    });
    for pair in resume_state {
        address.push('&');
        address.push_str(pair);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        Frame::read(text).unwrap().kind()
    }

    #[test]
    fn frames_are_read_by_their_op() {
        for (text, expected) in [
            (
                r#"{"op":10,"d":{"heartbeat_interval":41250,"_trace":[]},"s":null,"t":null}"#,
                Kind::Hello(41_250),
            ),
            (r#"{"op":11}"#, Kind::Ack),
            (r#"{"op":1,"d":null}"#, Kind::HeartbeatRequested),
            (r#"{"op":7,"d":null}"#, Kind::Reconnect),
            (r#"{"op":9,"d":true}"#, Kind::Invalid(true)),
            (r#"{"op":9,"d":false}"#, Kind::Invalid(false)),
            (r#"{"op":9,"d":null}"#, Kind::Invalid(false)),
            (r#"{"op":0,"d":{},"s":4,"t":"RESUMED"}"#, Kind::Resumed { seq: 4 }),
            (
                r#"{"op":0,"d":{"new":1},"s":5,"t":"SOMETHING_NEW"}"#,
                Kind::Event { seq: 5 },
            ),
            (
                r#"{"op":0,"d":{"session_id":"a1","resume_gateway_url":"wss://x","v":10},"s":1,"t":"READY"}"#,
                Kind::Ready {
                    session_id: "a1".into(),
                    url: "wss://x".into(),
                    seq: 1,
                },
            ),
            (
                r#"{"op":0,"d":{"session_id":"a1"},"s":1,"t":"READY"}"#,
                Kind::Ready {
                    session_id: "a1".into(),
                    url: String::new(),
                    seq: 1,
                },
            ),
            (
                r#"{"op":10,"d":{"heartbeat_interval":41250.0}}"#,
                Kind::Hello(41_250),
            ),
            (
                r#"{"op":"10","d":{"heartbeat_interval":"41250"},"s":"4"}"#,
                Kind::Hello(41_250),
            ),
            (r#"{"op":10,"d":{}}"#, Kind::Other),
            (r#"{"op":99,"d":{}}"#, Kind::Other),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        for broken in ["", "[]", "[0]", "{", r#"{"d":1}"#, r#"{"op":null}"#] {
            assert!(Frame::read(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn unreadable_frame_is_logged_masked_and_shortened() {
        let token = SecretString::from("gateway-hush-0451");
        secrets::register(token.expose_secret());
        // Cut off, as a server that repeats what it received might do.
        let frame = identify(&token, 513).replace("\"op\":2", "") + &"x".repeat(10_000);
        assert!(Frame::read(&frame).is_none());
        let log = crate::telemetry::captured(|| log_unreadable(&frame));
        assert!(log.contains("DEBUG") && log.contains("intents"), "{log}");
        assert!(!log.contains("hush-0451") && log.len() < 2_000, "{log}");
    }

    #[test]
    fn frames_are_written_as_documented() {
        let token = SecretString::from("t0ken");
        let identify: serde_json::Value = serde_json::from_str(&identify(&token, 513)).unwrap();
        assert_eq!(
            (
                &identify["op"],
                &identify["d"]["intents"],
                &identify["d"]["token"]
            ),
            (&json!(2), &json!(513), &json!("t0ken"))
        );
        let session = Session {
            id: "a1".into(),
            url: "wss://x".into(),
            seq: 7,
        };
        let resume: serde_json::Value = serde_json::from_str(&resume(&token, &session)).unwrap();
        assert_eq!(
            resume,
            json!({"op": 6, "d": {"token": "t0ken", "session_id": "a1", "seq": 7}})
        );
        let send_heartbeat: serde_json::Value = serde_json::from_str(&heartbeat(None)).unwrap();
        assert_eq!(send_heartbeat, json!({"op": 1, "d": null}));
    }

    #[test]
    fn an_address_gets_our_version_whatever_it_had() {
        for base in [
            "wss://gateway.discord.gg",
            "wss://gateway.discord.gg/",
            "wss://gateway.discord.gg/?v=9",
            "wss://gateway.discord.gg?v=10&encoding=etf&compress=zlib-stream",
            "https://gateway.discord.gg",
            "gateway.discord.gg",
        ] {
            assert_eq!(address(base), "wss://gateway.discord.gg/?v=10&encoding=json");
        }
        for (base, expected) in [
            (
                "ws://127.0.0.1:1/resume",
                "ws://127.0.0.1:1/resume?v=10&encoding=json",
            ),
            (
                "ws://127.0.0.1:1/gateway/",
                "ws://127.0.0.1:1/gateway/?v=10&encoding=json",
            ),
            (
                "http://127.0.0.1:1/?key=a&v=8",
                "ws://127.0.0.1:1/?v=10&encoding=json&key=a",
            ),
        ] {
            assert_eq!(address(base), expected);
        }
    }
}
