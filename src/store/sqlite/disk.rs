//! Free space on the disk of the store, and the ballast.
//!
//! The ballast is a file that only takes up space. It is removed when nothing can be written any
//! more, to make room for outcomes and for the removal of finished alerts, which frees more space.
//! New alerts never get that space.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::paths::{BALLAST, OWNER_ONLY, beside, directory};

/// Size of the ballast, and free space from which it is created again.
const BALLAST_BYTES: u64 = 2 * 1024 * 1024;
const BALLAST_AGAIN_BYTES: u64 = 4 * 1024 * 1024;

/// Free space below which the disk counts as full. A commit needs more than the size of its alert,
/// since pages are written to the log first and then into the file.
const FULL_BYTES: u64 = 1024 * 1024;

/// Free space from which a full disk counts as usable again, and below which delivered messages are
/// evicted until [`ENOUGH_BYTES`] are free. The gap leaves the space of an emptied log to outcomes.
const SHORT_BYTES: u64 = 2 * 1024 * 1024;
const ENOUGH_BYTES: u64 = 3 * 1024 * 1024;

/// Time between two tries to create the ballast. Under a quota more space seems free than is.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The disk that holds a store.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    ballast: PathBuf,
    /// Free bytes, without the space that the ballast takes or should take.
    free: AtomicU64,
    has_ballast: AtomicBool,
    is_full: AtomicBool,
    tried_at: Mutex<Option<Instant>>,
}

impl Disk {
    /// Reads the free space, and creates the ballast if there is room for it.
    pub(super) fn new(path: &Path, now: Instant) -> Self {
        let disk = Self {
            directory: directory(path).to_owned(),
            ballast: beside(path, BALLAST),
            free: AtomicU64::new(0),
            has_ballast: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            tried_at: Mutex::default(),
        };
        // Before the first look, which leaves room for a ballast that is missing.
        disk.has_ballast.store(is_whole(&disk.ballast), Ordering::Release);
        disk.look();
        disk.keep_ballast(now);
        if !disk.has_ballast() {
            let path = disk.ballast.display();
            tracing::warn!(
                free_bytes = disk.free(),
                "the disk has no room for the store's ballast {path}; it is created once 4 MiB are \
                 free, and on a full disk nothing can be recorded without it"
            );
        }
        disk
    }

    /// Reads the free space, and logs when the disk becomes full and when it no longer is.
    pub(super) fn look(&self) {
        let available = match available(&self.directory) {
            Ok(available) => available,
            // A write will still fail if the disk is full.
            Err(error) => {
                return tracing::debug!(%error, "the free space of the disk cannot be read");
            }
        };
        let reserved = if self.has_ballast() { 0 } else { BALLAST_BYTES };
        let free = available.saturating_sub(reserved);
        self.free.store(free, Ordering::Release);
        let was_full = self.was_full();
        let is_full = free < if was_full { SHORT_BYTES } else { FULL_BYTES };
        self.is_full.store(is_full, Ordering::Release);
        let directory = self.directory.display();
        if is_full && !was_full {
            tracing::error!(
                free_bytes = free,
                "the disk of the store ({directory}) is full: alerts are refused (503) and Slack \
                 sends them again; what is stored is still delivered: free some space there"
            );
        } else if was_full && !is_full {
            tracing::info!(free_bytes = free, "the disk of the store has room again");
        }
    }

    /// Bytes that new alerts may use.
    pub(super) fn free(&self) -> u64 {
        self.free.load(Ordering::Acquire)
    }

    /// Returns `true` if the disk is full. Reads the free space again while it is.
    pub(super) fn is_full(&self) -> bool {
        if self.was_full() {
            self.look();
        }
        self.was_full()
    }

    /// Returns `true` if the disk was full when the free space was read last.
    pub(super) fn was_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Returns `true` if delivered messages should be evicted.
    pub(super) fn is_short(&self) -> bool {
        self.free() < SHORT_BYTES
    }

