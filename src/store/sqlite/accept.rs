//! The role [`Inbox`]: stores messages with their alerts and deliveries, and quarantined bodies.

use async_trait::async_trait;
use rusqlite::{named_params, params};

use super::{
    SqliteStore, catch_up,
    db::Db,
    error::item,
    evict,
    job::{Mode, Purpose, Write, answer},
    row::StoredTs,
};
use crate::{
    clock::Timestamp,
    ids::AppName,
    store::{
        Accepted, CursorMove, Inbox, NewAlert, NewMessage, REVISIONS_KEPT, Source, StoreError,
        stored::{PER_ALERT, QUARANTINED, clean, quarantined, source_number},
        waiting::Handed,
    },
};

/// Result of each message of a batch, in order.
type Results = Vec<Result<Accepted, StoreError>>;

/// A batch that one transaction writes.
struct Batch {
    messages: Vec<NewMessage>,
    hold_until: Option<Timestamp>,
    cursor: Option<CursorMove>,
}

impl Batch {
    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.raw.len()).sum()
    }

    fn write(&self, db: &mut Db<'_>, mode: Mode) -> rusqlite::Result<Results> {
        let due = self.hold_until.unwrap_or_else(|| db.now());
        let mut results = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            results.push(match (message.unusable(), mode) {
                (Some(why), _) => Err(StoreError::Item(why.into())),
                (None, Mode::Together) => Ok(accept_message(db, message, due)?),
                (None, Mode::Apart) => {
                    db.apart(|db| accept_message(db, message, due))?.map_err(item)
                }
            });
        }
        if let Some(cursor) = &self.cursor {
            catch_up::move_cursor(db, cursor)?;
        }
        Ok(results)
    }
}

#[async_trait]
impl Inbox for SqliteStore {
    async fn accept(
        &self,
        batch: Vec<NewMessage>,
        hold_until: Option<Timestamp>,
        cursor: Option<CursorMove>,
    ) -> Result<Results, StoreError> {
        let batch = Batch { messages: batch, hold_until, cursor };
        let hints = self.shared.hints.of_messages(&batch.messages);
        let bytes = batch.bytes();
        let held = self.shared.waiting.hold(batch, bytes).ok_or(StoreError::Busy)?;
        evict::make_room(self).await?;
        let (job, reply) = Write::new(writing(held.hand_over()), move |durable| {
            hints.iter().filter(|_| durable).for_each(|hint| hint.notify_one());
        });
        self.submit(job.of_bytes(bytes).with(Purpose::Intake));
        answer(reply).await
    }

    fn quarantine(&self, app: &AppName, body: &[u8]) {
        let (app, body) = (app.clone(), quarantined(body).to_vec());
        let bytes = body.len();
        let Some(held) = self.shared.waiting.hold((), bytes) else {
            return tracing::debug!(
                "a body is not quarantined: too many bytes are waiting to be written"
            );
        };
        let work = move |db: &mut Db<'_>, _: Mode| {
            let _until_written = &held;
            quarantine(db, &app, &body)
        };
        let (job, _reply) = Write::new(work, |_durable| ());
        self.submit(job.of_bytes(bytes).with(Purpose::Intake));
    }
}

/// Returns a job function that writes the batch, or nothing if the caller has given up.
fn writing(handed: Handed<Batch>) -> impl FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<Results> {
    let mut batch: Option<Batch> = None;
    move |db, mode| {
        // The batch is kept, since the transaction may be repeated.
        batch = batch.take().or_else(|| handed.take());
        batch.as_ref().map_or_else(|| Ok(Vec::new()), |batch| batch.write(db, mode))
    }
}

fn accept_message(
    db: &mut Db<'_>,
    message: &NewMessage,
    due: Timestamp,
) -> rusqlite::Result<Accepted> {
    let channel = channel_of(db, message)?;
    // Also the number of the first new alert, so that the number of a message leads to its alerts.
    let id = db.next_seq();
    let mut new = 0_u32;
    for alert in &message.alerts {
        if insert_alert(db, (channel, id), message, alert)? {
            insert_deliveries(db, alert, due)?;
            db.use_seq();
            new += 1;
        }
    }
    if new > 0 {
        insert_message(db, id, message, new)?;
    }
    if usize::try_from(new).is_ok_and(|new| new == message.alerts.len()) {
        // A push has nothing to note: a new message is not in the list of unpushed ones.
        if message.source == Source::CatchUp {
            catch_up::note_source(db, channel, message, true)?;
        }
        return Ok(Accepted::New { alerts: new });
    }
    let is_news = remember_source(db, channel, message)?;
    catch_up::note_source(db, channel, message, is_news && new == 0)?;
    if new > 0 {
        Ok(Accepted::New { alerts: new })
    } else if message.is_edit && insert_revision(db, channel, message)? {
        Ok(Accepted::Revision)
    } else {
        Ok(Accepted::Duplicate)
    }
}

