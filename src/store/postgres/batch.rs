//! A batch of messages as the array parameters of `relay.accept_batch`, and the function's answer.

use std::{borrow::Cow, collections::HashMap};

use tokio_postgres::{Row, types::Type};

use super::{database::Param, row::get};
use crate::{
    ids::DestinationName,
    store::{
        Accepted, NewAlert, NewMessage, REVISIONS_KEPT, StoreError,
        stored::{clean, source_number},
    },
};

/// Longest hold that is passed on, in microseconds. Adding this to a time does not overflow.
const LONGEST_HOLD_US: i64 = i64::MAX / 2;

/// A message, and the time for which its deliveries are held.
pub(super) struct HeldMessage {
    pub(super) message: NewMessage,
    /// Time from the accept to the first attempt, in microseconds.
    pub(super) hold_us: i64,
}

/// The parameters of `relay.accept_batch`: one array for each column. Subscripts count from 1, as
/// in SQL.
#[derive(Default)]
pub(super) struct BatchColumns<'a> {
    /// Time of the batch, unless the database's own clock is used.
    now: Option<i64>,
    // One element for each message.
    key: Vec<String>,
    received_at: Vec<i64>,
    posted_at: Vec<i64>,
    source: Vec<i32>,
    event_id: Vec<Cow<'a, str>>,
    team: Vec<Cow<'a, str>>,
    raw: Vec<Option<&'a [u8]>>,
    /// Slack's timestamp of the edit, `None` for a message that is not an edit.
    edit_time: Vec<Option<Cow<'a, str>>>,
    hold_us: Vec<i64>,
    // One element for each alert.
    /// Subscript of the alert's message.
    message: Vec<i32>,
    /// Position of the alert in its message, from 0.
    place: Vec<i64>,
    ordinal: Vec<i64>,
    attachment: Vec<i64>,
    level: Vec<&'a str>,
    search: Vec<Option<Cow<'a, str>>>,
    // One element for each destination.
    destination: Vec<i32>,
    name: Vec<&'a str>,
    // One element for each delivery.
    /// Subscript of the delivery's alert.
    alert: Vec<i32>,
    /// Subscript of the delivery's destination.
    target: Vec<i32>,
    revisions_kept: i64,
    notifies: bool,
}

