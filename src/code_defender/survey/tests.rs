//! Tests with messages of many layouts. Each incident is also read again from the stored message.

use serde_json::{Value, json};

use crate::code_defender::{
    incident::{Incident, IncidentProblem},
    matcher::{Matcher, Watch},
    settings::{MatchSettings, TitlePattern},
    verdict::{Doubt, Verdict, Vouched, WHOLE_MESSAGE},
};
use crate::slack::message::{self, Stored};

const TITLE: &str = "Code Defender has detected a new incident";
const CONSOLE: &str = "https://console.humansecurity.com/codeDefender/analyzer/script/9?from=slack";

fn post(rest: Value) -> Value {
    let mut message = json!({
        "type": "message", "channel": "C1", "ts": "1795939000.000100", "bot_id": "B1", "text": "",
    });
    merge(&mut message, rest);
    message
}

fn merge(message: &mut Value, rest: Value) {
    let Value::Object(rest) = rest else { panic!("an object") };
    for (key, value) in rest {
        message[key] = value;
    }
}

fn judge(message: &Value) -> Verdict {
    judge_with(&Matcher::default(), message, &Watch::default())
}

fn judge_with(matcher: &Matcher, message: &Value, watch: &Watch) -> Verdict {
    let raw = message.to_string();
    let verdict = matcher.judge(&message::parse(&raw).unwrap(), &raw, watch);
    let found = match &verdict {
        Verdict::Incidents(found) | Verdict::NewLayout(found, _) | Verdict::NearMiss(found, _) => {
            found.as_slice()
        }
        Verdict::Refused(_) | Verdict::Ignored(_) => &[],
    };
    let stored = Stored::parse(&raw).unwrap();
    for found in found {
        let again = matcher.incident_at(&stored, found.attachment).unwrap();
        assert_eq!(again, found.incident, "the stored message gives the same incident: {message}");
    }
    verdict
}

fn incidents_in_new_layout(message: &Value) -> Vec<Incident> {
    let verdict = judge(message);
    let Verdict::NewLayout(found, Vouched::ByNobody) = verdict else {
        panic!("{verdict:?}\n{message:#}")
    };
    found.into_iter().map(|found| found.incident).collect()
}

fn only_incident(message: &Value) -> Incident {
    let mut all = incidents_in_new_layout(message);
    assert_eq!(all.len(), 1, "{message:#}");
    all.remove(0)
}

fn doubt(message: &Value) -> Doubt {
    let verdict = judge(message);
    let Verdict::NearMiss(_, doubt) = verdict else { panic!("{verdict:?}\n{message:#}") };
    doubt
}

fn reason(message: &Value) -> &'static str {
    match judge(message) {
        Verdict::Refused(reason) => reason.label(),
        Verdict::Ignored(reason) => {
            assert!(!["no_bot", "unfurl"].contains(&reason.label()), "{message:#}");
            reason.label()
        }
        verdict @ (Verdict::Incidents(_) | Verdict::NewLayout(..) | Verdict::NearMiss(..)) => {
            panic!("{verdict:?}\n{message:#}")
        }
    }
}

fn header(text: &str) -> Value {
    json!({"type": "header", "text": {"type": "plain_text", "text": text, "emoji": true}})
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text}})
}

