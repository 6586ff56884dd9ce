//! The connections of one listener, and which of them goes when there is no room for another.
//!
//! The accept loop lets every connection in; the connection's own task and its requests only store
//! a few atomics. Nothing here waits for a peer.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::WhenFull;
use crate::{
    clock::{Clock, Seldom},
    shutdown::Shutdown,
};

/// A connection that is younger than this may have a request on its way to us.
const ARRIVAL_MICROS: u64 = 50_000;

/// How much more the age of an idle connection counts than that of one with a request. With it an
/// idle connection goes before any request that has not reached its own time limits.
const IDLE_WEIGHT: u64 = 64;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request is in progress.
    Idle,
    /// The request in progress may be anybody's.
    Unverified,
    /// The request in progress comes from somebody we know.
    Verified,
}

/// What an eviction looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) phase: Phase,
    /// How long it has been in this phase.
    pub(super) age_micros: u64,
    /// The peer does not read what was answered.
    pub(super) is_unread: bool,
}

/// Returns which of these connections is closed to make room, if any may be.
///
/// The one that has been idle longest goes first, then the oldest request whose body is not
/// verified or whose answer is not read. A connection that was accepted a moment ago counts as its
/// age only: its request may be in the kernel's buffer already, and a listener that is full of
/// half requests would otherwise close every new connection before it was read.
pub(super) fn victim<K>(
    connections: impl Iterator<Item = (K, Seen)>,
    when_full: WhenFull,
) -> Option<K> {
    let weight = |seen: &Seen| match (seen.phase, seen.is_unread) {
        (Phase::Idle, false) if seen.age_micros >= ARRIVAL_MICROS => {
            Some((true, seen.age_micros.saturating_mul(IDLE_WEIGHT)))
        }
        (Phase::Idle | Phase::Unverified, _) | (Phase::Verified, true) => {
            Some((true, seen.age_micros))
        }
        (Phase::Verified, false) => match when_full {
            WhenFull::Wait => None,
            WhenFull::Evict => Some((false, seen.age_micros)),
        },
    };
    let weighed = connections.filter_map(|(key, seen)| weight(&seen).map(|weight| (weight, key)));
    weighed.max_by_key(|(weight, _)| *weight).map(|(_, key)| key)
}

/// One connection, as its listener sees it.
#[derive(Debug)]
pub(super) struct Visit {
    limits: Limits,
    clock: Clock,
    shutdown: Shutdown,
    began: Instant,
    /// Microseconds since `began`, shifted left by two, and the phase that began then.
    state: AtomicU64,
    /// Microseconds since `began`, plus one, at which the peer stopped reading; 0 while it reads.
    unread_since: AtomicU64,
    /// A request waits for the peer to read the answers before it.
    is_queued: AtomicBool,
    told_to_leave: Notify,
}

impl Visit {
    pub(super) fn new(limits: Limits, clock: Clock, shutdown: Shutdown) -> Self {
        Self {
            limits,
            began: clock.instant(),
            clock,
            shutdown,
            state: AtomicU64::new(0),
            unread_since: AtomicU64::new(0),
            is_queued: AtomicBool::new(false),
            told_to_leave: Notify::new(),
        }
    }

