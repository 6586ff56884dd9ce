//! Opens the store that the configuration names.

use std::sync::Arc;

use anyhow::Context;

use crate::{
    clock::Clock,
    config, http_client,
    metrics::Metrics,
    secret::Secret,
    store::{
        Store,
        postgres::{self, PostgresStore},
        sqlite::{SqliteSettings, SqliteStore},
    },
};

/// Opens the store that the configuration names.
///
/// # Errors
/// The store cannot be opened; the message has the reason.
pub(super) async fn open_store(
    config: &config::StoreConfig,
    clock: &Clock,
    metrics: &Metrics,
) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(postgres) = &config.postgres {
        let settings = postgres_settings(postgres, config)?;
        return Ok(Arc::new(PostgresStore::open(settings, clock.clone(), metrics).await?));
    }
    let settings = SqliteSettings {
        path: config.path.clone(),
        max_size_bytes: config.max_size_bytes,
        lease: config.lease,
    };
    Ok(Arc::new(SqliteStore::open(&settings, clock.clone(), metrics)?))
}

/// Returns the settings with which the store in PostgreSQL is opened.
pub(super) fn postgres_settings(
    postgres: &config::PostgresConfig,
    config: &config::StoreConfig,
) -> anyhow::Result<postgres::Settings> {
    let tls = http_client::Settings { ca_file: postgres.ca_file.clone(), ..Default::default() };
    let tls = http_client::tls(&tls).context("store.postgres.ca_file")?;
    Ok(postgres::Settings {
        url: url(&postgres.url),
        listen_url: postgres.listen_url.as_ref().map(url),
        tls: Arc::new(tls),
        max_connections: postgres.max_connections,
        allow_unsafe: postgres.allow_unsafe,
        lease: config.lease,
    })
}

fn url(secret: &Secret) -> postgres::Url {
    let secret = secret.clone();
    postgres::Url::new(move || secret.reveal())
}
