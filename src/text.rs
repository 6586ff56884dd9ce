//! Text written by people: decodes files, with the position of the first invalid byte, and finds
//! the known word that is most similar to a misspelt one.

/// Error of text that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not UTF-8 text: byte 0x{byte:02X} at line {}, column {}", position.0, position.1)]
pub struct NotUtf8 {
    /// Line and column of the first invalid byte, both from 1. The column counts characters.
    pub position: (u64, u64),
    byte: u8,
}

/// Decodes UTF-8 and removes a leading byte order mark, which some editors write.
///
/// # Errors
/// [`NotUtf8`], with the position of the first invalid byte.
///
/// ```
/// use slack_soar_relay::text::decode;
/// assert_eq!(decode(b"\xef\xbb\xbfa: 1".to_vec()).unwrap(), "a: 1");
/// assert_eq!(decode(b"a: 1\nb: caf\xe9".to_vec()).unwrap_err().position, (2, 7));
/// ```
pub fn decode(bytes: Vec<u8>) -> Result<String, NotUtf8> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        }),
        Err(error) => {
            let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
            let good = String::from_utf8_lossy(good);
            let line = good.matches('\n').count() + 1;
            let column = good.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
            let byte = bad.first().copied().unwrap_or_default();
            Err(NotUtf8 { position: (number(line), number(column)), byte })
        }
    }
}

/// Returns the known word that is most similar to `word`, if one is similar enough to be suggested.
///
/// ```
/// use slack_soar_relay::text::nearest;
/// assert_eq!(nearest("webhok", ["webhook", "stdout"]), Some("webhook"));
/// assert_eq!(nearest("siem", ["webhook", "stdout"]), None);
/// assert_eq!(nearest("ta", ["name", "url"]), None);
/// ```
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let distance = |other: &&str| strsim::levenshtein(word, other);
    let nearest = known.into_iter().min_by_key(distance)?;
    (distance(&nearest) <= 1 + word.len().max(nearest.len()) / 3).then_some(nearest)
}
