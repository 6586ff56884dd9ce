//! How much may be under way at once. Nobody holds anything for what was only announced: a request
//! takes a place when its signature holds, and a body takes room for what has arrived of it.
//!
//! Until a signature holds, a body may be anybody's. Where such bodies fill the room for them, the
//! oldest gives way, whichever of them grows, and the newest never does: strangers who send half of
//! something keep nobody else out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::refusal::Refusal;

/// Verified requests at once.
const MAX_IN_FLIGHT: usize = 256;

/// Slack's events have a few KiB. Bodies up to this have room of their own.
const SMALL_BODY_BYTES: usize = 64 * 1024;

/// Room for small bodies that have arrived in part. Most bodies arrive whole, and take none.
const SMALL_ROOM_BYTES: usize = 4 * 1024 * 1024;

/// The same for larger ones: at least one of the largest always fits. The buffers that they grow in
/// take up to twice as much.
const LARGE_ROOM_BYTES: usize = 5 * 1024 * 1024;

/// What is left.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Semaphore,
    bodies: Mutex<Bodies>,
}

impl Limits {
    pub(super) const fn new() -> Self {
        Self {
            requests: Semaphore::const_new(MAX_IN_FLIGHT),
            bodies: Mutex::new(Bodies {
                small: Room::new(SMALL_ROOM_BYTES),
                large: Room::new(LARGE_ROOM_BYTES),
                next: 0,
            }),
        }
    }

    /// A place for a verified request.
    pub(super) fn request(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.requests.try_acquire().map_err(|_all_taken| Refusal::Overload)
    }

    /// Takes room for that much of a body, at the cost of older ones.
    pub(super) fn hold(&self, bytes: usize) -> Held<'_> {
        let (cut, is_cut) = oneshot::channel();
        let mut bodies = self.bodies();
        bodies.next += 1;
        let number = bodies.next;
        bodies.put(number, Part { bytes, _cut: cut });
        Held { limits: self, number, is_cut }
    }

    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room that a body takes. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Held<'l> {
    limits: &'l Limits,
    number: u64,
    is_cut: oneshot::Receiver<()>,
}

impl Held<'_> {
    /// Takes room for what the body has grown to. The oldest gives way, be it this one.
    pub(super) fn grow(&self, bytes: usize) -> Result<(), Refusal> {
        let mut bodies = self.limits.bodies();
        let part = bodies.take(self.number).ok_or(Refusal::Crowded)?;
        let is_kept = bodies.put(self.number, Part { bytes, ..part });
        if is_kept { Ok(()) } else { Err(Refusal::Crowded) }
    }

    /// Ends when the room is needed for newer bodies.
    pub(super) async fn cut(&mut self) {
        // The other end is dropped with the part, and sends nothing.
        drop((&mut self.is_cut).await);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.limits.bodies().take(self.number);
    }
}

#[derive(Debug)]
struct Bodies {
    small: Room<Part>,
    large: Room<Part>,
    next: u64,
}

/// What has arrived of a body. Its reader hears when this is dropped.
#[derive(Debug)]
struct Part {
    bytes: usize,
    _cut: oneshot::Sender<()>,
}

impl Bodies {
    /// Puts a part in. Returns whether it stays.
    fn put(&mut self, number: u64, part: Part) -> bool {
        let is_small = part.bytes <= SMALL_BODY_BYTES;
        let room = if is_small { &mut self.small } else { &mut self.large };
        room.put(number, part.bytes, part)
    }

    fn take(&mut self, number: u64) -> Option<Part> {
        self.small.take(number).or_else(|| self.large.take(number))
    }
}

/// A number of bytes, and what takes them, by age: lower numbers are older.
#[derive(Debug)]
struct Room<T> {
    limit: usize,
    used: usize,
    parts: BTreeMap<u64, (usize, T)>,
}

impl<T> Room<T> {
    const fn new(limit: usize) -> Self {
        Self { limit, used: 0, parts: BTreeMap::new() }
    }

