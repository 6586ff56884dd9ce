//! Allowed dependencies between modules, and limits that no lint checks.

use std::collections::BTreeSet;

use crate::source::{Source, is_public, paths};

/// The modules at the top of the crate and what each may use of the others. A new module needs a
/// row here. Everyone may use `logging`; `config` sees only the others' settings.
const MAY_USE: &[(&str, &str)] = &[
    ("clock", ""),
    ("ids", ""),
    ("logging", ""),
    ("metrics", ""),
    ("secret", ""),
    ("shutdown", ""),
    ("text", ""),
    ("trouble", ""),
    ("http_client", "metrics secret"),
    ("http_server", "clock metrics secret shutdown"),
    ("slack", "clock http_client ids metrics secret"),
    ("code_defender", "ids slack"),
    ("alert", "code_defender ids slack"),
    ("store", "clock ids metrics"),
    ("destination", "alert clock http_client ids metrics secret text"),
    ("ground", "clock metrics shutdown store"),
    (
        "intake",
        "clock code_defender ground http_server ids metrics secret shutdown slack store trouble",
    ),
    ("delivery", "alert clock code_defender destination ground ids metrics shutdown slack store"),
    (
        "ops",
        "alert clock code_defender ground http_server ids metrics secret shutdown slack store \
         trouble",
    ),
    ("config", "clock code_defender destination http_client ids intake secret store text"),
    (
        "cli",
        "alert clock code_defender config delivery destination ground http_client http_server \
         ids intake metrics ops secret shutdown slack store trouble",
    ),
    ("lib", ""),
    ("main", "cli"),
];

/// Files and folders that only turn values into values, so they name no crate of [`IMPURE`].
const PURE: &[&str] = &[
    "src/alert/",
    "src/code_defender/",
    "src/delivery/backoff.rs",
    "src/delivery/breaker.rs",
    "src/delivery/outcome.rs",
    "src/destination/preset/template.rs",
    "src/ids.rs",
    "src/intake/catch_up/window.rs",
    "src/intake/routing.rs",
    "src/slack/",
    "src/text.rs",
    "src/trouble.rs",
];

/// The parts of [`PURE`] folders that are not.
const NOT_PURE: &[&str] = &["src/slack/web_api"];

const IMPURE: &[&str] = &["axum", "hyper", "reqwest", "rusqlite", "tokio"];

/// The only modules that read the process's environment.
const READS_ENVIRONMENT: &[&str] = &["cli", "config"];

const LINES_OF_FILE: usize = 450;
const CHARS_OF_LINE: usize = 100;

#[test]
fn every_module_uses_only_what_its_row_allows() {
    assert_none(Source::all_of_src().iter().flat_map(dependencies));
}

#[test]
fn pure_files_name_no_runtime_network_or_database() {
    let sources = Source::all_of_src();
    for place in PURE {
        assert!(sources.iter().any(|s| s.path.starts_with(place)), "no {place}");
    }
    assert_none(sources.iter().flat_map(impurities));
}

#[test]
fn only_config_and_cli_read_the_environment() {
    assert_none(Source::all_of_src().iter().flat_map(environment));
}

#[test]
fn files_and_lines_are_short() {
    let src = Source::all_of_src();
    let others = ["tests", "benches"].into_iter().flat_map(Source::below);
    let lines: Vec<_> = src.iter().flat_map(long_lines).collect();
    let other_lines = others.flat_map(|s| long_lines(&s));
    assert_none(src.iter().flat_map(long_file).chain(lines).chain(other_lines));
}

#[test]
fn no_test_sleeps_or_is_ignored() {
    let units = Source::all_of_src().into_iter().flat_map(|s| lazy_tests(&s.path, &s.tests));
    let integration = Source::below("tests").into_iter().flat_map(|s| {
        let mut found = lazy_tests(&s.path, &s.code);
        found.extend(lazy_tests(&s.path, &s.tests));
        found
    });
    assert_none(units.chain(integration));
}

