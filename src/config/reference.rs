//! The reference page of the configuration file, generated from the schema so that the page cannot
//! differ from what the relay accepts. Pure.

use serde_json::Value;

use super::schema::schema;

const HEAD: &str = "\
# Configuration reference

Generated from the schema of the configuration file (`slack-soar-relay schema`); a test keeps this
page current. [relay.example.yaml](../deploy/relay.example.yaml) has the same keys in a file to
start from, and `slack-soar-relay check` reports everything that is wrong with yours.

- A **secret** is a reference, never a value: `{env: NAME}`, or `{file: PATH}`, which is read
  again when the file changes.
- A **duration** needs a unit: `500ms`, `30s`, `10m`, `72h`, `30d`. So does a **size**: `4MiB`,
  `1GiB`.
- Relative paths are relative to the file. Unknown keys are errors.
- A changed file is loaded within seconds, or at once after SIGHUP; see
  [operations](operations.md#changing-the-configuration).
";

/// Returns the reference of the configuration file as Markdown.
pub fn reference() -> String {
    let schema = schema();
    let mut page = HEAD.to_owned();
    let mut sections = vec![(String::new(), &schema)];
    // Depth first: a section is followed by the sections inside it.
    while let Some((path, object)) = sections.pop() {
        let inner = section(&mut page, &schema, &path, object);
        sections.extend(inner.into_iter().rev());
    }
    page
}

/// Writes one section, and returns the sections inside it with their paths.
fn section<'s>(
    page: &mut String,
    schema: &'s Value,
    path: &str,
    object: &'s Value,
) -> Vec<(String, &'s Value)> {
    let title = if path.is_empty() { "The whole file".to_owned() } else { format!("`{path}`") };
    let about = text(object, "description");
    page.extend([format!("\n## {title}\n\n{about}\n\n")]);
    page.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    let required = object.get("required").and_then(Value::as_array);
    let mut inner = Vec::new();
    for (key, value) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let is_required = required.is_some_and(|required| required.iter().any(|one| one == key));
        let kind = KeyType::of(schema, value);
        let mut meaning = text(value, "description").replace('\n', " ");
        if let KeyType::Section(below, suffix) = &kind {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{key}{suffix}");
            if meaning.is_empty() {
                text(below, "description").clone_into(&mut meaning);
            }
            inner.push((path, *below));
        }
        let default = match value.get("default") {
            _ if is_required => "**required**".to_owned(),
            Some(Value::Null) | None => String::new(),
            // The defaults of a section's keys are in the table of that section.
            Some(default) if kind.is_section() || is_empty(default) => String::new(),
            Some(default) => format!("`{}`", shown(default)),
        };
        let meaning = meaning.replace('|', "\\|");
        page.extend([format!("| `{key}` | {} | {default} | {meaning} |\n", kind.words())]);
    }
    inner
}

/// Type of a key's value, as shown on the page.
enum KeyType<'s> {
    /// A section, which is listed further down, and the suffix of its path: `[]` for a list.
    Section(&'s Value, &'static str),
    /// Description of any other type.
    Words(String),
}

impl<'s> KeyType<'s> {
    fn of(schema: &'s Value, value: &'s Value) -> Self {
        let (name, value) = resolved(schema, value);
        let words = |text: &str| Self::Words(text.to_owned());
        // The schema describes these as any text or object. Their names tell a reader more.
        match name {
            Some("Span") => return words("duration"),
            Some("Size") => return words("size"),
            Some("Rate") => return words("rate, such as `60/min`"),
            Some("SecretRef") => return words("secret"),
            Some("HeaderText") => return words("text or secret"),
            Some(_) | None => {}
        }
        if value.get("properties").is_some() {
            return Self::Section(value, "");
        }
        if let Some(choices) = value.get("enum").or_else(|| value.get("oneOf")) {
            return Self::Words(alternatives(choices));
        }
        match type_of(value) {
            "array" => match value.get("items").map(|items| Self::of(schema, items)) {
                Some(Self::Section(items, _)) => Self::Section(items, "[]"),
                Some(Self::Words(items)) => Self::Words(format!("list of {items}")),
                None => words("list"),
            },
            "object" => match value.get("additionalProperties") {
                Some(inner) if inner.is_object() => {
                    Self::Words(format!("keys with {}", Self::of(schema, inner).words()))
                }
                _ => words("keys"),
            },
            "integer" => words("whole number"),
            "boolean" => words("`true` or `false`"),
            _ => words("text"),
        }
    }

    fn is_section(&self) -> bool {
        matches!(self, Self::Section(..))
    }

    fn words(&self) -> String {
        match self {
            Self::Section(_, "") => "section".to_owned(),
            Self::Section(..) => "list of sections".to_owned(),
            Self::Words(words) => words.clone(),
        }
    }
}

/// Follows a reference, also that of an optional value. Returns the name of the definition, if
/// there is one, and the schema.
fn resolved<'s>(schema: &'s Value, value: &'s Value) -> (Option<&'s str>, &'s Value) {
    // An optional value is its type or null.
    let mut choices = value.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    let value = choices.find(|choice| choice.get("$ref").is_some()).unwrap_or(value);
    let Some(name) = value.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next())
    else {
        return (None, value);
    };
    (Some(name), schema.pointer(&format!("/$defs/{name}")).unwrap_or(value))
}

fn type_of(value: &Value) -> &str {
    match value.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("")
        }
        _ => "",
    }
}

fn alternatives(choices: &Value) -> String {
    let choices = choices.as_array().into_iter().flatten();
    let word = |choice: &Value| {
        let word = choice.get("const").unwrap_or(choice).as_str().unwrap_or_default();
        format!("`{word}`")
    };
    choices.map(word).collect::<Vec<_>>().join(", ")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_empty(default: &Value) -> bool {
    default.as_array().is_some_and(Vec::is_empty)
        || default.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Formats a default as it would be written in the file.
fn shown(default: &Value) -> String {
    default.as_str().map_or_else(|| default.to_string(), str::to_owned)
}
