//! What the documents claim and a machine can check.

use std::{fs, path::PathBuf};

use slack_soar_relay::config;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in [root(), root().join("docs")] {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut links = 0;
    for (path, text) in documents() {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            let file = path.parent().unwrap().join(target);
            assert!(file.exists(), "{}: {target}", path.display());
        }
    }
    assert!(links > 5, "only {links} links were found");
}

#[test]
fn every_configuration_in_a_document_loads() {
    let env = |_: &str| Some("https://soar.example.com/hook".to_owned());
    let mut loaded = 0;
    for (path, text) in documents() {
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            if block.starts_with("slack:") || block.contains("\nslack:") {
                let result = config::parse(block, &root(), &env);
                assert!(result.is_ok(), "{}: {:#?}", path.display(), result.err());
                loaded += 1;
            }
        }
    }
    assert!(loaded > 0);
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
