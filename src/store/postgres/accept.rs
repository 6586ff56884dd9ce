//! Taking messages in: one task puts everything that waits into one transaction.
//!
//! A thousand waiting messages cost one commit, and a lone one waits for nobody. Messages go in
//! in the order of their keys, so that two relays that store the same ones do not wait for one
//! another in a circle.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use super::{
    catch_up::{Seen, move_cursor},
    door::{Haste, Param, Transaction, is_worth_another_try},
    flat::{Flat, PER_MESSAGE},
    row::get,
    shared::{Shared, TRIES, copy, gather},
};
use crate::{
    ids::{AppName, DestinationName},
    store::{
        Accepted, CursorMove, MESSAGE_MAX_BYTES, NewMessage, REVISIONS_KEPT, StoreError,
        stored::{QUARANTINED, clean},
    },
};

/// What became of each message of a batch, in its order.
pub(super) type Results = Vec<Result<Accepted, StoreError>>;

/// The most messages, and about the most bytes, that share a transaction.
const MESSAGES: usize = 512;
const BYTES: usize = 8 * 1024 * 1024;

/// Something to be taken in.
pub(super) enum Job {
    Accept(Batch, oneshot::Sender<Result<Results, StoreError>>),
    Quarantine { app: AppName, body: Vec<u8> },
    Probe(oneshot::Sender<Result<(), StoreError>>),
}

/// What one caller hands in.
pub(super) struct Batch {
    pub(super) messages: Vec<NewMessage>,
    /// How long its deliveries are held, in microseconds.
    pub(super) hold: i64,
    pub(super) cursor: Option<CursorMove>,
}

