//! Names and modes of the files of a store.

use std::path::{Path, PathBuf};

/// What is in the store is nobody else's business, whatever the umask.
pub(super) const OWNER_ONLY: u32 = 0o600;

/// The files beside the database, by what is added to its name.
pub(super) const WAL: &str = "-wal";
pub(super) const SHARED_MEMORY: &str = "-shm";
pub(super) const LOCK: &str = ".lock";
pub(super) const BALLAST: &str = ".ballast";

/// Where the file is.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// The path with something behind it: SQLite's `-wal`, our `.lock`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
