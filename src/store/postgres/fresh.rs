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
    /// The destinations of all, once each.
    destination: Vec<i32>,
    name: Vec<&'a str>,
    /// Of each delivery: which of the alerts is its own, and which of the destinations, from 1.
    alert: Vec<i32>,
    target: Vec<i32>,
    hold: Vec<i64>,
}

impl<'a> Fresh<'a> {
    /// Returns whether nothing was known, and so all is stored.
    pub(super) const ACCEPT: &'static str = "SELECT relay.accept($1, $2, $3, $4, $5, $6, $7, $8, \
        $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)";

    /// Whether messages are likely to be new, and need nothing else to be written.
    pub(super) fn is_likely(messages: &[&Held]) -> bool {
        let is_new = |(message, _): &&Held| {
            message.source == Source::Push && !message.is_edit && !message.is_identity()
        };
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
        let mut alerts = Vec::with_capacity(messages.len());
        for (number, (message, hold)) in (1..).zip(messages) {
            fresh.messages.push(message);
            let key = clean(&message.key.to_string()).into_owned();
            let places = (0..).zip(&message.alerts);
            alerts.extend(places.map(|(place, alert)| (key.clone(), alert, number, place, *hold)));
        }
        alerts.sort_unstable_by(|(key, alert, ..), (other, another, ..)| {
            (key, alert.ordinal).cmp(&(other, another.ordinal))
        });
        for (key, alert, number, place, hold) in alerts {
            fresh.message.push(number);
            fresh.place.push(place);
            fresh.key.push(key);
            fresh.ordinal.push(i64::from(alert.ordinal));
            fresh.attachment.push(i64::from(alert.attachment));
            fresh.level.push(alert.level);
            fresh.search.push(clean(&alert.search));
            fresh.deliver_to(&alert.destinations, hold, numbers);
        }
        fresh
    }

    /// A delivery of the last alert to each destination, once.
    fn deliver_to(
        &mut self,
        names: &'a [DestinationName],
        hold: i64,
        numbers: &HashMap<DestinationName, i32>,
    ) {
        let alert = place(self.message.len());
        let first = self.target.len();
        let numbered = names.iter().filter_map(|name| Some((name, numbers.get(name)?)));
        for (name, destination) in numbered {
            let mut known = self.destination.iter().zip(&self.name);
            let known = known.position(|known| known == (destination, &name.as_str()));
            let target = place(known.unwrap_or(self.destination.len()) + 1);
            if known.is_none() {
                self.destination.push(*destination);
                self.name.push(name.as_str());
            } else if self.target.iter().skip(first).any(|one| *one == target) {
                continue;
            }
            self.alert.push(alert);
            self.target.push(target);
            self.hold.push(hold.min(LONGEST_HOLD));
        }
    }

    pub(super) fn params(&self) -> [Param<'_>; 20] {
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
            (&self.destination, Type::INT4_ARRAY),
            (&self.name, Type::TEXT_ARRAY),
            (&self.alert, Type::INT4_ARRAY),
            (&self.target, Type::INT4_ARRAY),
            (&self.hold, Type::INT8_ARRAY),
            (&self.notify, Type::TEXT_ARRAY),
        ]
    }
}

/// The place of the last of so many, from 1.
fn place(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
