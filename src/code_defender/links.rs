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
    let absolute = if url.contains("://") {
        Cow::Borrowed(url)
    } else {
        Cow::Owned(format!("https://{}", url.trim_start_matches('/')))
    };
    Some(Url::parse(&absolute).ok()?.host_str()?.to_owned())
}

/// Returns whether a text starts with an ASCII prefix, ignoring case.
pub(super) fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}
