//! The OpenAPI 3.1 document, from the table of routes and the types that are serialized.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use axum::response::Response;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{ROUTES, Route, etag};
use crate::web::pages::fingerprint;
use crate::web::problem::{self, Problem};

/// Descriptions of parts of paths.
const PARAMETERS: [(&str, &str, &str, &str); 2] = [
    (
        "id",
        "The source: `platform:id`, or a name. The percent-encoded address of its channel is accepted, too",
        "^((twitch|kick|discord):[1-9][0-9]{3,17}|[a-z][a-z0-9_]{3,24})$",
        "twitch:777001",
    ),
    (
        "action",
        "An action (`send-chat`; `/api/v1/actions` lists them), or a permission as the platform names it (`MODERATOR`)",
        "^.+$",
        "send-chat",
    ),
];

static TEXT: LazyLock<String> =
    LazyLock::new(|| serde_json::to_string_pretty(&build()).expect("a document has text keys") + "\n");

pub(super) async fn document(headers: HeaderMap) -> Response {
    let tag = format!("\"{}\"", fingerprint(&TEXT));
    etag::with_tag(
        &headers,
        &tag,
        "private, no-cache",
        "application/json",
        TEXT.clone(),
    )
}

/// Returns the document as it is served and shipped.
#[cfg(test)]
pub(in crate::web) fn text() -> &'static str {
    &TEXT
}

fn build() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut answers = settings.into_generator();
    let queries = SchemaSettings::draft2020_12().for_deserialize().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut queries = queries.into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut answers, &mut queries);
        paths.insert(route.path.to_owned(), json!({"get": operation}));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bitbrat",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The state of the channels and guilds that a bot works in, and the age and origin of each fact. Read-only. \
                What is unknown or too old to rely on is never claimed: answers are yes, no or unknown.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": answers.take_definitions(true),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "The value of `web.token`, where one is configured"}},
        },
    })
}

fn operation(route: &Route, answers: &mut SchemaGenerator, queries: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = PARAMETERS
        .iter()
        .filter(|(name, ..)| route.path.contains(&format!("{{{name}}}")))
        .map(|(name, about, pattern, example)| {
            json!({
                "name": name, "in": "path", "required": true, "description": about,
                "schema": {"type": "string", "pattern": pattern, "examples": [example]},
            })
        })
        .collect();
    parameters.extend(query_parameters(&(route.query)(queries).to_value()));
    let (answer, media_type) = route.answer;
    let mut responses = Map::new();
    let content = json!({media_type: {"schema": answer(answers)}});
    responses.insert(
        "200".into(),
        json!({"description": "The answer", "content": content}),
    );
    // Every path may need a token, be refused for its host or origin, take too long, or have to wait for others.
    let always = [401, 403, 408, 503];
    let mut statuses: Vec<u16> = route.others.iter().copied().chain(always).collect();
    statuses.sort_unstable();
    statuses.dedup();
    for status in statuses {
        let title = axum::http::StatusCode::from_u16(status).ok();
        let title = title
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error");
        let mut response = json!({"description": title});
        if status >= 400 {
            let schema = answers.subschema_for::<Problem>();
            response["content"] = json!({problem::MEDIA_TYPE: {"schema": schema}});
        }
        responses.insert(status.to_string(), response);
    }
    json!({
        "operationId": route.id, "summary": route.summary, "parameters": parameters, "responses": responses,
    })
}

/// Returns one parameter for each field of a query.
fn query_parameters(schema: &Value) -> Vec<Value> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema
            .as_object_mut()
            .and_then(|schema| schema.remove("description"));
        without_null(&mut schema);
        json!({
            "name": name, "in": "query", "required": required.contains(&json!(name)),
            "description": description.unwrap_or_default(), "schema": schema,
        })
    };
    properties.into_iter().map(parameter).collect()
}

/// A parameter is given or left out; there is no null in a query.
fn without_null(schema: &mut Value) {
    let null = json!("null");
    if let Some(kinds) = schema["type"].as_array() {
        let kinds: Vec<&Value> = kinds.iter().filter(|kind| **kind != null).collect();
        if let [one] = kinds.as_slice() {
            schema["type"] = (*one).clone();
        }
    }
    let is_null = |option: &Value| option["type"] == null;
    if let Some(options) = schema.get("anyOf").and_then(Value::as_array)
        && let [one] = options
            .iter()
            .filter(|option| !is_null(option))
            .collect::<Vec<_>>()
            .as_slice()
    {
        *schema = (*one).clone();
    }
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_document_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/openapi.json");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let shipped = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            shipped == text(),
            "schemas/openapi.json differs from the routes; run this test with UPDATE_GENERATED=1"
        );
    }

    #[test]
    fn every_parameter_of_a_path_is_described() {
        let document: Value = serde_json::from_str(text()).unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            let named = path.matches('{').count();
            let parameters = operations["get"]["parameters"].as_array().unwrap();
            let described = parameters.iter().filter(|one| one["in"] == "path").count();
            assert_eq!(named, described, "{path}");
        }
    }
}
