//! The processes that are measured.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use axum::{Router, body::Bytes, routing::post};

use crate::{
    events::{Kind, SECRET},
    generator,
    postgres::Store,
    quota::Quota,
};

/// The argument that turns this program into the bare server.
pub(crate) const BARE: &str = "--serve-bare";

/// The unit of the CPU times in `/proc`, on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// Number of requests before the measured ones: a server in service is warm.
pub(crate) const WARM_UP: u64 = 20_000;

/// A server in a process of its own; it ends with this value.
pub(crate) struct Server {
    child: Child,
    /// Gone after the process.
    quota: Option<Quota>,
    pub(crate) address: SocketAddr,
    pub(crate) started_ms: f64,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn has_two_cores() -> bool {
    Path::new("/usr/bin/taskset").exists()
        && fs::read_to_string("/proc/cpuinfo")
            .is_ok_and(|text| text.matches("processor\t").count() >= 2)
}

/// Cores for processes, if there are two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Core {
    Servers,
    Load,
}

/// On that core, if there are two.
pub(crate) fn on_core(core: Core, program: &Path) -> Command {
    if !has_two_cores() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.arg("-c").arg((core as u8).to_string()).arg(program);
    command
}

/// The generator's core.
pub(crate) fn pin_this_process() {
    if has_two_cores() {
        let (core, pid) = ((Core::Load as u8).to_string(), std::process::id().to_string());
        let pinned = Command::new("taskset").args(["-cp", &core, &pid]).output().unwrap();
        assert!(pinned.status.success());
    } else {
        println!("one core for both: read nothing into these figures");
    }
}

/// A handler that reads the body and says 200.
pub(crate) fn serve_bare() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let router = Router::new().route(
            "/slack/events",
            post(|body: Bytes| async move {
                drop(body);
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(listener, router).await.unwrap();
    });
}

impl Server {
    pub(crate) fn bare() -> Self {
        let started = Instant::now();
        let mut child = on_core(Core::Servers, &std::env::current_exe().unwrap())
            .arg(BARE)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started_ms = started.elapsed().as_secs_f64() * 1e3;
        Self { child, quota: None, address: line.trim().parse().unwrap(), started_ms }
    }

    /// A place for a store. It ends with `dir`.
    pub(crate) fn new_dir(dir: &Path) -> PathBuf {
        tempfile::tempdir_in(dir).unwrap().keep()
    }

    /// The relay, with a destination for each sink, and its configuration (and file, if it is the
    /// store) in `dir`. Metrics and logs are on.
    pub(crate) fn relay(dir: &Path, sinks: &[SocketAddr], concurrency: u32, store: &Store) -> Self {
        Self::relay_on(Core::Servers, dir, sinks, concurrency, store)
    }

    /// The same on a share of the load's core. `None` if this machine can give none.
    pub(crate) fn small_relay(dir: &Path, sink: SocketAddr, store: &Store) -> Option<Self> {
        let mut relay = Self::relay_on(Core::Load, dir, &[sink], 1, store);
        relay.quota = Some(Quota::on(relay.child.id()).ok()?);
        Some(relay)
    }

    fn relay_on(
        core: Core,
        dir: &Path,
        sinks: &[SocketAddr],
        concurrency: u32,
        store: &Store,
    ) -> Self {
        let destination = |number| {
            format!(
                "  - {{name: soar-{number}, preset: webhook, url: {{env: URL_{number}}}, \
                 concurrency: {concurrency}}}\n"
            )
        };
        let destinations: String = (0..sinks.len()).map(destination).collect();
        let config = format!(
            "server: {{listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0}}\n\
             slack: {{apps: [{{name: main, signing_secret: {{env: SECRET}}}}]}}\n\
             store: {}\n\
             destinations:\n{destinations}",
            store.yaml()
        );
        fs::write(dir.join("relay.yaml"), config).unwrap();
        let urls = sinks.iter().enumerate();
        let urls = urls.map(|(number, sink)| (format!("URL_{number}"), format!("http://{sink}/")));
        let started = Instant::now();
        let mut child = on_core(core, Path::new(env!("CARGO_BIN_EXE_slack-soar-relay")))
            .args(["serve", "--log-format", "json", "--config"])
            .arg(dir.join("relay.yaml"))
            .env("SECRET", SECRET)
            .env("DATABASE_URL", store.url())
            .envs(urls)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("\"public\":\"") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the relay did not start");
        }
        let public = line.split("\"public\":\"").nth(1).unwrap().split('"').next().unwrap();
        let started_ms = started.elapsed().as_secs_f64() * 1e3;
        std::thread::spawn(move || {
            let mut rest = vec![0; 65_536];
            while log.read(&mut rest).is_ok_and(|read| read > 0) {}
        });
        Self { child, quota: None, address: public.parse().unwrap(), started_ms }
    }

    /// Measures a warm server at full speed: requests a second, and CPU seconds per 10,000
    /// requests.
    pub(crate) async fn under(&self, kind: Kind, seconds: u64) -> (f64, f64) {
        generator::count(self.address, kind, WARM_UP).await;
        let before = self.cpu_seconds();
        let (sent, rate) = generator::closed(&[self.address], kind, seconds).await;
        (rate, (self.cpu_seconds() - before) / sent as f64 * 1e4)
    }

    /// User and system time so far.
    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    /// A line of `/proc/PID/status`, in MB.
    pub(crate) fn memory(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}
