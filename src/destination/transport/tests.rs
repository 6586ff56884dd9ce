use std::{collections::BTreeMap, fs, net::TcpListener, path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::Map;
use sha2::Sha256;

use super::*;
use crate::{
    clock::Timestamp,
    destination::{
        Advice, Answer, HeaderValue,
        preset::{Preset, sample::sample_alert},
        transport::receiver::{Behave, Receiver, answer, ok},
    },
    secret::{Form, Secret},
};

mod mail;

const KEY: &str = "k3y-0f-0urs";
const ID: &str = "main:C0123456789:1600689944.000500:0";

fn secret(value: &str) -> Secret {
    Secret::fixed("TEST", value).unwrap()
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_seconds(1_600_689_950))
}

fn settings(url: &str) -> Settings {
    Settings {
        name: DestinationName::new("soar").unwrap(),
        preset: Preset::builtin("webhook").unwrap(),
        url: secret(url),
        params: Map::new(),
        secrets: BTreeMap::new(),
        timeout: Duration::from_secs(15),
        headers: Vec::new(),
        signing_secret: None,
        client: http_client::Settings::default(),
    }
}

fn destination(settings: Settings) -> Destination {
    Destination::new(settings, clock()).unwrap()
}

/// A preset for these tests.
fn preset(rest: &str) -> Arc<Preset> {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("preset: mine\nabout: x\n{rest}");
    fs::write(dir.path().join("mine.yaml"), text).unwrap();
    Preset::load("mine", Some(dir.path())).unwrap()
}

async fn deliver(settings: Settings) -> Result<Receipt, DeliveryError> {
    destination(settings).deliver(&sample_alert("text")).await
}

async fn after(answer: &str) -> Result<Receipt, DeliveryError> {
    let receiver = Receiver::answering(answer);
    let outcome = deliver(settings(&receiver.url())).await;
    assert_eq!(receiver.got().len(), 1, "one attempt is one request");
    outcome
}

async fn class_after(status: &str) -> (&'static str, Advice) {
    let error = after(&answer(status, "Location: /elsewhere\r\n", "why")).await.unwrap_err();
    let seen = error.answer().unwrap();
    assert!(status.starts_with(&seen.status.to_string()));
    assert_eq!(seen.excerpt, "why");
    (error.label(), error.advice())
}

fn shown(error: &DeliveryError) -> String {
    format!("{} / {error:?} / {:?}", chain(error), error.answer())
}

