//! How values are stored, the same for every engine.

use std::borrow::Cow;

use super::{Because, Source};

/// States of a delivery as they are stored. A lease is not a state: it ends by itself.
pub(super) const PENDING: i64 = 0;
pub(super) const DELIVERED: i64 = 1;
pub(super) const DEAD: i64 = 2;
pub(super) const CANCELLED: i64 = 3;

/// The number of an alert's delivery is `seq * PER_ALERT + destination`.
pub(super) const PER_ALERT: i64 = 65_536;

/// The longest that a new delivery is held back before its first attempt, in microseconds. Only
/// later waits are stored.
pub(super) const HELD_MAX_US: i64 = 60_000_000;

/// What a delivery waits for, as it is stored.
pub(super) const fn because_number(because: Because) -> i64 {
    match because {
        Because::Fault => 0,
        Because::Asked => 1,
        Because::Refused => 2,
    }
}

/// How much of an answer is kept.
const EXCERPT_BYTES: usize = 4096;

/// How many unreadable bodies are kept, and how much of each.
pub(super) const QUARANTINED: i64 = 100;
const QUARANTINED_BYTES: usize = 64 * 1024;

/// Text as it is stored: NUL would end it for many tools, so it becomes U+FFFD.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}").into() } else { text.into() }
}

/// The beginning of an answer, as much as is kept.
pub(super) fn excerpt(text: &str) -> Cow<'_, str> {
    clean(text.get(..text.floor_char_boundary(EXCERPT_BYTES)).unwrap_or_default())
}

/// The part of an unreadable body that is kept.
pub(super) fn quarantined(body: &[u8]) -> &[u8] {
    body.get(..QUARANTINED_BYTES).unwrap_or(body)
}

/// The source as a number; `1 << number` is its bit in a set of them.
pub(super) const fn source_number(source: Source) -> i64 {
    match source {
        Source::Push => 0,
        Source::CatchUp => 1,
        Source::Backfill => 2,
    }
}

/// The source with that number.
pub(super) fn source_of(number: i64) -> Source {
    Source::ALL.into_iter().find(|source| source_number(*source) == number).unwrap_or(Source::Push)
}

/// The sources in a set of bits.
pub(super) fn sources_of(bits: i64) -> Vec<Source> {
    Source::ALL.into_iter().filter(|source| bits & (1 << source_number(*source)) != 0).collect()
}
