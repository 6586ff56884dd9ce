//! Presets: what a SOAR wants to be sent and how it answers, as data.
//!
//! A preset is a YAML file, built in or in the operator's `presets_dir`; `docs/destinations.md`
//! describes its keys. Everything in it is compiled and tried when it is loaded, so that a mistake
//! stops the start and not the first alert.

use std::{collections::BTreeMap, fmt, fs, path::Path, sync::Arc};

use minijinja::value::{Serde, Value};
use serde_json::Map;

pub use self::{
    error::PresetError,
    file::{Example, Limits, Meaning, Transport},
};
use crate::{
    alert::Alert,
    destination::{
        access::auth::{self, AuthFile},
        preset::{
            answer::AnswerRules,
            params::{ParamDoc, Params},
            sample::sample_alerts,
            shorten::shortened,
            template::{RequestTemplates, TemplateError, context},
        },
    },
    secret::Secret,
    text,
};

pub(in crate::destination) mod answer;
mod builtin;
mod check;
mod compile;
mod error;
mod file;
mod filters;
pub mod params;
pub(in crate::destination) mod sample;
mod shorten;
pub(in crate::destination) mod step;
pub mod template;

use compile::{headers, lookup, method, severity};
use file::File;
use step::{Body, Kind, Rendered, Step};

/// Name of the parameter that opens a feed.
pub const FEED_TOKEN: &str = "feed_token";

/// Value of `request.body` that sends the alert itself.
const WHOLE_ALERT: &str = "alert";

/// Lengths in characters to which texts are cut, one after the other, until a body is short enough.
const SHORTER: [usize; 3] = [100_000, 10_000, 1_000];

/// The description of one kind of receiver.
pub struct Preset {
    name: String,
    about: String,
    notes: String,
    url: Option<String>,
    transport: Transport,
    params: Params,
    auth: Vec<AuthFile>,
    severity: BTreeMap<String, Value>,
    lookup: Option<Step>,
    request: Step,
    limits: Limits,
    examples: Vec<Example>,
}

impl fmt::Debug for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Preset({})", self.name)
    }
}

