//! Copies a consistent snapshot of the store, with or without a running relay. A copy is one long
//! read and takes no lock, so the relay goes on writing.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rusqlite::InterruptHandle;
use tempfile::NamedTempFile;

use super::{
    error::OpenError,
    open,
    paths::{beside, directory},
};

/// Reason why there is no copy. Nothing was changed, and no partial copy is left.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target exists, and an earlier backup must not be overwritten.
    #[error("{} exists already: name a new file", .0.display())]
    Exists(PathBuf),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// SQLite could not copy it.
    #[error("the store cannot be copied")]
    Copy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The copy cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Path of the copy.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
}

/// Numbers of a finished copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Size of the file.
    pub bytes: u64,
    /// Number of alerts, except those that retention has emptied.
    pub alerts: u64,
}

/// Prefix of the name of an unfinished copy.
const PARTIAL: &str = ".relay-backup-";

/// Suffix of the file that SQLite keeps beside an unfinished copy.
const JOURNAL: &str = "-journal";

/// Copies the store to a new file that only its owner can read. The copy holds everything that was
/// acknowledged before the call, and is on disk when this returns. `begins` receives a handle that
/// interrupts the copy; after that, as after any other error, no partial copy is left.
///
/// A killed process leaves a partial copy behind, which the next backup removes.
///
/// # Errors
/// [`BackupError`].
pub fn backup(
    store: &Path,
    to: &Path,
    begins: impl FnOnce(InterruptHandle),
) -> Result<Copied, BackupError> {
    let write = |source| BackupError::Write { path: to.to_owned(), source };
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let directory = directory(to);
    let Whole { partial, copied, file: _held } = copy(store, directory, begins)?;
    partial.persist_noclobber(to).map_err(|error| {
        let exists = error.error.kind() == io::ErrorKind::AlreadyExists;
        if exists { BackupError::Exists(to.to_owned()) } else { write(error.error) }
    })?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(write)?;
    Ok(copied)
}

/// Copies the store and writes the copy to `out`. Meanwhile the copy takes space beside the store,
/// since SQLite can copy to a file only.
///
/// # Errors
/// [`BackupError`].
pub fn backup_to(
    store: &Path,
    out: &mut dyn io::Write,
    begins: impl FnOnce(InterruptHandle),
) -> Result<Copied, BackupError> {
    let Whole { partial, copied, file: _held } = copy(store, directory(store), begins)?;
    let mut stream = || {
        io::copy(&mut File::open(&partial)?, out)?;
        out.flush()
    };
    stream().map_err(|source| BackupError::Write { path: "standard output".into(), source })?;
    Ok(copied)
}

/// A finished copy, removed unless it is given a name.
struct Whole {
    partial: tempfile::TempPath,
    copied: Copied,
    /// Locked while the copy is in use.
    file: File,
}

fn copy(
    store: &Path,
    directory: &Path,
    begins: impl FnOnce(InterruptHandle),
) -> Result<Whole, BackupError> {
    let write = |source| BackupError::Write { path: directory.to_owned(), source };
    let copy = |source: rusqlite::Error| BackupError::Copy(source.into());
    remove_partial(directory).map_err(write)?;
    let db = open::to_read(store)?;
    begins(db.get_interrupt_handle());
    // SQLite also copies into an empty file, which gets its name once the copy is finished.
    let (file, partial) = begin_partial(directory).map_err(write)?.into_parts();
    let path = partial.to_str().ok_or_else(|| write(io::ErrorKind::InvalidFilename.into()))?;
    db.execute("VACUUM INTO ?1", [path]).map_err(copy)?;
    let alerts = open::to_read(&partial)?
        .query_row("SELECT count(*) FROM alerts WHERE search IS NOT NULL", (), |row| row.get(0))
        .map_err(copy)?;
    file.sync_all().map_err(write)?;
    let bytes = file.metadata().map_err(write)?.len();
    Ok(Whole { partial, copied: Copied { bytes, alerts }, file })
}

/// Creates an empty, locked file for a copy. The lock tells other backups that it is in use.
fn begin_partial(directory: &Path) -> io::Result<NamedTempFile> {
    loop {
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(directory)?;
        partial.as_file().lock()?;
        // Another backup may have found the file before it was locked, and removed it.
        if partial.as_file().metadata()?.nlink() > 0 {
            return Ok(partial);
        }
    }
}

/// Removes partial copies that no process has locked.
pub(super) fn remove_partial(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let is_copy = name.starts_with(PARTIAL.as_bytes()) && !name.ends_with(JOURNAL.as_bytes());
        if !is_copy || !entry.file_type()?.is_file() {
            continue;
        }
        let path = entry.path();
        // The copy may be finished meanwhile.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            tracing::info!(path = %path.display(), "a partial copy of a killed backup is removed");
            drop(fs::remove_file(beside(&path, JOURNAL)));
            drop(fs::remove_file(&path));
        }
    }
    Ok(())
}
