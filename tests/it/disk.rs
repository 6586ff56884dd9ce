//! The real binary on a disk that becomes full, and on files that somebody removes.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    harness::{
        PATIENCE, SECRET, Setup, http,
        slack::{self, large_incident},
        soar::{FakeSoar, Mood},
    },
    process::{Process, command, run, until_all, write_config},
};

const BINARY: &str = env!("CARGO_BIN_EXE_slack-soar-relay");

/// A small disk of its own under a folder, seen only by who is started on it. It outlives relays.
struct SmallDisk {
    /// Keeps the disk mounted until it is killed.
    keeper: Child,
    folder: PathBuf,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.keeper.kill());
        drop(self.keeper.wait());
    }
}

impl SmallDisk {
    fn new(folder: &Path, size: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let script = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && echo mounted && exec sleep 900";
        let mut keeper = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", size])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) is needed for a disk of our own");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "this test mounts a small disk, so it must be run as root");
        Self { keeper, folder: folder.to_owned() }
    }

    /// The path from here of a file on the disk.
    fn file(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        format!("/proc/{}/root{}", self.keeper.id(), folder.display()).into()
    }

    /// A command that is run where the disk can be seen.
    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.keeper.id().to_string(), BINARY]).env("SECRET", SECRET);
        command
    }

    /// Somebody else takes all that is left.
    fn fill(&self) {
        let mut options = fs::File::options();
        let mut file = options.create(true).append(true).open(self.file("others")).unwrap();
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.file("others")).unwrap();
    }
}

/// A configuration whose store is `disk/relay.db`.
fn on_disk(dir: &Path, destinations: &[&str]) {
    write_config(dir, destinations);
    let path = dir.join("relay.yaml");
    let yaml = fs::read_to_string(&path).unwrap();
    fs::write(&path, yaml + "store: {sqlite: {path: disk/relay.db}}\n").unwrap();
}

fn url(soar: &FakeSoar) -> [(String, String); 1] {
    [("URL_soar".to_owned(), soar.url())]
}

async fn status(process: &Process, path: &str) -> u16 {
    http::get(process.ops, path).await.status
}

/// Waits until readiness is so, and returns what it says. The answer may be five seconds old.
async fn ready_is(process: &Process, status: u16) -> String {
    let wait = async {
        loop {
            let answer = http::get(process.ops, "/readyz").await;
            if answer.status == status {
                return answer.text();
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_late| panic!("never {status}"))
}

async fn relay_status(process: &Process) -> Value {
    let headers = [("Host".to_owned(), "localhost".to_owned())];
    let answer = http::request(process.ops, "GET", "/api/v1/status", &headers, b"").await;
    serde_json::from_slice(&answer.body).unwrap()
}

/// An operator does not wait for the next attempts.
async fn retry(process: &Process) {
    let headers = [
        ("Host".to_owned(), "localhost".to_owned()),
        ("Content-Type".to_owned(), "application/json".to_owned()),
    ];
    let path = "/api/v1/alerts/retry?state=pending";
    assert_eq!(http::request(process.ops, "POST", path, &headers, b"").await.status, 200);
}

async fn metric(process: &Process, name: &str) -> f64 {
    let text = http::get(process.ops, "/metrics").await.text();
    let name = format!("slack_soar_relay_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
    line.parse().unwrap()
}

/// Waits until no delivery is unfinished by the relay's own account.
async fn all_recorded(process: &Process) {
    let unfinished = async || {
        let status = relay_status(process).await;
        let destinations = status["destinations"].as_array().unwrap().clone();
        let sum = |one: &Value| one["pending"].as_u64().unwrap() + one["leased"].as_u64().unwrap();
        destinations.iter().map(sum).sum::<u64>()
    };
    let wait = async { while unfinished().await > 0 {} };
    tokio::time::timeout(PATIENCE, wait).await.expect("something stays unfinished");
}

#[tokio::test]
async fn once_the_files_are_gone_nothing_is_acknowledged_and_what_is_open_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    write_config(&root, &["soar"]);
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let mut process = Process::start(&root, &url(&soar));
    assert_eq!(process.post(1).await, Some(200));
    let files = || {
        let names = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
        let ours = names.filter(|path| path.to_string_lossy().contains("relay.db"));
        ours.collect::<Vec<_>>()
    };
    for path in files() {
        fs::remove_file(path).unwrap();
    }
    for n in 2..5 {
        assert_eq!(process.post(n).await, Some(503));
    }
    let said = ready_is(&process, 503).await;
    assert!(said.contains("files are gone") && said.contains("relay.db"), "{said}");
    assert_eq!(status(&process, "/livez").await, 200);
    let problem = relay_status(&process).await["store"]["problem"].to_string();
    assert!(problem.contains("files are gone"), "{problem}");
    soar.becomes(Mood::Status(200));
    // A post that was refused may have reached the file before its absence was noticed.
    let mut requests = 0;
    while !soar.taken().contains(&slack::id(1)) {
        requests = soar.more_than(requests).await;
    }
    all_recorded(&process).await;
    let is_last = |line: &Value| line.to_string().contains("delivered");
    let said = process.log_of("relay runs", |_| true).await;
    assert_eq!(said[0]["level"], "ERROR");
    let again = process.log_of("", is_last).await;
    let again = again.iter().filter(|line| line.to_string().contains("relay runs")).count();
    assert_eq!(again, 0, "it is said once");
    process.terminate();
    assert!(files().is_empty(), "nothing is made anew");
}

#[tokio::test]
async fn without_its_lock_file_a_store_still_lets_no_second_relay_in() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let process = Process::start(dir.path(), &[]);
    assert_eq!(process.post(1).await, Some(200));
    fs::remove_file(dir.path().join("relay.db.lock")).unwrap();
    let config = dir.path().join("relay.yaml");
    let (code, _, err) = run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("another relay is using the store"), "{err}");
    assert_eq!(process.post(2).await, Some(503), "somebody takes the store for free");
    process.kill();
    let process = Process::start(dir.path(), &[]);
    assert_eq!(process.post(2).await, Some(200));
}

