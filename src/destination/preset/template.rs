//! Renders the parts of a request from an alert, by a preset's templates.
//!
//! The rules for data are here and not in the template: in a body every `{{ }}` writes one JSON
//! value, in a path every `{{ }}` writes percent-encoded text, and neither can be switched off. A
//! field that does not exist is an error, and so is a template that never ends. Templates cannot
//! reach files, other templates or a clock.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
};

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, context, escape_formatter,
    value::{Enumerator, Object, Serde, Value, ValueKind},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{alert::Alert, destination::preset::filters, ids::div_half_even};

const BODY: &str = "body";
const PATH: &str = "path";

/// Fuel of one template. One unit is an instruction or 64 bytes written: about 30 MB of text, or a
/// few milliseconds.
const FUEL: u64 = 500_000;

/// Characters that are percent-encoded: all but those that RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Error of a template that cannot be compiled, or cannot render an alert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}{}: {reason}", Line(*line))]
pub struct TemplateError {
    /// Part of the preset: `body`, `path`, `query.name`, `answer.duplicate`, ...
    pub part: String,
    /// Line in that template, from 1.
    pub line: Option<usize>,
    /// Description of the mistake.
    pub reason: String,
}

struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

impl TemplateError {
    pub(in crate::destination) fn new(part: &str, reason: impl Into<String>) -> Self {
        Self { part: part.to_owned(), line: None, reason: reason.into() }
    }

    pub(in crate::destination) fn from_jinja(part: &str, error: &Error) -> Self {
        let detail = error.detail().map(|detail| format!(": {detail}"));
        Self {
            part: part.to_owned(),
            line: error.line(),
            reason: format!("{}{}", error.kind(), detail.unwrap_or_default()),
        }
    }
}

/// The templates of one request.
#[derive(Debug)]
pub struct RequestTemplates {
    env: Environment<'static>,
    path: bool,
    query: Vec<String>,
}

impl RequestTemplates {
    /// Compiles the templates; `query` is by name of the parameter.
    ///
    /// # Errors
    /// Returns [`TemplateError`] for the first template that does not compile.
    pub fn compile(
        body: Option<&str>,
        path: Option<&str>,
        query: &BTreeMap<String, String>,
    ) -> Result<Self, TemplateError> {
        let mut env = environment(UndefinedBehavior::Strict);
        // Only the body is JSON. Path and query are percent-encoded: the path by `write_value`, the
        // query when the URL is built.
        env.set_auto_escape_callback(|part| {
            if part == BODY { AutoEscape::Json } else { AutoEscape::None }
        });
        env.set_formatter(write_value);
        if let Some(body) = body {
            add(&mut env, BODY, body)?;
        }
        if let Some(path) = path {
            add(&mut env, PATH, path)?;
        }
        for (name, template) in query {
            add(&mut env, &query_part(name), template)?;
        }
        let query = query.keys().cloned().collect();
        Ok(Self { env, path: path.is_some(), query })
    }

    /// Returns whether there is nothing to render.
    pub fn is_empty(&self) -> bool {
        self.env.templates().next().is_none()
    }

    /// Renders the body, which is JSON.
    ///
    /// # Errors
    /// Returns [`TemplateError`] if a field does not exist, or the result is not JSON.
    pub fn body(&self, context: &Value) -> Result<String, TemplateError> {
        let body = render(&self.env, BODY, context)?;
        serde_json::from_str::<IgnoredAny>(&body).map_err(|error| TemplateError {
            part: BODY.to_owned(),
            line: None,
            reason: format!(
                "the result is not JSON: {error}; write {{{{ }}}} without quotes around it"
            ),
        })?;
        Ok(body)
    }

    /// Renders the text that is appended to the path of the destination's URL.
    ///
    /// # Errors
    /// Returns [`TemplateError`] if a field does not exist, or a segment would climb (`..`).
    pub fn path(&self, context: &Value) -> Result<String, TemplateError> {
        if !self.path {
            return Ok(String::new());
        }
        let path = render(&self.env, PATH, context)?;
        let climbs = path.split('/').any(|segment| {
            let bytes: Vec<u8> = percent_decode_str(segment).collect();
            matches!(bytes.as_slice(), b"." | b"..")
        });
        if climbs {
            return Err(TemplateError::new(PATH, "a segment is `.` or `..`"));
        }
        Ok(path)
    }

