//! Requirements for every preset, whatever its receiver: presets x cases. The presets are those of
//! the folder and one of a `presets_dir`; the answers are the examples of each preset. A new preset
//! is picked up without a change here.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, LazyLock},
    time::Duration,
};

use jsonschema::Validator;

use serde_json::{Map, Value, json, value::to_raw_value};
use slack_soar_relay::{
    alert::{Alert, HostDomain, SCHEMA, Script, Severity, Slack},
    clock::{Clock, Timestamp},
    destination::{
        Advice, DeliveryError, Destination, Receipt, Settings,
        preset::{Example, Meaning, Preset, Transport},
    },
    http_client,
    ids::DestinationName,
    secret::Secret,
};

use crate::{
    harness::soar::{FakeSoar, Mood, Received},
    source::root,
};

mod answers;

const ID: &str = "main:C0123456789:1600689944.000500:0";

const OWN: &str = "preset: own-soar\nabout: A preset of an operator's own.\n\
                   params: {token: {type: secret, help: A token.}}\n\
                   auth: [{bearer: '{{ params.token }}'}]\n\
                   lookup:\n\
                   \x20 {path: /find, query: {k: '{{ alert.id }}'}, found: text is naming(key)}\n\
                   request:\n\
                   \x20 body: '{\"key\": {{alert.id}}, \"text\": {{alert.title | cut(9)}}}'\n\
                   limits: {chars: {/text: 9}}\n\
                   answer: {delivered: json.ok, duplicate: json.exists == key}\n\
                   examples:\n\
                   - {lookup: true, status: 200, body: '[]', means: delivered}\n\
                   - {lookup: true, status: 200, means: duplicate,\n\
                      body: '[\"main:C0123456789:1600689944.000500:0\"]'}\n\
                   - {status: 200, body: '{\"ok\": true}', means: delivered}\n\
                   - {status: 409, means: duplicate,\n\
                      body: '{\"exists\": \"main:C0123456789:1600689944.000500:0\"}'}\n";

fn presets() -> Vec<Arc<Preset>> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("own-soar.yaml"), OWN).unwrap();
    let own = Preset::load("own-soar", Some(dir.path())).unwrap();
    let built_in = Preset::builtin_names().map(|name| Preset::load(name, None).unwrap());
    let over_http = |preset: &Arc<Preset>| preset.transport() == Transport::Http;
    built_in.chain([own]).filter(over_http).collect()
}

/// Class of an answer in the preset's examples.
fn examples(preset: &Preset, means: Meaning, lookup: bool) -> Vec<&Example> {
    let said = preset.examples().iter();
    said.filter(|one| one.means == means && one.lookup == lookup).collect()
}

fn taken(preset: &Preset) -> Mood {
    answer(examples(preset, Meaning::Delivered, false)[0])
}

/// Answer to the preset's look-up, if it has one, while the alert is not there.
fn not_there(preset: &Preset) -> Vec<Mood> {
    examples(preset, Meaning::Delivered, true).into_iter().take(1).map(answer).collect()
}

fn answer(example: &Example) -> Mood {
    Mood::Body(example.status, example.body.clone())
}

