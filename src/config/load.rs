//! Loads a configuration: reads the file, validates it, and resolves the settings.

use std::{io, path::Path};

use serde_json::Value;

use super::{
    checked::Config,
    problem::{Problem, Problems},
    recover::{self, Recovered},
    resolve::{self, FileContext, Resolved},
    schema,
    sources::Sources,
    tree::{self, Positions},
};
use crate::{secret::Secret, text};

/// Maximum size of a configuration file. A larger file is something else, given by mistake.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A configuration, with warnings that do not keep the relay from starting.
#[derive(Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Values that are valid and probably a mistake or a risk.
    pub warnings: Vec<Problem>,
    /// The files that the configuration was read from.
    pub sources: Sources,
}

/// Loads a configuration file. `env` looks up an environment variable.
///
/// # Errors
/// [`Problems`]: everything that is wrong with the file.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    load_again(path, env, &[])
}

/// Loads a configuration file while an earlier version of the file is in use. A secret file that is
/// among `known` is refreshed and stays the same [`Secret`].
///
/// # Errors
/// [`Problems`]: everything that is wrong with the file.
pub fn load_again(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    known: &[Secret],
) -> Result<Loaded, Problems> {
    let fail = |list| Problems { file: path.to_owned(), list };
    let text = read_text(path).map_err(|problem| fail(vec![problem]))?;
    let mut loaded = parse_with(&text, folder_of(path), env, known).map_err(fail)?;
    // The file itself is watched for changes like the files that it names.
    let Sources { mut files, presets_dir, .. } = loaded.sources;
    files.push(path.to_owned());
    loaded.sources = Sources::new(files, presets_dir);
    Ok(loaded)
}

/// Checks the text of a configuration file in the folder `dir`. `env` looks up an environment
/// variable.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse(
    text: &str,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Vec<Problem>> {
    parse_with(text, dir, env, &[])
}

fn parse_with(
    text: &str,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    known: &[Secret],
) -> Result<Loaded, Vec<Problem>> {
    let (value, positions) = tree::read(text).map_err(|problem| vec![problem])?;
    let Resolved { config, problems, warnings, sources, .. } =
        interpret(&value, positions, dir, env, known);
    if problems.is_empty() { Ok(Loaded { config, warnings, sources }) } else { Err(problems) }
}

/// Validates the tree of a file against the schema, and resolves every setting that can be read.
pub(super) fn interpret(
    value: &Value,
    positions: Positions,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    known: &[Secret],
) -> Resolved {
    let violations = schema::validate(value, &positions);
    let Recovered { file, problems, discarded } =
        recover::read(value.clone(), violations, &positions);
    let context = FileContext { dir, env, known, positions, value, discarded };
    resolve::resolve(file, context, problems)
}

/// Returns the folder that relative paths in a configuration file are relative to.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

/// Reads the text of a configuration file.
///
/// # Errors
/// The problem of the file as a whole: it is missing, unreadable, too large or not UTF-8.
pub(super) fn read_text(path: &Path) -> Result<String, Problem> {
    let whole = |message: String| Problem::new(None, "", &message);
    let unreadable = |error: &io::Error| whole(format!("cannot be read: {error}"));
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = "name the file with --config, or create one: slack-soar-relay setup";
            return Err(unreadable(&error).hint(hint));
        }
        Err(error) => return Err(unreadable(&error)),
    };
    // Asked for before reading: a large file given by mistake is not loaded into memory.
    if size > MAX_FILE_BYTES {
        let message = format!("is larger than {MAX_FILE_BYTES} bytes: not a configuration");
        return Err(whole(message));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
    text::decode(bytes).map_err(|error| {
        let problem = Problem::new(Some(error.position), "", &error.to_string());
        problem.hint("save the file as UTF-8")
    })
}
