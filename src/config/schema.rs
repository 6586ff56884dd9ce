//! Validates a file against the JSON Schema: reports all violations at once, in words for the
//! person who wrote the file.
//!
//! The schema is our own and uses few keywords, so a short walk is enough. A test compares the walk
//! with a complete implementation.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Number, Value, json};

use super::{
    file::File,
    problem::Problem,
    tree::{Positions, escape},
};
use crate::{destination::preset::Preset, text};

/// JSON pointer of the definition of a destination.
const DESTINATION: &str = "/$defs/DestinationSection";

/// Returns the JSON Schema of the configuration file, with the parameters of every built-in preset.
pub fn schema() -> Value {
    with_params(Preset::builtin_names())
}

/// Returns the schema with the parameters of these presets. To validate a file, the presets that
/// are named in it are enough.
fn with_params(presets: impl Iterator<Item: AsRef<str>>) -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    let cases: Vec<Value> = presets.filter_map(|name| params_of(name.as_ref())).collect();
    let destination = schema.pointer_mut(DESTINATION).and_then(Value::as_object_mut);
    if let Some(destination) = destination.filter(|_section| !cases.is_empty()) {
        destination.insert("allOf".to_owned(), cases.into());
    }
    let preset = schema.pointer_mut(&format!("{DESTINATION}/properties/preset"));
    if let Some(preset) = preset.and_then(Value::as_object_mut) {
        let names: Vec<&str> = Preset::builtin_names().collect();
        preset.insert("examples".to_owned(), json!(names));
    }
    schema
}

/// Returns the rule for `params` of destinations with this preset; `None` if it is not built in.
fn params_of(preset: &str) -> Option<Value> {
    let params = Preset::builtin_params_schema(preset, &json!({"$ref": "#/$defs/SecretRef"}))?;
    let has_required =
        params.get("required").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let required: &[&str] = if has_required { &["params"] } else { &[] };
    Some(json!({
        "if": {"properties": {"preset": {"const": preset}}, "required": ["preset"]},
        "then": {"properties": {"params": params}, "required": required},
    }))
}

/// Returns the presets that are named in a file, each once.
fn presets(value: &Value) -> BTreeSet<&str> {
    let destinations = value.get("destinations").and_then(Value::as_array).into_iter().flatten();
    destinations.filter_map(|one| one.get("preset")?.as_str()).collect()
}

/// One violation of the schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) problem: Problem,
    /// JSON pointer of the value to remove so that the rest can be read; `None` for a missing key.
    pub(super) pointer: Option<String>,
}

/// Returns all violations of the schema.
pub(super) fn validate(value: &Value, positions: &Positions) -> Vec<Violation> {
    let root = with_params(presets(value).into_iter());
    let mut validator = Validator { root: &root, positions, violations: Vec::new() };
    validator.value(value, "", Expected { schema: &root, kind: ValueKind::Plain });
    validator.violations
}

/// The schema that a value must match.
#[derive(Clone, Copy)]
struct Expected<'s> {
    schema: &'s Value,
    kind: ValueKind,
}

/// Kinds of values with messages of their own, told by their definitions in the schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Plain,
    Secret,
    Span,
    Size,
    Rate,
}

struct Validator<'s> {
    root: &'s Value,
    positions: &'s Positions,
    violations: Vec<Violation>,
}

