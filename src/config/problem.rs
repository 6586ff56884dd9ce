//! What is wrong with a configuration, for the person who can mend it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::tree::Position;

/// One thing that is wrong, or odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column in the file, from 1, if it has a place there.
    pub position: Option<Position>,
    /// The key, such as `destinations[0].timeout`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// Whether the file is right, and only a variable is not set in this environment.
    pub is_of_environment: bool,
}

impl Problem {
    pub(super) fn new(position: Option<Position>, pointer: &str, message: &str) -> Self {
        // A problem is one line, whatever a parser says.
        let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        Self { position, path: path_of(pointer), message, hint: None, is_of_environment: false }
    }

    /// Whether it is about the value at that JSON pointer.
    pub(super) fn is_at(&self, pointer: &str) -> bool {
        self.path == path_of(pointer)
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Problem {
    /// As it is displayed, behind the name of the file, as compilers and editors write it.
    pub fn in_file(&self, file: &Path) -> String {
        let gap = if self.position.is_some() { "" } else { " " };
        format!("{}:{gap}{self}", file.display())
    }
}

/// `/destinations/0/timeout` as `destinations[0].timeout`.
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

/// Everything that is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub struct Problems {
    /// The file.
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
