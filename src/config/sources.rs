//! The files that a configuration is read from: detects changes, and computes a digest of each
//! destination's settings, by which a reload decides what keeps running.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 digest of settings and of the files that belong to them.
pub type Fingerprint = [u8; 32];

/// The files that a configuration was read from, with a digest of their contents. Secret files are
/// not included: they are refreshed without a reload.
#[derive(Clone, Debug)]
pub struct Sources {
    pub(super) files: Vec<PathBuf>,
    pub(super) presets_dir: Option<PathBuf>,
    digest: Fingerprint,
}

impl Sources {
    /// Reads the files and the presets in the folder, and stores their digest.
    pub(super) fn new(files: Vec<PathBuf>, presets_dir: Option<PathBuf>) -> Self {
        let digest = digest(&files, presets_dir.as_deref());
        Self { files, presets_dir, digest }
    }

    /// Returns whether a file has changed, or a preset was added to the folder or removed from it.
    pub fn have_changed(&self) -> bool {
        // Compares contents, since Kubernetes replaces files by switching a symbolic link.
        digest(&self.files, self.presets_dir.as_deref()) != self.digest
    }

    /// Returns the same files with the digest of their contents now.
    #[must_use]
    pub fn refreshed(&self) -> Self {
        Self::new(self.files.clone(), self.presets_dir.clone())
    }
}

/// Computes the fingerprint of a section: its keys except `when`, which matters only when alerts
/// are accepted, and the contents of the files that it names.
pub(super) fn fingerprint(
    section: &Value,
    files: &[&Path],
    presets_dir: Option<&Path>,
) -> Fingerprint {
    let mut hash = Sha256::new();
    for (key, value) in section.as_object().into_iter().flatten() {
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

/// Adds bytes, prefixed with their length so that different sequences never hash alike.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update([1]);
    hash.update(bytes.len().to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_added_and_removed_files_are_detected() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.yaml");
        let presets = dir.path().join("presets");
        fs::create_dir(&presets).unwrap();
        fs::write(&file, "a").unwrap();
        let sources = Sources::new(vec![file.clone()], Some(presets.clone()));
        assert!(!sources.have_changed());
        fs::write(presets.join("notes.txt"), "x").unwrap();
        assert!(!sources.have_changed(), "no preset");
        fs::write(presets.join("mine.yaml"), "x").unwrap();
        assert!(sources.have_changed());
        let sources = sources.refreshed();
        fs::write(&file, "b").unwrap();
        assert!(sources.have_changed());
        let sources = sources.refreshed();
        fs::remove_file(&file).unwrap();
        assert!(sources.have_changed());
    }

    #[test]
    fn a_fingerprint_covers_everything_except_when() {
        let of = |text: &str| fingerprint(&serde_json::from_str(text).unwrap(), &[], None);
        let before = of(r#"{"name": "a", "timeout": "5s"}"#);
        assert_eq!(before, of(r#"{"timeout": "5s", "name": "a", "when": {"test": "only"}}"#));
        assert_ne!(before, of(r#"{"name": "a", "timeout": "6s"}"#));
    }
}
