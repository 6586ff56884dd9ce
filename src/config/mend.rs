//! Takes what has the wrong shape out of a file, so that the rest of it can be checked too: whoever
//! mends a configuration wants to hear everything at once.

use serde_json::{Map, Value, json};
use serde_path_to_error::{Path, Segment};

use super::{
    file::File,
    problem::Problem,
    schema::Fault,
    tree::{Positions, step},
};

/// What could be read of a file.
pub(super) struct Mended {
    /// Empty, and all of it spoilt, if nothing could be read.
    pub(super) file: File,
    /// What is wrong with its shape.
    pub(super) problems: Vec<Problem>,
    pub(super) spoilt: Spoilt,
}

/// The values that are not those of the file, by JSON pointer: nothing more is said of them.
#[derive(Debug, Default)]
pub(super) struct Spoilt(Vec<String>);

impl Spoilt {
    pub(super) fn add(&mut self, pointer: &str) {
        self.0.push(pointer.to_owned());
    }

    /// Whether the value, or one around it, is not that of the file.
    pub(super) fn has(&self, pointer: &str) -> bool {
        self.0.iter().any(|spoilt| is_within(pointer, spoilt))
    }

    /// Whether the value, or something within it, is not that of the file.
    pub(super) fn has_within(&self, pointer: &str) -> bool {
        self.0.iter().any(|spoilt| is_within(spoilt, pointer))
    }
}

fn is_within(pointer: &str, around: &str) -> bool {
    let rest = pointer.strip_prefix(around);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads a file, whatever is wrong with it.
pub(super) fn read(mut value: Value, faults: Vec<Fault>, positions: &Positions) -> Mended {
    let mut spoilt = Spoilt::default();
    let mut problems = Vec::new();
    for Fault { problem, pointer } in faults {
        problems.push(problem);
        if let Some(pointer) = pointer {
            take_out(&mut value, &pointer);
            spoilt.0.push(pointer);
        }
    }
    loop {
        fill(&mut value, &mut spoilt);
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(file) => return Mended { file, problems, spoilt },
            Err(error) => error,
        };
        let pointer = pointer_of(error.path());
        let problem = Problem::new(positions.of(&pointer), &pointer, &error.inner().to_string());
        problems.push(match hint(&pointer) {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
        if pointer.is_empty() || spoilt.has(&pointer) {
            spoilt.add("");
            return Mended { file: File::default(), problems, spoilt };
        }
        take_out(&mut value, &pointer);
        spoilt.0.push(pointer);
    }
}

fn hint(pointer: &str) -> Option<&'static str> {
    pointer.ends_with("listen").then_some("write an IP address and a port, such as 0.0.0.0:8080")
}

/// A key goes; an entry of a list stays as an empty one, so that the others keep their places.
fn take_out(value: &mut Value, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        *value = Value::Object(Map::new());
        return;
    };
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(&last.replace("~1", "/").replace("~0", "~"));
        }
        Some(Value::Array(list)) => {
            let is_section = matches!(parent, "/slack/apps" | "/destinations");
            let empty = if is_section { json!({}) } else { json!("") };
            if let Some(item) = last.parse().ok().and_then(|at: usize| list.get_mut(at)) {
                *item = empty;
            }
        }
        Some(_) | None => {}
    }
}

/// Puts an empty value wherever one is needed and there is none.
fn fill(value: &mut Value, spoilt: &mut Spoilt) {
    let secret = || json!({"env": ""});
    put(value, "", &[("slack", json!({}))], spoilt);
    put_in(value, "/slack", &[("apps", json!([]))], spoilt);
    let app = [("name", json!("")), ("signing_secret", secret())];
    put_in_each(value, "/slack/apps", &app, spoilt);
    let destination = [("name", json!("")), ("preset", json!(""))];
    put_in_each(value, "/destinations", &destination, spoilt);
}

fn put_in_each(value: &mut Value, list: &str, needed: &[(&str, Value)], spoilt: &mut Spoilt) {
    let length = value.pointer(list).and_then(Value::as_array).map_or(0, Vec::len);
    for index in 0..length {
        put_in(value, &format!("{list}/{index}"), needed, spoilt);
    }
}

fn put_in(value: &mut Value, at: &str, needed: &[(&str, Value)], spoilt: &mut Spoilt) {
    if let Some(section) = value.pointer_mut(at) {
        put(section, at, needed, spoilt);
    }
}

fn put(section: &mut Value, at: &str, needed: &[(&str, Value)], spoilt: &mut Spoilt) {
    let Some(map) = section.as_object_mut() else { return };
    for (key, empty) in needed {
        if !map.contains_key(*key) {
            map.insert((*key).to_owned(), empty.clone());
            spoilt.0.push(format!("{at}/{key}"));
        }
    }
}

fn pointer_of(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.extend(["/", &index.to_string()]),
            Segment::Map { key } => pointer.extend(["/", &step(key)]),
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    pointer
}
