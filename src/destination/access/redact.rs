//! Removes secrets from a receiver's answers before they are stored or shown: some receivers echo
//! the URL, a header, or the whole request.
//!
//! A secret is masked in every form in which a program shows it: percent-encoded, escaped for JSON
//! or HTML, as hex or base64, also inside a longer base64 text, and broken over lines. A word of an
//! address that may be harmless, such as `hooks`, is masked only where it stands as a value.

use std::{fmt::Write, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::header::HeaderMap;
use url::Url;

/// Text that replaces a secret.
pub(in crate::destination) const MASK: &str = "***";

/// Length below which texts are masked as values only: masking them anywhere would make every
/// answer unreadable.
const SHORTEST: usize = 4;

/// Length from which a part of an address is taken for a token and not for a word.
const TOKEN_SEGMENT: usize = 12;

/// Length from which letter case, blanks and line breaks of a text are ignored.
const SPLIT: usize = 8;

/// Length of the shortest signature.
const SIGNATURE: usize = 32;

/// Characters that percent-encoding changes: all but the unreserved ones (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Parts of addresses that are not secrets.
const PUBLIC_WORDS: [&str; 26] = [
    "alert",
    "alerts",
    "api",
    "case",
    "cases",
    "collector",
    "create",
    "enqueue",
    "event",
    "events",
    "hook",
    "hooks",
    "in",
    "incident",
    "incidents",
    "ingest",
    "integration",
    "integrations",
    "json",
    "public",
    "rest",
    "services",
    "true",
    "false",
    "webhook",
    "webhooks",
];

/// The pieces of text that must not be shown.
#[derive(Clone)]
pub(in crate::destination) struct Redactor {
    known: Arc<Pieces>,
    /// Secrets of one request, in addition.
    fresh: Vec<String>,
    /// Signatures of the request.
    signatures: Vec<String>,
}

/// Pieces by their first byte, in lower case.
#[derive(Default)]
struct Pieces(Vec<Vec<Piece>>);

#[derive(Clone, PartialEq, Eq)]
struct Piece {
    text: String,
    place: Place,
}

/// The places at which a piece is masked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Anywhere,
    /// A whole value: behind a slash, an equals sign, a colon or a quote.
    Value,
}

impl Redactor {
    /// Returns a redactor for everything in a destination's URL that may be a credential, and for
    /// the other secrets.
    pub(in crate::destination) fn new(url: &Url, given: &str, others: &[&str]) -> Self {
        let mut pieces = Pieces::default();
        let path = url.path();
        pieces.add_secret(given.trim());
        pieces.add_secret(url.as_str());
        // The path alone may be as short as `/`.
        if path.len() >= SHORTEST {
            pieces.add(path, Place::Value);
        }
        if let Some(query) = url.query() {
            pieces.add_secret(&format!("{path}?{query}"));
        }
        for pair in url.query().unwrap_or_default().split('&') {
            pieces.add(pair, Place::Anywhere);
        }
        for (_, value) in url.query_pairs() {
            pieces.add_word(&value);
        }
        for segment in path.split('/') {
            pieces.add_word(segment);
        }
        pieces.add_credentials(url);
        for secret in others {
            pieces.add_secret(secret);
            for word in secret.split_whitespace() {
                pieces.add_secret(word);
                pieces.add_basic(word);
            }
            // A secret may be a URL with credentials, such as that of a proxy.
            if let Ok(url) = Url::parse(secret) {
                pieces.add_credentials(&url);
            }
        }
        pieces.settle();
        Self { known: Arc::new(pieces), fresh: Vec::new(), signatures: Vec::new() }
    }

    /// Returns a redactor that also masks `secret`.
    pub(in crate::destination) fn with(&self, secret: &str) -> Self {
        let mut more = self.clone();
        more.fresh.push(secret.to_owned());
        more
    }

    /// Returns a redactor that also masks the signatures of a request, which did not exist before.
    pub(in crate::destination) fn with_signatures(&self, headers: &HeaderMap) -> Self {
        let secret = headers.values().filter(|value| value.is_sensitive());
        let texts = secret.filter_map(|value| value.to_str().ok());
        // `v1,` or `sha256=` stands before the signature itself.
        let parts = texts.flat_map(|text| text.split([',', '=']).chain([text]));
        let mut more = self.clone();
        more.signatures.extend(parts.filter(|part| part.len() >= SIGNATURE).map(str::to_owned));
        more
    }