#[tokio::test]
async fn a_delivered_alert_carries_its_key_and_is_json() {
    let receiver = Receiver::answering(&ok(r#"{"ok": true}"#));
    let receipt = deliver(settings(&receiver.url())).await.unwrap();
    assert_eq!((receipt.status, receipt.duplicate), (Some(200), false));
    assert_eq!(receipt.excerpt, r#"{"ok": true}"#);
    let got = receiver.got().remove(0);
    assert_eq!(got.line, format!("POST /hooks/0123456789abcdef?api_key={KEY} HTTP/1.1"));
    assert_eq!(got.header("idempotency-key"), [ID]);
    assert_eq!(got.header("content-type"), ["application/json"]);
    let agent = concat!("slack-soar-relay/", env!("CARGO_PKG_VERSION"));
    assert_eq!(got.header("user-agent"), [agent]);
    for absent in ["webhook-id", "webhook-signature", "cookie", "accept-encoding", "referer"] {
        assert_eq!(got.header(absent), [""; 0], "{absent}");
    }
    let sent: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
    assert_eq!(sent, serde_json::to_value(sample_alert("text")).unwrap());
}

#[tokio::test]
async fn a_signed_request_verifies_as_standard_webhooks() {
    let encoded = "c2VjcmV0LW9mLXRoZS1yZWxheQ==";
    for key in [encoded, &format!("whsec_{encoded}")] {
        let receiver = Receiver::answering(&ok(""));
        let mut signed = settings(&receiver.url());
        signed.signing_secret = Some(secret(key));
        deliver(signed).await.unwrap();
        let got = receiver.got().remove(0);
        let id = ID.replace('.', "_");
        assert_eq!(got.header("webhook-id"), [id.as_str()]);
        assert_eq!(got.header("idempotency-key"), [ID]);
        assert_eq!(got.header("webhook-timestamp"), ["1600689950"]);
        let mut mac = Hmac::<Sha256>::new_from_slice(b"secret-of-the-relay").unwrap();
        mac.update([id.as_bytes(), b".1600689950.", &got.body].concat().as_slice());
        let expected = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(got.header("webhook-signature"), [format!("v1,{expected}")]);
    }
}

#[tokio::test]
async fn an_answer_without_content_is_delivered() {
    let receipt = after("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!((receipt.status, receipt.excerpt.as_str()), (Some(204), ""));
}

#[tokio::test]
async fn a_200_with_an_error_in_its_body_keeps_the_alert() {
    let receiver = Receiver::answering(&ok(r#"{"success": false, "reason": "quota"}"#));
    let mut strict = settings(&receiver.url());
    strict.preset = preset("request: {body: alert}\nanswer: {delivered: json.success == true}\n");
    let error = deliver(strict).await.unwrap_err();
    assert_eq!((error.label(), error.advice()), ("destination_fault", Advice::Retry));
    assert!(error.answer().unwrap().excerpt.contains("quota"));
}

#[tokio::test]
async fn a_duplicate_counts_as_delivered_and_keeps_its_reference() {
    let body = r#"{"message": "it already exists", "id": "case-7"}"#;
    let receiver = Receiver::answering(&answer("400 Bad Request", "", body));
    let mut known = settings(&receiver.url());
    known.preset = preset(
        "request: {body: alert}\n\
         answer: {duplicate: \"status == 400 and 'already exists' in json.message\"}\n\
         reference: {id: '{{ json.id }}', url: 'https://soar.example.com/{{ json.id }}'}\n",
    );
    let receipt = deliver(known).await.unwrap();
    assert!(receipt.duplicate);
    assert_eq!(receipt.reference_id, "case-7");
    assert_eq!(receipt.reference_url, "https://soar.example.com/case-7");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_keeps_the_alert() {
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"] {
        assert_eq!(class_after(status).await, ("destination_fault", Advice::Retry));
    }
}

#[tokio::test]
async fn refused_credentials_hold_the_destination() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        assert_eq!(class_after(status).await, ("auth", Advice::HoldDestination));
    }
}

#[tokio::test]
async fn a_missing_or_failing_destination_keeps_the_alert() {
    let about_it = [
        "402 Payment",
        "405 Method",
        "406 Not Acceptable",
        "423 Locked",
        "424 Failed",
        "426 Upgrade",
        "431 Headers",
        "451 Legal",
    ];
    let failing = ["404 Not Found", "407 Proxy", "410 Gone", "500 Oops", "502 Bad", "599 ?"];
    for status in failing.into_iter().chain(about_it) {
        assert_eq!(class_after(status).await, ("destination_fault", Advice::Retry), "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_blames_the_alert_gives_it_up() {
    for status in ["400 Bad Request", "413 Too Large", "415 Type", "422 Unprocessable", "409 ?"] {
        assert_eq!(class_after(status).await, ("refused", Advice::GiveUpOnEvidence), "{status}");
    }
}

#[tokio::test]
async fn a_throttled_attempt_says_how_long_to_wait() {
    for (status, header, wait) in [
        ("429 Too Many", "", None),
        ("429 Too Many", "Retry-After: 7\r\n", Some(7)),
        ("429 Too Many", "Retry-After: Mon, 21 Sep 2020 12:06:00 GMT\r\n", Some(10)),
        ("429 Too Many", "Retry-After: 86400\r\n", Some(3600)),
        ("503 Busy", "Retry-After: 7\r\n", Some(7)),
    ] {
        let error = after(&answer(status, header, "")).await.unwrap_err();
        let wait = wait.map(Duration::from_secs);
        assert_eq!((error.label(), error.advice()), ("throttled", Advice::RetryAfter(wait)));
    }
}

#[tokio::test]
async fn a_reset_connection_keeps_the_alert() {
    let url = format!("http://{}/{KEY}?k={KEY}", Receiver::resetting());
    let error = deliver(settings(&url)).await.unwrap_err();
    assert_eq!((error.label(), error.advice()), ("destination_fault", Advice::Retry));
    assert!(!shown(&error).contains(KEY), "{}", shown(&error));
}

#[tokio::test]
async fn nobody_listening_keeps_the_alert_and_names_the_cause() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = deliver(settings(&format!("http://{free}/?k={KEY}"))).await.unwrap_err();
    assert_eq!(error.label(), "destination_fault");
    assert!(shown(&error).contains("refused"), "{}", shown(&error));
    assert!(!shown(&error).contains(KEY), "{}", shown(&error));
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_no_more_than_the_time_limit() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_owned();
    let soon = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000);
    for head in [None, Some(half), Some(soon)] {
        let receiver =
            Receiver::new(move |_request| head.clone().map_or(Behave::Hang, Behave::HangAfter));
        let mut impatient = settings(&receiver.url());
        impatient.timeout = Duration::from_millis(300);
        let error = deliver(impatient).await.unwrap_err();
        assert_eq!((error.label(), error.advice()), ("timeout", Advice::Retry));
    }
}

#[tokio::test]
async fn a_success_that_breaks_off_is_none() {
    let error = after("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap_err();
    assert_eq!(error.label(), "destination_fault");
    let error = after("HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap_err();
    assert_eq!(error.label(), "auth");
}

#[tokio::test]
async fn an_endless_answer_is_read_only_at_its_beginning() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
    let receiver = Receiver::new(|_request| Behave::Flood(head, "x"));
    let receipt = deliver(settings(&receiver.url())).await.unwrap();
    assert_eq!(receipt.excerpt, "x".repeat(4_000));
    let taken = receiver.flooded();
    assert!(taken < 64 * 1024 * 1024, "{taken} bytes were taken");
}

#[tokio::test]
async fn a_head_or_a_frame_without_end_keeps_the_alert() {
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
        ("HTTP/1.1 200 OK\r\nX: ", "y"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "y"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n"),
    ] {
        let receiver = Receiver::new(move |_request| Behave::Flood(head, piece));
        let error = deliver(settings(&receiver.url())).await.unwrap_err();
        assert_eq!(error.label(), "destination_fault", "{head}{piece}");
    }
}

#[tokio::test]
async fn what_is_no_answer_keeps_the_alert() {
    for nonsense in [
        "",
        "\u{16}\u{3}\u{1}\u{2}",
        "220 mail.example.com ESMTP\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<!DOCTYPE html><title>Log in</title>",
    ] {
        let error = after(nonsense).await.unwrap_err();
        assert_eq!(error.advice(), Advice::Retry, "{nonsense}");
    }
}

#[tokio::test]
async fn a_packed_answer_is_not_unpacked() {
    let packed = answer("200 OK", "Content-Encoding: gzip\r\n", "abcd");
    assert_eq!(after(&packed).await.unwrap().excerpt, "abcd");
}

#[tokio::test]
async fn a_look_up_whose_answer_is_too_long_or_none_sends_nothing() {
    let long = format!("[\"{}\"]", "x".repeat(300_000));
    for answered in [long.as_str(), "<html>log in</html>", "{\"error\": 1}"] {
        let receiver = Receiver::answering(&ok(answered));
        let mut asking = settings(&receiver.url());
        asking.preset = preset(
            "lookup: {path: /find, found: key in text, answered: json and not json.error}\n\
             request: {body: alert}\n",
        );
        let error = deliver(asking).await.unwrap_err();
        assert_eq!(error.advice(), Advice::Retry, "{}", error.answer().unwrap().excerpt);
        assert_eq!(receiver.got().len(), 1, "one question and no alert");
    }
}

#[tokio::test]
async fn an_echoed_signature_is_masked() {
    let echo = |got: &receiver::Got| {
        let signatures = [got.header("webhook-signature"), got.header("x-signature")].concat();
        Behave::Answer(answer("500 Oops", "", &format!("bad {}", signatures.join(" "))))
    };
    let receiver = Receiver::new(echo);
    let mut signed = settings(&receiver.url());
    signed.signing_secret = Some(secret("s1gning-key-0f-0urs"));
    signed.secrets.insert("key".to_owned(), secret("h4mac-key"));
    signed.preset = preset(
        "params: {key: {type: secret, help: x}}\n\
         auth: [{hmac: {header: X-Signature, key: '{{ params.key }}', prefix: 'sha256='}}]\n\
         request: {body: alert}\n",
    );
    let error = deliver(signed).await.unwrap_err();
    assert_eq!(error.answer().unwrap().excerpt, "bad *** ***");
}

#[tokio::test]
async fn a_10_mb_answer_leaves_a_short_excerpt() {
    let body = "ä".repeat(5_000_000);
    let receipt = after(&ok(&body)).await.unwrap();
    assert_eq!(receipt.excerpt, "ä".repeat(2_000));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_keeps_the_alert() {
    let url = format!("http://no-such-host.invalid/{KEY}?k={KEY}");
    let mut unknown = settings(&url);
    unknown.timeout = Duration::from_secs(60);
    let error = deliver(unknown).await.unwrap_err();
    assert_eq!(error.advice(), Advice::Retry);
    assert!(!shown(&error).contains(KEY), "{}", shown(&error));
}

#[test]
fn a_metadata_address_is_refused_at_setup() {
    for url in ["http://169.254.169.254/", "https://[::ffff:169.254.169.254]/x"] {
        let error = Destination::new(settings(url), clock()).unwrap_err();
        assert!(error.to_string().contains("link-local"), "{error}");
    }
}

#[tokio::test]
async fn an_echoed_secret_is_masked_everywhere() {
    let echo = |got: &receiver::Got| {
        let text = format!("{} {:?}", got.line, got.header("authorization"));
        Behave::Answer(answer("403 Forbidden", "", &text))
    };
    let receiver = Receiver::new(echo);
    let mut with_header = settings(&receiver.url());
    with_header.headers =
        vec![("Authorization".to_owned(), HeaderValue::Secret(secret("Bearer t0ken-0f-0urs")))];
    with_header.signing_secret = Some(secret("s1gning-key-0f-0urs"));
    let destination = destination(with_header);
    let debug = format!("{destination:?} {:?}", destination.settings);
    let error = destination.deliver(&sample_alert("text")).await.unwrap_err();
    let Answer { excerpt, .. } = error.answer().unwrap();
    assert_eq!(excerpt, "POST *** HTTP/1.1 [\"***\"]");
    for text in [shown(&error), debug] {
        for piece in [KEY, "t0ken", "s1gning", "0123456789abcdef"] {
            assert!(!text.contains(piece), "{text}");
        }
    }
}

#[tokio::test]
async fn a_rotated_secret_is_used_at_once_after_a_refusal() {
    let receiver = Receiver::new(|got| {
        let known = got.header("x-key") == ["new"] && got.line.contains("/new ");
        Behave::Answer(answer(if known { "200 OK" } else { "401 No" }, "", ""))
    });
    let dir = tempfile::tempdir().unwrap();
    let (url_file, key_file) = (dir.path().join("url"), dir.path().join("key"));
    let url = |path| format!("http://{}/{path}\n", receiver.address);
    fs::write(&url_file, url("old")).unwrap();
    fs::write(&key_file, "old\n").unwrap();
    let mut rotating = settings("http://unused/");
    rotating.url = Secret::file(&url_file, Form::Word).unwrap();
    let key = HeaderValue::Secret(Secret::file(&key_file, Form::Text).unwrap());
    rotating.headers = vec![("X-Key".to_owned(), key)];
    let destination = destination(rotating);
    let alert = sample_alert("text");
    assert_eq!(destination.deliver(&alert).await.unwrap_err().label(), "auth");
    fs::write(&url_file, url("new")).unwrap();
    fs::write(&key_file, "new\n").unwrap();
    assert!(destination.deliver(&alert).await.is_ok(), "the refused attempt is made again");
}

#[tokio::test]
async fn a_secret_rotated_to_nonsense_keeps_the_alert() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    fs::write(&file, "http://127.0.0.1:1/").unwrap();
    let mut rotating = settings("http://unused/");
    rotating.url = Secret::file(&file, Form::Word).unwrap();
    let url = rotating.url.clone();
    let destination = destination(rotating);
    for nonsense in ["h1dden-nonsense", "http://169.254.169.254/h1dden", "ftp://h1dden/"] {
        fs::write(&file, nonsense).unwrap();
        url.refresh().unwrap();
        let error = destination.deliver(&sample_alert("text")).await.unwrap_err();
        assert_eq!(error.advice(), Advice::Retry);
        assert!(!shown(&error).contains("h1dden"), "{}", shown(&error));
    }
}

#[tokio::test]
async fn a_preset_places_data_in_path_query_and_headers_only_encoded() {
    let receiver = Receiver::answering(&ok(""));
    let mut placed = settings(&receiver.url());
    placed.preset = preset(
        "request:\n  method: PUT\n  path: /alerts/{{ alert.title }}\n  \
         query: {category: '{{ alert.category }}'}\n  \
         headers: {X-Source: relay, Content-Type: application/vnd.x+json}\n  body: '{}'\n",
    );
    placed.headers = vec![("X-Source".to_owned(), HeaderValue::Plain("mine".to_owned()))];
    destination(placed).deliver(&sample_alert("a/b?c&d=e#f")).await.unwrap();
    let got = receiver.got().remove(0);
    assert_eq!(
        got.line,
        format!(
            "PUT /hooks/0123456789abcdef/alerts/a%2Fb%3Fc%26d%3De%23f\
             ?api_key={KEY}&category=a%2Fb%3Fc%26d%3De%23f HTTP/1.1"
        )
    );
    assert_eq!(got.header("x-source"), ["mine"]);
    assert_eq!(got.header("content-type"), ["application/vnd.x+json"]);
}

#[tokio::test]
async fn an_alert_that_no_request_can_be_made_of_is_given_up() {
    let receiver = Receiver::answering(&ok(""));
    let mut placed = settings(&receiver.url());
    placed.preset = preset("request: {path: '/{{ alert.title }}/x', body: alert}\n");
    let destination = destination(placed);
    let error = destination.deliver(&sample_alert("..")).await.unwrap_err();
    assert_eq!((error.label(), error.advice()), ("refused", Advice::GiveUpOnEvidence));
    assert!(receiver.got().is_empty());
}

#[tokio::test]
async fn an_id_that_no_header_can_carry_is_encoded() {
    let receiver = Receiver::answering(&ok(""));
    let mut alert = sample_alert("text");
    alert.id = "main:C\n1ü:1.000000:0".to_owned();
    destination(settings(&receiver.url())).deliver(&alert).await.unwrap();
    assert_eq!(receiver.got()[0].header("idempotency-key"), ["main:C%0A1%C3%BC:1.000000:0"]);
}

#[test]
fn every_mistake_of_the_settings_is_found_at_setup() {
    let with_header = |name: &str, value: &str| {
        let mut settings = settings("https://soar.example.com/");
        settings.headers = vec![(name.to_owned(), HeaderValue::Plain(value.to_owned()))];
        settings
    };
    let mut signing = settings("https://soar.example.com/");
    signing.signing_secret = Some(secret("whsec_h1dden*"));
    let mut params = settings("https://soar.example.com/");
    params.params = Map::from_iter([("a".to_owned(), 1.into())]);
    for (settings, word) in [
        (settings("soar.example.com/h1dden"), "url"),
        (settings("ftp://soar.example.com/h1dden"), "https://"),
        (settings("http://"), "url"),
        (with_header("X Y", ""), "X Y"),
        (with_header("X-Y", "a\nh1dden"), "X-Y"),
        (with_header("Host", "x"), "relay itself"),
        (with_header("Idempotency-Key", "x"), "relay itself"),
        (signing, "whsec_"),
        (params, "parameter"),
    ] {
        let error = Destination::new(settings, clock()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert!(!format!("{error} {error:?}").contains("h1dden"), "{error:?}");
    }
}

#[test]
fn a_rendered_request_shows_everything_but_secrets() {
    let mut shown = settings(&format!("https://u:p4ss@soar.example.com:8443/hooks/{KEY}?k={KEY}"));
    shown.preset = preset(
        "request: {path: '/a/{{ alert.title }}', query: {q: '{{ alert.title }}'}, \
         body: '[{{ alert.title }}]'}\n",
    );
    shown.headers = vec![
        ("Authorization".to_owned(), HeaderValue::Secret(secret("Bearer t0ken"))),
        ("X-Team".to_owned(), HeaderValue::Plain("soc".to_owned())),
    ];
    shown.signing_secret = Some(secret("s1gning-key"));
    let text = destination(shown).render(&sample_alert("t t")).unwrap().to_string();
    insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"), @r#"
    POST https://soar.example.com:8443/***/a/t%20t?***&q=t+t HTTP/1.1
    authorization: ***
    content-type: application/json
    idempotency-key: main:C0123456789:1600689944.000500:0
    user-agent: slack-soar-relay/VERSION
    webhook-id: main:C0123456789:1600689944_000500:0
    webhook-signature: ***
    webhook-timestamp: 1600689950
    x-team: soc

    ["t t"]
    "#);
}

#[test]
fn a_rendered_url_without_a_secret_part_is_whole() {
    let rendered = |url: &str| {
        let destination = destination(settings(url));
        destination.render(&sample_alert("t")).unwrap().url
    };
    assert_eq!(rendered("https://soar.example.com"), "https://soar.example.com/");
    assert_eq!(rendered("https://soar.example.com/?a=b"), "https://soar.example.com/?***");
    assert_eq!(rendered("https://soar.example.com/a/"), "https://soar.example.com/***");
}

/// Host name in a certificate for localhost that has expired.
const EXPIRED: &str = "expired";

type Ca = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Test CA");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(authority: &Ca, host: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    if host == EXPIRED {
        params.subject_alt_names =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().subject_alt_names;
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    (params.signed_by(&key, authority).unwrap(), key)
}

fn tls_receiver(authority: &Ca, host: &str, clients: Option<&Ca>) -> Receiver {
    let (certificate, key) = leaf(authority, host);
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![certificate.der().clone()];
    Receiver::tls(config.with_single_cert(chain, key).unwrap())
}

fn tls_settings(receiver: &Receiver, dir: &Path, trusted: Option<&Ca>) -> Settings {
    let mut settings = settings(&format!("https://localhost:{}/{KEY}", receiver.address.port()));
    settings.client.ca_file = trusted.map(|authority| {
        let path = dir.join("ca.pem");
        fs::write(&path, authority.pem()).unwrap();
        path
    });
    settings
}

#[tokio::test]
async fn a_certificate_is_accepted_only_from_a_trusted_issuer_for_this_host() {
    let (ours, dir) = (authority(), tempfile::tempdir().unwrap());
    let good = tls_receiver(&ours, "localhost", None);
    let other_host = tls_receiver(&ours, "elsewhere.example.com", None);
    assert!(deliver(tls_settings(&good, dir.path(), Some(&ours))).await.is_ok());
    let expired = tls_receiver(&ours, EXPIRED, None);
    let stranger = authority();
    for (receiver, trusted) in [
        (&good, None),
        (&good, Some(&stranger)),
        (&other_host, Some(&ours)),
        (&expired, Some(&ours)),
    ] {
        let refused = tls_settings(receiver, dir.path(), trusted);
        let error = deliver(refused).await.unwrap_err();
        assert_eq!((error.label(), error.advice()), ("destination_fault", Advice::Retry));
        assert!(shown(&error).contains("certificate"), "{}", shown(&error));
        assert!(!shown(&error).contains(KEY), "{}", shown(&error));
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks_for_one() {
    let (ours, dir) = (authority(), tempfile::tempdir().unwrap());
    let receiver = tls_receiver(&ours, "localhost", Some(&ours));
    let mut known = tls_settings(&receiver, dir.path(), Some(&ours));
    let unknown = known.clone();
    let (certificate, key) = leaf(&ours, "relay");
    let (chain, key_file) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    fs::write(&chain, certificate.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    known.client.client_cert_file = Some(chain);
    known.client.client_key_file = Some(key_file);
    assert!(deliver(known).await.is_ok());
    assert_eq!(deliver(unknown).await.unwrap_err().advice(), Advice::Retry);
}

#[tokio::test]
async fn a_configured_proxy_is_used_and_the_environment_is_not() {
    let proxy = Receiver::answering(&ok(""));
    let mut through = settings("http://soar.example.com/hook");
    through.client.proxy = Some(format!("http://{}", proxy.address));
    deliver(through).await.unwrap();
    assert_eq!(proxy.got()[0].line, "POST http://soar.example.com/hook HTTP/1.1");
}

#[test]
fn a_whole_address_is_not_given_the_presets_path_again() {
    for base in ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/alert"] {
        let mut whole = settings(base);
        whole.preset = Preset::builtin("alerta").unwrap();
        whole.secrets.insert("api_key".to_owned(), secret("a-key"));
        let destination = destination(whole);
        let access = destination.access().unwrap();
        let request = destination.request(&access, &access.params, &sample_alert("t"));
        assert_eq!(request.unwrap().url.path(), "/alert", "{base}");
    }
}
