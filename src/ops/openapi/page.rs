//! docs/http-api.md, made from the `OpenAPI` document. Pure.

use serde_json::Value;

const HEAD: &str = "\
# HTTP API

Made from the relay's own OpenAPI document (`GET /api/v1/openapi.json`); a test compares it with the
router.

- The **public listener** (`server.listen`) is for Slack, the **ops listener** (`server.ops_listen`)
  for everything else.
- Paths below `/api/v1` take `Authorization: Bearer` with the `ops_token`, the feed with the
  `feed_token` of its destination. Without an `ops_token` the API answers on a loopback address
  only, to a loopback `Host`, and each POST needs `Content-Type: application/json`.
- An unknown parameter is an error. Absent texts are `\"\"`, times are RFC 3339.
- Errors below `/api/v1` are problem documents (RFC 9457, `application/problem+json`) of the type
  `about:blank`: `status` says which kind of problem it is, `detail` what to do.
- The answers may get more keys; a key does not change its meaning or go away.
";

/// Returns the page for the `OpenAPI` document.
pub(super) fn markdown(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    for tag in ["Public listener", "Health and metrics", "API for operators", "Feed"] {
        page.extend([format!("\n## {tag}\n")]);
        for (path, method, operation) in operations(document) {
            if operation.pointer("/tags/0").and_then(Value::as_str) == Some(tag) {
                write_operation(&mut page, path, method, operation);
            }
        }
    }
    page.push_str("\n## Bodies\n");
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
    for (name, schema) in schemas.into_iter().flatten() {
        write_schema(&mut page, name, schema);
    }
    page
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document.get("paths").and_then(Value::as_object).into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn write_operation(page: &mut String, path: &str, method: &str, operation: &Value) {
    let summary = text(operation, "summary");
    let method = method.to_uppercase();
    page.extend([format!("\n### `{method} {path}`\n\n{summary}.\n")]);
    let parameters = operation.get("parameters").and_then(Value::as_array);
    if let Some(parameters) = parameters.filter(|all| !all.is_empty()) {
        page.push_str("\n| parameter | in | meaning |\n| --- | --- | --- |\n");
        for one in parameters {
            let is_required = one.get("required") == Some(&Value::Bool(true));
            let required = if is_required { "**required**. " } else { "" };
            let name = text(one, "name");
            let place = text(one, "in");
            let meaning = cell(text(one, "description"));
            page.extend([format!("| `{name}` | {place} | {required}{meaning} |\n")]);
        }
    }
    if let Some(body) = operation.get("requestBody") {
        page.extend([format!("\nBody: {}\n", text(body, "description"))]);
    }
    page.push_str("\n| status | meaning | body |\n| --- | --- | --- |\n");
    let responses = operation.get("responses").and_then(Value::as_object);
    for (status, response) in responses.into_iter().flatten() {
        let meaning = cell(text(response, "description"));
        page.extend([format!("| {status} | {meaning} | {} |\n", body(response))]);
    }
}

/// Returns the name of a response's body, or its media type.
fn body(response: &Value) -> String {
    let content = response.get("content").and_then(Value::as_object);
    let Some((media_type, content)) = content.and_then(|content| content.iter().next()) else {
        return String::new();
    };
    content.get("schema").map_or_else(|| format!("`{media_type}`"), kind)
}

fn write_schema(page: &mut String, name: &str, schema: &Value) {
    let about = text(schema, "description");
    page.extend([format!("\n### {name}\n\n{about}\n\n| key | type | meaning |\n")]);
    page.push_str("| --- | --- | --- |\n");
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, value) in properties.into_iter().flatten() {
        let meaning = cell(text(value, "description"));
        page.extend([format!("| `{key}` | {} | {meaning} |\n", kind(value))]);
    }
}

/// Returns the type of a value in words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.rsplit('/').next().unwrap_or_default();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(values) = schema.get("additionalProperties").filter(|value| value.is_object()) {
        return format!("object of {}", kind(values));
    }
    if schema.get("format").and_then(Value::as_str) == Some("date-time") {
        return "time".to_owned();
    }
    match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
        }
        _ => "JSON".to_owned(),
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
