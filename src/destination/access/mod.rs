//! The access that a destination's secrets give: address, headers, signature, and the texts to
//! mask. Made anew when a secret changes, so that the next request uses a rotated value.

use std::sync::Arc;

use minijinja::Value;
use reqwest::{
    Url,
    header::{self, HeaderMap, HeaderName},
};

use self::{
    auth::{BodyMac, Grants, grants},
    redact::{MASK, Redactor},
    signing::{NotBase64, Signer},
    token::{TokenCache, TokenSource},
};
use super::{
    error::SetupError,
    headers,
    preset::Transport,
    settings::{HeaderValue, Settings},
};
use crate::{
    http_client::{self, USER_AGENT},
    secret::Secret,
};

pub(super) mod auth;
pub(super) mod redact;
pub(super) mod signing;
pub(super) mod token;

/// Address, headers, signing key and redactor, derived from the current secrets.
pub(super) struct Access {
    versions: Vec<u64>,
    pub(super) url: Url,
    /// Keys that the preset appends to every query.
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) hmac: Vec<BodyMac>,
    pub(super) token: Option<(TokenSource, TokenCache)>,
    /// Parameters with the secrets filled in.
    pub(super) params: Value,
    /// Parameters with the secrets masked.
    pub(super) shown_params: Value,
    pub(super) signer: Option<Signer>,
    pub(super) redactor: Redactor,
}

impl Access {
    pub(super) fn new(settings: &Settings) -> Result<Self, SetupError> {
        // Read before the values: a secret that changes in between is read once more, and not
        // missed.
        let versions = versions(settings);
        let given = settings.url.reveal();
        let url = target(&given, settings.preset.transport())?;
        let (params, shown_params, mut hidden) = parameters(settings);
        let Grants { headers, query, hmac, token, hidden: granted } =
            grants(settings.preset.auth(), &params)?;
        let mut headers: HeaderMap = headers.into_iter().collect();
        hidden.extend(granted.into_iter().map(Arc::new));
        for (name, value) in &settings.headers {
            let (name, value) = configured_header(name, value, &mut hidden)?;
            headers.insert(name, value);
        }
        headers.insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
        let signing = settings.signing_secret.as_ref().map(Secret::reveal);
        let signer = signing.as_ref().map(|secret| Signer::new(secret));
        let signer = signer
            .transpose()
            .map_err(|error: NotBase64| SetupError::Signing(error.to_string()))?;
        hidden.extend(signing);
        hidden.extend(settings.client.proxy.clone().map(Arc::new));
        let others: Vec<&str> = hidden.iter().map(|secret| secret.as_str()).collect();
        Ok(Self {
            redactor: Redactor::new(&url, &given, &others),
            versions,
            url,
            query,
            headers,
            hmac,
            token: token.map(|source| (source, TokenCache::default())),
            params,
            shown_params,
            signer,
        })
    }

    /// Returns whether every secret still has the value that this access was made of.
    pub(super) fn is_current(&self, settings: &Settings) -> bool {
        self.versions == versions(settings)
    }
}

/// Returns the parameters as they are sent, the parameters as they are shown, and the secrets among
/// them.
fn parameters(settings: &Settings) -> (Value, Value, Vec<Arc<String>>) {
    let (mut sent, mut shown) = (settings.params.clone(), settings.params.clone());
    let mut hidden = Vec::new();
    for (name, secret) in &settings.secrets {
        let value = secret.reveal();
        sent.insert(name.clone(), value.as_str().into());
        shown.insert(name.clone(), MASK.into());
        hidden.push(value);
    }
    (settings.preset.params(&sent), settings.preset.params(&shown), hidden)
}

fn versions(settings: &Settings) -> Vec<u64> {
    settings.secrets().map(Secret::version).collect()
}

fn target(given: &str, transport: Transport) -> Result<Url, SetupError> {
    let url = Url::parse(given.trim())
        .map_err(|error| SetupError::Url(format!("cannot be read: {error}")))?;
    let schemes = transport.schemes();
    if !schemes.contains(&url.scheme()) {
        let schemes = schemes.join(":// or ");
        return Err(SetupError::Url(format!("must start with {schemes}://")));
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
    match value {
        HeaderValue::Plain(text) => headers::parse(name, text),
        HeaderValue::Secret(secret) => {
            let text = secret.reveal();
            let (name, mut value) = headers::parse(name, &text)?;
            value.set_sensitive(true);
            hidden.push(text);
            Ok((name, value))
        }
    }
}
