//! The files of a store: access rights, locks, and a check that the open files are still in place.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    error::OpenError,
    paths::{LOCK, OWNER_ONLY, SHARED_MEMORY, WAL, beside},
};
use crate::store::StoreError;

/// The two locks on a store, held until the value is dropped or the process ends.
///
/// The second lock is on the database itself, so that removing the lock file does not let a second
/// relay in. SQLite uses another kind of lock and does not see this one. SQLite's locks are lost
/// when any handle of the file is closed, so this value is dropped after the connections.
#[derive(Debug)]
pub(super) struct Locks {
    // Fields are dropped in this order, the reverse of the order of locking.
    database: Option<File>,
    _beside: File,
}

impl Locks {
    /// Takes the lock beside the store.
    ///
    /// # Errors
    /// Another process holds the lock, or the system failed.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let beside = lock(path, &beside(path, LOCK))?;
        Ok(Self { database: None, _beside: beside })
    }

    /// Takes the lock on the database, creating an empty file if there is none.
    ///
    /// # Errors
    /// Another process holds the lock, or the system failed.
    pub(super) fn take_database(&mut self, path: &Path) -> Result<(), OpenError> {
        self.database = Some(lock(path, path)?);
        Ok(())
    }
}

fn lock(store: &Path, path: &Path) -> Result<File, OpenError> {
    let failed = |source: io::Error| OpenError::failed(store, source);
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).mode(OWNER_ONLY);
    let file = options.open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(store.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes the existing files accessible to their owner only. SQLite creates later files with the
/// mode of the database.
pub(super) fn close_to_others(path: &Path) {
    for file in
        [path.to_owned(), beside(path, WAL), beside(path, SHARED_MEMORY), beside(path, LOCK)]
    {
        let Ok(found) = fs::metadata(&file) else { continue };
        if found.mode() & 0o777 == OWNER_ONLY {
            continue;
        }
        let (name, mode) = (file.display(), found.mode() & 0o777);
        match fs::set_permissions(&file, Permissions::from_mode(OWNER_ONLY)) {
            Ok(()) if mode & 0o077 != 0 => tracing::warn!(
                file = %name,
                "others could read {name} (mode {mode:03o}); now only its owner can (0600)"
            ),
            // Others had no access; only the rights of the owner differed.
            Ok(()) => {}
            Err(error) => tracing::warn!(
                file = %name, %error,
                "others may read {name} (mode {mode:03o}), and that cannot be changed"
            ),
        }
    }
}

/// The open files, by device and inode. All of them exist as long as the store is open.
#[derive(Debug)]
pub(super) struct Files {
    wal: PathBuf,
    held: Vec<(PathBuf, (u64, u64))>,
    /// Set once the log says that the files are gone.
    is_said: AtomicBool,
}

impl Files {
    /// Reads the identities of the files of a store that has just been opened.
    ///
    /// # Errors
    /// One of the files does not exist.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        // SQLite puts its files beside the database, wherever a symbolic link leads.
        let real = fs::canonicalize(path)?;
        let wal = beside(&real, WAL);
        let names =
            [path.to_owned(), wal.clone(), beside(&real, SHARED_MEMORY), beside(path, LOCK)];
        let held = names.into_iter().map(|name| {
            let found = fs::metadata(&name)?;
            Ok((name, (found.dev(), found.ino())))
        });
        let held = held.collect::<io::Result<_>>()?;
        Ok(Self { wal, held, is_said: AtomicBool::new(false) })
    }

    /// Returns the path of the write-ahead log.
    pub(super) fn wal(&self) -> &Path {
        &self.wal
    }

    /// Checks the files like [`Files::check`], but only if they were gone the last time.
    pub(super) fn check_if_gone(&self) -> Result<(), StoreError> {
        if self.is_said.load(Ordering::Acquire) { self.check() } else { Ok(()) }
    }

    /// Checks that each name still leads to the open file, with four system calls of about a
    /// microsecond each. After a commit this proves that a restart would find what was written.
    ///
    /// # Errors
    /// [`StoreError::Gone`], which is logged the first time.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let problem = self.held.iter().find_map(|(name, held)| {
            let why = match fs::metadata(name) {
                Ok(found) if (found.dev(), found.ino()) == *held => return None,
                Ok(_) => "is another file now".to_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    "has been removed or moved away".to_owned()
                }
                // Without a look at the file nothing proves that a restart would find it.
                Err(error) => format!("cannot be seen: {error}"),
            };
            Some(format!("{} {why}", name.display()))
        });
        // Several threads check. The swap lets one of them log the change.
        let was_said = self.is_said.swap(problem.is_some(), Ordering::AcqRel);
        match problem {
            None if was_said => tracing::warn!("the store's files are back; alerts are taken"),
            None => {}
            Some(problem) => {
                if !was_said {
                    tracing::error!(
                        problem,
                        "the store's files are gone while the relay runs: alerts are refused \
                         (503), and what is open is still delivered; stop the relay, put the \
                         files or a backup in their place, and start it again"
                    );
                }
                return Err(StoreError::Gone(Arc::from(problem)));
            }
        }
        Ok(())
    }
}