    /// Microseconds since the connection was accepted.
    fn micros(&self) -> u64 {
        let since = self.clock.instant().saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX >> 2)
    }

    /// Whether no further request is read from the connection.
    pub(super) fn ends_with_this_answer(&self) -> bool {
        let age = || self.clock.instant().saturating_duration_since(self.began);
        self.shutdown.is_draining() || age() > self.limits.old_age
    }

    pub(super) fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Idle => 0,
            Phase::Unverified => 1,
            Phase::Verified => 2,
        };
        self.state.store(self.micros() << 2 | number, Ordering::Relaxed);
    }

    fn seen(&self) -> Seen {
        let state = self.state.load(Ordering::Relaxed);
        Seen {
            phase: match state & 3 {
                0 => Phase::Idle,
                1 => Phase::Unverified,
                _ => Phase::Verified,
            },
            age_micros: self.micros().saturating_sub(state >> 2),
            is_unread: self.unread_since.load(Ordering::Relaxed) != 0,
        }
    }

    /// The peer took none of what was written.
    pub(super) fn stalled(&self) {
        if self.unread_since.load(Ordering::Relaxed) == 0 {
            self.unread_since.store(self.micros() + 1, Ordering::Relaxed);
        }
    }

    /// The peer took something. Returns whether a request waited for that.
    pub(super) fn moved(&self) -> bool {
        if self.unread_since.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.unread_since.store(0, Ordering::Relaxed);
        self.is_queued.swap(false, Ordering::Relaxed)
    }

    /// Waits until the peer has read the answers to its earlier requests. hyper polls the request
    /// and the writes in the connection's one task, which [`Visit::moved`] wakes.
    pub(super) async fn answers_are_read(&self) {
        poll_fn(|_context| {
            if self.unread_since.load(Ordering::Relaxed) == 0 {
                return Poll::Ready(());
            }
            self.is_queued.store(true, Ordering::Relaxed);
            Poll::Pending
        })
        .await;
    }

    /// Ends when the connection is to be closed.
    pub(super) async fn told_to_leave(&self) {
        self.told_to_leave.notified().await;
    }

    fn is_overdue(&self) -> bool {
        let seen = self.seen();
        let since = self.unread_since.load(Ordering::Relaxed);
        let unread = if since == 0 { 0 } else { self.micros().saturating_sub(since - 1) };
        Duration::from_micros(unread) > self.limits.write_stall
            || seen.phase != Phase::Idle
                && Duration::from_micros(seen.age_micros) > self.limits.longest_request
    }
}

/// How long a connection may be in the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A peer that reads nothing of an answer for so long is cut off.
    pub(super) write_stall: Duration,
    /// One request, its answer included: a long poll or a stream.
    pub(super) longest_request: Duration,
    /// From then on the next answer is the connection's last.
    pub(super) old_age: Duration,
}

/// Everybody who is connected to one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct House(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    guests: Mutex<Guests>,
    left: Notify,
    sweeps: Seldom,
}

#[derive(Debug, Default)]
struct Guests {
    /// Those that may still be told to leave.
    staying: HashMap<u64, Arc<Visit>>,
    /// Their number, with those that were told to leave and have not left yet.
    present: usize,
    next: u64,
}

/// A connection's place. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    house: House,
    number: u64,
}

