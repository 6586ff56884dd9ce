//! Interprets an answer: whether the receiver has the alert, who is at fault if not, and how long
//! to wait.
//!
//! The classes of plain HTTP apply first. A preset's rules, small expressions over status, headers
//! and body, overrule them, since many receivers answer 200 and mean an error.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use minijinja::{Environment, UndefinedBehavior, Value, context, value::Serde};
use serde::Deserialize;

use super::{
    filters::is_page,
    template::{TemplateError, add, environment, render},
};
use crate::clock::Timestamp;

/// Names that [`AnswerFile`] and [`ReferenceFile`] may read.
const NAMES: [&str; 6] = ["status", "headers", "json", "text", "params", "key"];

const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The meaning of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::destination) enum Class {
    Delivered,
    Duplicate,
    Auth,
    Throttled,
    DestinationFault,
    AlertFault,
}

/// An answer, as far as it was read.
#[derive(Debug, Default)]
pub(in crate::destination) struct Reply {
    pub(in crate::destination) status: u16,
    /// Headers by lower-case name.
    pub(in crate::destination) headers: BTreeMap<String, String>,
    pub(in crate::destination) text: String,
}

/// The key `answer` of a preset: expressions, tried in this order.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::destination) struct AnswerFile {
    /// Holds if the destination has the alert already.
    duplicate: Option<String>,
    /// Holds if the destination refuses the credentials, with a status other than 401 and 403.
    auth: Option<String>,
    /// Holds if this alert is at fault.
    alert_fault: Option<String>,
    /// Holds if the destination is at fault.
    retry: Option<String>,
    /// Must hold, besides a 2xx status, for an alert to be delivered.
    delivered: Option<String>,
}

impl AnswerFile {
    /// Rules of a look-up: one holds if the alert is there already, one if the answer is valid.
    pub(in crate::destination) fn found(rule: String, answered: Option<String>) -> Self {
        Self { duplicate: Some(rule), delivered: answered, ..Self::default() }
    }
}

/// The key `reference` of a preset: templates that find the created case in the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::destination) struct ReferenceFile {
    id: Option<String>,
    url: Option<String>,
}

/// The rules of a preset, compiled.
#[derive(Debug)]
pub(in crate::destination) struct AnswerRules {
    env: Environment<'static>,
    delivered: bool,
    any: bool,
}

/// The result of [`AnswerRules::read`].
#[derive(Debug, PartialEq, Eq)]
pub(in crate::destination) struct Reading {
    pub(in crate::destination) class: Class,
    pub(in crate::destination) reference_id: String,
    pub(in crate::destination) reference_url: String,
}

impl AnswerRules {
    pub(in crate::destination) fn compile(
        answer: &AnswerFile,
        reference: &ReferenceFile,
    ) -> Result<Self, TemplateError> {
        let mut env = environment(UndefinedBehavior::Chainable);
        let rules = [
            (DUPLICATE, &answer.duplicate),
            (AUTH, &answer.auth),
            (ALERT_FAULT, &answer.alert_fault),
            (RETRY, &answer.retry),
            (DELIVERED, &answer.delivered),
        ];
        for (part, rule) in rules {
            let Some(rule) = rule else { continue };
            // By itself first: a rule must be one expression, and must not end the `if` around it.
            env.compile_expression(rule)
                .map_err(|error| TemplateError::from_jinja(part, &error))?;
            add(&mut env, part, &format!("{{% if {rule} %}}yes{{% endif %}}"))?;
        }
        for (part, template) in [(ID, &reference.id), (URL, &reference.url)] {
            let Some(template) = template else { continue };
            add(&mut env, part, template)?;
        }
        let any = env.templates().next().is_some();
        let delivered = answer.delivered.is_some();
        let rules = Self { env, delivered, any };
        rules.check()?;
        Ok(rules)
    }

    /// Returns whether the request is made at all, by the condition of [`Self::with_condition`].
    pub(in crate::destination) fn applies(&self, params: &Value) -> bool {
        let facts = context! { params => params.clone() };
        render(&self.env, WHEN, &facts).map_or(true, |text| !text.is_empty())
    }

    /// Adds the condition on `params` under which the request is made.
    pub(in crate::destination) fn with_condition(
        mut self,
        rule: Option<&str>,
    ) -> Result<Self, TemplateError> {
        if let Some(rule) = rule {
            add(&mut self.env, WHEN, &format!("{{% if {rule} %}}yes{{% endif %}}"))?;
            self.check()?;
        }
        Ok(self)
    }

