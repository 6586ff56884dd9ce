//! Bots that have posted incidents.

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::{
    database::{Param, Priority},
    row::{count, get, time},
    shared::Shared,
    store::PostgresStore,
};
use crate::{
    ids::{AppName, ChannelId},
    store::{POSTER_KEPT, Poster, Posters, StoreError, stored::clean},
};

#[async_trait]
impl Posters for PostgresStore {
    async fn add_posters(&self, posters: Vec<Poster>) -> Result<(), StoreError> {
        const SQL: &str = "
            INSERT INTO relay.posters AS p (app, channel, bot_id, app_id, incidents, last)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (app, channel, bot_id, app_id) DO UPDATE
            SET incidents = p.incidents + excluded.incidents,
                last = greatest(p.last, excluded.last)";
        let mut posters = posters;
        // All relays lock the rows in the same order, so they cannot deadlock.
        posters.sort_by(|one, other| {
            let key = |poster: &Poster| {
                let Poster { app, channel, bot_id, app_id, .. } = poster;
                (app.clone(), channel.clone(), bot_id.clone(), app_id.clone())
            };
            key(one).cmp(&key(other))
        });
        let mut transaction = self.shared.database.begin(Priority::Background).await?;
        for poster in &posters {
            let app = poster.app.as_str();
            let channel = clean(poster.channel.as_str());
            let bot_id = clean(&poster.bot_id);
            let app_id = clean(&poster.app_id);
            let incidents = i64::try_from(poster.incidents).unwrap_or(i64::MAX);
            let last = poster.last.micros();
            let params: [Param<'_>; _] = [
                (&app, Type::TEXT),
                (&channel, Type::TEXT),
                (&bot_id, Type::TEXT),
                (&app_id, Type::TEXT),
                (&incidents, Type::INT8),
                (&last, Type::INT8),
            ];
            transaction.query(SQL, &params).await?;
        }
        transaction.commit().await
    }

    async fn posters(&self, app: &AppName) -> Result<Vec<Poster>, StoreError> {
        const SQL: &str = "SELECT channel, bot_id, app_id, incidents, last FROM relay.posters
            WHERE app = $1 ORDER BY last DESC, channel, bot_id, app_id";
        let name = app.as_str();
        let rows =
            self.shared.database.run(Priority::Background, SQL, &[(&name, Type::TEXT)]).await?;
        let poster = |row| {
            Ok(Poster {
                app: app.clone(),
                channel: ChannelId::new(get(row, 0)?),
                bot_id: get(row, 1)?,
                app_id: get(row, 2)?,
                incidents: count(row, 3)?,
                last: time(row, 4)?,
            })
        };
        rows.iter().map(poster).collect()
    }
}

/// Removes bots whose last incident is too old.
pub(super) async fn forget(shared: &Shared, now: i64) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM relay.posters WHERE last < $1::int8 - $2::int8";
    let kept = i64::try_from(POSTER_KEPT.as_micros()).unwrap_or(i64::MAX);
    let params: [Param<'_>; _] = [(&now, Type::INT8), (&kept, Type::INT8)];
    shared.database.run(Priority::Background, SQL, &params).await.map(drop)
}
