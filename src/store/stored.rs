//! Encoding of stored values, the same for every engine.

use std::borrow::Cow;

use super::{Because, Source};

/// Stored states of a delivery. A lease is not a stored state, since it ends by itself.
pub(super) const PENDING: i64 = 0;
pub(super) const DELIVERED: i64 = 1;
pub(super) const DEAD: i64 = 2;
pub(super) const CANCELLED: i64 = 3;

/// Numbers that each alert has for its deliveries. The number of a delivery is
/// `seq * PER_ALERT + destination`, from the number of its alert and that of its destination.
pub(super) const PER_ALERT: i64 = 65_536;

/// Longest time for which a new delivery is held before the first attempt, in microseconds.
/// The length of a wait is stored only for later attempts.
pub(super) const HELD_MAX_US: i64 = 60_000_000;

/// Returns the stored number of a reason to wait.
pub(super) const fn because_number(because: Because) -> i64 {
    match because {
        Because::Fault => 0,
        Because::Asked => 1,
        Because::Refused => 2,
    }
}

/// Largest part of an answer that is stored, in bytes.
const EXCERPT_BYTES: usize = 4096;

/// Number of quarantined bodies that are stored.
pub(super) const QUARANTINED: i64 = 100;

/// Largest part of a quarantined body that is stored, in bytes.
const QUARANTINED_BYTES: usize = 64 * 1024;

/// Returns a text with each NUL replaced by U+FFFD, since NUL ends a text for many tools.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}").into() } else { text.into() }
}

/// Returns the part of an answer that is stored.
pub(super) fn excerpt(text: &str) -> Cow<'_, str> {
    clean(text.get(..text.floor_char_boundary(EXCERPT_BYTES)).unwrap_or_default())
}

/// Returns the part of a quarantined body that is stored.
pub(super) fn quarantined(body: &[u8]) -> &[u8] {
    body.get(..QUARANTINED_BYTES).unwrap_or(body)
}

/// Returns the stored number of a source. In a set of sources the bit is `1 << number`.
pub(super) const fn source_number(source: Source) -> i64 {
    match source {
        Source::Push => 0,
        Source::CatchUp => 1,
        Source::Backfill => 2,
    }
}

/// Returns the source with a stored number.
pub(super) fn source_of(number: i64) -> Source {
    Source::ALL.into_iter().find(|source| source_number(*source) == number).unwrap_or(Source::Push)
}

/// Returns the sources in a set of bits.
pub(super) fn sources_of(bits: i64) -> Vec<Source> {
    Source::ALL.into_iter().filter(|source| bits & (1 << source_number(*source)) != 0).collect()
}
