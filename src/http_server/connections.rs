//! The table of one listener's open connections, and the choice of which to close.
//!
//! The accept loop registers every connection. The connection's own task and requests only store a
//! few atomics. Nothing here waits for a peer.

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

use crate::{
    clock::{Clock, Seldom},
    shutdown::Shutdown,
};

/// Age in microseconds below which an idle connection may have a request on its way to us.
const ARRIVAL_MICROS: u64 = 50_000;

/// Factor by which the age of an idle connection counts more than that of one with a request. With
/// this weight an idle connection goes before any request that is within its own time limits.
const IDLE_WEIGHT: u64 = 64;

/// Behaviour of a listener that has as many connections as it may have, all of them busy with
/// verified requests. In any other case a connection is closed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Let the new connection wait until one of them ends.
    Wait,
    /// Close the oldest of them.
    Evict,
}

/// State of the request on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request is in progress.
    Idle,
    /// The request in progress may be anybody's.
    Unverified,
    /// The sender of the request in progress has been authenticated.
    Verified,
}

/// State of a connection at the time of an eviction.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionSnapshot {
    pub(super) phase: Phase,
    /// Time since this phase began.
    pub(super) age_micros: u64,
    /// `true` if the peer does not read the answer.
    pub(super) is_unread: bool,
}

/// Returns which of these connections to close for a new one, or `None` if all must stay.
///
/// The connection that has been idle longest goes first, then the oldest request whose body is not
/// verified or whose answer is not read.
pub(super) fn choose_victim<K>(
    connections: impl Iterator<Item = (K, ConnectionSnapshot)>,
    when_full: WhenFull,
) -> Option<K> {
    let weight = |connection: &ConnectionSnapshot| match (connection.phase, connection.is_unread) {
        // A new connection does not get the weight of an idle one: its request may be in the
        // kernel's buffer already. Otherwise a listener that is full of unfinished requests would
        // close every new connection before reading from it.
        (Phase::Idle, false) if connection.age_micros >= ARRIVAL_MICROS => {
            Some((true, connection.age_micros.saturating_mul(IDLE_WEIGHT)))
        }
        (Phase::Idle | Phase::Unverified, _) | (Phase::Verified, true) => {
            Some((true, connection.age_micros))
        }
        (Phase::Verified, false) => match when_full {
            WhenFull::Wait => None,
            WhenFull::Evict => Some((false, connection.age_micros)),
        },
    };
    let weighed =
        connections.filter_map(|(key, snapshot)| weight(&snapshot).map(|weight| (weight, key)));
    weighed.max_by_key(|(weight, _)| *weight).map(|(_, key)| key)
}

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    /// Time for which a peer may read nothing of an answer.
    pub(super) write_stall: Duration,
    /// Duration of one request with its answer: a long poll or a stream.
    pub(super) longest_request: Duration,
    /// Age from which the next answer is the connection's last.
    pub(super) old_age: Duration,
}

impl TimeLimits {
    /// Limits of both listeners.
    pub(super) const DEFAULT: Self = Self {
        // Slack and proxies read at once, and a browser on a bad line reads something.
        write_stall: Duration::from_secs(10),
        longest_request: Duration::from_secs(600),
        old_age: Duration::from_secs(600),
    };
}

/// State of one connection, shared by the accept loop, the connection's task and its requests.
#[derive(Debug)]
pub(super) struct Connection {
    limits: TimeLimits,
    clock: Clock,
    shutdown: Shutdown,
    accepted_at: Instant,
    /// Microseconds from `accepted_at` to the beginning of the phase, shifted left by two, and the
    /// phase.
    state: AtomicU64,
    /// Microseconds from `accepted_at`, plus one, at which the peer stopped reading; 0 while the
    /// peer reads.
    unread_since: AtomicU64,
    /// `true` while a request waits for the peer to read earlier answers.
    is_request_waiting: AtomicBool,
    close_requested: Notify,
}

impl Connection {
    pub(super) fn new(limits: TimeLimits, clock: Clock, shutdown: Shutdown) -> Self {
        Self {
            limits,
            accepted_at: clock.instant(),
            clock,
            shutdown,
            state: AtomicU64::new(0),
            unread_since: AtomicU64::new(0),
            is_request_waiting: AtomicBool::new(false),
            close_requested: Notify::new(),
        }
    }