impl House {
    pub(super) fn new(sweep_every: Duration) -> Self {
        let sweeps = Seldom::every(sweep_every);
        Self(Arc::new(Inner { guests: Mutex::default(), left: Notify::new(), sweeps }))
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.0.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn let_in(&self, visit: &Arc<Visit>) -> Place {
        let mut guests = self.guests();
        guests.next += 1;
        guests.present += 1;
        let number = guests.next;
        guests.staying.insert(number, Arc::clone(visit));
        Place { house: self.clone(), number }
    }

    pub(super) fn present(&self) -> usize {
        self.guests().present
    }

    /// Returns whether a connection was told to leave and has not left yet.
    pub(super) fn is_somebody_leaving(&self) -> bool {
        let guests = self.guests();
        guests.present > guests.staying.len()
    }

    /// Tells one connection to leave. Returns false if none may be told.
    pub(super) fn evict(&self, when_full: WhenFull) -> bool {
        let mut guests = self.guests();
        let seen = guests.staying.iter().map(|(number, visit)| (*number, visit.seen()));
        let leaving = victim(seen, when_full).and_then(|number| guests.staying.remove(&number));
        if let Some(visit) = &leaving {
            visit.told_to_leave.notify_one();
        }
        leaving.is_some()
    }

    /// Tells those to leave that are past a limit, unless it looked a second ago.
    pub(super) fn sweep(&self, now: Instant) {
        if !self.0.sweeps.is_due(now) {
            return;
        }
        self.guests().staying.retain(|_, visit| {
            let is_overdue = visit.is_overdue();
            if is_overdue {
                tracing::debug!("a connection is past its time limits");
                visit.told_to_leave.notify_one();
            }
            !is_overdue
        });
    }

    /// Ends when a connection has left; also if that was since the last call.
    pub(super) async fn somebody_left(&self) {
        self.0.left.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guests = self.house.guests();
        guests.staying.remove(&self.number);
        guests.present -= 1;
        drop(guests);
        self.house.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen() -> impl Strategy<Value = Seen> {
        let phase = prop_oneof![Just(Phase::Idle), Just(Phase::Unverified), Just(Phase::Verified)];
        (phase, 0..10_000_000_u64, any::<bool>()).prop_map(|(phase, age_micros, is_unread)| Seen {
            phase,
            age_micros,
            is_unread,
        })
    }

    fn chosen(all: &[Seen], when_full: WhenFull) -> Option<Seen> {
        let at = victim(all.iter().copied().enumerate(), when_full)?;
        all.get(at).copied()
    }

    proptest! {
        #[test]
        fn a_verified_request_whose_answer_is_read_goes_last_or_never(
            all in prop::collection::vec(seen(), 0..40)
        ) {
            let is_safe = |seen: &Seen| seen.phase == Phase::Verified && !seen.is_unread;
            match chosen(&all, WhenFull::Wait) {
                Some(gone) => prop_assert!(!is_safe(&gone)),
                None => prop_assert!(all.iter().all(is_safe)),
            }
            let gone = chosen(&all, WhenFull::Evict);
            prop_assert_eq!(gone.is_none(), all.is_empty(), "somebody always goes");
            if gone.is_some_and(|gone| is_safe(&gone)) {
                prop_assert!(all.iter().all(is_safe));
            }
        }

        #[test]
        fn of_two_that_do_the_same_the_older_one_goes(all in prop::collection::vec(seen(), 1..40)) {
            let Some(gone) = chosen(&all, WhenFull::Wait) else { return Ok(()) };
            for other in &all {
                if (other.phase, other.is_unread) == (gone.phase, gone.is_unread) {
                    prop_assert!(other.age_micros <= gone.age_micros, "{other:?} {gone:?}");
                }
            }
        }

        #[test]
        fn an_idle_connection_goes_before_a_body_within_its_time(
            idle in ARRIVAL_MICROS..10_000_000_u64, body in 0..2_000_000_u64
        ) {
            let all = [
                Seen { phase: Phase::Unverified, age_micros: body, is_unread: false },
                Seen { phase: Phase::Idle, age_micros: idle, is_unread: false },
            ];
            let gone = chosen(&all, WhenFull::Wait).map(|gone| gone.phase);
            prop_assert_eq!(gone, Some(Phase::Idle));
        }

        #[test]
        fn a_connection_that_just_came_stays_where_others_do_not_read(
            others in prop::collection::vec(60_000..10_000_000_u64, 1..40), new in 0..50_000_u64
        ) {
            let unread = |age_micros| Seen { phase: Phase::Idle, age_micros, is_unread: true };
            let mut all: Vec<Seen> = others.into_iter().map(unread).collect();
            all.push(Seen { phase: Phase::Idle, age_micros: new, is_unread: false });
            let gone = chosen(&all, WhenFull::Wait).map(|gone| gone.is_unread);
            prop_assert_eq!(gone, Some(true));
        }
    }

    #[test]
    fn a_place_is_free_only_when_the_connection_has_left() {
        let house = House::new(Duration::ZERO);
        let limits = crate::http_server::LIMITS;
        let visit = Arc::new(Visit::new(limits, Clock::system(), Shutdown::new()));
        let place = house.let_in(&visit);
        assert!(!house.is_somebody_leaving());
        assert!(house.evict(WhenFull::Wait));
        assert!(house.is_somebody_leaving());
        assert!(!house.evict(WhenFull::Wait), "it was told already");
        assert_eq!(house.present(), 1);
        drop(place);
        assert_eq!(house.present(), 0);
    }
}
