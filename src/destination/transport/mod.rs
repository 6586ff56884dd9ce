//! A destination that alerts are sent to, over HTTP, as a mail, or to standard output.
//!
//! `delivery` calls [`Destination::deliver`]; `cli` builds the destination and prints what it would
//! send. A destination never retries, never follows a redirect, and never shows a secret in an
//! error, an excerpt or a printed request.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use minijinja::Value;
use reqwest::{Client, header::AUTHORIZATION};
use sha2::{Digest, Sha256};

use self::{
    address::{bearer, shown_url},
    http::Exchange,
    mail::{Mailbox, Recipients},
    request::{Request, RequestBuilder},
    response::{chain, lossy},
};
use super::{
    DeliveryError, Receipt,
    access::{Access, redact::MASK},
    error::SetupError,
    preset::{Transport, sample::sample_alert},
    rendered::{GIVE, RenderedRequest, SEND},
    settings::Settings,
};
use crate::{alert::Alert, clock::Clock, http_client, ids::DestinationName};

mod address;
mod http;
pub mod mail;
#[cfg(test)]
pub(super) mod receiver;
mod request;
pub(super) mod response;
mod stdout;
#[cfg(test)]
mod tests;

/// One receiver of alerts, ready to send.
pub struct Destination {
    settings: Settings,
    client: Client,
    clock: Clock,
    /// Address and credentials, made anew when a secret has changed.
    access: ArcSwap<Access>,
    /// Recipients of mails.
    recipients: Recipients,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("name", &self.settings.name)
            .field("preset", &self.settings.preset)
            .finish_non_exhaustive()
    }
}

