//! A JSON reader that accepts fields that are missing, doubled or of another type. Only for
//! `slack`.
//!
//! Slack asks receivers to "tolerate minor changes" (docs.slack.dev/apis/events-api), and adds
//! fields and types without notice. A value of the wrong type therefore reads as an absent one, and
//! only a text that is not a JSON object is an error. Nothing is built for values that are not
//! asked for.

use std::{borrow::Cow, fmt, mem};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::slack::Unparsable;

/// Conversion from each kind of JSON value. A kind that a type does not implement reads as absent.
pub(super) trait Lenient<'de>: Default {
    /// Converts a string.
    fn text(_text: Cow<'de, str>) -> Self {
        Self::default()
    }

    /// Converts a number without a fraction.
    fn integer(_number: i128) -> Self {
        Self::default()
    }

    /// Converts a number with a fraction.
    fn fraction(_number: f64) -> Self {
        Self::default()
    }

    /// Converts a Boolean.
    fn flag(_flag: bool) -> Self {
        Self::default()
    }

    /// Converts an array.
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }

    /// Returns whether the value is kept as an item of a list.
    fn is_kept(&self) -> bool {
        true
    }

    /// Reads one key of an object. The value must be taken with [`read`] or [`skip`].
    fn field<A: MapAccess<'de>>(&mut self, _key: &str, object: &mut A) -> Result<(), A::Error> {
        skip(object)
    }
}

/// Parses the object in `text`.
///
/// # Errors
/// [`Unparsable`] if the text is not one JSON object.
pub(super) fn parse<'de, T: Lenient<'de>>(text: &'de str) -> Result<T, Unparsable> {
    if !text.trim_start().starts_with('{') {
        return Err(Unparsable);
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let mut value = T::default();
    Fill(&mut value).deserialize(&mut json).map_err(|_syntax| Unparsable)?;
    json.end().map_err(|_trailing| Unparsable)?;
    Ok(value)
}

/// Reads the value of the key just seen.
///
/// # Errors
/// The JSON is broken.
pub(super) fn read<'de, T: Lenient<'de>, A: MapAccess<'de>>(
    object: &mut A,
    place: &mut T,
) -> Result<(), A::Error> {
    object.next_value_seed(Fill(place))
}

/// Reads the exact text of the value of the key just seen.
///
/// # Errors
/// The JSON is broken.
pub(super) fn raw<'de, A: MapAccess<'de>>(
    object: &mut A,
    place: &mut Option<&'de str>,
) -> Result<(), A::Error> {
    *place = Some(object.next_value::<&RawValue>()?.get());
    Ok(())
}

/// Reads a text or a number, a number to the last digit: a float would round it.
///
/// # Errors
/// The JSON is broken.
pub(super) fn exact<'de, A: MapAccess<'de>>(
    object: &mut A,
    place: &mut Cow<'de, str>,
) -> Result<(), A::Error> {
    let text = object.next_value::<&RawValue>()?.get();
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    *place = if is_decimal {
        Cow::Borrowed(text)
    } else {
        let mut value = Cow::default();
        let mut json = serde_json::Deserializer::from_str(text);
        Fill(&mut value).deserialize(&mut json).map_err(A::Error::custom)?;
        value
    };
    Ok(())
}

/// Skips the value of the key just seen, however deep it is.
///
/// # Errors
/// The JSON is broken.
pub(super) fn skip<'de, A: MapAccess<'de>>(object: &mut A) -> Result<(), A::Error> {
    object.next_value::<IgnoredAny>().map(drop)
}

impl<'de> Lenient<'de> for Cow<'de, str> {
    fn text(text: Self) -> Self {
        text
    }

    fn integer(number: i128) -> Self {
        Cow::Owned(number.to_string())
    }

    fn fraction(number: f64) -> Self {
        Cow::Owned(number.to_string())
    }
}

impl<'de> Lenient<'de> for String {
    fn text(text: Cow<'de, str>) -> Self {
        text.into_owned()
    }

    fn integer(number: i128) -> Self {
        number.to_string()
    }

    fn fraction(number: f64) -> Self {
        number.to_string()
    }
}

impl<'de> Lenient<'de> for i64 {
    fn text(text: Cow<'de, str>) -> Self {
        text.trim().parse().unwrap_or_default()
    }

    fn integer(number: i128) -> Self {
        Self::try_from(number).unwrap_or_default()
    }

    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "whole seconds are wanted, and the cast saturates"
    )]
    fn fraction(number: f64) -> Self {
        number as Self
    }
}

impl<'de> Lenient<'de> for bool {
    fn text(text: Cow<'de, str>) -> Self {
        !text.is_empty()
    }

    fn integer(number: i128) -> Self {
        number != 0
    }

    fn flag(flag: bool) -> Self {
        flag
    }
}

impl<'de, T: Lenient<'de>> Lenient<'de> for Vec<T> {
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        items(&mut list, usize::MAX)
    }
}