impl<'s> Validator<'s> {
    /// Validates the value at the pointer `at`, and everything inside.
    fn value(&mut self, value: &Value, at: &str, expected: Expected<'s>) {
        let expected = self.resolved(value, expected);
        let schema = expected.schema;
        if !has_type(value, &schema["type"]) {
            let wanted = type_names(&schema["type"]);
            let message = format!("must be {wanted}, not {}", type_name_of(value));
            // The inside of a value of another type would only add to the same mistake.
            return self.invalid(at, expected.kind, message);
        }
        if let Some(choices) = schema["enum"].as_array()
            && !choices.contains(value)
        {
            let choices: Vec<_> = choices.iter().map(Value::to_string).collect();
            self.invalid(at, expected.kind, format!("must be one of {}", choices.join(", ")));
        }
        match value {
            Value::Object(keys) => self.object(keys, at, expected),
            Value::Array(items) => self.list(items, at, expected),
            Value::String(text) => self.text(text, at, expected),
            Value::Number(number) => self.number(number, at, expected),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Follows references, and picks the first alternative whose type is that of the value.
    fn resolved(&self, value: &Value, expected: Expected<'s>) -> Expected<'s> {
        if let Some(reference) = expected.schema["$ref"].as_str() {
            let pointer = reference.trim_start_matches('#');
            let definition = pointer.trim_start_matches("/$defs/");
            let kind = ValueKind::of(definition).unwrap_or(expected.kind);
            let schema = self.root.pointer(pointer).unwrap_or(&Value::Null);
            return self.resolved(value, Expected { schema, kind });
        }
        let choices = expected.schema["anyOf"].as_array().into_iter().flatten();
        let choices: Vec<_> =
            choices.map(|schema| self.resolved(value, Expected { schema, ..expected })).collect();
        let fits = choices.iter().find(|choice| has_type(value, &choice.schema["type"]));
        // An optional value is its type or null, in this order: if neither fits, the message is
        // about the type.
        fits.or(choices.first()).copied().unwrap_or(expected)
    }

    fn object(&mut self, keys: &Map<String, Value>, at: &str, expected: Expected<'s>) {
        let Expected { schema, kind } = expected;
        let others = &schema["additionalProperties"];
        for (key, value) in keys {
            let pointer = format!("{at}/{}", escape(key));
            match schema["properties"].get(key) {
                Some(schema) => self.value(value, &pointer, Expected { schema, kind }),
                None if *others == Value::Bool(false) => {
                    let known = schema["properties"].as_object().into_iter().flatten();
                    let known: Vec<_> = known.map(|(key, _)| key.as_str()).collect();
                    let hint = did_you_mean(key, &known);
                    self.add(&pointer, "unknown key", Some(hint));
                }
                None => self.value(value, &pointer, Expected { schema: others, kind }),
            }
        }
        let rules = schema["allOf"].as_array().into_iter().flatten();
        for rule in rules.filter(|rule| applies(keys, rule.pointer("/if/properties"))) {
            let before = self.violations.len();
            let schema = rule.get("then").unwrap_or(&Value::Null);
            self.object(keys, at, Expected { schema, kind });
            // Missing parameters are reported with their descriptions when the preset is resolved.
            let found = self.violations.split_off(before);
            self.violations.extend(found.into_iter().filter(|one| one.pointer.is_some()));
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !keys.contains_key(key) {
                self.invalid(at, kind, format!("`{key}` is missing"));
                // Nothing needs to be removed.
                self.violations.last_mut().into_iter().for_each(|one| one.pointer = None);
            }
        }
        if !within(keys.len(), schema, "minProperties", "maxProperties") {
            self.invalid(at, kind, "has too few keys or too many".to_owned());
        }
    }

    fn list(&mut self, items: &[Value], at: &str, expected: Expected<'s>) {
        if !within(items.len(), expected.schema, "minItems", "maxItems") {
            self.invalid(at, expected.kind, "needs at least one entry".to_owned());
        }
        for (index, item) in items.iter().enumerate() {
            let schema = &expected.schema["items"];
            self.value(item, &format!("{at}/{index}"), Expected { schema, ..expected });
        }
    }

    fn text(&mut self, text: &str, at: &str, expected: Expected<'s>) {
        let Expected { schema, kind } = expected;
        if let Some(pattern) = schema["pattern"].as_str()
            && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
        {
            let (message, hint) = if at.ends_with("/team") {
                ("is not the id of a workspace", "write an id such as T0123456789")
            } else {
                ("is not a valid name", "use 1 to 63 of a-z, 0-9 and -, not starting with -")
            };
            self.invalid_with(at, kind, message.to_owned(), Some(hint.to_owned()));
        }
    }

    fn number(&mut self, number: &Number, at: &str, expected: Expected<'s>) {
        let Expected { schema, kind } = expected;
        let [min, max] = ["minimum", "maximum"].map(|bound| schema[bound].as_f64());
        let number = number.as_f64();
        if (min.is_some() && number < min) || (max.is_some() && number > max) {
            let [min, max] = [&schema["minimum"], &schema["maximum"]];
            self.invalid(at, kind, format!("must be from {min} to {max}"));
        }
    }

    fn invalid(&mut self, at: &str, kind: ValueKind, message: String) {
        self.invalid_with(at, kind, message, None);
    }

    /// Records an invalid value, with the message of its kind if the kind has one.
    fn invalid_with(&mut self, at: &str, kind: ValueKind, message: String, hint: Option<String>) {
        // The value is never shown, since it may be a secret.
        let (message, hint) = match kind.message_and_hint() {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (message, hint),
        };
        self.add(at, &message, hint);
    }

    fn add(&mut self, at: &str, message: &str, hint: Option<String>) {
        let problem = Problem { hint, ..Problem::new(self.positions.of(at), at, message) };
        self.violations.push(Violation { problem, pointer: Some(at.to_owned()) });
    }
}

impl ValueKind {
    /// Returns the kind of the values of a definition; `None` if it does not have messages of its
    /// own.
    fn of(definition: &str) -> Option<Self> {
        Some(match definition {
            "SecretRef" | "HeaderText" => Self::Secret,
            "Span" => Self::Span,
            "Size" => Self::Size,
            "Rate" => Self::Rate,
            _ => return None,
        })
    }

    fn message_and_hint(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Secret => {
                ("must be a reference to a secret", "write {env: NAME} or {file: PATH}")
            }
            Self::Span => ("a duration needs its unit", "write \"30s\", \"10m\" or \"72h\""),
            Self::Size => ("a size needs its unit", "write \"4MiB\" or \"1GiB\""),
            Self::Rate => ("a rate needs its unit", "write \"60/min\" or \"2/s\""),
            Self::Plain => return None,
        })
    }
}

/// Returns the hint for an unknown word: the most similar known word, or else all known words.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    match text::nearest(word, known.iter().copied()) {
        Some(other) => format!("did you mean `{other}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// Returns whether each of these keys has the constant that the rule's condition requires.
fn applies(keys: &Map<String, Value>, conditions: Option<&Value>) -> bool {
    let mut conditions = conditions.and_then(Value::as_object).into_iter().flatten();
    conditions.all(|(key, condition)| keys.get(key) == Some(&condition["const"]))
}

/// Returns whether a count is within the bounds that the schema sets with these keywords.
fn within(count: usize, schema: &Value, min: &str, max: &str) -> bool {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let [min, max] = [min, max].map(|bound| schema[bound].as_u64());
    min.is_none_or(|min| count >= min) && max.is_none_or(|max| count <= max)
}

/// Returns whether the value is of the type, or one of the types. A schema without a type allows
/// any.
fn has_type(value: &Value, schema: &Value) -> bool {
    let is = |name: &Value| match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => {
            let is_whole = !number.is_f64() || number.as_f64().is_some_and(|n| n.fract() == 0.0);
            name == "number" || (name == "integer" && is_whole)
        }
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    };
    match schema {
        Value::String(_) => is(schema),
        Value::Array(names) => names.iter().any(is),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    }
}

/// Describes a type, or several.
fn type_names(schema: &Value) -> String {
    let word = |name: &Value| match name.as_str() {
        Some("object") => "a section with keys",
        Some("array") => "a list",
        Some("string") => "a text",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some(_) | None => "empty",
    };
    match schema.as_array() {
        Some(names) => names.iter().map(word).collect::<Vec<_>>().join(" or "),
        None => word(schema).to_owned(),
    }
}

fn type_name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section with keys",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `found` with each schema inside a schema.
    fn each<'s>(schema: &'s Value, found: &mut impl FnMut(&'s Map<String, Value>)) {
        let Some(keywords) = schema.as_object() else { return };
        found(keywords);
        for (keyword, inner) in keywords {
            match keyword.as_str() {
                "properties" | "$defs" => {
                    inner.as_object().unwrap().values().for_each(|schema| each(schema, found));
                }
                "allOf" => {
                    for case in inner.as_array().unwrap() {
                        let consts = case["if"]["properties"].as_object().unwrap();
                        assert!(consts.values().all(|one| one["const"].is_string()), "{case}");
                        assert_eq!(case.as_object().unwrap().len(), 2, "{case}");
                        each(&case["then"], found);
                    }
                }
                "anyOf" => inner.as_array().unwrap().iter().for_each(|schema| each(schema, found)),
                "items" | "additionalProperties" => each(inner, found),
                _ => {}
            }
        }
    }

