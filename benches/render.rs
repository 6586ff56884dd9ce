//! Cost of one request before it is sent, for every built-in preset.
//!
//! `cargo bench --bench render`. At most 60 us each: a hundredth of what a loopback request takes.

#![expect(clippy::expect_used, reason = "a benchmark of fixed data: a panic is the right answer")]

use std::{collections::BTreeMap, hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::value::{RawValue, to_raw_value};
use slack_soar_relay::{
    alert::{Alert, HostDomain, SCHEMA, Script, Severity, Slack},
    clock::Clock,
    destination::{
        Destination, Settings,
        preset::{Preset, Transport},
    },
    http_client,
    ids::DestinationName,
    secret::Secret,
};

fn attachment() -> Box<RawValue> {
    to_raw_value(&serde_json::json!({
        "title": "Code Defender has detected a new incident",
        "text": "PII Sniffing \n A script that was not seen before reads the card number field",
        "fields": [{"title": "Risk Level", "value": "High", "short": true}],
        "actions": [{"text": "View in Console", "url": "https://console.perimeterx.com/x"}],
    }))
    .expect("JSON")
}

fn alert() -> Alert {
    let url = "https://www.somedomain.com/scripts/script.js?v=1.2.3&async=1";
    Alert {
        schema: SCHEMA,
        id: "main:C0123456789:1600689944.000500:0".into(),
        ticket_id: "1600689944000500".into(),
        name: "Code Defender High Alert".into(),
        vendor: "PerimeterX",
        product: "Code Defender",
        title: "Code Defender has detected a new incident".into(),
        category: "PII Sniffing".into(),
        details: "PII Sniffing \n A script that was not seen before reads the card number".into(),
        severity: Severity { raw: "High".into(), level: "high", priority: 80, recognised: true },
        start_time_ms: 1_600_689_944_000,
        end_time_ms: 1_600_689_944_001,
        script: Script {
            raw: format!("`<{url}>`"),
            url: url.into(),
            host: "somedomain.com".into(),
        },
        host_domain: HostDomain {
            raw: "<http://example.com|example.com>".into(),
            name: "example.com".into(),
        },
        deep_link: "https://console.perimeterx.com/codeDefender/analyzer/script/5f0c".into(),
        is_test: false,
        slack: Slack {
            app: "main".into(),
            team: "T0RELAYTEAM".into(),
            channel: "C0123456789".into(),
            channel_first: "C0123456789".into(),
            ts: "1600689944.000500".into(),
            event_id: "Ev0RELAY0001".into(),
            source: "push",
            bot_id: "B01BSD0CHSL".into(),
        },
        parse_problems: Vec::new(),
        attachment: attachment(),
    }
}

fn destination(name: &str) -> Destination {
    let preset = Preset::load(name, None).expect("built in");
    let example = match preset.transport() {
        Transport::Email => "smtp://mail.example.com",
        Transport::Http | Transport::Stdout | Transport::Feed => "https://soar.example.com/",
    };
    let url = Secret::fixed("url", preset.url().unwrap_or(example)).expect("not empty");
    let settings = Settings {
        name: DestinationName::new("soar").expect("a name"),
        params: preset.placeholders(),
        secrets: BTreeMap::new(),
        preset,
        url,
        timeout: Duration::from_secs(15),
        headers: Vec::new(),
        signing_secret: None,
        client: http_client::Settings::default(),
    };
    Destination::new(settings, Clock::system()).expect("placeholders suit it")
}

fn render(criterion: &mut Criterion) {
    let alert = alert();
    let mut group = criterion.benchmark_group("render");
    for name in Preset::builtin_names() {
        let destination = destination(name);
        group.bench_function(name, |b| {
            b.iter(|| destination.render(black_box(&alert)).expect("a request").body.len());
        });
    }
    group.finish();
}

criterion_group!(benches, render);
criterion_main!(benches);
