//! The language of doc comments and messages, as far as a test can hold it.

use std::collections::BTreeSet;

use crate::source::Source;

/// Words that open a clause and not a sentence. A doc comment is read alone, as hover text, so it
/// begins with a verb or a noun.
const CLAUSE: &[&str] = &[
    "What", "Of", "As", "Whether", "Whose", "So", "It", "Its", "That", "Who", "Whoever", "Where",
    "When", "How", "Why",
];

/// The fewest words of a doc comment that says more than the name does.
const WORDS_OF_DOC: usize = 3;

#[test]
fn doc_comments_and_messages_are_plain_english() {
    let folders = ["src", "tests", "benches", "examples"];
    let mut sources: Vec<_> = folders.into_iter().flat_map(Source::below).collect();
    // The examples below are what the test is about.
    sources.retain(|source| source.path != "tests/it/words.rs");
    let offences: Vec<_> = sources.iter().flat_map(|s| [docs(s), messages(s)].concat()).collect();
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn clauses_and_empty_docs_are_found() {
    for (text, expected) in [
        ("//! What it is made of.", "src/a.rs:1: opens with `What`"),
        ("\n/// As it was\n/// before.\nfn f() {}", "src/a.rs:2: opens with `As`"),
        ("/// `Whose`, one of them.\nfn f() {}", "src/a.rs:1: opens with `Whose`"),
        ("/// The file.\nfn f() {}", "src/a.rs:1: says too little: The file."),
        ("//! Good as it is.\n/// Why?\nfn f() {}", "src/a.rs:2: opens with `Why`"),
    ] {
        assert_eq!(docs(&Source::parse("src/a.rs", text)), [expected], "{text}");
    }
    let fine = "//! The\n//! relay\n//! itself.\n\n/// Returns whether it is.\n// What.\nfn f() {}";
    assert_eq!(docs(&Source::parse("src/a.rs", fine)), [""; 0]);
}

#[test]
fn messages_that_negate_without_not_are_found() {
    for text in [
        r#"const A: &str = "{a} is no number";"#,
        r#"#[error("the titles are no \
             patterns")] struct E;"#,
        r#"fn f() { bail!("that is none of {a}") }"#,
    ] {
        let found = messages(&Source::parse("src/a.rs", text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
    }
    let fine = r#"
        /// Not a message: is no number.
        const A: &[&str] = &["there is no alert", "there are no alerts", "is no longer", "is no"];
    "#;
    assert_eq!(messages(&Source::parse("src/a.rs", fine)), [""; 0]);
}

/// Returns the doc comments of a file that cannot stand alone.
fn docs(source: &Source) -> Vec<String> {
    let mark = |line: &str| {
        let line = line.trim_start();
        ["///", "//!"].into_iter().find(|mark| line.starts_with(mark))
    };
    let mut found = Vec::new();
    let lines: Vec<_> = source.lines.iter().zip(1..).collect();
    for block in lines.chunk_by(|a, b| mark(a.0) == mark(b.0)) {
        let Some((at, mark)) = block.first().and_then(|(line, at)| Some((at, mark(line)?))) else {
            continue;
        };
        let text = block.iter().map(|(line, _)| line.trim_start().trim_start_matches(mark));
        let text = text.collect::<Vec<_>>().join(" ");
        let words: Vec<_> = text.split_whitespace().collect();
        let opening = words.first().map_or("", |word| word.trim_matches(['`', ',', '.', ':', '?']));
        if CLAUSE.contains(&opening) {
            found.push(format!("{}:{at}: opens with `{opening}`", source.path));
        } else if words.len() < WORDS_OF_DOC {
            found.push(format!("{}:{at}: says too little: {}", source.path, words.join(" ")));
        }
    }
    found
}

/// Returns the messages of a file that say "is no" or "is none" where English says "is not".
fn messages(source: &Source) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (at, text) in &source.texts {
        // A backslash at the end of a line continues a literal.
        let words: Vec<_> = text.split_whitespace().filter(|word| *word != "\\").collect();
        for (before, three) in words.windows(3).enumerate() {
            let negates = ["is", "are"].contains(&three[0]) && ["no", "none"].contains(&three[1]);
            let there = before.checked_sub(1).and_then(|b| words.get(b));
            let there = there.is_some_and(|w| w.trim_start_matches('"').to_lowercase() == "there");
            if negates && !there && three[2] != "longer" {
                found.insert(format!("{}:{at}: write \"{} not\": {text}", source.path, three[0]));
            }
        }
    }
    found.into_iter().collect()
}
