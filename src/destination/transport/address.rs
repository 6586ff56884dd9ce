//! The address that a request goes to, and the part of it that may be shown.

use percent_encoding::{CONTROLS, utf8_percent_encode};
use reqwest::{Url, header::HeaderValue};

use crate::destination::{DeliveryError, access::redact::MASK, preset::step::Rendered};

/// Returns the destination's URL with the preset's additions to path and query.
pub(super) fn appended(base: &Url, rendered: &Rendered<'_>) -> Url {
    let mut url = base.clone();
    let whole = rendered.path.trim_end_matches('/');
    // A configured URL that already ends with the preset's path is complete.
    let is_whole = !whole.is_empty() && base.path().trim_end_matches('/').ends_with(whole);
    if !rendered.path.is_empty() && !is_whole {
        url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), rendered.path));
    }
    if !rendered.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&rendered.query);
    }
    url
}

/// Returns scheme and host, `***` for the path and query of `base`, and the preset's additions.
pub(super) fn shown_url(base: &Url, url: &Url) -> String {
    let added = |whole: Option<&str>, own: Option<&str>| {
        let whole = whole.unwrap_or_default();
        let rest = whole.strip_prefix(own.unwrap_or_default());
        rest.unwrap_or_default().to_owned()
    };
    let own_path = base.path().trim_end_matches('/');
    let path = added(Some(url.path()), Some(own_path));
    let query = added(url.query(), base.query());
    let path = match (own_path, path.as_str()) {
        ("", path) => path.to_owned(),
        (_, "/") => format!("/{MASK}"),
        (_, path) => format!("/{MASK}{path}"),
    };
    let query = match (base.query(), query.as_str()) {
        (None, "") => String::new(),
        (None, added) => format!("?{added}"),
        (Some(_), added) => format!("?{MASK}{added}"),
    };
    // Only the schemes of the web have an origin, and `smtp` does not.
    let origin = if url.origin().is_tuple() {
        url.origin().ascii_serialization()
    } else {
        format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
    };
    format!("{origin}{path}{query}")
}

/// Encodes a text for a header. Ids of real messages stay as they are; characters that a header
/// cannot carry are percent-encoded.
pub(super) fn header_text(text: &str) -> Result<HeaderValue, DeliveryError> {
    let text = utf8_percent_encode(text, CONTROLS).to_string();
    HeaderValue::try_from(text).map_err(|_never| DeliveryError::Refused {
        answer: None,
        reason: "its id cannot be a header".to_owned(),
    })
}

/// Returns the header of a token.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, DeliveryError> {
    sensitive(&format!("Bearer {token}"))
}

/// Returns a header that is never shown.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, DeliveryError> {
    let mut value = header_text(text)?;
    value.set_sensitive(true);
    Ok(value)
}