impl Preset {
    /// Returns the names of the built-in presets, sorted.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        builtin::names()
    }

    /// Returns a built-in preset.
    ///
    /// ```
    /// use slack_soar_relay::destination::preset::Preset;
    /// assert_eq!(Preset::builtin("webhook").unwrap().name(), "webhook");
    /// assert!(Preset::builtin("nope").is_none());
    /// ```
    pub fn builtin(name: &str) -> Option<Arc<Self>> {
        Self::load(name, None).ok()
    }

    /// Loads a built-in preset, or `name.yaml` of the operator's folder.
    ///
    /// # Errors
    /// Returns [`PresetError`] if there is no such preset, or it has a mistake.
    pub fn load(name: &str, presets_dir: Option<&Path>) -> Result<Arc<Self>, PresetError> {
        let builtin = builtin::text(name);
        // Only a name that is valid for a destination becomes part of a path, so none leads out of
        // the folder.
        let own =
            presets_dir.filter(|_dir| is_name(name)).map(|dir| dir.join(format!("{name}.yaml")));
        match (builtin, own) {
            (Some(_), Some(path)) if path.exists() => Err(PresetError::Shadows(path)),
            (Some(text), _) => Self::parse(name, &format!("{name}.yaml (built in)"), text),
            (None, Some(path)) if path.exists() => {
                let file = path.display().to_string();
                let bytes = fs::read(&path);
                let bytes = bytes.map_err(|source| PresetError::Unreadable { path, source })?;
                let text = text::decode(bytes).map_err(|broken| PresetError::Invalid {
                    file: file.clone(),
                    line: Some(broken.position.0),
                    problem: broken.to_string(),
                })?;
                Self::parse(name, &file, &text)
            }
            (None, _) => Err(PresetError::Unknown {
                name: name.to_owned(),
                dir: presets_dir.map(Path::to_owned),
            }),
        }
        .map(Arc::new)
    }

    fn parse(name: &str, file: &str, text: &str) -> Result<Self, PresetError> {
        let invalid = |line, problem| PresetError::Invalid { file: file.to_owned(), line, problem };
        let parsed: File = serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().map(|location| location.line());
            invalid(line, error.without_snippet().to_string())
        })?;
        let body_line = parsed.request.body.referenced.line();
        Self::compile(name, parsed).map_err(|error| {
            let offset = error.line.and_then(|line| u64::try_from(line).ok());
            let line = offset.filter(|_| error.part == "body");
            invalid(line.map(|line| body_line + line - 1), error.to_string())
        })
    }

    fn compile(name: &str, file: File) -> Result<Self, TemplateError> {
        if file.preset != name {
            let reason = format!("is `{}`; it must be the file's name, `{name}`", file.preset);
            return Err(TemplateError::new("preset", reason));
        }
        file.params.check()?;
        if file.send == Transport::Feed {
            check_feed(&file)?;
        }
        auth::check(&file.auth, |param| file.params.has(param))?;
        let body = file.request.body.value.as_str();
        let templates = RequestTemplates::compile(
            (body != WHOLE_ALERT).then_some(body),
            file.request.path.as_deref(),
            &file.request.query,
        )?;
        let preset = Self {
            name: file.preset,
            about: file.about,
            notes: file.notes,
            url: file.url,
            transport: file.send,
            params: file.params,
            auth: file.auth,
            severity: severity(file.severity)?,
            lookup: file.lookup.map(lookup).transpose()?,
            request: Step {
                kind: Kind::Request,
                method: method(file.request.method, false)?,
                headers: headers(&file.request.headers)?,
                body: if body == WHOLE_ALERT { Body::WholeAlert } else { Body::Template },
                templates,
                rules: AnswerRules::compile(&file.answer, &file.reference)?,
            },
            limits: file.limits,
            examples: file.examples,
        };
        // A mistake that only rendering or an answer shows is found now, and not by the first
        // alert.
        preset.check_names()?;
        preset.check_every_choice()?;
        preset.check_examples()?;
        Ok(preset)
    }

    /// Returns the name of the preset.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns one sentence about the receiver.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Returns the notes that a user should read first.
    pub fn notes(&self) -> &str {
        &self.notes
    }

    /// Returns the receiver's address, if it is the same for every customer.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Returns the way in which rendered alerts are sent.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns the limits of the receiver.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the examples of answers.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Returns the name of each level at the receiver, as JSON.
    pub fn severities(&self) -> impl Iterator<Item = (&str, String)> {
        self.severity.iter().map(|(level, value)| (level.as_str(), value.to_string()))
    }

    /// Returns the kinds of credentials that a request carries, one text each.
    pub fn auth_described(&self) -> Vec<String> {
        self.auth.iter().map(AuthFile::describe).collect()
    }

    /// Returns whether a look-up is made before the request.
    pub const fn has_lookup(&self) -> bool {
        self.lookup.is_some()
    }

    /// Returns the parameters, for the documentation.
    pub fn params_documented(&self) -> Vec<ParamDoc> {
        self.params.documented()
    }

    /// Returns the mistakes in the parameters of a destination, each with the parameter's name;
    /// empty if they can be used.
    pub fn check_params(
        &self,
        given: &Map<String, serde_json::Value>,
        secrets: &BTreeMap<String, Secret>,
    ) -> Vec<(String, String)> {
        self.params.problems(given, secrets)
    }

    /// Returns a JSON Schema of the parameters of a built-in preset; `reference` is the schema of a
    /// reference to a secret. Reads only the parameters.
    pub fn builtin_params_schema(
        name: &str,
        reference: &serde_json::Value,
    ) -> Option<serde_json::Value> {
        let file: File = serde_saphyr::from_str(builtin::text(name)?).ok()?;
        Some(file.params.schema(&file.about, reference))
    }

    /// Returns parameters to show a preset with: the defaults, and samples for the others.
    pub fn placeholders(&self) -> Map<String, serde_json::Value> {
        self.params.placeholders()
    }

    pub(in crate::destination) fn auth(&self) -> &[AuthFile] {
        &self.auth
    }

    pub(in crate::destination) const fn request(&self) -> &Step {
        &self.request
    }

    pub(in crate::destination) const fn lookup(&self) -> Option<&Step> {
        self.lookup.as_ref()
    }

    /// Returns the given parameters, and the defaults of the others, as templates see them.
    pub(in crate::destination) fn params(&self, given: &Map<String, serde_json::Value>) -> Value {
        let mut params = self.placeholders();
        params.extend(given.clone());
        Value::from(Serde(params))
    }

    /// Renders a step for the alert. A request whose body exceeds the receiver's limit is rendered
    /// again from shortened texts.
    pub(in crate::destination) fn render<'a>(
        &self,
        step: &'a Step,
        alert: &Alert,
        params: &Value,
    ) -> Result<Rendered<'a>, TemplateError> {
        let rendered = self.render_whole(step, alert, params)?;
        let most = self.limits.body_bytes.filter(|_most| step.kind == Kind::Request);
        let Some(most) = most.filter(|most| rendered.body.len() > *most) else {
            return Ok(rendered);
        };
        // The longest texts that fit, so that no more is lost than must be.
        for chars in SHORTER {
            let shorter = self.render_whole(step, &shortened(alert, chars), params)?;
            if shorter.body.len() <= most {
                return Ok(shorter);
            }
        }
        let reason = format!("{} bytes; {most} are taken", rendered.body.len());
        Err(TemplateError::new("body", reason))
    }

    fn render_whole<'a>(
        &self,
        step: &'a Step,
        alert: &Alert,
        params: &Value,
    ) -> Result<Rendered<'a>, TemplateError> {
        let level = self.severity.get(alert.severity.level);
        let severity = level.unwrap_or(&Value::UNDEFINED);
        // The context copies the alert, which a step without templates does not need.
        let context = if step.templates.is_empty() {
            Value::UNDEFINED
        } else {
            context(alert, params, severity)
        };
        let body = match step.body {
            Body::None => Vec::new(),
            Body::WholeAlert => {
                whole(alert).map_err(|error| TemplateError::new("body", error.to_string()))?
            }
            Body::Template => step.templates.body(&context)?.into_bytes(),
        };
        Ok(Rendered {
            path: step.templates.path(&context)?,
            query: step.templates.query(&context)?,
            body,
        })
    }

    /// Renders every template for the sample alerts.
    pub(in crate::destination) fn try_out(&self, params: &Value) -> Result<(), TemplateError> {
        sample_alerts().iter().try_for_each(|alert| {
            self.steps().try_for_each(|step| self.render(step, alert, params).map(drop))
        })
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.lookup.iter().chain([&self.request])
    }
}