impl Job {
    fn weight(&self) -> (usize, usize) {
        match self {
            Self::Accept(batch, _) => {
                (batch.messages.len(), batch.messages.iter().map(|one| one.raw.len()).sum())
            }
            Self::Quarantine { body, .. } => (1, body.len()),
            Self::Probe(_) => (1, 0),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the message is larger than {MESSAGE_MAX_BYTES} bytes")]
struct TooLarge;

#[derive(Debug, thiserror::Error)]
#[error("the message has more than {0} alerts")]
struct TooMany(usize);

/// The most alerts of one message: their numbers are `message * PER_MESSAGE + 0, 1, ...`.
const ALERTS: usize = 4096;

/// Writes until every sender is gone.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Job>) {
    let mut writer = Writer { shared, destinations: HashMap::new() };
    while let Some(jobs) = gather(&mut queue, (MESSAGES, BYTES), Job::weight).await {
        writer.write(jobs).await;
    }
}

struct Writer {
    shared: Arc<Shared>,
    destinations: HashMap<DestinationName, i32>,
}

/// A message with how long its deliveries are held.
type Held = (NewMessage, i64);

/// All that one transaction writes beside messages.
#[derive(Default)]
struct More {
    cursors: Vec<CursorMove>,
    bodies: Vec<(AppName, Vec<u8>)>,
    probes: bool,
}

impl Writer {
    async fn write(&mut self, jobs: Vec<Job>) {
        let mut messages: Vec<Held> = Vec::new();
        let mut more = More::default();
        let mut replies = Vec::new();
        let mut probes = Vec::new();
        for job in jobs {
            match job {
                Job::Accept(batch, reply) => {
                    replies.push((batch.messages.len(), reply));
                    more.cursors.extend(batch.cursor);
                    let hold = batch.hold;
                    messages.extend(batch.messages.into_iter().map(|message| (message, hold)));
                }
                Job::Quarantine { app, body } => more.bodies.push((app, body)),
                Job::Probe(reply) => {
                    more.probes = true;
                    probes.push(reply);
                }
            }
        }
        let result = self.store(&messages, &more).await.map_err(Arc::new);
        if result.is_ok() {
            self.wake(&messages);
        }
        for reply in probes {
            drop(reply.send(result.as_ref().map(drop).map_err(copy)));
        }
        let mut results = result.map(Vec::into_iter);
        for (length, reply) in replies {
            let own = match &mut results {
                Ok(results) => Ok(results.by_ref().take(length).collect()),
                Err(error) => Err(copy(error)),
            };
            // Whoever no longer waits does not want to know.
            drop(reply.send(own));
        }
    }

    fn wake(&self, messages: &[Held]) {
        for name in names(messages) {
            self.shared.wake(Some(name));
        }
    }

    /// All in one transaction; if something in it can never be stored, each message in its own, and
    /// then the rest.
    async fn store(&mut self, messages: &[Held], more: &More) -> Result<Results, StoreError> {
        let unusable: Vec<Option<StoreError>> = messages.iter().map(unusable).collect();
        let usable: Vec<&Held> = messages
            .iter()
            .zip(&unusable)
            .filter(|(_, unusable)| unusable.is_none())
            .map(|(held, _)| held)
            .collect();
        self.know_destinations(&usable).await?;
        let mut stored = match self.try_often(&usable, more).await {
            Ok(accepted) => accepted.into_iter().map(Ok).collect(),
            Err(StoreError::Item(_)) => self.store_apart(&usable, more).await?,
            Err(error) => return Err(error),
        }
        .into_iter();
        let one = |unusable: Option<StoreError>| match unusable {
            Some(error) => Err(error),
            None => stored.next().unwrap_or(Err(StoreError::Closed)),
        };
        Ok(unusable.into_iter().map(one).collect())
    }

    async fn store_apart(&self, messages: &[&Held], more: &More) -> Result<Results, StoreError> {
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            match self.try_often(&[message], &More::default()).await {
                Ok(accepted) => results.extend(accepted.into_iter().map(Ok)),
                Err(error @ StoreError::Item(_)) => results.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        self.try_often(&[], more).await?;
        Ok(results)
    }

    async fn try_often(
        &self,
        messages: &[&Held],
        more: &More,
    ) -> Result<Vec<Accepted>, StoreError> {
        let mut tries = 1;
        loop {
            match self.transaction(messages, more).await {
                Err(error) if tries < TRIES && is_worth_another_try(&error) => tries += 1,
                result => return result,
            }
        }
    }

    async fn transaction(
        &self,
        messages: &[&Held],
        more: &More,
    ) -> Result<Vec<Accepted>, StoreError> {
        let mut transaction = self.shared.door.begin(Haste::Batch).await?;
        let accepted = if messages.is_empty() {
            Vec::new()
        } else {
            self.insert(&mut transaction, messages).await?
        };
        for cursor in &more.cursors {
            move_cursor(&mut transaction, cursor).await?;
        }
        for (app, body) in &more.bodies {
            self.quarantine(&mut transaction, app, body).await?;
        }
        if more.probes {
            transaction.query(PROBE, &[]).await?;
        }
        self.notify(&mut transaction, messages).await?;
        let start = self.shared.clock.instant();
        transaction.commit().await?;
        let took = self.shared.clock.instant().duration_since(start);
        self.shared.commit_seconds.record(took.as_secs_f64());
        Ok(accepted)
    }

    /// Inserts messages. The constraint decides what is known: nothing was looked up before. Of two
    /// in one batch the first is the new one.
    async fn insert(
        &self,
        transaction: &mut Transaction<'_>,
        messages: &[&Held],
    ) -> Result<Vec<Accepted>, StoreError> {
        let number = i32::try_from(messages.len()).unwrap_or(i32::MAX);
        let rows = transaction.query(NUMBERS, &[(&number, Type::INT4)]).await?;
        let ids = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<i64>, _>>()?;
        let flat = Flat::new(self.shared.now(), &ids, messages, &self.destinations);
        let rows = transaction.query(INSERT, &flat.params()).await?;
        let mut new: HashMap<i64, u32> = HashMap::new();
        for row in &rows {
            *new.entry(get::<i64>(row, 0)? / PER_MESSAGE).or_default() += 1;
        }
        let found: Vec<u32> = ids.iter().map(|id| new.get(id).copied().unwrap_or(0)).collect();
        let mut results = Vec::with_capacity(messages.len());
        let mut seen = Seen::default();
        for ((message, _), (new, key)) in messages.iter().zip(found.iter().zip(&flat.keys)) {
            seen.note(message, key, *new);
            results.push(match new {
                0 => Accepted::Duplicate,
                new => Accepted::New { alerts: *new },
            });
        }
        seen.write(transaction).await?;
        for (result, ((message, _), key)) in results.iter_mut().zip(messages.iter().zip(&flat.keys))
        {
            if *result == Accepted::Duplicate
                && message.is_edit
                && revise(transaction, key, message).await?
            {
                *result = Accepted::Revision;
            }
        }
        Ok(results)
    }

    /// Gives destinations that were never heard of their numbers, in a transaction of its own: that
    /// they are known does no harm if the messages are not.
    async fn know_destinations(&mut self, messages: &[&Held]) -> Result<(), StoreError> {
        let wanted = messages.iter().flat_map(|(message, _)| &message.alerts);
        let unknown: HashSet<&DestinationName> = wanted
            .flat_map(|alert| &alert.destinations)
            .filter(|name| !self.destinations.contains_key(name))
            .collect();
        let unknown: Vec<DestinationName> = unknown.into_iter().cloned().collect();
        for name in unknown {
            let id = self.shared.destination(&name).await?;
            self.destinations.insert(name, id);
        }
        Ok(())
    }

    async fn notify(
        &self,
        transaction: &mut Transaction<'_>,
        messages: &[&Held],
    ) -> Result<(), StoreError> {
        if self.shared.notifies {
            let names: Vec<&str> =
                names(messages.iter().copied()).into_iter().map(DestinationName::as_str).collect();
            let sql = "SELECT pg_notify('relay_due', name) FROM unnest($1) AS name";
            transaction.query(sql, &[(&names, Type::TEXT_ARRAY)]).await?;
        }
        Ok(())
    }

    /// Keeps an unreadable body in place of the oldest.
    async fn quarantine(
        &self,
        transaction: &mut Transaction<'_>,
        app: &AppName,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let sql = "WITH new AS (
                INSERT INTO relay.quarantine (app, received_at, body)
                VALUES ($1, relay.now_us($2), $3) RETURNING id)
             DELETE FROM relay.quarantine USING new WHERE quarantine.id <= new.id - $4";
        let (app, now) = (app.as_str(), self.shared.now());
        let params: [Param<'_>; _] = [
            (&app, Type::TEXT),
            (&now, Type::INT8),
            (&body, Type::BYTEA),
            (&QUARANTINED, Type::INT8),
        ];
        transaction.query(sql, &params).await.map(drop)
    }
}

/// Why a message can never be stored, if so.
fn unusable((message, _): &Held) -> Option<StoreError> {
    if let Some(why) = message.unusable() {
        return Some(StoreError::Item(why.into()));
    }
    if message.raw.len() > MESSAGE_MAX_BYTES {
        return Some(StoreError::Item(TooLarge.into()));
    }
    (message.alerts.len() > ALERTS).then(|| StoreError::Item(TooMany(ALERTS).into()))
}

fn names<'a>(messages: impl IntoIterator<Item = &'a Held>) -> HashSet<&'a DestinationName> {
    let alerts = messages.into_iter().flat_map(|(message, _)| &message.alerts);
    alerts.flat_map(|alert| &alert.destinations).collect()
}

