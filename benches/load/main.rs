//! The load benchmark: the real binary over loopback, built as a release (profile `dist`), beside a
//! bare axum handler that only reads the body, in one run on the same cores.
//!
//! `cargo bench --bench load -- [--rounds 3] [--seconds 4] [--store postgres] [--fill 1000000]
//! [--outage 600]`.
//! With `--fill` it also looks at a store with so many alerts; on PostgreSQL at what a claim costs
//! before so many deliveries. With `--outage` it also waits out a network outage of so many seconds
//! (`--rounds 0` leaves out everything else). With two cores the server runs on the first, and
//! PostgreSQL with it, and the generator on the second. `CONTRIBUTING.md` says how to read the
//! table.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures time, and may end on anything unexpected"
)]

mod claims;
mod events;
mod generator;
mod many;
mod outage;
mod postgres;
mod quota;
mod server;

use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use events::Kind;
use generator::{Latencies, Sink};
use postgres::{Postgres, Store};
use server::Server;

/// One line of the table.
struct Row {
    name: &'static str,
    unit: &'static str,
    floor: &'static str,
    goal: &'static str,
    values: Vec<f64>,
}

/// Every measure, in the order of the table.
struct Table(Vec<Row>);

impl Table {
    fn add(
        &mut self,
        name: &'static str,
        unit: &'static str,
        bounds: [&'static str; 2],
        value: f64,
    ) {
        let [floor, goal] = bounds;
        match self.0.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.0.push(Row { name, unit, floor, goal, values: vec![value] }),
        }
    }

    fn print(&mut self) {
        println!(
            "{:<58} {:>10} {:>21}  {:>7} {:>7}",
            "measure", "median", "(min-max)", "floor", "goal"
        );
        for row in &mut self.0 {
            row.values.sort_by(f64::total_cmp);
            let (low, high) = (row.values[0], row.values[row.values.len() - 1]);
            let median = row.values[row.values.len() / 2];
            let spread = format!("({low:.3}-{high:.3})");
            let name = format!("{}, {}", row.name, row.unit);
            println!("{name:<58} {median:>10.3} {spread:>21}  {:>7} {:>7}", row.floor, row.goal);
        }
    }
}

fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
}

fn main() {
    if std::env::args().any(|argument| argument == server::BARE) {
        return server::serve_bare();
    }
    let (rounds, seconds) = (argument("--rounds", 3), argument("--seconds", 4));
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    server::pin_this_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let postgres = std::env::args().any(|one| one == "postgres");
    let postgres = postgres.then(Postgres::start);
    let place = Place { dir: dir.path(), postgres: postgres.as_ref() };
    let mut table = Table(Vec::new());
    for round in 0..rounds {
        println!("round {} of {rounds}", round + 1);
        runtime.block_on(one_round(&place, seconds, &mut table));
    }
    let alerts = argument("--fill", 0);
    if alerts > 0 {
        runtime.block_on(async {
            match &postgres {
                Some(postgres) => claims::measure(postgres, alerts, &mut table).await,
                None => full_store(&place, alerts, seconds, &mut table).await,
            }
        });
    }
    let outage = argument("--outage", 0);
    if outage > 0 {
        runtime.block_on(outage::measure(&place, outage, &mut table));
    }
    println!();
    table.print();
}

async fn one_round(place: &Place<'_>, seconds: u64, table: &mut Table) {
    let disk_p99 = fdatasync_p99(place.dir, seconds);
    table.add("disk: fdatasync p99", "ms", NONE, disk_p99);
    let bare = Server::bare();
    let (bare_rate, _used) = bare.under(Kind::Chatter, seconds).await;
    table.add("bare axum", "1000/s", NONE, bare_rate / 1e3);
    let bare_p99 = generator::open(bare.address, Kind::Chatter, 200, seconds).await.latencies.p99();
    table.add("bare axum: p99 at 200/s", "ms", NONE, bare_p99);
    drop(bare);
    accept_side(place, seconds, (bare_rate, bare_p99, disk_p99), table).await;
    delivery_side(place, seconds, disk_p99, table).await;
    many::destinations(place, seconds, table).await;
    if place.postgres.is_some() {
        let name = "incidents, two relays and PostgreSQL on one core";
        let relay = |dir: &_, sink, store: &_| Some(Server::relay(dir, &[sink], 1, store));
        if let Some(ratio) = two_relays(place, seconds, relay).await {
            table.add(name, "x one relay's", NONE, ratio);
        }
        let name = "incidents, two relays of 0.3 core, PostgreSQL on its own";
        match two_relays(place, seconds, Server::small_relay).await {
            Some(ratio) => table.add(name, "x one relay's", ["1.3", ""], ratio),
            None => println!("{name}: left out, this user has no control groups"),
        }
    }
}

/// Bounds of a measure that has none.
const NONE: [&str; 2] = ["", ""];

/// Folder for the stores.
struct Place<'a> {
    dir: &'a Path,
    postgres: Option<&'a Postgres>,
}

