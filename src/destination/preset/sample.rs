//! Alerts to try a preset with before a real one arrives. They are never sent.

use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use crate::alert::{Alert, HostDomain, SCHEMA, Script, Severity, Slack};

/// Alerts that every template must be able to render: an ordinary one, one in which nothing could
/// be read, and one in which every text needs escaping.
pub(in crate::destination) fn sample_alerts() -> [Alert; 3] {
    let mut empty = sample_alert("");
    empty.attachment = RawValue::NULL.to_owned();
    let traps = "\"</script>\\\n\r\u{0}{{ 1 }}%}\u{202e}\u{2028}\u{1f600}',:1}]";
    [sample_alert("text"), empty, sample_alert(traps)]
}

/// Returns an alert whose every free text is `text`.
pub(in crate::destination) fn sample_alert(text: &str) -> Alert {
    let text = || text.to_owned();
    let attachment = to_raw_value(&json!({"title": text(), "text": text(), "fields": []}));
    Alert {
        schema: SCHEMA,
        id: "main:C0123456789:1600689944.000500:0".to_owned(),
        ticket_id: "1600689944000500".to_owned(),
        name: text(),
        vendor: "PerimeterX",
        product: "Code Defender",
        title: text(),
        category: text(),
        details: text(),
        severity: Severity { raw: text(), level: "high", priority: 80, recognised: true },
        start_time_ms: 1_600_689_944_000,
        end_time_ms: 1_600_689_944_001,
        script: Script { raw: text(), url: text(), host: text() },
        host_domain: HostDomain { raw: text(), name: text() },
        deep_link: text(),
        is_test: true,
        slack: Slack {
            app: "main".to_owned(),
            team: text(),
            channel: "C0123456789".to_owned(),
            channel_first: "C0123456789".to_owned(),
            ts: "1600689944.000500".to_owned(),
            event_id: text(),
            source: "push",
            bot_id: text(),
        },
        parse_problems: Vec::new(),
        attachment: attachment.unwrap_or_else(|_not_json| RawValue::NULL.to_owned()),
    }
}
