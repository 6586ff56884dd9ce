//! Limits on what may be in progress at once.
//!
//! Nothing is held for what was only announced: a request counts once its signature is verified,
//! and a body takes memory for the bytes that have arrived.
//!
//! Until its signature is verified, a body may come from a stranger. When such bodies fill their
//! budget, the oldest is cut off, whichever of them grows, and never the newest: strangers who send
//! half of a body do not keep others out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::refusal::Refusal;

/// Verified requests in progress at once.
const MAX_IN_FLIGHT: usize = 256;

/// Size up to which bodies have a budget of their own. Slack's events are a few KiB long.
const SMALL_BODY_BYTES: usize = 64 * 1024;

/// Budget of small bodies that have arrived in part. Most bodies arrive whole, and use none of it.
const SMALL_BUDGET_BYTES: usize = 4 * 1024 * 1024;

/// Budget of larger bodies: at least one of the largest always fits. The buffers in which they grow
/// take up to twice as much.
const LARGE_BUDGET_BYTES: usize = 5 * 1024 * 1024;

/// Limits on requests and on unverified bodies, with what is in use of them.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Semaphore,
    bodies: Mutex<PartialBodies>,
}

impl Limits {
    pub(super) const fn new() -> Self {
        Self {
            requests: Semaphore::const_new(MAX_IN_FLIGHT),
            bodies: Mutex::new(PartialBodies {
                small: ByteBudget::new(SMALL_BUDGET_BYTES),
                large: ByteBudget::new(LARGE_BUDGET_BYTES),
                next_number: 0,
            }),
        }
    }

    /// Returns a permit for a verified request, or `None` if too many are in progress.
    pub(super) fn request_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.requests.try_acquire().ok()
    }

    /// Reserves memory for the part of a body that has arrived, at the cost of older bodies.
    pub(super) fn reserve(&self, bytes: usize) -> Reservation<'_> {
        let (revoke, is_revoked) = oneshot::channel();
        let mut bodies = self.bodies();
        bodies.next_number += 1;
        let number = bodies.next_number;
        bodies.insert(number, PartialBody { bytes, _revoke: revoke });
        Reservation { limits: self, number, is_revoked }
    }

    fn bodies(&self) -> MutexGuard<'_, PartialBodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory reserved for a body, released when dropped.
#[derive(Debug)]
pub(super) struct Reservation<'l> {
    limits: &'l Limits,
    number: u64,
    is_revoked: oneshot::Receiver<()>,
}

impl Reservation<'_> {
    /// Enlarges the reservation to a new size of the body. If there is not enough memory, the
    /// oldest body is cut off, even if that is this one.
    pub(super) fn grow(&self, bytes: usize) -> Result<(), Refusal> {
        let mut bodies = self.limits.bodies();
        let body = bodies.remove(self.number).ok_or(Refusal::Crowded)?;
        let is_kept = bodies.insert(self.number, PartialBody { bytes, ..body });
        if is_kept { Ok(()) } else { Err(Refusal::Crowded) }
    }

    /// Waits until newer bodies take the memory.
    pub(super) async fn revoked(&mut self) {
        // The other end is dropped with the partial body, and never sends.
        drop((&mut self.is_revoked).await);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.limits.bodies().remove(self.number);
    }
}

#[derive(Debug)]
struct PartialBodies {
    small: ByteBudget<PartialBody>,
    large: ByteBudget<PartialBody>,
    next_number: u64,
}

/// Size of a body that has arrived in part. Dropped, the body's reader is told to stop.
#[derive(Debug)]
struct PartialBody {
    bytes: usize,
    _revoke: oneshot::Sender<()>,
}

impl PartialBodies {
    /// Inserts a body. Returns whether there is memory for it.
    fn insert(&mut self, number: u64, body: PartialBody) -> bool {
        let is_small = body.bytes <= SMALL_BODY_BYTES;
        let budget = if is_small { &mut self.small } else { &mut self.large };
        budget.insert(number, body.bytes, body)
    }

    fn remove(&mut self, number: u64) -> Option<PartialBody> {
        self.small.remove(number).or_else(|| self.large.remove(number))
    }
}

/// A number of bytes, and the items that use them, by age: lower numbers are older.
#[derive(Debug)]
struct ByteBudget<T> {
    limit: usize,
    used: usize,
    items: BTreeMap<u64, (usize, T)>,
}