    /// Renders the keys that are appended to the query, not yet encoded.
    ///
    /// # Errors
    /// Returns [`TemplateError`] if a field does not exist.
    pub fn query(&self, context: &Value) -> Result<Vec<(&str, String)>, TemplateError> {
        self.query
            .iter()
            .map(|name| {
                let value = render(&self.env, &query_part(name), context)?;
                Ok((name.as_str(), value))
            })
            .collect()
    }

    /// Returns every name that a template reads, with the template's part: `alert.title`,
    /// `params.x`.
    pub fn reads(&self) -> BTreeSet<(String, String)> {
        self.env
            .templates()
            .flat_map(|(part, template)| {
                let names = template.undeclared_variables(true);
                names.into_iter().map(move |name| (part.to_owned(), name))
            })
            .collect()
    }
}

/// Returns the context of templates: `alert`, `params`, and the receiver's name for the `severity`.
pub fn context(alert: &Alert, params: &Value, severity: &Value) -> Value {
    context! {
        alert => Value::from_object(AlertFields::new(alert)),
        params => params.clone(),
        severity => severity.clone(),
    }
}

/// Returns an environment with our filters and limits, in which all data is escaped.
pub(in crate::destination) fn environment(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(undefined);
    env.set_fuel(Some(FUEL));
    for filter in ["safe", "escape", "e"] {
        env.remove_filter(filter);
    }
    env.add_filter("half_even", half_even);
    filters::add_to(&mut env);
    env
}

pub(in crate::destination) fn add(
    env: &mut Environment<'static>,
    part: &str,
    template: &str,
) -> Result<(), TemplateError> {
    env.add_template_owned(part.to_owned(), template.to_owned())
        .map_err(|error| TemplateError::from_jinja(part, &error))
}

pub(in crate::destination) fn render(
    env: &Environment<'_>,
    part: &str,
    context: &Value,
) -> Result<String, TemplateError> {
    env.get_template(part)
        .and_then(|template| template.render(context.clone()))
        .map_err(|error| TemplateError::from_jinja(part, &error))
}

fn query_part(name: &str) -> String {
    format!("query.{name}")
}

fn write_value(
    out: &mut minijinja::Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if state.name() == PATH {
        let text = value.to_string();
        return write!(out, "{}", utf8_percent_encode(&text, SEGMENT)).map_err(Error::from);
    }
    if state.name() == BODY && *state.auto_escape() != AutoEscape::Json {
        let reason = "a body is always JSON: remove the autoescape block";
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    escape_formatter(out, state, value)
}

/// Divides a whole number, rounding a half to the even neighbour. In a text, divides the leading
/// digits and keeps the rest.
fn half_even(value: &Value, by: i64) -> Result<Value, Error> {
    if by < 1 {
        let reason = "half_even divides by a number above 0";
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    if let Some(text) = value.as_str() {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = text.split_at_checked(digits).unwrap_or(("", text));
        // A text without leading digits stays as it is, so that an alert with an unusual id is
        // still sent.
        return Ok(number.parse().map_or_else(
            |_no_number| value.clone(),
            |number| Value::from(format!("{}{rest}", div_half_even(number, by))),
        ));
    }
    match (value.kind(), i64::try_from(value.clone())) {
        (ValueKind::Number, Ok(number)) if number >= 0 => {
            Ok(Value::from(div_half_even(number, by)))
        }
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "half_even takes a whole number of 0 or more, or a text",
        )),
    }
}

/// The alert as templates see it. Slack's attachment is parsed only if a template reads it.
#[derive(Debug)]
struct AlertFields {
    fields: Value,
    attachment_json: String,
    attachment: OnceLock<Value>,
}

const ATTACHMENT: &str = "attachment";

/// Size of the attachment beyond which templates see only its texts, numbers and flags, and no
/// lists and objects: a million empty ones would take a hundred times their size.
const ATTACHMENT_MAX_BYTES: usize = 256 * 1024;

/// The first members of an object that are neither lists nor objects.
struct Scalars(BTreeMap<String, serde_json::Value>);

/// Most members of a large attachment that are kept; Slack's attachments have some thirty.
const SCALARS_MAX: usize = 200;