    /// Returns the beginning of the text, at most `max` bytes, with every secret masked. A secret
    /// that crosses the end is masked as well. NUL, which a database may refuse, becomes U+FFFD.
    pub(in crate::destination) fn excerpt(&self, text: &str, max: usize) -> String {
        if text.is_empty() {
            return String::new();
        }
        let mut fresh = Pieces::default();
        self.fresh.iter().for_each(|secret| fresh.add_secret(secret));
        for signature in &self.signatures {
            // A signature is hexadecimal or base64, so few other forms of its text exist.
            let percent = utf8_percent_encode(signature, NON_ALPHANUMERIC).to_string();
            for form in [signature, &percent, &signature.replace('/', "\\/")] {
                fresh.add(form, Place::Anywhere);
            }
        }
        fresh.settle();
        let mut kept = String::with_capacity(text.len().min(max));
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let read = text.len() - rest.len();
            let before = text.get(..read).unwrap_or_default();
            let secret = self.known.at(before, rest).max(fresh.at(before, rest));
            let (shown, skipped) = match secret {
                Some(length) => (MASK, length),
                None if next == '\0' => ("\u{fffd}", 1),
                None => (rest.get(..next.len_utf8()).unwrap_or_default(), next.len_utf8()),
            };
            if kept.len() + shown.len() > max || read + next.len_utf8() > max {
                break;
            }
            kept.push_str(shown);
            rest = rest.get(skipped..).unwrap_or_default();
        }
        kept
    }
}

impl Pieces {
    /// Returns the length of the longest piece that begins at `at`.
    fn at(&self, before: &str, rest: &str) -> Option<usize> {
        let first = rest.bytes().next()?.to_ascii_lowercase();
        let pieces = self.0.get(usize::from(first))?;
        pieces.iter().filter_map(|piece| piece.length_at(before, rest)).max()
    }

    fn settle(&mut self) {
        for pieces in &mut self.0 {
            pieces.sort_by(|a, b| a.text.cmp(&b.text));
            pieces.dedup();
        }
    }

    fn add(&mut self, text: &str, place: Place) {
        let Some(first) = text.bytes().next() else { return };
        self.0.resize_with(usize::from(u8::MAX) + 1, Vec::new);
        if let Some(pieces) = self.0.get_mut(usize::from(first.to_ascii_lowercase())) {
            pieces.push(Piece { text: text.to_owned(), place });
        }
    }

    /// Adds a secret in all its forms.
    fn add_secret(&mut self, secret: &str) {
        let decoded = percent_decode_str(secret).decode_utf8_lossy();
        for secret in [secret, &*decoded] {
            let place = if secret.len() < SHORTEST { Place::Value } else { Place::Anywhere };
            self.add(secret, place);
            for form in forms(secret).into_iter().filter(|form| form.len() >= SHORTEST) {
                self.add(&form, place);
            }
        }
    }

    /// Adds a part of an address, as a token or as a word.
    fn add_word(&mut self, word: &str) {
        let decoded = percent_decode_str(word).decode_utf8_lossy();
        let is_version = word.strip_prefix('v').is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        });
        if is_version || PUBLIC_WORDS.contains(&&*word.to_ascii_lowercase()) {
            return;
        }
        if is_token(&decoded) {
            self.add_secret(word);
        } else if word.len() > 1 {
            self.add(word, Place::Value);
            self.add(&decoded, Place::Value);
        }
    }

    /// Returns user and password of a `Basic` header, whose secret is the encoded pair.
    fn add_basic(&mut self, word: &str) {
        let unpadded = word.trim_end_matches('=');
        let Ok(decoded) = BASE64_STANDARD_NO_PAD.decode(unpadded) else { return };
        if let Ok(pair) = String::from_utf8(decoded)
            && let Some((user, password)) = pair.split_once(':')
        {
            self.add_secret(&pair);
            self.add_word(user);
            self.add_secret(password);
        }
    }

    /// Adds user and password of an address, also in the form that HTTP sends.
    fn add_credentials(&mut self, url: &Url) {
        let decoded = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
        self.add_word(url.username());
        if let Some(password) = url.password() {
            self.add_secret(password);
            let pair = format!("{}:{}", decoded(url.username()), decoded(password));
            self.add_secret(&pair);
        }
    }
}

impl Piece {
    /// Returns how many bytes of `rest` the piece takes up, if it stands there.
    fn length_at(&self, before: &str, rest: &str) -> Option<usize> {
        let length = if self.text.len() < SPLIT {
            rest.starts_with(&self.text).then_some(self.text.len())?
        } else {
            split_length(&self.text, rest)?
        };
        let after = rest.get(length..).unwrap_or_default();
        (self.place == Place::Anywhere || is_value(before, after)).then_some(length)
    }
}

/// Returns how many bytes of `rest` the text takes up, whatever its case, and with blanks and line
/// breaks between its characters, written out or escaped.
fn split_length(text: &str, rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = 0;
    for wanted in text.bytes() {
        if at > 0 {
            at += gap(bytes.get(at..).unwrap_or_default(), wanted);
        }
        if !bytes.get(at)?.eq_ignore_ascii_case(&wanted) {
            return None;
        }
        at += 1;
    }
    // A match cannot end in the middle of a character.
    rest.is_char_boundary(at).then_some(at)
}

