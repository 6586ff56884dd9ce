//! Parameters of a preset: their names, types, defaults and choices.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, json};

use crate::{
    destination::{access::redact::MASK, preset::template::TemplateError},
    secret::Secret,
};

/// The key `params` of a preset.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Params(BTreeMap<String, Param>);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Param {
    r#type: ParamType,
    help: String,
    default: Option<serde_json::Value>,
    /// Placeholder in samples for a parameter without a default.
    example: Option<serde_json::Value>,
    r#enum: Option<Vec<serde_json::Value>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ParamType {
    String,
    Integer,
    Boolean,
    /// A text that is given by reference only, and never shown.
    Secret,
}

impl Params {
    /// Checks that the defaults and choices have their types.
    pub(super) fn check(&self) -> Result<(), TemplateError> {
        self.0.iter().try_for_each(|(name, param)| param.check(name))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns the mistakes in the given values, by name; empty if they can be used.
    pub(super) fn problems(
        &self,
        given: &Map<String, serde_json::Value>,
        secrets: &BTreeMap<String, Secret>,
    ) -> Vec<(String, String)> {
        let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let unknown = given.keys().chain(secrets.keys()).filter(|name| !self.has(name));
        let mut problems: Vec<(String, String)> = unknown
            .map(|name| {
                let others = match known.as_slice() {
                    [] => ": this preset has none".to_owned(),
                    known => format!("; there are {}", known.join(", ")),
                };
                (name.clone(), format!("`{name}` is not a parameter{others}"))
            })
            .collect();
        for (name, param) in &self.0 {
            let problem = match given.get(name) {
                _ if secrets.contains_key(name) => param.no_text(name),
                Some(value) => param.problem(name, value),
                None if param.default.is_none() => {
                    Some(format!("`{name}` is missing: {}", param.help))
                }
                None => None,
            };
            problems.extend(problem.map(|problem| (name.clone(), problem)));
        }
        problems
    }

    /// Returns a JSON Schema of the values; `reference` is the schema of a reference to a secret.
    pub(super) fn schema(&self, about: &str, reference: &serde_json::Value) -> serde_json::Value {
        let properties: Map<_, _> =
            self.0.iter().map(|(name, param)| (name.clone(), param.schema(reference))).collect();
        let required = self.0.iter().filter(|(_, param)| param.default.is_none());
        json!({
            "description": about,
            "additionalProperties": false,
            "properties": properties,
            "required": required.map(|(name, _)| name).collect::<Vec<_>>(),
        })
    }

    /// Returns each parameter, for the documentation.
    pub(super) fn documented(&self) -> Vec<ParamDoc> {
        let document = |(name, param): (&String, &Param)| ParamDoc {
            name: name.clone(),
            kind: match param.r#type {
                ParamType::String => "string",
                ParamType::Integer => "integer",
                ParamType::Boolean => "boolean",
                ParamType::Secret => "secret",
            },
            default: param.default.clone(),
            example: param.placeholder(),
            choices: param.r#enum.clone().unwrap_or_default(),
            help: param.help.clone(),
        };
        self.0.iter().map(document).collect()
    }

    /// Returns the defaults, and samples for the other parameters.
    pub(super) fn placeholders(&self) -> Map<String, serde_json::Value> {
        self.0.iter().map(|(name, param)| (name.clone(), param.placeholder())).collect()
    }

    /// Returns every parameter that has choices, with every choice.
    pub(super) fn choices(&self) -> impl Iterator<Item = (&str, serde_json::Value)> {
        self.0.iter().flat_map(|(name, param)| {
            let choices = param.choices().into_iter();
            choices.map(move |choice| (name.as_str(), choice))
        })
    }
}

/// One parameter, for the documentation.
#[derive(Clone, Debug)]
pub struct ParamDoc {
    /// Name of the parameter.
    pub name: String,
    /// Type: `string`, `integer`, `boolean` or `secret`.
    pub kind: &'static str,
    /// Default, as JSON; the parameter is required if there is none.
    pub default: Option<serde_json::Value>,
    /// Sample value, if there is no default.
    pub example: serde_json::Value,
    /// Allowed values; empty if every value is allowed.
    pub choices: Vec<serde_json::Value>,
    /// Description of the parameter.
    pub help: String,
}

impl Param {
    /// Checks that default and choices have the type of the parameter.
    fn check(&self, name: &str) -> Result<(), TemplateError> {
        let mut given =
            self.default.iter().chain(&self.example).chain(self.r#enum.iter().flatten());
        let problem = given.find_map(|value| self.problem(name, value));
        problem
            .map_or(Ok(()), |problem| Err(TemplateError::new(&format!("params.{name}"), problem)))
    }

    /// Returns the mistake if the parameter does not take a reference, whose value is a text.
    fn no_text(&self, name: &str) -> Option<String> {
        match self.r#type {
            ParamType::String | ParamType::Secret => None,
            ParamType::Integer | ParamType::Boolean => {
                Some(format!("`{name}` cannot be a reference: write the value itself"))
            }
        }
    }

    fn problem(&self, name: &str, value: &serde_json::Value) -> Option<String> {
        let (fits, wanted) = match self.r#type {
            // The value is not shown, since it may be the secret.
            ParamType::Secret if [MASK, ""].contains(&value.as_str().unwrap_or("x")) => {
                return None;
            }
            ParamType::Secret => {
                return Some(format!(
                    "`{name}` is a secret: write {{env: NAME}} or {{file: PATH}}"
                ));
            }
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
            (ParamType::String | ParamType::Integer | ParamType::Secret, None) => Vec::new(),
        }
    }

    fn placeholder(&self) -> serde_json::Value {
        let first = self.choices().into_iter().next();
        self.default.clone().or(self.example.clone()).or(first).unwrap_or_else(|| {
            match self.r#type {
                ParamType::String => json!("placeholder"),
                ParamType::Integer => json!(1),
                ParamType::Secret => json!(MASK),
                ParamType::Boolean => json!(false),
            }
        })
    }

    fn schema(&self, reference: &serde_json::Value) -> serde_json::Value {
        let of = |name: &str| {
            let mut schema = Map::from_iter([("type".to_owned(), json!(name))]);
            let choices = self.r#enum.as_ref();
            schema.extend(choices.map(|choices| ("enum".to_owned(), json!(choices))));
            schema
        };
        let mut schema = match self.r#type {
            ParamType::Secret => reference.as_object().cloned().unwrap_or_default(),
            ParamType::String => {
                Map::from_iter([("anyOf".to_owned(), json!([of("string"), reference]))])
            }
            ParamType::Integer => of("integer"),
            ParamType::Boolean => of("boolean"),
        };
        schema.insert("description".to_owned(), json!(self.help));
        let default = self.default.clone();
        schema.extend(default.map(|default| ("default".to_owned(), default)));
        schema.into()
    }
}