    /// Returns `true` if enough space is free to stop evicting.
    pub(super) fn has_enough(&self) -> bool {
        self.free() >= ENOUGH_BYTES
    }

    /// Returns the problem with the disk, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        self.is_full().then(|| {
            let (directory, free) = (self.directory.display(), self.free());
            format!(
                "the disk of the store ({directory}) is full, {free} bytes are left for alerts: \
                 they are refused; free some space there"
            )
        })
    }

    fn has_ballast(&self) -> bool {
        self.has_ballast.load(Ordering::Acquire)
    }

    /// Creates the ballast if it is missing and there is room again.
    pub(super) fn keep_ballast(&self, now: Instant) {
        if self.has_ballast() || self.free() + BALLAST_BYTES < BALLAST_AGAIN_BYTES {
            return;
        }
        let mut tried_at = self.tried_at.lock().unwrap_or_else(PoisonError::into_inner);
        if tried_at.is_some_and(|before| now.duration_since(before) < TRY_AGAIN_AFTER) {
            return;
        }
        *tried_at = Some(now);
        let path = self.ballast.display();
        match make(&self.ballast) {
            Ok(()) => {
                self.has_ballast.store(true, Ordering::Release);
                tracing::debug!("the store's ballast {path} is there");
            }
            Err(error) => {
                tracing::warn!(%error, "the store's ballast {path} cannot be made");
                // A part of the ballast would only take space from alerts.
                drop(fs::remove_file(&self.ballast));
            }
        }
        self.look();
    }

    /// Removes the ballast. Returns `false` if there was none.
    pub(super) fn give_ballast_up(&self, now: Instant) -> bool {
        if !self.has_ballast.swap(false, Ordering::AcqRel) {
            return false;
        }
        *self.tried_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        let path = self.ballast.display();
        match give_up(&self.ballast) {
            Ok(()) => tracing::warn!(
                "nothing can be written any more, so the store's ballast {path} is given up: it is \
                 there to record what is delivered; it is made again once 4 MiB are free"
            ),
            Err(error) => {
                tracing::error!(%error, "the store's ballast {path} cannot be removed");
            }
        }
        self.look();
        true
    }
}

/// Gives up the ballast of a store that cannot be opened for lack of space; returns whether there
/// was any.
pub(super) fn give_up_to_open(path: &Path) -> bool {
    let ballast = beside(path, BALLAST);
    let was_there = ballast.exists() && give_up(&ballast).is_ok();
    if was_there {
        tracing::warn!(
            "the disk is full: the store's ballast {} is given up to open the store",
            ballast.display()
        );
    }
    was_there
}

/// Returns the bytes that are free in a directory for a user who is not root.
pub(super) fn available(directory: &Path) -> io::Result<u64> {
    let found = statvfs(directory)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Returns `true` if all bytes of the ballast are allocated.
fn is_whole(path: &Path) -> bool {
    let only_ours = || fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY));
    fs::metadata(path).is_ok_and(|found| {
        found.is_file()
            && found.len() >= BALLAST_BYTES
            && found.blocks().saturating_mul(512) >= BALLAST_BYTES
            && (found.mode() & 0o777 == OWNER_ONLY || only_ours().is_ok())
    })
}

fn make(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options.create(true).truncate(true).write(true).mode(OWNER_ONLY).open(path)?;
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    match fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES) {
        Ok(()) => Ok(()),
        // Some file systems cannot allocate without writing.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = [0; 4096];
            for _ in 0..BALLAST_BYTES / 4096 {
                file.write_all(&zeros)?;
            }
            file.sync_all()
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Truncates and removes the ballast. A copy-on-write file system may need space to remove a file,
/// and has it after the truncation.
fn give_up(path: &Path) -> io::Result<()> {
    let emptied = File::options().write(true).truncate(true).open(path).map(drop);
    fs::remove_file(path).or(emptied)
}
