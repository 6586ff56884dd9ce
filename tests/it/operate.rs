//! The commands for operators, as the real binary, against a real relay.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{
    harness::{
        PATIENCE, SECRET, http,
        slack::{self, id, message},
        soar::{FakeSoar, Mood},
    },
    process::{Process, command, post_as_slack_does, run, write_config},
};

/// A running `demo`, with what it has said. It is killed when the test ends.
struct Demo {
    child: Child,
    keys: ChildStdin,
    lines: Receiver<String>,
    config: String,
    /// Beginning of the commands that are to be copied into another terminal.
    program: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = command()
            .arg("demo")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let keys = child.stdin.take().unwrap();
        let demo = Self { child, keys, lines, config: String::new(), program: String::new() };
        let hint = demo.until("alerts retry --all-dead --config ");
        let config = hint.split("--config ").nth(1).unwrap().to_owned();
        let program = hint.split(" alerts retry").next().unwrap().trim().to_owned();
        demo.with(config, program)
    }

    fn with(mut self, config: String, program: String) -> Self {
        (self.config, self.program) = (config, program);
        self
    }

    fn until(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{text}`"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn press_enter(&mut self) {
        self.keys.write_all(b"\n").unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        run(&[arguments, &["--config", &self.config]].concat())
    }
}

#[test]
fn an_alert_that_died_while_the_soar_was_stopped_is_found_understood_and_retried() {
    let mut demo = Demo::start(&["--max-age", "1s"]);
    assert!(Path::new(&demo.program).is_absolute(), "{}", demo.program);
    demo.press_enter();
    demo.until("The SOAR is stopped.");
    let (code, out, err) = demo.run(&["send-test", "--severity", "critical"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("soar: dead"), "{out}");
    let (_, listed, _) = demo.run(&["alerts", "list", "--state", "dead"]);
    let row = listed.lines().nth(1).unwrap();
    assert!(row.contains("critical") && row.contains("soar dead"), "{listed}");
    let alert = row.split_whitespace().nth(2).unwrap();
    let (_, shown, _) = demo.run(&["alerts", "show", alert]);
    assert!(shown.contains("max_age: undelivered for too long"), "{shown}");
    assert!(shown.contains("503") && shown.contains("the pretend SOAR is stopped"), "{shown}");
    assert!(![&listed, &shown].iter().any(|text| text.contains('\u{1b}')), "no colour in a pipe");
    demo.press_enter();
    demo.until("The SOAR runs.");
    let (code, out, _) = demo.run(&["alerts", "retry", "--all-dead", "--destination", "soar"]);
    assert_eq!((code, out.as_str()), (0, "1 delivery to be tried again now.\n"));
    demo.until("Test from slack-soar-relay");
    let delivered = || {
        let (_, out, _) = demo.run(&["alerts", "show", alert, "--json"]);
        let shown: Value = serde_json::from_str(&out).unwrap();
        shown["deliveries"][0]["state"] == "delivered"
    };
    // The SOAR's answer is a moment older than its record.
    assert!((0..100).any(|_| delivered()));
    let (code, _, err) = demo.run(&["alerts", "retry", alert]);
    assert_eq!(code, 1);
    assert!(err.contains("already delivered to soar"), "{err}");
}

#[test]
fn a_test_is_delivered_through_the_front_door_or_to_one_destination() {
    let demo = Demo::start(&[]);
    let (code, out, err) = demo.run(&["send-test", "--json"]);
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["delivered"], &report["deliveries"][0]["state"]),
        (&json!(true), &json!("delivered"))
    );
    let (code, out, err) = demo.run(&["send-test", "--destination", "soar"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("soar: delivered, status 200 in "), "{out}");
    let (code, _, err) = demo.run(&["send-test", "--destination", "nobody"]);
    assert_eq!(code, 1);
    assert!(err.contains("no destination `nobody`"), "{err}");
    assert_eq!(demo.run(&["send-test", "--severity", "huge"]).0, 2);
    assert_eq!(demo.run(&["send-test", "--app", "nobody"]).0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_that_a_destination_refuses_fails_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &["a"]);
    let soar = FakeSoar::new([Mood::Body(403, "key expired".to_owned())]).await;
    let process = Process::start(dir.path(), &[("URL_a".to_owned(), soar.url())]);
    let server = format!("http://{}", process.ops);
    let arguments = ["send-test", "--destination", "a", "--server", &server];
    let (code, out, err) = tokio::task::block_in_place(|| run(&arguments));
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("auth, status 403") && out.contains("key expired"), "{out}");
    assert!(!out.contains("hunter2"), "{out}");
}

#[tokio::test]
async fn commands_find_the_relay_by_its_address_and_bring_the_token() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let path = dir.path().join("relay.yaml");
    let yaml = std::fs::read_to_string(&path).unwrap();
    let yaml = yaml.replace("drain_delay: 0s", "drain_delay: 0s, ops_token: {file: token}");
    std::fs::write(&path, yaml).unwrap();
    std::fs::write(dir.path().join("token"), "right\n").unwrap();
    std::fs::write(dir.path().join("wrong"), "wrong\n").unwrap();
    let process = Process::start(dir.path(), &[]);
    let server = format!("http://{}", process.ops);
    let list = |file: &str| {
        let file = dir.path().join(file);
        run(&["alerts", "list", "--server", &server, "--token-file", file.to_str().unwrap()])
    };
    assert_eq!(list("token").0, 0);
    let (code, _, err) = list("wrong");
    assert_eq!(code, 1);
    assert!(err.contains("ops_token") && err.contains("--token-file"), "{err}");
    let bare = ["alerts", "list", "--server", &server];
    assert_eq!(run(&bare).0, 1);
    let output = command().args(bare).env("RELAY_OPS_TOKEN", "right").output().unwrap();
    assert!(output.status.success());
    let config = ["alerts", "list", "--config", path.to_str().unwrap()];
    let (code, _, err) = run(&config);
    assert_eq!(code, 1);
    assert!(err.contains("`ops_listen` does not have a fixed port: give --server"), "{err}");
}

#[test]
fn a_command_says_what_it_lacks() {
    let (code, _, err) = run(&["alerts", "list", "--server", "http://127.0.0.1:1"]);
    assert_eq!(code, 1);
    assert!(err.contains("no relay answers at http://127.0.0.1:1"), "{err}");
    let (code, _, err) = run(&["alerts", "list"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("--server") && err.contains("/nowhere/relay.yaml"), "{err}");
    assert_eq!(run(&["alerts", "list", "--server", "relay:9090"]).0, 1);
    assert_eq!(run(&["alerts", "retry"]).0, 2, "nothing is meant by leaving everything out");
    assert_eq!(run(&["alerts", "retry", "a:b:1.0:0", "--all-dead"]).0, 2);
    assert_eq!(run(&["alerts", "cancel", "--all-pending"]).0, 2, "a destination is needed");
    assert_eq!(run(&["alerts", "list", "--state", "broken"]).0, 2);
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, _) = run(&["completions", shell]);
        assert_eq!(code, 0, "{shell}");
        assert!(out.contains("send-test") && out.contains("backup"), "{shell}");
    }
    assert!(run(&["man"]).1.starts_with(".ie "));
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("not/there/yet");
    assert_eq!(run(&["man", "--out", folder.to_str().unwrap()]).0, 0);
    assert!(folder.join("slack-soar-relay-alerts-retry.1").exists());
}

fn backup(dir: &Path, file: &str) -> (i32, String, String) {
    backup_to(dir, &dir.join(file))
}

fn backup_to(dir: &Path, to: &Path) -> (i32, String, String) {
    let config = dir.join("relay.yaml");
    run(&["backup", to.to_str().unwrap(), "--json", "--config", config.to_str().unwrap()])
}

/// The `ts` of every alert in a copy that is whole.
fn alerts_of(copy: &Path) -> BTreeSet<i64> {
    let db = Connection::open(copy).unwrap();
    let sound: String = db.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let mut statement = db.prepare("SELECT ts FROM alerts").unwrap();
    statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn ts_of(n: u32) -> i64 {
    message(n)["ts"].as_str().unwrap().replace('.', "").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_under_load_holds_every_alert_that_was_acknowledged_before_it() {
    const BACKUPS: usize = 4;
    const POSTERS: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let process = Arc::new(Process::start(dir.path(), &[]));
    let acknowledged: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let (next, is_over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let mut posters = tokio::task::JoinSet::new();
    for _ in 0..POSTERS {
        let (process, acknowledged) = (Arc::clone(&process), Arc::clone(&acknowledged));
        let (next, is_over) = (Arc::clone(&next), Arc::clone(&is_over));
        posters.spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let n = next.fetch_add(1, Ordering::SeqCst);
                if process.post(n).await == Some(200) {
                    acknowledged.lock().unwrap().insert(ts_of(n));
                }
            }
        });
    }
    let root = dir.path().to_owned();
    let known = Arc::clone(&acknowledged);
    let copies = tokio::task::spawn_blocking(move || {
        let copy = |number: usize| {
            while known.lock().unwrap().len() < 300 * (number + 1) {
                std::thread::yield_now();
            }
            let before = known.lock().unwrap().clone();
            let name = format!("copy-{number}.db");
            let (code, out, err) = backup(&root, &name);
            assert_eq!(code, 0, "{err}");
            (root.join(name), before, serde_json::from_str::<Value>(&out).unwrap())
        };
        (0..BACKUPS).map(copy).collect::<Vec<_>>()
    });
    let copies = copies.await.unwrap();
    let after = acknowledged.lock().unwrap().len();
    is_over.store(true, Ordering::SeqCst);
    while let Some(ended) = posters.join_next().await {
        ended.unwrap();
    }
    for (copy, before, report) in copies {
        let found = alerts_of(&copy);
        let lost: Vec<_> = before.difference(&found).collect();
        assert!(lost.is_empty(), "{} of {} are not in the copy", lost.len(), before.len());
        assert_eq!(report["alerts"], json!(found.len()));
        assert_eq!(report["bytes"], json!(std::fs::metadata(&copy).unwrap().len()));
        assert!(before.len() < after, "nothing was accepted during the backup");
    }
}

#[tokio::test]
async fn a_copy_is_a_store_that_a_relay_starts_with() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let process = Process::start(dir.path(), &[]);
    assert_eq!(process.post(1).await, Some(200));
    assert_eq!(backup(dir.path(), "copy.db").0, 0);
    drop(process);
    let restored = tempfile::tempdir().unwrap();
    write_config(restored.path(), &[]);
    std::fs::rename(dir.path().join("copy.db"), restored.path().join("relay.db")).unwrap();
    let process = Process::start(restored.path(), &[]);
    let headers = [("Host".to_owned(), "localhost".to_owned())];
    let path = format!("/api/v1/alerts/{}", id(1));
    let answer = http::request(process.ops, "GET", &path, &headers, b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_backup_of_postgresql_is_left_to_its_own_tools() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("url"), "postgresql://relay:hunter2@127.0.0.1:1/relay").unwrap();
    let yaml = "slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}\n\
                store: {postgres: {url: {file: url}}}\ndestinations: []\n";
    std::fs::write(dir.path().join("relay.yaml"), yaml).unwrap();
    let (code, out, err) = backup(dir.path(), "copy.db");
    assert!(code == 2 && err.contains("pg_dump -n relay"), "{err}");
    assert!(!err.contains("hunter2") && out.is_empty() && !dir.path().join("copy.db").exists());
}

#[test]
fn a_backup_never_overwrites_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let (code, _, err) = backup(dir.path(), "copy.db");
    assert_eq!(code, 1);
    assert!(err.contains("there is no store yet"), "{err}");
    std::fs::write(dir.path().join("relay.db"), SECRET).unwrap();
    let (code, _, err) = backup(dir.path(), "copy.db");
    assert_eq!(code, 1);
    assert!(err.contains("not a SQLite database"), "{err}");
    std::fs::write(dir.path().join("copy.db"), "yesterday's").unwrap();
    let (code, _, err) = backup(dir.path(), "copy.db");
    assert_eq!(code, 1);
    assert!(err.contains("exists already"), "{err}");
    assert_eq!(std::fs::read_to_string(dir.path().join("copy.db")).unwrap(), "yesterday's");
    std::fs::remove_file(dir.path().join("relay.db")).unwrap();
    let (code, _, err) = backup(dir.path(), "no-folder/copy.db");
    assert!(code == 1 && err.contains("no-folder"), "{err}");
}

#[tokio::test]
async fn a_backup_that_is_ended_leaves_nothing_behind_for_long() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let mut process = Process::start(dir.path(), &[]);
    for n in 0..40 {
        let body = slack::large_incident(n, 2_000_000).to_string();
        post_as_slack_does(&process, &body).await;
    }
    process.terminate();
    let out = dir.path().join("copies");
    std::fs::create_dir(&out).unwrap();
    let left = || -> Vec<String> {
        let names = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    };
    for signal in ["-KILL", "-TERM", "-INT", "-HUP"] {
        let mut backup = command()
            .args(["backup", "--config"])
            .arg(dir.path().join("relay.yaml"))
            .arg(out.join("copy.db"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It is at work as soon as its file grows.
        let at_work = || {
            let entries = std::fs::read_dir(&out).unwrap().flatten();
            entries.flat_map(|entry| entry.metadata()).any(|found| found.len() > 0)
        };
        while !at_work() {
            assert!(backup.try_wait().unwrap().is_none(), "it ended too early");
        }
        let pid = backup.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert!(!backup.wait().unwrap().success(), "{signal}");
        assert!(!left().contains(&"copy.db".to_owned()), "{signal}: half a copy");
        if signal == "-KILL" {
            assert!(!left().is_empty(), "nobody could remove it");
            assert_eq!(backup_to(dir.path(), &out.join("whole.db")).0, 0);
            assert_eq!(left(), ["whole.db"], "the next one did");
            std::fs::remove_file(out.join("whole.db")).unwrap();
        } else {
            assert_eq!(left(), [""; 0], "{signal}");
        }
    }
}
