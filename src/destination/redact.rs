//! Takes secrets out of what a receiver answers, before anybody sees it: some echo the URL that
//! they were called with, or the header that they did not like.

use percent_encoding::percent_decode_str;
use reqwest::header::HeaderMap;
use url::Url;

/// What stands in a secret's place.
pub(super) const MASK: &str = "***";

/// Shorter pieces are no secrets, and masking them would make every answer unreadable.
const SHORTEST: usize = 4;

/// A path segment this long is more likely a token than a word.
const TOKEN_SEGMENT: usize = 12;

/// No signature is shorter.
const SIGNATURE: usize = 32;

/// The pieces of text that must not be shown.
#[derive(Clone)]
pub(super) struct Redactor(Vec<String>);

impl Redactor {
    /// Everything in a destination's URL that may be a credential, and the other secrets.
    pub(super) fn new(url: &Url, given: &str, others: &[&str]) -> Self {
        let mut pieces = vec![given.to_owned(), url.to_string()];
        let path = url.path();
        let after_host = url.query().map(|query| format!("{path}?{query}"));
        pieces.extend(after_host);
        let pairs = url.query().unwrap_or_default().split('&');
        pieces
            .extend(pairs.map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value).into()));
        pieces.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        let segments = path.split('/').filter(|part| part.len() >= TOKEN_SEGMENT);
        pieces.extend(segments.map(str::to_owned));
        pieces.extend([url.username(), url.password().unwrap_or_default()].map(str::to_owned));
        for secret in others {
            pieces.push((*secret).to_owned());
            pieces.extend(secret.split_whitespace().map(str::to_owned));
        }
        Self::from_pieces(pieces)
    }

    /// With one more secret.
    pub(super) fn with(&self, secret: &str) -> Self {
        let mut pieces = self.0.clone();
        pieces.push(secret.to_owned());
        Self::from_pieces(pieces)
    }

    /// With what proves who sent a request: its signatures were never seen before.
    pub(super) fn with_signatures(&self, headers: &HeaderMap) -> Self {
        let secret = headers.values().filter(|value| value.is_sensitive());
        let texts = secret.filter_map(|value| value.to_str().ok());
        // `v1,` or `sha256=` stands before the signature itself.
        let parts = texts.flat_map(|text| text.split([',', '=']).chain([text]));
        let long = parts.filter(|part| part.len() >= SIGNATURE);
        Self::from_pieces(self.0.iter().cloned().chain(long.map(str::to_owned)).collect())
    }

    fn from_pieces(mut pieces: Vec<String>) -> Self {
        let decoded = |piece: &String| percent_decode_str(piece).decode_utf8_lossy().into_owned();
        let as_json = |piece: &String| piece.replace('/', "\\/");
        let spelled: Vec<String> =
            pieces.iter().flat_map(|piece| [decoded(piece), as_json(piece)]).collect();
        pieces.extend(spelled);
        pieces.retain(|piece| piece.len() >= SHORTEST);
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
        pieces.dedup();
        Self(pieces)
    }

    /// The first `max` bytes of the text, at most, with every secret masked. A secret that crosses
    /// the end is masked as well. NUL, which a database may not take, becomes U+FFFD.
    pub(super) fn excerpt(&self, text: &str, max: usize) -> String {
        let mut kept = String::with_capacity(text.len().min(max));
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let secret = self.0.iter().find(|secret| rest.starts_with(secret.as_str()));
            let (shown, skipped) = match secret {
                Some(secret) => (MASK, secret.len()),
                None if next == '\0' => ("\u{fffd}", 1),
                None => (rest.get(..next.len_utf8()).unwrap_or_default(), next.len_utf8()),
            };
            let read = text.len() - rest.len();
            if kept.len() + shown.len() > max || read + next.len_utf8() > max {
                break;
            }
            kept.push_str(shown);
            rest = rest.get(skipped..).unwrap_or_default();
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str =
        "https://u:pass%21word@soar.example.com/hooks/0123456789abcdef/in?api_key=k3y%2Fk3y&v=1";

    fn redactor() -> Redactor {
        Redactor::new(&URL.parse().unwrap(), URL, &["Bearer t0ken-of-ours"])
    }

    #[test]
    fn every_way_of_echoing_a_secret_is_masked() {
        let redactor = redactor();
        for (echo, shown) in [
            (URL, "***"),
            ("no such hook: 0123456789abcdef", "no such hook: ***"),
            ("POST /hooks/0123456789abcdef/in?api_key=k3y%2Fk3y&v=1 failed", "POST *** failed"),
            ("bad key k3y%2Fk3y", "bad key ***"),
            ("bad key k3y/k3y", "bad key ***"),
            (r"bad key k3y\/k3y", "bad key ***"),
            ("bad token t0ken-of-ours", "bad token ***"),
            ("Bearer t0ken-of-ours", "***"),
            ("pass!word pass%21word", "*** ***"),
            ("v is 1", "v is 1"),
        ] {
            assert_eq!(redactor.excerpt(echo, 4096), shown, "{echo}");
        }
    }

    #[test]
    fn a_secret_at_the_cut_is_not_shown_in_part() {
        let redactor = redactor();
        let text = format!("{}t0ken-of-ours", "x".repeat(10));
        for max in 0..=text.len() {
            let shown = redactor.excerpt(&text, max);
            assert!(shown.len() <= max);
            assert!(!shown.contains('t'), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn an_excerpt_is_a_bounded_beginning(text in any::<String>(), max in 0_usize..64) {
            let shown = redactor().excerpt(&text, max);
            prop_assert!(shown.len() <= max);
            if !text.contains('\0') {
                prop_assert!(text.starts_with(&shown));
            }
        }
    }
}