    /// Puts a part in, and drops the oldest ones until all fit or the newest is alone. Returns
    /// whether the part stays.
    fn put(&mut self, number: u64, bytes: usize, part: T) -> bool {
        self.used += bytes;
        self.parts.insert(number, (bytes, part));
        while self.used > self.limit && self.parts.len() > 1 {
            let oldest = self.parts.keys().next().copied();
            oldest.and_then(|oldest| self.take(oldest));
        }
        self.parts.contains_key(&number)
    }

    fn take(&mut self, number: u64) -> Option<T> {
        let (bytes, part) = self.parts.remove(&number)?;
        self.used -= bytes;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1_000;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin(usize),
        /// The n-th of those that are there grows to so much.
        Grow(usize, usize),
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..LIMIT).prop_map(Step::Begin),
            (0..20_usize, 0..LIMIT).prop_map(|(at, bytes)| Step::Grow(at, bytes)),
            (0..20_usize).prop_map(Step::End),
        ]
    }

    proptest! {
        #[test]
        fn a_room_keeps_within_its_limit_and_drops_the_oldest_first_and_never_the_newest(
            steps in prop::collection::vec(step(), 1..200)
        ) {
            let mut room = Room::new(LIMIT);
            for (number, step) in (0..).zip(steps) {
                let before: Vec<u64> = room.parts.keys().copied().collect();
                let named = |at: usize| before.get(at).copied();
                let (put, stays) = match step {
                    Step::Begin(bytes) => (number, room.put(number, bytes, ())),
                    Step::Grow(at, bytes) => {
                        let Some(grows) = named(at) else { continue };
                        room.take(grows);
                        (grows, room.put(grows, bytes, ()))
                    }
                    Step::End(at) => {
                        named(at).map(|ended| room.take(ended));
                        continue;
                    }
                };
                let sum: usize = room.parts.values().map(|(bytes, ())| bytes).sum();
                prop_assert_eq!(sum, room.used);
                prop_assert!(room.used <= LIMIT);
                prop_assert_eq!(room.parts.contains_key(&put), stays);
                let mut all = before.clone();
                all.extend((!before.contains(&put)).then_some(put));
                prop_assert!(room.parts.contains_key(all.last().unwrap()), "the newest went");
                let gone = all.iter().take_while(|one| !room.parts.contains_key(one)).count();
                let stay = all[gone..].iter().all(|one| room.parts.contains_key(one));
                prop_assert!(stay, "a newer one went");
            }
        }
    }

    #[test]
    fn small_bodies_and_large_ones_do_not_take_each_others_room() {
        let limits = Limits::new();
        let small = limits.hold(SMALL_BODY_BYTES);
        let large: Vec<Held<'_>> = (0..4).map(|_| limits.hold(4 * 1024 * 1024)).collect();
        let grown: Vec<bool> = large.iter().map(|one| one.grow(4_000_000).is_ok()).collect();
        assert_eq!(grown, [false, false, false, true], "one of the largest fits");
        assert!(small.grow(SMALL_BODY_BYTES).is_ok());
        let many: Vec<Held<'_>> = (0..64).map(|_| limits.hold(SMALL_BODY_BYTES)).collect();
        assert!(small.grow(SMALL_BODY_BYTES).is_err());
        assert!(many.iter().all(|one| one.grow(1).is_ok()));
        assert!(large.last().unwrap().grow(4_000_000).is_ok());
    }

    #[test]
    fn an_older_body_that_grows_gives_way_and_the_newest_stays() {
        let limits = Limits::new();
        let old = limits.hold(1);
        assert!(old.grow(3_000_000).is_ok());
        let newest = limits.hold(2_500_000);
        assert!(newest.grow(2_500_001).is_ok());
        let old = limits.hold(1);
        let newest = limits.hold(2_500_000);
        assert!(old.grow(70_000).is_ok());
        assert!(old.grow(3_000_000).is_err(), "it is the oldest");
        assert!(newest.grow(4_000_000).is_ok(), "the newest is whole");
    }

    #[tokio::test]
    async fn who_has_no_room_any_more_hears_of_it() {
        let limits = Limits::new();
        let mut first = limits.hold(4 * 1024 * 1024);
        let others = limits.hold(4 * 1024 * 1024);
        first.cut().await;
        drop((first, others));
        assert_eq!(limits.bodies().large.used, 0);
    }
}
