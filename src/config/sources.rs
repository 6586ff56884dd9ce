//! The files that a configuration is made of: whether they are still the same, and a digest of each
//! destination's part, by which a reload knows what it may leave running.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A digest of settings and of the files that belong to them.
pub type Fingerprint = [u8; 32];

/// The files that a configuration was made of; secrets are read again by themselves.
#[derive(Clone, Debug)]
pub struct Sources {
    pub(super) files: Vec<PathBuf>,
    pub(super) presets_dir: Option<PathBuf>,
    digest: Fingerprint,
}

impl Sources {
    /// The configuration file, the presets beside the built-in ones, and certificates.
    pub(super) fn of(files: Vec<PathBuf>, presets_dir: Option<PathBuf>) -> Self {
        let digest = digest(&files, presets_dir.as_deref());
        Self { files, presets_dir, digest }
    }

    /// Whether a file has other contents now, or one of the presets' folder came or went. Looks at
    /// contents, since Kubernetes replaces a file by turning a symbolic link.
    pub fn have_changed(&self) -> bool {
        digest(&self.files, self.presets_dir.as_deref()) != self.digest
    }

    /// As they are now.
    #[must_use]
    pub fn as_they_are(&self) -> Self {
        Self::of(self.files.clone(), self.presets_dir.clone())
    }
}

/// The fingerprint of one destination: what the file says of it but for `when`, which concerns the
/// receiver only, and the contents of the files that it names.
pub(super) fn fingerprint(
    destination: &Value,
    files: &[&Path],
    presets_dir: Option<&Path>,
) -> Fingerprint {
    let mut hash = Sha256::new();
    for (key, value) in destination.as_object().into_iter().flatten() {
        if key != "when" {
            add(&mut hash, key.as_bytes());
            add(&mut hash, value.to_string().as_bytes());
        }
    }
    add_files(&mut hash, files);
    add_presets(&mut hash, presets_dir);
    hash.finalize().into()
}

fn digest(files: &[PathBuf], presets_dir: Option<&Path>) -> Fingerprint {
    let mut hash = Sha256::new();
    add_files(&mut hash, files);
    add_presets(&mut hash, presets_dir);
    hash.finalize().into()
}

fn add_presets(hash: &mut Sha256, presets_dir: Option<&Path>) {
    let entries = presets_dir.map(fs::read_dir).into_iter().flatten().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    add_files(hash, files);
}

fn add_files(hash: &mut Sha256, files: impl IntoIterator<Item: AsRef<Path>>) {
    for file in files {
        let file = file.as_ref();
        add(hash, file.as_os_str().as_encoded_bytes());
        match fs::read(file) {
            Ok(contents) => add(hash, &contents),
            Err(_absent) => hash.update([0]),
        }
    }
}

/// With its length first, so that what ends here cannot pass for the beginning of what follows.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update([1]);
    hash.update(bytes.len().to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_comes_or_goes_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, presets) = (dir.path().join("relay.yaml"), dir.path().join("presets"));
        fs::create_dir(&presets).unwrap();
        fs::write(&file, "a").unwrap();
        let sources = Sources::of(vec![file.clone()], Some(presets.clone()));
        assert!(!sources.have_changed());
        fs::write(presets.join("notes.txt"), "x").unwrap();
        assert!(!sources.have_changed(), "no preset");
        fs::write(presets.join("mine.yaml"), "x").unwrap();
        assert!(sources.have_changed());
        let sources = sources.as_they_are();
        fs::write(&file, "b").unwrap();
        assert!(sources.have_changed());
        let sources = sources.as_they_are();
        fs::remove_file(&file).unwrap();
        assert!(sources.have_changed());
    }

    #[test]
    fn a_fingerprint_is_of_everything_but_the_routing() {
        let of = |text: &str| fingerprint(&serde_json::from_str(text).unwrap(), &[], None);
        let before = of(r#"{"name": "a", "timeout": "5s"}"#);
        assert_eq!(before, of(r#"{"timeout": "5s", "name": "a", "when": {"test": "only"}}"#));
        assert_ne!(before, of(r#"{"name": "a", "timeout": "6s"}"#));
    }
}