fn alert(text: &str, severity: (&'static str, i32)) -> Alert {
    let text = || text.to_owned();
    let attachment = to_raw_value(&json!({"title": text(), "text": text()})).unwrap();
    Alert {
        schema: SCHEMA,
        id: ID.to_owned(),
        ticket_id: "1600689944000500".to_owned(),
        name: text(),
        vendor: "PerimeterX",
        product: "Code Defender",
        title: text(),
        category: text(),
        details: text(),
        severity: Severity {
            raw: text(),
            level: severity.0,
            priority: severity.1,
            recognised: true,
        },
        start_time_ms: 1_600_689_944_000,
        end_time_ms: 1_600_689_944_001,
        script: Script { raw: text(), url: text(), host: text() },
        host_domain: HostDomain { raw: text(), name: text() },
        deep_link: text(),
        is_test: false,
        slack: Slack {
            app: "main".to_owned(),
            team: "T0123456789".to_owned(),
            channel: "C0123456789".to_owned(),
            channel_first: "C0123456789".to_owned(),
            ts: "1600689944.000500".to_owned(),
            event_id: String::new(),
            source: "push",
            bot_id: String::new(),
        },
        parse_problems: Vec::new(),
        attachment,
    }
}

const HIGH: (&str, i32) = ("high", 80);

/// A destination of the preset whose every secret and text is given.
fn destination(preset: &Arc<Preset>, url: &str, tokens: &str) -> Destination {
    with_timeout(preset, url, tokens, Duration::from_secs(15))
}

fn with_timeout(preset: &Arc<Preset>, url: &str, tokens: &str, timeout: Duration) -> Destination {
    let settings = Settings { timeout, ..settings(preset, url, tokens) };
    let clock = Clock::manual(Timestamp::from_seconds(1_600_689_950));
    Destination::new(settings, clock).unwrap_or_else(|error| panic!("{preset:?}: {error:?}"))
}

fn settings(preset: &Arc<Preset>, url: &str, tokens: &str) -> Settings {
    let mut params = preset.placeholders();
    let mut secrets = BTreeMap::new();
    for param in preset.params_documented() {
        if param.kind == "secret" {
            params.remove(&param.name);
            let value = if param.name == "service_account" {
                service_account(tokens)
            } else {
                format!("secret-{}", param.name)
            };
            secrets.insert(param.name, Secret::fixed("param", &value).unwrap());
        }
    }
    if params.contains_key("login_url") {
        params.insert("login_url".to_owned(), json!(tokens));
    }
    Settings {
        name: DestinationName::new("soar").unwrap(),
        preset: Arc::clone(preset),
        url: Secret::fixed("url", url).unwrap(),
        params,
        secrets,
        timeout: Duration::from_secs(15),
        headers: Vec::new(),
        signing_secret: None,
        client: http_client::Settings::default(),
    }
}

/// A key as Google hands it out, for tokens from there.
pub(crate) fn service_account(tokens: &str) -> String {
    // Made for this test: nobody trusts it.
    let key = include_str!("../data/google/test_only_rsa_key.b64");
    let key = format!("-----BEGIN {0}-----\n{key}-----END {0}-----\n", "PRIVATE KEY");
    json!({"client_email": "relay@example.com", "private_key": key, "private_key_id": "1",
           "token_uri": format!("{tokens}/token")})
    .to_string()
}

/// Delivers to a receiver that answers so, behind a look-up that finds nothing.
async fn deliver(
    preset: &Arc<Preset>,
    alert: &Alert,
    mood: Mood,
) -> (Result<Receipt, DeliveryError>, Vec<Received>) {
    let tokens = tokens().await;
    let before = not_there(preset);
    let skipped = before.len();
    let slices = if matches!(mood, Mood::Hang) { 1 } else { 15 };
    let soar = FakeSoar::new(before.into_iter().chain([mood])).await;
    let soar_url = soar.url();
    let timeout = Duration::from_millis(slices * 300);
    let destination = with_timeout(preset, &soar_url, &tokens.base(), timeout);
    let outcome = destination.deliver(alert).await;
    for received in soar.received().iter().skip(skipped) {
        is_what_the_receiver_takes(preset, &received.body);
    }
    (outcome, soar.received().split_off(skipped.min(soar.received().len())))
}

async fn tokens() -> FakeSoar {
    let token = r#"{"access_token": "granted-token", "expires_in": 3600}"#;
    FakeSoar::new([Mood::Body(200, token.to_owned())]).await
}

/// Every text at the pointer, of which `*` is any item.
fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    let mut found = vec![value];
    for part in pointer.split('/').skip(1) {
        found = found
            .into_iter()
            .flat_map(|value| match (part, value) {
                ("*", Value::Array(items)) => items.iter().collect(),
                (name, value) => value.get(name).into_iter().collect::<Vec<_>>(),
            })
            .collect();
    }
    found.into_iter().filter_map(Value::as_str).collect()
}

