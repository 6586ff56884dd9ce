//! A copy of the store of one moment, made beside a running relay or without one. It takes no
//! lock: it is one long read, and the relay goes on writing.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::open::{self, OpenError};

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

/// Copies the store to a new file, which only its owner can read, and which is on disk when this
/// returns. Whatever was acknowledged before the call is in it.
///
/// # Errors
/// [`BackupError`].
pub fn backup(store: &Path, to: &Path) -> Result<Copied, BackupError> {
    let write = |source| BackupError::Write { path: to.to_owned(), source };
    let copy = |source: rusqlite::Error| BackupError::Copy(source.into());
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let directory = open::directory(to);
    let db = open::to_read(store)?;
    // SQLite writes into an empty file as well; it gets its name when it is whole.
    let partial = tempfile::Builder::new()
        .prefix(".backup-")
        .tempfile_in(directory)
        .map_err(write)?
        .into_temp_path();
    let path = partial.to_str().ok_or_else(|| write(io::ErrorKind::InvalidFilename.into()))?;
    db.execute("VACUUM INTO ?1", [path]).map_err(copy)?;
    let alerts = open::to_read(&partial)?
        .query_row("SELECT count(*) FROM alerts WHERE search IS NOT NULL", (), |row| row.get(0))
        .map_err(copy)?;
    let file = File::open(&partial).map_err(write)?;
    file.sync_all().map_err(write)?;
    let bytes = file.metadata().map_err(write)?.len();
    partial.persist_noclobber(to).map_err(|error| {
        let exists = error.error.kind() == io::ErrorKind::AlreadyExists;
        if exists { BackupError::Exists(to.to_owned()) } else { write(error.error) }
    })?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(write)?;
    Ok(Copied { bytes, alerts })
}
