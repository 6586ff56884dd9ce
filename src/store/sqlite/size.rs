//! Space that the store uses, against `max_size` and the disk.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::disk::Disk;

/// Time between two measurements while the store is small.
pub(super) const EVERY: Duration = Duration::from_millis(100);

/// Shares of `max_size` in percent: messages are refused from `FULL` on, delivered messages are
/// evicted from `SHORT` down to `ENOUGH`, and a warning is logged at `WARNED`.
const FULL: u64 = 95;
const SHORT: u64 = 90;
const ENOUGH: u64 = 85;
const WARNED: u64 = 80;

/// Bytes that alerts may fill between two measurements.
const SMALL: u64 = 32 * 1024 * 1024;

/// Used pages and write-ahead log, against the limit.
#[derive(Debug)]
pub(super) struct Size {
    max: u64,
    wal: PathBuf,
    disk: Disk,
    used: AtomicU64,
    is_warned: AtomicBool,
    looked_at: Mutex<Option<Instant>>,
}

impl Size {
    pub(super) fn new(max: u64, wal: PathBuf, disk: Disk) -> Self {
        Self {
            max,
            wal,
            disk,
            used: AtomicU64::new(0),
            is_warned: AtomicBool::new(false),
            looked_at: Mutex::default(),
        }
    }

    /// Measures again after [`EVERY`], or after each commit of a small or nearly full store.
    pub(super) fn keep_up(&self, db: &Connection, now: Instant) {
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = looked_at.is_some_and(|before| now.duration_since(before) < EVERY);
        // A small store may be full before the next measurement.
        let is_close = self.max <= SMALL || self.is_warned.load(Ordering::Acquire);
        if !is_recent || is_close {
            *looked_at = Some(now);
            self.measure(db);
            self.look_at_disk(now);
        }
    }

    /// Reads the free space of the disk, and creates the ballast again if there is room.
    pub(super) fn look_at_disk(&self, now: Instant) {
        self.disk.look();
        self.disk.keep_ballast(now);
    }

    /// Measures the used space, and logs once when 80 % are in use.
    fn measure(&self, db: &Connection) {
        match self.look(db) {
            Ok(used) => self.used.store(used, Ordering::Release),
            Err(error) => return tracing::error!(%error, "the store's size cannot be read"),
        }
        let is_high = self.is_above(WARNED);
        let was_high = self.is_warned.swap(is_high, Ordering::AcqRel);
        if is_high && !was_high {
            let (used, max) = (self.used.load(Ordering::Acquire), self.max);
            tracing::warn!(
                used_bytes = used,
                max_bytes = max,
                "the store is 80 % full; at 90 % delivered alerts are removed before their time, \
                 and when that does not help alerts are refused: raise max_size, shorten \
                 retention, or see to what is not delivered"
            );
        }
    }

    fn look(&self, db: &Connection) -> Result<u64, Box<dyn std::error::Error>> {
        let pages = db
            .prepare_cached(
                "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count,
                 pragma_freelist_count, pragma_page_size",
            )?
            .query_row((), |row| row.get::<_, u64>(0))?;
        let wal = match fs::metadata(&self.wal) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(pages + wal)
    }

    /// Returns `true` if messages are refused: 95 % are in use, or the disk is full.
    pub(super) fn is_full(&self) -> bool {
        self.is_above(FULL) || self.disk.is_full()
    }

    /// Returns `true` if delivered messages should be evicted.
    pub(super) fn is_short(&self) -> bool {
        self.is_above(SHORT) || self.disk.is_short()
    }

    /// Returns `true` if enough space is free to stop evicting.
    pub(super) fn has_enough(&self) -> bool {
        !self.is_above(ENOUGH) && self.disk.has_enough()
    }

    /// Returns `true` if so little is used that the next shortage is logged again.
    pub(super) fn is_at_ease(&self) -> bool {
        !self.is_above(WARNED) && self.disk.has_enough()
    }

    /// Returns the reason why messages are refused, if they are.
    pub(super) fn problem(&self) -> Option<String> {
        self.disk.problem().or_else(|| {
            self.is_above(FULL).then(|| {
                let (used, max) = (self.used.load(Ordering::Acquire), self.max);
                format!(
                    "{used} of {max} bytes (max_size) are in use by what is not delivered: alerts \
                     are refused; raise max_size, or see to what is not delivered"
                )
            })
        })
    }

    /// Returns the disk that holds the store.
    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Returns the bytes in use, and the bytes left of `max_size` or on the disk if that is less.
    pub(super) fn used_and_free(&self) -> (u64, u64) {
        let used = self.used.load(Ordering::Acquire);
        (used, self.max.saturating_sub(used).min(self.disk.free()))
    }

    fn is_above(&self, percent: u64) -> bool {
        self.used.load(Ordering::Acquire) >= self.max / 100 * percent
    }
}