/// Returns the alert as JSON.
fn whole(alert: &Alert) -> serde_json::Result<Vec<u8>> {
    // Most of a large alert is its attachment, whose texts the other fields repeat.
    let expected = alert.attachment.get().len() * 2 + 2_048;
    let mut body = Vec::with_capacity(expected);
    serde_json::to_writer(&mut body, alert)?;
    Ok(body)
}

/// Checks that a feed gives the alert itself, behind a token.
fn check_feed(file: &File) -> Result<(), TemplateError> {
    let wrong = |part, reason| Err(TemplateError::new(part, reason));
    if file.request.body.value != WHOLE_ALERT || file.lookup.is_some() {
        return wrong("request.body", "must be `alert`, and without `lookup`: a feed is read");
    }
    if !file.params.has(FEED_TOKEN) {
        return wrong("params", "a feed needs the parameter `feed_token`, a secret");
    }
    Ok(())
}

/// Checks a name that becomes part of a path: only the characters of destinations' names.
fn is_name(name: &str) -> bool {
    crate::ids::DestinationName::new(name).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::destination::preset::{
        answer::{Class, Reply},
        sample::sample_alert,
    };

    fn parse(text: &str) -> Result<Preset, PresetError> {
        Preset::parse("x", "x.yaml", text)
    }

    fn with_body(body: &str) -> Result<Preset, PresetError> {
        let body = body.replace('\n', "\n    ");
        parse(&format!("preset: x\nabout: x\nrequest:\n  body: |\n    {body}\n"))
    }

    fn params(given: serde_json::Value) -> Map<String, serde_json::Value> {
        serde_json::from_value(given).unwrap()
    }

    fn problems(preset: &Preset, given: serde_json::Value) -> Vec<String> {
        let found = preset.check_params(&params(given), &BTreeMap::new());
        found.into_iter().map(|(_name, problem)| problem).collect()
    }

    fn body(preset: &Preset, alert: &Alert, given: serde_json::Value) -> serde_json::Value {
        let given = params(given);
        assert_eq!(preset.check_params(&given, &BTreeMap::new()), []);
        let rendered = preset.render(preset.request(), alert, &preset.params(&given)).unwrap();
        serde_json::from_slice(&rendered.body).unwrap()
    }

    /// Returns the sample of the documentation, as the mapping makes it.
    fn incident() -> Alert {
        let mut alert = sample_alert("");
        alert.name = "Code Defender High Alert".to_owned();
        alert.title = "Code Defender has detected a new incident".to_owned();
        alert.category = "Test from PerimeterX".to_owned();
        alert.details = "Test from PerimeterX \n more details".to_owned();
        alert.script.raw = "`www.somedomain.com/scripts/script.js`".to_owned();
        alert.script.url = "www.somedomain.com/scripts/script.js".to_owned();
        alert.host_domain.raw = "<http://example.com|example.com>".to_owned();
        alert.host_domain.name = "example.com".to_owned();
        alert.deep_link = "https://console.perimeterx.com/x?from=slack".to_owned();
        let attachment = json!({"text": "Test from PerimeterX \n more &amp; details"});
        alert.attachment = serde_json::value::to_raw_value(&attachment).unwrap();
        alert
    }

    fn secops_default() -> serde_json::Value {
        json!({
            "display_id": "1600689944000500",
            "ticket_id": "1600689944000500",
            "name": "Code Defender High Alert",
            "rule_generator": "Code Defender has detected a new incident",
            "start_time": 1_600_689_944_000_i64,
            "end_time": 1_600_689_944_000_i64,
            "priority": 80,
            "device_vendor": "PerimeterX",
            "device_product": "Code Defender",
            "environment": "Default Environment",
            "source_system": "slack-soar-relay",
            "events": [{
                "StartTime": 1_600_689_944_000_i64,
                "EndTime": 1_600_689_944_000_i64,
                "category": "Test from PerimeterX",
                "name": "Code Defender has detected a new incident",
                "scriptName": "`www.somedomain.com/scripts/script.js`",
                "hostDomain": "example.com",
                "portalDeepLink": "https://console.perimeterx.com/x?from=slack",
                "fullURL": "www.somedomain.com/scripts/script.js",
                "details": "Test from PerimeterX \n more details",
            }],
        })
    }

    #[test]
    fn every_built_in_preset_loads() {
        for name in Preset::builtin_names() {
            let preset = Preset::load(name, None).unwrap();
            assert_eq!(preset.name(), name);
            assert_eq!(preset.check_params(&preset.placeholders(), &BTreeMap::new()), []);
        }
    }

    #[test]
    fn google_secops_webhook_sends_what_the_contract_says() {
        let preset = Preset::builtin("google-secops-webhook").unwrap();
        assert_eq!(body(&preset, &incident(), json!({})), secops_default());
    }

    #[test]
    fn an_error_in_the_answer_of_google_secops_is_not_success() {
        let preset = Preset::builtin("google-secops-webhook").unwrap();
        for (text, class) in [
            ("{}", Class::Delivered),
            ("", Class::Delivered),
            ("accepted", Class::Delivered),
            (r#"{"error": null}"#, Class::Delivered),
            (r#"{"error": {"code": 8, "status": "RESOURCE_EXHAUSTED"}}"#, Class::DestinationFault),
        ] {
            let reply = Reply { status: 200, text: text.to_owned(), ..Reply::default() };
            assert_eq!(
                preset.request().rules.read(&reply, &Value::UNDEFINED, "").class,
                class,
                "{text}"
            );
        }
    }

    #[test]
    fn the_article_scheme_shortens_the_ids_and_ends_a_millisecond_later() {
        let preset = Preset::builtin("google-secops-webhook").unwrap();
        let mut expected = secops_default();
        expected["display_id"] = json!("160068994400050");
        expected["ticket_id"] = json!("160068994400050");
        expected["end_time"] = json!(1_600_689_944_001_i64);
        let given = json!({"id_scheme": "article"});
        assert_eq!(body(&preset, &incident(), given.clone()), expected);
        let mut second = incident();
        second.ticket_id = "1600689944000515-1".to_owned();
        assert_eq!(body(&preset, &second, given)["ticket_id"], "160068994400052-1");
    }

    #[test]
    fn as_predecessor_sends_the_raw_texts_and_cuts_the_url() {
        let preset = Preset::builtin("google-secops-webhook").unwrap();
        let mut expected = secops_default();
        expected["environment"] = json!("Web");
        expected["events"][0]["category"] = json!("Test from PerimeterX ");
        expected["events"][0]["hostDomain"] = json!("<http://example.com|example.com>");
        expected["events"][0]["fullURL"] = json!("ww.somedomain.com/scripts/script.j");
        expected["events"][0]["details"] = json!("Test from PerimeterX \n more &amp; details");
        let given = json!({"values": "as_predecessor", "environment": "Web"});
        assert_eq!(body(&preset, &incident(), given), expected);
    }

    #[test]
    fn as_predecessor_reads_an_attachment_whose_text_is_missing_or_a_number() {
        let preset = Preset::builtin("google-secops-webhook").unwrap();
        for (attachment, details) in
            [("{}", ""), (r#"{"text": null}"#, ""), (r#"{"text": 7}"#, "7")]
        {
            let mut alert = incident();
            alert.attachment = serde_json::value::RawValue::from_string(attachment.into()).unwrap();
            let sent = body(&preset, &alert, json!({"values": "as_predecessor"}));
            assert_eq!(sent["events"][0]["details"], details);
            assert_eq!(sent["events"][0]["category"], details);
        }
    }

    /// Checks that the three ways into Siemplify give one alert the same ids and the same event.
    #[test]
    fn every_siemplify_preset_sends_the_same_view() {
        let [hook, legacy, chronicle] =
            ["google-secops-webhook", "siemplify-create-case", "google-secops-create-case"]
                .map(|name| Preset::builtin(name).unwrap());
        for scheme in ["micros", "article"] {
            for values in ["clean", "as_predecessor"] {
                let given = json!({"id_scheme": scheme, "values": values, "app_key": "",
                    "service_account": ""});
                let common = json!({"id_scheme": scheme, "values": values});
                let hook = body(&hook, &incident(), common);
                let mut own = given.clone();
                own.as_object_mut().unwrap().remove("service_account");
                let legacy = body(&legacy, &incident(), own)["Cases"][0].take();
                let mut own = given;
                own.as_object_mut().unwrap().remove("app_key");
                let chronicle = body(&chronicle, &incident(), own)["cases"][0].take();
                for (name, old, new) in [
                    ("display_id", "DisplayId", "displayId"),
                    ("ticket_id", "TicketId", "ticketId"),
                    ("name", "Name", "name"),
                    ("rule_generator", "RuleGenerator", "ruleGenerator"),
                    ("priority", "Priority", "priority"),
                    ("device_vendor", "DeviceVendor", "deviceVendor"),
                    ("device_product", "DeviceProduct", "deviceProduct"),
                    ("environment", "Environment", "environment"),
                ] {
                    assert_eq!(hook[name], legacy[old], "{old}");
                    assert_eq!(hook[name], chronicle[new], "{new}");
                }
                let text = |value: &serde_json::Value| json!(value.to_string());
                for (name, old, new) in
                    [("start_time", "StartTime", "startTime"), ("end_time", "EndTime", "endTime")]
                {
                    assert_eq!(hook[name], legacy[old], "{old}");
                    assert_eq!(text(&hook[name]), chronicle[new], "{new}");
                }
                let mut event = hook["events"][0].clone();
                let start = text(&event["StartTime"]);
                (event["StartTime"], event["EndTime"]) = (start.clone(), start);
                assert_eq!(event, legacy["Events"][0]["_rawDataFields"]);
                assert_eq!(event["details"], chronicle["events"][0]["rawDataFields"]["details"]);
                assert_eq!(event, chronicle["events"][0]["rawDataFields"]);
            }
        }
    }

    #[test]
    fn a_body_that_is_too_long_is_sent_with_its_texts_cut() {
        let rest = "request: {body: alert}\nlimits: {body_bytes: 50000}\n";
        let preset = parse(&format!("preset: x\nabout: x\n{rest}")).unwrap();
        let mut alert = incident();
        alert.details = "\u{1}".repeat(4_000_000);
        let sent = body(&preset, &alert, json!({}));
        assert_eq!(sent["details"].as_str().unwrap().chars().count(), 1_000);
        assert!(sent["details"].as_str().unwrap().ends_with("[... cut]"));
        assert_eq!((&sent["id"], &sent["title"]), (&json!(alert.id), &json!(alert.title)));
        let rest = "request: {body: alert}\nlimits: {body_bytes: 50}\n";
        let error = parse(&format!("preset: x\nabout: x\n{rest}")).unwrap_err();
        assert!(error.to_string().contains("50 are taken"), "{error}");
    }

    #[test]
    fn webhook_sends_the_alert_itself() {
        let preset = Preset::builtin("webhook").unwrap();
        let expected = serde_json::to_value(incident()).unwrap();
        assert_eq!(body(&preset, &incident(), json!({})), expected);
    }

    #[test]
    fn parameters_are_checked_by_name_type_and_choice() {
        let preset = Preset::builtin("google-secops-webhook").unwrap();
        let given = json!({"enviroment": "x", "environment": 5, "id_scheme": "micro"});
        assert_eq!(
            problems(&preset, given),
            [
                "`enviroment` is not a parameter; there are environment, id_scheme, values",
                "`environment` must be a string, not 5",
                "`id_scheme` must be one of \"micros\", \"article\", not \"micro\"",
            ]
        );
    }

    #[test]
    fn a_parameter_without_a_default_is_required() {
        let preset = parse(
            "preset: x\nabout: x\nparams:\n  team: {type: integer, help: The team's number.}\n\
             request:\n  body: '{{ params.team }}'\n",
        )
        .unwrap();
        assert_eq!(problems(&preset, json!({})), ["`team` is missing: The team's number."]);
        let schema = preset.params.schema("x", &json!({"type": "object"}));
        assert_eq!(schema["required"], json!(["team"]));
        assert_eq!(schema["properties"]["team"]["type"], "integer");
        let schema = jsonschema::validator_for(&schema).unwrap();
        assert!(schema.is_valid(&json!({"team": 1})));
        assert!(!schema.is_valid(&json!({"team": 1, "other": 1})));
    }

    #[test]
    fn a_mistake_is_named_with_its_file_and_line() {
        for (text, line, word) in [
            ("preset: x\nabout: x\nrequest:\n  body: alert\nextra: 1\n", 5, "extra"),
            ("preset: x\nabout: x\nrequest:\n  method: HEAD\n  body: alert\n", 4, "HEAD"),
            ("preset: x\nrequest: [\n", 2, ""),
            (
                "preset: x\nabout: x\nrequest:\n  body: |\n    {\n    \"a\": {{ alert.tilte }}}\n",
                0,
                "alert.tilte",
            ),
            ("preset: x\nabout: x\nrequest:\n  body: |\n    {\n    {% if %}}\n", 6, "syntax"),
            ("preset: x\nabout: x\nrequest:\n  body: |\n    {\n    {{ 1 | nope }}}\n", 6, "nope"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            let place = if line == 0 { "x.yaml:".to_owned() } else { format!("x.yaml:{line}:") };
            assert!(error.starts_with(&place) && error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_field_that_no_sample_reaches_is_still_checked() {
        let error = with_body("{% if alert.title == 'rare' %}{{ alert.nope }}{% endif %}1");
        assert!(error.unwrap_err().to_string().contains("alert.nope"));
        assert!(with_body("{{ params.nope }}").is_err());
        assert!(with_body("{{ other }}").is_err());
        assert!(with_body("{{ alert.attachment.text | default('') }}").is_ok());
    }

    #[test]
    fn a_body_that_is_not_always_json_is_refused() {
        for body in [
            r#"{"a": "{{ alert.title }}"}"#,
            r#"{"a": {{ alert.title }}"#,
            r#"{% if alert.title %}{"a": 1}{% endif %}"#,
            "",
        ] {
            assert!(with_body(body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_choice_that_breaks_the_template_is_found() {
        let text = "preset: x\nabout: x\nparams:\n  a: {type: boolean, default: false, help: x}\n\
                    request:\n  body: '{% if params.a %}broken{% else %}1{% endif %}'\n";
        assert!(parse(text).is_err());
    }

    #[test]
    fn an_own_preset_works_and_may_not_take_a_built_in_name() {
        let dir = tempfile::tempdir().unwrap();
        let text = "preset: mine\nabout: x\nrequest:\n  body: '[{{ alert.title }}]'\n";
        fs::write(dir.path().join("mine.yaml"), text).unwrap();
        let preset = Preset::load("mine", Some(dir.path())).unwrap();
        assert_eq!(body(&preset, &sample_alert("t"), json!({})), json!(["t"]));
        assert!(Preset::load("webhook", Some(dir.path())).is_ok());
        fs::write(dir.path().join("webhook.yaml"), text).unwrap();
        let shadow = Preset::load("webhook", Some(dir.path())).unwrap_err();
        assert!(shadow.to_string().contains("built-in"), "{shadow}");
        fs::write(dir.path().join("other.yaml"), text).unwrap();
        let other = Preset::load("other", Some(dir.path())).unwrap_err();
        assert!(other.to_string().contains("file's name"), "{other}");
    }

    #[test]
    fn the_documented_preset_works() {
        let page = include_str!("../../../docs/destinations.md");
        let (_, rest) = page.split_once("```yaml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let preset = Preset::parse("my-soar", "destinations.md", text).unwrap();
        let sent = body(&preset, &incident(), json!({}));
        assert_eq!((&sent["queue"], &sent["severity"]), (&json!("triage"), &json!(80)));
    }

    #[test]
    fn a_feed_gives_the_alert_itself_behind_a_token() {
        let feed = |params: &str, body: &str| {
            parse(&format!(
                "preset: x\nabout: x\nsend: feed\nurl: 'feed://'\nparams: {{{params}}}\n\
                 request: {{body: {body}}}\n"
            ))
        };
        let token = "feed_token: {type: secret, help: x}";
        assert!(feed(token, "alert").is_ok());
        let own_body = feed(token, "'{{ alert.id }}'").unwrap_err().to_string();
        assert!(own_body.contains("must be `alert`"), "{own_body}");
        let open = feed("", "alert").unwrap_err().to_string();
        assert!(open.contains("feed_token"), "{open}");
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("presets")).unwrap();
        fs::write(dir.path().join("up.yaml"), "").unwrap();
        let error = Preset::load("../up", Some(&dir.path().join("presets"))).unwrap_err();
        assert!(matches!(error, PresetError::Unknown { .. }), "{error}");
    }

    #[test]
    fn an_unknown_preset_is_answered_with_the_known_ones() {
        let error = Preset::load("nope", None).unwrap_err().to_string();
        assert!(error.contains("google-secops-webhook, "), "{error}");
    }
}
