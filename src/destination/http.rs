//! The destination that speaks HTTP, as its preset says: one request an attempt, one verdict.
//!
//! `delivery` calls it through [`Destination`], `cli` builds it and prints what it would send. It
//! never retries, never follows a redirect, and lets no secret into an error, an excerpt or a
//! printed request.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use minijinja::Value;
use percent_encoding::{CONTROLS, utf8_percent_encode};
use reqwest::{
    Url,
    header::{self, HeaderMap},
};
use serde_json::Map;

use crate::{
    alert::Alert,
    clock::Clock,
    destination::{
        DeliveryError, Destination, Receipt,
        access::{Access, secrets},
        preset::{Preset, Rendered},
        redact::MASK,
        response::{chain, failed, lossy, receive, verdict},
        signing::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER},
        template::TemplateError,
    },
    http_client::{self, ClientError},
    ids::DestinationName,
    secret::Secret,
};

/// Carries the alert's id: the same for every attempt.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

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
    /// For one attempt, from the name lookup to the end of the answer.
    pub timeout: Duration,
    /// Further headers; they overrule the preset's.
    pub headers: Vec<(String, HeaderValue)>,
    /// Signs every request as Standard Webhooks: `whsec_` and base64, or any other text as it is.
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
    /// The signing secret is none.
    #[error("{0}")]
    Signing(String),
    /// The parameters do not suit the preset.
    #[error("params: {}", _0.join("; "))]
    Params(Vec<String>),
    /// The preset makes no request with these parameters.
    #[error("the preset makes no request with these params")]
    Template(#[from] TemplateError),
    /// The HTTP client cannot be built.
    #[error("the connection cannot be set up")]
    Client(#[from] ClientError),
}

/// One receiver that speaks HTTP.
pub struct HttpDestination {
    settings: Settings,
    params: Value,
    client: reqwest::Client,
    clock: Clock,
    /// What is made of the secrets, as they were when it was made.
    access: ArcSwap<Access>,
}

/// A request that is ready to be sent.
struct Request {
    access: Arc<Access>,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A request as it may be shown: every secret is `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedRequest {
    /// `POST`.
    pub method: String,
    /// The scheme and host of the destination; its path and query are masked, what the preset
    /// appends to them is not.
    pub url: String,
    /// In the order of their names.
    pub headers: Vec<(String, String)>,
    /// JSON.
    pub body: String,
}

impl fmt::Display for RenderedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} HTTP/1.1", self.method, self.url)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}", self.body)
    }
}

impl fmt::Debug for HttpDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpDestination")
            .field("name", &self.settings.name)
            .field("preset", &self.settings.preset)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Every secret among them.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        secrets(self)
    }
}

impl HttpDestination {
    /// Sets it up and tries the preset on sample alerts; sends nothing.
    ///
    /// # Errors
    /// [`SetupError`]: every mistake that can be found without talking to the destination.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, SetupError> {
        let problems = settings.preset.check_params(&settings.params);
        if !problems.is_empty() {
            return Err(SetupError::Params(problems));
        }
        let params = settings.preset.params(&settings.params);
        settings.preset.try_out(&params)?;
        let access = Access::new(&settings)?;
        Ok(Self {
            client: http_client::build(&settings.client)?,
            access: ArcSwap::from_pointee(access),
            settings,
            params,
            clock,
        })
    }

    /// The request that would be sent for the alert now, secrets masked.
    ///
    /// # Errors
    /// [`DeliveryError`] if no request can be made of it.
    pub fn render(&self, alert: &Alert) -> Result<RenderedRequest, DeliveryError> {
        let request = self.request(alert)?;
        let mut headers: Vec<_> = request
            .headers
            .iter()
            .map(|(name, value)| {
                let shown = if value.is_sensitive() { MASK.into() } else { lossy(value) };
                (name.to_string(), shown)
            })
            .collect();
        headers.sort();
        Ok(RenderedRequest {
            method: self.settings.preset.method().to_string(),
            url: shown_url(&request.access.url, &request.url),
            headers,
            body: String::from_utf8_lossy(&request.body).into_owned(),
        })
    }

    fn request(&self, alert: &Alert) -> Result<Request, DeliveryError> {
        let access = self.access().map_err(unreachable)?;
        let rendered = self.settings.preset.render(alert, &self.params);
        let rendered = rendered.map_err(|error| alert_fault(error.to_string()))?;
        let id = header_text(&alert.id)?;
        let mut headers = access.headers.clone();
        if let Some(signer) = &access.signer {
            let now = self.clock.now().seconds();
            let signature = signer.sign(id.to_str().unwrap_or_default(), now, &rendered.body);
            let mut signature = header_text(&signature)?;
            signature.set_sensitive(true);
            headers.insert(ID_HEADER, id.clone());
            headers.insert(TIMESTAMP_HEADER, now.into());
            headers.insert(SIGNATURE_HEADER, signature);
        }
        headers.insert(IDEMPOTENCY_HEADER, id);
        Ok(Request { url: appended(&access.url, &rendered), access, headers, body: rendered.body })
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
        let request = self.request(alert)?;
        let method = self.settings.preset.method().clone();
        let sent = self
            .client
            .request(method, request.url)
            .headers(request.headers)
            .body(request.body)
            .send()
            .await;
        let redactor = &request.access.redactor;
        let response = sent.map_err(|error| failed(error, redactor))?;
        let received = receive(response, self.clock.now()).await;
        let reading = self.settings.preset.rules().read(&received.reply, &self.params);
        verdict(received, &reading, redactor)
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
        if matches!(outcome, Err(DeliveryError::Auth(_))) && self.refresh(&access) {
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

    async fn deliver(&self, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let attempt = self.attempt_with_fresh_secrets(alert);
        tokio::time::timeout(self.settings.timeout, attempt)
            .await
            .unwrap_or(Err(DeliveryError::TimedOut))
    }
}

/// The destination's URL with what the preset appends to its path and query.
fn appended(base: &Url, rendered: &Rendered<'_>) -> Url {
    let mut url = base.clone();
    if !rendered.path.is_empty() {
        url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), rendered.path));
    }
    if !rendered.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&rendered.query);
    }
    url
}

/// Scheme and host, `***` for the path and query of `base`, and what the preset appended.
fn shown_url(base: &Url, url: &Url) -> String {
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
    format!("{}{path}{query}", url.origin().ascii_serialization())
}

/// A text as a header can carry it. Ids of real messages are left as they are; what a header
/// cannot carry is percent-encoded.
fn header_text(text: &str) -> Result<header::HeaderValue, DeliveryError> {
    let text = utf8_percent_encode(text, CONTROLS).to_string();
    header::HeaderValue::try_from(text)
        .map_err(|_never_after_encoding| alert_fault("its id cannot be a header".to_owned()))
}

fn alert_fault(reason: String) -> DeliveryError {
    DeliveryError::Alert { answer: None, reason }
}

fn unreachable(error: SetupError) -> DeliveryError {
    DeliveryError::Unreachable(Box::new(error))
}

#[cfg(test)]
mod tests;