/// Fields that receivers are documented to accept, by preset: names, types, choices, lengths.
static CONTRACTS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(|| {
    let files = fs::read_dir(root().join("tests/data/receivers")).unwrap();
    let contract = |file: fs::DirEntry| {
        let name = file.file_name().into_string().unwrap();
        let name = name.strip_suffix(".schema.json").unwrap().to_owned();
        let schema = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        (name, jsonschema::validator_for(&schema).unwrap())
    };
    files.map(|file| contract(file.unwrap())).collect()
});

fn is_what_the_receiver_takes(preset: &Preset, body: &Value) {
    if let Some(contract) = CONTRACTS.get(preset.name()) {
        let wrong: Vec<_> = contract.iter_errors(body).map(|e| e.masked().to_string()).collect();
        assert_eq!(wrong, [""; 0], "{preset:?}");
    }
}

fn within_limits(preset: &Preset, body: &Value) {
    for (pointer, most) in &preset.limits().chars {
        for text in texts(body, pointer) {
            let is = text.encode_utf16().count();
            assert!(is <= *most, "{preset:?} {pointer}: {is} of {most}");
        }
    }
    if let Some(most) = preset.limits().body_bytes {
        assert!(body.to_string().len() <= most, "{preset:?}");
    }
}

#[test]
fn every_file_of_the_folder_is_a_preset_and_says_what_it_is_answered() {
    let files = fs::read_dir(root().join("src/destination/presets")).unwrap().count();
    assert_eq!(Preset::builtin_names().count(), files);
    for preset in presets() {
        assert!(!examples(&preset, Meaning::Delivered, false).is_empty(), "{preset:?}");
        if preset.has_lookup() {
            assert!(!examples(&preset, Meaning::Delivered, true).is_empty(), "{preset:?}");
            assert!(!examples(&preset, Meaning::Duplicate, true).is_empty(), "{preset:?}");
        }
    }
}

#[test]
fn every_receiver_whose_form_is_documented_has_a_contract() {
    let free = ["own-soar", "shuffle", "tines", "torq", "webhook"];
    let presets: Vec<_> = presets().iter().map(|preset| preset.name().to_owned()).collect();
    let bound: Vec<_> = presets.iter().filter(|name| !free.contains(&name.as_str())).collect();
    let mut contracts: Vec<_> = CONTRACTS.keys().collect();
    contracts.sort();
    assert_eq!(bound, contracts);
}

/// A preset that is no request has its conformance where what it is can be seen.
#[test]
fn what_is_not_sent_over_http_is_proven_elsewhere() {
    let over_http: Vec<String> = presets().iter().map(|one| one.name().to_owned()).collect();
    let others: Vec<_> = Preset::builtin_names()
        .filter(|name| !over_http.iter().any(|one| one == name))
        .map(|name| (name, Preset::load(name, None).unwrap().transport()))
        .collect();
    let proven = [
        ("email", Transport::Email), // destination::transport::tests, against an SMTP server
        ("feed", Transport::Feed),   // feed.rs
        ("stdout", Transport::Stdout), // process.rs
    ];
    assert_eq!(others, proven);
}

#[tokio::test]
async fn a_success_of_every_receiver_is_delivered_with_the_same_key_each_time() {
    for preset in presets() {
        for _resend in 0..2 {
            let (outcome, got) = deliver(&preset, &alert("text", HIGH), taken(&preset)).await;
            assert!(!outcome.unwrap_or_else(|e| panic!("{preset:?}: {e:?}")).duplicate);
            assert_eq!(got.len(), 1, "{preset:?}");
            assert_eq!(got[0].header("idempotency-key"), ID, "{preset:?}");
            assert!(got[0].header("user-agent").starts_with("slack-soar-relay/"));
        }
    }
}

