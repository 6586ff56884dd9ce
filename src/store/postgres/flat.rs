//! Messages as the arrays of one statement: a column each, a row for each message, alert and
//! delivery.

use std::{borrow::Cow, collections::HashMap};

use tokio_postgres::types::Type;

use super::door::Param;
use crate::{
    ids::DestinationName,
    store::{
        NewAlert, NewMessage,
        stored::{clean, source_number},
    },
};

/// The numbers of a message's alerts begin at its own number times this.
pub(super) const PER_MESSAGE: i64 = 4096;

/// Messages with their alerts and deliveries.
#[derive(Default)]
pub(super) struct Flat<'a> {
    now: Option<i64>,
    /// The messages' keys.
    pub(super) keys: Vec<Cow<'a, str>>,
    messages: Messages<'a>,
    alerts: Alerts<'a>,
    deliveries: Deliveries,
}

#[derive(Default)]
struct Messages<'a> {
    id: Vec<i64>,
    received_at: Vec<i64>,
    posted_at: Vec<i64>,
    source: Vec<i32>,
    event_id: Vec<Cow<'a, str>>,
    team: Vec<Cow<'a, str>>,
    raw: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Alerts<'a> {
    seq: Vec<i64>,
    key: Vec<Cow<'a, str>>,
    ordinal: Vec<i64>,
    attachment: Vec<i64>,
    sources: Vec<i32>,
    level: Vec<&'a str>,
    search: Vec<Cow<'a, str>>,
}

#[derive(Default)]
struct Deliveries {
    seq: Vec<i64>,
    destination: Vec<i32>,
    hold: Vec<i64>,
}

impl<'a> Flat<'a> {
    /// The messages with these numbers, at that time.
    pub(super) fn new(
        now: Option<i64>,
        ids: &[i64],
        messages: &[&'a (NewMessage, i64)],
        destinations: &HashMap<DestinationName, i32>,
    ) -> Self {
        let mut flat = Self { now, ..Self::default() };
        for (id, (message, hold)) in ids.iter().zip(messages) {
            let key = clean(&message.key.to_string()).into_owned();
            flat.message(*id, message);
            for (seq, alert) in (id * PER_MESSAGE..).zip(&message.alerts) {
                flat.alerts.push(seq, key.clone(), (message, alert));
                for destination in
                    alert.destinations.iter().filter_map(|name| destinations.get(name))
                {
                    flat.deliveries.seq.push(seq);
                    flat.deliveries.destination.push(*destination);
                    flat.deliveries.hold.push(*hold);
                }
            }
            flat.keys.push(key.into());
        }
        flat
    }

    fn message(&mut self, id: i64, message: &'a NewMessage) {
        let messages = &mut self.messages;
        messages.id.push(id);
        messages.received_at.push(message.received_at.micros());
        messages.posted_at.push(message.posted_at.micros());
        messages.source.push(i32::try_from(source_number(message.source)).unwrap_or(0));
        messages.event_id.push(clean(&message.event_id));
        messages.team.push(clean(&message.team));
        messages.raw.push(&message.raw);
    }

    /// The parameters from `$1` on.
    pub(super) fn params(&self) -> [Param<'_>; 18] {
        let Self { now, messages, alerts, deliveries, .. } = self;
        [
            (now, Type::INT8),
            (&alerts.seq, Type::INT8_ARRAY),
            (&alerts.key, Type::TEXT_ARRAY),
            (&alerts.ordinal, Type::INT8_ARRAY),
            (&alerts.attachment, Type::INT8_ARRAY),
            (&alerts.sources, Type::INT4_ARRAY),
            (&alerts.level, Type::TEXT_ARRAY),
            (&alerts.search, Type::TEXT_ARRAY),
            (&messages.id, Type::INT8_ARRAY),
            (&messages.received_at, Type::INT8_ARRAY),
            (&messages.posted_at, Type::INT8_ARRAY),
            (&messages.source, Type::INT4_ARRAY),
            (&messages.event_id, Type::TEXT_ARRAY),
            (&messages.team, Type::TEXT_ARRAY),
            (&messages.raw, Type::BYTEA_ARRAY),
            (&deliveries.seq, Type::INT8_ARRAY),
            (&deliveries.destination, Type::INT4_ARRAY),
            (&deliveries.hold, Type::INT8_ARRAY),
        ]
    }
}

impl<'a> Alerts<'a> {
    fn push(&mut self, seq: i64, key: String, (message, alert): (&NewMessage, &'a NewAlert)) {
        self.seq.push(seq);
        self.key.push(key.into());
        self.ordinal.push(i64::from(alert.ordinal));
        self.attachment.push(i64::from(alert.attachment));
        self.sources.push(1 << source_number(message.source));
        self.level.push(alert.level);
        self.search.push(clean(&alert.search));
    }
}
