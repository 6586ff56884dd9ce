//! Compiles the parts of a preset's file.

use std::collections::BTreeMap;

use minijinja::value::{Serde, Value};
use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};

use super::{
    answer::{AnswerFile, AnswerRules},
    file::{LookupFile, MethodFile},
    step::{Body, Kind, Step},
    template::{RequestTemplates, TemplateError},
};
use crate::destination::headers::RESERVED;

/// Levels that `severity` may name.
const LEVELS: [&str; 5] = ["informative", "low", "medium", "high", "critical"];

pub(super) fn lookup(file: LookupFile) -> Result<Step, TemplateError> {
    let body = file.body.as_deref();
    let answer = AnswerFile::found(file.found, file.answered);
    Ok(Step {
        kind: Kind::LookUp,
        method: method(file.method, true)?,
        headers: Vec::new(),
        body: if body.is_some() { Body::Template } else { Body::None },
        templates: RequestTemplates::compile(body, file.path.as_deref(), &file.query)?,
        rules: AnswerRules::compile(&answer, &file.reference)?
            .with_condition(file.when.as_deref())?,
    })
}

pub(super) fn method(method: MethodFile, is_lookup: bool) -> Result<Method, TemplateError> {
    match method {
        MethodFile::Get if !is_lookup => {
            let reason = "GET sends nothing: write POST, PUT or PATCH";
            Err(TemplateError::new("request.method", reason))
        }
        MethodFile::Get => Ok(Method::GET),
        MethodFile::Post => Ok(Method::POST),
        MethodFile::Put => Ok(Method::PUT),
        MethodFile::Patch => Ok(Method::PATCH),
    }
}

/// Checks that either every level or none has a value.
pub(super) fn severity(
    given: BTreeMap<String, serde_json::Value>,
) -> Result<BTreeMap<String, Value>, TemplateError> {
    let unknown = given.keys().find(|level| !LEVELS.contains(&level.as_str()));
    let missing = LEVELS.iter().find(|level| !given.contains_key(**level));
    match (unknown, missing) {
        (Some(level), _) => {
            let reason = format!("`{level}` is not a level; they are {}", LEVELS.join(", "));
            Err(TemplateError::new("severity", reason))
        }
        (None, Some(level)) if !given.is_empty() => {
            Err(TemplateError::new("severity", format!("`{level}` is missing")))
        }
        (None, _) => {
            Ok(given.into_iter().map(|(level, value)| (level, Value::from(Serde(value)))).collect())
        }
    }
}

pub(super) fn headers(
    given: &BTreeMap<String, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, TemplateError> {
    given
        .iter()
        .map(|(name, value)| {
            let part = format!("headers.{name}");
            let name = HeaderName::try_from(name)
                .map_err(|_wrong| TemplateError::new(&part, "is not a header name"))?;
            if RESERVED.contains(&name.as_str()) {
                return Err(TemplateError::new(&part, "is set by the relay itself: remove it"));
            }
            let value = HeaderValue::try_from(value)
                .map_err(|_wrong| TemplateError::new(&part, "has a value no header can have"))?;
            Ok((name, value))
        })
        .collect()
}
