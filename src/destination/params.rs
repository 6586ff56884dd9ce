//! The parameters of a preset: what an operator may set, of which type, and to what.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, json};

use crate::destination::template::TemplateError;

/// `params:` of a preset.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Params(BTreeMap<String, Param>);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Param {
    r#type: ParamType,
    help: String,
    default: Option<serde_json::Value>,
    r#enum: Option<Vec<serde_json::Value>>,
}

/// Further types may come.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ParamType {
    String,
    Integer,
    Boolean,
}

impl Params {
    /// Whether the defaults and choices are of the types they say.
    pub(super) fn check(&self) -> Result<(), TemplateError> {
        self.0.iter().try_for_each(|(name, param)| param.check(name))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What is wrong with the given values; nothing, if they can be used.
    pub(super) fn problems(&self, given: &Map<String, serde_json::Value>) -> Vec<String> {
        let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let unknown = given.keys().filter(|name| !self.has(name));
        let mut problems: Vec<String> = unknown
            .map(|name| match known.as_slice() {
                [] => format!("`{name}` is not a parameter: this preset has none"),
                known => format!("`{name}` is not a parameter; there are {}", known.join(", ")),
            })
            .collect();
        for (name, param) in &self.0 {
            match given.get(name) {
                Some(value) => problems.extend(param.problem(name, value)),
                None if param.default.is_none() => {
                    problems.push(format!("`{name}` is missing: {}", param.help));
                }
                None => {}
            }
        }
        problems
    }

    /// A JSON Schema of the values.
    pub(super) fn schema(&self, about: &str) -> serde_json::Value {
        let properties: Map<_, _> =
            self.0.iter().map(|(name, param)| (name.clone(), param.schema())).collect();
        let required = self.0.iter().filter(|(_, param)| param.default.is_none());
        json!({
            "type": "object",
            "description": about,
            "additionalProperties": false,
            "properties": properties,
            "required": required.map(|(name, _)| name).collect::<Vec<_>>(),
        })
    }

    /// The defaults, and something where there is none.
    pub(super) fn placeholders(&self) -> Map<String, serde_json::Value> {
        self.0.iter().map(|(name, param)| (name.clone(), param.placeholder())).collect()
    }

    /// Every parameter with every value of its choice.
    pub(super) fn choices(&self) -> impl Iterator<Item = (&str, serde_json::Value)> {
        self.0.iter().flat_map(|(name, param)| {
            let choices = param.choices().into_iter();
            choices.map(move |choice| (name.as_str(), choice))
        })
    }
}

impl Param {
    /// Default and choices must be what they are the default and choices of.
    fn check(&self, name: &str) -> Result<(), TemplateError> {
        let mut given = self.default.iter().chain(self.r#enum.iter().flatten());
        let problem = given.find_map(|value| self.problem(name, value));
        problem
            .map_or(Ok(()), |problem| Err(TemplateError::new(&format!("params.{name}"), problem)))
    }

    fn problem(&self, name: &str, value: &serde_json::Value) -> Option<String> {
        let (fits, wanted) = match self.r#type {
            ParamType::String => (value.is_string(), "a string"),
            ParamType::Integer => (value.is_i64(), "a whole number"),
            ParamType::Boolean => (value.is_boolean(), "true or false"),
        };
        if !fits {
            return Some(format!("`{name}` must be {wanted}, not {value}"));
        }
        let allowed = self.r#enum.as_ref()?;
        (!allowed.contains(value)).then(|| {
            let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
            format!("`{name}` must be one of {}, not {value}", allowed.join(", "))
        })
    }

    fn choices(&self) -> Vec<serde_json::Value> {
        match (self.r#type, &self.r#enum) {
            (_, Some(choices)) => choices.clone(),
            (ParamType::Boolean, None) => vec![json!(true), json!(false)],
            (ParamType::String | ParamType::Integer, None) => Vec::new(),
        }
    }

    fn placeholder(&self) -> serde_json::Value {
        let first = self.choices().into_iter().next();
        self.default.clone().or(first).unwrap_or_else(|| match self.r#type {
            ParamType::String => json!("placeholder"),
            ParamType::Integer => json!(1),
            ParamType::Boolean => json!(false),
        })
    }

    fn schema(&self) -> serde_json::Value {
        let kind = match self.r#type {
            ParamType::String => "string",
            ParamType::Integer => "integer",
            ParamType::Boolean => "boolean",
        };
        let mut schema = Map::from_iter([
            ("type".to_owned(), json!(kind)),
            ("description".to_owned(), json!(self.help)),
        ]);
        let default = self.default.clone();
        schema.extend(default.map(|default| ("default".to_owned(), default)));
        let choices = self.r#enum.as_ref();
        schema.extend(choices.map(|choices| ("enum".to_owned(), json!(choices))));
        schema.into()
    }
}