fn button() -> Value {
    json!({"type": "actions", "elements": [
        {"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "Ignore"}},
        {"type": "button", "text": {"type": "plain_text", "text": "View in Console"},
         "url": CONSOLE, "value": "open"},
    ]})
}

fn cells() -> Value {
    let cell = |text: &str| json!({"type": "mrkdwn", "text": text});
    json!({"type": "section", "fields": [
        cell("*Script*\n`<https://cdn.evil.example/pay.js>`"),
        cell("*Risk Level*\nCritical"),
        cell("*Host Domain*\n<http://shop.example|shop.example>"),
    ]})
}

fn blocks() -> Value {
    json!([header(TITLE), section("PII Harvesting\nmore"), cells(), button()])
}

fn assert_complete(incident: &Incident) {
    assert_eq!(incident.problems(), [IncidentProblem::Layout], "{incident:#?}");
    assert_eq!(incident.title, TITLE);
    assert_eq!(incident.script.url, "https://cdn.evil.example/pay.js");
    assert_eq!(incident.risk.level.as_str(), "critical");
    assert_eq!(incident.host.name, "shop.example");
    assert_eq!(incident.deep_link, CONSOLE);
    assert_eq!(incident.category, "PII Harvesting");
    assert_eq!(incident.details, "PII Harvesting\nmore");
}

#[test]
fn an_incident_in_blocks_is_read_wherever_the_blocks_are() {
    for message in [
        post(json!({"blocks": blocks()})),
        post(json!({"text": TITLE, "attachments": [], "blocks": blocks()})),
        post(json!({"attachments": [{"id": 1, "color": "#f00", "blocks": blocks()}]})),
        post(json!({"text": TITLE, "attachments": [
            {"blocks": [section("PII Harvesting\nmore"), cells(), button()]}]})),
        json!({"type": "message", "subtype": "message_changed", "channel": "C1", "hidden": true,
            "ts": "1795939001.000100", "previous_message": {"text": "other"},
            "message": post(json!({"blocks": blocks()}))}),
    ] {
        assert_complete(&only_incident(&message));
    }
}

#[test]
fn incidents_in_blocks_of_two_attachments_are_told_apart() {
    let second = json!([header(TITLE), section("*Script:* b.example/2.js"), button()]);
    let message = post(json!({"attachments": [
        {"text": "Digest"}, {"blocks": blocks()}, {"blocks": second}]}));
    let Verdict::NewLayout(found, _) = judge(&message) else { panic!("{message}") };
    let places: Vec<_> = found.iter().map(|one| (one.ordinal, one.attachment)).collect();
    assert_eq!(places, [(0, 1), (1, 2)]);
    assert_complete(&found[0].incident);
    assert_eq!(found[1].incident.script.url, "b.example/2.js");
}

#[test]
fn rich_text_is_read_as_the_text_that_it_displays() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let bold = |text: &str| json!({"type": "text", "text": text, "style": {"bold": true}});
    let link = |url: &str| json!({"type": "link", "url": url});
    let line = |elements: Value| json!({"type": "rich_text_section", "elements": elements});
    let message = post(json!({"blocks": [{"type": "rich_text", "elements": [
        line(json!([{"type": "emoji", "name": "rotating_light"}, text(" "), bold("Code Defender"),
            text(" has detected a "), bold("new incident")])),
        line(json!([text("PII Harvesting\nmore")])),
        {"type": "rich_text_list", "style": "bullet", "elements": [
            line(json!([bold("Script:"), text(" "), link("https://cdn.evil.example/pay.js")])),
            line(json!([bold("Risk Level"), text(": Critical")])),
            line(json!([bold("Host Domain:"), text(" shop.example")])),
        ]},
        line(json!([{"type": "link", "url": CONSOLE, "text": "View in Console"}])),
    ]}]}));
    assert_complete(&only_incident(&message));
}

#[test]
fn a_title_is_found_in_every_part_of_a_post_and_within_other_text() {
    let link = json!([{"type": "button", "text": "Open", "url": CONSOLE}]);
    let shout = TITLE.to_uppercase();
    for attachment in [
        json!({"fallback": TITLE}),
        json!({"pretext": format!(":rotating_light: *{TITLE}* :rotating_light:")}),
        json!({"author_name": TITLE, "author_link": "https://www.humansecurity.com"}),
        json!({"footer": format!("_{TITLE}_ - HUMAN")}),
        json!({"text": format!("{shout}!\nPII")}),
        json!({"title": format!("[prod] {TITLE}")}),
        json!({"text": format!("A <{CONSOLE}|Code Defender has detected> a new incident")}),
        json!({"fields": [{"title": "Event", "value": TITLE}]}),
    ] {
        let mut message = post(json!({"attachments": [attachment]}));
        message["attachments"][0]["actions"] = link.clone();
        let incident = only_incident(&message);
        assert_eq!(incident.problems()[0], IncidentProblem::Layout);
        assert_eq!(incident.title.to_lowercase(), TITLE.to_lowercase(), "{message:#}");
        assert_eq!(incident.deep_link, CONSOLE);
    }
    for text in [
        format!("{TITLE}: PII Harvesting <{CONSOLE}|View in Console>"),
        format!("{TITLE}\n{CONSOLE}"),
        format!("{TITLE}\n*Script:* `cdn.example/a.js`\n*Severity:* *Low*"),
    ] {
        let message = post(json!({"text": text}));
        assert_eq!(only_incident(&message).title, TITLE, "{message:#}");
    }
}

