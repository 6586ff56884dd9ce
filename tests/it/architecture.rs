//! Who may use whom, and the other rules of the house that a machine can check.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who may use whom. What is not in a row is not to be used; everybody may use itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("ids", &[]),
    ("logging", &[]),
    ("metrics", &[]),
    ("secret", &[]),
    ("shutdown", &[]),
    ("http_client", &["metrics", "secret"]),
    ("http_server", &["clock", "metrics", "secret", "shutdown"]),
    ("slack", &["clock", "http_client", "ids", "metrics", "secret"]),
    ("code_defender", &["ids", "slack"]),
    ("alert", &["code_defender", "ids", "slack"]),
    ("store", &["clock", "ids", "metrics"]),
    ("destination", &["alert", "clock", "http_client", "ids", "metrics", "secret"]),
    (
        "intake",
        &["clock", "code_defender", "ids", "metrics", "secret", "shutdown", "slack", "store"],
    ),
    (
        "delivery",
        &[
            "alert",
            "clock",
            "code_defender",
            "destination",
            "ids",
            "metrics",
            "shutdown",
            "slack",
            "store",
        ],
    ),
    (
        "ops",
        &[
            "alert",
            "clock",
            "code_defender",
            "http_server",
            "ids",
            "metrics",
            "secret",
            "shutdown",
            "slack",
            "store",
        ],
    ),
    (
        "config",
        &[
            "clock",
            "code_defender",
            "destination",
            "http_client",
            "ids",
            "intake",
            "secret",
            "store",
        ],
    ),
    (
        "cli",
        &[
            "alert",
            "clock",
            "code_defender",
            "config",
            "delivery",
            "destination",
            "http_client",
            "http_server",
            "ids",
            "intake",
            "metrics",
            "ops",
            "secret",
            "shutdown",
            "slack",
            "store",
        ],
    ),
    ("main", &["cli"]),
];

/// Everybody may log, and so needs the text of an error with its causes.
const COMMON: &str = "logging";

/// Decisions: they meet no network, no disk and no runtime.
const PURE: &[&str] = &[
    "slack/signature.rs",
    "slack/envelope.rs",
    "slack/message.rs",
    "slack/mrkdwn.rs",
    "slack/lenient.rs",
    "code_defender/",
    "alert/",
    "intake/routing.rs",
    "destination/template.rs",
    "delivery/backoff.rs",
    "delivery/breaker.rs",
    "delivery/outcome.rs",
];

const IMPURE: &[&str] = &["tokio", "axum", "reqwest", "rusqlite", "hyper"];

const MAX_LINES: usize = 400;
const MAX_COLUMNS: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Where a file's tests begin.
fn tests_begin(source: &str) -> Option<usize> {
    let begins = |mark: &str| source.find(&format!("#[cfg(test)]\n{mark}"));
    begins("mod tests {").or_else(|| begins("#[expect"))
}

/// The code without comments, texts and everything behind the first `#[cfg(test)]` module.
fn code(source: &str) -> String {
    let source = tests_begin(source).map_or(source, |end| &source[..end]);
    let mut code = String::new();
    let mut rest = source;
    while let Some(character) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if character == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|other: char| {
                let ends = other == '"' && !escaped;
                escaped = other == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            code.push(character);
            character.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// The modules that the code names: `crate::x`, and each branch of `crate::{x, y::z}`.
fn used(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if !rest.starts_with('{') {
            modules.push(word(rest));
            continue;
        }
        let mut depth = 0_usize;
        let mut expects_name = false;
        for (index, character) in rest.char_indices() {
            match character {
                '{' => {
                    depth += 1;
                    expects_name = depth == 1;
                }
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' => expects_name = depth == 1,
                other if other.is_whitespace() => {}
                _ if expects_name => {
                    modules.push(word(&rest[index..]));
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    modules
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// A module that only tests have.
fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.ends_with("contract.rs")
}

/// What is wrong with one file of `src`.
fn faults(name: &str, source: &str) -> Vec<String> {
    let inner = name.strip_prefix("src/").unwrap();
    let module = inner.split('/').next().unwrap().trim_end_matches(".rs");
    let code = code(source);
    let mut faults = Vec::new();
    let allowed = MAY_USE.iter().find(|(known, _)| *known == module).map(|(_, uses)| *uses);
    match allowed {
        None if module == "lib" => {}
        None => faults.push(format!("{name}: module {module} is not in the table")),
        Some(allowed) => {
            for other in used(&code) {
                let fine = other == module || other == COMMON || allowed.contains(&other.as_str());
                if !fine {
                    faults.push(format!("{name}: {module} may not use {other}"));
                }
            }
        }
    }
    if PURE.iter().any(|pure| inner.starts_with(pure)) {
        for library in IMPURE {
            if code.contains(&format!("{library}::")) {
                faults.push(format!("{name}: is pure, and names {library}"));
            }
        }
    }
    for forbidden in ["super::super", "pub use crate::"] {
        if code.contains(forbidden) {
            faults.push(format!("{name}: {forbidden}"));
        }
    }
    if code.contains("std::env::") && !["config", "cli"].contains(&module) {
        faults.push(format!("{name}: only config and cli read the environment"));
    }
    faults
}

#[test]
fn every_module_uses_only_what_it_may() {
    let faults: Vec<String> = sources("src")
        .iter()
        .filter(|(name, _)| !is_test(name))
        .flat_map(|(name, source)| faults(name, source))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_forbidden_use_is_found_wherever_it_hides() {
    let report = |source| faults("src/store/sqlite.rs", source);
    assert_eq!(report("use crate::{clock::Clock, ids::{AppName, ChannelId}};").len(), 0);
    assert_eq!(report("use crate::{clock::Clock, delivery::{worker, backoff}};").len(), 1);
    assert_eq!(report("fn f() { crate::intake::g() }").len(), 1);
    assert_eq!(
        report("// crate::intake\nconst A: &str = \"crate::ops \\\" crate::cli\";").len(),
        0
    );
    assert_eq!(report("use super::super::x;").len(), 1);
    assert_eq!(report("pub use crate::clock::Clock;").len(), 1);
    assert_eq!(report("fn f() { std::env::var(\"A\") }").len(), 1);
    assert_eq!(report("#[cfg(test)]\nmod tests {\n use crate::cli; }").len(), 0);
    assert_eq!(faults("src/alert/mapping.rs", "use tokio::sync::Notify;").len(), 1);
    assert_eq!(faults("src/helpers.rs", "").len(), 1);
}

#[test]
fn files_and_lines_have_a_limit() {
    for (name, source) in sources("src") {
        let end = tests_begin(&source).unwrap_or(source.len());
        let lines = source[..end].lines().count();
        assert!(is_test(&name) || lines <= MAX_LINES, "{name} has {lines} lines");
    }
    for folder in ["src", "tests", "benches"] {
        for (name, source) in sources(folder) {
            for (number, line) in (1..).zip(source.lines()) {
                let is_url = line.contains("://") || line.contains("r#\"");
                let columns = line.chars().count();
                assert!(is_url || columns <= MAX_COLUMNS, "{name}:{number}: {columns} columns");
            }
        }
    }
}

#[test]
fn tests_wait_for_what_happens_and_are_never_left_out() {
    for (name, source) in sources("tests") {
        for forbidden in
            [concat!("time::", "sleep"), concat!("thread::", "sleep"), concat!("#[", "ignore")]
        {
            assert!(!source.contains(forbidden), "{name}: {forbidden}");
        }
    }
}
