//! The commands for operators while the configuration has a mistake, or its secrets are not in the
//! shell: they need where the relay is, and no more.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    harness::{SECRET, slack},
    process::{Process, command, write_config},
};

/// A relay that runs, and the text of a file that describes it with its real addresses.
struct World {
    dir: tempfile::TempDir,
    process: Process,
    yaml: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_config(dir.path(), &[]);
        let yaml = fs::read_to_string(dir.path().join("relay.yaml")).unwrap();
        let yaml = yaml.replace("drain_delay", "ops_token: {env: TOKEN}, drain_delay");
        fs::write(dir.path().join("relay.yaml"), &yaml).unwrap();
        let process = Process::start(dir.path(), &[("TOKEN".to_owned(), "t0ken".to_owned())]);
        let yaml = yaml.replacen("127.0.0.1:0", &process.public.to_string(), 1).replacen(
            "127.0.0.1:0",
            &process.ops.to_string(),
            1,
        );
        Self { dir, process, yaml }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command with a file of this text: exit code, standard output, standard error.
    fn run(&self, yaml: &str, env: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
        fs::write(self.path().join("faulty.yaml"), yaml).unwrap();
        self.run_with("faulty.yaml", env, arguments)
    }

    fn run_with(
        &self,
        file: &str,
        env: &[(&str, &str)],
        arguments: &[&str],
    ) -> (i32, String, String) {
        let Output { status, stdout, stderr } = command()
            .current_dir(self.path())
            .env_remove("SECRET")
            .envs(env.iter().copied())
            .args(arguments)
            .args(["--config", file])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

/// Mistakes, none of which is in what the commands need.
fn mistakes(yaml: &str) -> Vec<(&'static str, String)> {
    let with = |more: &str| format!("{yaml}{more}");
    vec![
        ("an unknown key", with("unheard_of: 1\n")),
        (
            "a destination without its secret",
            yaml.replace("  []", "  [{name: a, preset: webhook, url: {env: GONE}}]"),
        ),
        (
            "an unknown preset",
            yaml.replace("  []", "  [{name: a, preset: webhok, url: {env: TOKEN}}]"),
        ),
        ("a title that is not a regular expression", with("match: {titles: ['/(/']}\n")),
        ("a section written twice", with("slack: {apps: []}\n")),
        ("text that is not YAML", with("catch_up: {every: [60s\n")),
        ("a tab", with("catch_up:\n\tevery: 60s\n")),
        ("marks of a merge", with("<<<<<<< HEAD\n")),
    ]
}

const SHELL: [(&str, &str); 2] = [("SECRET", SECRET), ("TOKEN", "t0ken")];

fn is_one_warning(err: &str) -> bool {
    err.lines().count() == 1 && err.starts_with("warning: faulty.yaml:")
}

#[tokio::test]
async fn operators_reach_the_relay_whatever_else_is_wrong_with_the_file() {
    let world = World::new();
    assert_eq!(world.process.post(1).await, Some(200));
    for (what, yaml) in mistakes(&world.yaml) {
        let (code, out, err) = world.run(&yaml, &SHELL, &["alerts", "list"]);
        assert_eq!(code, 0, "{what}: {err}");
        assert!(out.contains(&slack::id(1)) && is_one_warning(&err), "{what}: {out}{err}");
        let (code, out, err) = world.run(&yaml, &SHELL, &["healthcheck"]);
        assert_eq!((code, out.as_str()), (0, "ok\n"), "{what}: {err}");
        assert!(is_one_warning(&err), "{what}: {err}");
        let (_, out, err) = world.run(&yaml, &SHELL, &["send-test", "--wait", "0", "--json"]);
        let sent: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{what}: {err}"));
        assert!(sent["id"].is_string() && is_one_warning(&err), "{what}: {out}{err}");
    }
}

#[tokio::test]
async fn the_doctor_names_each_mistake_and_checks_the_rest() {
    let world = World::new();
    for (what, yaml) in mistakes(&world.yaml) {
        let (code, out, err) = world.run(&yaml, &SHELL, &["doctor"]);
        assert!([0, 1].contains(&code) && is_one_warning(&err), "{what}: {out}{err}");
        let expected = if what.contains("without its secret") { "warn  " } else { "FAIL  " };
        assert!(
            out.starts_with(&format!("{expected}configuration: faulty.yaml:")),
            "{what}: {out}"
        );
        assert!(
            out.contains("ok    store: ") && out.contains("ok    relay: running"),
            "{what}: {out}"
        );
    }
    let (_, out, err) = world.run(&world.yaml, &SHELL, &["doctor"]);
    assert!(out.starts_with("ok    configuration: ") && err.is_empty(), "{out}{err}");
    // A short token, no bot token, any bot, no destination.
    assert!(out.contains("`check` prints 4 warnings"), "{out}");
}

#[tokio::test]
async fn without_its_secrets_in_the_shell_only_what_is_signed_is_refused() {
    let world = World::new();
    assert_eq!(world.process.post(1).await, Some(200));
    let token: &[(&str, &str)] = &[("RELAY_OPS_TOKEN", "t0ken")];
    let (code, out, err) = world.run(&world.yaml, token, &["alerts", "list"]);
    assert!(code == 0 && out.contains(&slack::id(1)), "{err}");
    assert!(err.contains("and 1 more problem (`check` lists all)"), "{err}");
    assert_eq!(world.run(&world.yaml, &[], &["healthcheck"]).0, 0);
    let (code, out, _) = world.run(&world.yaml, &[], &["doctor"]);
    assert!(code == 0 && out.contains("warn  configuration: "), "{out}");
    assert!(!out.contains("has the right form"), "a secret that nobody has seen: {out}");
    let (code, _, err) = world.run(&world.yaml, token, &["send-test"]);
    assert!(code == 2 && err.contains("signing secret of no app can be read"), "{err}");
    let (code, _, err) = world.run(&world.yaml, &[], &["alerts", "list"]);
    assert!(code == 1 && err.contains("RELAY_OPS_TOKEN"), "{err}");
}

#[tokio::test]
async fn a_backup_needs_the_path_of_the_store_alone() {
    let world = World::new();
    for (number, (what, yaml)) in mistakes(&world.yaml).into_iter().enumerate() {
        let copy = format!("copy-{number}.db");
        let (code, out, err) = world.run(&yaml, &[], &["backup", &copy]);
        assert!(code == 0 && out.starts_with(&copy) && is_one_warning(&err), "{what}: {err}");
    }
    for store in ["store: {sqlite: {path: 5}}\n", "store: {sqlite: {path: relay.db\n", "store: 5\n"]
    {
        let yaml = format!("{}{store}", world.yaml);
        let (code, _, err) = world.run(&yaml, &[], &["backup", "wrong.db"]);
        assert!(code == 2 && !world.path().join("wrong.db").exists(), "{store}: {err}");
    }
    let database = format!("{}store: {{postgres: {{url: {{env: GONE}}}}}}\n", world.yaml);
    let (code, _, err) = world.run(&database, &[], &["backup", "wrong.db"]);
    assert!(code == 2 && err.contains("pg_dump"), "{err}");
    assert_eq!(world.run_with("nowhere.yaml", &[], &["backup", "wrong.db"]).0, 2);
}

#[tokio::test]
async fn a_relay_that_the_file_does_not_name_is_named_by_hand() {
    let world = World::new();
    let nameless = world.yaml.replace(&world.process.ops.to_string(), "nonsense");
    let server = format!("http://{}", world.process.ops);
    let (code, _, err) = world.run(&nameless, &SHELL, &["alerts", "list"]);
    assert!(code == 2 && err.contains("ops_listen") && err.contains("--server"), "{err}");
    for file in ["faulty.yaml", "nowhere.yaml"] {
        let env = [("RELAY_OPS_TOKEN", "t0ken"), ("SECRET", SECRET)];
        let (code, _, err) = world.run_with(file, &env, &["alerts", "list", "--server", &server]);
        assert!(code == 0 && !err.contains("warning"), "{err}");
    }
}

#[tokio::test]
async fn a_backup_to_standard_output_is_a_whole_store_and_refuses_a_terminal() {
    let world = World::new();
    assert_eq!(world.process.post(1).await, Some(200));
    let copy = world.path().join("copy.db");
    let backup = |arguments: &[&str]| {
        let mut backup = command();
        backup.current_dir(world.path()).arg("backup").args(arguments).arg("--config=relay.yaml");
        backup
    };
    let done = backup(&["-"]).stdout(fs::File::create(&copy).unwrap()).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success() && said.contains("1 alerts"), "{said}");
    let db = rusqlite::Connection::open(&copy).unwrap();
    let alerts: i64 = db.query_row("SELECT count(*) FROM alerts", (), |row| row.get(0)).unwrap();
    assert_eq!(alerts, 1);
    let names = fs::read_dir(world.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("backup")).collect();
    assert!(left.is_empty(), "{left:?}");
    // A terminal of its own, made by script(1).
    let program = env!("CARGO_BIN_EXE_slack-soar-relay");
    let refused = Command::new("script")
        .current_dir(world.path())
        .env("SECRET", SECRET)
        .args(["-qec", &format!("{program} backup - --config relay.yaml"), "/dev/null"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("is a terminal"), "{said}");
    // Nobody reads: a copy that is not whole is a failure.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(backup(&["-"]).stdout(full).status().unwrap().code(), Some(1));
}

#[test]
fn errors_of_a_start_are_lines_of_json_where_the_log_is() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = "slack: {apps: [{name: Main, signing_secret: {env: NOWHERE}}]}\nserver: {lisen: x}\n\
                match: {titles: ['/(/']}\n";
    fs::write(dir.path().join("relay.yaml"), yaml).unwrap();
    fs::write(dir.path().join("relay.db"), "this is not a store, whatever its name says").unwrap();
    let said = |arguments: &[&str]| {
        let output = command().current_dir(dir.path()).args(arguments).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let lines = |arguments: &[&str]| -> Vec<Value> {
        said(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let serve = ["serve", "--config", "relay.yaml"];
    for more in [&[][..], &["--log-format", "json"]] {
        let lines = lines(&[&serve, more].concat());
        assert_eq!(lines.len(), 4, "{lines:#?}");
        for line in &lines {
            assert_eq!(line["level"], "ERROR", "{line}");
            assert!(line["message"].as_str().unwrap().starts_with("relay.yaml:"), "{line}");
            assert!(line["timestamp"].is_string() && line["target"].is_string(), "{line}");
        }
    }
    let text = said(&[&serve[..], &["--log-format", "text"]].concat());
    assert!(text.starts_with("relay.yaml:") && text.lines().count() == 4, "{text}");
    let listed = ["alerts", "list", "--log-format", "json", "--config", "relay.yaml"];
    let levels: Vec<_> = lines(&listed).iter().map(|line| line["level"].clone()).collect();
    assert_eq!(levels, ["WARN", "ERROR"], "a warning about the file, and nobody answers");
    fs::write(
        dir.path().join("relay.yaml"),
        "slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}\n",
    )
    .unwrap();
    for line in lines(&serve) {
        assert!(line["level"] == "ERROR" || line["level"] == "WARN", "{line}");
    }
}
