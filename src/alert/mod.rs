//! The alert, version 1: what templates, destinations and the API see. Additive changes only.

pub mod mapping;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::code_defender::{incident, risk_level::RiskLevel};

/// The `schema` of every alert of this version.
pub const SCHEMA: &str = "slack-soar-relay/alert/v1";

/// One Code Defender incident. Absent texts are empty, never missing, never null.
#[derive(Clone, Debug, Serialize)]
pub struct Alert {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// `app:channel:ts:ordinal`: the idempotency key.
    pub id: String,
    /// The `ts` in microseconds, as text; `-1`, `-2` ... behind it from the second incident on.
    pub ticket_id: String,
    /// `Code Defender High Alert`.
    pub name: String,
    /// `PerimeterX`: playbooks trigger on it.
    pub vendor: &'static str,
    /// `Code Defender`: playbooks trigger on it.
    pub product: &'static str,
    /// The attachment's title.
    pub title: String,
    /// The first line of the details, trimmed.
    pub category: String,
    /// The attachment's text, entities decoded, links replaced by their URL, not trimmed.
    pub details: String,
    /// The risk level.
    pub severity: Severity,
    /// When it was posted, in milliseconds since the epoch.
    pub start_time_ms: i64,
    /// One millisecond later.
    pub end_time_ms: i64,
    /// The script.
    pub script: Script,
    /// Where the script runs.
    pub host_domain: HostDomain,
    /// The incident in Code Defender's console, or empty.
    pub deep_link: String,
    /// Whether somebody pressed a test button.
    pub is_test: bool,
    /// Where in Slack it came from.
    pub slack: Slack,
    /// What could not be read, by name.
    pub parse_problems: Vec<&'static str>,
    /// The attachment as Slack sent it.
    pub attachment: Box<RawValue>,
}

impl Alert {
    /// What a search looks through; the same as that of the incident it is made of.
    pub fn search_text(&self) -> String {
        let Self { category, script, host_domain, title, .. } = self;
        incident::search_text([category, &script.url, &host_domain.name, title])
    }
}

/// The risk level in three forms.
#[derive(Clone, Debug, Serialize)]
pub struct Severity {
    /// As Slack sent it.
    pub raw: String,
    /// informative, low, medium, high or critical.
    pub level: &'static str,
    /// -1, 40, 60, 80 or 100.
    pub priority: i32,
    /// Whether `raw` was one of the known levels; if not, the alert is treated as high.
    pub recognised: bool,
}

/// The script in three forms.
#[derive(Clone, Debug, Serialize)]
pub struct Script {
    /// As Slack sent it.
    pub raw: String,
    /// Without code span, link markup and entities.
    pub url: String,
    /// The URL's host, or empty.
    pub host: String,
}

/// The page's domain in two forms.
#[derive(Clone, Debug, Serialize)]
pub struct HostDomain {
    /// As Slack sent it.
    pub raw: String,
    /// The host of the link, else the text.
    pub name: String,
}

/// Where in Slack an alert came from.
#[derive(Clone, Debug, Serialize)]
pub struct Slack {
    /// The configured name of the app.
    pub app: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// The channel's id when the message was posted.
    pub channel: String,
    /// The id in [`Alert::id`]: the first one that is known of the channel.
    pub channel_first: String,
    /// The message's timestamp.
    pub ts: String,
    /// Slack's `event_id`; empty if it did not come by push.
    pub event_id: String,
    /// push, `catch_up` or backfill.
    pub source: &'static str,
    /// Which bot posted it.
    pub bot_id: String,
}

/// How urgent a level is, in the numbers of the article, which playbooks know.
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
