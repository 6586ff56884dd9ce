//! Problems of a configuration, reported to the person who can correct the file.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Line and column in a file, both from 1.
pub(super) type Position = (u64, u64);

/// One error or warning about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column in the file, both from 1; `None` for a problem of the file as a whole.
    pub position: Option<Position>,
    /// The key, such as `destinations[0].timeout`; empty for the file as a whole.
    pub path: String,
    /// Description of the problem.
    pub message: String,
    /// Correction to make, if one is known.
    pub hint: Option<String>,
    /// `true` if the file is correct and only an environment variable is not set here.
    pub is_of_environment: bool,
}

impl Problem {
    pub(super) fn new(position: Option<Position>, pointer: &str, message: &str) -> Self {
        // A parser's message may have several lines; a problem has one.
        let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        Self { position, path: path_of(pointer), message, hint: None, is_of_environment: false }
    }

    /// Returns whether the problem is about the value at this JSON pointer.
    pub(super) fn is_at(&self, pointer: &str) -> bool {
        self.path == path_of(pointer)
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Returns the problem prefixed with the name of the file, in the form
    /// `file:line:column: key: message` that compilers use and editors recognise.
    pub fn in_file(&self, file: &Path) -> String {
        let gap = if self.position.is_some() { "" } else { " " };
        format!("{}:{gap}{self}", file.display())
    }
}

/// Converts a JSON pointer such as `/destinations/0/timeout` to `destinations[0].timeout`.
fn path_of(pointer: &str) -> String {
    let mut path = String::new();
    for step in pointer.split('/').skip(1) {
        if step.bytes().all(|byte| byte.is_ascii_digit()) {
            path.extend(["[", step, "]"]);
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&step.replace("~1", "/").replace("~0", "~"));
        }
    }
    path
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "{line}:{column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// Everything that is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub struct Problems {
    /// Path of the configuration file.
    pub file: PathBuf,
    /// At least one problem, in the order of the file.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", problem.in_file(&self.file))?;
        }
        Ok(())
    }
}
