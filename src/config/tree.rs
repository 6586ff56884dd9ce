//! Parses a YAML file into a tree of JSON values, with the position of each value in the file.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::problem::{Position, Problem};

/// Position of each value in the file, by JSON pointer.
#[derive(Debug, Default)]
pub(super) struct Positions(BTreeMap<String, Position>);

impl Positions {
    /// Returns whether the file contains a value at this JSON pointer.
    pub(super) fn has(&self, pointer: &str) -> bool {
        self.0.contains_key(pointer)
    }

    /// Returns the position of the value at this JSON pointer, or of the nearest enclosing value.
    pub(super) fn of(&self, pointer: &str) -> Option<Position> {
        let mut pointer = pointer;
        loop {
            if let Some(position) = self.0.get(pointer) {
                return Some(*position);
            }
            pointer = pointer.rsplit_once('/')?.0;
        }
    }
}

/// Parses the text of a file.
///
/// # Errors
/// The first fault at which the parser stops, such as a tab, a duplicate key or an alias bomb.
pub(super) fn read(text: &str) -> Result<(Value, Positions), Problem> {
    let root: Spanned<Node> = serde_saphyr::from_str(text).map_err(|error| {
        let position = error.location().map(|at| (at.line(), at.column()));
        let message = error.without_snippet().to_string();
        // `Problem` shows the position itself, and the parser's options mean nothing to operators.
        let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
        match message.split_once(", set DuplicateKeyPolicy") {
            Some((message, _)) => {
                Problem::new(position, "", message).hint("write each key once: merge the two")
            }
            None => Problem::new(position, "", message).hint("the file is not valid YAML here"),
        }
    })?;
    let mut positions = Positions::default();
    let value = flatten(root.value, &mut String::new(), &mut positions);
    Ok((value, positions))
}

/// A YAML value whose parts know their positions.
#[derive(Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

/// Converts a node to a JSON value and records the positions of the values inside.
fn flatten(node: Node, pointer: &mut String, positions: &mut Positions) -> Value {
    match node {
        Node::Scalar(value) => value,
        Node::List(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                let at = (item.referenced.line(), item.referenced.column());
                list.push(descend(item.value, &index.to_string(), at, pointer, positions));
            }
            Value::Array(list)
        }
        Node::Map(entries) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, item) in entries {
                // A mistake in the value is reported at the key, which is where the entry begins.
                let at = (key.referenced.line(), key.referenced.column());
                let value = descend(item.value, &escape(&key.value), at, pointer, positions);
                map.insert(key.value, value);
            }
            Value::Object(map)
        }
    }
}

/// Escapes a key for use in a JSON pointer.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn descend(
    node: Node,
    step: &str,
    at: Position,
    pointer: &mut String,
    positions: &mut Positions,
) -> Value {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(step);
    positions.0.insert(pointer.clone(), at);
    let value = flatten(node, pointer, positions);
    pointer.truncate(length);
    value
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_position() {
        let (value, positions) = read("a: 1\nb:\n  - x: \"2\"\n  - true\n").unwrap();
        assert_eq!(value, serde_json::json!({"a": 1, "b": [{"x": "2"}, true]}));
        assert_eq!(positions.of("/b/0/x"), Some((3, 5)));
        assert_eq!(positions.of("/b/1"), Some((4, 5)));
        assert_eq!(positions.of("/b/1/missing"), Some((4, 5)));
    }

    #[test]
    fn a_key_written_twice_is_an_error_with_its_line() {
        let problem = read("a: 1\na: 2\n").unwrap_err();
        assert_eq!(problem.position.map(|(line, _)| line), Some(2));
    }
}