    /// Checks that the rules read only known names and do not fail on an ordinary answer.
    fn check(&self) -> Result<(), TemplateError> {
        for (part, template) in self.env.templates() {
            let names = template.undeclared_variables(false);
            if let Some(name) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
                let reason = format!("`{name}` is not one of {}", NAMES.join(", "));
                return Err(TemplateError::new(part, reason));
            }
            for (status, text) in [(200, "{}"), (200, ""), (500, "<html>"), (400, "[1]")] {
                let reply = Reply { status, text: text.to_owned(), ..Reply::default() };
                render(&self.env, part, &facts(&reply, &Value::UNDEFINED, ""))?;
            }
        }
        Ok(())
    }

    /// Returns the meaning of an answer to the request for the alert `key`. A rule that fails on an
    /// answer does not hold for it.
    pub(in crate::destination) fn read(&self, reply: &Reply, params: &Value, key: &str) -> Reading {
        // The body is parsed only if some rule looks at the answer.
        let facts = self.any.then(|| facts(reply, params, key));
        let part = |part| {
            let text = facts.as_ref().map(|facts| render(&self.env, part, facts));
            text.and_then(Result::ok).unwrap_or_default()
        };
        let holds = |rule| !part(rule).is_empty();
        // An alert that is there already is delivered, whatever the status, and rejected
        // credentials say nothing about the alert.
        let class = if holds(DUPLICATE) {
            Class::Duplicate
        } else if holds(AUTH) {
            Class::Auth
        } else if holds(ALERT_FAULT) {
            Class::AlertFault
        } else if holds(RETRY) {
            Class::DestinationFault
        } else {
            let class = class_of(reply.status);
            // A page with a status of success comes from a proxy before the receiver.
            let taken = || if self.delivered { holds(DELIVERED) } else { !is_page(&reply.text) };
            if class == Class::Delivered && !taken() { Class::DestinationFault } else { class }
        };
        Reading {
            class,
            reference_id: part(ID).trim().to_owned(),
            reference_url: part(URL).trim().to_owned(),
        }
    }
}

const WHEN: &str = "lookup.when";
const DUPLICATE: &str = "answer.duplicate";
const AUTH: &str = "answer.auth";
const ALERT_FAULT: &str = "answer.alert_fault";
const RETRY: &str = "answer.retry";
const DELIVERED: &str = "answer.delivered";
const ID: &str = "reference.id";
const URL: &str = "reference.url";

fn facts(reply: &Reply, params: &Value, key: &str) -> Value {
    let json = serde_json::from_str::<serde_json::Value>(&reply.text)
        .map_or(Value::UNDEFINED, |parsed| Value::from(Serde(parsed)));
    context! {
        status => reply.status,
        headers => reply.headers.clone(),
        json,
        text => reply.text.as_str(),
        params => params.clone(),
        key,
    }
}

/// Returns the meaning of a status for which the preset has no rule. A status that is not known to
/// blame the alert blames the destination, so that no alert dies of it.
const fn class_of(status: u16) -> Class {
    match status {
        200..=299 => Class::Delivered,
        401 | 403 => Class::Auth,
        429 => Class::Throttled,
        // These are about the destination or the way to it (a licence, a method, a lock, a policy),
        // whatever the alert contains.
        402 | 404..=408 | 410 | 423..=426 | 431 | 451 => Class::DestinationFault,
        400..=499 => Class::AlertFault,
        _ => Class::DestinationFault,
    }
}