    #[test]
    fn the_validator_knows_every_keyword_of_the_schema() {
        let schema = schema();
        each(&schema, &mut |keywords| {
            for (keyword, value) in keywords {
                let is_known = match keyword.as_str() {
                    "$schema"
                    | "$defs"
                    | "title"
                    | "description"
                    | "default"
                    | "examples"
                    | "type"
                    | "required"
                    | "properties"
                    | "additionalProperties"
                    | "items"
                    | "minItems"
                    | "minProperties"
                    | "maxProperties"
                    | "allOf"
                    | "enum" => true,
                    "pattern" => Regex::new(value.as_str().unwrap()).is_ok(),
                    "minimum" | "maximum" => {
                        keywords["minimum"].is_number() && keywords["maximum"].is_number()
                    }
                    // Implied by the bounds of the number.
                    "format" => value == "uint32",
                    // Keywords beside these two would be ignored.
                    "$ref" | "anyOf" => ["type", "properties", "pattern", "enum", "items"]
                        .iter()
                        .all(|other| !keywords.contains_key(*other)),
                    _ => false,
                };
                assert!(is_known, "{keyword}: {value}");
            }
        });
    }

    /// Collects the JSON pointers of everything inside a value.
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        let inner: Vec<_> = match value {
            Value::Object(keys) => keys.iter().map(|(key, value)| (escape(key), value)).collect(),
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        for (key, value) in inner {
            pointers(value, &format!("{at}/{key}"), found);
        }
    }