#[test]
fn a_title_in_a_fallback_makes_an_alert_despite_missing_fields() {
    let message = post(json!({"attachments": [{"fallback": TITLE, "text": "PII Harvesting",
        "actions": [{"type": "button", "text": "Open", "url": CONSOLE}]}]}));
    let incident = only_incident(&message);
    let problems: Vec<_> = incident.problems().iter().map(|problem| problem.label()).collect();
    assert_eq!(problems, ["layout", "severity_missing", "script_missing", "host_missing"]);
    assert_eq!((&*incident.category, &*incident.deep_link), ("PII Harvesting", CONSOLE));
}

#[test]
fn fields_in_running_text_are_read_through_their_markup() {
    for (line, script) in [
        ("*Script:* `cdn.example/a.js`", "cdn.example/a.js"),
        ("*Script*: <https://cdn.example/a.js|a.js>", "https://cdn.example/a.js"),
        ("Script: cdn.example/a.js", "cdn.example/a.js"),
        ("• *Script URL:* cdn.example/a.js", "cdn.example/a.js"),
        ("*Script*\ncdn.example/a.js", "cdn.example/a.js"),
        ("*Script:*\n`cdn.example/a.js`", "cdn.example/a.js"),
    ] {
        let text = format!("{line}\n*Risk Level:* *Low*");
        let incident = only_incident(&post(json!({"blocks": [header(TITLE), section(&text)]})));
        assert_eq!(
            (&*incident.script.url, incident.risk.level.as_str()),
            (script, "low"),
            "{line}"
        );
    }
}

#[test]
fn the_deep_link_of_an_unknown_layout_is_a_button_or_leads_to_the_console() {
    let message = post(json!({"blocks": [header(TITLE),
        section("*Script:* <https://cdn.evil.example/a.js|a.js>\n*Severity:* High"),
        {"type": "context", "elements": [
            {"type": "image", "image_url": "https://img.example/i.png", "alt_text": "logo"}]}]}));
    assert_eq!(
        only_incident(&message).deep_link,
        "",
        "the script's own address is not a deep link"
    );
}

#[test]
fn a_post_that_only_mentions_an_incident_is_a_near_miss() {
    let talk = format!("New case 7: {TITLE} <{CONSOLE}|View in Console>");
    let in_thread = json!({"text": talk, "thread_ts": "1795938000.000100"});
    for (message, expected) in [
        (post(in_thread.clone()), Doubt::Reply),
        (
            {
                let mut message = post(in_thread);
                message["subtype"] = "thread_broadcast".into();
                message["root"] = json!({"text": "root"});
                message
            },
            Doubt::Reply,
        ),
        (post(json!({"text": TITLE})), Doubt::Evidence),
        (post(json!({"text": format!("&gt; {TITLE}\nSee {CONSOLE}")})), Doubt::Quoted),
        (
            post(json!({"blocks": [{"type": "rich_text", "elements": [
                {"type": "rich_text_quote", "elements": [{"type": "text", "text": TITLE}]}]},
                section(CONSOLE)]})),
            Doubt::Quoted,
        ),
        (
            post(json!({"attachments": [{"is_msg_unfurl": true, "is_share": true, "text": "x",
                "message_blocks": [], "fallback": TITLE, "title_link": CONSOLE}]})),
            Doubt::Quoted,
        ),
        (post(json!({"text": format!("Case 7 closed: {CONSOLE}")})), Doubt::Title),
        (post(json!({"blocks": [header("HUMAN: script alert"), cells()]})), Doubt::Title),
        (post(json!({"attachments": [{"text": "x", "title_link": CONSOLE}]})), Doubt::Title),
    ] {
        assert_eq!(doubt(&message), expected, "{message:#}");
    }
}

