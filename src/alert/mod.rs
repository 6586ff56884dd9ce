//! The alert, version 1, which templates, destinations and the API see.
//!
//! Fields may be added; none changes or goes.

pub mod mapping;
pub mod reference;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::code_defender::{
    incident::{self, PARSE_PROBLEMS},
    risk_level::RiskLevel,
};

/// Name of this version of the alert, the value of `schema` in each.
pub const SCHEMA: &str = "slack-soar-relay/alert/v1";

/// One Code Defender incident, as it is sent to destinations.
///
/// Every key is always present. A text that the message does not have is empty, never null.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Alert {
    /// Name of this version of the alert.
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    /// Identity of the alert, `app:channel:ts:ordinal`; also the idempotency key of each request.
    pub id: String,
    /// Timestamp of the message in microseconds, as digits; a digest if the message does not have a
    /// readable one. The second incident of a message has `-1` appended, the third `-2`, and so on.
    pub ticket_id: String,
    /// Name for lists of cases, such as `Code Defender High Alert`.
    pub name: String,
    /// Vendor of the product, always `PerimeterX`: playbooks trigger on this value.
    pub vendor: &'static str,
    /// Name of the product, always `Code Defender`: playbooks trigger on this value.
    pub product: &'static str,
    /// Title of the attachment.
    pub title: String,
    /// First line of the details, trimmed.
    pub category: String,
    /// Text of the attachment with entities decoded and each link replaced by its URL, not trimmed.
    pub details: String,
    /// Severity of the incident.
    pub severity: Severity,
    /// Time of the message, in milliseconds since the epoch.
    pub start_time_ms: i64,
    /// Time of the message plus one millisecond, as in the article about the published connector.
    pub end_time_ms: i64,
    /// Script that the incident is about.
    pub script: Script,
    /// Domain of the page that loads the script.
    pub host_domain: HostDomain,
    /// URL of the incident in Code Defender's console, or empty.
    pub deep_link: String,
    /// `true` for a test that was sent from Code Defender's console or by `send-test`.
    pub is_test: bool,
    /// Origin of the alert in Slack.
    pub slack: Slack,
    /// Names of the parts that could not be read.
    #[schemars(extend("items" = {"type": "string", "enum": PARSE_PROBLEMS}))]
    pub parse_problems: Vec<&'static str>,
    /// Attachment as Slack sent it, whatever its shape.
    #[schemars(with = "serde_json::Value")]
    pub attachment: Box<RawValue>,
}

impl Alert {
    /// Returns the text that searches look through, equal to that of the alert's incident.
    pub fn search_text(&self) -> String {
        let Self { category, script, host_domain, title, .. } = self;
        incident::search_text([category, &script.url, &host_domain.name, title])
    }
}

/// Severity as text, level and number.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Severity {
    /// Text of the message's field.
    pub raw: String,
    /// Level that the text names; `high` if it does not name one.
    #[schemars(extend("enum" = LEVELS))]
    pub level: &'static str,
    /// Number of the level, as SOAR playbooks know it: -1, 40, 60, 80 or 100.
    pub priority: i32,
    /// `false` if the text does not name a known level.
    pub recognised: bool,
}

/// Levels from the least to the most severe.
const LEVELS: [&str; 5] = [
    RiskLevel::Informative.as_str(),
    RiskLevel::Low.as_str(),
    RiskLevel::Medium.as_str(),
    RiskLevel::High.as_str(),
    RiskLevel::Critical.as_str(),
];

/// Script as text, URL and host.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Script {
    /// Text of the message's field.
    pub raw: String,
    /// Text without code spans, link markup and entities; a scheme is not added.
    pub url: String,
    /// Host of the URL, or empty.
    pub host: String,
}

/// Domain of the page, as text and name.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HostDomain {
    /// Text of the message's field.
    pub raw: String,
    /// Host of the link in the text, or the text if it is not a link.
    pub name: String,
}

/// Origin of an alert in Slack.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Slack {
    /// Name of the app in the configuration.
    pub app: String,
    /// Id of the workspace, or empty.
    pub team: String,
    /// Id of the channel when the message was posted.
    pub channel: String,
    /// First known id of the channel, as in the alert's `id`: Slack may change a channel's id.
    pub channel_first: String,
    /// Timestamp of the message, with six decimals.
    pub ts: String,
    /// Id of Slack's event; empty if the message was read from the channel's history.
    pub event_id: String,
    /// Way by which the message arrived.
    #[schemars(extend("enum" = ["push", "catch_up", "backfill"]))]
    pub source: &'static str,
    /// Id of the bot that posted the message, or empty.
    pub bot_id: String,
}

/// Returns the number of a level, as SOAR playbooks know it.
///
/// ```
/// use slack_soar_relay::{alert::priority, code_defender::risk_level::RiskLevel};
/// assert_eq!(priority(RiskLevel::High), 80);
/// ```
pub const fn priority(level: RiskLevel) -> i32 {
    match level {
        RiskLevel::Informative => -1,
        RiskLevel::Low => 40,
        RiskLevel::Medium => 60,
        RiskLevel::High => 80,
        RiskLevel::Critical => 100,
    }
}