#[test]
fn the_checks_find_what_they_forbid() {
    let offences = [
        ("src/store/mod.rs", "use crate::slack::message;", "store may not use slack"),
        ("src/store/a.rs", "use crate::{clock::Clock, alert::{Alert}};", "store may not use alert"),
        ("src/store/a.rs", "use crate::{ids as i, alert as a};", "store may not use alert"),
        ("src/ops/a.rs", "fn f(c: crate::config::Config) {}", "ops may not use config"),
        ("src/ops/a.rs", "fn f() { g(&[::slack_soar_relay::cli::X]) }", "ops may not use cli"),
        ("src/clock.rs", "use super::ids::AppName;", "clock may not use ids"),
        ("src/intake/a.rs", "macro_rules! m { () => { $crate::delivery::X } }", "use delivery"),
        ("src/main.rs", "use slack_soar_relay::{cli, store};", "main may not use store"),
        ("src/alert/a.rs", "use crate::*;", "alert may not use *"),
        ("src/alert/a.rs", "use crate::Alert;", "alert may not use Alert"),
        ("src/alert/a.rs", "use super::super::ids;", "super::super"),
        ("src/alert/a.rs", "pub use crate::ids::AppName;", "re-exports"),
        ("src/alert/a.rs", "pub(crate) use crate::ids::AppName;", "re-exports"),
        ("src/queue.rs", "fn f() {}", "no row"),
        ("src/slack/mrkdwn.rs", "use tokio::time;", "names tokio"),
        ("src/alert/mod.rs", "fn f() { ::rusqlite::version() }", "names rusqlite"),
        ("src/store/a.rs", "use std::{env, fs};", "environment"),
        ("src/store/a.rs", "fn f() { std::env::temp_dir(); }", "environment"),
    ];
    for (path, text, expected) in offences {
        let found = offences_of(&Source::parse(path, text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found.iter().all(|f| f.contains(expected)), "{text}: {found:?}");
    }
}

#[test]
fn the_checks_pass_over_comments_strings_and_tests() {
    let text = r##"
        //! Not a path: `crate::cli`.
        use crate::{clock::{Clock, Timestamp}, ids, logging::chain, store::Source};
        pub use self::open::OpenError;
        pub(in crate::store) fn f<'a>() -> &'a str { /* crate::cli */ "crate::cli" }
        const RAW: (&str, char) = (r#"use crate::cli; " "#, '"');
        #[cfg(test)]
        use crate::slack;
        #[cfg(test)]
        mod tests {
            use super::super::*;
            use crate::{alert, cli};
        }
        fn g(e: ::std::io::Error) {}
    "##;
    assert_eq!(offences_of(&Source::parse("src/store/a.rs", text)), BTreeSet::new());
}

#[test]
fn the_limits_count_no_tests() {
    let code = "fn f() {}\n".repeat(LINES_OF_FILE - 1);
    let tests = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n";
    let fits = Source::parse("src/ids.rs", &format!("{code}{tests}fn f() {{}}\n"));
    assert!(long_file(&fits).is_empty());
    let long = Source::parse("src/ids.rs", &format!("{code}{tests}fn f() {{}}\n\n"));
    assert_eq!(long_file(&long), ["src/ids.rs: 451 lines without tests, at most 450"]);
    let wide = Source::parse("src/ids.rs", &format!("\n//{}", "é".repeat(CHARS_OF_LINE - 1)));
    assert_eq!(long_lines(&wide), ["src/ids.rs:2: 101 characters, at most 100"]);
}

#[test]
fn sleeping_and_ignored_tests_are_found() {
    for text in [
        "fn f() { std::thread::sleep(x) }",
        "async fn f() { tokio::time::sleep_until(x).await }",
        "use tokio::{sync, time::{Instant, sleep}};",
        "use std::thread; fn f() { thread::sleep(x) }",
        "#[test] #[ignore] fn f() {}",
        "#[test] #[ignore = \"later\"] fn f() {}",
    ] {
        let found = lazy_tests("tests/it/a.rs", &Source::parse("tests/it/a.rs", text).code);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
    }
    let fine = "#[tokio::test] async fn f() { clock.sleep_until(x).await; let ignore = 1; }";
    assert!(lazy_tests("a.rs", &Source::parse("a.rs", fine).code).is_empty());
}

fn offences_of(source: &Source) -> BTreeSet<String> {
    [dependencies(source), impurities(source), environment(source)].concat().into_iter().collect()
}

fn dependencies(source: &Source) -> Vec<String> {
    let Source { path, code, .. } = source;
    let module = source.module();
    let mut found = BTreeSet::new();
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: `{module}` has no row in MAY_USE")];
    };
    for named in source.paths() {
        let [root, used, ..] = &*named else { continue };
        let (root, used) = (root.as_str(), used.as_str());
        if root == "super" && used == "super" {
            found.insert(format!("{path}: super::super; write crate::"));
        }
        let top = root == "super" && source.is_top() && MAY_USE.iter().any(|(m, _)| *m == used);
        let ours = top || ["crate", "slack_soar_relay"].contains(&root);
        if ours && used != module && used != "logging" && !allowed.split(' ').any(|a| a == used) {
            found.insert(format!("{path}: {module} may not use {used}"));
        }
    }
    for at in 0..code.len() {
        if code[at] == "use" && is_public(&code[..at]) && code[at + 1] != "self" {
            let name: Vec<_> = code[at + 1..].iter().take_while(|t| *t != ";").cloned().collect();
            found.insert(format!("{path}: re-exports {}", name.concat()));
        }
    }
    found.into_iter().collect()
}

fn impurities(source: &Source) -> Vec<String> {
    let path = &source.path;
    let is_at = |places: &[&str]| places.iter().any(|p| path.starts_with(p));
    if !is_at(PURE) || is_at(NOT_PURE) {
        return Vec::new();
    }
    let roots: BTreeSet<_> = source.paths().into_iter().map(|p| p[0].clone()).collect();
    let named = IMPURE.iter().filter(|name| roots.contains(**name));
    named.map(|name| format!("{path}: pure, but names {name}")).collect()
}

fn environment(source: &Source) -> Vec<String> {
    let reads = source.paths().iter().any(|p| p.starts_with(&["std".into(), "env".into()]));
    if reads && !READS_ENVIRONMENT.contains(&source.module()) {
        vec![format!("{}: reads the environment (std::env)", source.path)]
    } else {
        Vec::new()
    }
}

fn long_file(source: &Source) -> Vec<String> {
    let Source { path, lines_without_tests: lines, .. } = source;
    if *lines > LINES_OF_FILE {
        vec![format!("{path}: {lines} lines without tests, at most {LINES_OF_FILE}")]
    } else {
        Vec::new()
    }
}

fn long_lines(source: &Source) -> Vec<String> {
    // An address and a raw string cannot be broken.
    let breakable = |line: &str| !line.contains("://") && !line.contains("r#\"");
    let lines = source.lines.iter().zip(1..).filter(|(line, _)| breakable(line));
    lines
        .map(|(line, at)| (line.chars().count(), at))
        .filter(|(chars, _)| *chars > CHARS_OF_LINE)
        .map(|(chars, at)| {
            format!("{}:{at}: {chars} characters, at most {CHARS_OF_LINE}", source.path)
        })
        .collect()
}

fn lazy_tests(path: &str, tokens: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let sleeps = |named: &Vec<String>| match &**named {
        [.., place, name] => {
            ["thread", "time"].contains(&&**place) && ["sleep", "sleep_until"].contains(&&**name)
        }
        _ => false,
    };
    if paths(tokens).iter().any(sleeps) {
        found.push(format!("{path}: a test sleeps; wait for the event, or move the clock"));
    }
    if tokens.windows(3).any(|t| t == ["#", "[", "ignore"]) {
        found.push(format!("{path}: an ignored test"));
    }
    found
}

fn assert_none(offences: impl IntoIterator<Item = String>) {
    let offences: Vec<_> = offences.into_iter().collect();
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}