impl Place<'_> {
    /// An empty one.
    fn store(&self) -> Store {
        self.postgres.map_or(Store::Sqlite, Postgres::database)
    }

    /// A relay on an empty store.
    fn relay(&self, sinks: &[SocketAddr], concurrency: u32) -> Server {
        Server::relay(&Server::new_dir(self.dir), sinks, concurrency, &self.store())
    }

    /// The bounds of a measure on SQLite, and on PostgreSQL.
    fn bounds(
        &self,
        on_sqlite: [&'static str; 2],
        on_postgres: [&'static str; 2],
    ) -> [&'static str; 2] {
        if self.postgres.is_some() { on_postgres } else { on_sqlite }
    }
}

async fn accept_side(
    place: &Place<'_>,
    seconds: u64,
    (bare_rate, bare_p99, disk_p99): (f64, f64, f64),
    table: &mut Table,
) {
    let sink = Sink::silent().await;
    let relay = place.relay(&[sink.address], 1);
    table.add("start to first 200, empty store", "ms", ["150", "30"], relay.started_ms);
    table.add("RSS idle", "MB", ["20", "10"], relay.memory("VmRSS"));
    let share = "share of bare axum";
    let cpu = "CPU s per 10,000";
    let (rate, used) = relay.under(Kind::Chatter, seconds).await;
    table.add("chatter", share, ["0.50", "0.70"], rate / bare_rate);
    table.add("chatter: CPU", cpu, ["0.26", "0.21"], used);
    let sent = generator::open(relay.address, Kind::Chatter, 200, seconds).await;
    let p99 = sent.latencies.p99() / bare_p99;
    table.add("chatter: p99 at 200/s", "x bare axum's", ["3", "1.5"], p99);
    let (rate, used) = relay.under(Kind::Incident, seconds).await;
    let bounds = place.bounds(["0.18", "0.34"], ["0.12", "0.22"]);
    table.add("incidents", share, bounds, rate / bare_rate);
    table.add("incidents: CPU", cpu, ["0.60", "0.40"], used);
    let sent = generator::open(relay.address, Kind::Incident, 200, seconds).await;
    let p99 = sent.latencies.p99() / disk_p99;
    table.add("incidents: p99 at 200/s", "x the disk's p99", place.bounds(["6", "3"], NONE), p99);
    let (rate, _used) = relay.under(Kind::Mixed, seconds).await;
    table.add("one incident in ten", share, NONE, rate / bare_rate);
    table.add("RSS peak under full load", "MB", ["80", "40"], relay.memory("VmHWM"));
}

async fn delivery_side(place: &Place<'_>, seconds: u64, disk_p99: f64, table: &mut Table) {
    let sink = Sink::answering().await;
    let relay = place.relay(&[sink.address], 16);
    let backlog = 4_000 * seconds;
    let started = Instant::now();
    generator::count(relay.address, Kind::Incident, backlog).await;
    sink.has(backlog).await;
    let rate = backlog as f64 / started.elapsed().as_secs_f64();
    let bounds = place.bounds(["2000", "5000"], ["1500", "4000"]);
    table.add("accepted and delivered, concurrency 16", "/s", bounds, rate);
    sink.clear();
    let sent = generator::open(relay.address, Kind::Incident, 50, seconds).await.at;
    sink.has(sent.len() as u64).await;
    let latencies: Latencies = sink.latencies(&sent);
    let name = "received by us to received by the SOAR, p99 at 50/s";
    let bounds = place.bounds(["12", "5"], NONE);
    table.add(name, "x the disk's p99", bounds, latencies.p99() / disk_p99);
}

/// Rate of two relays on one database, relative to that of one. `None` if a relay cannot be started
/// like this.
async fn two_relays(
    place: &Place<'_>,
    seconds: u64,
    start: impl Fn(&Path, SocketAddr, &Store) -> Option<Server>,
) -> Option<f64> {
    let sink = Sink::silent().await;
    let relay = |store: &Store| start(&Server::new_dir(place.dir), sink.address, store);
    let (one, _used) = relay(&place.store())?.under(Kind::Incident, seconds).await;
    let store = place.store();
    let two = [relay(&store)?, relay(&store)?];
    for relay in &two {
        generator::count(relay.address, Kind::Incident, server::WARM_UP / 2).await;
    }
    let addresses = two.each_ref().map(|relay| relay.address);
    let (_sent, rate) = generator::closed(&addresses, Kind::Incident, seconds).await;
    Some(rate / one)
}

/// A store with many alerts, all delivered: its start, and its memory under load.
async fn full_store(place: &Place<'_>, alerts: u64, seconds: u64, table: &mut Table) {
    const PIECE: u64 = 32_000;
    let (sink, store) = (Sink::answering().await, place.store());
    let dir = Server::new_dir(place.dir);
    let relay = Server::relay(&dir, &[sink.address], 16, &store);
    for _ in 0..alerts.div_ceil(PIECE) {
        sink.clear();
        generator::count(relay.address, Kind::Incident, PIECE).await;
        sink.has(PIECE).await;
    }
    drop(relay);
    let relay = Server::relay(&dir, &[sink.address], 16, &store);
    table.add("start to first 200, full store", "ms", ["1000", "150"], relay.started_ms);
    relay.under(Kind::Incident, seconds).await;
    table.add("RSS peak under full load, full store", "MB", ["80", "40"], relay.memory("VmHWM"));
}

/// Cost of one small durable write on this machine, without anything around it, at 200 a second: as
/// rare as the requests that it is compared with, so that the machine is as sleepy.
fn fdatasync_p99(dir: &Path, seconds: u64) -> f64 {
    // What others have left to be written would be written meanwhile.
    assert!(Command::new("sync").status().unwrap().success());
    let mut file = std::fs::File::create(dir.join("probe")).unwrap();
    let mut latencies = Latencies::default();
    let started = Instant::now();
    for number in 0..200 * seconds as u32 {
        let due = started + Duration::from_millis(5) * number;
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        file.write_all(&[0_u8; 2048]).unwrap();
        file.sync_data().unwrap();
        latencies.note(due.elapsed());
    }
    latencies.p99()
}
