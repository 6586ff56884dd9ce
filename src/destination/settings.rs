//! The settings of one destination.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Map;

use super::{
    error::SetupError,
    preset::{FEED_TOKEN, Preset, Transport},
};
use crate::{http_client, ids::DestinationName, secret::Secret};

/// The settings that an operator configured for one destination.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the destination.
    pub name: DestinationName,
    /// Preset that describes the receiver.
    pub preset: Arc<Preset>,
    /// Address of the receiver. A secret, since the URLs of webhooks contain their keys.
    pub url: Secret,
    /// Parameters of the preset.
    pub params: Map<String, serde_json::Value>,
    /// Parameters that are given by reference.
    pub secrets: BTreeMap<String, Secret>,
    /// Time limit of one attempt, from the name look-up to the end of the answer.
    pub timeout: Duration,
    /// Further headers, which overrule the preset's.
    pub headers: Vec<(String, HeaderValue)>,
    /// Secret that signs every request as Standard Webhooks: base64, with or without `whsec_`, or
    /// any other text as it is.
    pub signing_secret: Option<Secret>,
    /// Settings of the HTTP client.
    pub client: http_client::Settings,
}

/// The value of a configured header.
#[derive(Clone, Debug)]
pub enum HeaderValue {
    /// Text that may be shown.
    Plain(String),
    /// Secret that may not be shown.
    Secret(Secret),
}

impl Settings {
    /// Returns every secret of the destination.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let headers = self.headers.iter().filter_map(|(_, value)| match value {
            HeaderValue::Secret(secret) => Some(secret),
            HeaderValue::Plain(_) => None,
        });
        std::iter::once(&self.url)
            .chain(headers)
            .chain(self.secrets.values())
            .chain(&self.signing_secret)
    }

    /// Returns the secret that opens the feed, if this destination is one that is read.
    pub fn feed_token(&self) -> Option<&Secret> {
        let is_read = self.preset.transport() == Transport::Feed;
        self.secrets.get(FEED_TOKEN).filter(|_token| is_read)
    }

    /// Refuses settings that only a request over HTTP has, and would otherwise be ignored.
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
