//! Accepting messages: one task writes all that waits in one transaction.
//!
//! A thousand waiting messages share one commit, and a single one does not wait for others. The
//! function `relay.accept_batch` stores a batch and finds out by itself what is known, so a batch
//! without other writes takes one round trip, commit included.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use super::{
    batch::{BatchColumns, HeldMessage},
    cursor::move_cursor,
    database::{Param, Priority, Transaction},
    error::is_retryable,
    shared::{Shared, TRIES, Weight, copy, gather},
};
use crate::{
    ids::{AppName, DestinationName},
    store::{
        Accepted, CursorMove, MESSAGE_MAX_BYTES, NewMessage, StoreError,
        sql::PER_MESSAGE,
        stored::QUARANTINED,
        waiting::{Handed, Queued},
    },
};

/// Result of each message of a batch, in the order of the batch.
pub(super) type Results = Vec<Result<Accepted, StoreError>>;

/// The most messages, and about the most bytes, that share a transaction.
const TRANSACTION: Weight = Weight { items: 512, bytes: 8 * 1024 * 1024 };

/// A request to the task that writes messages.
pub(super) enum Job {
    Accept {
        batch: Handed<Batch>,
        weight: Weight,
        reply: oneshot::Sender<Result<Results, StoreError>>,
    },
    Quarantine {
        app: AppName,
        body: Vec<u8>,
        _queued: Queued<()>,
    },
    Probe(oneshot::Sender<Result<(), StoreError>>),
}

/// The messages of one call of `accept`.
pub(super) struct Batch {
    pub(super) messages: Vec<NewMessage>,
    /// Time until the first attempt of the deliveries, in microseconds.
    pub(super) hold_us: i64,
    pub(super) cursor: Option<CursorMove>,
}

impl Batch {
    /// Returns the number of messages and about how many bytes they write.
    pub(super) fn weight(&self) -> Weight {
        let bytes = self.messages.iter().map(|message| message.raw.len()).sum();
        Weight { items: self.messages.len(), bytes }
    }
}

