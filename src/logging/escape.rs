//! Makes text of others fit for a log line or a terminal: every character that a terminal obeys or
//! a reader cannot see is shown as an escape.

/// Returns whether a terminal would obey the character, or a reader would not see it: controls (C0,
/// C1), line and paragraph separators, marks of writing direction, and characters without width.
///
/// ```
/// use slack_soar_relay::logging::escape::is_harmful;
/// assert!("\u{1b}\u{9b}\n\u{2028}\u{202e}\u{200b}\u{feff}".chars().all(is_harmful));
/// assert!(!"a é 渋 😀 \u{301}".chars().any(is_harmful));
/// ```
pub fn is_harmful(c: char) -> bool {
    match c {
        ' '..='~' => false,
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    }
}

/// Returns the text in one line, with harmful characters as JSON would escape them.
///
/// ```
/// use slack_soar_relay::logging::escape::escaped;
/// assert_eq!(escaped("a\u{1b}[2Jb\r\nc\u{202e}d"), r"a\u001b[2Jb\r\nc\u202ed");
/// ```
pub fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    push(&mut line, text, b"");
    line
}

/// Appends the text, escaped; the ASCII characters in `also` get a backslash.
pub(super) fn push(line: &mut String, text: &str, also: &[u8]) {
    let mut rest = text;
    let is_special = |byte: u8| !(b' '..=b'~').contains(&byte) || also.contains(&byte);
    while let Some(at) = rest.bytes().position(is_special) {
        // The byte is ASCII or the first of a character, so the text is not cut inside a character.
        let (plain, special) = rest.split_at(at);
        line.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            Some('\n') => line.push_str("\\n"),
            Some('\r') => line.push_str("\\r"),
            Some('\t') => line.push_str("\\t"),
            Some(c) if is_harmful(c) => push_code(line, c),
            Some(c) => {
                if c.is_ascii() {
                    line.push('\\');
                }
                line.push(c);
            }
            None => {}
        }
        rest = characters.as_str();
    }
    line.push_str(rest);
}

/// Appends the escapes of a character: JSON has escapes of 16 bits, so a character beyond U+FFFF
/// takes two.
fn push_code(line: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let digit = |shift: u16| char::from_digit(u32::from(*unit >> shift & 0xF), 16);
        line.push_str("\\u");
        line.extend([12, 8, 4, 0].into_iter().filter_map(digit));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_escaped_text_is_harmless_and_the_same_in_json(text in any::<String>()) {
            prop_assert!(!escaped(&text).chars().any(is_harmful));
            let mut json = "\"".to_owned();
            push(&mut json, &text, b"\"\\");
            json.push('"');
            prop_assert!(!json.chars().any(is_harmful));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
