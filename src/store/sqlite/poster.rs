//! The role [`Posters`]: remembers which bots have posted incidents.

use async_trait::async_trait;
use rusqlite::params;

use super::{SqliteStore, db::Db, job::Purpose};
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId},
    store::{POSTER_KEPT, Poster, Posters, StoreError, stored::clean},
};

#[async_trait]
impl Posters for SqliteStore {
    async fn add_posters(&self, posters: Vec<Poster>) -> Result<(), StoreError> {
        self.write_for(Purpose::Intake, move |db, _mode| {
            posters.iter().try_for_each(|poster| add(db, poster))
        })
        .await
    }

    async fn posters(&self, app: &AppName) -> Result<Vec<Poster>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| {
            db.prepare_cached(
                "SELECT channel, bot_id, app_id, incidents, last FROM posters WHERE app = ?1
                 ORDER BY last DESC, channel, bot_id, app_id",
            )?
            .query_map([app.as_str()], |row| {
                Ok(Poster {
                    app: app.clone(),
                    channel: ChannelId::new(&row.get::<_, String>(0)?),
                    bot_id: row.get(1)?,
                    app_id: row.get(2)?,
                    incidents: u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default(),
                    last: Timestamp::from_micros(row.get(4)?),
                })
            })?
            .collect()
        })
        .await
    }
}

fn add(db: &Db<'_>, poster: &Poster) -> rusqlite::Result<()> {
    let Poster { app, channel, bot_id, app_id, incidents, last } = poster;
    db.execute(
        "INSERT INTO posters (app, channel, bot_id, app_id, incidents, last)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET incidents = incidents + excluded.incidents,
            last = max(last, excluded.last)",
        params![
            app.as_str(),
            clean(channel.as_str()),
            clean(bot_id),
            clean(app_id),
            i64::try_from(*incidents).unwrap_or(i64::MAX),
            last.micros(),
        ],
    )?;
    Ok(())
}

/// Removes bots that have posted no incident for [`POSTER_KEPT`].
pub(super) fn forget(db: &Db<'_>, now: Timestamp) -> rusqlite::Result<()> {
    db.execute("DELETE FROM posters WHERE last < ?1", [(now - POSTER_KEPT).micros()]).map(drop)
}
