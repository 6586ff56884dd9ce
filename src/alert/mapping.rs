//! Mapping of an incident to the alert that destinations and the API see. Pure: the same stored
//! message always gives the same alert, and a better mapping also corrects earlier alerts.

use serde_json::value::RawValue;

use crate::{
    alert::{Alert, HostDomain, SCHEMA, Script, Severity, Slack, priority},
    code_defender::{
        incident::Incident,
        matcher::Matcher,
        risk_level::Risk,
        verdict::{self, MOST_INCIDENTS},
    },
    ids::{AlertId, ChannelId, MessageTs, TsKey},
    slack::{self, message::Stored, mrkdwn},
};

/// Origin of an incident.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Identity of the alert.
    pub id: &'a AlertId,
    /// Time of the post.
    pub posted_at: MessageTs,
    /// One of `push`, `catch_up` and `backfill`.
    pub source: &'static str,
    /// Slack's `event_id`, or empty.
    pub event_id: &'a str,
    /// Slack's `team_id`, or empty.
    pub team: &'a str,
    /// Id of the bot that posted the message, or empty.
    pub bot_id: &'a str,
}

/// The stored message, or the attachment in it, cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored {0} is unreadable")]
pub struct Unreadable(&'static str);

/// Derives the alert of an attachment from the stored bytes that Slack sent. The `bot_id` of
/// `origin` is ignored, since the message has one.
///
/// An alert that stands for all incidents after the first [`MOST_INCIDENTS`], or that was found in
/// a new layout, has the whole message as its attachment.
///
/// # Errors
/// [`Unreadable`] if the bytes do not hold a message with such an attachment.
pub fn alert_of_stored(
    raw: &[u8],
    attachment: u32,
    origin: &Origin<'_>,
    matcher: &Matcher,
) -> Result<Alert, Unreadable> {
    let text = slack::readable(raw);
    let stored = Stored::parse(&text).map_err(|_unparsable| Unreadable("message"))?;
    let incident = matcher.incident_at(&stored, attachment).ok_or(Unreadable("attachment"))?;
    let own = stored.attachment(attachment).map(|(_, own)| own);
    let attachment = if let Some(own) = own
        && origin.id.ordinal != MOST_INCIDENTS
        && !incident.is_new_layout
    {
        own.to_owned()
    } else {
        // The message shows all the incidents that the alert stands for; and a new layout may hold
        // more than what was read.
        RawValue::from_string(text.to_string()).map_err(|_broken| Unreadable("message"))?
    };
    let origin = Origin { bot_id: &stored.bot_id, ..*origin };
    let mut alert = alert_from(incident, &origin, attachment);
    if !stored.channel.is_empty() {
        alert.slack.channel = ChannelId::new(&stored.channel).to_string();
    }
    Ok(alert)
}

/// Returns the alert of an incident. `attachment` is the JSON from which the incident was read, as
/// Slack sent it.
pub fn alert_from(incident: Incident, origin: &Origin<'_>, attachment: Box<RawValue>) -> Alert {
    let message = &origin.id.message;
    let start_time_ms = origin.posted_at.millis();
    let parse_problems = parse_problems(&incident, origin.id);
    Alert {
        schema: SCHEMA,
        id: origin.id.to_string(),
        ticket_id: ticket_id(origin.id),
        name: name(&incident.risk),
        vendor: "PerimeterX",
        product: "Code Defender",
        title: incident.title,
        category: incident.category,
        details: incident.details,
        severity: Severity {
            raw: incident.risk.raw,
            level: incident.risk.level.as_str(),
            priority: priority(incident.risk.level),
            recognised: incident.risk.recognised,
        },
        start_time_ms,
        // One more, as in the vendor's article: its connector asks for everything after the end
        // time.
        end_time_ms: start_time_ms.saturating_add(1),
        script: Script {
            host: incident.script.host(),
            raw: incident.script.raw,
            url: incident.script.url,
        },
        host_domain: HostDomain { raw: incident.host.raw, name: incident.host.name },
        deep_link: incident.deep_link,
        is_test: incident.is_test,
        slack: Slack {
            app: message.app.to_string(),
            team: origin.team.to_owned(),
            channel: message.channel.to_string(),
            channel_first: message.channel.to_string(),
            ts: message.ts.to_string(),
            event_id: origin.event_id.to_owned(),
            source: origin.source,
            bot_id: origin.bot_id.to_owned(),
        },
        parse_problems,
        attachment,
    }
}

/// Returns the microseconds of the `ts`, like the published connector. A message without a readable
/// `ts` gets its digest, so that two such messages of one second stay apart in the SOAR.
fn ticket_id(id: &AlertId) -> String {
    let message = match id.message.ts {
        TsKey::Ts(ts) => ts.micros().to_string(),
        digest @ TsKey::Digest(_) => digest.to_string(),
    };
    if id.ordinal == 0 { message } else { format!("{message}-{}", id.ordinal) }
}

fn name(risk: &Risk) -> String {
    let level = if risk.recognised {
        risk.level.title()
    } else if risk.is_missing() {
        "Unknown"
    } else {
        mrkdwn::trim(&risk.raw)
    };
    format!("Code Defender {level} Alert")
}

fn parse_problems(incident: &Incident, id: &AlertId) -> Vec<&'static str> {
    verdict::parse_problems(incident, id.ordinal, id.message.ts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        code_defender::{
            matcher::{Matcher, Watch},
            verdict::{FoundIncident, Verdict},
        },
        ids::AppName,
        slack::{
            self,
            envelope::{self, Envelope, Event},
        },
    };

    macro_rules! payload {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/slack/", $name))
        };
    }

    /// The whole pure path, from the body to the alerts.
    fn alerts(body: &[u8]) -> Vec<Alert> {
        let text = slack::readable(body);
        let Ok(Envelope::Event(callback)) = envelope::parse(&text) else { panic!("no event") };
        let Event::Message(posted) = &callback.event else { panic!("no message") };
        let matcher = Matcher::default();
        let Verdict::Incidents(found) = matcher.judge(posted, callback.raw, &Watch::default())
        else {
            panic!("no incident")
        };
        let raw = envelope::inner_event(&text).unwrap();
        let key = posted.key(&AppName::new("main").unwrap(), raw.as_bytes());
        let stored = Stored::parse(raw).unwrap();
        let alert = |found: FoundIncident| {
            let again = matcher.incident_at(&stored, found.attachment).unwrap();
            assert_eq!(again, found.incident, "what is stored gives the same incident");
            let origin = Origin {
                id: &AlertId { message: key.clone(), ordinal: found.ordinal },
                posted_at: posted.posted_at(callback.event_time),
                source: "push",
                event_id: &callback.event_id,
                team: &callback.team_id,
                bot_id: "",
            };
            alert_of_stored(raw.as_bytes(), found.attachment, &origin, &matcher).unwrap()
        };
        found.into_iter().map(alert).collect()
    }

    /// An event with these attachments and this `ts`, both JSON.
    fn body(ts: &str, attachments: &str) -> String {
        format!(
            r#"{{"type":"event_callback","event_time":1600689944,"event":{{"type":"message",
            "channel":"C1","bot_id":"B1","ts":{ts},"attachments":[{attachments}]}}}}"#
        )
    }

    fn titled(rest: &str) -> String {
        format!(r#"{{"title":"Code Defender has detected a new incident"{rest}}}"#)
    }

    #[test]
    fn the_articles_sample_gives_the_documented_alert() {
        let sample = payload!("article_sample.json");
        let alerts = alerts(sample.as_bytes());
        assert_eq!(alerts.len(), 1);
        let link =
            "https://console.perimeterx.com/codeDefender/analyzer/script/0f1e2d3c?from=slack";
        let sent: serde_json::Value = serde_json::from_str(sample).unwrap();
        let documented = serde_json::json!({
            "schema": "slack-soar-relay/alert/v1",
            "id": "main:C0123456789:1600689944.000500:0",
            "ticket_id": "1600689944000500",
            "name": "Code Defender High Alert",
            "vendor": "PerimeterX",
            "product": "Code Defender",
            "title": "Code Defender has detected a new incident",
            "category": "Test from PerimeterX",
            "details": "Test from PerimeterX \n more details",
            "severity": {"raw": "High", "level": "high", "priority": 80, "recognised": true},
            "start_time_ms": 1_600_689_944_000_i64,
            "end_time_ms": 1_600_689_944_001_i64,
            "script": {
                "raw": "`www.somedomain.com/scripts/script.js`",
                "url": "www.somedomain.com/scripts/script.js",
                "host": "www.somedomain.com",
            },
            "host_domain": {"raw": "<http://example.com|example.com>", "name": "example.com"},
            "deep_link": link,
            "is_test": true,
            "slack": {
                "app": "main", "team": "T0RELAYTEAM", "channel": "C0123456789",
                "channel_first": "C0123456789",
                "ts": "1600689944.000500", "event_id": "Ev0RELAY0001", "source": "push",
                "bot_id": "B01BSD0CHSL",
            },
            "parse_problems": [],
            "attachment": sent["event"]["attachments"][0],
        });
        assert_eq!(serde_json::to_value(&alerts[0]).unwrap(), documented);
    }

    #[test]
    fn ticket_ids_of_one_message_differ_from_the_second_on() {
        let attachments = [titled(""), titled(""), titled("")].join(",");
        let alerts = alerts(body(r#""1600689944.000500""#, &attachments).as_bytes());
        let ids: Vec<_> = alerts.iter().map(|alert| (&*alert.id, &*alert.ticket_id)).collect();
        assert_eq!(
            ids,
            [
                ("main:C1:1600689944.000500:0", "1600689944000500"),
                ("main:C1:1600689944.000500:1", "1600689944000500-1"),
                ("main:C1:1600689944.000500:2", "1600689944000500-2"),
            ]
        );
    }

    #[test]
    fn of_more_than_a_hundred_incidents_the_rest_are_one_alert_with_the_whole_message() {
        let of_level = |level: &str, script: usize| {
            titled(&format!(
                r#","fields":[{{"title":"Risk Level","value":"{level}"}},
                {{"title":"Script","value":"cdn.example/{script}.js"}}]"#
            ))
        };
        let mut attachments: Vec<_> = (0..103).map(|script| of_level("Low", script)).collect();
        attachments[101] = of_level("Critical", 101);
        let posted = body(r#""1600689944.000500""#, &attachments.join(","));
        let found = alerts(posted.as_bytes());
        assert_eq!(found.len(), 101);
        assert!(found[..100].iter().all(|alert| !alert.parse_problems.contains(&"too_many")));
        let rest = &found[100];
        assert_eq!(rest.id, "main:C1:1600689944.000500:100");
        assert_eq!(rest.ticket_id, "1600689944000500-100");
        assert_eq!(rest.parse_problems[0], "too_many");
        assert_eq!(rest.attachment.get(), envelope::inner_event(&posted).unwrap());
        assert_eq!((&*rest.script.url, rest.severity.level), ("cdn.example/101.js", "critical"));
        let exactly = body(r#""1600689944.000500""#, &attachments[..100].join(","));
        assert_eq!(alerts(exactly.as_bytes()).len(), 100);
    }

    #[test]
    fn messages_ten_microseconds_apart_have_tickets_of_their_own() {
        let ticket = |ts: &str| alerts(body(ts, &titled("")).as_bytes()).remove(0).ticket_id;
        assert_ne!(ticket(r#""1600689944.000501""#), ticket(r#""1600689944.000504""#));
    }

    #[test]
    fn a_message_without_a_readable_ts_is_an_alert_all_the_same() {
        for ts in [r#""abc""#, "null", "{}", r#""""#] {
            let attachments = [titled(""), titled("")].join(",");
            let alerts = alerts(body(ts, &attachments).as_bytes());
            let digest = alerts[0].slack.ts.clone();
            assert!(digest.starts_with("ts-") && digest.len() == 19, "{digest}");
            assert_eq!(alerts[0].id, format!("main:C1:{digest}:0"));
            assert_eq!(alerts[0].ticket_id, digest);
            assert_eq!(alerts[1].ticket_id, format!("{digest}-1"));
            assert_eq!(alerts[0].start_time_ms, 1_600_689_944_000);
            assert_eq!(alerts[0].parse_problems[0], "ts");
        }
    }

    #[test]
    fn the_name_carries_the_level_as_well_as_it_is_known() {
        for (value, name, priority) in [
            ("\"informational\"", "Code Defender Informative Alert", -1),
            ("\"LOW\"", "Code Defender Low Alert", 40),
            ("\"moderate\"", "Code Defender Medium Alert", 60),
            ("\"High\"", "Code Defender High Alert", 80),
            ("\" critical \"", "Code Defender Critical Alert", 100),
            ("\" Severe \"", "Code Defender Severe Alert", 80),
            ("7", "Code Defender 7 Alert", 80),
            ("null", "Code Defender Unknown Alert", 80),
        ] {
            let fields = format!(r#","fields":[{{"title":"Risk Level","value":{value}}}]"#);
            let alert = alerts(body("\"1.0\"", &titled(&fields)).as_bytes()).remove(0);
            assert_eq!((&*alert.name, alert.severity.priority), (name, priority), "{value}");
        }
    }

    #[test]
    fn what_is_absent_is_empty_and_never_null() {
        let alert = alerts(body("\"1.0\"", &titled("")).as_bytes()).remove(0);
        let json = serde_json::to_value(&alert).unwrap();
        for path in [
            "/category",
            "/details",
            "/severity/raw",
            "/script/raw",
            "/script/url",
            "/script/host",
            "/host_domain/raw",
            "/host_domain/name",
            "/deep_link",
            "/slack/team",
        ] {
            assert_eq!(json.pointer(path).and_then(|value| value.as_str()), Some(""), "{path}");
        }
        assert!(!json.to_string().contains("null"));
    }

    #[test]
    fn an_edit_is_the_same_alert_as_the_message() {
        let alert = alerts(payload!("edit_event.json").as_bytes()).remove(0);
        assert_eq!(alert.id, "main:C0123456789:1600689944.000500:0");
        assert_eq!(alert.start_time_ms, 1_600_689_944_000);
        assert_eq!(alert.slack.bot_id, "B0RELAYBOT1");
    }

    #[test]
    fn the_attachment_is_valid_json_after_repair() {
        let broken = br#","text":"\ud83d \u0000 caf"#.to_vec();
        let mut bytes = body("\"1.0\"", &titled("@")).into_bytes();
        let at = bytes.iter().position(|byte| *byte == b'@').unwrap();
        bytes.splice(at..=at, [&broken[..], b"\xe9\""].concat());
        let alert = alerts(&bytes).remove(0);
        let json: serde_json::Value = serde_json::to_value(&alert).unwrap();
        assert_eq!(json["attachment"]["text"], "\u{fffd} \0 caf\u{fffd}");
    }

    proptest! {
        #[test]
        fn whatever_the_texts_are_the_alert_is_json_and_complete(
            texts in prop::collection::vec(any::<String>(), 5), ts in 0_i64..99_999_999_999_999_999
        ) {
            let ts = MessageTs::from_micros(ts);
            let attachment = serde_json::json!({
                "title": "Code Defender has detected a new incident",
                "text": texts[0],
                "fields": [
                    {"title": "Script", "value": texts[1]},
                    {"title": "Risk Level", "value": texts[2]},
                    {"title": "Host Domain", "value": texts[3]},
                ],
                "actions": [{"text": "View in Console", "url": texts[4]}],
            });
            let posted = body(&format!("\"{ts}\""), &attachment.to_string());
            let alert = alerts(posted.as_bytes()).remove(0);
            let json: serde_json::Value =
                serde_json::from_str(&serde_json::to_string(&alert).unwrap()).unwrap();
            prop_assert_eq!(&json["script"]["raw"], texts[1].as_str());
            prop_assert_eq!(&json["attachment"], &attachment);
            prop_assert_eq!(json["ticket_id"].as_str().unwrap(), ts.micros().to_string());
            let link = json["deep_link"].as_str().unwrap();
            prop_assert!(link.is_empty() || link.to_lowercase().starts_with("http"));
        }
    }
}
