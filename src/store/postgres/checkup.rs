//! What `doctor` asks of a database that relays may be using. It counts up the number by which
//! `/readyz` proves that writes become durable, and changes nothing else.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{
    Settings,
    accept::PROBE,
    catch_up,
    door::{Door, Haste},
    layout,
    open::{OpenError, check_encoding},
    row::get,
};
use crate::{
    clock::Clock,
    ids::{AppName, ChannelId},
    store::StoreError,
};

/// How often a small write is tried.
const TRIES: usize = 9;

/// What the server says of itself.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its version, such as `15.9`.
    pub version: String,
    /// The settings that decide whether it keeps what it has acknowledged.
    pub settings: Vec<(&'static str, String)>,
    /// The median time of a small write, if the relay's tables are there.
    pub write: Option<Duration>,
}

impl Found {
    /// The setting by which it may forget, if there is one.
    pub fn unsafe_setting(&self) -> Option<&(&'static str, String)> {
        self.settings.iter().find(|(_, value)| value == "off")
    }
}

/// A database that can be asked.
#[derive(Debug)]
pub struct Checkup(Door);

impl Checkup {
    /// Nothing is connected yet. What the server may forget is told, and not refused.
    ///
    /// # Errors
    /// [`OpenError::Url`].
    pub fn new(settings: Settings) -> Result<Self, OpenError> {
        let settings = Settings { allow_unsafe: true, ..settings };
        Ok(Self(Door::new(&settings, Clock::system())?))
    }

    /// Connects, and looks.
    ///
    /// # Errors
    /// [`OpenError`]: it cannot be reached or used, or its tables are a newer relay's.
    pub async fn look(&self) -> Result<Found, OpenError> {
        const SQL: &str = "SELECT current_setting('server_version'),
            current_setting('synchronous_commit'), current_setting('fsync'),
            current_setting('full_page_writes')";
        let rows = self.0.run(Haste::Patient, SQL, &[]).await?;
        let text = |column| rows.first().map_or(Ok(String::new()), |row| get(row, column));
        let (version, synchronous_commit, fsync) = (text(0)?, text(1)?, text(2)?);
        let settings = vec![
            ("synchronous_commit", synchronous_commit),
            ("fsync", fsync),
            ("full_page_writes", text(3)?),
        ];
        check_encoding(&self.0).await?;
        let has_tables = layout::is_there(&self.0).await?;
        let write = if has_tables { Some(self.write().await?) } else { None };
        Ok(Found { version, settings, write })
    }

    async fn write(&self) -> Result<Duration, StoreError> {
        let clock = Clock::system();
        let mut times = Vec::new();
        for _ in 0..TRIES {
            let start = clock.instant();
            self.0.run(Haste::Patient, PROBE, &[]).await?;
            times.push(clock.instant().saturating_duration_since(start));
        }
        times.sort_unstable();
        Ok(times.get(TRIES / 2).copied().unwrap_or_default())
    }

    /// The ids that the relays have found behind the configured channels of an app.
    ///
    /// # Errors
    /// The database cannot be asked, or has no tables yet.
    pub async fn known_channels(
        &self,
        app: &AppName,
    ) -> Result<Vec<(String, ChannelId)>, StoreError> {
        let rows = self
            .0
            .run(Haste::Patient, catch_up::CHANNEL_IDS, &[(&app.as_str(), Type::TEXT)])
            .await?;
        rows.iter().map(|row| Ok((get(row, 0)?, ChannelId::new(get(row, 1)?)))).collect()
    }
}
