//! URLs of an incident: links that an analyst may click, and the hosts of scripts and pages.

use std::borrow::Cow;

use url::Url;

/// Length beyond which a text is not parsed as a URL. No browser loads a script from a longer one,
/// and parsing takes several times the length in memory.
const URL_MAX_BYTES: usize = 64 * 1024;

/// Domains of the vendor's console, under the former and the present name of the vendor.
const CONSOLE_DOMAINS: [&str; 2] = ["perimeterx.com", "humansecurity.com"];

/// Returns the trimmed text if it begins like an http or https URL. Analysts click on these links,
/// so no other scheme may pass.
pub(super) fn web_link(text: &str) -> Option<&str> {
    let text = text.trim();
    let web = ["https://", "http://"].iter().any(|scheme| starts_with_ignoring_case(text, scheme));
    web.then_some(text)
}

/// Returns whether a URL leads to Code Defender's console.
pub(super) fn is_console(url: &str) -> bool {
    let host = web_link(url).and_then(host_of).unwrap_or_default();
    CONSOLE_DOMAINS.iter().any(|domain| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Returns the host of a URL. A URL without a scheme is read as https.
pub(super) fn host_of(url: &str) -> Option<String> {
    if url.len() > URL_MAX_BYTES {
        return None;
    }
    if let Some(host) = plain_host(url) {
        return Some(host.to_owned());
    }
    let absolute = if url.contains("://") {
        Cow::Borrowed(url)
    } else {
        Cow::Owned(format!("https://{}", url.trim_start_matches('/')))
    };
    Some(Url::parse(&absolute).ok()?.host_str()?.to_owned())
}

/// The host of a URL that needs no parser to be read: most of them. No number may stand at its end,
/// where it would be an address, and no encoded name in it.
fn plain_host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let is_plain =
        |label: &str| !label.is_empty() && label.bytes().all(plain) && !label.starts_with("xn--");
    let last = host.rsplit('.').next()?;
    let is_name = last.starts_with(|first: char| first.is_ascii_lowercase());
    (is_name && host.split('.').all(is_plain)).then_some(host)
}

/// Returns whether a text starts with an ASCII prefix, ignoring case.
pub(super) fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_that_is_read_without_the_parser_is_the_parsers() {
        let urls = [
            "https://shop.example",
            "http://cdn.shop-2.example/a.js?x#y",
            "https://a.b?c",
            "http://x",
        ];
        for url in urls {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(plain_host(url), parsed.host_str(), "{url}");
        }
        let others = [
            "https://Shop.example",
            "http://127.1/",
            "http://a.0x7f/",
            "http://1/",
            "https://a..b/",
            "https://a.example:8443/",
            "https://user@a.example/",
            "https://xn--a.example/",
            "https://b\u{fc}cher.example/",
            "https:///a.js",
            "https://",
            "ftp://a.example/",
            "https://a.example./",
            "//a.example/",
            "https://a_b.example/",
            "https://a%2e.example/",
        ];
        for url in others {
            assert_eq!(plain_host(url), None, "{url}");
        }
    }

    proptest! {
        #[test]
        fn the_parser_agrees_with_every_plain_host(url in "https?://[a-z0-9.x-]{1,20}[/?#a-z:@]*") {
            if let Some(host) = plain_host(&url) {
                let parsed = Url::parse(&url).unwrap();
                prop_assert_eq!(parsed.host_str(), Some(host));
            }
        }
    }
}