#[tokio::test]
async fn every_resend_is_the_same_request() {
    for preset in presets() {
        let first = deliver(&preset, &alert("text", HIGH), taken(&preset)).await.1;
        let second = deliver(&preset, &alert("text", HIGH), taken(&preset)).await.1;
        assert_eq!(first[0].body, second[0].body, "{preset:?}");
    }
}

#[tokio::test]
async fn every_example_of_an_answer_is_read_as_it_says() {
    for preset in presets() {
        for example in preset.examples().iter().filter(|one| !one.lookup) {
            let (outcome, _) = deliver(&preset, &alert("text", HIGH), answer(example)).await;
            let read = match outcome {
                Ok(receipt) if receipt.duplicate => Meaning::Duplicate,
                Ok(_) => Meaning::Delivered,
                Err(DeliveryError::Refused { .. }) => Meaning::AlertFault,
                Err(_) => Meaning::Retry,
            };
            assert_eq!(read, example.means, "{preset:?} {example:?}");
        }
    }
}

#[tokio::test]
async fn an_alert_that_the_look_up_finds_is_not_sent_again() {
    for preset in presets().iter().filter(|preset| preset.has_lookup()) {
        for found in examples(preset, Meaning::Duplicate, true) {
            let tokens = tokens().await;
            let soar = FakeSoar::new([answer(found)]).await;
            let destination = destination(preset, &soar.url(), &tokens.base());
            let receipt = destination.deliver(&alert("text", HIGH)).await.unwrap();
            assert!(receipt.duplicate, "{preset:?}");
            assert_eq!(soar.received().len(), 1, "{preset:?}");
        }
        for (status, retried) in [(500, true), (400, true), (401, false)] {
            let soar = FakeSoar::new([Mood::Status(status)]).await;
            let destination = destination(preset, &soar.url(), "");
            let error = destination.deliver(&alert("text", HIGH)).await.unwrap_err();
            assert_eq!(error.advice() == Advice::Retry, retried, "{preset:?} {status}");
            assert_eq!(soar.received().len(), 1, "{preset:?}: sent without an answer");
        }
    }
}

