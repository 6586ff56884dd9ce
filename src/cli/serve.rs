//! The composition root: builds the parts, starts them, and stops them in order.
//!
//! `serve`, `demo` and the tests start the same [`Relay`].

mod housekeeping;
mod listeners;
mod live;
mod reload;
mod series;

use std::{
    net::SocketAddr, process::ExitCode, sync::Arc, thread::available_parallelism, time::Duration,
};

use anyhow::Context;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

pub use self::reload::ConfigFile;
use self::{live::Live, reload::Reloader};
use super::open_store::open_store;
use crate::{
    clock::Clock,
    config::Config,
    ground::{Ground, StoreOutages},
    http_server,
    intake::catch_up::PollerHandle,
    metrics::Metrics,
    shutdown::Shutdown,
};

/// Most threads of the runtime. Two carry far more than Slack ever sends, and a small pod does not
/// have more cores.
const MAX_THREADS: usize = 2;

/// Most threads for blocking work: reloads, standard output, and the look-up of the database's
/// host, for which each new connection may wait.
const MAX_BLOCKING_THREADS: usize = 64;

/// Time within which requests in flight and attempts end. An attempt that has not ended is made
/// again after the next start.
const GRACE: Duration = Duration::from_secs(16);

/// Time between two looks at unfinished deliveries.
const SETTLE_PAUSE: Duration = Duration::from_millis(10);

/// Runs until SIGTERM or Ctrl-C; a second one ends the process at once. SIGHUP reads the
/// configuration again.
pub(super) fn run(config: Config, file: ConfigFile) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut relay = Relay::start(config, Clock::system()).await?;
        relay.follow(file);
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = interrupt.recv() => break,
                // The log says how it went.
                _ = hangup.recv() => drop(relay.reload().await),
            }
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

/// Returns the runtime of `serve` and `demo`.
///
/// # Errors
/// Fails if the system does not give any threads.
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
    /// Address of the public listener.
    pub public: SocketAddr,
    /// Address of the ops listener.
    pub ops: SocketAddr,
    ground: Ground,
    drain_delay: Duration,
    live: Arc<Live>,
    reloader: Option<Arc<Reloader>>,
}

impl Relay {
    /// Opens the store, binds the listeners and starts everything.
    ///
    /// # Errors
    /// Fails if a part could not be opened, bound or built; nothing runs then.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let store = open_store(&config.store, &clock, &metrics).await?;
        // Both are bound before anything is sent, so that an address in use fails the start. The
        // real addresses are noted, since port 0 stands for a port that the system chooses.
        let public = http_server::bind(config.server.listen)?;
        let ops = http_server::bind(config.server.ops_listen)?;
        let addresses = (public.local_addr()?, ops.local_addr()?);
        let ground = Ground {
            store,
            outages: StoreOutages::new(clock.clone()),
            clock,
            metrics,
            shutdown: Shutdown::new(),
        };
        let server = config.server.clone();
        let live = Live::start(ground.clone(), config).await?;
        // After the parts that they answer with, since the first request may come at once.
        listeners::start_ops(&ground, ops, &server, live.current.controls())?;
        listeners::start_public(&ground, public, &server, &live.events_api);
        housekeeping::start(Arc::clone(&live));
        let relay = Self {
            public: addresses.0,
            ops: addresses.1,
            ground,
            drain_delay: server.drain_delay,
            live,
            reloader: None,
        };
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

    /// Reloads the configuration from now on whenever a file changes that it was loaded from.
    pub fn follow(&mut self, file: ConfigFile) {
        let reloader = Reloader::new(Arc::clone(&self.live), file);
        reloader.start();
        self.reloader = Some(reloader);
    }

    /// Reads the configuration file again and takes it into use.
    ///
    /// # Errors
    /// Returns every mistake of the file; the configuration in use stays.
    pub async fn reload(&self) -> Result<(), String> {
        match &self.reloader {
            Some(reloader) => reloader.reload().await,
            None => Err("the relay was not started from a file".to_owned()),
        }
    }

    /// Returns the handles of the pollers, one for each app with a token.
    pub fn catch_up(&self) -> Vec<PollerHandle> {
        self.live.current.0.load().catch_up.clone()
    }

    /// Returns the names of the internal loops that have been silent for longer than `limit`.
    pub fn silent_loops(&self, limit: Duration) -> Vec<String> {
        self.ground.shutdown.silent_loops(self.ground.clock.instant(), limit)
    }

    /// Waits until no delivery is unfinished.
    pub async fn settled(&self) {
        loop {
            let stats = self.ground.store.stats().await.unwrap_or_default();
            let unfinished: u64 = stats
                .destinations
                .iter()
                .map(|(_, stats)| stats.pending + stats.refused + stats.leased)
                .sum();
            if unfinished == 0 {
                return;
            }
            Clock::system().sleep(SETTLE_PAUSE).await;
        }
    }

    /// Takes the first step of a stop: not ready, still accepting.
    pub fn drain(&self) {
        self.ground.shutdown.drain();
    }

    /// Stops in order: not ready, still accepting; nothing new; attempts end; the store closes.
    pub async fn stop(self) {
        self.drain();
        self.ground.clock.sleep(self.drain_delay).await;
        self.ground.shutdown.stop();
        if tokio::time::timeout(GRACE, self.ground.shutdown.finished()).await.is_err() {
            tracing::warn!("not everything ended in time; it will be attempted again");
        }
        self.ground.store.close().await;
        tracing::info!("ended");
    }
}
