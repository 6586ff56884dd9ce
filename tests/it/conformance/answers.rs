//! Answers that say less than they seem to: something else exists, or a setting is wrong. Bodies
//! are those of the receivers' documentation, sources and reports; `{id}` is the alert's id.

use super::*;

/// Answers that say "exists already" about something else than the alert, or that quote what was
/// sent: by preset, the answer to the look-up or to the request.
const NOT_OURS: &[(&str, bool, u16, &str)] = &[
    (
        "alerta",
        false,
        201,
        r#"{"status": "ok", "id": "a-2", "alert": {"resource": "db-7", "duplicateCount": 3}}"#,
    ),
    (
        "cortex-xsoar",
        true,
        200,
        r#"{"total": 2, "data": [{"id": "7", "dbotMirrorId": "{id}1"},
            {"id": "8", "details": "{id}"}]}"#,
    ),
    (
        "dfir-iris",
        true,
        200,
        r#"{"status": "success", "data": {"alerts": [
            {"alert_id": 8, "alert_source_ref": "{id}1"}]}}"#,
    ),
    ("elastic", false, 409, r#"{"error": {"type": "resource_already_exists_exception"}}"#),
    (
        "elastic",
        false,
        409,
        r#"{"error": {"type": "version_conflict_engine_exception", "reason":
            "[{id}1]: version conflict, document already exists"}}"#,
    ),
    (
        "jira",
        true,
        200,
        r#"{"issues": [{"id": "1", "key": "SEC-7", "fields": {"labels": ["code-defender"]}}]}"#,
    ),
    (
        "microsoft-sentinel",
        false,
        409,
        r#"{"error": {"code": "MissingSubscriptionRegistration",
            "message": "The subscription is not registered to use namespace"}}"#,
    ),
    ("microsoft-sentinel", false, 409, r#"{"error": {"code": "AnotherOperationInProgress"}}"#),
    ("microsoft-sentinel", false, 409, ""),
    ("own-soar", true, 200, r#"["{id}1"]"#),
    ("own-soar", false, 409, r#"{"exists": "{id}1"}"#),
    (
        "splunk-soar",
        false,
        400,
        r#"{"failed": true, "message": "a label of this name already exists"}"#,
    ),
    ("splunk-soar", false, 400, r#"{"failed": true, "existing_artifact_id": 4}"#),
    ("splunk-soar", false, 400, r#"{"failed": true, "existing_container_id": null}"#),
    ("thehive", false, 400, r#"{"type": "CreateError", "message": "Observable already exists"}"#),
    (
        "thehive",
        false,
        400,
        r#"{"type": "CreateError", "message":
            "Alert code-defender:slack-soar-relay:{id}1 already exist in organisation s"}"#,
    ),
    (
        "thehive",
        false,
        400,
        r#"{"type": "CreateError", "message":
            "Alert code-defender:slack-soar-relay:x{id} already exist in organisation s"}"#,
    ),
    (
        "thehive",
        false,
        400,
        r#"{"type": "BadRequest", "message": "Alert says already exists", "object": "{id}"}"#,
    ),
];

/// A preset that takes some answers to mean that its receiver has the alert.
fn knows_duplicates(preset: &Preset) -> bool {
    preset.examples().iter().any(|example| example.means == Meaning::Duplicate)
}

async fn answered(preset: &Arc<Preset>, alert: &Alert, lookup: bool, mood: Mood) -> bool {
    if !lookup {
        let (outcome, _) = deliver(preset, alert, mood).await;
        return outcome.is_ok_and(|receipt| receipt.duplicate);
    }
    let soar = FakeSoar::new([mood, taken(preset)]).await;
    let tokens = tokens().await;
    let outcome = destination(preset, &soar.url(), &tokens.base()).deliver(alert).await;
    outcome.is_ok_and(|receipt| receipt.duplicate)
}

#[tokio::test]
async fn an_answer_that_something_else_exists_is_not_a_duplicate() {
    let named = |preset: &Preset| NOT_OURS.iter().any(|(name, ..)| *name == preset.name());
    for preset in presets() {
        assert_eq!(knows_duplicates(&preset), named(&preset), "{preset:?}: see NOT_OURS");
        for (_, lookup, status, body) in NOT_OURS.iter().filter(|one| one.0 == preset.name()) {
            let mood = Mood::Body(*status, body.replace("{id}", ID));
            let duplicate = answered(&preset, &alert("text", HIGH), *lookup, mood).await;
            assert!(!duplicate, "{preset:?} {status} {body}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_quotes_the_alert_is_not_a_duplicate() {
    let words = "Alert already exists, version conflict, duplicate, existing_container_id";
    let trap = alert(words, HIGH);
    for preset in presets() {
        let (_, sent) = deliver(&preset, &trap, taken(&preset)).await;
        let body = sent[0].body.clone();
        let quotes = [
            json!({"type": "BadRequest", "message": format!("Alert is invalid: {body}")}),
            json!({"error": {"type": "x", "code": "x", "reason": body.to_string()},
                   "failed": true, "message": format!("{body}")}),
            json!({"message": words, "errors": [body.to_string()], "alert": body}),
        ];
        for (status, quote) in [200, 201, 400, 409, 422]
            .into_iter()
            .flat_map(|status| quotes.iter().map(move |quote| (status, quote.to_string())))
        {
            let mood = Mood::Body(status, quote.clone());
            let duplicate = answered(&preset, &trap, false, mood).await;
            assert!(!duplicate, "{preset:?} {status} {quote}");
        }
    }
}

/// Answers of receivers to a wrong key or parameter, as their documentation and public reports give
/// them: the alert is not at fault.
const WRONG_SETTINGS: &[(&str, u16, &str)] = &[
    (
        "google-secops-webhook",
        400,
        r#"{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID",
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "googleapis.com"}]}}"#,
    ),
    (
        "google-secops-webhook",
        400,
        r#"{"error": {"code": 400, "message": "API key expired. Please renew the API key.",
            "status": "INVALID_ARGUMENT"}}"#,
    ),
    (
        "google-secops-webhook",
        400,
        r#"{"error": {"message": "webhook is disabled", "status": "FAILED_PRECONDITION"}}"#,
    ),
    (
        "google-secops-create-case",
        400,
        r#"{"error": {"message": "Resource project invalid", "status": "INVALID_ARGUMENT",
            "details": [{"reason": "RESOURCE_PROJECT_INVALID", "domain": "googleapis.com"}]}}"#,
    ),
    (
        "pagerduty",
        400,
        r#"{"status": "invalid event", "message": "Event object is invalid",
            "errors": ["Invalid routing key"]}"#,
    ),
    (
        "pagerduty",
        400,
        r#"{"status": "invalid event", "message": "Event object is invalid",
            "errors": ["Length of 'routing_key' is incorrect (should be 32 characters)"]}"#,
    ),
    ("pagerduty", 400, r#"{"status": "invalid key", "message": "Invalid routing key"}"#),
    ("pagerduty", 400, "Invalid routing key"),
    ("opsgenie", 422, r#"{"message": "Key format is not valid!", "took": 0.0, "requestId": "r"}"#),
    (
        "microsoft-sentinel",
        400,
        r#"{"error": {"code": "BadRequest", "message":
            "Workspace 'soc' is not onboarded to Microsoft Sentinel. Please onboard"}}"#,
    ),
    ("microsoft-sentinel", 400, r#"{"error": {"code": "InvalidSubscriptionId", "message": "x"}}"#),
    (
        "microsoft-sentinel",
        400,
        r#"{"error": {"code": "InvalidApiVersionParameter", "message": "x"}}"#,
    ),
    (
        "microsoft-sentinel",
        409,
        r#"{"error": {"code": "MissingSubscriptionRegistration", "message": "x"}}"#,
    ),
    ("jira", 400, r#"{"errorMessages": [], "errors": {"project": "valid project is required"}}"#),
    (
        "jira",
        400,
        r#"{"errorMessages": [], "errors": {"issuetype": "Specify a valid issue type"}}"#,
    ),
    (
        "jira",
        400,
        r#"{"errors": {"priority": "Field 'priority' cannot be set. It is not on the screen"}}"#,
    ),
    ("jira", 400, r#"{"errors": {"customfield_10042": "Team is required."}}"#),
    ("splunk-soar", 400, r#"{"failed": true, "message": "\"code\" is not a known label."}"#),
    (
        "splunk-soar",
        400,
        r#"{"failed": true, "message": "Severity matching query does not exist."}"#,
    ),
    ("splunk-hec", 400, r#"{"text": "Incorrect index", "code": 7, "invalid-event-number": 1}"#),
    ("splunk-hec", 400, r#"{"text": "Data channel is missing", "code": 10}"#),
    ("elastic", 400, r#"{"error": {"type": "invalid_index_name_exception"}, "status": 400}"#),
    (
        "elastic",
        400,
        r#"{"error": {"type": "validation_exception", "reason": 
            "this action would add [2] shards, but this cluster has [1000]/[1000] open"}}"#,
    ),
    (
        "elastic",
        400,
        r#"{"error": {"type": "illegal_argument_exception", "reason":
            "pipeline with id [x] does not exist"}}"#,
    ),
    (
        "elastic",
        400,
        r#"{"error": {"type": "index_closed_exception", "reason": "closed"}, "status": 400}"#,
    ),
    (
        "alerta",
        400,
        r#"{"status": "error", "message": "Severity (minor) is not one of normal, high"}"#,
    ),
    (
        "servicenow-em-event",
        400,
        r#"{"error": {"message": "Requested URI does not represent any resource"},
            "status": "failure"}"#,
    ),
    ("shuffle", 400, r#"{"success": false, "reason": "Workflow isn't running"}"#),
    ("dfir-iris", 400, r#"{"status": "error", "message": "Data error", "data": {}}"#),
];

#[tokio::test]
async fn a_wrong_key_or_parameter_is_not_the_fault_of_the_alert() {
    let presets = presets();
    for (name, status, body) in WRONG_SETTINGS {
        let preset = presets.iter().find(|preset| preset.name() == *name).unwrap();
        let mood = Mood::Body(*status, body.replace("{id}", ID));
        let (outcome, _) = deliver(preset, &alert("text", HIGH), mood).await;
        let error = outcome.expect_err("it was no success");
        let advice = error.advice();
        assert!(
            matches!(advice, Advice::Retry | Advice::HoldDestination),
            "{preset:?} {status} {body}: {advice:?}"
        );
    }
}
