//! The table of tools: names, descriptions and schemas.
//!
//! Many clients show their model nothing but the description and the text of a result, so the descriptions explain unknown and
//! stale.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::Tools;
use super::answers::{self, Outcome};
use super::args::{CanArgs, HistoryArgs, ListArgs, NoArgs, SourceArgs};
use super::calls::{Answered, Failed};
use crate::view::answer::AnswerItem;
use crate::view::attention::Attention;
use crate::view::detail::SourceDetail;
use crate::view::history::HistoryItem;
use crate::view::item::SourceItem;

/// The description of the server as a whole.
pub(super) const INSTRUCTIONS: &str = "\
bitbrat monitors the sources of a streaming bot: Twitch channels, Kick channels and Discord guilds. The tools read what it has \
stored and change nothing. No evidence, no claim: `unknown` means that there is not enough evidence or that it is too old. Never \
present unknown or stale data as a fact; say that it is not known, or how old it is.";

/// The rule for answers to one question.
const ANSWER: &str = " The answer is `yes`, `no` or `unknown`, with the reason and the age of the evidence. `unknown` means that \
there is not enough evidence, or that it is too old to rely on: never turn it into yes or no, and do not guess; say that it is \
not known, and why.";

/// The rule for states.
const STATE: &str = " A status that is UNKNOWN, absent or listed in `stale` is not known now: never claim it; say that it is not \
known, or how old it is.";

type Answer = fn(Tools, JsonObject) -> BoxFuture<'static, Result<Answered, Failed>>;

/// One tool.
pub(super) struct Definition {
    /// The name without the prefix.
    name: &'static str,
    title: &'static str,
    description: &'static str,
    /// The rule that follows the description.
    rule: &'static str,
    input: fn() -> JsonObject,
    /// The arguments without which there is no answer. Reading them is lenient, so the types do not have this.
    required: &'static [&'static str],
    output: fn() -> JsonObject,
    pub(super) answer: Answer,
}

/// Every tool, in the order of the list.
const ALL: &[Definition] = &[
    Definition {
        name: "list_sources",
        title: "List sources",
        description: "List the channels and guilds that the bot works in, with connection, stream, viewers, authorization and the \
            age of each.",
        rule: STATE,
        input: input::<ListArgs>,
        required: &[],
        output: output::<Outcome<SourceItem>>,
        answer: |tools, args| answers::list_sources(tools, args).boxed(),
    },
    Definition {
        name: "get_source",
        title: "Show one source",
        description: "Show everything about one channel or guild: every status with its evidence, reason and age, permissions, \
            accounts and the latest changes.",
        rule: STATE,
        input: input::<SourceArgs>,
        required: &["source"],
        output: output::<Outcome<SourceDetail>>,
        answer: |tools, args| answers::get_source(tools, args).boxed(),
    },
    Definition {
        name: "is_live",
        title: "Is it live?",
        description: "Answer whether the stream of a channel is live now. Ask before you suggest anything that needs a live stream.",
        rule: ANSWER,
        input: input::<SourceArgs>,
        required: &["source"],
        output: output::<Outcome<AnswerItem>>,
        answer: |tools, args| answers::is_live(tools, args).boxed(),
    },
    Definition {
        name: "can",
        title: "May the bot do it?",
        description: "Answer whether the bot may do something in a channel or guild, such as `send-chat`, `ban` or `moderate`, and \
            what is missing if not. Ask before you try or promise an action.",
        rule: ANSWER,
        input: input::<CanArgs>,
        required: &["source", "action"],
        output: output::<Outcome<AnswerItem>>,
        answer: |tools, args| answers::can(tools, args).boxed(),
    },
    Definition {
        name: "history",
        title: "Show what changed",
        description: "List what changed about a channel or guild, newest first, and how long the state before each change had lasted.",
        rule: " A list that ends, or is empty, does not mean that nothing happened before: only changes that were observed are listed.",
        input: input::<HistoryArgs>,
        required: &["source"],
        output: output::<Outcome<HistoryItem>>,
        answer: |tools, args| answers::history(tools, args).boxed(),
    },
    Definition {
        name: "attention",
        title: "What needs attention?",
        description: "List what is wrong: one entry per cause, with the affected sources and the command with which a person fixes it.",
        rule: " Sources whose data is stale or that were never checked are listed as such: it is not known whether they work.",
        input: input::<NoArgs>,
        required: &[],
        output: output::<Outcome<Attention>>,
        answer: |tools, args| answers::attention(tools, args).boxed(),
    },
];

/// Returns the tool with this name, which has no prefix.
pub(super) fn find(name: &str) -> Option<&'static Definition> {
    ALL.iter().find(|tool| tool.name == name)
}

/// Returns the tools as clients see them.
pub(super) fn listed(prefix: &str) -> Vec<Tool> {
    let tool = |one: &Definition| {
        // Each of them reads the store alone, whatever is asked.
        let hints = ToolAnnotations::with_title(one.title)
            .read_only(true)
            .destructive(false)
            .idempotent(true)
            .open_world(false);
        let description = format!("{}{}", one.description, one.rule);
        let mut input = (one.input)();
        input.entry("properties").or_insert_with(|| json!({}));
        if !one.required.is_empty() {
            input.insert("required".to_owned(), json!(one.required));
        }
        Tool::new_with_raw(
            format!("{prefix}{}", one.name),
            Some(Cow::Owned(description)),
            input,
        )
        .with_title(one.title)
        .with_raw_output_schema(Arc::new((one.output)()))
        .with_annotations(hints)
    };
    ALL.iter().map(tool).collect()
}

fn input<T: JsonSchema>() -> JsonObject {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    schema::<T>(settings.with(|settings| settings.inline_subschemas = true))
}

fn output<T: JsonSchema>() -> JsonObject {
    schema::<T>(SchemaSettings::draft2020_12().for_serialize())
}

fn schema<T: JsonSchema>(settings: SchemaSettings) -> JsonObject {
    let mut generator = settings
        .with_transform(RecursiveTransform(plain))
        .into_generator();
    let mut schema = generator.root_schema_for::<T>();
    schema.remove("title");
    schema.remove("description");
    match schema.to_value() {
        Value::Object(schema) => schema,
        _ => JsonObject::new(),
    }
}

/// Leaves out what clients do not understand: the formats of numbers, about which validators print warnings, and null as the value
/// of an argument that is left out.
fn plain(schema: &mut Schema) {
    let is_number = |kind: &Value| kind == "integer" || kind == "number";
    let kinds = schema.get("type");
    let is_numeric = kinds.is_some_and(|kinds| {
        is_number(kinds) || kinds.as_array().is_some_and(|kinds| kinds.iter().any(is_number))
    });
    if is_numeric {
        schema.remove("format");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
        let kinds = schema.get("type").and_then(Value::as_array);
        let kinds: Vec<_> = kinds
            .into_iter()
            .flatten()
            .filter(|kind| *kind != "null")
            .collect();
        if let [one] = kinds.as_slice() {
            let one = json!(one);
            schema.insert("type".into(), one);
        }
    }
}
