//! The file against its schema: every fault at once, in words of the person who wrote it.
//!
//! The schema is our own and uses few of the keywords there are, so a short walk does. A test holds
//! it against a library that knows them all.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Number, Value, json};

use super::{
    file::File,
    problem::Problem,
    tree::{Positions, step},
};
use crate::{destination::preset::Preset, text};

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
    let root = with_params(presets(value).into_iter());
    let mut walk = Walk { root: &root, positions, faults: Vec::new() };
    walk.value(value, "", Meant { schema: &root, kind: Kind::Plain });
    walk.faults
}

/// What a value is meant to be.
#[derive(Clone, Copy)]
struct Meant<'s> {
    schema: &'s Value,
    kind: Kind,
}

/// What needs words of its own, by its definition in the schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Secret,
    Span,
    Size,
    Rate,
}

struct Walk<'s> {
    root: &'s Value,
    positions: &'s Positions,
    faults: Vec<Fault>,
}

impl<'s> Walk<'s> {
    /// The value at the pointer, and all that is in it.
    fn value(&mut self, value: &Value, at: &str, meant: Meant<'s>) {
        let meant = self.chosen(value, meant);
        let schema = meant.schema;
        if !has_type(value, &schema["type"]) {
            let message = format!("must be {}, not {}", types(&schema["type"]), type_of(value));
            return self.wrong(at, meant.kind, message);
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            let words: Vec<_> = words.iter().map(Value::to_string).collect();
            self.wrong(at, meant.kind, format!("must be one of {}", words.join(", ")));
        }
        match value {
            Value::Object(keys) => self.object(keys, at, meant),
            Value::Array(items) => self.list(items, at, meant),
            Value::String(text) => self.text(text, at, meant),
            Value::Number(number) => self.number(number, at, meant),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Follows references, and of several choices takes the first that the value looks like.
    fn chosen(&self, value: &Value, meant: Meant<'s>) -> Meant<'s> {
        if let Some(reference) = meant.schema["$ref"].as_str() {
            let pointer = reference.trim_start_matches('#');
            let kind = Kind::of(pointer.trim_start_matches("/$defs/")).unwrap_or(meant.kind);
            let schema = self.root.pointer(pointer).unwrap_or(&Value::Null);
            return self.chosen(value, Meant { schema, kind });
        }
        let choices = meant.schema["anyOf"].as_array().into_iter().flatten();
        let choices: Vec<_> =
            choices.map(|schema| self.chosen(value, Meant { schema, ..meant })).collect();
        let fits = choices.iter().find(|choice| has_type(value, &choice.schema["type"]));
        // What may be left out is the first or nothing, and was meant to be the first.
        fits.or(choices.first()).copied().unwrap_or(meant)
    }

    fn object(&mut self, keys: &Map<String, Value>, at: &str, meant: Meant<'s>) {
        let Meant { schema, kind } = meant;
        let others = &schema["additionalProperties"];
        for (key, value) in keys {
            let pointer = format!("{at}/{}", step(key));
            match schema["properties"].get(key) {
                Some(schema) => self.value(value, &pointer, Meant { schema, kind }),
                None if *others == Value::Bool(false) => {
                    let known = schema["properties"].as_object().into_iter().flatten();
                    let known: Vec<_> = known.map(|(key, _)| key.as_str()).collect();
                    let hint = did_you_mean(key, &known);
                    self.add(&pointer, "unknown key", Some(hint));
                }
                None => self.value(value, &pointer, Meant { schema: others, kind }),
            }
        }
        let cases = schema["allOf"].as_array().into_iter().flatten();
        for case in cases.filter(|case| is_case(keys, case.pointer("/if/properties"))) {
            // What is missing of a preset's parameters is said with its help, once it is read.
            let missing = self.faults.len();
            self.object(keys, at, Meant { schema: case.get("then").unwrap_or(&Value::Null), kind });
            let mut index = 0;
            self.faults.retain(|fault| {
                index += 1;
                index <= missing || fault.pointer.is_some()
            });
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !keys.contains_key(key) {
                self.wrong(at, kind, format!("`{key}` is missing"));
                // There is nothing to take out.
                self.faults.last_mut().into_iter().for_each(|fault| fault.pointer = None);
            }
        }
        if !within(keys.len(), schema, "minProperties", "maxProperties") {
            self.wrong(at, kind, "has too few keys or too many".to_owned());
        }
    }

    fn list(&mut self, items: &[Value], at: &str, meant: Meant<'s>) {
        if !within(items.len(), meant.schema, "minItems", "maxItems") {
            self.wrong(at, meant.kind, "needs at least one entry".to_owned());
        }
        for (index, item) in items.iter().enumerate() {
            let schema = &meant.schema["items"];
            self.value(item, &format!("{at}/{index}"), Meant { schema, ..meant });
        }
    }

    fn text(&mut self, text: &str, at: &str, Meant { schema, kind }: Meant<'s>) {
        if let Some(pattern) = schema["pattern"].as_str()
            && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
        {
            let (message, hint) = if at.ends_with("/team") {
                ("is not the id of a workspace", "write an id such as T0123456789")
            } else {
                ("is not a name", "use 1 to 63 of a-z, 0-9 and -, not starting with -")
            };
            self.wrong_or(at, kind, message.to_owned(), Some(hint.to_owned()));
        }
    }

    fn number(&mut self, number: &Number, at: &str, Meant { schema, kind }: Meant<'s>) {
        let [least, most] = ["minimum", "maximum"].map(|bound| schema[bound].as_f64());
        let number = number.as_f64();
        if (least.is_some() && number < least) || (most.is_some() && number > most) {
            let [least, most] = [&schema["minimum"], &schema["maximum"]];
            self.wrong(at, kind, format!("must be from {least} to {most}"));
        }
    }

    fn wrong(&mut self, at: &str, kind: Kind, message: String) {
        self.wrong_or(at, kind, message, None);
    }

    /// What has words of its own gets those; the value itself may be a secret and is never shown.
    fn wrong_or(&mut self, at: &str, kind: Kind, message: String, hint: Option<String>) {
        let (message, hint) = match kind.words() {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (message, hint),
        };
        self.add(at, &message, hint);
    }

    fn add(&mut self, at: &str, message: &str, hint: Option<String>) {
        let problem = Problem { hint, ..Problem::new(self.positions.of(at), at, message) };
        self.faults.push(Fault { problem, pointer: Some(at.to_owned()) });
    }
}

impl Kind {
    /// Of what a definition describes; none if that has no words of its own.
    fn of(definition: &str) -> Option<Self> {
        Some(match definition {
            "SecretRef" | "HeaderText" => Self::Secret,
            "Span" => Self::Span,
            "Size" => Self::Size,
            "Rate" => Self::Rate,
            _ => return None,
        })
    }

    /// Message and hint.
    fn words(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Secret => {
                ("is a secret, and must be a reference to one", "write {env: NAME} or {file: PATH}")
            }
            Self::Span => ("a duration needs its unit", "write \"30s\", \"10m\" or \"72h\""),
            Self::Size => ("a size needs its unit", "write \"4MiB\" or \"1GiB\""),
            Self::Rate => ("a rate needs its unit", "write \"60/min\" or \"2/s\""),
            Self::Plain => return None,
        })
    }
}

/// Returns the hint for a word that is not one of those known here.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    match text::nearest(word, known.iter().copied()) {
        Some(other) => format!("did you mean `{other}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// Whether each of these keys has the one value that the case is about.
fn is_case(keys: &Map<String, Value>, consts: Option<&Value>) -> bool {
    let mut consts = consts.and_then(Value::as_object).into_iter().flatten();
    consts.all(|(key, one)| keys.get(key) == Some(&one["const"]))
}

/// Whether a count keeps to the bounds that the schema has under these keywords.
fn within(count: usize, schema: &Value, least: &str, most: &str) -> bool {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let [least, most] = [least, most].map(|bound| schema[bound].as_u64());
    least.is_none_or(|least| count >= least) && most.is_none_or(|most| count <= most)
}

/// Whether the value is of the type, or of one of the types; nothing said is any.
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

fn types(schema: &Value) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Each schema within a schema.
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
    fn the_walk_knows_every_keyword_of_the_schema() {
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
                    // Of numbers, and within their bounds.
                    "format" => value == "uint32",
                    // Alone: what stands beside them would not be looked at.
                    "$ref" | "anyOf" => ["type", "properties", "pattern", "enum", "items"]
                        .iter()
                        .all(|other| !keywords.contains_key(*other)),
                    _ => false,
                };
                assert!(is_known, "{keyword}: {value}");
            }
        });
    }

    /// The pointers of all that is in a value.
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        let inner: Vec<_> = match value {
            Value::Object(keys) => keys.iter().map(|(key, value)| (step(key), value)).collect(),
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
    fn a_mistake_within_what_may_be_left_out_is_named_at_its_own_place() {
        let mut value: Value = serde_json::from_str(FULL).unwrap();
        let keys = value.pointer_mut("/store/postgres").unwrap().as_object_mut().unwrap();
        keys.insert("max_conections".to_owned(), 5.into());
        let faults = validate(&value, &Positions::default());
        let said: Vec<_> = faults.iter().map(|fault| fault.problem.to_string()).collect();
        let expected =
            "store.postgres.max_conections: unknown key (did you mean `max_connections`?)";
        assert_eq!(said, [expected]);
    }

    #[test]
    fn it_finds_fault_exactly_where_a_library_does() {
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
            let faults = validate(value, &Positions::default());
            assert_eq!(faults.is_empty(), validator.is_valid(value), "{value:#}: {faults:#?}");
            refused += usize::from(!faults.is_empty());
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
