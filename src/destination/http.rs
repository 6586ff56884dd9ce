//! The destination that speaks HTTP, as its preset says: one request an attempt, one verdict.
//!
//! `delivery` calls it through [`Destination`], `cli` builds it and prints what it would send. It
//! never retries, never follows a redirect, and lets no secret into an error, an excerpt or a
//! printed request.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use minijinja::Value;
use reqwest::{
    Url,
    header::{self, AUTHORIZATION, CONTENT_TYPE, HeaderMap},
};
use sha2::{Digest, Sha256};

pub use self::settings::{HeaderValue, Settings, SetupError};
use crate::{
    alert::Alert,
    clock::Clock,
    destination::{
        DeliveryError, Destination, Receipt,
        access::{Access, secrets},
        address::{appended, bearer, header_text, sensitive, shown_url},
        answer::{Class, Reading},
        mail::{self, Mailbox, Recipients},
        preset::{Step, Transport},
        redact::{MASK, Redactor},
        rendered::{GIVE, RenderedRequest, SEND},
        response::{Received, chain, failed, lossy, receive, verdict},
        sample::sample_alert,
        signing::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, message_id},
        stdout,
    },
    http_client,
    ids::DestinationName,
};

mod settings;

/// Carries the alert's id: the same for every attempt.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// One receiver that speaks HTTP.
pub struct HttpDestination {
    settings: Settings,
    client: reqwest::Client,
    clock: Clock,
    /// What is made of the secrets, as they were when it was made.
    access: ArcSwap<Access>,
    /// Of mails.
    recipients: Recipients,
}

/// A request that is ready to be sent.
struct Request {
    method: reqwest::Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl fmt::Debug for HttpDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpDestination")
            .field("name", &self.settings.name)
            .field("preset", &self.settings.preset)
            .finish_non_exhaustive()
    }
}

impl HttpDestination {
    /// Sets it up and tries the preset on sample alerts; sends nothing.
    ///
    /// # Errors
    /// [`SetupError`]: every mistake that can be found without talking to the destination.
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
            let body = settings.preset.render(&sample_alert("text"), &access.params)?.body;
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

