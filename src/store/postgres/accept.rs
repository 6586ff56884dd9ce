//! Taking messages in: one task puts everything that waits into one transaction.
//!
//! A thousand waiting messages cost one commit, and a lone one waits for nobody. Messages go in
//! in the order of their keys, so that two relays that store the same ones do not wait for one
//! another in a circle. If all are new one round trip does it (`fresh`). Else it takes two: their
//! alerts, by which the database says what is new, then all else with the commit.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use super::{
    catch_up::move_cursor,
    door::{Haste, Param, Statement, Transaction, is_worth_another_try},
    flat::{Alerts, Deliveries, Item, Messages},
    fresh::Fresh,
    known::Known,
    row::get,
    shared::{Shared, TRIES, copy, gather},
};
use crate::{
    ids::{AppName, DestinationName},
    store::{
        Accepted, CursorMove, MESSAGE_MAX_BYTES, NewMessage, StoreError,
        stored::QUARANTINED,
        waiting::{Handed, Queued},
    },
};

/// What became of each message of a batch, in its order.
pub(super) type Results = Vec<Result<Accepted, StoreError>>;

/// The most messages, and about the most bytes, that share a transaction.
const MESSAGES: usize = 512;
const BYTES: usize = 8 * 1024 * 1024;

/// Something to be taken in.
pub(super) enum Job {
    Accept {
        batch: Handed<Batch>,
        weight: (usize, usize),
        reply: oneshot::Sender<Result<Results, StoreError>>,
    },
    Quarantine {
        app: AppName,
        body: Vec<u8>,
        _queued: Queued<()>,
    },
    Probe(oneshot::Sender<Result<(), StoreError>>),
}

/// What one caller hands in.
pub(super) struct Batch {
    pub(super) messages: Vec<NewMessage>,
    /// How long its deliveries are held, in microseconds.
    pub(super) hold: i64,
    pub(super) cursor: Option<CursorMove>,
}

impl Batch {
    /// Messages, and about the bytes that they write.
    pub(super) fn weight(&self) -> (usize, usize) {
        (self.messages.len(), self.messages.iter().map(|one| one.raw.len()).sum())
    }
}