/// Parses `Retry-After` in either of its forms, limited to between one second and one hour.
pub(in crate::destination) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        // A number that does not fit is longer than the longest wait.
        value.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        let now = UNIX_EPOCH + Duration::from_secs(u64::try_from(now.seconds()).ok()?);
        let at: SystemTime = httpdate::parse_http_date(value).ok()?;
        at.duration_since(now).unwrap_or_default()
    };
    Some(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(answer: &str, reference: &str) -> Result<AnswerRules, TemplateError> {
        AnswerRules::compile(
            &serde_saphyr::from_str(answer).unwrap(),
            &serde_saphyr::from_str(reference).unwrap(),
        )
    }

    fn read(rules: &AnswerRules, status: u16, text: &str) -> Reading {
        let reply = Reply {
            status,
            headers: BTreeMap::from([("x-case".to_owned(), "77".to_owned())]),
            text: text.to_owned(),
        };
        rules.read(&reply, &Value::UNDEFINED, "k")
    }

    #[test]
    fn a_status_blames_the_alert_only_when_it_is_known_to() {
        for (statuses, class) in [
            (&[200, 201, 202, 204, 299][..], Class::Delivered),
            (&[401, 403], Class::Auth),
            (&[429], Class::Throttled),
            (&[400, 409, 411, 413, 414, 415, 417, 421, 422, 428, 499], Class::AlertFault),
            (&[402, 405, 406, 423, 424, 426, 431, 451], Class::DestinationFault),
            (&[404, 407, 408, 410, 425], Class::DestinationFault),
            (&[100, 199, 301, 302, 307, 500, 502, 503, 504, 599, 999], Class::DestinationFault),
        ] {
            for status in statuses {
                assert_eq!(class_of(*status), class, "{status}");
            }
        }
    }

    #[test]
    fn a_2xx_with_an_error_in_its_body_is_not_success() {
        let rules = rules("delivered: json.success == true", "{}").unwrap();
        for (text, class) in [
            (r#"{"success": true}"#, Class::Delivered),
            (r#"{"success": false}"#, Class::DestinationFault),
            (r#"{"success": "true"}"#, Class::DestinationFault),
            ("{}", Class::DestinationFault),
            ("<html>", Class::DestinationFault),
            ("", Class::DestinationFault),
        ] {
            assert_eq!(read(&rules, 200, text).class, class, "{text}");
        }
        assert_eq!(read(&rules, 401, r#"{"success": true}"#).class, Class::Auth);
    }

    #[test]
    fn a_login_page_is_not_success_unless_a_rule_says_so() {
        let (none, lax) = (rules("{}", "{}").unwrap(), rules("delivered: true", "{}").unwrap());
        for (text, class) in [
            ("<html><body>log in", Class::DestinationFault),
            ("\u{feff}\r\n <!DOCTYPE HTML>\n<html>", Class::DestinationFault),
            ("accepted", Class::Delivered),
            ("<ok/>", Class::Delivered),
            ("<!doc", Class::Delivered),
            ("<htmä", Class::Delivered),
            ("", Class::Delivered),
        ] {
            assert_eq!(read(&none, 200, text).class, class, "{text}");
            assert_eq!(read(&lax, 200, text).class, Class::Delivered, "{text}");
        }
    }

    #[test]
    fn rules_overrule_the_status_in_their_order() {
        let rules = rules(
            "duplicate: status == 400 and 'already exists' in text\n\
             auth: status == 400 and 'key' in text\n\
             alert_fault: json.error.code in [5, 6]\n\
             retry: status == 400 and headers['x-case'] == '77'\n",
            "{}",
        )
        .unwrap();
        let code = r#"{"error": {"code": 5}}"#;
        assert_eq!(read(&rules, 400, "key: it already exists").class, Class::Duplicate);
        assert_eq!(read(&rules, 400, "wrong key").class, Class::Auth);
        assert_eq!(read(&rules, 200, code).class, Class::AlertFault);
        assert_eq!(read(&rules, 400, "database is down").class, Class::DestinationFault);
        assert_eq!(read(&rules, 422, "").class, Class::AlertFault);
        assert_eq!(read(&rules, 200, "").class, Class::Delivered);
    }

    #[test]
    fn the_created_case_is_found_in_the_answer() {
        let rules =
            rules("{}", "{id: '{{ json.id }}', url: 'https://x/{{ headers[\"x-case\"] }}'}");
        let reading = read(&rules.unwrap(), 201, r#"{"id": 42}"#);
        assert_eq!(reading.reference_id, "42");
        assert_eq!(reading.reference_url, "https://x/77");
    }

    #[test]
    fn an_answer_without_the_case_has_an_empty_reference() {
        let rules = rules("{}", "{id: '{{ json.a.b.c }}'}").unwrap();
        for text in ["", "{}", "[]", "3", "null", r#"{"a": "b"}"#] {
            assert_eq!(read(&rules, 200, text).reference_id, "", "{text}");
        }
    }

    #[test]
    fn a_rule_that_cannot_work_is_refused() {
        for answer in [
            "delivered: 'status =='",
            "delivered: stauts == 200",
            "delivered: status | nope",
            "duplicate: 'true %}{% if false'",
        ] {
            assert!(rules(answer, "{}").is_err(), "{answer}");
        }
        assert!(rules("{}", "{id: '{{ body.id }}'}").is_err());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_within_bounds() {
        let now = Timestamp::from_seconds(1_600_689_944);
        for (value, seconds) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("0", Some(1)),
            ("999999", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("Mon, 21 Sep 2020 12:05:54 GMT", Some(10)),
            ("Mon, 21 Sep 2020 12:00:00 GMT", Some(1)),
            ("Tue, 22 Sep 2020 12:00:00 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
