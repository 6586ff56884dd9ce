//! Messages as the arrays of statements: a column each, a row for each alert, message and delivery.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use tokio_postgres::{Row, types::Type};

use super::{door::Param, row::get};
use crate::{
    ids::DestinationName,
    store::{
        NewMessage, StoreError,
        stored::{PER_ALERT, clean, source_number},
    },
};

/// The numbers of a message's alerts begin at its own number times this.
const PER_MESSAGE: i64 = 4096;

/// A message of a batch, on its way into the tables.
pub(super) struct Item<'a> {
    /// Its place in the batch.
    pub(super) place: usize,
    pub(super) key: String,
    pub(super) message: &'a NewMessage,
    /// How long its deliveries are held, in microseconds.
    hold: i64,
    /// Its alerts that were not known.
    new: Vec<New>,
}

/// An alert that was not known: its place among the message's, its number, and the database's time.
struct New {
    place: usize,
    seq: i64,
    now: i64,
}

impl<'a> Item<'a> {
    pub(super) fn all(messages: &[&'a (NewMessage, i64)]) -> Vec<Self> {
        let item = |(place, (message, hold)): (usize, &&'a (NewMessage, i64))| Self {
            place,
            key: clean(&message.key.to_string()).into_owned(),
            message,
            hold: *hold,
            new: Vec::new(),
        };
        messages.iter().enumerate().map(item).collect()
    }

    /// How many of its alerts were not known.
    pub(super) fn new_alerts(&self) -> u32 {
        u32::try_from(self.new.len()).unwrap_or(u32::MAX)
    }

    /// Whether none of its alerts was known.
    pub(super) fn is_new(&self) -> bool {
        self.new.len() == self.message.alerts.len()
    }

    /// Notes which alerts were not known, by what [`Alerts::INSERT`] returned. Of two messages with
    /// one key the first has brought what both hold.
    pub(super) fn note_new(items: &mut [Self], rows: &[Row]) -> Result<(), StoreError> {
        let mut new: HashMap<(&str, i64), (i64, i64)> = HashMap::new();
        for row in rows {
            new.insert((get(row, 1)?, get(row, 2)?), (get(row, 0)?, get(row, 3)?));
        }
        for item in items {
            for (place, alert) in item.message.alerts.iter().enumerate() {
                let found = new.remove(&(item.key.as_str(), i64::from(alert.ordinal)));
                item.new.extend(found.map(|(seq, now)| New { place, seq, now }));
            }
        }
        Ok(())
    }
}

/// All alerts of a batch.
#[derive(Default)]
pub(super) struct Alerts<'a> {
    now: Option<i64>,
    place: Vec<i64>,
    key: Vec<&'a str>,
    ordinal: Vec<i64>,
    attachment: Vec<i64>,
    sources: Vec<i32>,
    level: Vec<&'a str>,
    search: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Alerts<'a> {
    /// The constraint decides what is known: nothing was looked up before. A message's first row
    /// gives it its number; then they go in by their keys. No join: the server plans an unnamed
    /// statement anew each time.
    pub(super) const INSERT: &'static str = "
        INSERT INTO relay.alerts (seq, key, ordinal, attachment, sources, level, search)
        SELECT * FROM (
            SELECT CASE place WHEN 0 THEN nextval('relay.message_id')
                    ELSE currval('relay.message_id') END * 4096 + place AS seq,
                key, ordinal, attachment, sources, level, search
            FROM unnest($1, $2, $3, $4, $5, $6, $7)
                AS u (place, key, ordinal, attachment, sources, level, search)) AS numbered
        ORDER BY key COLLATE \"C\", ordinal, seq
        ON CONFLICT (key, ordinal) DO NOTHING
        RETURNING seq, key, ordinal, relay.now_us($8)";

    pub(super) fn new(now: Option<i64>, items: &'a [Item<'a>]) -> Self {
        let mut alerts = Self { now, ..Self::default() };
        for Item { key, message, .. } in items {
            for (place, alert) in (0..).zip(&message.alerts) {
                alerts.place.push(place);
                alerts.key.push(key);
                alerts.ordinal.push(i64::from(alert.ordinal));
                alerts.attachment.push(i64::from(alert.attachment));
                alerts.sources.push(1 << source_number(message.source));
                alerts.level.push(alert.level);
                alerts.search.push((!message.is_identity()).then(|| clean(&alert.search)));
            }
        }
        alerts
    }

    pub(super) fn params(&self) -> [Param<'_>; 8] {
        [
            (&self.place, Type::INT8_ARRAY),
            (&self.key, Type::TEXT_ARRAY),
            (&self.ordinal, Type::INT8_ARRAY),
            (&self.attachment, Type::INT8_ARRAY),
            (&self.sources, Type::INT4_ARRAY),
            (&self.level, Type::TEXT_ARRAY),
            (&self.search, Type::TEXT_ARRAY),
            (&self.now, Type::INT8),
        ]
    }
}

