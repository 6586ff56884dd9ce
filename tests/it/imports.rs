//! No files of `src` import each other in a ring: every file can be read after those it uses.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, Use, paths};

/// A module's path below the root of the crate.
type Module = Vec<String>;

#[test]
fn no_files_import_each_other_in_a_ring() {
    let offences = rings(&Source::all_of_src());
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn rings_are_found() {
    let ring = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::parse(path, text)).collect();
        rings(&sources)
    };
    let both = ["src/a.rs and src/b.rs import each other"];
    assert_eq!(ring(&[("src/a.rs", "use crate::b::B;"), ("src/b.rs", "use super::a;")]), both);
    let bare = [("src/a.rs", "fn f() { crate::b::g() }"), ("src/b.rs", "type A = super::a::A;")];
    assert_eq!(ring(&bare), both);
    let parent = [("src/a/mod.rs", "use b::g;"), ("src/a/b.rs", "use super::f;")];
    assert_eq!(ring(&parent), ["src/a/mod.rs and src/a/b.rs import each other"]);
    let three = [
        ("src/a/mod.rs", "pub use self::x::{C as D, X};"),
        ("src/a/x.rs", "use crate::b;"),
        ("src/b.rs", "use crate::c::C;"),
        ("src/c.rs", "use crate::{b::B, a::D};"),
    ];
    assert_eq!(
        ring(&three),
        ["src/a/x.rs and src/b.rs and src/c.rs import each other"],
        "the re-export leads to the file that defines the name"
    );
}

#[test]
fn files_without_a_ring_pass() {
    let files = [
        ("src/a/mod.rs", "mod b; pub use self::b::B; fn f() { b::g() }"),
        ("src/a/b.rs", "pub(in crate::a) struct B; pub(super) fn g() {} use crate::c;"),
        ("src/c.rs", "use crate::Root; #[cfg(test)] mod tests { use crate::a::B; }"),
        ("src/main.rs", "use crate::a;"),
        ("src/lib.rs", "pub mod a; pub use self::c::C;"),
    ];
    let sources: Vec<_> = files.iter().map(|(path, text)| Source::parse(path, text)).collect();
    assert_eq!(rings(&sources), Vec::<String>::new());
}

/// Returns one line for each group of files that can reach each other.
fn rings(sources: &[Source]) -> Vec<String> {
    let files: BTreeMap<Module, &Source> = sources
        .iter()
        .filter(|s| !s.code.is_empty() && !s.path.starts_with("src/store/contract"))
        .map(|s| (module(&s.path), s))
        .filter(|(module, _)| *module != ["main"] && !module.is_empty())
        .collect();
    let imports = imports(&files);
    let reach: BTreeMap<_, _> = files.keys().map(|m| (m, reachable(m, &imports))).collect();
    let mut groups = BTreeSet::new();
    for (module, reached) in &reach {
        let group: BTreeSet<_> = reached.iter().filter(|m| reach[*m].contains(*module)).collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    let paths = |group: &BTreeSet<&&Module>| {
        group.iter().map(|module| files[**module].path.as_str()).collect::<Vec<_>>().join(" and ")
    };
    groups.iter().map(|group| format!("{} import each other", paths(group))).collect()
}

/// `src/store/sqlite/mod.rs` is `store::sqlite`, and `src/lib.rs` the root.
fn module(path: &str) -> Module {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Returns the files that each file imports from: by `use`, and by paths from `crate`, `self` or
/// `super`. A call into a file's own module, `child::run()`, is no import.
fn imports(files: &BTreeMap<Module, &Source>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut exports = BTreeMap::new();
    for (module, source) in files {
        for Use { path, alias, .. } in source.uses().into_iter().filter(|u| u.public) {
            let name = alias.or_else(|| path.last().cloned());
            if let Some((name, found)) = name.zip(resolve(files, module, &path)) {
                exports.insert((module.clone(), name), found);
            }
        }
    }
    let imported = |module: &Module, source: &Source| {
        let bare = |path: &Vec<String>| !["crate", "self", "super"].contains(&path[0].as_str());
        let mut named = paths(&without_visibility(&source.code));
        named.retain(|path| path.len() > 1 && !bare(path));
        named.extend(source.uses().into_iter().map(|u| u.path));
        let resolved = named.iter().filter_map(|path| resolve(files, module, path));
        let defined = resolved.map(|(mut file, mut item)| {
            // A name leads through each `pub use` to the file that defines it.
            let mut steps = 0..exports.len();
            while let Some((next, name)) =
                item.clone().and_then(|name| exports.get(&(file.clone(), name)))
                && steps.next().is_some()
            {
                (file, item) = (next.clone(), name.clone());
            }
            file
        });
        defined.filter(|file| file != module && files.contains_key(file)).collect()
    };
    files.iter().map(|(module, source)| (module.clone(), imported(module, source))).collect()
}

/// Finds the file that a path leads to, and the name in it that comes next.
fn resolve(
    files: &BTreeMap<Module, &Source>,
    from: &Module,
    path: &[String],
) -> Option<(Module, Option<String>)> {
    let (first, rest) = path.split_first()?;
    let child = [from, std::slice::from_ref(first)].concat();
    let mut at = match first.as_str() {
        "crate" | "slack_soar_relay" => Vec::new(),
        "self" => from.clone(),
        "super" => from.split_last()?.1.to_vec(),
        _ if files.contains_key(&child) => child,
        _ => return None,
    };
    let mut rest = rest.iter();
    for name in rest.by_ref() {
        at.push(name.clone());
        if !files.contains_key(&at) {
            at.pop();
            return Some((at, Some(name.clone())));
        }
    }
    Some((at, None))
}

/// Leaves out the paths of `pub(in path)`, which import nothing.
fn without_visibility(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut tokens = tokens.iter().peekable();
    while let Some(token) = tokens.next() {
        if token == "in" && kept.ends_with(&["pub".to_owned(), "(".to_owned()]) {
            tokens.by_ref().find(|t| *t == ")");
            kept.pop();
        } else {
            kept.push(token.clone());
        }
    }
    kept
}

/// Returns all that can be reached from a file by imports.
fn reachable<'a>(
    from: &'a Module,
    imports: &'a BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        for imported in &imports[module] {
            if found.insert(imported) {
                next.push(imported);
            }
        }
    }
    found
}
