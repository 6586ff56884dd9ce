//! Names and modes of the files of a store.

use std::path::{Path, PathBuf};

/// Mode of every file of a store, whatever the umask: only the owner has access.
pub(super) const OWNER_ONLY: u32 = 0o600;

/// Suffixes of the files beside the database.
pub(super) const WAL: &str = "-wal";
pub(super) const SHARED_MEMORY: &str = "-shm";
pub(super) const LOCK: &str = ".lock";
pub(super) const BALLAST: &str = ".ballast";

/// Returns the directory of a file.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Returns a path with a suffix added, such as SQLite's `-wal`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
