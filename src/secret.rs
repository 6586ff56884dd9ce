//! Secrets: values that never appear in a log line, an error or an answer.
//!
//! Blanks, line ends and byte order marks around a value are removed: editors, `echo` and consoles
//! add them. Such a character inside a value is an error, since no key contains one on purpose.
//!
//! A secret comes from the environment (fixed for the life of the process) or from a file, which
//! [`Secret::refresh`] reads again, so that a rotated value is used without a restart. Code whose
//! value was refused calls [`Secret::refresh_if_touched`], which looks only at the file's metadata
//! while nothing has changed.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

/// Reason why a secret does not have a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {}", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// The value is empty: an empty key would verify anything signed with it.
    #[error("the secret {0} is empty")]
    Empty(String),
    /// The value has a flaw, so it cannot be the intended one.
    #[error("the secret {name} {flaw}")]
    Flawed {
        /// Name of the variable or file.
        name: String,
        /// Flaw of the value.
        flaw: Flaw,
    },
}

/// A flaw of a secret's value. Tells the place, never the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The value is not UTF-8.
    #[error("is not UTF-8 text: byte {0} (save it as UTF-8; PowerShell writes UTF-16 by itself)")]
    NotUtf8(usize),
    /// A control or format character, such as a line break or a zero-width space.
    #[error("has the control or invisible character U+{code:04X} inside, at character {at}")]
    Control {
        /// Code point of the character.
        code: u32,
        /// Position of the character, from 1.
        at: usize,
    },
    /// A blank in a value that must be one word.
    #[error("has a blank inside, at character {0}")]
    Blank(usize),
    /// Quotes around the value, which belong to the shell or to YAML.
    #[error("has quotes around it: leave them out")]
    Quotes,
}

/// The characters that a secret may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One word: a key, a token, a URL.
    Word,
    /// Words with spaces between them, such as a password or the value of a header. A JSON object,
    /// such as the key file of a service account, may have line breaks as well.
    Text,
}

impl Form {
    /// Returns the value without surrounding blanks and marks.
    fn clean<'v>(self, name: &str, value: &'v str) -> Result<&'v str, SecretError> {
        let value = value.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
        if value.is_empty() {
            return Err(SecretError::Empty(name.to_owned()));
        }
        match self.flaw(value) {
            None => Ok(value),
            Some(flaw) => Err(SecretError::Flawed { name: name.to_owned(), flaw }),
        }
    }

    fn flaw(self, value: &str) -> Option<Flaw> {
        let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(value);
        if self == Self::Text && value.starts_with('{') && is_json().is_ok() {
            return None;
        }
        if is_quoted(value) {
            return Some(Flaw::Quotes);
        }
        value.chars().zip(1..).find_map(|(c, at)| match c {
            // This stands in a variable for what is not UTF-8.
            char::REPLACEMENT_CHARACTER => Some(Flaw::NotUtf8(at)),
            ' ' if self == Self::Text => None,
            c if c.is_control() || is_invisible(c) => Some(Flaw::Control { code: c.into(), at }),
            c if c.is_whitespace() => Some(Flaw::Blank(at)),
            _ => None,
        })
    }
}

/// Returns whether a character is a byte order mark, a zero-width character or a mark of direction,
/// which come along when a value is copied from a page.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{61c}' | '\u{ad}')
}

fn is_quoted(value: &str) -> bool {
    const PAIRS: [(char, char); 5] =
        [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];
    let inside = |(open, close)| value.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    PAIRS.into_iter().any(|pair| inside(pair).is_some())
}

/// A value that is never shown. Cheap to clone; all clones see a refreshed value.
#[derive(Clone)]
pub struct Secret(Arc<Inner>);

struct Inner {
    origin: Origin,
    value: ArcSwap<String>,
    /// Value before the last change.
    former: ArcSwapOption<String>,
    version: AtomicU64,
    /// Identity of the file when it was last read. The lock makes readings follow one another.
    read_at: Mutex<Option<Stamp>>,
}

#[derive(PartialEq, Eq)]
enum Origin {
    Fixed(String),
    File(PathBuf, Form),
}