    const FULL: &str = r#"{
        "server": {"listen": "0.0.0.0:1", "ops_token": {"env": "T"}, "drain_delay": "5s"},
        "slack": {"apps": [{"name": "main", "signing_secret": {"file": "s"}, "bot_token": null,
            "previous_signing_secret": {"env": "P"}, "channels": ["C1"], "bots": []}]},
        "match": {"titles": ["a"], "fields": {"script": ["Script"]}},
        "catch_up": {"every": "60s"},
        "store": {"sqlite": {"path": "relay.db", "max_size": "1GiB"},
            "postgres": {"url": {"env": "U"}, "max_connections": 10}},
        "retention": {"dead": "90d"},
        "delivery": {"lease": "90s"},
        "presets_dir": "presets",
        "destinations": [{"name": "soar", "preset": "google-secops-webhook",
            "url": {"env": "U"}, "params": {"environment": "e", "values": "clean"},
            "when": {"min_severity": "low", "test": "only"}, "timeout": "15s",
            "concurrency": 4, "rate_limit": "60/min", "retry": {"max_age": "72h"}, "proxy": "p",
            "headers": {"X": "y", "Z": {"file": "f"}}, "signing_secret": null}]
    }"#;

    #[test]
    fn a_mistake_inside_an_optional_section_is_reported_at_its_own_place() {
        let mut value: Value = serde_json::from_str(FULL).unwrap();
        let keys = value.pointer_mut("/store/postgres").unwrap().as_object_mut().unwrap();
        keys.insert("max_conections".to_owned(), 5.into());
        let violations = validate(&value, &Positions::default());
        let said: Vec<_> = violations.iter().map(|one| one.problem.to_string()).collect();
        let expected =
            "store.postgres.max_conections: unknown key (did you mean `max_connections`?)";
        assert_eq!(said, [expected]);
    }

    #[test]
    fn the_validator_agrees_with_a_complete_implementation() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let full: Value = serde_json::from_str(FULL).unwrap();
        assert!(validator.is_valid(&full));
        let mut places = Vec::new();
        pointers(&full, "", &mut places);
        let others = r#"[null, true, 0, 4, 5.0, 0.5, -1, 1e10, "",
            "30", "30s", "a b", "low", "1GiB",
            "2/s", [], [{}], ["a"], {}, {"env": "N"}, {"env": "N", "file": "f"}, {"x": 1}]"#;
        let others: Vec<Value> = serde_json::from_str(others).unwrap();
        let mut refused = 0;
        let mut compare = |value: &Value| {
            let violations = validate(value, &Positions::default());
            let is_valid = violations.is_empty();
            assert_eq!(is_valid, validator.is_valid(value), "{value:#}: {violations:#?}");
            refused += usize::from(!is_valid);
        };
        for place in &places {
            for other in &others {
                let mut value = full.clone();
                *value.pointer_mut(place).unwrap() = other.clone();
                compare(&value);
            }
            let mut value = full.clone();
            if let Some(keys) = value.pointer_mut(place).unwrap().as_object_mut() {
                keys.insert("unheard-of".to_owned(), Value::Null);
                compare(&value);
            }
            if let Some((around, key)) = place.rsplit_once('/')
                && let Some(keys) = full.pointer(around).unwrap().as_object()
            {
                let mut left = keys.clone();
                left.remove(key);
                let mut value = full.clone();
                *value.pointer_mut(around).unwrap() = left.into();
                compare(&value);
            }
        }
        assert!(refused > 500, "{refused}");
    }
}
