//! Filters and tests of templates beside minijinja's own, for the formats that receivers need.

use jiff::Timestamp;
use minijinja::{Environment, Error, ErrorKind, value::Value};
use uuid::Uuid;

/// Mark at the end of a text that was too long for the receiver.
pub(super) const CUT_MARK: &str = " [... cut]";

/// Returns whether the text is an HTML page, such as the login or error page of a proxy before the
/// receiver, whatever its status says.
pub(super) fn is_page(text: &str) -> bool {
    let text =
        text.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}');
    ["<!doctype html", "<html"]
        .iter()
        .any(|begin| text.get(..begin.len()).is_some_and(|start| start.eq_ignore_ascii_case(begin)))
}

pub(super) fn add_to(env: &mut Environment<'static>) {
    env.add_filter("cut", cut);
    env.add_filter("iso", iso);
    env.add_filter("uuid5", uuid5);
    env.add_filter("json_text", json_text);
    env.add_test("page", |text: &str| is_page(text));
    env.add_test("naming", is_naming);
}

/// Returns whether the text contains the reference as a separate word: `a:1` is not found in `a:10`
/// nor in `xa:1`, but in `[a:1]` and in `type:source:a:1`.
fn is_naming(text: &str, reference: &str) -> bool {
    let goes_on = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
    !reference.is_empty()
        && text.match_indices(reference).any(|(at, found)| {
            let (before, rest) = text.split_at(at);
            let after = rest.strip_prefix(found).unwrap_or_default();
            let mut after = after.chars();
            let is_end = match after.next() {
                // Punctuation of the sentence, or more of a longer reference.
                Some(':' | '.') => !after.next().is_some_and(goes_on),
                next => !next.is_some_and(goes_on),
            };
            is_end && !before.ends_with(goes_on)
        })
}

/// Cuts the text to at most `max` characters (UTF-16 units, the larger of the ways to count), with
/// a mark at the end of a cut text.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max || text.encode_utf16().count() <= max {
        return text.to_owned();
    }
    let mark = if max > CUT_MARK.len() { CUT_MARK } else { "" };
    let mut left = max - mark.len();
    let fits = |letter: &char| {
        let fits = letter.len_utf16() <= left;
        left = left.saturating_sub(letter.len_utf16());
        fits
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    kept.push_str(mark);
    kept
}

/// Formats milliseconds since the epoch as `2020-09-21T12:05:44.000Z`.
fn iso(millis: i64) -> String {
    // A year beyond 9999 or before -9999 is not worth a failed delivery.
    let limit = if millis < 0 { Timestamp::MIN } else { Timestamp::MAX };
    format!("{:.3}", Timestamp::from_millisecond(millis).unwrap_or(limit))
}

/// Returns the version 5 UUID of the text in the URL namespace.
fn uuid5(text: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes()).to_string()
}

/// Returns the value as a string that contains JSON.
fn json_text(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_is_written_as_iso_8601() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_600_689_944_001, "2020-09-21T12:05:44.001Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso(millis), text);
        }
    }

    // python3 -c 'import uuid; print(uuid.uuid5(uuid.NAMESPACE_URL, "a"))'
    #[test]
    fn a_uuid_equals_the_one_that_python_makes() {
        assert_eq!(uuid5("a"), "e1407479-3136-56c0-9908-bb02fb0339e2");
    }

    #[test]
    fn a_reference_is_named_only_as_a_word_of_its_own() {
        for (text, names) in [
            ("main:C1:1.5:1", true),
            ("[main:C1:1.5:1]: version conflict", true),
            ("Alert t:s:main:C1:1.5:1 already exist", true),
            ("'main:C1:1.5:1'.", true),
            ("main:C1:1.5:1: exists", true),
            ("main:C1:1.5:10", false),
            ("main:C1:1.5:1:u1", false),
            ("main:C1:1.5:1.5", false),
            ("xmain:C1:1.5:1", false),
            ("my-main:C1:1.5:1", false),
            ("main:C1:1.5:10 and main:C1:1.5:1", true),
            ("\u{e9}main:C1:1.5:1\u{e9}", false),
            ("", false),
        ] {
            assert_eq!(is_naming(text, "main:C1:1.5:1"), names, "{text}");
        }
        assert!(!is_naming("text", ""));
    }

    proptest! {
        #[test]
        fn a_cut_text_is_a_beginning_within_the_limit(text in ".*", max in 0_usize..40) {
            let kept = cut(&text, max);
            prop_assert!(kept.encode_utf16().count() <= max);
            let begins = kept.strip_suffix(CUT_MARK).unwrap_or(&kept);
            prop_assert!(text.starts_with(begins));
            if text.encode_utf16().count() <= max {
                prop_assert_eq!(kept, text);
            }
        }
    }
}