/// Reads items until the list ends, or that many of them are kept.
///
/// # Errors
/// The JSON is broken.
pub(super) fn items<'de, T: Lenient<'de>, A: SeqAccess<'de>>(
    list: &mut A,
    most: usize,
) -> Result<Vec<T>, A::Error> {
    let mut items = Vec::new();
    let mut item = T::default();
    while items.len() < most && list.next_element_seed(Fill(&mut item))?.is_some() {
        let item = mem::take(&mut item);
        if item.is_kept() {
            items.push(item);
        }
    }
    Ok(items)
}

/// Returns the exact text of the item of a list at an index. Nothing is kept of the others.
pub(super) fn item(list: &str, place: u32) -> Option<&RawValue> {
    struct At(u32);

    impl<'de> Visitor<'de> for At {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            for _before in 0..self.0 {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            let found = list.next_element::<&RawValue>()?;
            // serde_json reports an error unless a list is read to its end.
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(found)
        }
    }

    let mut json = serde_json::Deserializer::from_str(list);
    json.deserialize_seq(At(place)).ok()?
}

/// Deserializes into an existing value, so an object is not copied from function to function.
pub(super) struct Fill<'p, T>(pub(super) &'p mut T);

impl<'de, T: Lenient<'de>> DeserializeSeed<'de> for Fill<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Lenient<'de>> Visitor<'de> for Fill<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        *self.0 = T::text(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        *self.0 = T::text(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        *self.0 = T::integer(number.into());
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        *self.0 = T::integer(number.into());
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        *self.0 = T::fraction(number);
        Ok(())
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<(), E> {
        *self.0 = T::flag(flag);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        *self.0 = T::default();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        *self.0 = T::list(list)?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        // The last of two equal keys counts, and nothing of the first is kept.
        *self.0 = T::default();
        let mut key = Cow::Borrowed("");
        while object.next_key_seed(Fill(&mut key))?.is_some() {
            self.0.field(&key, &mut object)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Probe<'a> {
        text: Cow<'a, str>,
        number: i64,
        flag: bool,
        list: Vec<Cow<'a, str>>,
    }

    impl<'de> Lenient<'de> for Probe<'de> {
        fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
            match key {
                "text" => read(object, &mut self.text)?,
                "number" => read(object, &mut self.number)?,
                "flag" => read(object, &mut self.flag)?,
                "list" => read(object, &mut self.list)?,
                _ => skip(object)?,
            }
            Ok(())
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_reads_as_absent() {
        for wrong in ["null", "[1, [2], {}]", r#"{"a": {"b": []}}"#] {
            let json =
                format!(r#"{{"text": {wrong}, "number": {wrong}, "flag": {wrong}, "x": {wrong}}}"#);
            assert_eq!(parse::<Probe<'_>>(&json), Ok(Probe::default()), "{json}");
        }
        for wrong in ["null", "true", "7", "7.5", r#""seven""#, "{}"] {
            let json = format!(r#"{{"list": {wrong}}}"#);
            assert_eq!(parse::<Probe<'_>>(&json), Ok(Probe::default()), "{json}");
        }
    }

    #[test]
    fn numbers_read_as_text_and_text_as_numbers() {
        let json =
            r#"{"text": 18446744073709551615, "number": "42", "list": [-1, 1.5, "x", null]}"#;
        let read = parse::<Probe<'_>>(json).unwrap();
        assert_eq!(read.text, "18446744073709551615");
        assert_eq!(read.number, 42);
        assert_eq!(read.list, ["-1", "1.5", "x", ""]);
        assert_eq!(parse::<Probe<'_>>(r#"{"number": 5.9}"#).unwrap().number, 5);
        assert_eq!(parse::<Probe<'_>>(r#"{"number": 1e300}"#).unwrap().number, i64::MAX);
    }

    #[test]
    fn the_last_of_two_equal_keys_wins() {
        let read = parse::<Probe<'_>>(r#"{"text": "a", "t\u0065xt": "b"}"#).unwrap();
        assert_eq!(read.text, "b");
    }

    #[test]
    fn what_is_no_object_is_unparsable() {
        for text in [
            "",
            " ",
            "null",
            "[]",
            "7",
            "\"x\"",
            "{",
            "{}{}",
            "{\"text\": \"\u{1}\"}",
            "\u{feff}{}",
        ] {
            assert_eq!(parse::<Probe<'_>>(text), Err(Unparsable), "{text:?}");
        }
        assert_eq!(parse::<Probe<'_>>(" \r\n{} "), Ok(Probe::default()));
    }

    #[test]
    fn a_hundred_thousand_levels_do_not_overflow_the_stack() {
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        for key in ["text", "list", "unknown"] {
            let json = format!(r#"{{"{key}": {open}{close}, "number": 7}}"#);
            assert_eq!(parse::<Probe<'_>>(&json).unwrap().number, 7, "{key}");
        }
        let objects = "{\"text\":".repeat(100_000);
        assert_eq!(parse::<Probe<'_>>(&objects), Err(Unparsable));
    }
}
