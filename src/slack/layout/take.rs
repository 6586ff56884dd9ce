//! A reader of values that are either a text or a larger part of the message.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::slack::lenient::Fill;

/// Reads a string, and passes anything else to a visitor, if there is one.
pub(super) struct OrTake<'p, 'de, V> {
    pub(super) visitor: Option<V>,
    pub(super) text: &'p mut Cow<'de, str>,
}

impl<'de, V: Visitor<'de, Value = ()>> DeserializeSeed<'de> for OrTake<'_, 'de, V> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, V: Visitor<'de, Value = ()>> Visitor<'de> for OrTake<'_, 'de, V> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        Fill(self.text).visit_borrowed_str(text)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        Fill(self.text).visit_str(text)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        Fill(self.text).visit_i64(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        Fill(self.text).visit_u64(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        Fill(self.text).visit_f64(number)
    }

    fn visit_bool<E: Error>(self, _flag: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        match self.visitor {
            Some(visitor) => visitor.visit_seq(list),
            None => Fill(self.text).visit_seq(list),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        match self.visitor {
            Some(visitor) => visitor.visit_map(object),
            None => Fill(self.text).visit_map(object),
        }
    }
}