#[test]
fn the_first_message_of_a_thread_is_not_a_reply() {
    for thread_ts in ["1795939000.000100", "1795939000.0001", " 1795939000.000100 "] {
        let message = post(json!({"blocks": blocks(), "thread_ts": thread_ts, "reply_count": 2}));
        assert_complete(&only_incident(&message));
    }
}

#[test]
fn a_message_by_a_person_is_never_an_alert() {
    let mut message = post(json!({"blocks": blocks(), "user": "U1"}));
    message.as_object_mut().unwrap().remove("bot_id");
    assert_eq!(reason(&message), "no_bot");
    message["blocks"] = json!([section(&format!("have a look: {CONSOLE}"))]);
    assert_eq!(reason(&message), "title");
}

#[test]
fn a_post_with_any_sign_of_a_bot_counts_as_posted_by_a_bot() {
    for sign in [
        json!({"bot_id": "B1"}),
        json!({"app_id": "A1"}),
        json!({"bot_profile": {"id": "B1"}}),
        json!({"bot_profile": {"app_id": "A1", "name": "vendor"}}),
        json!({"bot_profile": {"name": "vendor"}}),
        json!({"subtype": "bot_message", "username": "HUMAN"}),
    ] {
        let mut message = post(json!({"attachments": [{"title": TITLE}]}));
        message.as_object_mut().unwrap().remove("bot_id");
        merge(&mut message, sign);
        assert!(matches!(judge(&message), Verdict::Incidents(_)), "{message:#}");
        let edit = json!({"type": "message", "subtype": "message_changed", "channel": "C1",
            "ts": "1795939009.000100", "message": message});
        assert!(matches!(judge(&edit), Verdict::Incidents(_)), "{edit:#}");
    }
}

