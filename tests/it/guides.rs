//! Steps of the documentation, run as they are written.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    documents::code_blocks,
    harness::{SECRET, Setup, http, slack, soar::FakeSoar},
    process::{Process, run, write_config},
    source::{files, root},
};

/// Runs the only block of a page's shell code that contains a text, in a folder.
fn run_block(page: &str, with: &str, dir: &Path, env: &[(&str, &str)]) -> String {
    let text = fs::read_to_string(root().join("docs").join(page)).unwrap();
    let mut blocks = code_blocks(&text, "sh");
    blocks.retain(|block| block.contains(with));
    let [block] = &*blocks else { panic!("{page}: {} blocks with {with}", blocks.len()) };
    let mut shell = Command::new("bash");
    shell.args(["-euc", block]).current_dir(dir).envs(env.iter().copied());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_event_of_the_documentation_becomes_an_alert() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let process = Process::start(dir.path(), &[]);
    let relay = format!("http://{}", process.public);
    let posted = |secret: &str| {
        let env = [("SLACK_SIGNING_SECRET", secret), ("RELAY", &relay), ("CHANNEL", "C1")];
        run_block("test-event.md", "openssl dgst", dir.path(), &env)
    };
    assert_eq!(posted("another secret"), "401\n");
    assert_eq!(posted(SECRET), "200\n");
    let headers = [("Host".to_owned(), "localhost".to_owned())];
    let answer = http::request(process.ops, "GET", "/api/v1/alerts", &headers, b"").await;
    let alerts: Value = serde_json::from_slice(&answer.body).unwrap();
    let id = alerts["alerts"][0]["id"].as_str().unwrap();
    assert!(id.starts_with("main:C1:"), "{alerts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_restored_by_the_documented_steps_has_its_alerts() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let mut process = Process::start(dir.path(), &[]);
    assert_eq!(process.post(1).await, Some(200));
    let (copy, config) = (dir.path().join("relay-copy.db"), dir.path().join("relay.yaml"));
    let arguments = ["backup", copy.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let (code, _, err) = run(&arguments);
    assert_eq!(code, 0, "{err}");
    process.terminate();
    drop(process);
    let store = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    for file in store.filter(|path| path.file_name().unwrap().to_string_lossy().contains(".db")) {
        if file != copy {
            fs::write(file, "overwritten by a broken disk").unwrap();
        }
    }

    run_block("operations.md", "mv relay.db*", dir.path(), &[]);

    let process = Process::start(dir.path(), &[]);
    let headers = [("Host".to_owned(), "localhost".to_owned())];
    let path = format!("/api/v1/alerts/{}", slack::id(1));
    assert_eq!(http::request(process.ops, "GET", &path, &headers, b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_that_is_sent_fits_its_schema() {
    let (code, out, err) = run(&["schema", "--alert"]);
    assert_eq!(code, 0, "{err}");
    let schema = jsonschema::validator_for(&serde_json::from_str(&out).unwrap()).unwrap();
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let mut sent = 0;
    for (file, second) in files("tests/data/slack", "json").iter().zip(1_600_680_000..) {
        let event = fs::read_to_string(root().join(file)).unwrap();
        let event = event.replace("1600689944", &format!("{second}"));
        assert_eq!(relay.post_bytes(event.as_bytes()).await, 200, "{file}");
    }
    relay.settled().await;
    for request in soar.received() {
        let alert = request.body;
        let faults: Vec<_> = schema.iter_errors(&alert).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?} in {alert:#}");
        sent += 1;
    }
    assert!(sent >= 5, "{sent}");
}