    fn age(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.accepted_at)
    }

    fn age_micros(&self) -> u64 {
        u64::try_from(self.age().as_micros()).unwrap_or(u64::MAX >> 2)
    }

    /// Returns whether the connection is to be closed after the present answer.
    pub(super) fn ends_with_this_answer(&self) -> bool {
        self.shutdown.is_draining() || self.age() > self.limits.old_age
    }

    pub(super) fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Idle => 0,
            Phase::Unverified => 1,
            Phase::Verified => 2,
        };
        self.state.store(self.age_micros() << 2 | number, Ordering::Relaxed);
    }

    fn snapshot(&self) -> ConnectionSnapshot {
        let state = self.state.load(Ordering::Relaxed);
        ConnectionSnapshot {
            phase: match state & 3 {
                0 => Phase::Idle,
                1 => Phase::Unverified,
                _ => Phase::Verified,
            },
            age_micros: self.age_micros().saturating_sub(state >> 2),
            is_unread: self.unread_since.load(Ordering::Relaxed) != 0,
        }
    }

    /// Notes that the peer took none of the bytes written.
    pub(super) fn note_stalled(&self) {
        if self.unread_since.load(Ordering::Relaxed) == 0 {
            self.unread_since.store(self.age_micros() + 1, Ordering::Relaxed);
        }
    }

    /// Notes that the peer took some of the bytes written. Returns whether a request waited for
    /// that.
    pub(super) fn note_written(&self) -> bool {
        if self.unread_since.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.unread_since.store(0, Ordering::Relaxed);
        self.is_request_waiting.swap(false, Ordering::Relaxed)
    }

    /// Waits until the peer has read the answers to its earlier requests.
    pub(super) async fn answers_read(&self) {
        // hyper polls the request and the writes in one task, which `note_written`'s caller wakes.
        poll_fn(|_context| {
            if self.unread_since.load(Ordering::Relaxed) == 0 {
                return Poll::Ready(());
            }
            self.is_request_waiting.store(true, Ordering::Relaxed);
            Poll::Pending
        })
        .await;
    }

    /// Waits until the table asks for the connection to be closed.
    pub(super) async fn close_requested(&self) {
        self.close_requested.notified().await;
    }

    fn is_overdue(&self) -> bool {
        let snapshot = self.snapshot();
        let since = self.unread_since.load(Ordering::Relaxed);
        let unread = if since == 0 { 0 } else { self.age_micros().saturating_sub(since - 1) };
        let is_stalled = Duration::from_micros(unread) > self.limits.write_stall;
        let is_request_too_long = snapshot.phase != Phase::Idle
            && Duration::from_micros(snapshot.age_micros) > self.limits.longest_request;
        is_stalled || is_request_too_long
    }
}

/// Open connections of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ConnectionTable(Arc<Table>);

#[derive(Debug)]
struct Table {
    entries: Mutex<Entries>,
    connection_closed: Notify,
    sweeps: Seldom,
}

#[derive(Debug, Default)]
struct Entries {
    /// Connections that have not been asked to close.
    staying: HashMap<u64, Arc<Connection>>,
    /// Number of open connections, with those that were asked to close and are still open.
    open: usize,
    next_id: u64,
}

/// Entry of an open connection. Dropped, the connection counts as closed.
#[derive(Debug)]
pub(super) struct TableEntry {
    table: ConnectionTable,
    id: u64,
}

impl ConnectionTable {
    pub(super) fn new(sweep_every: Duration) -> Self {
        let sweeps = Seldom::every(sweep_every);
        Self(Arc::new(Table {
            entries: Mutex::default(),
            connection_closed: Notify::new(),
            sweeps,
        }))
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, connection: &Arc<Connection>) -> TableEntry {
        let mut entries = self.entries();
        entries.next_id += 1;
        entries.open += 1;
        let id = entries.next_id;
        entries.staying.insert(id, Arc::clone(connection));
        TableEntry { table: self.clone(), id }
    }

    /// Returns the number of open connections.
    pub(super) fn open(&self) -> usize {
        self.entries().open
    }

    /// Returns whether a connection was asked to close and is still open.
    pub(super) fn is_one_closing(&self) -> bool {
        let entries = self.entries();
        entries.open > entries.staying.len()
    }

    /// Asks one connection to close. Returns `false` if all must stay.
    pub(super) fn evict(&self, when_full: WhenFull) -> bool {
        let mut entries = self.entries();
        let snapshots = entries.staying.iter().map(|(id, one)| (*id, one.snapshot()));
        let victim = choose_victim(snapshots, when_full);
        let evicted = victim.and_then(|id| entries.staying.remove(&id));
        if let Some(connection) = &evicted {
            connection.close_requested.notify_one();
        }
        evicted.is_some()
    }

