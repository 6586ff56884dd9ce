//! `backup`: a consistent copy of the SQLite store, while the relay runs or not.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use rusqlite::InterruptHandle;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::spawn_blocking,
    time::timeout,
};

use super::{BadConfiguration, Common, say, serve};
use crate::store::sqlite::{self, Copied};

/// Copy the store.
#[derive(Args, Debug)]
pub struct Backup {
    /// The copy. It must not exist yet.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let salvaged = common.salvage();
        if salvaged.names_a_database {
            let message = "the store is in PostgreSQL: use pg_dump -n relay, or what backs up your \
                other databases";
            return Err(BadConfiguration(message.to_owned()).into());
        }
        if !salvaged.has_read("/store/sqlite/path") {
            return Err(common.unusable(&salvaged, "/store/sqlite/path"));
        }
        let store = salvaged.config.store.path;
        let copied = serve::runtime()?.block_on(copy(store, self.file.clone()))?;
        let file = self.file.display();
        if self.json {
            say(&json!({"file": file.to_string(), "bytes": copied.bytes, "alerts": copied.alerts})
                .to_string());
        } else {
            say(&format!("{file}: {} alerts, {} bytes", copied.alerts, copied.bytes));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A signal that comes before SQLite is at work has no effect, so it is passed on again.
const AGAIN: Duration = Duration::from_millis(100);

/// Copies the store; a signal ends that, and leaves nothing behind.
async fn copy(store: PathBuf, to: PathBuf) -> anyhow::Result<Copied> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (begins, begun) = oneshot::channel();
    let mut copying =
        spawn_blocking(move || sqlite::backup(&store, &to, |handle| drop(begins.send(handle))));
    tokio::select! {
        copied = &mut copying => return Ok(copied??),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    let handle = begun.await.ok();
    loop {
        handle.iter().for_each(InterruptHandle::interrupt);
        if let Ok(copied) = timeout(AGAIN, &mut copying).await {
            // The copy may have been whole already.
            return copied?.context("ended by a signal");
        }
    }
}
