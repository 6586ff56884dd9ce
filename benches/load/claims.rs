//! Cost of a claim before a short and a long backlog in PostgreSQL, turn by turn.

use std::{sync::Arc, time::Instant};

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use slack_soar_relay::{
    clock::Clock,
    ids::{AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    metrics::Metrics,
    store::{
        Inbox, NewAlert, NewMessage, Queue, Source,
        postgres::{PostgresStore, Settings, Url},
    },
};

use crate::{
    Table,
    generator::Latencies,
    postgres::{Postgres, sql},
};

const SHORT: u64 = 1_000;
const CLAIMS: usize = 200;
const AT_ONCE: usize = 20;

/// A claim is given back at once, so the next one finds the same.
pub(crate) async fn measure(postgres: &Postgres, long: u64, table: &mut Table) {
    let backlogs = [Backlog::new(postgres, SHORT).await, Backlog::new(postgres, long).await];
    let mut times = [Latencies::default(), Latencies::default()];
    for _ in 0..CLAIMS {
        for (backlog, times) in backlogs.iter().zip(&mut times) {
            let started = Instant::now();
            let leases = backlog.0.lease_due(&soar(), AT_ONCE).await.unwrap();
            times.note(started.elapsed());
            assert_eq!(leases.len(), AT_ONCE);
            for lease in leases {
                backlog.0.release(lease).await;
            }
        }
    }
    let [short, long] = times.map(|times| times.median());
    table.add("claim of 20 before 1,000", "ms", ["", ""], short);
    table.add("claim of 20 before the backlog of --fill", "x that", ["1.2", ""], long / short);
}

/// A store with so many deliveries pending.
struct Backlog(PostgresStore);

impl Backlog {
    async fn new(postgres: &Postgres, pending: u64) -> Self {
        let url = Arc::new(postgres.database().url().to_owned());
        let place = Arc::clone(&url);
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let settings = Settings {
            url: Url::new(move || Arc::clone(&place)),
            listen_url: None,
            tls: Arc::new(tls),
            max_connections: 6,
            allow_unsafe: false,
            lease: std::time::Duration::from_secs(90),
        };
        let store = PostgresStore::open(settings, Clock::system(), &Metrics::new()).await.unwrap();
        store.accept(vec![first()], None, None).await.unwrap();
        for (table, rows) in [
            ("messages", "n, 0, 0, 0, '', '', repeat('x', 1500)::bytea"),
            ("alerts", "n << 12, 'main:C2:' || n || '.000000', 0, 0, 1, 'high', ''"),
            ("deliveries", "(n << 28) + t.id, t.id, 0, n, 0"),
        ] {
            let columns =
                if table == "deliveries" { "(id, destination, state, due_at, since)" } else { "" };
            sql(
                &url,
                &format!(
                    "INSERT INTO relay.{table} {columns} SELECT {rows}
                     FROM generate_series(2, {pending}::int8) AS s (n), relay.destinations t"
                ),
            );
        }
        sql(&url, "VACUUM ANALYZE");
        Self(store)
    }
}

fn soar() -> DestinationName {
    DestinationName::new("soar").unwrap()
}

fn first() -> NewMessage {
    let ts = MessageTs::from_micros(1_600_000_000_000_000);
    NewMessage {
        key: MessageKey {
            app: AppName::new("main").unwrap(),
            channel: ChannelId::new("C1"),
            ts: TsKey::Ts(ts),
        },
        posted_at: ts,
        source: Source::Push,
        event_id: String::new(),
        team: String::new(),
        received_at: Clock::system().now(),
        raw: "x".into(),
        is_edit: false,
        edited_ts: String::new(),
        alerts: vec![NewAlert {
            ordinal: 0,
            attachment: 0,
            level: "high",
            problems: Vec::new(),
            search: String::new(),
            destinations: vec![soar()],
        }],
    }
}
