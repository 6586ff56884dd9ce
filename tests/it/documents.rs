//! Claims of the documents that a machine can check.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command, sync::LazyLock};

use regex::Regex;
use slack_soar_relay::{
    alert, cli, config,
    destination::{preset::Preset, reference},
    intake, metrics,
    ops::{
        openapi,
        view::{ConcernKind, WaitKind},
    },
    store::State,
    trouble,
};

use crate::{
    conformance::service_account,
    harness::{Setup, http},
    source::{files, root},
};

/// The target of `[text](target)` or of `[label]: target`.
static LINK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)\]\(\s*<?([^()\s>]+)|^ {0,3}\[[^\]\n]+\]:\s+<?([^\s>]+)").unwrap()
});

/// Fenced blocks and code spans: what looks like a link there is none.
static CODE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?ms)^ *```.*?^ *```|`[^`\n]+`").unwrap());

fn documents() -> Vec<(PathBuf, String)> {
    let paths = files("", "md").into_iter().map(|path| root().join(path));
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The relative links of a document, without their fragments.
fn links(text: &str) -> Vec<String> {
    let text = CODE.replace_all(text, "code");
    let targets = LINK.captures_iter(&text).filter_map(|c| c.get(1).or(c.get(2)));
    targets
        .map(|target| target.as_str())
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Returns the code blocks of a language, without the indentation of a list that they are in.
pub(crate) fn code_blocks(text: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let blocks = text.split(&start).skip(1).filter_map(|rest| rest.split("```").next());
    blocks
        .map(|block| {
            let indent = block.len() - block.trim_start_matches(' ').len();
            let lines = block.lines().map(|line| line.get(indent..).unwrap_or_default());
            lines.flat_map(|line| [line, "\n"]).collect()
        })
        .collect()
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut found = 0;
    for (path, text) in documents() {
        for target in links(&text) {
            found += 1;
            let file = path.parent().unwrap().join(&target);
            assert!(file.exists(), "{}: {target}", path.display());
        }
    }
    assert!(found > 5, "only {found} links were found");
}

#[test]
fn links_are_found_in_every_form_but_not_in_code() {
    let text = "[a](a.md) ![b](img/b.png \"title\") [c](c.md#part) [d](#here) [`e`](<e.md>)\n\
                [f](https://example.com/x) [g](mailto:a@example.com) `[h](h.md)`\n\
                ```\n[i](i.md)\n```\n\n[j]: docs/j.md\n";
    assert_eq!(links(text), ["a.md", "img/b.png", "c.md", "e.md", "docs/j.md"]);
}

#[test]
fn every_configuration_in_a_document_loads() {
    let env = |name: &str| {
        let database = "postgresql://relay:secret@db.example.com/relay";
        let is_database = name.starts_with("DATABASE");
        Some(if is_database { database } else { "https://soar.example.com/hook" }.to_owned())
    };
    // Files that only the host of the relay has.
    let file = Regex::new(r"\{file: /[^}]+\}").unwrap();
    let mut loaded = 0;
    for (path, text) in documents() {
        for block in code_blocks(&text, "yaml") {
            if block.starts_with("slack:") || block.contains("\nslack:") {
                let block = file.replace_all(&block, "{env: FILE}");
                let result = config::parse(&block, root(), &env);
                assert!(result.is_ok(), "{}: {:#?}", path.display(), result.err());
                loaded += 1;
            }
        }
    }
    assert!(loaded > 0);
}

