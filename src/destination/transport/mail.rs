//! One mail for each alert, by SMTP: mail is one of the vendor's own channels.
//!
//! Each recipient has an outcome of its own (`session`), kept between attempts (`recipients`): the
//! alert is delivered once every recipient that is not refused has the mail.

use std::{error::Error, fs, time::Duration};

use lettre::{
    Address, Message,
    message::{
        Mailboxes,
        header::{ContentType, MIME_VERSION_1_0},
    },
    transport::smtp::{
        self,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde::Deserialize;
use tokio::net::TcpStream;
use url::Host;

pub(super) use self::recipients::Recipients;
use self::{recipients::Said, session::Outcome};
use crate::{
    destination::{
        Answer, DeliveryError, Receipt,
        access::redact::Redactor,
        transport::response::{EXCERPT_BYTES, chain, unreachable},
    },
    http_client,
    ids::DestinationName,
};

mod recipients;
mod session;

/// Time limit for the server's goodbye, when it already has the mail.
const GOODBYE: Duration = Duration::from_secs(1);

/// The body that the preset renders.
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
    /// STARTTLS if the server offers it.
    Opportunistic,
    /// STARTTLS; an error without it.
    Required,
    FromTheBeginning,
}

/// A destination that takes mails.
pub(super) struct Mailbox<'a> {
    pub(super) name: &'a DestinationName,
    pub(super) server: &'a Url,
    pub(super) way: &'a http_client::Settings,
    pub(super) redactor: &'a Redactor,
    pub(super) recipients: &'a Recipients,
}

impl Mailbox<'_> {
    /// Sends the rendered body to each recipient that does not have it. The Message-ID is made of
    /// `key`, so that a repeated mail has the same.
    ///
    /// # Errors
    /// Returns [`DeliveryError`]: 4xx and a lost connection are the server's fault, 535 and similar
    /// codes the credentials', a 5xx to the sender, to every recipient or to the mail the mail's.
    /// An alert that some recipients have and others get later is [`DeliveryError::Partly`]
    /// delivered.
    pub(super) async fn send(&self, key: &str, body: &[u8]) -> Result<Receipt, DeliveryError> {
        let message =
            message(key, body).map_err(|reason| DeliveryError::Refused { answer: None, reason })?;
        let all = message.envelope().to();
        let to = self.recipients.unserved(key, all);
        let is_new = to.len() == all.len();
        let outcome =
            if to.is_empty() { Outcome::default() } else { self.take(key, &message, &to).await? };
        let nobody_has_it = is_new && outcome.taken.is_empty();
        match (outcome.deferred.first(), outcome.refused.last()) {
            // One deferred recipient keeps the alert pending: the next attempt writes only to those
            // who do not have the mail.
            (Some(first), _) => {
                let answer = Answer { status: first.status, excerpt: self.excerpt(&outcome) };
                if nobody_has_it {
                    return Err(DeliveryError::Destination(answer));
                }
                self.say_who_is_refused(&outcome.refused);
                Err(DeliveryError::Partly(answer))
            }
            (None, Some(last)) if nobody_has_it => {
                Err(refused(Answer { status: last.status, excerpt: last.text.clone() }))
            }
            (None, _) => {
                self.say_who_is_refused(&outcome.refused);
                self.recipients.finish(key);
                Ok(Receipt { excerpt: self.excerpt(&outcome), ..Receipt::default() })
            }
        }
    }

    /// Hands the mail to the server. The name is resolved here and not by the library, which does
    /// not check for refused addresses.
    async fn take(
        &self,
        key: &str,
        message: &Message,
        to: &[Address],
    ) -> Result<Outcome, DeliveryError> {
        let server = Server::of(self.server);
        let server = server.map_err(|reason| unreachable(&reason, self.redactor))?;
        // No mail was offered yet, so no status is about it.
        let connected = server.connect(self.way).await;
        let mut connection = connected
            .map_err(|error| failed(&*error, self.redactor, DeliveryError::Destination))?;
        let handed = session::hand_over(&mut connection, message, to, self.redactor).await;
        if let Ok(outcome) = &handed {
            // Before the goodbye, in which the attempt may run out of time.
            self.recipients.serve(key, &outcome.taken);
        }
        drop(tokio::time::timeout(GOODBYE, connection.quit()).await);
        handed.map_err(|error| failed(&*error, self.redactor, refused))
    }

    /// Logs one line for each recipient that was not refused before.
    fn say_who_is_refused(&self, refused: &[Said]) {
        for Said { address, text, .. } in self.recipients.refuse(refused) {
            tracing::warn!(
                destination = %self.name, recipient = %address, answer = text,
                "the mail server of {} refuses the recipient {address}; the others get the mail",
                self.name,
            );
        }
    }

    /// Returns the excerpt: the server's answer to the mail, and the refused recipients.
    fn excerpt(&self, outcome: &Outcome) -> String {
        let told = |what: &str, said: &Said| format!("{what}: {} ({})", said.address, said.text);
        let answer = Some(outcome.answer.clone()).filter(|answer| !answer.is_empty());
        let refused = outcome.refused.iter().map(|said| told("refused", said));
        let deferred = outcome.deferred.iter().map(|said| told("later", said));
        let text = answer.into_iter().chain(refused).chain(deferred).collect::<Vec<_>>().join("; ");
        self.redactor.excerpt(&text, EXCERPT_BYTES)
    }
}