#[tokio::test]
async fn a_backup_put_in_place_under_a_running_relay_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let process = Process::start(dir.path(), &[]);
    assert_eq!(process.post(1).await, Some(200));
    let [config, copy] = ["relay.yaml", "copy.db"].map(|name| dir.path().join(name));
    let (config, copy) = (config.to_str().unwrap(), copy.to_str().unwrap());
    assert_eq!(run(&["backup", copy, "--config", config]).0, 0);
    assert_eq!(process.post(2).await, Some(200), "a backup disturbs nothing");
    fs::rename(copy, dir.path().join("relay.db")).unwrap();
    assert_eq!(process.post(3).await, Some(503));
    assert_eq!(status(&process, "/livez").await, 200);
}

#[tokio::test]
async fn the_store_and_its_copies_are_for_their_owner_alone_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let with_umask = |umask: &str| {
        let mut command = Command::new("sh");
        let script = format!("umask {umask}; exec \"$@\"");
        command.args(["-c", &script, "sh", BINARY]).env("SECRET", SECRET);
        command
    };
    for umask in ["022", "000", "077"] {
        let process = Process::start_by(with_umask(umask), dir.path(), &[]);
        assert_eq!(process.post(1).await, Some(200));
        let copy = dir.path().join(format!("copy-{umask}.db"));
        let copied = with_umask(umask)
            .arg("backup")
            .arg(&copy)
            .arg("--config")
            .arg(dir.path().join("relay.yaml"))
            .status();
        assert!(copied.unwrap().success());
        let mut seen = 0;
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.contains(".db") {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{name} with umask {umask}");
                seen += 1;
            }
        }
        assert!(seen >= 6, "database, log, shared memory, lock, ballast and copy");
        process.kill();
        for suffix in ["", "-wal", "-shm", ".lock", ".ballast"] {
            let path = dir.path().join(format!("relay.db{suffix}"));
            if umask == "022" {
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn on_a_full_disk_alerts_are_refused_and_what_is_stored_is_delivered_and_recorded() {
    const ALERTS: u32 = 30;
    let dir = tempfile::tempdir().unwrap();
    on_disk(dir.path(), &["soar"]);
    let disk = SmallDisk::new(&dir.path().join("disk"), "8m");
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let process = Process::start_by(disk.command(), dir.path(), &url(&soar));
    for n in 0..ALERTS {
        assert_eq!(process.post(n).await, Some(200));
    }
    let ballast = || fs::metadata(disk.file("relay.db.ballast")).map_or(0, |found| found.len());
    assert_eq!(ballast(), 2 * 1024 * 1024);
    disk.fill();
    for n in ALERTS..ALERTS + 3 {
        assert_eq!(process.post(n).await, Some(503));
    }
    let said = ready_is(&process, 503).await;
    assert!(said.contains("disk"), "{said}");
    assert_eq!(status(&process, "/livez").await, 200);
    assert_eq!(metric(&process, "store_free_bytes").await, 0.0);
    let problem = relay_status(&process).await["store"]["problem"].to_string();
    assert!(problem.contains("disk") && problem.contains("full"), "{problem}");
    process.kill();
    // The relay has emptied its log meanwhile; that space goes too.
    disk.fill();

    let process = Process::start_by(disk.command(), dir.path(), &url(&soar));
    assert_eq!(process.post(ALERTS).await, Some(503));
    soar.becomes(Mood::Status(200));
    retry(&process).await;
    let expected: Vec<String> = (0..ALERTS).map(slack::id).collect();
    until_all(&soar, &expected).await;
    all_recorded(&process).await;
    disk.fill();
    assert_eq!(process.post(ALERTS).await, Some(503));
    process.kill();
    let taken = soar.taken().len();
    let mut process = Process::start_by(disk.command(), dir.path(), &url(&soar));
    all_recorded(&process).await;
    assert_eq!(soar.taken().len(), taken, "what was recorded is not sent again");

    disk.free();
    ready_is(&process, 200).await;
    assert_eq!(process.post(ALERTS).await, Some(200));
    let again = async {
        while ballast() != 2 * 1024 * 1024 {
            ready_is(&process, 200).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, again).await.expect("the ballast is made again");
    process.terminate();
}

#[tokio::test]
async fn a_relay_starts_on_a_full_disk_after_a_clean_end_too() {
    let dir = tempfile::tempdir().unwrap();
    on_disk(dir.path(), &["soar"]);
    let disk = SmallDisk::new(&dir.path().join("disk"), "8m");
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let mut process = Process::start_by(disk.command(), dir.path(), &url(&soar));
    assert_eq!(process.post(1).await, Some(200));
    process.terminate();
    assert!(!disk.file("relay.db-shm").exists(), "SQLite has to make it again");
    disk.fill();
    let process = Process::start_by(disk.command(), dir.path(), &url(&soar));
    assert_eq!(process.post(2).await, Some(503));
    soar.becomes(Mood::Status(200));
    until_all(&soar, &[slack::id(1)]).await;
    all_recorded(&process).await;
}

#[tokio::test]
async fn delivered_history_makes_room_on_a_small_disk() {
    const ALERTS: u32 = 80;
    let dir = tempfile::tempdir().unwrap();
    on_disk(dir.path(), &["soar"]);
    let disk = SmallDisk::new(&dir.path().join("disk"), "8m");
    let soar = FakeSoar::ok().await;
    let mut process = Process::start_by(disk.command(), dir.path(), &url(&soar));
    for n in 0..ALERTS {
        let body = large_incident(n, 200_000).to_string();
        assert_eq!(process.post_body(body.as_bytes()).await, Some(200), "alert {n}");
        all_recorded(&process).await;
    }
    assert!(metric(&process, "pruned_early_total").await > 40.0);
    assert_eq!(soar.taken().len(), usize::try_from(ALERTS).unwrap());
    let said = process.log_of("short of space", |_| true).await;
    assert_eq!(said[0]["level"], "WARN");
    process.terminate();
}

#[tokio::test]
async fn delivered_history_never_refuses_a_new_incident() {
    let soar = FakeSoar::ok().await;
    let setup = Setup::default().more("store: {sqlite: {max_size: 2MiB}}\n");
    let relay = setup.destination("soar", &soar, "").start().await;
    for n in 0..100 {
        assert_eq!(relay.post(&large_incident(n, 50_000)).await, 200, "alert {n}");
        relay.settled().await;
    }
    assert!(relay.metric("pruned_early_total").await > 50.0);
    assert_eq!(http::get(relay.relay().ops, "/readyz").await.status, 200);
}

#[test]
fn a_store_that_is_too_small_is_an_error_of_check_and_of_serve() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("relay.yaml");
    let with = |size: &str| {
        write_config(dir.path(), &[]);
        let yaml = fs::read_to_string(&config).unwrap();
        let store = format!("store: {{sqlite: {{max_size: {size}}}}}\n");
        fs::write(&config, yaml + &store).unwrap();
        ["check", "serve"].map(|which| {
            let mut command = command();
            command.args([which, "--config", config.to_str().unwrap()]);
            (which, command)
        })
    };
    for (which, mut command) in with("1MiB") {
        let ended = command.output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{which}");
        let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(said.concat().contains("less than 2MiB"), "{which}: {said:?}");
    }
    let [(_, mut check), _] = with("2MiB");
    let ended = check.output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success() && said.contains("less than 64MiB"), "{said}");
}