#[test]
fn every_command_in_a_document_is_one_that_exists() {
    let mut tried = 0;
    for (path, text) in documents() {
        for block in code_blocks(&text, "sh") {
            for line in block.lines() {
                let line = line.trim_start();
                let Some(arguments) = line
                    .strip_prefix("slack-soar-relay ")
                    .or_else(|| line.split_once(" -- /slack-soar-relay ").map(|(_, rest)| rest))
                else {
                    continue;
                };
                // Up to a comment, or whatever the shell does with the output.
                let arguments = arguments
                    .split_whitespace()
                    .take_while(|word| !["#", ">", "|", "&&", "\\"].contains(word));
                let output = Command::new(env!("CARGO_BIN_EXE_slack-soar-relay"))
                    .args(arguments)
                    .arg("--help")
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}: {line}\n{said}", path.display());
                tried += 1;
            }
        }
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn the_page_of_the_destinations_is_what_the_presets_say() {
    let page = fs::read_to_string(root().join("docs/destinations.md")).unwrap();
    let command = "cargo run --example destinations-page > docs/destinations.md";
    assert!(page == reference::page(), "the page is old; run {command}");
}

#[test]
fn the_sample_configuration_of_every_preset_loads() {
    let env = |name: &str| {
        Some(match name {
            "SOAR_SERVICE_ACCOUNT" => service_account("https://example.com"),
            "SMTP_URL" => "smtp://mail.example.com".to_owned(),
            _ => "https://soar.example.com/hook".to_owned(),
        })
    };
    for name in Preset::builtin_names() {
        let sample = reference::sample(&Preset::load(name, None).unwrap());
        let start = "slack: {apps: [{name: main, signing_secret: {env: S}}]}\ndestinations:\n";
        let loaded = config::parse(&format!("{start}{sample}"), root(), &env);
        assert!(loaded.is_ok(), "{name}: {:#?}", loaded.err());
    }
}

#[test]
fn the_readme_names_the_two_commands_and_the_changelog_this_version() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for command in ["cargo run --release -- demo", "tests/run"] {
        assert!(readme.contains(command), "{command}");
    }
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(changelog.contains(concat!("## ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_image_is_built_with_every_file_that_the_build_reads() {
    let sent = fs::read_to_string(root().join(".dockerignore")).unwrap();
    for file in [".cargo", "Cargo.lock", "Cargo.toml", "build.rs", "src"] {
        assert!(root().join(file).exists(), "{file}");
        assert!(sent.lines().any(|line| line == format!("!{file}")), "{file}");
    }
}

/// `UPDATE_DOCS=1 cargo test documents` writes them.
#[test]
#[expect(clippy::disallowed_methods, reason = "the person who runs the tests asks for it")]
fn the_generated_pages_are_current() {
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    for (page, text) in [
        ("alert.md", alert::reference::reference()),
        ("configuration.md", config::reference()),
        ("metrics.md", metrics::reference()),
        ("cli.md", cli::reference()),
        ("http-api.md", openapi::page()),
    ] {
        let path = root().join("docs").join(page);
        if update {
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, text, "docs/{page} is old: UPDATE_DOCS=1 cargo test documents");
    }
}

/// The methods and paths of the `OpenAPI` document.
fn documented() -> Vec<(String, String)> {
    let document = openapi::document();
    let paths = document["paths"].as_object().unwrap().iter();
    let of_path = |(path, methods): (&String, &serde_json::Value)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    paths.flat_map(of_path).collect()
}

#[tokio::test]
async fn every_documented_path_is_routed() {
    let relay = Setup::default().start().await;
    let headers = [("Host", "127.0.0.1"), ("Content-Type", "application/json")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut tried = 0;
    for (method, path) in documented() {
        let is_public = path == "/healthz" || path.starts_with("/slack");
        let listener = if is_public { relay.relay().public } else { relay.relay().ops };
        let path = path.replace("{app}", "main").replace("{id}", "1").replace("{name}", "soar");
        let answer = http::request(listener, &method, &path, &headers, b"").await;
        assert_ne!(answer.status, 405, "{method} {path}");
        // A path that is routed refuses another method; one that is not is not found.
        let other = http::request(listener, "DELETE", &path, &headers, b"").await;
        assert_eq!(other.status, 405, "{path}");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn every_routed_path_is_documented() {
    let documented: BTreeSet<String> = documented().into_iter().map(|(_, path)| path).collect();
    let route = Regex::new(r#"\.route\(\s*"([^"]+)""#).unwrap();
    let mut found = 0;
    for file in files("src", "rs") {
        let prefix = if file.starts_with("src/ops/api") { "/api/v1" } else { "" };
        let text = fs::read_to_string(root().join(&file)).unwrap();
        for path in route.captures_iter(&text).map(|captures| captures[1].to_owned()) {
            found += 1;
            let path = format!("{prefix}{path}");
            assert!(documented.contains(&path), "{path} is not in src/ops/openapi/operations.rs");
        }
    }
    assert!(found > 20, "{found}");
}

/// `UPDATE_DOCS=1 cargo test documents` writes them.
#[test]
#[expect(clippy::disallowed_methods, reason = "the person who runs the tests asks for it")]
fn the_tables_of_what_goes_wrong_are_current() {
    let path = root().join("docs/operations.md");
    let mut page = fs::read_to_string(&path).unwrap();
    let concerns = ConcernKind::ALL.into_iter().map(ConcernKind::trouble);
    let waits = WaitKind::ALL.into_iter().map(WaitKind::trouble);
    for (name, table) in [
        ("concerns", trouble::table("`status`, `doctor`", concerns)),
        ("waits", trouble::table("`alerts show`", waits)),
        ("outcomes", trouble::outcomes(intake::outcomes())),
    ] {
        let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- end of {name} -->"));
        let (before, rest) = page.split_once(&begin).expect("no place for a table");
        let (found, after) = rest.split_once(&end).expect("no place for a table");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            page = format!("{before}{begin}\n\n{table}\n{end}{after}");
            fs::write(&path, &page).unwrap();
        } else {
            let cure = "is old: UPDATE_DOCS=1 cargo test documents";
            assert_eq!(found.trim(), table.trim(), "docs/operations.md {cure}");
        }
    }
}

#[test]
fn operations_names_every_metric_and_the_data_model_every_table_and_state() {
    let read = |page: &str| fs::read_to_string(root().join("docs").join(page)).unwrap();
    let operations = read("operations.md");
    for metric in metrics::Metric::ALL {
        let name = metric.name().trim_start_matches("slack_soar_relay_");
        assert!(operations.contains(&format!("`{name}")), "{name}");
    }
    let model = read("data-model.md");
    for state in [State::Pending, State::Leased, State::Delivered, State::Dead, State::Cancelled] {
        assert!(model.contains(&format!("`{state}`")), "{state}");
    }
    for engine in ["sqlite", "postgres"] {
        let schema = read(&format!("../src/store/migrations/{engine}-1.sql"));
        let tables = schema.split("CREATE TABLE ").skip(1);
        for table in tables.filter_map(|rest| rest.split([' ', '(']).next()) {
            let name = table.trim_start_matches("relay.");
            assert!(model.contains(&format!("`{name}`")), "{table}");
        }
    }
}
