//! A rolling restart of two relays behind a real nginx, under load. The test is the endpoint
//! controller: it asks `/readyz`, and tells nginx which relays there are.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use crate::harness::{
    Folder, Mood, PATIENCE, Process, SIGNING_SECRET, Soar, free_port, get, post_incident, run,
    ticket, tool, until_listening,
};

/// Time between two probes. The kubelet's 2 s would be too long here: a drain would end before the
/// next probe.
const PROBE: Duration = Duration::from_millis(250);

const CLIENTS: usize = 4;

/// Pause of each client between two requests: 200 a second in all.
const PACE: Duration = Duration::from_millis(20);

struct Relay {
    process: Process,
    config: PathBuf,
}

impl Relay {
    fn start(config: PathBuf) -> Self {
        let mut child = Command::new(tool("DEPLOY_RELAY"))
            .args(["serve", "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until_listening(child.stderr.take().unwrap()).unwrap();
        Self { process: Process(child), config }
    }

    /// Restarts a relay as a rollout does: SIGTERM, wait for the end, start.
    fn restart(mut self) -> Self {
        self.process.signal("-TERM");
        assert_eq!(self.process.0.wait().unwrap().code(), Some(0));
        Self::start(self.config.clone())
    }
}

/// Address of a relay.
#[derive(Clone, Copy)]
struct Place {
    public: SocketAddr,
    ops: SocketAddr,
}

fn place() -> Place {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Place { public: local(free_port()), ops: local(free_port()) }
}

fn config(folder: &Folder, name: &str, place: Place, soar: &Soar) -> PathBuf {
    folder.write(&format!("{name}/secret"), SIGNING_SECRET);
    folder.write(&format!("{name}/url"), &format!("http://{}/", soar.address));
    let Place { public, ops } = place;
    let yaml = format!(
        "server: {{listen: '{public}', ops_listen: '{ops}', idle_timeout: 75s}}\n\
         slack: {{apps: [{{name: main, signing_secret: {{file: secret}}}}]}}\n\
         destinations: [{{name: soar, preset: webhook, url: {{file: url}}}}]\n"
    );
    folder.write(&format!("{name}/relay.yaml"), &yaml)
}

/// An nginx with files of its own, which ends with the test.
struct Nginx {
    folder: Folder,
    address: SocketAddr,
}

impl Nginx {
    fn start(relays: &[SocketAddr]) -> Self {
        let folder = Folder::new("nginx");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        folder.write("upstream.conf", &upstream(relays));
        let base = folder.join("");
        let base = base.display();
        folder.write(
            "nginx.conf",
            &format!(
                "pid {base}pid; error_log {base}error.log warn; user root;\n\
                 worker_processes 1; events {{ worker_connections 256; }}\n\
                 http {{ access_log off; include {base}upstream.conf;\n\
                 server {{ listen {address}; location / {{ proxy_pass http://relay;\n\
                 proxy_http_version 1.1; proxy_set_header Connection '';\n\
                 proxy_next_upstream off; }} }} }}\n"
            ),
        );
        let nginx = Self { folder, address };
        // It goes to the background once it listens.
        run(&mut nginx.command()).unwrap();
        nginx
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nginx");
        command.arg("-e").arg(self.folder.join("error.log"));
        command.arg("-c").arg(self.folder.join("nginx.conf"));
        command
    }

    /// Tells it which relays there are now.
    fn use_relays(&self, relays: &[SocketAddr]) {
        self.folder.write("upstream.conf", &upstream(relays));
        run(self.command().args(["-s", "reload"])).unwrap();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(run(self.command().args(["-s", "stop"])));
    }
}

fn upstream(relays: &[SocketAddr]) -> String {
    let mut text = "upstream relay { keepalive 16; ".to_owned();
    for relay in relays {
        write!(text, "server {relay} max_fails=0; ").unwrap();
    }
    text + "}\n"
}

/// Asks every relay for readiness, and reports each set of ready ones to nginx and to `changes`.
fn control(nginx: &Nginx, places: &[Place], stop: &Receiver<()>, changes: &Sender<usize>) {
    let mut known: Vec<_> = places.iter().map(|place| place.public).collect();
    while matches!(stop.recv_timeout(PROBE), Err(RecvTimeoutError::Timeout)) {
        let is_ready = |place: &&Place| matches!(get(place.ops, "/readyz"), Ok(200));
        let ready: Vec<_> = places.iter().filter(is_ready).map(|place| place.public).collect();
        if ready != known {
            nginx.use_relays(&ready);
            changes.send(ready.len()).unwrap();
            known = ready;
        }
    }
}

/// Posts incidents until it is told to stop; returns what did not end with 200.
fn load(to: SocketAddr, next: &AtomicUsize, stop: &Receiver<()>) -> Vec<String> {
    let mut failures = Vec::new();
    while matches!(stop.recv_timeout(PACE), Err(RecvTimeoutError::Timeout)) {
        let n = next.fetch_add(1, Ordering::SeqCst);
        match post_incident(to, n) {
            Ok(200) => {}
            Ok(status) => failures.push(format!("{n}: status {status}")),
            Err(error) => failures.push(format!("{n}: {error}")),
        }
    }
    failures
}

#[test]
fn a_rolling_restart_behind_nginx_fails_no_request_and_loses_no_alert() {
    let soar = Soar::start(Mood::Takes);
    let folder = Folder::new("rollout");
    let places = [place(), place()];
    let mut relays: Vec<_> = ["a", "b"]
        .iter()
        .zip(places)
        .map(|(name, place)| Some(Relay::start(config(&folder, name, place, &soar))))
        .collect();
    let nginx = Nginx::start(&places.map(|place| place.public));
    let next = Arc::new(AtomicUsize::new(0));
    let (changes, changed) = mpsc::channel();
    let failures = thread::scope(|scope| {
        let (stop_control, stopped) = mpsc::channel();
        let nginx = &nginx;
        scope.spawn(move || control(nginx, &places, &stopped, &changes));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (stop, stopped) = mpsc::channel();
                let next = Arc::clone(&next);
                (stop, scope.spawn(move || load(nginx.address, &next, &stopped)))
            })
            .collect();
        for relay in &mut relays {
            *relay = Some(relay.take().unwrap().restart());
            assert_eq!(changed.recv_timeout(PATIENCE), Ok(1), "it left while it drained");
            assert_eq!(changed.recv_timeout(PATIENCE), Ok(2), "it came back");
        }
        let mut failures = Vec::new();
        for (stop, client) in clients {
            drop(stop);
            failures.extend(client.join().unwrap());
        }
        drop(stop_control);
        failures
    });
    let posted = next.load(Ordering::SeqCst);
    assert!(failures.is_empty(), "{} of {posted} failed: {failures:#?}", failures.len());
    assert!(posted > 200, "only {posted} were posted");
    soar.wait_for(posted);
    assert!((0..posted).all(|n| soar.has(&ticket(n))));
    println!("{posted} requests, 0 failed");
}
