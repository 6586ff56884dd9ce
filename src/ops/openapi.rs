//! The description of every path of both listeners as an `OpenAPI` 3.1 document. `GET
//! /api/v1/openapi.json` answers the document, and docs/http-api.md is generated from it.
//!
//! The paths stand in a table, `OPERATIONS`, and the bodies are derived from the types of
//! [`view`](super::view) with `schemars`, which also derives the schema of the configuration. A
//! second derive for the same purpose, such as `utoipa`, would double the annotations of each type;
//! a test compares the table with the router instead.

mod operation;
mod operations;
mod page;

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use self::{
    operation::{Answer, Listener, Operation, Parameter, Request},
    operations::OPERATIONS,
};
use super::Problem;

/// Media type of a problem document.
const PROBLEM: &str = "application/problem+json";

/// Returns docs/http-api.md as Markdown.
pub fn page() -> String {
    page::markdown(&document())
}

/// Returns the `OpenAPI` document.
pub fn document() -> Value {
    // References must point to where `OpenAPI` keeps schemas, and not to `$defs` of JSON Schema.
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let problem = schemas.subschema_for::<Problem>().to_value();
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let described = described(operation, &problem, &mut schemas);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method.to_ascii_lowercase(), described);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "slack-soar-relay",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "ops_token": {"type": "http", "scheme": "bearer"},
                "feed_token": {"type": "http", "scheme": "bearer"},
                "slack": {"type": "apiKey", "in": "header", "name": "X-Slack-Signature"},
            },
        },
    })
}

fn described(operation: &Operation, problem: &Value, schemas: &mut SchemaGenerator) -> Value {
    let listener = operation.listener;
    let mut responses = Map::new();
    responses.insert("200".to_owned(), success(&operation.answer, schemas));
    for (status, meaning) in operation.refusals {
        let response = if listener.has_problems() {
            json!({"description": meaning, "content": {PROBLEM: {"schema": problem}}})
        } else {
            json!({"description": meaning})
        };
        responses.insert(status.to_string(), response);
    }
    let security = match listener {
        Listener::Public if operation.method == "POST" => json!([{"slack": []}]),
        Listener::Public | Listener::Health => json!([]),
        Listener::Api => json!([{"ops_token": []}]),
        Listener::Feed => json!([{"feed_token": []}]),
    };
    let mut described = Map::from_iter([
        ("tags".to_owned(), json!([listener.tag()])),
        ("summary".to_owned(), operation.summary.into()),
        ("parameters".to_owned(), parameters(operation).into()),
        ("security".to_owned(), security),
        ("responses".to_owned(), responses.into()),
    ]);
    if let Some(body) = request_body(&operation.request) {
        described.insert("requestBody".to_owned(), body);
    }
    described.into()
}

fn request_body(request: &Request) -> Option<Value> {
    let content = json!({"application/json": {"schema": {"type": "object"}}});
    match request {
        Request::Empty => None,
        Request::QueryAsJson => Some(json!({
            "description": "The parameters of the query as an object, in place of the query.",
            "content": content,
        })),
        Request::Json(description) => {
            Some(json!({"description": description, "required": true, "content": content}))
        }
    }
}

fn success(answer: &Answer, schemas: &mut SchemaGenerator) -> Value {
    match answer {
        Answer::Json(schema) => json!({
            "description": "Success",
            "content": {"application/json": {"schema": schema(schemas).to_value()}},
        }),
        Answer::Other(media_type, description) => json!({
            "description": description,
            "content": {*media_type: {}},
        }),
        Answer::Empty => json!({"description": "Success, without a body"}),
    }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let in_path = operation.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let meaning = match name {
            "app" => "Name of a configured app.",
            "name" => "Name of a destination.",
            _ => "Id as a list shows it, percent-encoded where needed.",
        };
        Some(parameter("path", name, true, meaning))
    });
    let query = operation.query.iter().map(|one| described_parameter("query", one));
    let headers = operation.headers.iter().map(|one| described_parameter("header", one));
    in_path.chain(query).chain(headers).collect()
}

fn described_parameter(place: &str, one: &Parameter) -> Value {
    parameter(place, one.name, one.is_required, one.meaning)
}

fn parameter(place: &str, name: &str, is_required: bool, meaning: &str) -> Value {
    json!({
        "name": name,
        "in": place,
        "required": is_required,
        "description": meaning,
        "schema": {"type": "string"},
    })
}
