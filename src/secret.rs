//! Secrets: values that never appear in a log line, an error or an answer.
//!
//! A secret comes from the environment (fixed for the life of the process) or from a file, which
//! is read again by [`Secret::refresh`], so that a rotated value is used without a restart.
//! Whoever finds a value refused asks for [`Secret::refresh_if_touched`], which costs one look at
//! the file's metadata while nothing has changed.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is a value, and it is empty: an empty key would verify anything signed with it.
    #[error("the secret {0} is empty")]
    Empty(String),
}

/// A value that nobody may see. Cheap to clone; all clones see a refreshed value.
#[derive(Clone)]
pub struct Secret(Arc<Inner>);

struct Inner {
    origin: Origin,
    value: ArcSwap<String>,
    version: AtomicU64,
    /// The file as it was when it was last read. Its lock makes readings follow one another.
    read_at: Mutex<Option<Stamp>>,
}

#[derive(PartialEq, Eq)]
enum Origin {
    Fixed(String),
    File(PathBuf),
}

/// By this a file is known to be the same as before: a swapped symbolic link shows another inode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

impl Secret {
    /// A value that does not change; `name` (of its environment variable) may be shown.
    ///
    /// # Errors
    /// [`SecretError::Empty`] if there is nothing in it.
    pub fn fixed(name: &str, value: &str) -> Result<Self, SecretError> {
        if value.is_empty() {
            return Err(SecretError::Empty(name.to_owned()));
        }
        Ok(Self::with(Origin::Fixed(name.to_owned()), value.to_owned()))
    }

    /// The contents of a file, without the line ends that editors and `echo` leave behind it.
    ///
    /// # Errors
    /// [`SecretError`] if the file cannot be read or is empty.
    pub fn file(path: &Path) -> Result<Self, SecretError> {
        let stamp = Stamp::of(path);
        let secret = Self::with(Origin::File(path.to_owned()), read(path)?);
        *secret.0.read_at.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        Ok(secret)
    }

    fn with(origin: Origin, value: String) -> Self {
        let (value, version) = (ArcSwap::from_pointee(value), AtomicU64::new(0));
        Self(Arc::new(Inner { origin, value, version, read_at: Mutex::new(None) }))
    }

    /// Whether the value comes from this file.
    pub fn is_file(&self, path: &Path) -> bool {
        matches!(&self.0.origin, Origin::File(file) if file == path)
    }

    /// The value itself: for the request that needs it, and for nothing else.
    pub fn reveal(&self) -> Arc<String> {
        self.0.value.load_full()
    }

    /// A number that grows each time the value changes: whoever derives something from the value
    /// keeps the number beside it.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Reads a secret file again. Returns whether the value changed; the old one stays in use
    /// when the file cannot be read.
    ///
    /// # Errors
    /// [`SecretError`] if the file cannot be read or is empty.
    pub fn refresh(&self) -> Result<bool, SecretError> {
        self.read_again(|_unread, _now| true)
    }

    /// As [`Secret::refresh`], if the file is not the one that was read last.
    ///
    /// # Errors
    /// [`SecretError`] if the file cannot be read or is empty.
    pub fn refresh_if_touched(&self) -> Result<bool, SecretError> {
        self.read_again(|before, now| before != now)
    }

    fn read_again(
        &self,
        is_wanted: impl FnOnce(Option<Stamp>, Option<Stamp>) -> bool,
    ) -> Result<bool, SecretError> {
        let Origin::File(path) = &self.0.origin else {
            return Ok(false);
        };
        let mut read_at = self.0.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the contents: what changes in between is read once more.
        let stamp = Stamp::of(path);
        if !is_wanted(*read_at, stamp) {
            return Ok(false);
        }
        let value = read(path)?;
        *read_at = stamp;
        if *self.0.value.load_full() == value {
            return Ok(false);
        }
        self.0.value.store(Arc::new(value));
        self.0.version.fetch_add(1, Ordering::Release);
        Ok(true)
    }
}

fn read(path: &Path) -> Result<String, SecretError> {
    let text = fs::read_to_string(path)
        .map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
    let value = text.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(SecretError::Empty(path.display().to_string()));
    }
    Ok(value.to_owned())
}

/// Two secrets are the same if they come from the same place.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.origin == other.0.origin
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.origin {
            Origin::Fixed(name) => write!(f, "Secret({name}: ***)"),
            Origin::File(path) => write!(f, "Secret({}: ***)", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::fixed("SLACK_SIGNING_SECRET", "8f742231b10e").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(SLACK_SIGNING_SECRET: ***)");
    }

    #[test]
    fn a_rotated_file_is_seen_by_every_clone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "old\n").unwrap();
        let secret = Secret::file(&path).unwrap();
        let clone = secret.clone();
        assert!(!secret.refresh().unwrap());
        fs::write(&path, "new\r\n").unwrap();
        assert!(secret.refresh().unwrap());
        assert_eq!((clone.reveal().as_str(), clone.version()), ("new", 1));
    }

    #[test]
    fn a_file_that_was_not_touched_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("secret"), dir.path().join("new"));
        fs::write(&path, "old").unwrap();
        let secret = Secret::file(&path).unwrap();
        assert!(!secret.refresh_if_touched().unwrap());
        fs::write(&new, "new").unwrap();
        fs::rename(&new, &path).unwrap();
        assert!(secret.refresh_if_touched().unwrap());
        assert!(!secret.refresh_if_touched().unwrap());
        assert_eq!(secret.reveal().as_str(), "new");
    }

    #[test]
    fn secrets_are_the_same_by_their_place_and_not_by_their_value() {
        let fixed = |name| Secret::fixed(name, "value").unwrap();
        assert_eq!(fixed("A"), fixed("A"));
        assert_ne!(fixed("A"), fixed("B"));
    }

    #[test]
    fn an_emptied_file_leaves_the_old_value_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "old").unwrap();
        let secret = Secret::file(&path).unwrap();
        fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.refresh(), Err(SecretError::Empty(_))));
        assert_eq!(secret.reveal().as_str(), "old");
    }
}
