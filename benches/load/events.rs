//! Signed events, each unlike every other.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub(crate) const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// Kind of event that is posted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Authentic, and ignored.
    Chatter,
    /// Stored before the answer.
    Incident,
    /// Nine of the first, then one of the second.
    Mixed,
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A whole HTTP request, and the alert id of the incident in it.
pub(crate) fn request(kind: Kind) -> (Vec<u8>, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let ts = format!("{}.{:06}", now - 1_000 + number / 1_000_000, number % 1_000_000);
    let filler = "x".repeat(600);
    let is_incident = match kind {
        Kind::Chatter => false,
        Kind::Incident => true,
        Kind::Mixed => number.is_multiple_of(10),
    };
    let inner = if is_incident {
        format!(
            r#""subtype":"bot_message","text":"","bot_id":"B0RELAYBOT1","attachments":[{{"text":"PII Sniffing\nreads the card number","title":"Code Defender has detected a new incident","id":1,"color":"FF4A55","footer":"{filler}","fields":[{{"title":"Script","value":"`<https:\/\/cdn.example\/pay.js>`","short":false}},{{"title":"Risk Level","value":"High","short":true}},{{"title":"Host Domain","value":"<http:\/\/shop.example|shop.example>","short":true}}],"actions":[{{"id":"1","text":"View in Console","type":"button","style":"primary","url":"https:\/\/console.perimeterx.com\/codeDefender\/analyzer\/script\/0f1e2d?from=slack"}}]}}]"#
        )
    } else {
        format!(r#""user":"U0PERSON001","text":"did anybody look at this? {filler}","blocks":[]"#)
    };
    let body = format!(
        r#"{{"token":"none","team_id":"T0RELAYTEAM","api_app_id":"A0RELAYAPP1","event":{{"type":"message","ts":"{ts}","event_ts":"{ts}","channel":"C0123456789","channel_type":"channel",{inner}}},"type":"event_callback","event_id":"Ev{number}","event_time":{now},"authorizations":[{{"enterprise_id":null,"team_id":"T0RELAYTEAM","user_id":"U0RELAYBOT1","is_bot":true,"is_enterprise_install":false}}],"is_ext_shared_channel":false,"event_context":"4-eyJldCI6Im1lc3NhZ2UifQ"}}"#
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("v0:{now}:{body}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let request = format!(
        "POST /slack/events HTTP/1.1\r\nHost: relay\r\nUser-Agent: Slackbot 1.0\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nX-Slack-Request-Timestamp: {now}\r\n\
         X-Slack-Signature: v0={signature}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    (request.into_bytes(), format!("main:C0123456789:{ts}:0"))
}