impl Job {
    fn weight(&self) -> Weight {
        match self {
            Self::Accept { weight, .. } => *weight,
            Self::Quarantine { body, .. } => Weight { items: 1, bytes: body.len() },
            Self::Probe(_) => Weight { items: 1, bytes: 0 },
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the message is larger than {MESSAGE_MAX_BYTES} bytes")]
struct TooLarge;

#[derive(Debug, thiserror::Error)]
#[error("the message has more than {PER_MESSAGE} alerts")]
struct TooManyAlerts;

/// Writes until every sender is gone.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Job>) {
    let mut writer = Writer { shared, destinations: HashMap::new() };
    while let Some(jobs) = gather(&mut queue, TRANSACTION, Job::weight).await {
        writer.write(jobs).await;
    }
}

struct Writer {
    shared: Arc<Shared>,
    /// Numbers of the destinations that were looked up.
    destinations: HashMap<DestinationName, i32>,
}

/// The writes of a transaction beside messages.
#[derive(Default)]
struct OtherWrites {
    cursors: Vec<CursorMove>,
    bodies: Vec<(AppName, Vec<u8>)>,
    has_probe: bool,
}

impl OtherWrites {
    const fn is_empty(&self) -> bool {
        self.cursors.is_empty() && self.bodies.is_empty() && !self.has_probe
    }
}

impl Writer {
    async fn write(&mut self, jobs: Vec<Job>) {
        let mut messages: Vec<HeldMessage> = Vec::new();
        let mut other = OtherWrites::default();
        let mut replies = Vec::new();
        let mut probes = Vec::new();
        for job in jobs {
            match job {
                Job::Accept { batch, reply, .. } => {
                    // A caller that has given up has taken its batch back.
                    let Some(batch) = batch.take() else { continue };
                    replies.push((batch.messages.len(), reply));
                    other.cursors.extend(batch.cursor);
                    let hold_us = batch.hold_us;
                    let held = batch.messages.into_iter();
                    messages.extend(held.map(|message| HeldMessage { message, hold_us }));
                }
                Job::Quarantine { app, body, .. } => other.bodies.push((app, body)),
                Job::Probe(reply) => {
                    other.has_probe = true;
                    probes.push(reply);
                }
            }
        }
        if replies.is_empty() && other.is_empty() {
            return;
        }
        let result = self.store(&messages, &other).await.map_err(Arc::new);
        if result.is_ok() {
            self.wake(&messages);
        } else {
            // The connection may now lead to another database, or to an older state of this one.
            self.destinations.clear();
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
            // A caller that has given up no longer receives.
            drop(reply.send(own));
        }
    }

    fn wake(&self, messages: &[HeldMessage]) {
        for name in destinations(messages) {
            self.shared.hints.wake(Some(name));
        }
    }

    /// Stores everything in one transaction. If the server refuses an item of it for good, stores
    /// each message in a separate transaction, and then the other writes.
    async fn store(
        &mut self,
        messages: &[HeldMessage],
        other: &OtherWrites,
    ) -> Result<Results, StoreError> {
        let unusable: Vec<Option<StoreError>> = messages.iter().map(unusable).collect();
        let usable: Vec<&HeldMessage> = messages
            .iter()
            .zip(&unusable)
            .filter(|(_, unusable)| unusable.is_none())
            .map(|(held, _)| held)
            .collect();
        // Before the transaction: the arrays need the numbers, and a destination without deliveries
        // does no harm.
        self.know_destinations(&usable).await?;
        let mut stored = match self.transaction_with_retries(&usable, other).await {
            Ok(accepted) => accepted.into_iter().map(Ok).collect(),
            Err(StoreError::Item(_)) => self.store_apart(&usable, other).await?,
            Err(error) => return Err(error),
        }
        .into_iter();
        // Unusable messages were left out, so the results are put in the order of the batch again.
        let one = |unusable: Option<StoreError>| match unusable {
            Some(error) => Err(error),
            None => stored.next().unwrap_or(Err(StoreError::Closed)),
        };
        Ok(unusable.into_iter().map(one).collect())
    }

    async fn store_apart(
        &mut self,
        messages: &[&HeldMessage],
        other: &OtherWrites,
    ) -> Result<Results, StoreError> {
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            match self.transaction_with_retries(&[message], &OtherWrites::default()).await {
                Ok(accepted) => results.extend(accepted.into_iter().map(Ok)),
                Err(error @ StoreError::Item(_)) => results.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        // Cursors come last: after a crash before this, the messages are read once more and are
        // known.
        self.transaction_with_retries(&[], other).await?;
        Ok(results)
    }

    async fn transaction_with_retries(
        &mut self,
        messages: &[&HeldMessage],
        other: &OtherWrites,
    ) -> Result<Vec<Accepted>, StoreError> {
        let mut tries = 1;
        loop {
            match self.transaction(messages, other).await {
                Err(error) if tries < TRIES && is_retryable(&error) => tries += 1,
                result => return result,
            }
        }
    }

    /// Writes one transaction. Returns the result of each message.
    async fn transaction(
        &self,
        messages: &[&HeldMessage],
        other: &OtherWrites,
    ) -> Result<Vec<Accepted>, StoreError> {
        if messages.is_empty() && other.is_empty() {
            return Ok(Vec::new());
        }
        let Shared { database, clock, notifies, .. } = self.shared.as_ref();
        let columns = BatchColumns::new(messages, &self.destinations, self.shared.now(), *notifies);
        let start = clock.instant();
        let rows = if other.is_empty() {
            // Settings, call and commit are sent together, in one round trip.
            database.run(Priority::Batch, BatchColumns::ACCEPT, &columns.params()).await?
        } else {
            let mut transaction = database.begin(Priority::Batch).await?;
            let mut rows = Vec::new();
            if !messages.is_empty() {
                rows = transaction.query(BatchColumns::ACCEPT, &columns.params()).await?;
            }
            self.write_others(&mut transaction, other).await?;
            transaction.commit().await?;
            rows
        };
        let took = clock.instant().duration_since(start);
        self.shared.commit_seconds.record(took.as_secs_f64());
        rows.first().map_or(Ok(Vec::new()), |row| columns.results(row))
    }

    /// Writes cursors, quarantined bodies and the probe.
    async fn write_others(
        &self,
        transaction: &mut Transaction<'_>,
        other: &OtherWrites,
    ) -> Result<(), StoreError> {
        for cursor in &other.cursors {
            move_cursor(transaction, self.shared.now(), cursor).await?;
        }
        for (app, body) in &other.bodies {
            self.quarantine(transaction, app, body).await?;
        }
        if other.has_probe {
            transaction.query(PROBE, &[]).await?;
        }
        Ok(())
    }

    /// Looks up the numbers of destinations that are not in `self.destinations`; a new destination
    /// gets one.
    async fn know_destinations(&mut self, messages: &[&HeldMessage]) -> Result<(), StoreError> {
        let wanted = messages.iter().flat_map(|held| &held.message.alerts);
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

    /// Keeps a body that could not be read, and removes the oldest beyond the limit.
    async fn quarantine(
        &self,
        transaction: &mut Transaction<'_>,
        app: &AppName,
        body: &[u8],
    ) -> Result<(), StoreError> {
        // Ids that a rollback has skipped count as well, so a few bodies fewer may be kept.
        let sql = "WITH new AS (
                INSERT INTO relay.quarantine (app, received_at, body)
                VALUES ($1, relay.now_us($2), $3) RETURNING id)
             DELETE FROM relay.quarantine USING new WHERE quarantine.id <= new.id - $4";
        let app = app.as_str();
        let now = self.shared.now();
        let params: [Param<'_>; _] = [
            (&app, Type::TEXT),
            (&now, Type::INT8),
            (&body, Type::BYTEA),
            (&QUARANTINED, Type::INT8),
        ];
        transaction.query(sql, &params).await.map(drop)
    }
}

/// Returns why a message can never be stored, if that is so.
fn unusable(HeldMessage { message, .. }: &HeldMessage) -> Option<StoreError> {
    if let Some(why) = message.unusable() {
        return Some(StoreError::Item(why.into()));
    }
    if message.raw.len() > MESSAGE_MAX_BYTES {
        return Some(StoreError::Item(TooLarge.into()));
    }
    // The layout has no numbers for more.
    let alerts = i64::try_from(message.alerts.len()).unwrap_or(i64::MAX);
    (alerts > PER_MESSAGE).then(|| StoreError::Item(TooManyAlerts.into()))
}

/// Returns the destinations of the messages' alerts, each once.
fn destinations<'a>(
    messages: impl IntoIterator<Item = &'a HeldMessage>,
) -> HashSet<&'a DestinationName> {
    let alerts = messages.into_iter().flat_map(|held| &held.message.alerts);
    alerts.flat_map(|alert| &alert.destinations).collect()
}

/// Counts up the number that proves that a write becomes durable.
pub(super) const PROBE: &str = "
INSERT INTO relay.probe (id, number) VALUES (0, 1)
ON CONFLICT (id) DO UPDATE SET number = probe.number + 1";