const NUMBERS: &str = "SELECT nextval('relay.message_id') FROM generate_series(1, $1) ORDER BY 1";

const INSERT: &str = "
WITH clock AS (SELECT relay.now_us($1) AS now),
a AS (
    INSERT INTO relay.alerts (seq, key, ordinal, attachment, sources, level, search)
    SELECT * FROM unnest($2, $3, $4, $5, $6, $7, $8)
        AS u (seq, key, ordinal, attachment, sources, level, search)
    ORDER BY key, ordinal, seq
    ON CONFLICT (key, ordinal) DO NOTHING RETURNING seq),
s AS (
    INSERT INTO relay.messages (id, received_at, posted_at, source, event_id, team, raw)
    SELECT * FROM unnest($9, $10, $11, $12, $13, $14, $15)
        AS u (id, received_at, posted_at, source, event_id, team, raw)
    WHERE id IN (SELECT seq / 4096 FROM a)),
d AS (
    INSERT INTO relay.deliveries (id, destination, due_at, since)
    SELECT u.seq * 65536 + t.id, t.id, clock.now + u.hold,
        coalesce(t.paused_at, clock.now) - t.paused_for
    FROM clock, unnest($16, $17, $18) AS u (seq, destination, hold)
    JOIN relay.destinations t ON t.id = u.destination
    WHERE u.seq IN (SELECT seq FROM a)
    ON CONFLICT DO NOTHING)
SELECT seq FROM a";

pub(super) const PROBE: &str = "
INSERT INTO relay.probe (id, number) VALUES (0, 1)
ON CONFLICT (id) DO UPDATE SET number = probe.number + 1";

/// Keeps the bytes beside the message's first alert, unless retention has emptied it, or they or
/// others of the same edit are kept already. Returns whether they are new.
async fn revise(
    transaction: &mut Transaction<'_>,
    key: &str,
    message: &NewMessage,
) -> Result<bool, StoreError> {
    const SQL: &str = "
        INSERT INTO relay.revisions (message, received_at, edited_ts, raw)
        SELECT m.id, $2, $4, $3 FROM relay.alerts a JOIN relay.messages m ON m.id = a.seq / 4096
        WHERE a.key = $1 AND m.raw IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM relay.alerts b JOIN relay.messages n ON n.id = b.seq / 4096
            WHERE b.key = $1 AND (n.raw = $3 OR EXISTS (
                SELECT 1 FROM relay.revisions r WHERE r.message = n.id
                AND (r.raw = $3 OR r.edited_ts = $4 AND $4 <> ''))))
        ORDER BY a.ordinal LIMIT 1
        RETURNING message";
    const TRIM: &str = "
        DELETE FROM relay.revisions WHERE message = $1 AND id NOT IN (
            SELECT id FROM relay.revisions WHERE message = $1 ORDER BY id DESC LIMIT $2)";
    let received_at = message.received_at.micros();
    let raw: &[u8] = &message.raw;
    let edited_ts = clean(&message.edited_ts);
    let params: [Param<'_>; _] = [
        (&key, Type::TEXT),
        (&received_at, Type::INT8),
        (&raw, Type::BYTEA),
        (&edited_ts, Type::TEXT),
    ];
    let rows = transaction.query(SQL, &params).await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let id: i64 = get(row, 0)?;
    let kept = i64::from(REVISIONS_KEPT);
    transaction.query(TRIM, &[(&id, Type::INT8), (&kept, Type::INT8)]).await?;
    Ok(true)
}
