//! `migrate-store`: moves what a stopped relay kept in SQLite to PostgreSQL.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{BadConfiguration, Common, open_store::postgres_settings, say, serve};
use crate::{
    clock::Clock,
    metrics::Metrics,
    store::{Upkeep, postgres::PostgresStore, sqlite::Export, transfer::transfer},
};

/// Move the alerts, deliveries, cursors and identities of a stopped relay from SQLite to the
/// PostgreSQL database of the configuration, all or nothing.
#[derive(Args, Debug)]
pub struct MigrateStore {
    /// The SQLite file; no relay may use it.
    #[arg(long, value_name = "sqlite:PATH", value_parser = sqlite_path)]
    from: PathBuf,
    /// Where to: the configuration's `store.postgres`, in which there must be no alerts yet.
    #[arg(long, value_enum)]
    to: Target,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
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
        let Self { from, to: Target::Postgres } = self;
        let Some(postgres) = &config.store.postgres else {
            let message = "the configuration names no store.postgres to move to";
            return Err(BadConfiguration(message.to_owned()).into());
        };
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
        say(&format!("moved; keep {} until the relays on PostgreSQL are well", from.display()));
        Ok(ExitCode::SUCCESS)
    }
}
