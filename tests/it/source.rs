//! Rust source as the architecture test reads it: tokens, so that comments and the insides of
//! strings are gone, with the parts under `#[cfg(test)]` kept apart.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// One source file.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// From the root of the repository, with forward slashes.
    pub(crate) path: String,
    /// Every line, tests and comments included.
    pub(crate) lines: Vec<String>,
    /// Number of lines outside `#[cfg(test)]`.
    pub(crate) lines_without_tests: usize,
    /// The tokens outside `#[cfg(test)]`.
    pub(crate) code: Vec<String>,
    /// The tokens under `#[cfg(test)]`.
    pub(crate) tests: Vec<String>,
    /// Every string literal with the line where it begins, tests included.
    pub(crate) texts: Vec<(usize, String)>,
    /// The modules declared as `#[cfg(test)] mod name;`.
    test_modules: Vec<String>,
}

impl Source {
    /// Reads a file's text.
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let mut source = Self {
            path: path.to_owned(),
            lines_without_tests: lines.len(),
            lines,
            ..Self::default()
        };
        texts(tokens.clone(), &mut source.texts);
        source.split(tokens);
        source
    }

    /// Every file below `src`, without those that are test modules.
    pub(crate) fn all_of_src() -> Vec<Self> {
        let mut sources = Self::below("src");
        let tests: Vec<_> = sources.iter().flat_map(Self::test_files).collect();
        for source in &mut sources {
            if tests.iter().any(|t| source.path == format!("{t}.rs") || source.is_in(t)) {
                let code = std::mem::take(&mut source.code);
                source.tests.extend(code);
                source.lines_without_tests = 0;
            }
        }
        sources
    }

    /// Every Rust file below a folder of the repository, in the order of their paths.
    pub(crate) fn below(folder: &str) -> Vec<Self> {
        files(folder, "rs")
            .into_iter()
            .map(|path| Self::parse(&path, &fs::read_to_string(root().join(&path)).unwrap()))
            .collect()
    }

    /// The module at the top of the crate to which the file belongs: `store` for
    /// `src/store/sqlite/open.rs`.
    pub(crate) fn module(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Returns whether `super` is the root of the crate in this file.
    pub(crate) fn is_top(&self) -> bool {
        let module = self.module();
        self.path == format!("src/{module}.rs") || self.path == format!("src/{module}/mod.rs")
    }

    /// Every path named outside tests, use-trees written out.
    pub(crate) fn paths(&self) -> BTreeSet<Vec<String>> {
        paths(&self.code)
    }

    /// Every `use` outside tests, use-trees written out.
    pub(crate) fn uses(&self) -> Vec<Use> {
        let mut found = Vec::new();
        for (at, token) in self.code.iter().enumerate() {
            if token == "use" {
                let mut named = BTreeSet::new();
                tree(&self.code[at + 1..], &[], &mut named);
                let public = is_public(&self.code[..at]);
                found.extend(named.into_iter().map(|(path, alias)| Use { public, path, alias }));
            }
        }
        found
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(&format!("{folder}/"))
    }

    /// The test modules' paths, without `.rs`.
    fn test_files(&self) -> Vec<String> {
        let own = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        self.test_modules.iter().map(|name| format!("{own}/{name}")).collect()
    }

    fn split(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let marks_test = matches!(&token, TokenTree::Punct(p) if p.as_char() == '#')
                && matches!(tokens.peek(), Some(TokenTree::Group(g))
                    if g.stream().to_string().replace(' ', "") == "cfg(test)");
            if marks_test {
                let first = token.span().start().line;
                let mut item = Vec::new();
                let mut last = first;
                tokens.next();
                for token in tokens.by_ref() {
                    last = token.span().end().line;
                    let ends = match &token {
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        TokenTree::Punct(punct) => punct.as_char() == ';',
                        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
                    };
                    flatten(token, &mut item);
                    if ends {
                        break;
                    }
                }
                self.lines_without_tests =
                    self.lines_without_tests.saturating_sub(last - first + 1);
                if let Some([.., word, name, _]) = item.ends_with(&[";".into()]).then_some(&*item)
                    && word == "mod"
                {
                    self.test_modules.push(name.clone());
                }
                self.tests.extend(item);
            } else if let TokenTree::Group(group) = token {
                let (open, close) = marks(group.delimiter());
                self.code.push(open.to_owned());
                self.split(group.stream());
                self.code.push(close.to_owned());
            } else {
                flatten(token, &mut self.code);
            }
        }
    }
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder of the repository whose names end so, in the order of their paths;
/// without hidden folders and what builds leave behind.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<String> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    walk(&path, extension, found);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), extension, &mut found);
    found.sort();
    found
        .iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// Every path in these tokens, use-trees written out: `use a::{b, c::d}` is `a::b` and `a::c::d`.
