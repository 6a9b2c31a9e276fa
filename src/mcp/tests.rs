//! Tests of the tools without a transport: what is listed, and what each kind of question is answered.

use std::sync::Arc;

use futures_util::FutureExt as _;
use rmcp::model::{CallToolResult, JsonObject};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::calls::{self, Failed};
use super::{Options, Tools, tools};
use crate::clock::{Clock as _, ManualClock};
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::store::memory::MemoryStore;
use crate::store::retention::Retention;
use crate::store::{SourceStore as _, Write};
use crate::view::reading::{Configured, Reading};

const START: i64 = 1_780_000_000_000;

pub(crate) fn options() -> Options {
    Options {
        prefix: "bitbrat_".into(),
        listening: Arc::new(|_| std::future::ready(None).boxed()),
    }
}

/// Returns tools over two live channels of the same name, one of which was checked an hour ago, and one configured channel that
/// was never checked.
async fn reading() -> Reading {
    let clock = ManualClock::at(Timestamp::from_millis(START));
    let store = MemoryStore::new(Retention::default());
    let seen = |key: &SourceKey, at| {
        let facts = [
            Fact::Connection {
                transport: Transport::Api,
                state: LinkState::Up,
            },
            Fact::StreamSeen {
                stream_id: "s1".into(),
                started_at: None,
            },
            Fact::Profile {
                fields: [("displayName", "Rat\u{7}Caster"), ("login", "ratcaster")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            },
        ];
        let seen = facts.map(|fact| Observation::new(key, at, "test", fact));
        SourceDocument::from_knowledge(key.clone(), Knowledge::of(&seen))
    };
    for (key, age) in [("twitch:900200", 5), ("kick:900201", 3600)] {
        let document = seen(&key.parse().unwrap(), clock.now().plus_secs(-age));
        store.save(&[Write::new(document, None)]).await.remove(0).unwrap();
    }
    Reading {
        store: Arc::new(store),
        configured: Arc::new(|| Configured {
            origins: [("twitch:900300".parse().unwrap(), "bitbrat.toml".to_owned())].into(),
            ..Configured::default()
        }),
        clock,
    }
}

async fn call(reading: Reading, name: &str, args: Value) -> CallToolResult {
    let tools = Tools::new(reading, options());
    let tool = super::tools::find(name).unwrap();
    let args: JsonObject = args.as_object().unwrap().clone();
    let own = tools.clone();
    let work = async move { (tool.answer)(own, args).await };
    let answered = calls::limited(&tools, &CancellationToken::new(), work)
        .await
        .unwrap();
    calls::result(answered)
}

/// Returns the structure and the text of a result that is no error.
async fn answered(name: &str, args: Value) -> (Value, String) {
    let result = call(reading().await, name, args.clone()).await;
    assert_eq!(result.is_error, Some(false), "{name} {args}: {result:?}");
    let text = serde_json::to_value(&result.content).unwrap()[0]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    (result.structured_content.unwrap(), text)
}

#[test]
fn list_of_tools_is_the_one_that_is_shipped() {
    let text = serde_json::to_string_pretty(&tools::listed("bitbrat_")).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/mcp-tools.json");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let shipped = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        shipped == text,
        "schemas/mcp-tools.json differs from the tools; run this test with UPDATE_GENERATED=1"
    );
}

#[test]
fn every_tool_is_acceptable_to_every_known_host() {
    fn formats(schema: &Value, found: &mut Vec<Value>) {
        if let Some(format) = schema.get("format").filter(|format| format.is_string()) {
            found.push(format.clone());
        }
        let values: Vec<&Value> = match schema {
            Value::Object(map) => map.values().collect(),
            Value::Array(list) => list.iter().collect(),
            _ => Vec::new(),
        };
        for value in values {
            formats(value, found);
        }
    }
    // The longest prefix that the configuration accepts.
    let longest = "p".repeat(40);
    for prefix in ["bitbrat_", "", &longest] {
        for tool in tools::listed(prefix) {
            let name = tool.name.to_string();
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.len() <= 60 && name.chars().all(plain), "{name}");
            let hints = tool.annotations.clone().unwrap();
            let all = (
                hints.read_only_hint,
                hints.destructive_hint,
                hints.idempotent_hint,
                hints.open_world_hint,
            );
            assert_eq!(all, (Some(true), Some(false), Some(true), Some(false)), "{name}");
            let input = Value::Object(tool.input_schema.as_ref().clone());
            let output = Value::Object(tool.output_schema.unwrap().as_ref().clone());
            let mut found = Vec::new();
            for schema in [&input, &output] {
                assert_eq!(schema["type"], "object", "{name}");
                assert!(schema["properties"].is_object(), "{name}");
                assert_eq!(
                    schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
                    "{name}"
                );
                formats(schema, &mut found);
            }
            assert_eq!(found, Vec::<Value>::new(), "{name}");
            let required = input["required"].as_array().cloned().unwrap_or_default();
            let given = |name: &Value| input["properties"].get(name.as_str().unwrap()).is_some();
            assert!(required.iter().all(given), "{name}: {required:?}");
            let about = tool.description.unwrap();
            let says = |words: &[&str]| words.iter().any(|word| about.contains(word));
            assert!(
                says(&["never claim", "never turn", "not known", "does not mean"]),
                "{name}: {about}"
            );
        }
    }
}

