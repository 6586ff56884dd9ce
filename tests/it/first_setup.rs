//! `setup` and `manifest --link`: from nothing to a configuration that passes `check`.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use url::Url;

const SIGNING_SECRET: &str = "8f742231b10e8888abcd99baaaa85a5f";

/// Runs the binary in a folder and gives it these lines. Returns the exit code and all it said.
fn run(dir: &Path, arguments: &[&str], lines: &[&str]) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_slack-soar-relay"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("RELAY_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input: String = lines.iter().flat_map(|line| [*line, "\n"]).collect();
    // It may end before it has read everything.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The manifest inside a link to Slack's dialog.
fn manifest_of(link: &str) -> Value {
    let link: Url = link.parse().unwrap();
    assert_eq!(link.as_str().split('?').next(), Some("https://api.slack.com/apps"));
    assert!(!link.as_str().contains('+'), "a blank must be %20: {link}");
    let values: HashMap<_, _> = link.query_pairs().collect();
    assert_eq!(values["new_app"], "1");
    serde_json::from_str(&values["manifest_json"]).unwrap()
}

#[test]
fn the_link_holds_the_whole_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let url = "https://relay.example.com";
    let (code, link) = run(dir.path(), &["manifest", "--url", url, "--link"], &[]);
    assert_eq!(code, 0, "{link}");
    let (_, json) = run(dir.path(), &["manifest", "--url", url, "--json"], &[]);
    assert_eq!(manifest_of(link.trim()), serde_json::from_str::<Value>(&json).unwrap());
    assert_eq!(run(dir.path(), &["manifest", "--url", url, "--link", "--json"], &[]).0, 2);
}

#[test]
fn five_answers_make_a_configuration_that_passes_its_check() {
    let dir = tempfile::tempdir().unwrap();
    let soar = "https://soar.example.com/hook?key=hunter2";
    let answers = [
        "https://relay.example.com/slack/events",
        "C0123456789",
        SIGNING_SECRET,
        "xoxb-1-2-x",
        "",
        soar,
    ];
    let (code, out) = run(dir.path(), &["setup"], &answers);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("relay.yaml: ok (1 app, 1 destination)"), "{out}");
    for left in ["Delayed Events", "/invite", "serve --config relay.yaml", "doctor", "send-test"] {
        assert!(out.contains(left), "{left} is not in\n{out}");
    }
    let link = out.lines().find(|line| line.starts_with("https://api.slack.com/")).unwrap();
    let url = &manifest_of(link)["settings"]["event_subscriptions"]["request_url"];
    assert_eq!(url, "https://relay.example.com/slack/events");
    let yaml = fs::read_to_string(dir.path().join("relay.yaml")).unwrap();
    for secret in [SIGNING_SECRET, "xoxb-1-2-x", "hunter2"] {
        assert!(!yaml.contains(secret) && !out.contains(secret), "{secret} is shown");
    }
    let secrets = dir.path().join("secrets");
    assert_eq!(mode(&secrets), 0o700);
    for (name, value) in [
        ("slack-signing-secret", SIGNING_SECRET),
        ("slack-bot-token", "xoxb-1-2-x"),
        ("soar-url", soar),
    ] {
        assert_eq!(fs::read_to_string(secrets.join(name)).unwrap().trim_end(), value);
        assert_eq!(mode(&secrets.join(name)), 0o600, "{name}");
    }
    let (code, out) = run(dir.path(), &["setup"], &answers);
    assert!(code == 2 && out.contains("exists already"), "{out}");
    assert_eq!(fs::read_to_string(dir.path().join("relay.yaml")).unwrap(), yaml);
    // As it advises; the secrets are still there, which is said before any question.
    fs::rename(dir.path().join("relay.yaml"), dir.path().join("old.yaml")).unwrap();
    let (code, out) = run(dir.path(), &["setup"], &[]);
    assert!(code == 2 && out.contains("secrets/") && out.contains("exists already"), "{out}");
    assert!(!out.contains("1. Address"), "{out}");
}

#[test]
fn a_preset_is_asked_for_what_it_needs_and_for_nothing_else() {
    let answers = |preset, more: &[&'static str]| {
        let first = ["https://relay.example.com", "C0123456789", SIGNING_SECRET, "", preset];
        [&first, more].concat()
    };
    let mut tried = 0;
    for preset in slack_soar_relay::destination::preset::Preset::builtin_names() {
        let dir = tempfile::tempdir().unwrap();
        let preset_needs: &[&str] = match preset {
            "pagerduty" => &["0123456789abcdef0123456789abcdef"],
            "feed" => &["a-token-for-readers"],
            "stdout" => &[],
            "webhook" => &["https://soar.example.com/hook"],
            _ => continue,
        };
        let (code, out) = run(dir.path(), &["setup"], &answers(preset, preset_needs));
        assert_eq!(code, 0, "{preset}: {out}");
        assert!(out.contains("relay.yaml: ok"), "{preset}: {out}");
        tried += 1;
    }
    assert_eq!(tried, 4);
}

#[test]
fn an_answer_that_cannot_be_right_ends_a_script_and_nothing_is_written() {
    let good = ["https://relay.example.com", "C0123456789", SIGNING_SECRET, "", "webhook"];
    let wrong = [
        (0, "http://relay.example.com", "https://"),
        (1, "", "an answer is needed"),
        (2, "not a secret", "32 hexadecimal digits"),
        (3, "xoxp-1", "begins with xoxb-"),
        (1, "cd-alerts", "given by its id"),
        (4, "webbook", "is not a preset"),
    ];
    for (place, answer, says) in wrong {
        let dir = tempfile::tempdir().unwrap();
        let mut answers = good;
        answers[place] = answer;
        let (code, out) = run(dir.path(), &["setup"], &answers);
        assert!(code == 1 && out.contains(says), "{answer}: {out}");
        assert!(!out.contains("panicked") && !dir.path().join("relay.yaml").exists(), "{out}");
        assert!(!dir.path().join("secrets").exists());
    }
    let dir = tempfile::tempdir().unwrap();
    let (code, out) = run(dir.path(), &["setup"], &good[..2]);
    assert!(code == 1 && out.contains("no answer was given"), "{out}");
}
