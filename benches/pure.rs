//! Cost of one event before anything is stored: verify, read, parse, judge, map.
//!
//! `cargo bench --bench pure`. Both bodies have the size and the shape of what Slack sends: one
//! line, slashes escaped, many unused fields.

#![expect(
    clippy::expect_used,
    reason = "a benchmark of fixed bodies: a panic is the right answer to a wrong one"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use slack_soar_relay::{
    alert::{
        Alert,
        mapping::{Origin, alert_of_stored},
    },
    clock::Timestamp,
    code_defender::{
        matcher::{Matcher, Watch},
        verdict::{FoundIncident, Verdict},
    },
    ids::{AlertId, AppName, ChannelId},
    secret::Secret,
    slack::{
        envelope::{self, Callback, Envelope, Event},
        message::{self, Message},
        readable,
        signature::{self, Claim, Verifier},
    },
};

const SENT_AT: Timestamp = Timestamp::from_seconds(1_600_689_944);

/// One line, as Slack sends it.
fn compact(json: &str) -> String {
    json.lines().map(str::trim_start).collect()
}

/// A callback around an event.
fn body(event: &str) -> String {
    let envelope = r#"{"token":"not-a-real-token-0000000","team_id":"T0RELAYTEAM",
        "context_team_id":"T0RELAYTEAM","context_enterprise_id":null,"api_app_id":"A0RELAYAPP1",
        "event":EVENT,"type":"event_callback","event_id":"Ev0RELAY0001","event_time":1600689944,
        "authorizations":[{"enterprise_id":null,"team_id":"T0RELAYTEAM","user_id":"U0RELAYBOT1",
        "is_bot":true,"is_enterprise_install":false}],"is_ext_shared_channel":false,
        "event_context":"4-00000000000000000000000000000000000000000000000000000000000000000000
        00000000000000000000000000000000000000000000000000000000000000000000000"}"#;
    compact(&envelope.replace("EVENT", event))
}

/// 1.5 KB: an incident as a classic incoming webhook posts it.
fn incident() -> String {
    body(
        r#"{"type":"message","subtype":"bot_message","text":"","ts":"1600689944.000500",
        "bot_id":"B01BSD0CHSL","attachments":[{"text":"PII Sniffing \n A script that was not seen
         before reads the card number field of the payment form","id":1,"thumb_height":200,
        "title":"Code Defender has detected a new incident","thumb_width":200,"thumb_url":"",
        "color":"FF4A55","fields":[{"title":"Script","short":false,
        "value":"`<https:\/\/www.somedomain.com\/scripts\/script.js?v=1.2.3&amp;async=1>`"},
        {"title":"Risk Level","value":"High","short":true},{"title":"Host Domain",
        "value":"<http:\/\/example.com|example.com>","short":true}],"actions":[{"id":"1",
        "text":"View in Console","type":"button","style":"primary","url":"https:\/\/console.
        perimeterx.com\/codeDefender\/analyzer\/script\/5f0c1e2d3c4b5a69788796a5?from=slack"}],
        "fallback":"Code Defender has detected a new incident"}],"channel":"C0123456789",
        "event_ts":"1600689944.000500","channel_type":"channel"}"#,
    )
}

/// 1.4 KB: a person says something.
fn chatter() -> String {
    let said = r"has anybody looked at the payment page since the release on Tuesday? the new tag
        manager container loads three more scripts than the old one, and I can\u2019t tell who
        asked for them \ud83e\udd14 the list is in the ticket, sorted by host";
    let event = r#"{"type":"message","user":"U0PERSON001","ts":"1600689944.000500",
        "client_msg_id":"5f0c5f0c-0000-4000-8000-000000000001","text":"SAID","team":"T0RELAYTEAM",
        "blocks":[{"type":"rich_text","block_id":"Xk2","elements":[{"type":"rich_text_section",
        "elements":[{"type":"text","text":"SAID"}]}]}],"channel":"C0123456789",
        "event_ts":"1600689944.000500","channel_type":"channel"}"#;
    body(&event.replace("SAID", said))
}

/// The message, and the text of its event.
fn posted(text: &str) -> (Message<'_>, &str) {
    match envelope::parse(text) {
        Ok(Envelope::Event(Callback { event: Event::Message(message), raw, .. })) => (message, raw),
        _ => unreachable!("both bodies hold a message"),
    }
}

fn found(verdict: Verdict) -> FoundIncident {
    match verdict {
        Verdict::Incidents(mut found) => found.remove(0),
        Verdict::NewLayout(..)
        | Verdict::NearMiss(..)
        | Verdict::Refused(_)
        | Verdict::Ignored(_) => unreachable!("the sample has the known layout"),
    }
}

fn alert_of(matcher: &Matcher, app: &AppName, raw: &str) -> Alert {
    let stored = message::parse(raw).expect("parsed before");
    let id = AlertId { message: stored.key(app, raw.as_bytes()), ordinal: 0 };
    let origin = Origin {
        id: &id,
        posted_at: stored.posted_at(0),
        source: "push",
        event_id: "Ev0RELAY0001",
        team: "T0RELAYTEAM",
        bot_id: &stored.bot_id,
    };
    alert_of_stored(raw.as_bytes(), 0, &origin, matcher).expect("one attachment")
}

fn pure_path(criterion: &mut Criterion) {
    let (incident, chatter) = (incident(), chatter());
    let secret = Secret::fixed("BENCH", "8f742231b10e8888abcd99yyyzzz85a5").expect("not empty");
    let signature = signature::sign(&secret, SENT_AT, incident.as_bytes());
    let verifier = Verifier::new(vec![secret]);
    let verify = |body: &str| {
        let (timestamp, signature) = (b"1600689944", signature.as_bytes());
        let claim = Claim::read(SENT_AT, timestamp, signature).expect("well formed");
        verifier.verify(&claim, body.as_bytes()).expect("well signed")
    };
    let matcher = Matcher::default();
    let watch = Watch { channels: vec![ChannelId::new("C0123456789")], bots: Vec::new() };
    let app = AppName::new("main").expect("a name");
    let raw = envelope::inner_event(&incident).expect("an event");

    let mut group = criterion.benchmark_group("pure");
    group.bench_function("verify", |b| b.iter(|| verify(black_box(&incident))));
    for (name, body) in [("incident", &incident), ("chatter", &chatter)] {
        let (message, raw) = posted(body);
        group.bench_function(format!("readable/{name}"), |b| {
            b.iter(|| readable(black_box(body.as_bytes())).len());
        });
        group.bench_function(format!("parse/{name}"), |b| {
            b.iter(|| envelope::parse(black_box(body)).is_ok());
        });
        group.bench_function(format!("judge/{name}"), |b| {
            b.iter(|| matcher.judge(black_box(&message), raw, &watch));
        });
    }
    group.bench_function("alert_of_stored_event", |b| {
        b.iter(|| alert_of(&matcher, &app, black_box(raw)));
    });
    group.bench_function("body_to_incident", |b| {
        b.iter(|| {
            verify(black_box(&incident));
            let text = readable(incident.as_bytes());
            let (message, raw) = posted(&text);
            (found(matcher.judge(&message, raw, &watch)).incident.search_text(), raw.len())
        });
    });
    group.finish();
}

criterion_group!(benches, pure_path);
criterion_main!(benches);