    /// The request that would be sent for the alert now, secrets masked.
    ///
    /// # Errors
    /// [`DeliveryError`] if no request can be made of it.
    pub fn render(&self, alert: &Alert) -> Result<RenderedRequest, DeliveryError> {
        let access = self.access().map_err(unreachable)?;
        let step = self.settings.preset.request();
        let mut request = self.request(&access, &access.shown_params, step, alert)?;
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

    fn request(
        &self,
        access: &Access,
        params: &Value,
        step: &Step,
        alert: &Alert,
    ) -> Result<Request, DeliveryError> {
        let preset = &self.settings.preset;
        let rendered = if std::ptr::eq(step, preset.request()) {
            preset.render(alert, params)
        } else {
            preset.render_step(step, alert, params)
        };
        let rendered = rendered.map_err(|error| alert_fault(error.to_string()))?;
        let id = header_text(&alert.id)?;
        let mut headers = access.headers.clone();
        for (name, value) in &step.headers {
            headers.entry(name).or_insert(value.clone());
        }
        if !rendered.body.is_empty() {
            let json = header::HeaderValue::from_static("application/json");
            headers.entry(CONTENT_TYPE).or_insert(json);
        }
        for mac in &access.hmac {
            headers.insert(&mac.header, sensitive(&mac.sign(&rendered.body))?);
        }
        if let Some(signer) = &access.signer {
            let now = self.clock.now().seconds();
            let message = message_id(id.to_str().unwrap_or_default());
            let signature = signer.sign(&message, now, &rendered.body);
            headers.insert(ID_HEADER, header_text(&message)?);
            headers.insert(TIMESTAMP_HEADER, now.into());
            headers.insert(SIGNATURE_HEADER, sensitive(&signature)?);
        }
        headers.insert(IDEMPOTENCY_HEADER, id);
        let mut url = appended(&access.url, &rendered);
        if !access.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&access.query);
        }
        Ok(Request { method: step.method.clone(), url, headers, body: rendered.body })
    }

    /// What the secrets say now: made anew when one of them has changed.
    fn access(&self) -> Result<Arc<Access>, SetupError> {
        let current = self.access.load_full();
        if current.is_current(&self.settings) {
            return Ok(current);
        }
        let fresh = Arc::new(Access::new(&self.settings)?);
        self.access.store(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn attempt(&self, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let access = self.access().map_err(unreachable)?;
        match self.settings.preset.transport() {
            Transport::Http => self.authorize_and_send(&access, alert).await,
            Transport::Email => {
                let mail =
                    self.request(&access, &access.params, self.settings.preset.request(), alert)?;
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
                let line =
                    self.request(&access, &access.params, self.settings.preset.request(), alert)?;
                stdout::print_line(line.body)
                    .await
                    .map_err(|error| DeliveryError::Unreachable(Box::new(error)))
            }
            Transport::Feed => Err(DeliveryError::Unreachable("it is read, not sent to".into())),
        }
    }

    /// With a token, if one is needed; one that is refused is not used again.
    async fn authorize_and_send(
        &self,
        access: &Access,
        alert: &Alert,
    ) -> Result<Receipt, DeliveryError> {
        let mut sender = Sender { access, redactor: access.redactor.clone(), token: None };
        let Some((source, cache)) = &access.token else {
            return self.ask_and_send(&mut sender, alert).await;
        };
        let token = cache.get(source, &self.client, &self.clock, &sender.redactor).await?;
        sender.redactor = sender.redactor.with(&token);
        sender.token = Some(bearer(&token)?);
        let outcome = self.ask_and_send(&mut sender, alert).await;
        if matches!(outcome, Err(DeliveryError::Auth(_))) {
            cache.forget(&token).await;
        }
        outcome
    }

    /// The question if the preset asks one, then the request.
    async fn ask_and_send(
        &self,
        sender: &mut Sender<'_>,
        alert: &Alert,
    ) -> Result<Receipt, DeliveryError> {
        let lookup = self.settings.preset.lookup();
        if let Some(lookup) = lookup.filter(|step| step.rules.applies(&sender.access.params)) {
            let (received, mut reading) = self.exchange(sender, lookup, alert).await?;
            // A question that is refused, or whose answer is too long to be read, says nothing
            // about the alert.
            let is_said = reading.class != Class::Delivered || received.is_whole;
            if reading.class == Class::AlertFault || !is_said {
                reading.class = Class::DestinationFault;
            }
            let found = reading.class == Class::Duplicate;
            let answered = verdict(received, &reading, &sender.redactor)?;
            if found {
                return Ok(answered);
            }
        }
        let (received, reading) =
            self.exchange(sender, self.settings.preset.request(), alert).await?;
        verdict(received, &reading, &sender.redactor)
    }

    async fn exchange(
        &self,
        sender: &mut Sender<'_>,
        step: &Step,
        alert: &Alert,
    ) -> Result<(Received, Reading), DeliveryError> {
        let Sender { access, redactor, token } = sender;
        let mut request = self.request(access, &access.params, step, alert)?;
        if access.signer.is_some() || !access.hmac.is_empty() {
            *redactor = redactor.with_signatures(&request.headers);
        }
        if let Some(token) = token {
            request.headers.insert(AUTHORIZATION, token.clone());
        }
        let sent = self
            .client
            .request(request.method, request.url)
            .headers(request.headers)
            .body(request.body)
            .send()
            .await;
        let response = sent.map_err(|error| failed(error, redactor))?;
        let received = receive(response, self.clock.now()).await;
        let reading = step.rules.read(&received.reply, &access.params, &alert.id);
        Ok((received, reading))
    }

    /// Reads secret files again. Returns whether one was rotated since `access` was made of them.
    fn refresh(&self, access: &Access) -> bool {
        for secret in secrets(&self.settings) {
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

    /// One attempt; if our credentials are refused and have just been rotated, one more.
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
}

#[async_trait]
impl Destination for HttpDestination {
    fn name(&self) -> &DestinationName {
        &self.settings.name
    }

    fn secrets_digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for secret in secrets(&self.settings) {
            let value = secret.reveal();
            hash.update(value.len().to_be_bytes());
            hash.update(value.as_bytes());
        }
        hash.finalize().into()
    }

    async fn deliver(&self, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let attempt = self.attempt_with_fresh_secrets(alert);
        tokio::time::timeout(self.settings.timeout, attempt)
            .await
            .unwrap_or(Err(DeliveryError::TimedOut))
    }

    fn problem(&self) -> String {
        self.recipients.problem()
    }
}

/// With what one attempt is made.
struct Sender<'a> {
    access: &'a Access,
    redactor: Redactor,
    token: Option<header::HeaderValue>,
}

fn alert_fault(reason: String) -> DeliveryError {
    DeliveryError::Refused { answer: None, reason }
}

fn unreachable(error: SetupError) -> DeliveryError {
    DeliveryError::Unreachable(Box::new(error))
}

#[cfg(test)]
mod tests;
