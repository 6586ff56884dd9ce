//! Errors of opening a store, and SQLite's errors as a store reports them.

use std::{
    any::Any,
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{ErrorCode, ffi};

use crate::store::StoreError;

/// Reason why the store was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory of the file does not exist.
    #[error(
        "the store's directory {} does not exist: create it, or mount the volume it should be on",
        .0.display()
    )]
    NoDirectory(PathBuf),
    /// Another process holds the lock beside the file.
    #[error("another relay is using the store {}", .0.display())]
    InUse(PathBuf),
    /// The file system is not one on which SQLite's write-ahead log works.
    #[error("the store {} is on {kind}, and only a local disk will do: move it", path.display())]
    NotLocal {
        /// Path of the store.
        path: PathBuf,
        /// Kind of the file system.
        kind: &'static str,
    },
    /// The file is not a sound store.
    #[error(
        "the store {} cannot be used: {problem}; restore a backup, or move the file and those \
         beside it away to start empty, knowing that the alerts in it are then not delivered",
        path.display()
    )]
    Damaged {
        /// Path of the store.
        path: PathBuf,
        /// Problem with the file.
        problem: String,
    },
    /// A newer relay has changed the layout.
    #[error(
        "the store {} was written by a newer version of the relay (layout {found}, this version \
         knows {known}): run that version, or restore a backup from before it",
        path.display()
    )]
    Newer {
        /// Path of the store.
        path: PathBuf,
        /// Layout of the file.
        found: i64,
        /// The newest layout that this version knows.
        known: i64,
    },
    /// The system or SQLite failed.
    #[error("cannot open the store {}", path.display())]
    Failed {
        /// Path of the store.
        path: PathBuf,
        /// Error of the system or of SQLite.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl OpenError {
    /// Returns the error of a system call or of SQLite.
    pub(super) fn failed(path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed { path: path.to_owned(), source: source.into() }
    }

    /// Returns the error for a file that is not a sound store.
    pub(super) fn damaged(path: &Path, problem: &str) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.to_owned() }
    }

    /// Returns the error for an error of SQLite, which may mean damage.
    pub(super) fn engine(path: &Path, source: rusqlite::Error) -> Self {
        let damage = [ErrorCode::NotADatabase, ErrorCode::DatabaseCorrupt];
        match source.sqlite_error_code() {
            Some(code) if damage.contains(&code) => Self::damaged(path, &source.to_string()),
            Some(_) | None => Self::failed(path, source),
        }
    }
}

/// Returns `true` if the item is at fault, and not the engine, the disk or a lock.
pub(super) fn is_items_own(error: &rusqlite::Error) -> bool {
    let own = [ErrorCode::ConstraintViolation, ErrorCode::TooBig, ErrorCode::TypeMismatch];
    error.sqlite_error_code().is_some_and(|code| own.contains(&code))
        || matches!(error, rusqlite::Error::ToSqlConversionFailure(_))
}

/// Returns `true` if the disk is full. SQLite has a separate error code for the usual case only.
pub(super) fn is_out_of_space(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull
            || [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE].contains(&error.extended_code)
    })
}

pub(super) fn item(error: rusqlite::Error) -> StoreError {
    StoreError::Item(error.into())
}

pub(super) fn engine(error: rusqlite::Error) -> StoreError {
    engine_shared(&Arc::new(error))
}

pub(super) fn engine_shared(error: &Arc<rusqlite::Error>) -> StoreError {
    if is_out_of_space(error) {
        StoreError::Full
    } else {
        StoreError::Engine(Box::new(Arc::clone(error)))
    }
}

/// Returns the message of a caught panic as an error of the engine.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> rusqlite::Error {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    rusqlite::Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_INTERNAL),
        Some(format!("panic in the store: {said}")),
    )
}