/// Metadata that tells whether a file is the same as before: a swapped symbolic link leads to
/// another inode.
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
    /// Returns a secret with a value of our own that does not change and is not checked; `name` may
    /// be shown.
    ///
    /// # Errors
    /// Returns [`SecretError::Empty`] if the value is empty.
    pub fn fixed(name: &str, value: &str) -> Result<Self, SecretError> {
        if value.is_empty() {
            return Err(SecretError::Empty(name.to_owned()));
        }
        Ok(Self::with(Origin::Fixed(name.to_owned()), value.to_owned()))
    }

    /// Returns the secret of an environment variable.
    ///
    /// # Errors
    /// Returns [`SecretError`] if the value is empty or flawed.
    pub fn variable(name: &str, value: &str, form: Form) -> Result<Self, SecretError> {
        Self::fixed(name, form.clean(name, value)?)
    }

    /// Reads a secret from a file.
    ///
    /// # Errors
    /// Returns [`SecretError`] if the file cannot be read, is empty or is flawed.
    pub fn file(path: &Path, form: Form) -> Result<Self, SecretError> {
        let stamp = Stamp::of(path);
        let secret = Self::with(Origin::File(path.to_owned(), form), read(path, form)?);
        *secret.0.read_at.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        Ok(secret)
    }

    fn with(origin: Origin, value: String) -> Self {
        let (value, version) = (ArcSwap::from_pointee(value), AtomicU64::new(0));
        let (former, read_at) = (ArcSwapOption::empty(), Mutex::new(None));
        Self(Arc::new(Inner { origin, value, former, version, read_at }))
    }

    /// Returns whether the value comes from this file and has this form.
    pub fn is_file(&self, path: &Path, form: Form) -> bool {
        matches!(&self.0.origin, Origin::File(file, its) if file == path && *its == form)
    }

    /// Returns the name of the variable or the path of the file; never the value.
    pub fn name(&self) -> String {
        match &self.0.origin {
            Origin::Fixed(name) => name.clone(),
            Origin::File(path, _) => path.display().to_string(),
        }
    }

    /// Returns the value, for the request that needs it and for nothing else.
    pub fn reveal(&self) -> Arc<String> {
        self.0.value.load_full()
    }

    /// Returns a number that grows each time the value changes. Code that derives something from
    /// the value keeps the number beside it.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Returns whether this secret and another one have the same value, or one of them still has
    /// the value that the other had before its last change.
    pub fn goes_with(&self, other: &Self) -> bool {
        let values = |secret: &Self| [Some(secret.reveal()), secret.0.former.load_full()];
        let (own, others) = (values(self), values(other));
        own.iter().flatten().any(|value| others.iter().flatten().any(|other| value == other))
    }

    /// Reads a secret file again. Returns whether the value changed; the old value stays in use if
    /// the file cannot be read.
    ///
    /// # Errors
    /// Returns [`SecretError`] if the file cannot be read, is empty or is flawed.
    pub fn refresh(&self) -> Result<bool, SecretError> {
        self.read_again(|_unread, _now| true)
    }

    /// Calls [`Secret::refresh`] if the file is not the one that was read last.
    ///
    /// # Errors
    /// Returns [`SecretError`] if the file cannot be read, is empty or is flawed.
    pub fn refresh_if_touched(&self) -> Result<bool, SecretError> {
        self.read_again(|before, now| before != now)
    }

    fn read_again(
        &self,
        is_wanted: impl FnOnce(Option<Stamp>, Option<Stamp>) -> bool,
    ) -> Result<bool, SecretError> {
        let Origin::File(path, form) = &self.0.origin else {
            return Ok(false);
        };
        let mut read_at = self.0.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the contents: what changes in between is read once more.
        let stamp = Stamp::of(path);
        if !is_wanted(*read_at, stamp) {
            return Ok(false);
        }
        let value = read(path, *form)?;
        *read_at = stamp;
        if *self.0.value.load_full() == value {
            return Ok(false);
        }
        self.0.former.store(Some(self.0.value.swap(Arc::new(value))));
        self.0.version.fetch_add(1, Ordering::Release);
        Ok(true)
    }
}

fn read(path: &Path, form: Form) -> Result<String, SecretError> {
    let bytes = fs::read(path)
        .map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
    let name = path.display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => form.clean(&name, &text).map(str::to_owned),
        Err(error) => {
            let flaw = Flaw::NotUtf8(error.utf8_error().valid_up_to() + 1);
            Err(SecretError::Flawed { name, flaw })
        }
    }
}

