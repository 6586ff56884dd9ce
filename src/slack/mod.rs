//! Everything that knows Slack's wire formats, and nothing else does.
//!
//! A body passes [`signature`] as bytes, becomes text here, and is parsed once by [`envelope`].
//! What is stored is parsed again by [`message`]; its texts are read with [`mrkdwn`].

pub mod envelope;
pub mod layout;
mod lenient;
pub mod lifecycle;
pub mod manifest;
pub mod message;
pub mod mrkdwn;
pub mod signature;
pub mod web_api;

use std::{borrow::Cow, sync::LazyLock};

use memchr::memmem::Finder;

/// The text is not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub struct Unparsable;

/// Returns the body as text that a JSON parser takes, borrowed unless it needed repair.
///
/// Bytes that are not UTF-8 and halves of UTF-16 surrogate pairs (`\ud83d` alone) become U+FFFD: a
/// broken emoji in a message must not cost the incident beside it.
///
/// ```
/// use slack_soar_relay::slack::readable;
/// assert_eq!(readable(br#"{"a":"\ud83d\ude00"}"#), r#"{"a":"\ud83d\ude00"}"#);
/// assert_eq!(readable(br#"{"a":"\ud83d!"}"#), r#"{"a":"\ufffd!"}"#);
/// assert_eq!(readable(b"caf\xe9"), "caf\u{fffd}");
/// ```
pub fn readable(body: &[u8]) -> Cow<'_, str> {
    // The check alone is several times faster than the conversion, which is hardly ever needed.
    let text =
        str::from_utf8(body).map_or_else(|_broken| String::from_utf8_lossy(body), Cow::Borrowed);
    let broken = lone_surrogates(text.as_bytes());
    if broken.is_empty() {
        return text;
    }
    let mut repaired = text.into_owned();
    for at in broken {
        repaired.replace_range(at..at + ESCAPE_LEN, "\\ufffd");
    }
    Cow::Owned(repaired)
}

/// Length of an escape, `\uXXXX`.
const ESCAPE_LEN: usize = 6;

/// Returns the positions of escaped surrogates without a partner.
fn lone_surrogates(text: &[u8]) -> Vec<usize> {
    static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u"));
    let mut lone = Vec::new();
    let mut paired_until = 0;
    for at in ESCAPE.find_iter(text) {
        // The second half of a pair was found with the first.
        let Some(unit) = utf16_unit(text, at).filter(|_| at >= paired_until) else {
            continue;
        };
        if !(0xD800..=0xDFFF).contains(&unit) || is_escaped(text, at) {
            continue;
        }
        let next = utf16_unit(text, at + ESCAPE_LEN);
        if unit < 0xDC00 && next.is_some_and(|unit| (0xDC00..=0xDFFF).contains(&unit)) {
            paired_until = at + 2 * ESCAPE_LEN;
        } else {
            lone.push(at);
        }
    }
    lone
}

/// Returns the number in the `\uXXXX` at a position, if there is one.
fn utf16_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + ESCAPE_LEN)?.strip_prefix(b"\\u")?;
    let mut unit = [0; 2];
    hex::decode_to_slice(digits, &mut unit).ok()?;
    Some(u16::from_be_bytes(unit))
}

/// Returns whether the backslash at a position is itself escaped: an odd number of them stands
/// before it.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_in_order_is_borrowed() {
        for body in [r#"{"text":"caf\u00e9 \ud83d\ude00 \uD83D\uDE00"}"#, "", "\\u", "\\ud8"] {
            assert!(matches!(readable(body.as_bytes()), Cow::Borrowed(text) if text == body));
        }
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced() {
        for (body, text) in [
            (r"\ud800", r"\ufffd"),
            (r"\uDFFF", r"\ufffd"),
            (r"\ude00\ud83d", r"\ufffd\ufffd"),
            (r"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"),
            (r"\ud83d\ude00\ude00", r"\ud83d\ude00\ufffd"),
            (r"\ud83d\n\ude00", r"\ufffd\n\ufffd"),
            (r"\ud83dx\u0041", r"\ufffdx\u0041"),
        ] {
            assert_eq!(readable(body.as_bytes()), text, "{body}");
        }
    }

    #[test]
    fn an_escaped_backslash_before_ud800_is_no_surrogate() {
        for body in [r"\\ud800", r"\\\\ud800", r"C:\\ud83d"] {
            assert_eq!(readable(body.as_bytes()), body, "{body}");
        }
        assert_eq!(readable(br"\\\ud800"), r"\\\ufffd");
    }

    #[test]
    fn no_payload_lies_unused() {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut sources = String::new();
        for file in ["slack/envelope.rs", "slack/message.rs", "code_defender/matcher.rs"] {
            sources += &fs::read_to_string(format!("{root}/src/{file}")).unwrap();
        }
        sources += &fs::read_to_string(format!("{root}/src/alert/mapping.rs")).unwrap();
        for entry in fs::read_dir(format!("{root}/tests/data/slack")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let uses = sources.matches(&format!("(\"{name}\")")).count();
            assert_eq!(uses, 1, "{name} is used by exactly one test");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_in_a_string_it_can_be_parsed_afterwards(units: Vec<u16>) {
            let escapes: Vec<_> = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let escapes = escapes.concat();
            let text = readable(format!("\"{escapes}\"").as_bytes()).into_owned();
            let parsed: String = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parsed, String::from_utf16_lossy(&units));
        }

        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            readable(&body);
        }
    }
}
