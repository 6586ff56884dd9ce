//! One attempt over HTTP: a token and a look-up if the preset asks for them, then the request.

use reqwest::{
    Client,
    header::{AUTHORIZATION, HeaderValue},
};

use super::{
    address::bearer,
    request::RequestBuilder,
    response::{Received, failed, receive, verdict},
};
use crate::{
    alert::Alert,
    clock::Clock,
    destination::{
        DeliveryError, Receipt,
        access::{Access, redact::Redactor},
        preset::{
            Preset,
            answer::{Class, Reading},
            step::Step,
        },
    },
};

/// One attempt at one destination.
pub(super) struct Exchange<'a> {
    pub(super) client: &'a Client,
    pub(super) clock: &'a Clock,
    pub(super) preset: &'a Preset,
    pub(super) access: &'a Access,
    pub(super) redactor: Redactor,
    pub(super) token: Option<HeaderValue>,
}

impl Exchange<'_> {
    /// Delivers the alert, with a token if one is needed. A token that is refused is not used
    /// again.
    ///
    /// # Errors
    /// Returns [`DeliveryError`] if there is no answer, or the answer does not take the alert.
    pub(super) async fn deliver(mut self, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let Some((source, cache)) = &self.access.token else {
            return self.look_up_and_send(alert).await;
        };
        let token = cache.get(source, self.client, self.clock, &self.redactor).await?;
        self.redactor = self.redactor.with(&token);
        self.token = Some(bearer(&token)?);
        let outcome = self.look_up_and_send(alert).await;
        if matches!(outcome, Err(DeliveryError::Auth(_))) {
            cache.forget(&token).await;
        }
        outcome
    }

    async fn look_up_and_send(&mut self, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let lookup = self.preset.lookup();
        if let Some(lookup) = lookup.filter(|step| step.rules.applies(&self.access.params)) {
            let (received, mut reading) = self.exchange(lookup, alert).await?;
            // A look-up that is refused, or whose answer is too long to be read, says nothing
            // about the alert.
            let is_said = reading.class != Class::Delivered || received.is_whole;
            if reading.class == Class::AlertFault || !is_said {
                reading.class = Class::DestinationFault;
            }
            let found = reading.class == Class::Duplicate;
            let answered = verdict(received, &reading, &self.redactor)?;
            if found {
                return Ok(answered);
            }
        }
        let (received, reading) = self.exchange(self.preset.request(), alert).await?;
        verdict(received, &reading, &self.redactor)
    }

    async fn exchange(
        &mut self,
        step: &Step,
        alert: &Alert,
    ) -> Result<(Received, Reading), DeliveryError> {
        let Self { client, clock, preset, access, redactor, token } = self;
        let builder = RequestBuilder { preset, access, params: &access.params, now: clock.now() };
        let mut request = builder.build(step, alert)?;
        // A receiver may echo the signatures, which the redactor could not know before.
        if access.signer.is_some() || !access.hmac.is_empty() {
            *redactor = redactor.with_signatures(&request.headers);
        }
        if let Some(token) = token {
            request.headers.insert(AUTHORIZATION, token.clone());
        }
        let sent = client
            .request(request.method, request.url)
            .headers(request.headers)
            .body(request.body)
            .send()
            .await;
        let response = sent.map_err(|error| failed(error, redactor))?;
        let received = receive(response, clock.now()).await;
        let reading = step.rules.read(&received.reply, &access.params, &alert.id);
        Ok((received, reading))
    }
}