#[tokio::test]
async fn results_have_the_shape_that_their_schema_describes() {
    let questions = [
        ("list_sources", json!({})),
        ("list_sources", json!({"platform": "myspace"})),
        ("get_source", json!({"source": "twitch:900200"})),
        ("is_live", json!({"source": "twitch:900200"})),
        ("can", json!({"source": "twitch:900200", "action": "ban"})),
        ("can", json!({"source": "twitch:900200", "action": "fly"})),
        ("history", json!({"source": "twitch:900200"})),
        ("attention", json!({})),
    ];
    let listed = tools::listed("");
    for (name, args) in questions {
        let tool = listed.iter().find(|tool| tool.name == name).unwrap();
        let schema = Value::Object(tool.output_schema.clone().unwrap().as_ref().clone());
        let validator = jsonschema::validator_for(&schema).unwrap();
        let (value, _) = answered(name, args.clone()).await;
        let errors: Vec<_> = validator
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{name} {args}: {errors:?}");
    }
}

#[tokio::test]
async fn fresh_evidence_is_yes_and_old_evidence_is_unknown() {
    let (value, text) = answered("is_live", json!({"source": "twitch:900200"})).await;
    assert_eq!(value["items"][0]["answer"], "yes");
    assert!(
        text.starts_with("yes: live twitch:900200 (RatCaster): "),
        "{text}"
    );
    assert!(text.contains("the evidence is 5 s old"), "{text}");
    let (value, text) = answered("is_live", json!({"source": "kick:900201"})).await;
    assert_eq!(value["items"][0]["answer"], "unknown");
    assert!(
        text.starts_with("unknown: ") && text.contains("do not present it as yes or no"),
        "{text}"
    );
    let (value, _) = answered("is_live", json!({"source": "kick:900201", "max_age": "2h"})).await;
    assert_eq!(value["items"][0]["answer"], "yes");
    let (_, text) = answered("list_sources", json!({})).await;
    assert!(text.contains("stream ONLINE (5 s old)"), "{text}");
    assert!(
        text.contains("stream STALE (was ONLINE 1 h ago, do not rely on it)"),
        "{text}"
    );
    assert!(
        text.contains("twitch:900300: connection UNKNOWN, stream UNKNOWN, authorization UNKNOWN"),
        "{text}"
    );
    let (_, text) = answered("get_source", json!({"source": "kick:900201"})).await;
    assert!(
        text.contains("STALE") && !text.contains("stream ONLINE"),
        "{text}"
    );
}