impl<'de> Deserialize<'de> for Scalars {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Scalars;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Scalars, A::Error> {
                let mut found = BTreeMap::new();
                while let Some(key) = object.next_key::<Cow<'_, str>>()? {
                    // As raw text, so that a large list or object is passed over and not built.
                    let value = object.next_value::<&RawValue>()?.get();
                    if found.len() < SCALARS_MAX && !value.starts_with(['[', '{']) {
                        let value = serde_json::from_str(value).unwrap_or_default();
                        found.insert(key.into_owned(), value);
                    }
                }
                Ok(Scalars(found))
            }
        }

        json.deserialize_map(Members)
    }
}

impl AlertFields {
    fn new(alert: &Alert) -> Self {
        Self {
            fields: Value::from(Serde(alert)),
            attachment_json: alert.attachment.get().to_owned(),
            attachment: OnceLock::new(),
        }
    }

    fn attachment(&self) -> Value {
        let empty = || Value::from(BTreeMap::<String, Value>::new());
        let parse = || {
            if self.attachment_json.len() > ATTACHMENT_MAX_BYTES {
                return serde_json::from_str::<Scalars>(&self.attachment_json)
                    .map_or_else(|_no_object| empty(), |Scalars(found)| Value::from(Serde(found)));
            }
            serde_json::from_str::<serde_json::Value>(&self.attachment_json)
                .map_or_else(|_too_deep| empty(), |parsed| Value::from(Serde(parsed)))
        };
        self.attachment.get_or_init(parse).clone()
    }
}