impl Job {
    fn weight(&self) -> (usize, usize) {
        match self {
            Self::Accept { weight, .. } => *weight,
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
    let mut writer = Writer { shared, destinations: HashMap::new(), guesses: true };
    while let Some(jobs) = gather(&mut queue, (MESSAGES, BYTES), Job::weight).await {
        writer.write(jobs).await;
    }
}

struct Writer {
    shared: Arc<Shared>,
    destinations: HashMap<DestinationName, i32>,
    /// Whether messages that look new are taken for new. Not from when one was known until a batch
    /// was new: where Slack sends again, it sends much again, and a wrong guess is not free.
    guesses: bool,
}

/// A message with how long its deliveries are held.
pub(super) type Held = (NewMessage, i64);

/// All that one transaction writes beside messages.
#[derive(Default)]
struct More {
    cursors: Vec<CursorMove>,
    bodies: Vec<(AppName, Vec<u8>)>,
    probes: bool,
}

impl More {
    const fn is_empty(&self) -> bool {
        self.cursors.is_empty() && self.bodies.is_empty() && !self.probes
    }
}

impl Writer {
    async fn write(&mut self, jobs: Vec<Job>) {
        let mut messages: Vec<Held> = Vec::new();
        let mut more = More::default();
        let mut replies = Vec::new();
        let mut probes = Vec::new();
        for job in jobs {
            match job {
                Job::Accept { batch, reply, .. } => {
                    let Some(batch) = batch.take() else { continue };
                    replies.push((batch.messages.len(), reply));
                    more.cursors.extend(batch.cursor);
                    let hold = batch.hold;
                    messages.extend(batch.messages.into_iter().map(|message| (message, hold)));
                }
                Job::Quarantine { app, body, .. } => more.bodies.push((app, body)),
                Job::Probe(reply) => {
                    more.probes = true;
                    probes.push(reply);
                }
            }
        }
        if replies.is_empty() && more.is_empty() {
            return;
        }
        let result = self.store(&messages, &more).await.map_err(Arc::new);
        if result.is_ok() {
            self.wake(&messages);
        } else {
            // It may be another database, or an older state of this one.
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

    async fn store_apart(
        &mut self,
        messages: &[&Held],
        more: &More,
    ) -> Result<Results, StoreError> {
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
        &mut self,
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
        &mut self,
        messages: &[&Held],
        more: &More,
    ) -> Result<Vec<Accepted>, StoreError> {
        if self.guesses && more.is_empty() && Fresh::is_likely(messages) {
            if self.all_are_new(messages).await? {
                return Ok(messages.iter().map(|(message, _)| new(message.alerts.len())).collect());
            }
            self.guesses = false;
        }
        let mut transaction = self.shared.door.begin(Haste::Batch).await?;
        let items = self.insert_alerts(&mut transaction, messages).await?;
        let (stored, due) = (Messages::new(&items), Deliveries::new(&items, &self.destinations));
        let (stored, due) = (stored.params(), due.params());
        let names: Vec<&str> = names(messages).into_iter().map(DestinationName::as_str).collect();
        let names: [Param<'_>; _] = [(&names, Type::TEXT_ARRAY)];
        let mut last: Vec<Statement<'_>> = Vec::new();
        if items.iter().any(|item| item.new_alerts() > 0) {
            last.extend([(Messages::INSERT, stored.as_slice()), (Deliveries::INSERT, &due)]);
            last.extend(self.shared.notifies.then_some((NOTIFY, names.as_slice())));
        }
        let known = Known::of(&items);
        let mut revised = Vec::new();
        if !known.is_empty() || !more.is_empty() {
            for (sql, params) in last.drain(..) {
                transaction.query(sql, params).await?;
            }
            revised = known.write(&mut transaction).await?;
            self.write_more(&mut transaction, more).await?;
        }
        let start = self.shared.clock.instant();
        transaction.finish(&last).await?;
        let took = self.shared.clock.instant().duration_since(start);
        self.shared.commit_seconds.record(took.as_secs_f64());
        if !items.is_empty() {
            self.guesses = items.iter().all(Item::is_new);
        }
        Ok(results(&items, &revised))
    }

    /// Stores messages in one round trip if nothing of them was known, else nothing.
    async fn all_are_new(&self, messages: &[&Held]) -> Result<bool, StoreError> {
        let fresh = Fresh::new(messages, &self.destinations, &self.shared);
        let start = self.shared.clock.instant();
        let rows = self.shared.door.run(Haste::Batch, Fresh::ACCEPT, &fresh.params()).await?;
        let are_new = rows.first().map_or(Ok(false), |row| get(row, 0))?;
        if are_new {
            let took = self.shared.clock.instant().duration_since(start);
            self.shared.commit_seconds.record(took.as_secs_f64());
        }
        Ok(are_new)
    }

    /// Inserts the alerts, and notes which were not known.
    async fn insert_alerts<'a>(
        &self,
        transaction: &mut Transaction<'_>,
        messages: &[&'a Held],
    ) -> Result<Vec<Item<'a>>, StoreError> {
        let mut items = Item::all(messages);
        if !items.is_empty() {
            let keys: Vec<&str> = items.iter().map(|item| item.key.as_str()).collect();
            let rows = transaction.query(IDENTIFY, &[(&keys, Type::TEXT_ARRAY)]).await?;
            drop(keys);
            for (item, row) in items.iter_mut().zip(&rows) {
                item.key = get(row, 0)?;
            }
            let alerts = Alerts::new(self.shared.now(), &items);
            let rows = transaction.query(Alerts::INSERT, &alerts.params()).await?;
            drop(alerts);
            Item::note_new(&mut items, &rows)?;
        }
        Ok(items)
    }

    /// Writes what there is beside messages.
    async fn write_more(
        &self,
        transaction: &mut Transaction<'_>,
        more: &More,
    ) -> Result<(), StoreError> {
        for cursor in &more.cursors {
            move_cursor(transaction, self.shared.now(), cursor).await?;
        }
        for (app, body) in &more.bodies {
            self.quarantine(transaction, app, body).await?;
        }
        if more.probes {
            transaction.query(PROBE, &[]).await?;
        }
        Ok(())
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

pub(super) fn names<'a, M: Borrow<Held> + 'a>(
    messages: impl IntoIterator<Item = &'a M>,
) -> HashSet<&'a DestinationName> {
    let alerts = messages.into_iter().flat_map(|held| &held.borrow().0.alerts);
    alerts.flat_map(|alert| &alert.destinations).collect()
}

fn new(alerts: usize) -> Accepted {
    Accepted::New { alerts: u32::try_from(alerts).unwrap_or(u32::MAX) }
}

/// What became of each message, in the order of the batch. `revised` are the places of edits that
/// are kept.
fn results(items: &[Item<'_>], revised: &[usize]) -> Vec<Accepted> {
    let mut results = vec![Accepted::Duplicate; items.len()];
    for item in items {
        let Some(result) = results.get_mut(item.place) else { continue };
        if item.new_alerts() > 0 {
            *result = Accepted::New { alerts: item.new_alerts() };
        } else if revised.contains(&item.place) {
            *result = Accepted::Revision;
        }
    }
    results
}

/// The keys under which messages are known: a statement of its own before the insert, which so sees
/// what was committed while this waited for its lock.
const IDENTIFY: &str =
    "SELECT key FROM unnest(relay.identify($1)) WITH ORDINALITY AS k (key, place)
ORDER BY place";

const NOTIFY: &str = "SELECT pg_notify('relay_due', name) FROM unnest($1) AS name";

pub(super) const PROBE: &str = "
INSERT INTO relay.probe (id, number) VALUES (0, 1)
ON CONFLICT (id) DO UPDATE SET number = probe.number + 1";
