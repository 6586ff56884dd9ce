//! Reasons why a preset cannot be used, in words for the person who can change it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::builtin;
use crate::text;

/// Reason why a preset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// A preset with that name does not exist.
    #[error(
        "there is no preset `{name}`; built in are {}{}",
        builtin::names().collect::<Vec<_>>().join(", "),
        Beside(dir)
    )]
    Unknown {
        /// Name that was asked for.
        name: String,
        /// Folder that was searched.
        dir: Option<PathBuf>,
    },
    /// An operator's preset has the name of a built-in one.
    #[error(
        "{} has the name of a built-in preset: rename the file and the preset in it",
        _0.display()
    )]
    Shadows(PathBuf),
    /// The file cannot be read.
    #[error("cannot read the preset {}", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// The file is not a valid preset.
    #[error("{file}{}: {problem}", Line(*line))]
    Invalid {
        /// Path of the file.
        file: String,
        /// Line in the file, from 1, if known.
        line: Option<u64>,
        /// Description of the mistake, and advice.
        problem: String,
    },
}

impl PresetError {
    /// Returns the name of the preset that is closest to an unknown name.
    pub fn suggestion(&self) -> Option<String> {
        let Self::Unknown { name, dir } = self else { return None };
        let own: Vec<String> = dir.iter().flat_map(|dir| own_names(dir)).collect();
        let mut known: Vec<&str> = builtin::names().collect();
        known.extend(own.iter().map(String::as_str));
        text::nearest(name, known).map(str::to_owned)
    }
}

/// Returns the names of the presets in a folder.
fn own_names(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_preset = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml");
    let name = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    files.filter(is_preset).filter_map(name).collect()
}

struct Beside<'a>(&'a Option<PathBuf>);

impl fmt::Display for Beside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(dir) => write!(f, ", others are looked for in {}", dir.display()),
            None => f.write_str(", and no presets_dir is set"),
        }
    }
}

struct Line(Option<u64>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}
