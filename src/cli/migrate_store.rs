//! `migrate-store`: moves the store of a stopped relay from SQLite to PostgreSQL.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{
    open_store::postgres_settings,
    options::{BadConfiguration, Common},
    output::say,
    serve,
};
use crate::{
    clock::Clock,
    metrics::Metrics,
    store::{Upkeep, postgres::PostgresStore, sqlite::Export, transfer::transfer},
};

/// Move the alerts, deliveries, cursors and identities of a stopped relay from SQLite to the
/// PostgreSQL database of the configuration, in one transaction.
#[derive(Args, Debug)]
pub struct MigrateStore {
    /// Path of the SQLite file, which no running relay may use.
    #[arg(long, value_name = "sqlite:PATH", value_parser = sqlite_path)]
    from: PathBuf,
    /// Target: `store.postgres` of the configuration, which must not contain alerts yet.
    #[arg(long, value_enum)]
    to: TargetStore,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TargetStore {
    Postgres,
}

fn sqlite_path(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        Some(_) | None => Err("write sqlite:PATH".to_owned()),
    }
}

impl MigrateStore {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        common.start_log(&common.log_level)?;
        let config = common.load()?;
        let Self { from, to: TargetStore::Postgres } = self;
        let Some(postgres) = &config.store.postgres else {
            let message = "the configuration does not have `store.postgres`";
            return Err(BadConfiguration(message.to_owned()).into());
        };
        // Holds the lock of the file until the end, so no relay adds an alert that would be left
        // behind.
        let export = Export::open(&from)?;
        let settings = postgres_settings(postgres, &config.store)?;
        let moved = serve::runtime()?.block_on(async {
            let store = PostgresStore::open(settings, Clock::system(), &Metrics::new()).await?;
            let moved = transfer(&export, &store).await.context("the store was not moved")?;
            store.close().await;
            anyhow::Ok(moved)
        })?;
        for (name, rows) in moved {
            say(&format!("{rows:>10} {name}"));
        }
        say(&format!("moved; keep {} until the relays work well on PostgreSQL", from.display()));
        Ok(ExitCode::SUCCESS)
    }
}
