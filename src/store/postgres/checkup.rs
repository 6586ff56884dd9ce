//! Checks of a database for `doctor`, while relays may be using it. The only write is the probe by
//! which `/readyz` proves that writes become durable.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{
    accept::PROBE,
    catch_up::CHANNEL_IDS,
    database::{Database, Param, Priority},
    error::OpenError,
    layout,
    open::check_encoding,
    row::get,
    settings::Settings,
};
use crate::{
    clock::Clock,
    ids::{AppName, ChannelId},
    store::StoreError,
};

/// Number of probes whose median is shown.
const PROBES: usize = 9;

/// Version, settings and speed of a server.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// Version of the server, such as `15.9`.
    pub version: String,
    /// Names and values of the settings that decide whether a commit survives a crash.
    pub settings: Vec<(&'static str, String)>,
    /// Median time of a probe, or `None` if the relay's tables do not exist yet.
    pub write: Option<Duration>,
}

impl ServerReport {
    /// Returns the setting by which the server may lose an acknowledged commit, if there is one.
    pub fn unsafe_setting(&self) -> Option<&(&'static str, String)> {
        self.settings.iter().find(|(_, value)| value == "off")
    }
}

/// A connection pool for checks.
#[derive(Debug)]
pub struct Checkup(Database);

impl Checkup {
    /// Makes a pool, which connects when it is first used. An unsafe server is reported and not
    /// refused.
    ///
    /// # Errors
    /// [`OpenError::Url`] if the URL cannot be parsed.
    pub fn new(settings: Settings) -> Result<Self, OpenError> {
        let settings = Settings { allow_unsafe: true, ..settings };
        Ok(Self(Database::new(&settings, Clock::system())?))
    }

    /// Connects and checks the server.
    ///
    /// # Errors
    /// [`OpenError`] if the server cannot be reached or used, or has the layout of a newer relay.
    pub async fn report(&self) -> Result<ServerReport, OpenError> {
        const SQL: &str = "SELECT current_setting('server_version'),
            current_setting('synchronous_commit'), current_setting('fsync'),
            current_setting('full_page_writes')";
        let rows = self.0.run(Priority::Background, SQL, &[]).await?;
        let text = |column| rows.first().map_or(Ok(String::new()), |row| get(row, column));
        let version = text(0)?;
        let synchronous_commit = text(1)?;
        let fsync = text(2)?;
        let settings = vec![
            ("synchronous_commit", synchronous_commit),
            ("fsync", fsync),
            ("full_page_writes", text(3)?),
        ];
        check_encoding(&self.0).await?;
        let has_tables = layout::is_current(&self.0).await?;
        let write = if has_tables { Some(self.median_write().await?) } else { None };
        Ok(ServerReport { version, settings, write })
    }

    async fn median_write(&self) -> Result<Duration, StoreError> {
        let clock = Clock::system();
        let mut times = Vec::new();
        for _ in 0..PROBES {
            let start = clock.instant();
            self.0.run(Priority::Background, PROBE, &[]).await?;
            times.push(clock.instant().saturating_duration_since(start));
        }
        times.sort_unstable();
        Ok(times.get(PROBES / 2).copied().unwrap_or_default())
    }

    /// Returns the channel ids that relays have found for the configured channels of an app, each
    /// after the configured text.
    ///
    /// # Errors
    /// The query fails, for instance since the tables do not exist yet.
    pub async fn known_channels(
        &self,
        app: &AppName,
    ) -> Result<Vec<(String, ChannelId)>, StoreError> {
        let params: [Param<'_>; _] = [(&app.as_str(), Type::TEXT)];
        let rows = self.0.run(Priority::Background, CHANNEL_IDS, &params).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, ChannelId::new(get(row, 1)?)))).collect()
    }
}
