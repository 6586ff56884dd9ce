//! A mail for each alert, by SMTP: the vendor's own list of channels has it.

use std::time::Duration;

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailboxes, header::ContentType},
    transport::smtp,
};
use reqwest::Url;
use serde::Deserialize;

use crate::destination::{
    Answer, DeliveryError, Receipt,
    redact::Redactor,
    response::{EXCERPT_BYTES, chain, unreachable},
};

/// What the preset's body holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mail {
    from: String,
    to: String,
    subject: String,
    text: String,
    urgent: bool,
}

/// Sends the rendered body. The Message-ID is made of `key`, so that a repeated mail has the same.
///
/// # Errors
/// [`DeliveryError`]: 4xx and no connection are the server's fault, 535 and the like our
/// credentials', every other 5xx the mail's.
pub(super) async fn send(
    server: &Url,
    key: &str,
    body: &[u8],
    limit: Duration,
    redactor: &Redactor,
) -> Result<Receipt, DeliveryError> {
    let message =
        message(key, body).map_err(|reason| DeliveryError::Alert { answer: None, reason })?;
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(server.as_str())
        .map_err(|error| unreachable(&chain(&error), redactor))?
        .timeout(Some(limit))
        .build();
    match transport.send(message).await {
        Ok(answer) => {
            let text = answer.message().collect::<Vec<_>>().join(" ");
            Ok(Receipt { excerpt: redactor.excerpt(&text, EXCERPT_BYTES), ..Receipt::default() })
        }
        Err(error) => Err(failed(&error, redactor)),
    }
}

/// Whether a mail can be made of the body.
///
/// # Errors
/// What is wrong with its addresses.
pub(super) fn check(body: &[u8]) -> Result<(), String> {
    message("", body).map(drop)
}

fn failed(error: &smtp::Error, redactor: &Redactor) -> DeliveryError {
    let text = chain(error);
    let Some(status) = error.status().map(u16::from) else {
        return if error.is_timeout() {
            DeliveryError::TimedOut
        } else {
            unreachable(&text, redactor)
        };
    };
    let answer = Answer { status, excerpt: redactor.excerpt(&text, EXCERPT_BYTES) };
    match status {
        // RFC 4954, section 6.
        530 | 534 | 535 | 538 => DeliveryError::Auth(answer),
        500..=599 => {
            DeliveryError::Alert { reason: format!("SMTP status {status}"), answer: Some(answer) }
        }
        _ => DeliveryError::Destination(answer),
    }
}

fn message(key: &str, body: &[u8]) -> Result<Message, String> {
    let mail: Mail = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let to: Mailboxes = mail.to.parse().map_err(|error| format!("`to`: {error}"))?;
    let from = mail.from.parse().map_err(|error| format!("`from`: {error}"))?;
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, key.as_bytes());
    let mut builder = Message::builder()
        .from(from)
        .subject(mail.subject)
        .message_id(Some(format!("<{id}@slack-soar-relay>")))
        .header(ContentType::TEXT_PLAIN);
    for one in to {
        builder = builder.to(one);
    }
    if mail.urgent {
        builder = builder.header(Urgent);
    }
    builder.body(mail.text).map_err(|error| error.to_string())
}

/// `Importance: high` of RFC 2156, which the common programs show.
#[derive(Clone)]
struct Urgent;

impl lettre::message::header::Header for Urgent {
    fn name() -> lettre::message::header::HeaderName {
        lettre::message::header::HeaderName::new_from_ascii_str("Importance")
    }

    fn parse(_value: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> lettre::message::header::HeaderValue {
        lettre::message::header::HeaderValue::new(Self::name(), "high".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_has_the_same_id_each_time_and_no_line_of_its_subject_becomes_a_header() {
        let body = serde_json::json!({"from": "relay@example.com", "to": "a@b.c, d@e.f",
            "subject": "x\r\nBcc: everybody@example.com", "text": "line\nline", "urgent": true});
        let text = |key| {
            let message = message(key, body.to_string().as_bytes()).unwrap();
            String::from_utf8(message.formatted()).unwrap()
        };
        let id = |text: String| {
            let line = text.lines().find(|line| line.starts_with("Message-ID:"));
            line.unwrap().to_owned()
        };
        assert_eq!(id(text("k")), id(text("k")));
        assert_ne!(id(text("k")), id(text("l")));
        assert!(!text("k").lines().any(|line| line.starts_with("Bcc:")), "{}", text("k"));
        assert!(text("k").contains("Importance: high"));
    }
}