#[tokio::test]
async fn no_fault_of_a_receiver_costs_an_alert_its_life() {
    for preset in presets() {
        for (mood, advice) in [
            (Mood::Status(401), Advice::HoldDestination),
            (Mood::Status(403), Advice::HoldDestination),
            (Mood::Status(413), Advice::GiveUpOnEvidence),
            (Mood::Status(402), Advice::Retry),
            (Mood::Status(451), Advice::Retry),
            (
                Mood::Header(429, "retry-after", "7"),
                Advice::RetryAfter(Some(Duration::from_secs(7))),
            ),
            (Mood::Status(500), Advice::Retry),
            (Mood::Hang, Advice::Retry),
            (Mood::Reset, Advice::Retry),
        ] {
            let (outcome, _) = deliver(&preset, &alert("text", HIGH), mood.clone()).await;
            let error = outcome.expect_err("it was no success");
            assert_eq!(error.advice(), advice, "{preset:?} {mood:?}");
        }
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    for preset in presets() {
        let example = examples(&preset, Meaning::Delivered, false)[0];
        let padded = format!("{}{}", example.body, " ".repeat(10 << 20));
        let (outcome, _) =
            deliver(&preset, &alert("text", HIGH), Mood::Body(example.status, padded)).await;
        // 204 has no body; every other is cut to an excerpt.
        let receipt = outcome.unwrap_or_else(|error| panic!("{preset:?}: {error:?}"));
        assert!(receipt.excerpt.len() <= 4_000, "{preset:?}");
    }
}

#[tokio::test]
async fn every_severity_and_absent_field_makes_a_request() {
    let levels =
        [("informative", -1), ("low", 40), ("medium", 60), ("high", 80), ("critical", 100)];
    for preset in presets() {
        for level in levels {
            for text in ["text", ""] {
                let (outcome, got) = deliver(&preset, &alert(text, level), taken(&preset)).await;
                assert!(outcome.is_ok(), "{preset:?} {level:?}");
                assert!(got[0].body.is_object(), "{preset:?} {level:?}");
            }
        }
    }
}

#[tokio::test]
async fn hostile_and_huge_texts_stay_json_within_the_receivers_limits() {
    let traps = "\"</script>\\\n\r\t\u{0}{{ 1 }}%}\u{202e}\u{2028}\u{1f600}'},:1}] שלום";
    for preset in presets() {
        for text in [traps.to_owned(), traps.repeat(40), "\u{1f600}x".repeat(220_000)] {
            let huge = alert(&text, HIGH);
            let is_huge = text.len() > 1 << 20;
            let mut huge_details = alert("text", HIGH);
            huge_details.details = text;
            for alert in [&huge, &huge_details] {
                if is_huge && std::ptr::eq(alert, &raw const huge) {
                    continue;
                }
                let (outcome, got) = deliver(&preset, alert, taken(&preset)).await;
                assert!(outcome.is_ok(), "{preset:?}: {:?}", outcome.err());
                assert!(got[0].body.is_object(), "{preset:?}");
                assert_eq!(got[0].header("idempotency-key"), ID);
                within_limits(&preset, &got[0].body);
            }
        }
    }
}

#[tokio::test]
async fn no_secret_is_shown_by_render_or_by_an_answer_that_repeats_it() {
    for preset in presets() {
        let tokens = tokens().await;
        let shown = destination(&preset, "http://127.0.0.1:9/hook?key=hunter2", &tokens.base());
        let shown = shown.render(&alert("text", HIGH)).unwrap().to_string();
        assert!(!shown.contains("secret-"), "{preset:?}: {shown}");
        assert!(!shown.contains("hunter2"), "{preset:?}: {shown}");
        let echo: Vec<String> = preset
            .params_documented()
            .into_iter()
            .filter(|param| param.kind == "secret" && param.name != "service_account")
            .map(|param| format!("secret-{}", param.name))
            .chain(["granted-token".to_owned()])
            .collect();
        let uses_token = preset
            .auth_described()
            .iter()
            .any(|how| how.contains("token from") || how.contains("service account"));
        let used: Vec<_> = echo.iter().filter(|s| uses_token || *s != "granted-token").collect();
        let mood = Mood::Body(500, format!("wrong: {used:?}"));
        let (outcome, _) = deliver(&preset, &alert("text", HIGH), mood).await;
        let error = outcome.unwrap_err();
        let answer = error.answer().unwrap();
        assert!(!answer.excerpt.contains("secret-"), "{preset:?}: {}", answer.excerpt);
        assert!(!answer.excerpt.contains("granted-token"), "{preset:?}: {}", answer.excerpt);
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_after_it_is_refused() {
    for preset in presets() {
        let tokens = tokens().await;
        let taken = taken(&preset);
        let soar = FakeSoar::new([taken.clone(), taken.clone(), Mood::Status(401), taken]).await;
        let destination = destination(&preset, &soar.url(), &tokens.base());
        if preset.has_lookup() {
            continue;
        }
        let mut results = Vec::new();
        for _ in 0..4 {
            results.push(destination.deliver(&alert("text", HIGH)).await.is_ok());
        }
        assert_eq!(results, [true, true, false, true], "{preset:?}");
        let asked = tokens.received().len();
        let needs = preset.auth_described().iter().any(|how| how.contains("oken"));
        let needs = needs && soar.received()[0].header("authorization") == "Bearer granted-token";
        assert_eq!(asked, if needs { 2 } else { 0 }, "{preset:?}");
    }
}

/// The names are those of `CasePriority` in Google's `TIPCommon`; an ECS label is a text.
#[test]
fn values_are_spelled_as_the_receivers_own_libraries_spell_them() {
    let named = json!({"priority": "name"}).as_object().unwrap().clone();
    let google = Preset::builtin("google-secops-create-case").unwrap();
    for (level, name) in [
        (("informative", -1), "PriorityInfo"),
        (("low", 40), "PriorityLow"),
        (("medium", 60), "PriorityMedium"),
        (("high", 80), "PriorityHigh"),
        (("critical", 100), "PriorityCritical"),
    ] {
        let body = rendered(&google, named.clone(), &alert("text", level));
        assert_eq!(body["cases"][0]["priority"], name);
    }
    let elastic = Preset::builtin("elastic").unwrap();
    for (is_test, label) in [(true, "true"), (false, "false")] {
        let alert = Alert { is_test, ..alert("text", HIGH) };
        assert_eq!(rendered(&elastic, Map::new(), &alert)["labels"]["test"], label);
    }
}

/// Applies `ConvertIntoSimulatedCase` of Google's content hub to the older body: keys lose their
/// capital, and the keys inside the two maps of an event stay.
fn transformed(value: &Value) -> Value {
    let Value::Object(fields) = value else {
        return value
            .as_array()
            .map_or_else(|| value.clone(), |items| items.iter().map(transformed).collect());
    };
    let renamed = fields.iter().map(|(name, value)| match name.as_str() {
        "_fields" => ("fields".to_owned(), value.clone()),
        "_rawDataFields" => ("rawDataFields".to_owned(), value.clone()),
        name => (name[..1].to_lowercase() + &name[1..], transformed(value)),
    });
    Value::Object(renamed.collect())
}

#[test]
fn the_newer_call_of_google_takes_what_its_own_transform_makes_of_the_older_one() {
    let body = |name| {
        let preset = Preset::builtin(name).unwrap();
        rendered(&preset, Map::new(), &alert("text", HIGH))
    };
    let older = transformed(&body("siemplify-create-case"));
    let newer = body("google-secops-create-case");
    assert_eq!(newer["cases"][0]["events"], older["cases"][0]["events"]);
    let same = [
        "environment",
        "sourceSystemName",
        "ticketId",
        "displayId",
        "description",
        "reason",
        "name",
        "deviceVendor",
        "deviceProduct",
        "priority",
        "ruleGenerator",
        "extensions",
        "playbookTriggerKeywords",
        "attachments",
    ];
    for name in same {
        assert_eq!(newer["cases"][0][name], older["cases"][0][name], "{name}");
    }
}

/// The body that the preset makes with these parameters.
fn rendered(preset: &Arc<Preset>, given: Map<String, Value>, alert: &Alert) -> Value {
    let mut settings = settings(preset, "http://127.0.0.1:9", "http://127.0.0.1:9");
    settings.params.extend(given);
    let clock = Clock::manual(Timestamp::from_seconds(1_600_689_950));
    let request = Destination::new(settings, clock).unwrap().render(alert).unwrap();
    serde_json::from_str(&request.body).unwrap()
}

#[test]
fn no_preset_takes_a_parameter_that_it_does_not_use() {
    let folder = root().join("src/destination/presets");
    for preset in Preset::builtin_names().map(|name| Preset::load(name, None).unwrap()) {
        let text = fs::read_to_string(folder.join(format!("{}.yaml", preset.name()))).unwrap();
        let by_level = text.contains("params[alert.severity.level]");
        for param in preset.params_documented() {
            let level = ["informative", "low", "medium", "high", "critical"];
            let used = text.contains(&format!("params.{}", param.name));
            assert!(used || by_level && level.contains(&&*param.name), "{preset:?} {}", param.name);
        }
        assert_eq!(preset.check_params(&Map::new(), &BTreeMap::new()).is_empty(), {
            preset.params_documented().iter().all(|param| param.default.is_some())
        });
    }
}