impl<'a> BatchColumns<'a> {
    /// Stores the batch; returns one row.
    pub(super) const ACCEPT: &'static str = "
        SELECT new_alerts, revised FROM relay.accept_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
            $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)";

    /// Returns the columns of these messages. `ids` must hold each of their destinations.
    pub(super) fn new(
        messages: &[&'a HeldMessage],
        ids: &HashMap<DestinationName, i32>,
        now: Option<i64>,
        notifies: bool,
    ) -> Self {
        let revisions_kept = i64::from(REVISIONS_KEPT);
        let mut columns = Self { now, revisions_kept, notifies, ..Self::default() };
        let mut alerts = Vec::with_capacity(messages.len());
        for (message, held) in (1..).zip(messages) {
            columns.push_message(held);
            let places = (0..).zip(&held.message.alerts);
            alerts.extend(places.map(|(place, alert)| (*held, message, place, alert)));
        }
        // Relays insert alerts in the same order, so they rarely deadlock; a deadlock is retried.
        // The channel does not count: the database may replace a channel id by an older id of the
        // same channel, and of two messages with one key the first brings the alert.
        alerts.sort_by_key(|(held, _, _, alert)| {
            let key = &held.message.key;
            (&key.app, &key.ts, alert.ordinal)
        });
        for (held, message, place, alert) in alerts {
            columns.push_alert(message, place, alert, !held.message.is_identity());
            columns.push_deliveries(&alert.destinations, ids);
        }
        columns
    }

    fn push_message(&mut self, HeldMessage { message, hold_us }: &'a HeldMessage) {
        self.key.push(clean(&message.key.to_string()).into_owned());
        self.received_at.push(message.received_at.micros());
        self.posted_at.push(message.posted_at.micros());
        self.source.push(i32::try_from(source_number(message.source)).unwrap_or(0));
        self.event_id.push(clean(&message.event_id));
        self.team.push(clean(&message.team));
        let has_body = !message.is_identity();
        let is_edit = message.is_edit && has_body;
        self.raw.push(has_body.then_some(&message.raw[..]));
        self.edit_time.push(is_edit.then(|| clean(&message.edited_ts)));
        self.hold_us.push((*hold_us).min(LONGEST_HOLD_US));
    }

    /// Adds an alert of the message with this subscript.
    fn push_alert(&mut self, message: i32, place: i64, alert: &'a NewAlert, is_searchable: bool) {
        self.message.push(message);
        self.place.push(place);
        self.ordinal.push(i64::from(alert.ordinal));
        self.attachment.push(i64::from(alert.attachment));
        self.level.push(alert.level);
        self.search.push(is_searchable.then(|| clean(&alert.search)));
    }

    /// Adds a delivery of the last alert to each of these destinations, once.
    fn push_deliveries(
        &mut self,
        names: &'a [DestinationName],
        ids: &HashMap<DestinationName, i32>,
    ) {
        let first = self.target.len();
        for name in names {
            let Some(id) = ids.get(name) else { continue };
            let target = self.target_of(name.as_str(), *id);
            let is_named_twice = self.target.iter().skip(first).any(|other| *other == target);
            if !is_named_twice {
                self.alert.push(subscript(self.message.len()));
                self.target.push(target);
            }
        }
    }

    /// Returns the subscript of a destination. Adds the destination if it is missing.
    fn target_of(&mut self, name: &'a str, id: i32) -> i32 {
        let known = self.name.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            self.destination.push(id);
            self.name.push(name);
            self.name.len() - 1
        });
        subscript(index + 1)
    }

    pub(super) fn params(&self) -> [Param<'_>; 22] {
        [
            (&self.now, Type::INT8),
            (&self.key, Type::TEXT_ARRAY),
            (&self.received_at, Type::INT8_ARRAY),
            (&self.posted_at, Type::INT8_ARRAY),
            (&self.source, Type::INT4_ARRAY),
            (&self.event_id, Type::TEXT_ARRAY),
            (&self.team, Type::TEXT_ARRAY),
            (&self.raw, Type::BYTEA_ARRAY),
            (&self.edit_time, Type::TEXT_ARRAY),
            (&self.hold_us, Type::INT8_ARRAY),
            (&self.message, Type::INT4_ARRAY),
            (&self.place, Type::INT8_ARRAY),
            (&self.ordinal, Type::INT8_ARRAY),
            (&self.attachment, Type::INT8_ARRAY),
            (&self.level, Type::TEXT_ARRAY),
            (&self.search, Type::TEXT_ARRAY),
            (&self.destination, Type::INT4_ARRAY),
            (&self.name, Type::TEXT_ARRAY),
            (&self.alert, Type::INT4_ARRAY),
            (&self.target, Type::INT4_ARRAY),
            (&self.revisions_kept, Type::INT8),
            (&self.notifies, Type::BOOL),
        ]
    }

    /// Returns the result of each message, in the order of the batch, from the row that
    /// [`Self::ACCEPT`] returned.
    pub(super) fn results(&self, row: &Row) -> Result<Vec<Accepted>, StoreError> {
        let is_new: Vec<bool> = get(row, 0)?;
        let revised: Vec<i32> = get(row, 1)?;
        let mut new_alerts = vec![0_u32; self.key.len()];
        for (message, is_new) in self.message.iter().zip(is_new) {
            let index = usize::try_from(message - 1).unwrap_or(usize::MAX);
            if let Some(number) = new_alerts.get_mut(index) {
                *number += u32::from(is_new);
            }
        }
        let result = |(message, alerts): (i32, u32)| match alerts {
            0 if revised.contains(&message) => Accepted::Revision,
            0 => Accepted::Duplicate,
            alerts => Accepted::New { alerts },
        };
        Ok((1..).zip(new_alerts).map(result).collect())
    }
}

/// Returns the SQL subscript of the last element of an array with this length.
fn subscript(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}
