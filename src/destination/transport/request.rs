//! One request, made from an alert as the preset says.

use minijinja::Value;
use reqwest::{
    Method, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};

use super::address::{appended, header_text, sensitive};
use crate::{
    alert::Alert,
    clock::Timestamp,
    destination::{
        DeliveryError,
        access::{Access, signing::message_id},
        headers::{IDEMPOTENCY, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP},
        preset::{Preset, step::Step},
    },
};

/// A request that is ready to be sent.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Makes requests for one destination.
pub(super) struct RequestBuilder<'a> {
    pub(super) preset: &'a Preset,
    pub(super) access: &'a Access,
    /// Parameters, with their secrets filled in or masked.
    pub(super) params: &'a Value,
    /// Time of signing.
    pub(super) now: Timestamp,
}

impl RequestBuilder<'_> {
    /// Returns the request of that step for the alert.
    ///
    /// # Errors
    /// Returns [`DeliveryError::Refused`] if the preset cannot render this alert.
    pub(super) fn build(&self, step: &Step, alert: &Alert) -> Result<Request, DeliveryError> {
        let rendered = self
            .preset
            .render(step, alert, self.params)
            .map_err(|error| DeliveryError::Refused { answer: None, reason: error.to_string() })?;
        let id = header_text(&alert.id)?;
        let mut headers = self.access.headers.clone();
        for (name, value) in &step.headers {
            // A header of the configuration replaces that of the preset.
            headers.entry(name).or_insert(value.clone());
        }
        if !rendered.body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            headers.entry(CONTENT_TYPE).or_insert(json);
        }
        self.sign(&mut headers, &id, &rendered.body)?;
        headers.insert(IDEMPOTENCY, id);
        let mut url = appended(&self.access.url, &rendered);
        if !self.access.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.access.query);
        }
        Ok(Request { method: step.method.clone(), url, headers, body: rendered.body })
    }

    fn sign(
        &self,
        headers: &mut HeaderMap,
        id: &HeaderValue,
        body: &[u8],
    ) -> Result<(), DeliveryError> {
        for mac in &self.access.hmac {
            headers.insert(&mac.header, sensitive(&mac.sign(body))?);
        }
        if let Some(signer) = &self.access.signer {
            let seconds = self.now.seconds();
            let message = message_id(id.to_str().unwrap_or_default());
            let signature = signer.sign(&message, seconds, body);
            headers.insert(WEBHOOK_ID, header_text(&message)?);
            headers.insert(WEBHOOK_TIMESTAMP, seconds.into());
            headers.insert(WEBHOOK_SIGNATURE, sensitive(&signature)?);
        }
        Ok(())
    }
}