#[test]
fn a_bot_is_allowed_by_any_of_its_ids() {
    let message = post(json!({"app_id": "A1", "bot_profile": {"id": "B2", "app_id": "A2"},
        "attachments": [{"title": TITLE}]}));
    for (bot, is_allowed) in
        [("B1", true), ("A1", true), ("B2", true), ("A2", true), ("A3", false), ("", false)]
    {
        let watch = Watch { channels: vec![], bots: vec![bot.to_owned()] };
        let verdict = judge_with(&Matcher::default(), &message, &watch);
        assert_eq!(matches!(verdict, Verdict::Incidents(_)), is_allowed, "{bot}");
    }
    let vouched = post(json!({"blocks": blocks(), "bot_profile": {"app_id": "A2"}}));
    for (bot, expected) in [("A2", Some(Vouched::ByList)), ("A3", None)] {
        let watch = Watch { channels: vec![], bots: vec![bot.to_owned()] };
        match (judge_with(&Matcher::default(), &vouched, &watch), expected) {
            (Verdict::NewLayout(_, vouched), Some(expected)) => assert_eq!(vouched, expected),
            (Verdict::NearMiss(_, Doubt::Bot), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[test]
fn posts_of_any_subtype_are_taken_and_service_messages_are_not() {
    for subtype in
        ["file_share", "me_message", "reply_broadcast", "bot_message_v3", "x", "workflow_step"]
    {
        let message = post(json!({"subtype": subtype, "attachments": [{"title": TITLE}]}));
        assert!(matches!(judge(&message), Verdict::Incidents(_)), "{subtype}");
        let message = post(json!({"subtype": subtype, "blocks": blocks()}));
        assert_complete(&only_incident(&message));
    }
    for subtype in [
        "channel_topic",
        "channel_join",
        "group_purpose",
        "message_deleted",
        "message_replied",
        "tombstone",
        "pinned_item",
        "bot_add",
        "channel_convert_to_private",
        "reminder_add",
    ] {
        let message = post(json!({"subtype": subtype, "attachments": [{"title": TITLE}]}));
        assert_eq!(reason(&message), "subtype", "{subtype}");
    }
    let removed = json!({"type": "message", "subtype": "message_changed", "channel": "C1",
        "ts": "1.2", "message": post(json!({"subtype": "tombstone", "text": TITLE}))});
    assert_eq!(reason(&removed), "subtype");
}

#[test]
fn a_title_that_is_a_regular_expression_is_matched_against_each_line() {
    let titles = vec![TitlePattern::parse("/(?i)^client-side .* (incident|finding)$/").unwrap()];
    let matcher = Matcher::new(MatchSettings { titles, ..MatchSettings::default() });
    let text = format!("News\nClient-side defense: new finding\n{CONSOLE}");
    let message = post(json!({"blocks": [section(&text)]}));
    let Verdict::NewLayout(found, _) = judge_with(&matcher, &message, &Watch::default()) else {
        panic!("{message}")
    };
    assert_eq!(found[0].incident.title, "Client-side defense: new finding");
    assert_eq!(found[0].attachment, WHOLE_MESSAGE);
}

#[test]
fn json_escapes_do_not_hide_an_incident() {
    let raw = post(json!({"blocks": blocks()})).to_string();
    let raw = raw.replace("Code Defender", r"\u0043ode \u0044efender");
    let raw = raw.replace("console.humansecurity", r"console.\u0068umansecurity");
    let verdict = Matcher::default().judge(&message::parse(&raw).unwrap(), &raw, &Watch::default());
    assert!(matches!(verdict, Verdict::NewLayout(..)), "{verdict:?}");
}

#[test]
fn chatter_is_neither_an_incident_nor_a_near_miss() {
    for message in [
        post(json!({"text": "Code Defender is great"})),
        post(json!({"text": "new incident"})),
        post(json!({"text": "Script: build.sh finished"})),
        post(json!({"blocks": [header("Deploy"), section("*Domain*\nshop.example")]})),
        post(json!({"text": "see https://perimeterx.com.evil.example/x"})),
        post(json!({"attachments": [{"from_url": "https://a.example", "text": CONSOLE}]})),
    ] {
        assert_eq!(reason(&message), "title", "{message:#}");
    }
}

#[test]
fn a_very_deep_or_very_large_message_is_judged() {
    let deep = format!(
        r#"{{"type":"message","bot_id":"B1","text":"{TITLE}","blocks":{}{}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    assert!(
        Matcher::default()
            .judge(&message::parse(&deep).unwrap(), &deep, &Watch::default())
            .is_near_miss()
    );
    let many = format!(
        r#"{{"type":"message","bot_id":"B1","text":"{TITLE}","blocks":[{}{{}}]}}"#,
        r#"{"text":"x"},"#.repeat(200_000)
    );
    assert!(
        Matcher::default()
            .judge(&message::parse(&many).unwrap(), &many, &Watch::default())
            .is_near_miss()
    );
}

impl Verdict {
    fn is_near_miss(&self) -> bool {
        matches!(self, Self::NearMiss(..))
    }
}

#[test]
fn an_incident_in_the_rows_of_a_table_is_read() {
    let raw = |text: &str| json!({"type": "raw_text", "text": text});
    let rich = |element: Value| {
        json!({"type": "rich_text", "elements": [
            {"type": "rich_text_section", "elements": [element]},
        ]})
    };
    let script = json!({"type": "text", "text": "www.evil.example/a.js", "style": {"code": true}});
    let host = json!({"type": "link", "url": "http://shop.example", "text": "shop.example"});
    let table = json!({"type": "table", "rows": [
        [raw("Script"), rich(script)],
        [raw("Risk Level"), raw("Low")],
        [raw("Host Domain"), rich(host)],
        [raw("Seen"), null],
    ]});
    let header = json!({"type": "header", "text": {"type": "plain_text", "text": TITLE}});
    for message in [
        post(json!({"blocks": [header.clone(), table.clone()]})),
        post(json!({"attachments": [
            {"fallback": "[no preview available]", "blocks": [header.clone(), table]},
        ]})),
    ] {
        let incident = only_incident(&message);
        assert_eq!(incident.script.url, "www.evil.example/a.js");
        assert_eq!((incident.risk.recognised, &*incident.risk.raw), (true, "Low"));
        assert_eq!(incident.host.name, "shop.example");
    }
    let columns = json!({"type": "table", "rows": [
        [raw("Script"), raw("Risk Level")],
        [raw("www.evil.example/a.js"), raw("Low")],
    ]});
    let incident = only_incident(&post(json!({"blocks": [header, columns]})));
    assert_eq!((&*incident.script.url, &*incident.risk.raw), ("", ""), "a heading is not a value");
}
