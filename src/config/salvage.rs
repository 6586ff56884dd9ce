//! Reads as much of a file as can be read, for commands that must work while it has a mistake.
//!
//! Nothing is started with the result: `serve` and a reload take a file that is right, or none.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::{
    Config, MAX_FILE_BYTES, Problem, interpret,
    mend::Spoilt,
    tree::{self, Positions},
};
use crate::code_defender::settings::MatchSettings;

/// Lines that are left out of a section, one after the other, until the rest of it is YAML.
const MAX_LEFT_OUT: usize = 20;

/// Values that commands for operators need, with patterns that find them in a text that is not
/// YAML: JSON pointer of the section, key, pattern.
const NEEDED: [(&str, &str, &str); 3] = [
    ("/server", "ops_listen", r#"\bops_listen["']?\s*:\s*["']?(?P<text>[0-9A-Fa-f.:\[\]]+)"#),
    ("/server", "listen", r#"(?:^|[\s{,"'])listen["']?\s*:\s*["']?(?P<text>[0-9A-Fa-f.:\[\]]+)"#),
    (
        "/server",
        "ops_token",
        concat!(
            r#"\bops_token["']?\s*:\s*\{?\s*"#,
            r#"["']?(?P<kind>env|file)["']?\s*:\s*["']?(?P<text>[^\s"',}]+)"#
        ),
    ),
];

/// A file, read as far as possible.
#[derive(Debug)]
pub struct Salvaged {
    /// What could be read; defaults and gaps stand for the rest.
    pub config: Config,
    /// Everything that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// What is odd and stops nothing.
    pub warnings: Vec<Problem>,
    /// Whether the file names a database as its store, readable or not.
    pub names_a_database: bool,
    unread: Spoilt,
}

impl Salvaged {
    /// Returns whether `config` has what the file says at this JSON pointer, or the default if the
    /// file says nothing there.
    pub fn has_read(&self, pointer: &str) -> bool {
        !self.unread.has(pointer)
    }

    /// Returns the problem at this JSON pointer, else the first one of the file.
    pub fn problem_of(&self, pointer: &str) -> Option<&Problem> {
        let own = self.problems.iter().find(|problem| problem.is_at(pointer));
        own.or_else(|| self.problems.first())
    }
}

/// Reads a file as far as possible. `env` looks up an environment variable.
pub fn salvage(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Salvaged {
    let (text, unreadable) = match super::read(path) {
        Ok(text) => (Some(text), None),
        Err(problem) => (lossy(path), Some(problem)),
    };
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    let mut salvaged = salvage_text(text.as_deref().unwrap_or_default(), dir, env);
    if text.is_none() {
        salvaged.problems.clear();
        salvaged.unread.add("/store");
    }
    salvaged.problems.splice(0..0, unreadable);
    salvaged
}

/// The text of a file that has bytes which are not text.
fn lossy(path: &Path) -> Option<String> {
    let is_small = std::fs::metadata(path).is_ok_and(|file| file.len() <= MAX_FILE_BYTES);
    let bytes = is_small.then(|| std::fs::read(path).ok()).flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn salvage_text(text: &str, dir: &Path, env: &dyn Fn(&str) -> Option<String>) -> Salvaged {
    let (value, positions, fault) = match tree::read(text) {
        Ok((value, positions)) => (value, positions, None),
        Err(fault) => (sections_of(text), Positions::default(), Some(fault)),
    };
    let mut found = interpret(&value, positions, dir, env, &[]);
    if found.config.matching.titles.is_empty() {
        found.config.matching = MatchSettings::default();
    }
    let mut unread = found.spoilt;
    if fault.is_some() && value.pointer("/store/sqlite/path").is_none() && names(text, "path") {
        unread.add("/store/sqlite/path");
    }
    Salvaged {
        names_a_database: value.pointer("/store/postgres").is_some()
            || (fault.is_some() && names(text, "postgres")),
        config: found.config,
        // A file that is not YAML has that one problem: what is missing of it follows from that.
        problems: fault.map_or(found.problems, |fault| vec![fault]),
        warnings: found.warnings,
        unread,
    }
}

/// Returns whether a line that is not a comment has this key.
fn names(text: &str, key: &str) -> bool {
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

/// Reads each section of a text by itself, so that a mistake in one leaves the others whole, and
/// looks for what is needed most even where its section cannot be read.
fn sections_of(text: &str) -> Value {
    let mut file = Map::new();
    for section in split(text) {
        let Some(Value::Object(keys)) = read_most(section) else { continue };
        for (key, value) in keys {
            match (file.get_mut(&key), value) {
                // A section that stands there twice.
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
    for (section, key, pattern) in NEEDED {
        if file.pointer(&format!("{section}/{key}")).is_none()
            && let Some(value) = search(&uncommented, pattern)
        {
            put(&mut file, section, key, value);
        }
    }
    file
}

/// The parts of a text that begin with a key at the very left.
fn split(text: &str) -> Vec<&str> {
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

/// Reads a section without the lines that are in the way; `None` if they are too many.
fn read_most(section: &str) -> Option<Value> {
    let mut lines: Vec<&str> = section.lines().collect();
    for _ in 0..MAX_LEFT_OUT {
        let fault = match tree::read(&lines.join("\n")) {
            Ok((value, _)) => return Some(value),
            Err(fault) => fault,
        };
        let (line, _) = fault.position?;
        let at = usize::try_from(line).ok()?.checked_sub(1)?;
        let line = lines.get_mut(at).filter(|line| !line.is_empty())?;
        *line = "";
    }
    None
}

fn search(text: &str, pattern: &str) -> Option<Value> {
    let found = Regex::new(pattern).ok()?.captures(text)?;
    let text = found.name("text")?.as_str();
    Some(match found.name("kind") {
        Some(kind) => json!({ kind.as_str(): text }),
        None => json!(text),
    })
}

fn put(file: &mut Value, section: &str, key: &str, value: Value) {
    let Some(file) = file.as_object_mut() else { return };
    let section = file.entry(section.trim_start_matches('/')).or_insert_with(|| json!({}));
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
    fn whatever_is_wrong_elsewhere_the_relay_and_its_store_are_found() {
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
            ("a mark of a merge", GOOD.replace("slack:\n", "<<<<<<< HEAD\nslack:\n")),
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
    fn a_store_that_cannot_be_read_is_not_taken_for_the_usual_one() {
        let unread = GOOD.replace("  sqlite: {path: alerts.db}", "  sqlite: {path: alerts.db");
        assert!(!salvaged(&unread).has_read("/store/sqlite/path"));
        let wrong = GOOD.replace("alerts.db", "[alerts.db]");
        assert!(!salvaged(&wrong).has_read("/store/sqlite/path"));
        let database = GOOD.replace("sqlite: {path: alerts.db}", "postgres: {url: {env: U}}");
        assert!(salvaged(&database).names_a_database);
        assert!(salvaged(&format!("{database}\tx")).names_a_database);
    }
}