/// Returns the number of the channel id under which the message is known, or is to be stored.
fn channel_of(db: &mut Db<'_>, message: &NewMessage) -> rusqlite::Result<i64> {
    let own = db.channel(&message.key.app, &message.key.channel)?;
    let Some(chain) = db.chain(&message.key.app, &message.key.channel)? else {
        return Ok(own);
    };
    let mut is_known = db.statement("SELECT 1 FROM alerts WHERE channel = ?1 AND ts = ?2")?;
    for id in std::iter::once(&own).chain(&*chain) {
        if is_known.exists(params![id, StoredTs(message.key.ts)])? {
            return Ok(*id);
        }
    }
    Ok(chain.first().copied().unwrap_or(own))
}

/// Inserts an alert. Returns `false` if the unique constraint says that the alert is known.
fn insert_alert(
    db: &mut Db<'_>,
    (channel, id): (i64, i64),
    message: &NewMessage,
    alert: &NewAlert,
) -> rusqlite::Result<bool> {
    let seq = db.next_seq();
    let inserted = db.inserts.alert.execute(params![
        seq,
        channel,
        StoredTs(message.key.ts),
        alert.ordinal,
        id,
        alert.attachment,
        1_i64 << source_number(message.source),
        alert.level,
        // Lists leave out alerts without a search text.
        (!message.is_identity()).then(|| clean(&alert.search)),
    ])?;
    Ok(inserted == 1)
}

fn insert_deliveries(db: &mut Db<'_>, alert: &NewAlert, due: Timestamp) -> rusqlite::Result<()> {
    for name in &alert.destinations {
        let destination = db.destination(name)?;
        let id = db.next_seq() * PER_ALERT + destination.id;
        let since = destination.clock(db.now());
        db.inserts.delivery.execute([id, destination.id, due.micros(), since])?;
    }
    Ok(())
}

fn insert_message(
    db: &mut Db<'_>,
    id: i64,
    message: &NewMessage,
    alerts: u32,
) -> rusqlite::Result<()> {
    let inserted = db.inserts.message.execute(params![
        id,
        alerts,
        message.received_at.micros(),
        message.posted_at.micros(),
        source_number(message.source),
        clean(&message.event_id),
        clean(&message.team),
        (!message.is_identity()).then_some(&message.raw[..]),
    ]);
    inserted.map(drop)
}

/// Adds the source to a known message. Returns `false` if the source had brought it before.
fn remember_source(db: &Db<'_>, channel: i64, message: &NewMessage) -> rusqlite::Result<bool> {
    let changed = db.execute(
        "UPDATE alerts SET sources = sources | ?3
         WHERE channel = ?1 AND ts = ?2 AND sources & ?3 = 0",
        params![channel, StoredTs(message.key.ts), 1_i64 << source_number(message.source)],
    )?;
    Ok(changed > 0)
}

/// Stores an edit as a revision of the message of the first alert. Returns `false` if retention has
/// emptied that message, or the same bytes or another copy of the same edit are stored already.
fn insert_revision(db: &Db<'_>, channel: i64, message: &NewMessage) -> rusqlite::Result<bool> {
    // One edit may arrive as a push and with catch-up. The bytes then differ, and only the
    // timestamp of the edit shows that both are the same.
    let inserted = db.execute(
        "INSERT INTO revisions (message, received_at, edited_ts, raw)
         SELECT m.id, :received_at, :edited_ts, :raw
         FROM alerts a JOIN messages m ON m.id = a.message
         WHERE a.channel = :channel AND a.ts = :ts AND m.raw IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM alerts b JOIN messages n ON n.id = b.message
            WHERE b.channel = :channel AND b.ts = :ts AND (n.raw = :raw OR EXISTS (
                SELECT 1 FROM revisions r WHERE r.message = n.id
                AND (r.raw = :raw OR r.edited_ts = :edited_ts AND :edited_ts <> ''))))
         ORDER BY a.ordinal LIMIT 1",
        named_params! {
            ":channel": channel,
            ":ts": StoredTs(message.key.ts),
            ":received_at": message.received_at.micros(),
            ":edited_ts": clean(&message.edited_ts),
            ":raw": &message.raw[..],
        },
    )?;
    if inserted == 0 {
        return Ok(false);
    }
    let newest = db.connection().last_insert_rowid();
    db.execute(
        "DELETE FROM revisions
         WHERE message = (SELECT message FROM revisions WHERE id = ?1) AND id NOT IN (
            SELECT id FROM revisions
            WHERE message = (SELECT message FROM revisions WHERE id = ?1)
            ORDER BY id DESC LIMIT ?2)",
        params![newest, REVISIONS_KEPT],
    )?;
    Ok(true)
}

/// Stores a quarantined body, and removes the oldest beyond [`QUARANTINED`].
fn quarantine(db: &Db<'_>, app: &AppName, body: &[u8]) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO quarantine (app, received_at, body) VALUES (?1, ?2, ?3)",
        params![app.as_str(), db.now().micros(), body],
    )?;
    let newest = db.connection().last_insert_rowid();
    db.execute("DELETE FROM quarantine WHERE id <= ?1", [newest - QUARANTINED]).map(drop)
}