impl Object for AlertFields {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == ATTACHMENT {
            return Some(self.attachment());
        }
        let value = self.fields.get_attr(key).ok()?;
        (!value.is_undefined()).then_some(value)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.fields.try_iter().map_or(Enumerator::Empty, |keys| Enumerator::Values(keys.collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::destination::preset::sample::sample_alert;

    fn body(template: &str) -> Result<String, TemplateError> {
        body_of(template, &sample_alert("text"))
    }

    fn body_of(template: &str, alert: &Alert) -> Result<String, TemplateError> {
        let templates = RequestTemplates::compile(Some(template), None, &BTreeMap::new())?;
        templates.body(&context(
            alert,
            &Value::from(BTreeMap::<String, Value>::new()),
            &Value::UNDEFINED,
        ))
    }

    fn path_of(template: &str, text: &str) -> Result<String, TemplateError> {
        let templates = RequestTemplates::compile(None, Some(template), &BTreeMap::new())?;
        templates.path(&context(&sample_alert(text), &Value::UNDEFINED, &Value::UNDEFINED))
    }

    #[test]
    fn of_a_huge_attachment_templates_see_the_texts() {
        let mut alert = sample_alert("text");
        let items = vec!["{}"; 200_000].join(",");
        let huge = format!(r#"{{"text":"T &amp; x","n":7,"blocks":[{items}],"a":{{"b":1}}}}"#);
        alert.attachment = RawValue::from_string(huge).unwrap();
        let fields = Arc::new(AlertFields::new(&alert));
        let attachment = fields.attachment();
        assert_eq!(attachment.get_attr("text").unwrap().as_str(), Some("T &amp; x"));
        assert_eq!(attachment.get_attr("n").unwrap().to_string(), "7");
        assert!(attachment.get_attr("blocks").unwrap().is_undefined());
        assert!(attachment.get_attr("a").unwrap().is_undefined());
    }

    #[test]
    fn every_value_is_written_as_json() {
        let written = body(
            r#"{"p": {{ alert.severity.priority }}, "t": {{ alert.is_test }},
                "s": {{ alert.title }}, "l": {{ alert.parse_problems }},
                "o": {{ alert.severity }}}"#,
        );
        let written: serde_json::Value = serde_json::from_str(&written.unwrap()).unwrap();
        assert_eq!(written["p"], 80);
        assert_eq!(written["t"], true);
        assert_eq!(written["s"], "text");
        assert_eq!(written["o"]["priority"], 80);
    }

    #[test]
    fn a_field_that_does_not_exist_is_an_error() {
        for template in ["{{ alert.tilte }}", "{{ alert.script.nope }}", "{{ other }}"] {
            let error = body(template).unwrap_err();
            assert!(error.reason.contains("undefined"), "{error}");
        }
        assert_eq!(body("\n\n{{ alert.tilte }}").unwrap_err().line, Some(3));
    }

    #[test]
    fn escaping_cannot_be_switched_off() {
        for template in [
            "{% autoescape false %}{{ alert.title }}{% endautoescape %}",
            "{% autoescape 'html' %}{{ alert.title }}{% endautoescape %}",
            "{{ alert.title | safe }}",
        ] {
            assert!(body(template).is_err(), "{template}");
        }
    }

    #[test]
    fn quotes_around_a_value_are_refused_with_a_hint() {
        let error = body(r#"{"title": "{{ alert.title }}"}"#).unwrap_err();
        assert!(error.reason.contains("without quotes"), "{error}");
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}1";
        assert!(body(endless).unwrap_err().reason.contains("fuel"));
    }

    #[test]
    fn a_template_reaches_no_other_template() {
        assert!(body("{% include 'path' %}").is_err());
    }

    #[test]
    fn the_attachment_can_be_looked_into() {
        assert_eq!(body("{{ alert.attachment.text }}").unwrap(), "\"text\"");
        let whole: serde_json::Value = serde_json::from_str(&body("{{ alert }}").unwrap()).unwrap();
        let expected = serde_json::to_value(sample_alert("text")).unwrap();
        assert_eq!(whole, expected);
    }

    #[test]
    fn an_attachment_too_deep_to_parse_has_no_fields() {
        let mut alert = sample_alert("text");
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        alert.attachment = RawValue::from_string(deep).unwrap();
        let template = "{{ alert.attachment.text | default('', true) }}";
        assert_eq!(body_of(template, &alert).unwrap(), "\"\"");
    }

    #[test]
    fn half_even_keeps_what_follows_the_number() {
        for (value, expected) in [
            ("'1600689944000505'", "\"160068994400050\""),
            ("'1600689944000515'", "\"160068994400052\""),
            ("'1600689944000500-1'", "\"160068994400050-1\""),
            ("'ts-00ff'", "\"ts-00ff\""),
            ("''", "\"\""),
            ("25", "2"),
            ("35", "4"),
        ] {
            let written = body(&format!("{{{{ {value} | half_even(10) }}}}"));
            assert_eq!(written.unwrap(), expected, "{value}");
        }
        assert!(body("{{ 1 | half_even(0) }}").is_err());
        assert!(body("{{ -1 | half_even(10) }}").is_err());
    }

    #[test]
    fn a_slice_counts_characters_as_python_does() {
        for (text, expected) in [
            ("`<https://a/ü.js>`", "https://a/ü.js"),
            ("abcd", ""),
            ("abc", ""),
            ("", ""),
            ("äöüßé", "ü"),
        ] {
            let written = body_of("{{ alert.script.raw[2:-2] }}", &sample_alert(text)).unwrap();
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn data_in_a_path_stays_in_its_segment() {
        assert_eq!(
            path_of("/a/{{ alert.title }}/b", "x/../y?z#%").unwrap(),
            "/a/x%2F..%2Fy%3Fz%23%25/b"
        );
        assert_eq!(path_of("/{{ alert.title }}", "ü-1.0_~").unwrap(), "/%C3%BC-1.0_~");
    }

    #[test]
    fn data_in_a_path_cannot_climb() {
        for text in [".", ".."] {
            assert!(path_of("/a/{{ alert.title }}/b", text).is_err(), "{text}");
        }
        assert!(path_of("/a/.{{ alert.title }}", ".").is_err());
        assert!(path_of("/a/%2e{{ alert.title }}", ".").is_err());
    }

    proptest! {
        #[test]
        fn a_body_is_valid_json_and_says_what_the_alert_says(text in any::<String>()) {
            let template =
                r#"{"a": {{ alert.title }}, {{ alert.details }}: {{ [alert.category] }}}"#;
            let written = body_of(template, &sample_alert(&text)).unwrap();
            let written: serde_json::Value = serde_json::from_str(&written).unwrap();
            if text != "a" {
                prop_assert_eq!(&written["a"], &text);
            }
            prop_assert_eq!(&written[&text][0], &text);
        }
    }

    #[test]
    fn awkward_texts_are_valid_json() {
        for text in [
            "\"",
            "\\",
            "\n\r\t",
            "\u{0}\u{1f}\u{7f}",
            "😀",
            "\u{202e}עברית",
            "</script>",
            "{{ 1 }}",
            "{% raw %}",
            "\u{2028}\u{2029}",
            "\u{fffd}\u{feff}",
        ] {
            let written = body_of("{{ alert.title }}", &sample_alert(text)).unwrap();
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