#[tokio::test]
async fn expected_outcomes_are_never_errors() {
    for (name, args, code) in [
        (
            "is_live",
            json!({"source": "twitch:1234567"}),
            "api.unknown_source",
        ),
        ("is_live", json!({"source": "9.87e17"}), "api.invalid_source"),
        ("is_live", json!({"source": "myspace:1"}), "api.invalid_source"),
        ("is_live", json!({"source": "ratcaster"}), "api.ambiguous_source"),
        ("is_live", json!({}), "api.invalid_query"),
        (
            "is_live",
            json!({"source": "twitch:900200", "max_age": "soon"}),
            "api.invalid_max_age",
        ),
        (
            "can",
            json!({"source": "twitch:900200", "action": "fly"}),
            "api.unknown_action",
        ),
        ("can", json!({"source": "twitch:900200"}), "api.unknown_action"),
        (
            "history",
            json!({"source": "twitch:900200", "since": "soon"}),
            "api.invalid_query",
        ),
        (
            "get_source",
            json!({"source": ["twitch:900200"]}),
            "api.invalid_source",
        ),
        ("list_sources", json!({"limit": "many"}), "api.invalid_query"),
        ("list_sources", json!({"limit": 0}), "api.invalid_query"),
        (
            "history",
            json!({"source": "twitch:900200", "limit": 0}),
            "api.invalid_query",
        ),
    ] {
        let (value, text) = answered(name, args.clone()).await;
        assert_eq!(value["problem"]["code"], code, "{name} {args}: {value}");
        assert_eq!(value["items"], json!([]), "{name} {args}");
        assert!(
            text.starts_with("unknown: ") && text.contains(code),
            "{name} {args}: {text}"
        );
    }
    let (value, _) = answered("is_live", json!({"source": "twitch:900300"})).await;
    assert_eq!(value["items"][0]["answer"], "unknown", "never checked");
    assert!(value.get("problem").is_none());
}

#[tokio::test]
async fn argument_in_an_answer_commands_no_terminal() {
    let hostile = "a\u{202e}b\u{1b}[31m\u{200b}\u{2028}\n";
    for (name, args) in [
        ("is_live", json!({"source": hostile})),
        ("get_source", json!({"source": format!("twitch:{hostile}")})),
        ("can", json!({"source": "twitch:900200", "action": hostile})),
        ("history", json!({"source": "twitch:900200", "since": hostile})),
        ("list_sources", json!({"source": format!("twitch:{hostile}*")})),
        ("list_sources", json!({"platform": hostile})),
    ] {
        let (value, text) = answered(name, args.clone()).await;
        let detail = value["problem"]["detail"].as_str().unwrap_or_default().to_owned();
        for shown in [&detail, &text] {
            let hidden = shown
                .chars()
                .find(|c| c.is_control() || crate::secrets::is_invisible(*c));
            assert_eq!(hidden, None, "{name} {args}: {shown:?}");
        }
    }
    let (_, text) = answered("is_live", json!({"source": "a\u{202e}b"})).await;
    assert!(text.contains("\\u{202e}"), "{text}");
}

#[tokio::test]
async fn every_list_has_its_total() {
    for (name, args, total) in [
        ("list_sources", json!({}), 3),
        ("list_sources", json!({"platform": "kick"}), 1),
        ("history", json!({"source": "twitch:900200"}), 0),
    ] {
        let (value, _) = answered(name, args.clone()).await;
        assert_eq!(value["total"], total, "{name} {args}");
    }
    let (value, _) = answered("attention", json!({})).await;
    assert_eq!(value["total"], value["items"].as_array().unwrap().len());
}

#[tokio::test]
async fn long_list_says_what_was_left_out() {
    let (value, text) = answered("list_sources", json!({"limit": 1, "offset": 1})).await;
    assert_eq!(
        (value["items"].as_array().unwrap().len(), &value["total"]),
        (1, &json!(3))
    );
    assert!(text.starts_with("1 of 3 sources; use `offset`"), "{text}");
}

#[tokio::test]
async fn panic_of_a_call_is_answered_with_an_error() {
    let mut reading = reading().await;
    reading.configured = Arc::new(|| panic!("a bug"));
    let result = call(reading, "list_sources", json!({})).await;
    assert_eq!(result.is_error, Some(true));
    assert_eq!(result.structured_content.unwrap()["code"], "api.internal");
}

#[tokio::test]
async fn cancelled_call_drops_its_work() {
    struct Dropped(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().map(|dropped| dropped.send(()));
        }
    }
    let tools = Tools::new(reading().await, options());
    let (begun, begin) = tokio::sync::oneshot::channel();
    let (dropped, ended) = tokio::sync::oneshot::channel();
    let cancel = CancellationToken::new();
    let work = async move {
        let _dropped = Dropped(Some(dropped));
        let _ = begun.send(());
        std::future::pending::<Result<(), Failed>>().await
    };
    let call = calls::limited(&tools, &cancel, work);
    let client = async {
        begin.await.unwrap();
        cancel.cancel();
    };
    let (answered, ()) = tokio::join!(call, client);
    assert!(answered.is_err());
    ended.await.unwrap();
}
