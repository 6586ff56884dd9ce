//! JSON Schema of the alert, and the page that documents each field. Pure.

use serde_json::Value;

use super::Alert;

const HEAD: &str = "\
# The alert, version 1

The JSON that the preset `webhook` sends, that templates of presets read as `alert`, and that
`GET /api/v1/alerts/{id}` returns. `slack-soar-relay schema --alert` prints its JSON Schema, from
which this page is generated, and `slack-soar-relay render --preset webhook` a complete example.

Fields are only ever added: a receiver must accept fields that it does not know.
";

/// Returns the JSON Schema of [`Alert`].
///
/// ```
/// let schema = slack_soar_relay::alert::reference::schema();
/// assert_eq!(schema["properties"]["schema"]["const"], "slack-soar-relay/alert/v1");
/// ```
pub fn schema() -> Value {
    schemars::schema_for!(Alert).to_value()
}

/// Returns the reference of the alert as Markdown.
pub fn reference() -> String {
    let schema = schema();
    let mut page = HEAD.to_owned();
    section(&mut page, &schema, "", &schema);
    page
}

/// Writes the table of an object, then the tables of the objects in its fields.
fn section(page: &mut String, schema: &Value, path: &str, object: &Value) {
    let title = if path.is_empty() { "Fields".to_owned() } else { format!("`{path}`") };
    page.extend([format!("\n## {title}\n\n{}\n\n", text(object, "description"))]);
    page.push_str("| field | type | meaning |\n| --- | --- | --- |\n");
    let mut objects = Vec::new();
    for (key, field) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let definition = text(field, "$ref").strip_prefix('#').and_then(|at| schema.pointer(at));
        let kind = definition.map_or_else(|| kind(field), |_section| "object".to_owned());
        let meaning = text(field, "description").replace('\n', " ");
        page.extend([format!("| `{key}` | {kind} | {meaning} |\n")]);
        objects.extend(definition.map(|object| (key, object)));
    }
    for (key, object) in objects {
        let dot = if path.is_empty() { "" } else { "." };
        section(page, schema, &format!("{path}{dot}{key}"), object);
    }
}

/// Returns the type of a field with the values that it may have.
fn kind(field: &Value) -> String {
    if let Some(value) = field.get("const").and_then(Value::as_str) {
        return format!("`{value}`");
    }
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        let values = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`"));
        return values.collect::<Vec<_>>().join(", ");
    }
    match text(field, "type") {
        "array" => {
            format!("list of {}", field.get("items").map_or_else(|| "any JSON".to_owned(), kind))
        }
        "" => "any JSON".to_owned(),
        name => name.to_owned(),
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