/// Returns the length of the blanks and line breaks, written out or escaped, before the wanted
/// byte.
fn gap(bytes: &[u8], wanted: u8) -> usize {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        at += match rest {
            [byte, ..] if *byte == wanted => return at,
            [b'\\', b'r' | b'n' | b't', ..] => 2,
            [byte, ..] if byte.is_ascii_whitespace() => 1,
            _ => return at,
        };
    }
}

/// Returns whether the text between these two is a whole value.
fn is_value(before: &str, after: &str) -> bool {
    let marks = ['/', '=', ':', '"', '\'', '`', '(', '[', '<', '>', ',', '@'];
    let trimmed = before.trim_end_matches(' ');
    let begins = trimmed.is_empty()
        || before.ends_with(marks)
        || trimmed.ends_with([':', '='])
        || before.ends_with(['\n', '\r', '\t']);
    let goes_on = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    begins && !after.starts_with(goes_on)
}

/// Returns whether a text mixes letters and digits, or upper and lower case, or is long.
fn is_token(text: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().any(kind);
    let is_mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
        || text.bytes().skip(1).any(|byte| byte.is_ascii_uppercase())
            && has(u8::is_ascii_lowercase)
        || text.len() > SHORTEST && text.bytes().all(|byte| byte.is_ascii_digit());
    text.len() >= TOKEN_SEGMENT || text.len() >= SHORTEST && is_mixed
}

/// Returns the encodings in which programs write a text.
fn forms(text: &str) -> Vec<String> {
    let mut forms = Vec::new();
    // In a query a blank may be a plus sign, and a URL within a URL is encoded twice.
    let percent = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let usual = utf8_percent_encode(text, RESERVED).to_string();
    forms.extend([usual.replace("%20", "+"), percent.replace('%', "%25"), percent, usual]);
    let json = escaped(text, |c| match c {
        '"' | '\\' | '/' => Some(format!("\\{c}")),
        _ => None,
    });
    let without_slashes = json.replace("\\/", "/");
    let ascii = escaped(text, |c| (!c.is_ascii_alphanumeric()).then(|| unicode(c)));
    let all = escaped(text, |c| Some(unicode(c)));
    forms.extend([json, without_slashes, ascii, all]);
    // Programs differ in how they write the quote and the slash in HTML.
    let entities = |quote: &str, slash: &str| {
        escaped(text, |c| match c {
            '&' => Some("&amp;".to_owned()),
            '<' => Some("&lt;".to_owned()),
            '>' => Some("&gt;".to_owned()),
            '"' => Some("&quot;".to_owned()),
            '\'' => Some(quote.to_owned()),
            '/' => Some(slash.to_owned()),
            _ => None,
        })
    };
    forms.extend([entities("&#39;", "/"), entities("&#x27;", "&#x2F;"), entities("&#34;", "/")]);
    forms.push(hex::encode(text));
    // Base64 turns three bytes into four characters, so a text looks different by where in the
    // three it begins.
    for lead in 0..3 {
        forms.extend(within_base64(text, lead));
    }
    forms.retain(|form| form != text);
    forms
}

/// Returns the part of the text's base64 that does not depend on its neighbours, in both alphabets,
/// if `lead` bytes stand before the text.
fn within_base64(text: &str, lead: usize) -> Vec<String> {
    let bytes = [vec![0; lead], text.as_bytes().to_vec()].concat();
    let encoded = BASE64_STANDARD_NO_PAD.encode(&bytes);
    let from = (lead * 8).div_ceil(6);
    let whole = bytes.len() * 8 / 6;
    let inner = encoded.get(from..whole).unwrap_or_default();
    // Short pieces of base64 stand in every answer.
    if inner.len() < SHORTEST + 1 {
        return Vec::new();
    }
    let url_safe = inner.replace('+', "-").replace('/', "_");
    let percent = utf8_percent_encode(inner, NON_ALPHANUMERIC).to_string();
    vec![url_safe, percent, inner.replace('/', "\\/"), inner.to_owned()]
}

fn escaped(text: &str, escape: impl Fn(char) -> Option<String>) -> String {
    text.chars().map(|c| escape(c).unwrap_or_else(|| c.to_string())).collect()
}

