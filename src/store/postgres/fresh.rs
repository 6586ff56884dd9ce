//! Messages that nobody has seen before, as nearly all that are pushed: one round trip takes
//! them in, by a function whose plans the server keeps.
//!
//! It is a guess, and the constraint tells whether it was right. If anything was known nothing is
//! written, and `accept` goes the careful way.

use std::{borrow::Cow, collections::HashMap};

use tokio_postgres::types::Type;

use super::{
    accept::{Held, names},
    door::Param,
    flat::Messages,
    shared::Shared,
};
use crate::{
    ids::DestinationName,
    store::{Source, stored::clean},
};

/// No hold is longer, so that adding it to a time does not overflow.
const LONGEST_HOLD: i64 = i64::MAX / 2;

/// The messages of a batch, their alerts and the deliveries of these: a column each.
#[derive(Default)]
pub(super) struct Fresh<'a> {
    /// The time, unless the database knows it, and the destinations that others are told of.
    now: Option<i64>,
    notify: Vec<&'a str>,
    messages: Messages<'a>,
    /// Of each alert: which of the messages is its own, from 1, and where it is in it.
    message: Vec<i32>,
    place: Vec<i64>,
    key: Vec<String>,
    ordinal: Vec<i64>,
    attachment: Vec<i64>,
    level: Vec<&'a str>,
    search: Vec<Cow<'a, str>>,
    /// Of each delivery: which of the alerts is its own, from 1.
    alert: Vec<i32>,
    destination: Vec<i32>,
    hold: Vec<i64>,
}

impl<'a> Fresh<'a> {
    /// Returns whether nothing was known, and so all is stored.
    pub(super) const ACCEPT: &'static str = "SELECT relay.accept($1, $2, $3, $4, $5, $6, $7, $8, \
        $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

    /// Whether messages are likely to be new, and need nothing else to be written.
    pub(super) fn is_likely(messages: &[&Held]) -> bool {
        let is_new = |(message, _): &&Held| message.source == Source::Push && !message.is_edit;
        !messages.is_empty() && messages.iter().all(is_new)
    }

    pub(super) fn new(
        messages: &[&'a Held],
        numbers: &HashMap<DestinationName, i32>,
        shared: &Shared,
    ) -> Self {
        let mut fresh = Self { now: shared.now(), ..Self::default() };
        if shared.notifies {
            fresh.notify =
                names(messages.iter().copied()).into_iter().map(DestinationName::as_str).collect();
        }
        for (number, (message, hold)) in (1..).zip(messages) {
            fresh.messages.push(message);
            for (place, alert) in (0..).zip(&message.alerts) {
                fresh.message.push(number);
                fresh.place.push(place);
                fresh.key.push(clean(&message.key.to_string()).into_owned());
                fresh.ordinal.push(i64::from(alert.ordinal));
                fresh.attachment.push(i64::from(alert.attachment));
                fresh.level.push(alert.level);
                fresh.search.push(clean(&alert.search));
                fresh.deliver_to(&alert.destinations, *hold, numbers);
            }
        }
        fresh
    }

    /// A delivery of the last alert to each destination, once.
    fn deliver_to(
        &mut self,
        names: &[DestinationName],
        hold: i64,
        numbers: &HashMap<DestinationName, i32>,
    ) {
        let alert = i32::try_from(self.message.len()).unwrap_or(i32::MAX);
        let first = self.destination.len();
        for destination in names.iter().filter_map(|name| numbers.get(name)) {
            if self.destination.iter().skip(first).any(|known| known == destination) {
                continue;
            }
            self.alert.push(alert);
            self.destination.push(*destination);
            self.hold.push(hold.min(LONGEST_HOLD));
        }
    }

    pub(super) fn params(&self) -> [Param<'_>; 18] {
        let [_id, received_at, posted_at, source, event_id, team, raw] = self.messages.params();
        [
            (&self.now, Type::INT8),
            received_at,
            posted_at,
            source,
            event_id,
            team,
            raw,
            (&self.message, Type::INT4_ARRAY),
            (&self.place, Type::INT8_ARRAY),
            (&self.key, Type::TEXT_ARRAY),
            (&self.ordinal, Type::INT8_ARRAY),
            (&self.attachment, Type::INT8_ARRAY),
            (&self.level, Type::TEXT_ARRAY),
            (&self.search, Type::TEXT_ARRAY),
            (&self.alert, Type::INT4_ARRAY),
            (&self.destination, Type::INT4_ARRAY),
            (&self.hold, Type::INT8_ARRAY),
            (&self.notify, Type::TEXT_ARRAY),
        ]
    }
}
