//! What one destination is set to, and what can be wrong with it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Map;

use crate::{
    destination::{access::secrets, preset::Preset, template::TemplateError},
    http_client::{self, ClientError},
    ids::DestinationName,
    secret::Secret,
};

/// What the operator configured for one destination.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub name: DestinationName,
    /// How it is spoken to.
    pub preset: Arc<Preset>,
    /// Where it is. A secret: the URLs of webhooks hold their keys.
    pub url: Secret,
    /// The preset's parameters.
    pub params: Map<String, serde_json::Value>,
    /// The parameters that are given by reference.
    pub secrets: BTreeMap<String, Secret>,
    /// For one attempt, from the name lookup to the end of the answer.
    pub timeout: Duration,
    /// Further headers; they overrule the preset's.
    pub headers: Vec<(String, HeaderValue)>,
    /// Signs every request as Standard Webhooks: base64, with or without `whsec_`, or any
    /// other text as it is.
    pub signing_secret: Option<Secret>,
    /// How to reach it.
    pub client: http_client::Settings,
}

/// The value of a configured header.
#[derive(Clone, Debug)]
pub enum HeaderValue {
    /// May be shown.
    Plain(String),
    /// May not.
    Secret(Secret),
}

/// Why a destination cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL is none that a request can be sent to. Not shown: it is a secret.
    #[error("the url {0}")]
    Url(String),
    /// A header cannot be sent.
    #[error("the header `{name}` {reason}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// What the preset needs to prove who we are cannot be used.
    #[error("{0}")]
    Auth(String),
    /// The signing secret is none.
    #[error("{0}")]
    Signing(String),
    /// The parameters do not suit the preset.
    #[error("params: {}", _0.join("; "))]
    Params(Vec<String>),
    /// Something is set that only a request of HTTP has.
    #[error("`{0}` is for presets that speak HTTP, and this one does not: remove it")]
    OnlyHttp(&'static str),
    /// The preset makes no request with these parameters.
    #[error("the preset makes no request with these params")]
    Template(#[from] TemplateError),
    /// The HTTP client cannot be built.
    #[error("the connection cannot be set up")]
    Client(#[from] ClientError),
}

impl Settings {
    /// Every secret among them.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        secrets(self)
    }

    /// What would be ignored without a word is refused.
    pub(super) fn check_for_http(&self) -> Result<(), SetupError> {
        let client = &self.client;
        let set = [
            ("proxy", client.proxy.is_some()),
            ("client_cert_file", client.client_cert_file.is_some()),
            ("headers", !self.headers.is_empty()),
            ("signing_secret", self.signing_secret.is_some()),
        ];
        let needless = set.into_iter().find(|(_, is_set)| *is_set);
        needless.map_or(Ok(()), |(name, _)| Err(SetupError::OnlyHttp(name)))
    }
}
