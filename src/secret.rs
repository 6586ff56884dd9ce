//! Secrets: values that never appear in a log line, an error or an answer.
//!
//! A secret comes from the environment (fixed for the life of the process) or from a file, which
//! is read again by [`Secret::refresh`], so that a rotated value is used without a restart.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
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
}

enum Origin {
    Fixed(String),
    File(PathBuf),
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
        Ok(Self::with(Origin::File(path.to_owned()), read(path)?))
    }

    fn with(origin: Origin, value: String) -> Self {
        let value = ArcSwap::from_pointee(value);
        Self(Arc::new(Inner { origin, value, version: AtomicU64::new(0) }))
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
        let Origin::File(path) = &self.0.origin else {
            return Ok(false);
        };
        let value = read(path)?;
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
