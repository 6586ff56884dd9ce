//! Reads as much of a configuration file as possible, for commands that must work although the file
//! has a mistake.
//!
//! The result is never used to start a relay: `serve` and a reload need a file without problems.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::{
    checked::Config,
    load::{MAX_FILE_BYTES, folder_of, interpret, read_text},
    problem::Problem,
    recover::Discarded,
    tree::{self, Positions},
};
use crate::code_defender::settings::MatchSettings;

/// Maximum number of lines that are removed from a section to make the rest valid YAML.
const MAX_REMOVED_LINES: usize = 20;

/// Keys of the section `server` that commands for operators need, each with a pattern that finds
/// its value in a text that is not valid YAML.
const SERVER_PATTERNS: [(&str, &str); 3] = [
    ("ops_listen", r#"\bops_listen["']?\s*:\s*["']?(?P<text>[0-9A-Fa-f.:\[\]]+)"#),
    ("listen", r#"(?:^|[\s{,"'])listen["']?\s*:\s*["']?(?P<text>[0-9A-Fa-f.:\[\]]+)"#),
    (
        "ops_token",
        concat!(
            r#"\bops_token["']?\s*:\s*\{?\s*"#,
            r#"["']?(?P<kind>env|file)["']?\s*:\s*["']?(?P<text>[^\s"',}]+)"#
        ),
    ),
];

/// The readable part of a configuration file.
#[derive(Debug)]
pub struct Salvaged {
    /// The values that could be read. The others are missing or have their defaults.
    pub config: Config,
    /// Everything that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// Values that are valid and probably a mistake or a risk.
    pub warnings: Vec<Problem>,
    /// `true` if the file configures a database as its store, in a readable section or not.
    pub names_a_database: bool,
    unread: Discarded,
}

impl Salvaged {
    /// Returns whether the value of `config` at this JSON pointer is the file's own, or the default
    /// of a key that the file does not have.
    pub fn has_read(&self, pointer: &str) -> bool {
        !self.unread.has(pointer)
    }

    /// Returns the problem at this JSON pointer, or else the first problem of the file.
    pub fn problem_of(&self, pointer: &str) -> Option<&Problem> {
        let own = self.problems.iter().find(|problem| problem.is_at(pointer));
        own.or_else(|| self.problems.first())
    }
}

/// Reads a configuration file as far as possible. `env` looks up an environment variable.
pub fn salvage(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Salvaged {
    let (text, unreadable) = match read_text(path) {
        Ok(text) => (Some(text), None),
        Err(problem) => (read_lossy(path), Some(problem)),
    };
    let text_or_empty = text.as_deref().unwrap_or_default();
    let mut salvaged = salvage_text(text_or_empty, folder_of(path), env);
    if text.is_none() {
        // Everything that an empty text lacks follows from the unreadable file.
        salvaged.problems.clear();
        salvaged.unread.add("/store");
    }
    salvaged.problems.splice(0..0, unreadable);
    salvaged
}

/// Returns the text of a small file, with U+FFFD for bytes that are not UTF-8.
fn read_lossy(path: &Path) -> Option<String> {
    let is_small = std::fs::metadata(path).is_ok_and(|file| file.len() <= MAX_FILE_BYTES);
    let bytes = is_small.then(|| std::fs::read(path).ok()).flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn salvage_text(text: &str, dir: &Path, env: &dyn Fn(&str) -> Option<String>) -> Salvaged {
    let (value, positions, syntax_error) = match tree::read(text) {
        Ok((value, positions)) => (value, positions, None),
        Err(problem) => (sections_of(text), Positions::default(), Some(problem)),
    };
    let mut resolved = interpret(&value, positions, dir, env, &[]);
    if resolved.config.matching.titles.is_empty() {
        resolved.config.matching = MatchSettings::default();
    }
    let mut unread = resolved.discarded;
    let is_yaml = syntax_error.is_none();
    // The file has a path somewhere that was not read: the default is not taken for it.
    if !is_yaml && value.pointer("/store/sqlite/path").is_none() && has_key(text, "path") {
        unread.add("/store/sqlite/path");
    }
    Salvaged {
        names_a_database: value.pointer("/store/postgres").is_some()
            || (!is_yaml && has_key(text, "postgres")),
        config: resolved.config,
        // In a file that is not valid YAML, missing values follow from the syntax error.
        problems: syntax_error.map_or(resolved.problems, |problem| vec![problem]),
        warnings: resolved.warnings,
        unread,
    }
}

/// Returns whether a line that is not a comment has this key.
fn has_key(text: &str, key: &str) -> bool {
    let is_key = |rest: &str| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':');
    text.lines().filter(|line| !line.trim_start().starts_with('#')).any(|line| {
        line.match_indices(key).any(|(at, _)| {
            let before = line.get(..at);
            let rest = line.get(at + key.len()..);
            let begins = before.is_none_or(|before| {
                before.chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_')
            });
            begins && rest.is_some_and(is_key)
        })
    })
}

/// Reads each section of a text by itself, so that a mistake in one does not affect the others.
/// Searches for the keys of [`SERVER_PATTERNS`] even if their section cannot be read.
fn sections_of(text: &str) -> Value {
    let mut file = Map::new();
    for section in split_sections(text) {
        let Some(Value::Object(keys)) = read_section(section) else { continue };
        for (key, value) in keys {
            match (file.get_mut(&key), value) {
                // A duplicate section: the first value of each key counts.
                (Some(Value::Object(first)), Value::Object(second)) => {
                    second.into_iter().for_each(|(key, value)| {
                        first.entry(key).or_insert(value);
                    });
                }
                (Some(_first), _second) => {}
                (None, value) => {
                    file.insert(key, value);
                }
            }
        }
    }
    let mut file = Value::Object(file);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let uncommented: String = lines.flat_map(|line| [line, "\n"]).collect();
    for (key, pattern) in SERVER_PATTERNS {
        if file.pointer(&format!("/server/{key}")).is_none()
            && let Some(value) = search(&uncommented, pattern)
        {
            insert_into_server(&mut file, key, value);
        }
    }
    file
}

/// Splits a text at each line that begins with a key in the first column.
fn split_sections(text: &str) -> Vec<&str> {
    let is_start = |line: &str| line.starts_with(|c: char| c.is_alphabetic() || "\"'".contains(c));
    let mut starts = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_start(line) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| text.get(*start..end)).collect()
}

/// Reads a section without the lines at which the parser stops; `None` if there are too many.
fn read_section(section: &str) -> Option<Value> {
    let mut lines: Vec<&str> = section.lines().collect();
    for _ in 0..MAX_REMOVED_LINES {
        let problem = match tree::read(&lines.join("\n")) {
            Ok((value, _)) => return Some(value),
            Err(problem) => problem,
        };
        let (line, _) = problem.position?;
        let at = usize::try_from(line).ok()?.checked_sub(1)?;
        let line = lines.get_mut(at).filter(|line| !line.is_empty())?;
        *line = "";
    }
    None
}

/// Returns the value that a pattern finds: a text, or a reference to a secret.
fn search(text: &str, pattern: &str) -> Option<Value> {
    let found = Regex::new(pattern).ok()?.captures(text)?;
    let text = found.name("text")?.as_str();
    Some(match found.name("kind") {
        Some(kind) => json!({ kind.as_str(): text }),
        None => json!(text),
    })
}

fn insert_into_server(file: &mut Value, key: &str, value: Value) {
    let Some(file) = file.as_object_mut() else { return };
    let section = file.entry("server").or_insert_with(|| json!({}));
    if !section.is_object() {
        *section = json!({});
    }
    if let Some(keys) = section.as_object_mut() {
        keys.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn salvaged(text: &str) -> Salvaged {
        salvage_text(text, Path::new(""), &|name| (name == "T").then(|| "token".to_owned()))
    }

    const GOOD: &str = "\
server:
  listen: 127.0.0.1:8181
  ops_listen: 127.0.0.1:9191
  ops_token: {env: T}
slack:
  apps:
    - name: main
      signing_secret: {env: T}
store:
  sqlite: {path: alerts.db}
destinations: []
";

    #[test]
    fn a_mistake_elsewhere_does_not_hide_the_relay_and_its_store() {
        for (what, broken) in [
            ("an unknown key", GOOD.replace("destinations:", "destinatoins:")),
            (
                "a secret that is not set",
                GOOD.replace("signing_secret: {env: T}", "signing_secret: {env: U}"),
            ),
            ("a tab", GOOD.replace("    - name", "\t- name")),
            ("a brace that stays open", GOOD.replace("destinations: []", "destinations: [{a: b")),
            (
                "a brace in the middle",
                GOOD.replace("signing_secret: {env: T}", "signing_secret: {env: T"),
            ),
            ("a section written twice", format!("{GOOD}slack:\n  proxy: x\n")),
            (
                "a key written twice",
                GOOD.replace("  listen", "  ops_listen: 127.0.0.1:9191\n  listen"),
            ),
            ("a quote that stays open", GOOD.replace("name: main", "name: \"main")),
            ("a wrong indentation", GOOD.replace("      signing_secret", "     signing_secret")),
            ("a merge conflict marker", GOOD.replace("slack:\n", "<<<<<<< HEAD\nslack:\n")),
            ("a list in place of a section", GOOD.replace("store:\n", "match: []\nstore:\n")),
            ("a nameless line", GOOD.replace("destinations: []", "nonsense")),
        ] {
            let found = salvaged(&broken);
            assert!(!found.problems.is_empty(), "{what}");
            let server = &found.config.server;
            assert_eq!(server.ops_listen.to_string(), "127.0.0.1:9191", "{what}");
            assert_eq!(server.listen.to_string(), "127.0.0.1:8181", "{what}");
            assert!(server.ops_token.is_some(), "{what}");
            assert_eq!(found.config.store.path, Path::new("alerts.db"), "{what}");
            assert!(found.has_read("/store/sqlite/path") && !found.names_a_database, "{what}");
        }
    }

    #[test]
    fn the_addresses_and_the_token_are_found_even_in_a_section_that_is_not_yaml() {
        for server in [
            "server: {listen: 127.0.0.1:8181, ops_listen: \"127.0.0.1:9191\",\n\
             ops_token: {env: T}\n",
            "server:\n\tlisten: 127.0.0.1:8181\n\tops_listen: '127.0.0.1:9191'\n\
             \tops_token:\n\t\tenv: T\n",
            "{\"server\": {\"listen\": \"127.0.0.1:8181\", \"ops_listen\": \"127.0.0.1:9191\",\n\
             \"ops_token\": {\"env\": \"T\"},,\n",
        ] {
            let commented = "# ops_listen: 127.0.0.1:1\n  # ops_token: {env: U}\n";
            let rest = "slack: {apps: [{name: main, signing_secret: {env: T}}]}\n";
            let found = salvaged(&format!("{commented}{server}{rest}"));
            let server = &found.config.server;
            assert_eq!(server.ops_listen.to_string(), "127.0.0.1:9191");
            assert_eq!(server.listen.to_string(), "127.0.0.1:8181");
            assert!(server.ops_token.is_some());
        }
    }

    #[test]
    fn an_unreadable_store_section_is_not_replaced_by_the_default() {
        let unread = GOOD.replace("  sqlite: {path: alerts.db}", "  sqlite: {path: alerts.db");
        assert!(!salvaged(&unread).has_read("/store/sqlite/path"));
        let wrong = GOOD.replace("alerts.db", "[alerts.db]");
        assert!(!salvaged(&wrong).has_read("/store/sqlite/path"));
        let database = GOOD.replace("sqlite: {path: alerts.db}", "postgres: {url: {env: U}}");
        assert!(salvaged(&database).names_a_database);
        assert!(salvaged(&format!("{database}\tx")).names_a_database);
    }
}