fn unicode(c: char) -> String {
    let mut text = String::new();
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a string does not fail.
        write!(text, "\\u{unit:04x}").unwrap_or_default();
    }
    text
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
            ("GET /hooks/abcdef HTTP/1.1", "GET /hooks/abcdef HTTP/1.1"),
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

    /// Answers as a hostile receiver, or one in debug mode, does: with the request as it came.
    #[test]
    fn a_request_that_is_echoed_whole_shows_no_secret() {
        let url = "https://relay:pw7@soar.example.com/hooks/k3y9/orca/in?sig=x9&mode=true";
        let redactor = Redactor::new(&url.parse().unwrap(), url, &["s3cr3t/+key"]);
        let basic = BASE64_STANDARD_NO_PAD.encode("relay:pw7");
        let echo = format!(
            "400 POST /hooks/k3y9/orca/in?sig=x9&mode=true\n\
             authorization: Basic {basic}\ncookie: a=s3cr3t%2F%2Bkey\n\
             {{\"routing_key\": \"s3cr3t\\/+key\", \"ok\": true, \"hooks\": \"in\"}}\n\
             unknown hook \"orca\" of relay; orca whales; path /orca, token k3y9"
        );
        let shown = redactor.excerpt(&echo, 4096);
        assert_eq!(
            shown,
            "400 POST ***\nauthorization: Basic ***\ncookie: a=***\n\
             {\"routing_key\": \"***\", \"ok\": true, \"hooks\": \"in\"}\n\
             unknown hook \"***\" of relay; orca whales; path /***, token ***"
        );
    }

    #[test]
    fn every_form_of_a_secret_is_masked() {
        let secret = "Pa55 <w\u{f6}rd>&'\"/\\+";
        let url = "https://soar.example.com/";
        let redactor = Redactor::new(&url.parse().unwrap(), url, &[secret]);
        let base64 = |text: String| BASE64_STANDARD_NO_PAD.encode(text);
        let mut echoes = forms(secret);
        echoes.push(hex::encode_upper(secret));
        for (before, after) in [("", ""), ("u:", ""), ("us:", ":x"), ("user:", "\n"), ("abc", "d")]
        {
            echoes.push(base64(format!("{before}{secret}{after}")));
        }
        let wrapped: Vec<_> = base64(format!("user:{secret}"))
            .bytes()
            .map(|byte| char::from(byte).to_string())
            .collect();
        echoes.push(wrapped.chunks(8).map(<[String]>::concat).collect::<Vec<_>>().join("\r\n"));
        echoes.push(wrapped.chunks(8).map(<[String]>::concat).collect::<Vec<_>>().join("\\n "));
        for echo in echoes {
            let shown = redactor.excerpt(&format!("{{{echo}}}"), 4096);
            let left = shown.trim_matches(['{', '}']).replace(MASK, "");
            assert!(left.len() <= 9 && shown.contains(MASK), "{echo} -> {shown}");
        }
    }

    #[test]
    fn user_and_password_of_a_basic_header_are_masked_in_every_form() {
        use base64::prelude::BASE64_STANDARD;
        let url = "https://soar.example.com/";
        let (user, password) = ("svc-relay7", "p@ss \"w\u{f6}rd/9");
        let pair = format!("{user}:{password}");
        let header = format!("Basic {}", BASE64_STANDARD.encode(&pair));
        for secret in [header.as_str(), header.trim_start_matches("Basic ")] {
            let redactor = Redactor::new(&url.parse().unwrap(), url, &[secret]);
            assert_eq!(redactor.excerpt(&header, 4096).replace("Basic ", ""), MASK);
            for text in [&pair, password, user] {
                let mut echoes = forms(text);
                echoes.push(text.to_owned());
                for echo in echoes {
                    let shown = redactor.excerpt(&format!("bad login ({echo})"), 4096);
                    let left = shown.replace(MASK, "");
                    assert!(left.len() <= "bad login ()".len() + 8, "{echo} -> {shown}");
                }
            }
        }
        let redactor = Redactor::new(&url.parse().unwrap(), url, &["Basic cmVsYXk6YWI="]);
        let shown =
            redactor.excerpt(r#"{"user": "relay", "password": "ab", "is": "absent"}"#, 4096);
        assert_eq!(shown, r#"{"user": "***", "password": "***", "is": "absent"}"#);
    }

    #[test]
    fn ordinary_words_stay_readable() {
        let url = "https://u:pass@soar.example.com/api/v2/alerts/team-red?strict=true&env=prod";
        let redactor = Redactor::new(&url.parse().unwrap(), url, &["ab"]);
        for text in [
            "the alerts of the api are in production, that is true",
            r#"{"ok": true, "alerts": [], "version": "v2"}"#,
            "team reddish absent about ab-c",
        ] {
            assert_eq!(redactor.excerpt(text, 4096), text);
        }
        assert_eq!(
            redactor.excerpt("at /team-red: strict=true, key: ab", 4096),
            "at /***: ***, key: ***"
        );
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