impl Destination {
    /// Sets up a destination and renders the preset for sample alerts; sends nothing.
    ///
    /// # Errors
    /// Returns [`SetupError`] for every mistake that can be found without talking to the receiver.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, SetupError> {
        let problems = settings.preset.check_params(&settings.params, &settings.secrets);
        if !problems.is_empty() {
            let problems = problems.into_iter().map(|(_name, problem)| problem);
            return Err(SetupError::Params(problems.collect()));
        }
        let access = Access::new(&settings)?;
        settings.preset.try_out(&access.shown_params)?;
        if settings.preset.transport() != Transport::Http {
            settings.check_for_http()?;
        }
        if settings.preset.transport() == Transport::Email {
            let body = settings
                .preset
                .render(settings.preset.request(), &sample_alert("text"), &access.params)?
                .body;
            mail::check_server(&access.url).map_err(SetupError::Url)?;
            mail::check(&body).map_err(|problem| SetupError::Params(vec![problem]))?;
        }
        Ok(Self {
            client: http_client::build(&settings.client)?,
            access: ArcSwap::from_pointee(access),
            recipients: Recipients::default(),
            settings,
            clock,
        })
    }

    /// Returns the configured name.
    pub fn name(&self) -> &DestinationName {
        &self.settings.name
    }

    /// Returns a digest of the secrets in use, which changes when a secret is rotated.
    pub fn secrets_digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for secret in self.settings.secrets() {
            let value = secret.reveal();
            hash.update(value.len().to_be_bytes());
            hash.update(value.as_bytes());
        }
        hash.finalize().into()
    }

    /// Returns the fault that does not stop deliveries, such as a refused recipient; or empty.
    pub fn problem(&self) -> String {
        self.recipients.problem()
    }

    /// Returns the request that would be sent for the alert now, with secrets masked.
    ///
    /// # Errors
    /// [`DeliveryError`] if no request can be made of the alert.
    pub fn render(&self, alert: &Alert) -> Result<RenderedRequest, DeliveryError> {
        let access = self.access().map_err(unreachable)?;
        let mut request = self.request(&access, &access.shown_params, alert)?;
        if access.token.is_some() {
            request.headers.insert(AUTHORIZATION, bearer("")?);
        }
        let mut headers: Vec<_> = request
            .headers
            .iter()
            .map(|(name, value)| {
                let shown = if value.is_sensitive() { MASK.into() } else { lossy(value) };
                (name.to_string(), shown)
            })
            .collect();
        headers.sort();
        let method = match self.settings.preset.transport() {
            Transport::Http => request.method.as_str(),
            Transport::Email | Transport::Stdout => {
                headers.clear();
                SEND
            }
            Transport::Feed => {
                headers.retain(|(name, _)| name == AUTHORIZATION.as_str());
                GIVE
            }
        };
        Ok(RenderedRequest {
            method: method.to_owned(),
            url: shown_url(&access.url, &request.url),
            headers,
            body: String::from_utf8_lossy(&request.body).into_owned(),
        })
    }

    /// Makes one attempt. The same alert may be delivered again: its id is the idempotency key.
    ///
    /// # Errors
    /// Returns [`DeliveryError`], whose [`DeliveryError::advice`] says what to do.
    pub async fn deliver(&self, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let attempt = self.attempt_with_fresh_secrets(alert);
        tokio::time::timeout(self.settings.timeout, attempt)
            .await
            .unwrap_or(Err(DeliveryError::TimedOut))
    }

    /// Makes one attempt, and a second one if the credentials are refused and were just rotated.
    async fn attempt_with_fresh_secrets(&self, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let access = self.access().map_err(unreachable)?;
        let outcome = self.attempt(alert).await;
        if !matches!(outcome, Err(DeliveryError::Auth(_))) {
            return outcome;
        }
        if self.refresh(&access) {
            tracing::info!(
                destination = %self.settings.name,
                "a secret of {} was rotated: the attempt that it refused is made again",
                self.settings.name,
            );
            return self.attempt(alert).await;
        }
        outcome
    }

    async fn attempt(&self, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let access = self.access().map_err(unreachable)?;
        match self.settings.preset.transport() {
            Transport::Http => {
                let exchange = Exchange {
                    client: &self.client,
                    clock: &self.clock,
                    preset: &self.settings.preset,
                    access: &access,
                    redactor: access.redactor.clone(),
                    token: None,
                };
                exchange.deliver(alert).await
            }
            Transport::Email => {
                let mail = self.request(&access, &access.params, alert)?;
                let mailbox = Mailbox {
                    name: &self.settings.name,
                    server: &access.url,
                    way: &self.settings.client,
                    redactor: &access.redactor,
                    recipients: &self.recipients,
                };
                mailbox.send(&alert.id, &mail.body).await
            }
            Transport::Stdout => {
                let line = self.request(&access, &access.params, alert)?;
                stdout::print_line(line.body)
                    .await
                    .map_err(|error| DeliveryError::Unreachable(Box::new(error)))
            }
            Transport::Feed => Err(DeliveryError::Unreachable("it is read, not sent to".into())),
        }
    }

    fn request(
        &self,
        access: &Access,
        params: &Value,
        alert: &Alert,
    ) -> Result<Request, DeliveryError> {
        let preset = &self.settings.preset;
        let builder = RequestBuilder { preset, access, params, now: self.clock.now() };
        builder.build(preset.request(), alert)
    }

    /// Returns the access that the secrets give now.
    fn access(&self) -> Result<Arc<Access>, SetupError> {
        let current = self.access.load_full();
        if current.is_current(&self.settings) {
            return Ok(current);
        }
        let fresh = Arc::new(Access::new(&self.settings)?);
        self.access.store(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Reads secret files again. Returns whether one was rotated since `access` was made of them.
    fn refresh(&self, access: &Access) -> bool {
        for secret in self.settings.secrets() {
            if let Err(error) = secret.refresh() {
                tracing::warn!(
                    destination = %self.settings.name,
                    error = chain(&error),
                    "cannot read a secret of {} again; the old value stays in use",
                    self.settings.name,
                );
            }
        }
        !access.is_current(&self.settings)
    }
}

fn unreachable(error: SetupError) -> DeliveryError {
    DeliveryError::Unreachable(Box::new(error))
}
