//! What a destination's secrets come to: where to send, with which headers, signed how, and what
//! to mask. Made anew when a secret changes, so that a rotated value is used by the next request.

use std::sync::Arc;

use reqwest::{
    Url,
    header::{self, HeaderMap, HeaderName},
};

use crate::{
    destination::{
        http::{HeaderValue, IDEMPOTENCY_HEADER, Settings, SetupError},
        redact::Redactor,
        signing::{ID_HEADER, NotBase64, SIGNATURE_HEADER, Signer, TIMESTAMP_HEADER},
    },
    http_client::{self, USER_AGENT},
    secret::Secret,
};

/// Headers that the relay or HTTP itself sets, and nobody else may.
pub(super) const RESERVED: [&str; 9] = [
    IDEMPOTENCY_HEADER,
    ID_HEADER,
    TIMESTAMP_HEADER,
    SIGNATURE_HEADER,
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "user-agent",
];

/// What the secrets say: where to send, with which headers, signed how, and what to mask.
pub(super) struct Access {
    versions: Vec<u64>,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) signer: Option<Signer>,
    pub(super) redactor: Redactor,
}

impl Access {
    pub(super) fn new(settings: &Settings) -> Result<Self, SetupError> {
        // Before the values: one that changes in between is only read once more.
        let versions = versions(settings);
        let given = settings.url.reveal();
        let url = target(&given)?;
        let mut headers: HeaderMap = settings.preset.headers().iter().cloned().collect();
        let mut hidden = Vec::new();
        for (name, value) in &settings.headers {
            let (name, value) = configured_header(name, value, &mut hidden)?;
            headers.insert(name, value);
        }
        headers
            .entry(header::CONTENT_TYPE)
            .or_insert(header::HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
        let signing = settings.signing_secret.as_ref().map(Secret::reveal);
        let signer = signing.as_ref().map(|secret| Signer::new(secret));
        let signer = signer
            .transpose()
            .map_err(|error: NotBase64| SetupError::Signing(error.to_string()))?;
        hidden.extend(signing);
        let others: Vec<&str> = hidden.iter().map(|secret| secret.as_str()).collect();
        Ok(Self { redactor: Redactor::new(&url, &given, &others), versions, url, headers, signer })
    }

    /// Whether every secret still has the value that this was made of.
    pub(super) fn is_current(&self, settings: &Settings) -> bool {
        self.versions == versions(settings)
    }
}

/// Every secret of the destination.
pub(super) fn secrets(settings: &Settings) -> impl Iterator<Item = &Secret> {
    let headers = settings.headers.iter().filter_map(|(_, value)| match value {
        HeaderValue::Secret(secret) => Some(secret),
        HeaderValue::Plain(_) => None,
    });
    std::iter::once(&settings.url).chain(headers).chain(&settings.signing_secret)
}

fn versions(settings: &Settings) -> Vec<u64> {
    secrets(settings).map(Secret::version).collect()
}

fn target(given: &str) -> Result<Url, SetupError> {
    let url = Url::parse(given.trim())
        .map_err(|error| SetupError::Url(format!("cannot be read: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(SetupError::Url("must start with https:// or http://".into()));
    }
    http_client::check_host(&url)
        .map_err(|error| SetupError::Url(format!("is refused: {error}")))?;
    Ok(url)
}

fn configured_header(
    name: &str,
    value: &HeaderValue,
    hidden: &mut Vec<Arc<String>>,
) -> Result<(HeaderName, header::HeaderValue), SetupError> {
    let wrong = |reason| SetupError::Header { name: name.to_owned(), reason };
    let header = HeaderName::try_from(name).map_err(|_wrong| wrong("has a name HTTP forbids"))?;
    if RESERVED.contains(&header.as_str()) {
        return Err(wrong("is set by the relay itself: remove it"));
    }
    let parse = |text: &str| {
        header::HeaderValue::from_str(text)
            .map_err(|_wrong| wrong("has a value HTTP forbids, such as a line break"))
    };
    let value = match value {
        HeaderValue::Plain(text) => parse(text)?,
        HeaderValue::Secret(secret) => {
            let text = secret.reveal();
            let mut value = parse(&text)?;
            value.set_sensitive(true);
            hidden.push(text);
            value
        }
    };
    Ok((header, value))
}
