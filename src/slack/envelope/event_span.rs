//! The exact text of `event` in a body, found while the envelope is parsed.

// The parser lends out its keys, so the addresses of the keys around `event` are the position of
// the text. A second pass of the parser instead costs as much as the first one (benches/pure.rs,
// `parse/incident` and `parse/chatter`).

use serde::de::MapAccess;

use crate::slack::lenient::{self, Lenient, raw, skip};

/// Position of the text of `event`: from the end of its key to the next key.
#[derive(Default)]
pub(super) struct EventSpan {
    after_key: Option<usize>,
    next_key: Option<usize>,
}

impl EventSpan {
    pub(super) fn note_key(&mut self, key: &str) {
        let address = key.as_ptr().addr();
        if key == "event" {
            *self = Self { after_key: Some(address + key.len()), next_key: None };
        } else if self.after_key.is_some() && self.next_key.is_none() {
            self.next_key = Some(address);
        }
    }

    pub(super) fn text<'a>(&self, text: &'a str) -> Option<&'a str> {
        let after_key = self.after_key?;
        let second_pass = || lenient::parse::<SecondPass<'_>>(text).ok()?.event;
        self.between(text, after_key).or_else(second_pass)
    }

    /// Returns the text between two keys, or `None` if a key had to be decoded: such a key is not a
    /// part of the text.
    fn between<'a>(&self, text: &'a str, after_key: usize) -> Option<&'a str> {
        let offset = |address: usize| address.checked_sub(text.as_ptr().addr());
        let (end, mark) = match self.next_key {
            Some(next) => (offset(next)?.checked_sub(1)?, ','),
            None => (text.len(), '}'),
        };
        let member = text.get(offset(after_key)?..end)?.strip_prefix('"')?;
        let value = member.trim_end().strip_suffix(mark)?.trim_end();
        value.trim_start().strip_prefix(':').map(str::trim_start)
    }
}

/// The text of `event` as a second pass of the parser finds it.
#[derive(Default)]
pub(super) struct SecondPass<'a> {
    pub(super) event: Option<&'a str>,
}

impl<'de> Lenient<'de> for SecondPass<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        if key == "event" { raw(object, &mut self.event) } else { skip(object) }
    }
}
