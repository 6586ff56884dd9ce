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

/// Messages with different keys, their alerts and their deliveries.
#[derive(Default)]
pub(super) struct Flat<'a> {
    pub(super) keys: Vec<Cow<'a, str>>,
    received_at: Vec<i64>,
    posted_at: Vec<i64>,
    source: Vec<i32>,
    event_id: Vec<Cow<'a, str>>,
    team: Vec<Cow<'a, str>>,
    raw: Vec<&'a [u8]>,
    hold: Vec<i64>,
    alerts: Alerts<'a>,
    alert_of: Vec<i64>,
    destination: Vec<i32>,
}

#[derive(Default)]
struct Alerts<'a> {
    message: Vec<i64>,
    index: Vec<i64>,
    ordinal: Vec<i64>,
    attachment: Vec<i64>,
    level: Vec<&'a str>,
    search: Vec<Cow<'a, str>>,
}

impl<'a> Flat<'a> {
    pub(super) fn new(
        messages: &[&'a (NewMessage, i64)],
        destinations: &HashMap<DestinationName, i32>,
    ) -> Self {
        let mut flat = Self::default();
        for (message, hold) in messages {
            flat.keys.push(clean(&message.key.to_string()).into_owned().into());
            flat.received_at.push(message.received_at.micros());
            flat.posted_at.push(message.posted_at.micros());
            flat.source.push(i32::try_from(source_number(message.source)).unwrap_or(0));
            flat.event_id.push(clean(&message.event_id));
            flat.team.push(clean(&message.team));
            flat.raw.push(&message.raw);
            flat.hold.push(*hold);
            for (index, alert) in message.alerts.iter().enumerate() {
                flat.alert(index, alert, destinations);
            }
        }
        flat
    }

    fn alert(
        &mut self,
        index: usize,
        alert: &'a NewAlert,
        destinations: &HashMap<DestinationName, i32>,
    ) {
        let alerts = &mut self.alerts;
        alerts.message.push(number(self.keys.len()));
        alerts.index.push(number(index));
        alerts.ordinal.push(i64::from(alert.ordinal));
        alerts.attachment.push(i64::from(alert.attachment));
        alerts.level.push(alert.level);
        alerts.search.push(clean(&alert.search));
        for name in &alert.destinations {
            self.alert_of.push(number(alerts.level.len()));
            self.destination.extend(destinations.get(name));
        }
    }

    /// The parameters from `$1` on.
    pub(super) fn params<'b>(&'b self, now: &'b Option<i64>) -> [Param<'b>; 17] {
        let alerts = &self.alerts;
        [
            (now, Type::INT8),
            (&self.keys, Type::TEXT_ARRAY),
            (&self.received_at, Type::INT8_ARRAY),
            (&self.posted_at, Type::INT8_ARRAY),
            (&self.source, Type::INT4_ARRAY),
            (&self.event_id, Type::TEXT_ARRAY),
            (&self.team, Type::TEXT_ARRAY),
            (&self.raw, Type::BYTEA_ARRAY),
            (&self.hold, Type::INT8_ARRAY),
            (&alerts.message, Type::INT8_ARRAY),
            (&alerts.index, Type::INT8_ARRAY),
            (&alerts.ordinal, Type::INT8_ARRAY),
            (&alerts.attachment, Type::INT8_ARRAY),
            (&alerts.level, Type::TEXT_ARRAY),
            (&alerts.search, Type::TEXT_ARRAY),
            (&self.alert_of, Type::INT8_ARRAY),
            (&self.destination, Type::INT4_ARRAY),
        ]
    }
}

fn number(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}
