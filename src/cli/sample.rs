//! A Code Defender incident as Slack would send it, for `demo` and `render`.

use serde_json::{Value, json};

use crate::ids::MessageTs;

/// An event that holds the sample incident, posted at `ts`.
pub(super) fn event(ts: MessageTs) -> Value {
    json!({
        "type": "event_callback",
        "team_id": "T0123456789",
        "api_app_id": "A0123456789",
        "event_id": format!("Ev{}", ts.micros()),
        "event_time": ts.micros() / 1_000_000,
        "event": message(ts),
    })
}

/// The inner message.
pub(super) fn message(ts: MessageTs) -> Value {
    json!({
        "type": "message",
        "subtype": "bot_message",
        "text": "",
        "ts": ts.to_string(),
        "event_ts": ts.to_string(),
        "channel": "C0123456789",
        "channel_type": "channel",
        "bot_id": "B0123456789",
        "attachments": [{
            "id": 1,
            "title": "Code Defender has detected a new incident",
            "text": "Test from PerimeterX \n more details",
            "color": "FF4A55",
            "fields": [
                {
                    "title": "Script",
                    "value": "`www.somedomain.com/scripts/script.js`",
                    "short": false,
                },
                {"title": "Risk Level", "value": "High", "short": true},
                {"title": "Host Domain", "value": "<http://example.com|example.com>", "short": true},
            ],
            "actions": [{
                "id": "1",
                "type": "button",
                "style": "primary",
                "text": "View in Console",
                "url": "https://console.perimeterx.com/codeDefender/analyzer/script/0f1e2d?from=slack",
            }],
        }],
    })
}

/// When the sample of the documentation was posted.
pub(super) const DOCUMENTED: MessageTs = MessageTs::from_micros(1_600_689_944_000_500);