/// The messages of a batch that brought an alert which was not known.
#[derive(Default)]
pub(super) struct Messages<'a> {
    id: Vec<i64>,
    received_at: Vec<i64>,
    posted_at: Vec<i64>,
    source: Vec<i32>,
    event_id: Vec<Cow<'a, str>>,
    team: Vec<Cow<'a, str>>,
    raw: Vec<Option<&'a [u8]>>,
}

impl<'a> Messages<'a> {
    pub(super) const INSERT: &'static str = "
        INSERT INTO relay.messages (id, received_at, posted_at, source, event_id, team, raw)
        SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)";

    pub(super) fn new(items: &[Item<'a>]) -> Self {
        let mut messages = Self::default();
        for Item { message, new, .. } in items {
            let Some(New { seq, .. }) = new.first() else { continue };
            messages.id.push(seq / PER_MESSAGE);
            messages.push(message);
        }
        messages
    }

    /// Everything but its number.
    pub(super) fn push(&mut self, message: &'a NewMessage) {
        self.received_at.push(message.received_at.micros());
        self.posted_at.push(message.posted_at.micros());
        self.source.push(i32::try_from(source_number(message.source)).unwrap_or(0));
        self.event_id.push(clean(&message.event_id));
        self.team.push(clean(&message.team));
        self.raw.push((!message.is_identity()).then_some(&message.raw[..]));
    }

    pub(super) fn params(&self) -> [Param<'_>; 7] {
        [
            (&self.id, Type::INT8_ARRAY),
            (&self.received_at, Type::INT8_ARRAY),
            (&self.posted_at, Type::INT8_ARRAY),
            (&self.source, Type::INT4_ARRAY),
            (&self.event_id, Type::TEXT_ARRAY),
            (&self.team, Type::TEXT_ARRAY),
            (&self.raw, Type::BYTEA_ARRAY),
        ]
    }
}

/// The deliveries of the alerts that were not known.
#[derive(Default)]
pub(super) struct Deliveries<'a> {
    id: Vec<i64>,
    destination: Vec<i32>,
    name: Vec<&'a str>,
    due_at: Vec<i64>,
    now: Vec<i64>,
}

impl<'a> Deliveries<'a> {
    /// A destination that has another number, or none, as after a restored backup, is an error.
    pub(super) const INSERT: &'static str = "
        INSERT INTO relay.deliveries (id, destination, due_at, since)
        SELECT u.id, t.id, u.due_at, coalesce(t.paused_at, u.now) - t.paused_for
        FROM unnest($1, $2, $3, $4, $5) AS u (id, destination, name, due_at, now)
        LEFT JOIN relay.destinations t ON t.id = u.destination AND t.name = u.name";

    pub(super) fn new(items: &[Item<'a>], numbers: &HashMap<DestinationName, i32>) -> Self {
        let mut deliveries = Self::default();
        for Item { message, hold, new, .. } in items {
            for New { place, seq, now } in new {
                let names = message.alerts.get(*place).map(|alert| alert.destinations.as_slice());
                let names: HashSet<&DestinationName> = names.into_iter().flatten().collect();
                let numbered =
                    names.into_iter().filter_map(|name| Some((name, numbers.get(name)?)));
                for (name, destination) in numbered {
                    deliveries.id.push(seq * PER_ALERT + i64::from(*destination));
                    deliveries.destination.push(*destination);
                    deliveries.name.push(name.as_str());
                    deliveries.due_at.push(now.saturating_add(*hold));
                    deliveries.now.push(*now);
                }
            }
        }
        deliveries
    }

    pub(super) fn params(&self) -> [Param<'_>; 5] {
        [
            (&self.id, Type::INT8_ARRAY),
            (&self.destination, Type::INT4_ARRAY),
            (&self.name, Type::TEXT_ARRAY),
            (&self.due_at, Type::INT8_ARRAY),
            (&self.now, Type::INT8_ARRAY),
        ]
    }
}
