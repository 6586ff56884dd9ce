//! A copy of the store of one moment, made beside a running relay or without one. It takes no
//! lock: it is one long read, and the relay goes on writing.

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

/// Why there is no copy. Nothing was changed, and no half of a copy is left.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A backup that overwrites is a way to lose one.
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
        /// The copy.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A copy that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
    /// Alerts in it, without those that retention has emptied.
    pub alerts: u64,
}

/// The beginning of the name of a copy that is not whole yet.
const PARTIAL: &str = ".relay-backup-";

/// What SQLite adds to that for a file of its own, as long as it writes.
const JOURNAL: &str = "-journal";

/// Copies the store to a new file, which only its owner can read, and which is on disk when this
/// returns. Whatever was acknowledged before the call is in it. `begins` gets what ends the copying
/// early; then, as after any other error, nothing of the copy is left.
///
/// A process that was killed leaves its partial copy behind, and the next one removes it.
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

/// As [`backup`], and writes the copy to `out`. Until that has all of it, it takes its room beside
/// the store: SQLite cannot copy to what is not a file.
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

/// A copy that is on disk, and removed unless it is given a name.
struct Whole {
    partial: tempfile::TempPath,
    copied: Copied,
    /// Its lock says that somebody is at work.
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
    // SQLite writes into an empty file as well; it gets its name when it is whole.
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

/// Makes an empty file for a copy. It is locked until the copy is whole, so that others know that
/// somebody is at work.
fn begin_partial(directory: &Path) -> io::Result<NamedTempFile> {
    loop {
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(directory)?;
        partial.as_file().lock()?;
        // Another backup that found it before it was locked took it for one of a killed process.
        if partial.as_file().metadata()?.nlink() > 0 {
            return Ok(partial);
        }
    }
}

/// Removes partial copies on which nobody is at work.
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
        // One that ends meanwhile is no failure of ours.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            tracing::info!(path = %path.display(), "a partial copy of a killed backup is removed");
            drop(fs::remove_file(beside(&path, JOURNAL)));
            drop(fs::remove_file(&path));
        }
    }
    Ok(())
}
