//! A mail for each alert, by SMTP: the vendor's own list of channels has it.

use std::{error::Error, fs, time::Duration};

use lettre::{
    Message,
    message::{Mailboxes, header::ContentType},
    transport::smtp::{
        self,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters},
        extension::ClientId,
        response::Response,
    },
};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde::Deserialize;
use tokio::net::TcpStream;
use url::Host;

use crate::{
    destination::{
        Answer, DeliveryError, Receipt,
        redact::Redactor,
        response::{EXCERPT_BYTES, chain, unreachable},
    },
    http_client,
};

/// For the server's goodbye: by then it has the mail.
const GOODBYE: Duration = Duration::from_secs(1);

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

/// A mail server, as its URL names it.
#[derive(Debug)]
struct Server {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    hello: ClientId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    None,
    /// STARTTLS, if the server has it.
    Opportunistic,
    /// STARTTLS.
    Required,
    FromTheBeginning,
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
    way: &http_client::Settings,
    redactor: &Redactor,
) -> Result<Receipt, DeliveryError> {
    let message =
        message(key, body).map_err(|reason| DeliveryError::Refused { answer: None, reason })?;
    let server = Server::of(server).map_err(|reason| unreachable(&reason, redactor))?;
    match server.take(&message, way).await {
        Ok(answer) => {
            let text = answer.message().collect::<Vec<_>>().join(" ");
            Ok(Receipt { excerpt: redactor.excerpt(&text, EXCERPT_BYTES), ..Receipt::default() })
        }
        Err(error) => Err(failed(&*error, redactor)),
    }
}

/// Whether a mail can be made of the body, and sent to the server.
///
/// # Errors
/// What is wrong with its addresses, or with the server's.
pub(super) fn check(server: &Url, body: &[u8]) -> Result<(), String> {
    Server::of(server)?;
    message("", body).map(drop)
}

/// Connects to the server, and says where that was. Nothing is sent.
///
/// # Errors
/// Why it cannot be reached.
pub async fn reach(server: &Url) -> Result<String, Box<dyn Error + Send + Sync>> {
    let Server { host, port, .. } = Server::of(server)?;
    let addresses = http_client::resolve(&host, port).await?;
    TcpStream::connect(addresses.as_slice()).await?;
    Ok(format!("{host}:{port}"))
}

impl Server {
    fn of(url: &Url) -> Result<Self, String> {
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err("the url names no mail server".to_owned()),
        };
        let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value);
        let (encryption, usual_port) = match (url.scheme(), tls.as_deref()) {
            ("smtps", _) => (Encryption::FromTheBeginning, smtp::SUBMISSIONS_PORT),
            (_, None) => (Encryption::None, smtp::SMTP_PORT),
            (_, Some("required")) => (Encryption::Required, smtp::SUBMISSION_PORT),
            (_, Some("opportunistic")) => (Encryption::Opportunistic, smtp::SUBMISSION_PORT),
            (_, Some(_)) => return Err("the url's `tls` is `required` or `opportunistic`".into()),
        };
        let text = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let password = url.password();
        let name = url.path().trim_matches('/');
        Ok(Self {
            host,
            port: url.port().unwrap_or(usual_port),
            encryption,
            credentials: password.map(|word| Credentials::new(text(url.username()), text(word))),
            hello: if name.is_empty() {
                ClientId::default()
            } else {
                ClientId::Domain(name.into())
            },
        })
    }

    /// Hands the mail over. The name is resolved here and not by the library, which knows of no
    /// address that is never contacted.
    async fn take(
        &self,
        message: &Message,
        way: &http_client::Settings,
    ) -> Result<Response, Box<dyn Error + Send + Sync>> {
        let addresses = http_client::resolve(&self.host, self.port).await?;
        let tls = || self.tls(way);
        let wrapper = self.encryption == Encryption::FromTheBeginning;
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            addresses.as_slice(),
            Some(way.connect_timeout),
            &self.hello,
            wrapper.then(tls).transpose()?,
            None,
        )
        .await?;
        let upgrade = match self.encryption {
            Encryption::Required => true,
            Encryption::Opportunistic => connection.can_starttls(),
            Encryption::None | Encryption::FromTheBeginning => false,
        };
        if upgrade {
            connection.starttls(tls()?, &self.hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        let taken = connection.send(message.envelope(), &message.formatted()).await?;
        drop(tokio::time::timeout(GOODBYE, connection.quit()).await);
        Ok(taken)
    }

    fn tls(
        &self,
        way: &http_client::Settings,
    ) -> Result<TlsParameters, Box<dyn Error + Send + Sync>> {
        let mut parameters = TlsParameters::builder(self.host.clone())
            .certificate_store(CertificateStore::WebpkiRoots);
        if let Some(path) = &way.ca_file {
            parameters = parameters.add_root_certificate(Certificate::from_pem(&fs::read(path)?)?);
        }
        Ok(parameters.build()?)
    }
}

fn failed(error: &(dyn Error + Send + Sync + 'static), redactor: &Redactor) -> DeliveryError {
    let text = chain(error);
    let error = error.downcast_ref::<smtp::Error>();
    let Some(status) = error.and_then(smtp::Error::status).map(u16::from) else {
        return if error.is_some_and(smtp::Error::is_timeout) {
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
            DeliveryError::Refused { reason: format!("SMTP status {status}"), answer: Some(answer) }
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

    fn parse(_value: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
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