    /// Asks the connections to close that are past a time limit, unless the last sweep was a moment
    /// ago.
    pub(super) fn sweep(&self, now: Instant) {
        if !self.0.sweeps.is_due(now) {
            return;
        }
        self.entries().staying.retain(|_, connection| {
            let is_overdue = connection.is_overdue();
            if is_overdue {
                tracing::debug!("a connection is past its time limits");
                connection.close_requested.notify_one();
            }
            !is_overdue
        });
    }

    /// Waits until a connection closes. Returns at once if one has closed since the last call.
    pub(super) async fn connection_closed(&self) {
        self.0.connection_closed.notified().await;
    }
}

impl Drop for TableEntry {
    fn drop(&mut self) {
        let mut entries = self.table.entries();
        entries.staying.remove(&self.id);
        entries.open -= 1;
        drop(entries);
        self.table.0.connection_closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot() -> impl Strategy<Value = ConnectionSnapshot> {
        let phase = prop_oneof![Just(Phase::Idle), Just(Phase::Unverified), Just(Phase::Verified)];
        (phase, 0..10_000_000_u64, any::<bool>()).prop_map(|(phase, age_micros, is_unread)| {
            ConnectionSnapshot { phase, age_micros, is_unread }
        })
    }

    fn chosen(all: &[ConnectionSnapshot], when_full: WhenFull) -> Option<ConnectionSnapshot> {
        let at = choose_victim(all.iter().copied().enumerate(), when_full)?;
        all.get(at).copied()
    }

    proptest! {
        #[test]
        fn a_verified_request_whose_answer_is_read_is_closed_last_or_never(
            all in prop::collection::vec(snapshot(), 0..40)
        ) {
            let is_safe = |one: &ConnectionSnapshot| one.phase == Phase::Verified && !one.is_unread;
            match chosen(&all, WhenFull::Wait) {
                Some(gone) => prop_assert!(!is_safe(&gone)),
                None => prop_assert!(all.iter().all(is_safe)),
            }
            let gone = chosen(&all, WhenFull::Evict);
            prop_assert_eq!(gone.is_none(), all.is_empty(), "one always goes");
            if gone.is_some_and(|gone| is_safe(&gone)) {
                prop_assert!(all.iter().all(is_safe));
            }
        }

        #[test]
        fn of_two_in_the_same_state_the_older_one_is_closed(
            all in prop::collection::vec(snapshot(), 1..40)
        ) {
            let Some(gone) = chosen(&all, WhenFull::Wait) else { return Ok(()) };
            for other in &all {
                if (other.phase, other.is_unread) == (gone.phase, gone.is_unread) {
                    prop_assert!(other.age_micros <= gone.age_micros, "{other:?} {gone:?}");
                }
            }
        }

        #[test]
        fn an_idle_connection_is_closed_before_one_whose_body_is_within_its_time(
            idle in ARRIVAL_MICROS..10_000_000_u64, body in 0..2_000_000_u64
        ) {
            let all = [
                ConnectionSnapshot { phase: Phase::Unverified, age_micros: body, is_unread: false },
                ConnectionSnapshot { phase: Phase::Idle, age_micros: idle, is_unread: false },
            ];
            let gone = chosen(&all, WhenFull::Wait).map(|gone| gone.phase);
            prop_assert_eq!(gone, Some(Phase::Idle));
        }

        #[test]
        fn a_new_connection_stays_while_others_do_not_read_their_answers(
            others in prop::collection::vec(60_000..10_000_000_u64, 1..40), new in 0..50_000_u64
        ) {
            let unread = |age_micros| {
                ConnectionSnapshot { phase: Phase::Idle, age_micros, is_unread: true }
            };
            let mut all: Vec<ConnectionSnapshot> = others.into_iter().map(unread).collect();
            all.push(ConnectionSnapshot { phase: Phase::Idle, age_micros: new, is_unread: false });
            let gone = chosen(&all, WhenFull::Wait).map(|gone| gone.is_unread);
            prop_assert_eq!(gone, Some(true));
        }
    }

    #[test]
    fn an_evicted_connection_counts_as_open_until_it_has_closed() {
        let table = ConnectionTable::new(Duration::ZERO);
        let shutdown = Shutdown::new();
        let connection = Connection::new(TimeLimits::DEFAULT, Clock::system(), shutdown);
        let entry = table.insert(&Arc::new(connection));
        assert!(!table.is_one_closing());
        assert!(table.evict(WhenFull::Wait));
        assert!(table.is_one_closing());
        assert!(!table.evict(WhenFull::Wait), "it was asked before");
        assert_eq!(table.open(), 1);
        drop(entry);
        assert_eq!(table.open(), 0);
    }
}
