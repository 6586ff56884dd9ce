//! Slack's side: events, and their signatures made independently of the relay's own code.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use slack_soar_relay::clock::Timestamp;

pub(crate) const TITLE: &str = "Code Defender has detected a new incident";

/// The headers of a signed request.
pub(crate) fn signed(secret: &str, at: Timestamp, body: &[u8]) -> Vec<(String, String)> {
    let timestamp = at.seconds().to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("v0:{timestamp}:").as_bytes());
    mac.update(body);
    let signature = format!("v0={}", hex::encode(mac.finalize().into_bytes()));
    vec![
        ("X-Slack-Request-Timestamp".to_owned(), timestamp),
        ("X-Slack-Signature".to_owned(), signature),
        ("Content-Type".to_owned(), "application/json".to_owned()),
        ("User-Agent".to_owned(), "Slackbot 1.0 (+https://api.slack.com/robots)".to_owned()),
    ]
}

/// An attachment with an incident.
pub(crate) fn attachment() -> Value {
    json!({
        "title": TITLE,
        "text": "PII Sniffing\nreads the card number",
        "id": 1,
        "fields": [
            {"title": "Script", "value": "`<https://cdn.example/pay.js>`", "short": false},
            {"title": "Risk Level", "value": "High", "short": true},
            {"title": "Host Domain", "value": "<http://shop.example|shop.example>", "short": true},
        ],
        "actions": [{
            "id": "1", "type": "button", "text": "View in Console",
            "url": "https://console.perimeterx.com/codeDefender/analyzer/script/1?from=slack",
        }],
    })
}

/// The inner event of an incident posted at second `n` of the test's era.
pub(crate) fn message(n: u32) -> Value {
    let ts = format!("1600689{:03}.{:06}", 100 + n / 1000, n % 1000 + 1);
    json!({
        "type": "message", "subtype": "bot_message", "text": "", "ts": ts, "event_ts": ts,
        "channel": "C0123456789", "channel_type": "channel", "bot_id": "B0RELAYBOT1",
        "attachments": [attachment()],
    })
}

/// The event that carries an inner event.
pub(crate) fn event(inner: &Value) -> Value {
    json!({
        "type": "event_callback", "token": "old", "team_id": "T0RELAYTEAM",
        "api_app_id": "A0RELAYAPP1", "event_id": "Ev0RELAY0001", "event_time": 1_600_689_944,
        "event": inner,
    })
}

/// The `n`th incident.
pub(crate) fn incident(n: u32) -> Value {
    event(&message(n))
}

/// The `n`th incident with a text of that many bytes.
pub(crate) fn large_incident(n: u32, bytes: usize) -> Value {
    let mut message = message(n);
    message["attachments"][0]["text"] = "x".repeat(bytes).into();
    event(&message)
}

/// The alert id of the `n`th incident.
pub(crate) fn id(n: u32) -> String {
    format!("main:C0123456789:{}:0", message(n)["ts"].as_str().unwrap())
}