pub(crate) fn paths(tokens: &[String]) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for at in 0..tokens.len() {
        let continues = at >= 2
            && tokens[at - 1] == "::"
            && (is_word(&tokens[at - 2]) || tokens[at - 2] == ">");
        if is_word(&tokens[at]) && !continues {
            tree(&tokens[at..], &[], &mut found);
        }
    }
    found.into_iter().map(|(path, _)| path).collect()
}

/// Returns whether the tokens end with `pub` or `pub(...)`.
pub(crate) fn is_public(before: &[String]) -> bool {
    let open = match before.last().map(String::as_str) {
        Some(")") => before.iter().rposition(|t| t == "(").unwrap_or(0),
        _ => before.len(),
    };
    open.checked_sub(1).is_some_and(|at| before[at] == "pub")
}

/// One name of a `use`.
pub(crate) struct Use {
    /// `true` for `pub use`: other files find the name here.
    pub(crate) public: bool,
    /// The path written out.
    pub(crate) path: Vec<String>,
    /// The name that `as` gives to it.
    pub(crate) alias: Option<String>,
}

/// A path and the name that `as` gives to it.
type Named = (Vec<String>, Option<String>);

/// Follows one path, or one branch of a use-tree, and returns how many tokens it has.
fn tree(tokens: &[String], before: &[String], found: &mut BTreeSet<Named>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|t| t != "}") {
                at += tree(&tokens[at..], &path, found).max(1);
            }
            return at + 1;
        }
        if !is_word(token) && token != "*" {
            break;
        }
        path.push(token.clone());
        at += 1;
        if tokens.get(at).is_none_or(|t| t != "::") {
            break;
        }
        at += 1;
    }
    let alias = tokens.get(at).filter(|t| *t == "as").and_then(|_| tokens.get(at + 1));
    if path.len() > before.len() {
        found.insert((path, alias.cloned()));
    }
    if alias.is_some() { at + 2 } else { at }
}

/// Collects string literals. Doc comments, which are literals to the compiler, are left out.
fn texts(tokens: TokenStream, into: &mut Vec<(usize, String)>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) if !is_doc(&group.stream()) => texts(group.stream(), into),
            TokenTree::Literal(literal) if literal.to_string().contains('"') => {
                into.push((literal.span().start().line, literal.to_string()));
            }
            TokenTree::Group(_)
            | TokenTree::Ident(_)
            | TokenTree::Punct(_)
            | TokenTree::Literal(_) => {}
        }
    }
}

fn is_doc(attribute: &TokenStream) -> bool {
    let mut tokens = attribute.clone().into_iter();
    matches!(tokens.next(), Some(TokenTree::Ident(name)) if name == "doc")
        && matches!(tokens.next(), Some(TokenTree::Punct(sign)) if sign.as_char() == '=')
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn marks(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// Adds a token and what it holds. `::` is one token; a literal is only its place.
fn flatten(token: TokenTree, into: &mut Vec<String>) {
    match token {
        TokenTree::Group(group) => {
            let (open, close) = marks(group.delimiter());
            into.push(open.to_owned());
            for token in group.stream() {
                flatten(token, into);
            }
            into.push(close.to_owned());
        }
        TokenTree::Punct(punct) if punct.as_char() == ':' => match into.last_mut() {
            Some(last) if last == ":joint" => "::".clone_into(last),
            _ if punct.spacing() == Spacing::Joint => into.push(":joint".to_owned()),
            _ => into.push(":".to_owned()),
        },
        TokenTree::Punct(punct) => into.push(punct.as_char().to_string()),
        TokenTree::Ident(ident) => into.push(ident.to_string()),
        TokenTree::Literal(_) => into.push("\"\"".to_owned()),
    }
}
