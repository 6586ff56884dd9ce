//! Code Defender incidents in the form that Slack sends, for `demo`, `render` and `send-test`.

use serde_json::{Value, json};

use crate::{
    code_defender::{
        risk_level::RiskLevel,
        settings::{DEFAULT_TITLE, MatchSettings, TitlePattern},
    },
    config::AppConfig,
    ids::MessageTs,
    intake::posters::TEST_BOT,
};

const TEAM: &str = "T0123456789";

/// Returns an event with the sample incident, posted at `ts`.
pub(super) fn event(ts: MessageTs) -> Value {
    event_of(ts, TEAM, &message(ts))
}

fn event_of(ts: MessageTs, team: &str, message: &Value) -> Value {
    json!({
        "type": "event_callback",
        "team_id": team,
        "api_app_id": "A0123456789",
        "event_id": format!("Ev{}", ts.micros()),
        "event_time": ts.micros() / 1_000_000,
        "event": message,
    })
}

/// Returns the inner message of [`event`].
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
            "title": DEFAULT_TITLE,
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

const TEST_TEXT: &str = "Test from slack-soar-relay
Sent by an operator to test the path to \
                         the SOAR. No script was found, and nothing needs to be done: close this.";

/// An incident that is recognised by the configured matching, and that a person recognises as a
/// test.
#[derive(Clone, Copy, Debug)]
pub(super) struct TestIncident<'a> {
    pub(super) app: Option<&'a AppConfig>,
    pub(super) matching: &'a MatchSettings,
    pub(super) severity: RiskLevel,
}

impl TestIncident<'_> {
    /// Returns an event with the incident, posted at `ts`.
    pub(super) fn event(&self, ts: MessageTs) -> Value {
        let team = self.app.and_then(|app| app.team.as_deref());
        event_of(ts, team.unwrap_or(TEAM), &self.message(ts))
    }

    /// Returns the inner message of the event.
    pub(super) fn message(&self, ts: MessageTs) -> Value {
        let fields = &self.matching.fields;
        let field = |titles: &[String], value: &str| {
            let title = titles.first().map_or("", String::as_str);
            json!({"title": title, "value": value})
        };
        // An entry of `bots` is the id of a bot or of an app, so the test carries it as both.
        let bot = self.app.and_then(|app| app.bots.first()).map_or(TEST_BOT, String::as_str);
        json!({
            "type": "message",
            "subtype": "bot_message",
            "text": "",
            "ts": ts.to_string(),
            "event_ts": ts.to_string(),
            "channel": channel(self.app),
            "channel_type": "channel",
            "bot_id": bot,
            "app_id": bot,
            "attachments": [{
                "title": self.title(),
                "text": TEST_TEXT,
                "fields": [
                    field(&fields.script, "`https://test.invalid/slack-soar-relay-test.js`"),
                    field(&fields.risk, self.severity.title()),
                    field(&fields.host, "<https://test.invalid|test.invalid>"),
                ],
                "actions": [{
                    "type": "button",
                    "text": "View in Console",
                    "url": "https://console.perimeterx.com/",
                }],
            }],
        })
    }

    /// Returns a title that matches: the first configured one that is a text, or else the default.
    fn title(&self) -> &str {
        self.matching.titles.iter().find_map(TitlePattern::as_text).unwrap_or(DEFAULT_TITLE)
    }
}

/// Returns the channel of a test: the first configured one, or else a placeholder.
pub(super) fn channel(app: Option<&AppConfig>) -> &str {
    let first = app.and_then(|app| app.channels.first());
    first.map_or("C0000000000", crate::ids::ChannelId::as_str)
}

/// Time at which the sample of the documentation was posted.
pub(super) const DOCUMENTED: MessageTs = MessageTs::from_micros(1_600_689_944_000_500);
