//! The file against its schema: every fault at once, in words of the person who wrote it.

use std::collections::BTreeSet;

use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Value, json};

use super::{
    file::File,
    problem::Problem,
    tree::{Positions, step},
};
use crate::destination::preset::Preset;

const DESTINATION: &str = "/$defs/Destination";

/// The JSON Schema of the configuration file, with the parameters of every preset that comes with
/// the program.
pub fn schema() -> Value {
    with_params(Preset::builtin_names())
}

/// With the parameters of these presets: to check a file, those that it names will do.
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

/// What `params` may hold if the destination has this preset, unless it is the operator's own.
fn params_of(preset: &str) -> Option<Value> {
    let params = Preset::builtin_params_schema(preset, &json!({"$ref": "#/$defs/SecretRef"}))?;
    let needed = params.get("required").and_then(Value::as_array).is_some_and(|r| !r.is_empty());
    let required: &[&str] = if needed { &["params"] } else { &[] };
    Some(json!({
        "if": {"properties": {"preset": {"const": preset}}, "required": ["preset"]},
        "then": {"properties": {"params": params}, "required": required},
    }))
}

/// The presets that a file names, each once.
fn presets(value: &Value) -> BTreeSet<&str> {
    let destinations = value.get("destinations").and_then(Value::as_array).into_iter().flatten();
    destinations.filter_map(|one| one.get("preset")?.as_str()).collect()
}

/// One thing in which the file differs from the schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) problem: Problem,
    /// What must be taken out for the rest to be read; nothing, if something is missing.
    pub(super) pointer: Option<String>,
}

/// Everything in which the file differs from the schema.
pub(super) fn validate(value: &Value, positions: &Positions) -> Vec<Fault> {
    let schema = with_params(presets(value).into_iter());
    match jsonschema::validator_for(&schema) {
        Ok(validator) => faults(&validator, &schema, value, positions),
        Err(error) => {
            let problem = Problem::new(None, "", format!("the schema is broken: {error}"));
            vec![Fault { problem, pointer: None }]
        }
    }
}

fn faults(
    validator: &Validator,
    schema: &Value,
    value: &Value,
    positions: &Positions,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for error in validator.iter_errors(value) {
        let at = error.instance_path().as_str().to_owned();
        if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
            let known = known_keys(schema, error.schema_path().as_str());
            for key in unexpected {
                let pointer = format!("{at}/{}", step(key));
                let problem =
                    Problem::new(positions.of(&pointer), &pointer, "unknown key".to_owned());
                let problem = problem.hint(did_you_mean(key, &known));
                faults.push(Fault { problem, pointer: Some(pointer) });
            }
            continue;
        }
        let is_missing = matches!(error.kind(), ValidationErrorKind::Required { .. });
        // What is missing of a preset's parameters is said with its help, once the file is read.
        if is_missing && error.schema_path().as_str().contains("/then/") {
            continue;
        }
        let (message, hint) = explain(&error);
        let problem = Problem::new(positions.of(&at), &at, message);
        let problem = match hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        };
        faults.push(Fault { problem, pointer: (!is_missing).then_some(at) });
    }
    faults
}

fn known_keys(schema: &Value, keyword: &str) -> Vec<String> {
    keyword
        .rsplit_once('/')
        .and_then(|(object, _)| schema.pointer(&format!("{object}/properties")))
        .and_then(Value::as_object)
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default()
}

fn did_you_mean(key: &str, known: &[String]) -> String {
    let nearest = known.iter().min_by_key(|other| distance(key, other));
    match nearest.filter(|other| distance(key, other) <= 2 + other.len() / 4) {
        Some(other) => format!("did you mean `{other}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// How many letters must be changed, added or left out to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (done, letter) in from.chars().enumerate() {
        let mut diagonal = done;
        let mut left = done + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, other) in row.iter_mut().skip(1).zip(to.chars()) {
            let changed = diagonal + usize::from(letter != other);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// What the value was meant to be; the value itself may be a secret and is never shown.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's words do for the rare kinds")]
fn explain(error: &ValidationError<'_>) -> (String, Option<String>) {
    let place = error.schema_path().as_str();
    let of_kind = |name: &str| place.contains(&format!("/$defs/{name}/"));
    if of_kind("SecretRef") || of_kind("HeaderText") {
        let hint = "write {env: NAME} or {file: PATH}".to_owned();
        return ("is a secret, and must be a reference to one".to_owned(), Some(hint));
    }
    let units = [
        ("Span", "a duration needs its unit", "write \"30s\", \"10m\" or \"72h\""),
        ("Size", "a size needs its unit", "write \"4MiB\" or \"1GiB\""),
        ("Rate", "a rate needs its unit", "write \"60/min\" or \"2/s\""),
    ];
    for (name, message, hint) in units {
        if of_kind(name) {
            return (message.to_owned(), Some(hint.to_owned()));
        }
    }
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            (format!("`{}` is missing", property.as_str().unwrap_or_default()), None)
        }
        ValidationErrorKind::Type { kind } => {
            (format!("must be {}, not {}", types(kind), type_of(error.instance())), None)
        }
        ValidationErrorKind::MinItems { .. } => ("needs at least one entry".to_owned(), None),
        ValidationErrorKind::Pattern { .. } => (
            "is not a name".to_owned(),
            Some("use 1 to 63 of a-z, 0-9 and -, not starting with -".to_owned()),
        ),
        ValidationErrorKind::Enum { options } => {
            let words: Vec<String> =
                options.as_array().into_iter().flatten().map(ToString::to_string).collect();
            (format!("must be one of {}", words.join(", ")), None)
        }
        // What may be left out is this or nothing, and was meant to be this.
        ValidationErrorKind::AnyOf { context } => {
            let meant = context.iter().flatten().find(|branch| !is_of_nothing(branch));
            meant.map_or_else(|| (masked(error), None), explain)
        }
        _ => (masked(error), None),
    }
}

/// The library's words, without the value.
fn masked(error: &ValidationError<'_>) -> String {
    error.masked_with("this").to_string()
}

fn is_of_nothing(branch: &ValidationError<'_>) -> bool {
    matches!(branch.kind(), ValidationErrorKind::Type { kind: TypeKind::Single(one) }
        if one.to_string() == "null")
}

fn types(kind: &TypeKind) -> String {
    let word = |name: &str| match name {
        "object" => "a section with keys",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        _ => "empty",
    };
    match kind {
        TypeKind::Single(one) => word(&one.to_string()).to_owned(),
        TypeKind::Multiple(many) => {
            let words: Vec<&str> = many.iter().map(|one| word(&one.to_string())).collect();
            words.join(" or ")
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section with keys",
    }
}
