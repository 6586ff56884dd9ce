//! `backup`: a consistent copy of the SQLite store, while the relay runs or not.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{BadConfiguration, Common, say};
use crate::store::sqlite;

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
        let config = common.load()?;
        if config.store.postgres.is_some() {
            let message = "the store is in PostgreSQL: use pg_dump -n relay, or what backs up your \
                other databases";
            return Err(BadConfiguration(message.to_owned()).into());
        }
        let copied = sqlite::backup(&config.store.path, &self.file)?;
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
