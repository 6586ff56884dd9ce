//! `backup`: writes a consistent copy of the SQLite store, even while the relay is running.

use std::{
    io::{IsTerminal, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

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

use super::{
    options::{BadConfiguration, Common},
    output::{complain, say, say_json},
    serve,
};
use crate::store::sqlite::{self, Copied};

/// Copy the SQLite store.
#[derive(Args, Debug)]
pub struct Backup {
    /// Path of the copy, which must not exist yet, or - for standard output.
    file: PathBuf,
    /// Print the result as JSON, on standard error if the copy goes to standard output.
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let to_stdout = self.file.as_os_str() == "-";
        if to_stdout && stdout().is_terminal() {
            let message = "standard output is a terminal: redirect it, or give the path of a file";
            return Err(BadConfiguration(message.to_owned()).into());
        }
        let salvaged = common.salvage();
        if salvaged.names_a_database {
            let message = "the store is in PostgreSQL: use pg_dump -n relay, or the backup of your \
                other databases";
            return Err(BadConfiguration(message.to_owned()).into());
        }
        if !salvaged.has_read("/store/sqlite/path") {
            return Err(common.unusable(&salvaged, "/store/sqlite/path"));
        }
        let store = salvaged.config.store.path;
        let to = (!to_stdout).then(|| self.file.clone());
        let copied = serve::runtime()?.block_on(copy(store, to))?;
        let file = self.file.display();
        if to_stdout {
            // Standard output carries the copy.
            complain(&if self.json {
                json!({"file": "-", "bytes": copied.bytes, "alerts": copied.alerts}).to_string()
            } else {
                format!("standard output: {} alerts, {} bytes", copied.alerts, copied.bytes)
            });
        } else if self.json {
            let file = file.to_string();
            say_json(&json!({"file": file, "bytes": copied.bytes, "alerts": copied.alerts}))?;
        } else {
            say(&format!("{file}: {} alerts, {} bytes", copied.alerts, copied.bytes));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Interval at which the interrupt is repeated: one that arrives before SQLite has started a
/// statement has no effect.
const REPEAT: Duration = Duration::from_millis(100);

/// Copies the store. A signal cancels the copy, and the incomplete file is removed.
async fn copy(store: PathBuf, to: Option<PathBuf>) -> anyhow::Result<Copied> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (started, start) = oneshot::channel();
    let mut copying = spawn_blocking(move || {
        let started = |handle| drop(started.send(handle));
        match to {
            Some(to) => sqlite::backup(&store, &to, started),
            None => sqlite::backup_to(&store, &mut stdout(), started),
        }
    });
    tokio::select! {
        copied = &mut copying => return Ok(copied??),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    let handle = start.await.ok();
    loop {
        handle.iter().for_each(InterruptHandle::interrupt);
        if let Ok(copied) = timeout(REPEAT, &mut copying).await {
            // The copy may have been complete before the interrupt.
            return copied?.context("cancelled by a signal");
        }
    }
}