impl<T> ByteBudget<T> {
    const fn new(limit: usize) -> Self {
        Self { limit, used: 0, items: BTreeMap::new() }
    }

    /// Inserts an item, and drops the oldest ones until all fit or the newest is alone. Returns
    /// whether the inserted item stays.
    fn insert(&mut self, number: u64, bytes: usize, item: T) -> bool {
        self.used += bytes;
        self.items.insert(number, (bytes, item));
        while self.used > self.limit && self.items.len() > 1 {
            let oldest = self.items.keys().next().copied();
            oldest.and_then(|oldest| self.remove(oldest));
        }
        self.items.contains_key(&number)
    }

    fn remove(&mut self, number: u64) -> Option<T> {
        let (bytes, item) = self.items.remove(&number)?;
        self.used -= bytes;
        Some(item)
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
        /// Lets the n-th item grow to a size.
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
        fn a_budget_stays_within_its_limit_and_drops_the_oldest_first_and_never_the_newest(
            steps in prop::collection::vec(step(), 1..200)
        ) {
            let mut budget = ByteBudget::new(LIMIT);
            for (number, step) in (0..).zip(steps) {
                let before: Vec<u64> = budget.items.keys().copied().collect();
                let named = |at: usize| before.get(at).copied();
                let (inserted, stays) = match step {
                    Step::Begin(bytes) => (number, budget.insert(number, bytes, ())),
                    Step::Grow(at, bytes) => {
                        let Some(grows) = named(at) else { continue };
                        budget.remove(grows);
                        (grows, budget.insert(grows, bytes, ()))
                    }
                    Step::End(at) => {
                        named(at).map(|ended| budget.remove(ended));
                        continue;
                    }
                };
                let sum: usize = budget.items.values().map(|(bytes, ())| bytes).sum();
                prop_assert_eq!(sum, budget.used);
                prop_assert!(budget.used <= LIMIT);
                prop_assert_eq!(budget.items.contains_key(&inserted), stays);
                let mut all = before.clone();
                all.extend((!before.contains(&inserted)).then_some(inserted));
                let newest = all.last().unwrap();
                prop_assert!(budget.items.contains_key(newest), "the newest was dropped");
                let gone = all.iter().take_while(|one| !budget.items.contains_key(one)).count();
                let stay = all[gone..].iter().all(|one| budget.items.contains_key(one));
                prop_assert!(stay, "a newer one was dropped");
            }
        }
    }

    #[test]
    fn small_and_large_bodies_do_not_use_each_others_budget() {
        let limits = Limits::new();
        let small = limits.reserve(SMALL_BODY_BYTES);
        let large: Vec<Reservation<'_>> = (0..4).map(|_| limits.reserve(4 * 1024 * 1024)).collect();
        let grown: Vec<bool> = large.iter().map(|one| one.grow(4_000_000).is_ok()).collect();
        assert_eq!(grown, [false, false, false, true], "one of the largest fits");
        assert!(small.grow(SMALL_BODY_BYTES).is_ok());
        let many: Vec<Reservation<'_>> =
            (0..64).map(|_| limits.reserve(SMALL_BODY_BYTES)).collect();
        assert!(small.grow(SMALL_BODY_BYTES).is_err());
        assert!(many.iter().all(|one| one.grow(1).is_ok()));
        assert!(large.last().unwrap().grow(4_000_000).is_ok());
    }

    #[test]
    fn an_older_body_that_grows_is_cut_off_and_the_newest_stays() {
        let limits = Limits::new();
        let old = limits.reserve(1);
        assert!(old.grow(3_000_000).is_ok());
        let newest = limits.reserve(2_500_000);
        assert!(newest.grow(2_500_001).is_ok());
        let old = limits.reserve(1);
        let newest = limits.reserve(2_500_000);
        assert!(old.grow(70_000).is_ok());
        assert!(old.grow(3_000_000).is_err(), "it is the oldest");
        assert!(newest.grow(4_000_000).is_ok(), "the newest is whole");
    }

    #[tokio::test]
    async fn the_reader_of_a_body_that_was_cut_off_is_told() {
        let limits = Limits::new();
        let mut first = limits.reserve(4 * 1024 * 1024);
        let others = limits.reserve(4 * 1024 * 1024);
        first.revoked().await;
        drop((first, others));
        assert_eq!(limits.bodies().large.used, 0);
    }
}