/// Checks that a mail can be made of the body.
///
/// # Errors
/// Returns the mistake in its addresses.
pub(super) fn check(body: &[u8]) -> Result<(), String> {
    message("", body).map(drop)
}

/// Checks that mails can be sent to the server.
///
/// # Errors
/// Returns the mistake in its URL.
pub(super) fn check_server(server: &Url) -> Result<(), String> {
    Server::of(server).map(drop)
}

/// Connects to the server and returns its address, without sending anything.
///
/// # Errors
/// Returns the reason why the server cannot be reached.
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
            None => return Err("does not name a mail server".to_owned()),
        };
        let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value);
        let (encryption, usual_port) = match (url.scheme(), tls.as_deref()) {
            ("smtps", _) => (Encryption::FromTheBeginning, smtp::SUBMISSIONS_PORT),
            (_, None) => (Encryption::None, smtp::SMTP_PORT),
            (_, Some("required")) => (Encryption::Required, smtp::SUBMISSION_PORT),
            (_, Some("opportunistic")) => (Encryption::Opportunistic, smtp::SUBMISSION_PORT),
            (_, Some(_)) => {
                return Err("has a `tls` other than `required` or `opportunistic`".into());
            }
        };
        let text = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let password = url.password();
        if password.is_none() && !url.username().is_empty() {
            return Err("has a user without a password".to_owned());
        }
        // An attacker who removes the offer of STARTTLS from the answer could read the password.
        let is_open = matches!(encryption, Encryption::None | Encryption::Opportunistic);
        if password.is_some() && is_open {
            let cure = "smtps://, or smtp:// with ?tls=required";
            return Err(format!(
                "has a password, which must not be sent in clear text: use {cure}"
            ));
        }
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

    /// Opens a connection that is ready for a mail.
    async fn connect(
        &self,
        way: &http_client::Settings,
    ) -> Result<AsyncSmtpConnection, Box<dyn Error + Send + Sync>> {
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
            // If the server does not offer STARTTLS this fails, and nothing is sent in clear text.
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
        Ok(connection)
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

/// Returns the error for a failed session. `by_refusal` makes the error of a 5xx that is not about
/// credentials.
fn failed(
    error: &(dyn Error + Send + Sync + 'static),
    redactor: &Redactor,
    by_refusal: fn(Answer) -> DeliveryError,
) -> DeliveryError {
    let (text, error) = match error.downcast_ref::<smtp::Error>() {
        // The text of this error includes that of its source.
        Some(error) => (error.to_string(), Some(error)),
        None => (chain(error), None),
    };
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
        500..=599 => by_refusal(answer),
        _ => DeliveryError::Destination(answer),
    }
}

fn refused(answer: Answer) -> DeliveryError {
    let reason = format!("SMTP status {}", answer.status);
    DeliveryError::Refused { answer: Some(answer), reason }
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
        .header(MIME_VERSION_1_0)
        .header(ContentType::TEXT_PLAIN);
    for one in to {
        builder = builder.to(one);
    }
    if mail.urgent {
        builder = builder.header(Urgent);
    }
    builder.body(mail.text).map_err(|error| error.to_string())
}

/// The header `Importance: high` of RFC 2156, which the common programs show.
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
        for header in ["MIME-Version: 1.0", "Date: ", "Content-Type: text/plain; charset=utf-8"] {
            assert_eq!(text("k").lines().filter(|line| line.starts_with(header)).count(), 1);
        }
    }
}
