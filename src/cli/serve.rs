//! The composition root: puts the parts together, starts them, and ends them in order.
//!
//! `serve`, `demo` and the tests start the same [`Relay`].

mod housekeeping;
mod parts;

use std::{
    net::SocketAddr, process::ExitCode, sync::Arc, thread::available_parallelism, time::Duration,
};

use anyhow::Context;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use self::parts::{Parts, name_every_metric};
use crate::{
    clock::Clock,
    code_defender::matcher::Matcher,
    config::Config,
    http_server,
    metrics::Metrics,
    shutdown::Shutdown,
    store::{
        Store,
        sqlite::{self, SqliteStore},
    },
};

/// Two threads carry far more than Slack ever sends, and a small pod has no more cores.
const MAX_THREADS: usize = 2;

/// For name lookups.
const MAX_BLOCKING_THREADS: usize = 8;

/// Requests in flight and attempts end within this; what has not is attempted again after a start.
const GRACE: Duration = Duration::from_secs(16);

/// Between two looks at what is unfinished.
const SETTLE_PAUSE: Duration = Duration::from_millis(10);

/// Runs until SIGTERM or Ctrl-C; a second one ends the process at once.
pub(super) fn run(config: Config) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let relay = Relay::start(config, Clock::system()).await?;
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: no longer ready, still accepting for the drain delay");
        tokio::select! {
            () = relay.stop() => Ok(ExitCode::SUCCESS),
            _ = term.recv() => Ok(ExitCode::FAILURE),
            _ = interrupt.recv() => Ok(ExitCode::FAILURE),
        }
    });
    runtime.shutdown_background();
    code
}

/// The runtime of `serve` and `demo`.
///
/// # Errors
/// The system gives no threads.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    let threads = available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS));
    let mut builder =
        if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("the runtime cannot be started")
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    /// Where Slack calls.
    pub public: SocketAddr,
    /// Where operators and Kubernetes call.
    pub ops: SocketAddr,
    store: Arc<dyn Store>,
    clock: Clock,
    shutdown: Shutdown,
    drain_delay: Duration,
}

impl Relay {
    /// Opens the store, binds the listeners and starts everything.
    ///
    /// # Errors
    /// What could not be opened, bound or built; nothing runs then.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
        let settings = sqlite::Settings {
            path: config.store.path.clone(),
            max_size_bytes: config.store.max_size_bytes,
            lease: config.store.lease,
        };
        let store = SqliteStore::open(&settings, clock.clone(), &metrics)?;
        let public = http_server::bind(config.server.listen).await?;
        let ops = http_server::bind(config.server.ops_listen).await?;
        let relay = Self {
            public: public.local_addr()?,
            ops: ops.local_addr()?,
            store: Arc::new(store),
            clock: clock.clone(),
            shutdown: shutdown.clone(),
            drain_delay: config.server.drain_delay,
        };
        let parts = Parts {
            store: Arc::clone(&relay.store),
            matcher: Arc::new(Matcher::new(config.matching.clone())),
            clock,
            metrics,
            shutdown,
        };
        name_every_metric(&config, &parts.metrics);
        let running = parts.start_workers(&config)?;
        parts.start_ops(ops, &config, running)?;
        parts.start_public(public, &config);
        parts.start_housekeeping(config.secrets, config.retention);
        tracing::info!(
            public = %relay.public,
            ops = %relay.ops,
            version = env!("CARGO_PKG_VERSION"),
            "listening on {} for Slack and on {} for operators",
            relay.public,
            relay.ops
        );
        Ok(relay)
    }

    /// Waits until no delivery is unfinished.
    pub async fn settled(&self) {
        loop {
            let stats = self.store.stats().await.unwrap_or_default();
            let unfinished: u64 =
                stats.destinations.iter().map(|(_, stats)| stats.pending + stats.leased).sum();
            if unfinished == 0 {
                return;
            }
            Clock::system().sleep(SETTLE_PAUSE).await;
        }
    }

    /// Ends in order: not ready, still accepting; nothing new; attempts end; the store closes.
    pub async fn stop(self) {
        self.shutdown.drain();
        self.clock.sleep(self.drain_delay).await;
        self.shutdown.stop();
        if tokio::time::timeout(GRACE, self.shutdown.finished()).await.is_err() {
            tracing::warn!("not everything ended in time; it will be attempted again");
        }
        self.store.close().await;
        tracing::info!("ended");
    }
}