/// Secrets are equal if they come from the same place.
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
            Origin::File(path, _) => write!(f, "Secret({}: ***)", path.display()),
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
    fn secrets_that_are_rotated_one_after_the_other_go_together_all_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| dir.path().join(name));
        for (path, value) in paths.iter().zip(["old", "old", "another"]) {
            fs::write(path, value).unwrap();
        }
        let [a, b, c] = paths.each_ref().map(|path| Secret::file(path, Form::Word).unwrap());
        let check = || {
            assert!(a.goes_with(&b) && b.goes_with(&a));
            assert!(!a.goes_with(&c) && !c.goes_with(&b));
        };
        check();
        for (path, secret) in paths.iter().zip([&a, &b]) {
            fs::write(path, "new").unwrap();
            assert!(secret.refresh().unwrap());
            check();
        }
    }

    #[test]
    fn a_rotated_file_is_seen_by_every_clone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "old\n").unwrap();
        let secret = Secret::file(&path, Form::Word).unwrap();
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
        let secret = Secret::file(&path, Form::Word).unwrap();
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
        let secret = Secret::file(&path, Form::Word).unwrap();
        fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.refresh(), Err(SecretError::Empty(_))));
        assert_eq!(secret.reveal().as_str(), "old");
    }

    #[test]
    fn what_surrounds_a_value_is_left_out_and_what_is_inside_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let both = |value: &str, form| {
            fs::write(&path, value).unwrap();
            let shown = |secret: Secret| secret.reveal().as_str().to_owned();
            let variable = Secret::variable("KEY", value, form).map(shown);
            let file = Secret::file(&path, form).map(shown);
            let flaw = |error| match error {
                SecretError::Flawed { flaw, .. } => Some(flaw),
                SecretError::Empty(_) | SecretError::Unreadable { .. } => None,
            };
            let (variable, file) = (variable.map_err(flaw), file.map_err(flaw));
            assert_eq!(variable, file, "{value:?}");
            variable
        };
        for value in ["k3y", "k3y\n", "k3y\r\n", "\u{feff}k3y", " \tk3y \u{a0}\n\n", "k3y\u{200b}"]
        {
            assert_eq!(both(value, Form::Word), Ok("k3y".to_owned()), "{value:?}");
        }
        for (value, flaw) in [
            ("k3y\nk3y", Flaw::Control { code: 0xA, at: 4 }),
            ("k3y\0", Flaw::Control { code: 0, at: 4 }),
            ("k\u{200b}3y", Flaw::Control { code: 0x200B, at: 2 }),
            ("k\u{9b}3y", Flaw::Control { code: 0x9B, at: 2 }),
            ("k\u{a0}3y", Flaw::Blank(2)),
            ("\"k3y\"\n", Flaw::Quotes),
            ("'k3y'", Flaw::Quotes),
            ("\u{201c}k3y\u{201d}", Flaw::Quotes),
            ("k3\u{fffd}", Flaw::NotUtf8(3)),
        ] {
            assert_eq!(both(value, Form::Word), Err(Some(flaw)), "{value:?}");
            assert_eq!(both(value, Form::Text), Err(Some(flaw)), "{value:?}");
        }
        assert_eq!(both("pass word", Form::Word), Err(Some(Flaw::Blank(5))));
        assert_eq!(both(" pass word ", Form::Text), Ok("pass word".to_owned()));
        let document = "{\n\t\"type\": \"service_account\"\n}";
        assert_eq!(both(document, Form::Text), Ok(document.to_owned()));
        assert_eq!(both("\u{feff}\r\n ", Form::Text), Err(None));
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_refused_with_the_place_and_without_the_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "hunter2").unwrap();
        let secret = Secret::file(&path, Form::Word).unwrap();
        fs::write(&path, b"\xff\xfeh\0u\0").unwrap();
        let error = secret.refresh().unwrap_err().to_string();
        assert!(error.contains("is not UTF-8 text: byte 1"), "{error}");
        fs::write(&path, "hunter2 hunter3").unwrap();
        let error = secret.refresh().unwrap_err().to_string();
        assert!(error.contains("blank inside, at character 8"), "{error}");
        assert!(!error.contains("hunter"), "{error}");
        assert_eq!(secret.reveal().as_str(), "hunter2", "the old value stays");
    }
}
