//! The disk under the store: how much of it is free, and the ballast.
//!
//! The ballast is a file of no use but its size. It is given up when nothing can be written any
//! more: then there is room to record what was delivered and to remove what is finished, which
//! makes more room. New alerts never get it.

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

/// How much the ballast takes, and how much must be free for it to be made again.
const BALLAST_BYTES: u64 = 2 * 1024 * 1024;
const BALLAST_AGAIN_BYTES: u64 = 4 * 1024 * 1024;

/// With less than this the disk counts as full. A commit needs more than the alert's own size: its
/// pages go to the log first, and from there into the file.
const FULL_BYTES: u64 = 1024 * 1024;

/// A full disk has room again from this on: what the relay gains by emptying its log is for
/// outcomes. With less than this delivered alerts go before their time, until there is enough.
const SHORT_BYTES: u64 = 2 * 1024 * 1024;
const ENOUGH_BYTES: u64 = 3 * 1024 * 1024;

/// Where a quota is at work, more may seem free than is: not each commit tries to make the ballast.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The disk under one store.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    ballast: PathBuf,
    /// What is free without the space that the ballast has or ought to have.
    free: AtomicU64,
    has_ballast: AtomicBool,
    is_full: AtomicBool,
    tried_at: Mutex<Option<Instant>>,
}

impl Disk {
    /// Looks at the disk, and makes the ballast if there is room for it.
    pub(super) fn new(path: &Path, now: Instant) -> Self {
        let disk = Self {
            directory: directory(path).to_owned(),
            ballast: beside(path, BALLAST),
            free: AtomicU64::new(0),
            has_ballast: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            tried_at: Mutex::default(),
        };
        disk.has_ballast.store(is_whole(&disk.ballast), Ordering::Release);
        disk.look();
        disk.keep_ballast(now);
        if !disk.has_ballast() {
            let path = disk.ballast.display();
            tracing::warn!(
                free_bytes = disk.free(),
                "the disk has no room for the store's ballast {path}; it is made once 4 MiB are \
                 free, and on a full disk nothing can be recorded without it"
            );
        }
        disk
    }

    /// Looks how much is free; says so when the disk becomes full, and when it no longer is.
    pub(super) fn look(&self) {
        let available = match available(&self.directory) {
            Ok(available) => available,
            // A disk that cannot be asked still says at a write that it is full.
            Err(error) => return tracing::debug!(%error, "the disk does not say what is free"),
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

    /// Whether nothing new may be written. Looks again while that is so.
    pub(super) fn is_full(&self) -> bool {
        if self.was_full() {
            self.look();
        }
        self.was_full()
    }

    /// The same, by the last look.
    pub(super) fn was_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Whether what is finished should make room.
    pub(super) fn is_short(&self) -> bool {
        self.free() < SHORT_BYTES
    }

    /// Whether there is room enough to stop making more.
    pub(super) fn has_enough(&self) -> bool {
        self.free() >= ENOUGH_BYTES
    }

    /// What is wrong with it, or nothing.
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

    /// Makes the ballast if it is not there and there is room again.
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
                drop(fs::remove_file(&self.ballast));
            }
        }
        self.look();
    }

    /// Gives the ballast's space up; returns whether there was any.
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

/// Bytes that are free under that directory for whoever is not root.
pub(super) fn available(directory: &Path) -> io::Result<u64> {
    let found = statvfs(directory)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether the file has the space that it seems to have.
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
        // Some file systems only know how to write.
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

/// Emptied before it is removed: a file system that copies on write may need space to remove it.
fn give_up(path: &Path) -> io::Result<()> {
    let emptied = File::options().write(true).truncate(true).open(path).map(drop);
    fs::remove_file(path).or(emptied)
}
