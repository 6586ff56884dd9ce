//! Removes invalid values from a file, so that the rest can be checked too and all problems are
//! reported at once.

use serde_json::{Map, Value, json};
use serde_path_to_error::{Path, Segment};

use super::{
    file::File,
    problem::Problem,
    schema::Violation,
    tree::{Positions, escape},
};

/// The readable part of a file.
pub(super) struct Recovered {
    /// The file without the discarded values; the default if nothing could be read.
    pub(super) file: File,
    /// Problems of the discarded values.
    pub(super) problems: Vec<Problem>,
    pub(super) discarded: Discarded,
}

/// JSON pointers of the values that were removed or replaced by placeholders. No further problem is
/// reported about them.
#[derive(Debug, Default)]
pub(super) struct Discarded(Vec<String>);

impl Discarded {
    pub(super) fn add(&mut self, pointer: &str) {
        self.0.push(pointer.to_owned());
    }

    /// Returns whether the value, or a value that encloses it, was discarded.
    pub(super) fn has(&self, pointer: &str) -> bool {
        self.0.iter().any(|discarded| is_within(pointer, discarded))
    }

    /// Returns whether the value, or a value inside it, was discarded.
    pub(super) fn has_within(&self, pointer: &str) -> bool {
        self.0.iter().any(|discarded| is_within(discarded, pointer))
    }
}

fn is_within(pointer: &str, around: &str) -> bool {
    let rest = pointer.strip_prefix(around);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Deserializes a file after removing the values that violate the schema.
pub(super) fn read(
    mut value: Value,
    violations: Vec<Violation>,
    positions: &Positions,
) -> Recovered {
    let mut discarded = Discarded::default();
    let mut problems = Vec::new();
    for Violation { problem, pointer } in violations {
        problems.push(problem);
        if let Some(pointer) = pointer {
            remove(&mut value, &pointer);
            discarded.0.push(pointer);
        }
    }
    // Serde reports one error at a time, such as an address that the schema takes for any text:
    // each round removes the value of one error.
    loop {
        insert_placeholders(&mut value, &mut discarded);
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(file) => return Recovered { file, problems, discarded },
            Err(error) => error,
        };
        let pointer = pointer_of(error.path());
        let problem = Problem::new(positions.of(&pointer), &pointer, &error.inner().to_string());
        problems.push(match hint(&pointer) {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
        // Removing more would not help: give up on the whole file.
        if pointer.is_empty() || discarded.has(&pointer) {
            discarded.add("");
            return Recovered { file: File::default(), problems, discarded };
        }
        remove(&mut value, &pointer);
        discarded.0.push(pointer);
    }
}

fn hint(pointer: &str) -> Option<&'static str> {
    pointer.ends_with("listen").then_some("write an IP address and a port, such as 0.0.0.0:8080")
}

/// Removes a key, or empties an entry of a list: the other entries keep their indexes.
fn remove(value: &mut Value, pointer: &str) {
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

/// Inserts an empty value for each required key that is missing.
fn insert_placeholders(value: &mut Value, discarded: &mut Discarded) {
    let secret = || json!({"env": ""});
    insert_missing(value, "", &[("slack", json!({}))], discarded);
    insert_at(value, "/slack", &[("apps", json!([]))], discarded);
    let app = [("name", json!("")), ("signing_secret", secret())];
    insert_in_each(value, "/slack/apps", &app, discarded);
    let destination = [("name", json!("")), ("preset", json!(""))];
    insert_in_each(value, "/destinations", &destination, discarded);
}

fn insert_in_each(
    value: &mut Value,
    list: &str,
    required: &[(&str, Value)],
    discarded: &mut Discarded,
) {
    let length = value.pointer(list).and_then(Value::as_array).map_or(0, Vec::len);
    for index in 0..length {
        insert_at(value, &format!("{list}/{index}"), required, discarded);
    }
}

fn insert_at(value: &mut Value, at: &str, required: &[(&str, Value)], discarded: &mut Discarded) {
    if let Some(section) = value.pointer_mut(at) {
        insert_missing(section, at, required, discarded);
    }
}

fn insert_missing(
    section: &mut Value,
    at: &str,
    required: &[(&str, Value)],
    discarded: &mut Discarded,
) {
    let Some(map) = section.as_object_mut() else { return };
    for (key, empty) in required {
        if !map.contains_key(*key) {
            map.insert((*key).to_owned(), empty.clone());
            discarded.0.push(format!("{at}/{key}"));
        }
    }
}

fn pointer_of(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.extend(["/", &index.to_string()]),
            Segment::Map { key } => pointer.extend(["/", &escape(key)]),
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    pointer
}
