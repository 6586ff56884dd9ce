//! Hands one mail to a server, recipient by recipient. The library's own `send` stops at the first
//! recipient that is refused, so that nobody gets the mail.

use std::error::Error;

use lettre::{
    Address, Message,
    transport::smtp::{
        self,
        client::AsyncSmtpConnection,
        commands::{Data, Mail, Rcpt},
        extension::{Extension, MailParameter},
    },
};

use crate::destination::{access::redact::Redactor, transport::mail::recipients::Said};

/// Characters of an answer about one recipient that are kept.
const SAID_BYTES: usize = 500;

/// "Too many recipients" of RFC 5321, section 4.5.3.1.10, which clients are to take for 452.
const TOO_MANY: (u16, &str) = (552, "5.5.3");

/// Code for a mailbox name that is not allowed: RFC 5321, section 4.2.3.
const NOT_ALLOWED: u16 = 553;

/// The outcome of each recipient.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) taken: Vec<Address>,
    /// Recipients refused with a 5xx status.
    pub(super) refused: Vec<Said>,
    /// Recipients refused with a 4xx status.
    pub(super) deferred: Vec<Said>,
    /// Answer of the server to the mail; empty if no recipient was accepted.
    pub(super) answer: String,
}

/// Sends the mail to each of `to` that the server accepts.
///
/// # Errors
/// Fails for a reason that is not about a recipient: a refused sender or mail, refused credentials,
/// a server that shuts down, a lost connection. As far as is known, nobody has the mail then.
pub(super) async fn hand_over(
    connection: &mut AsyncSmtpConnection,
    message: &Message,
    to: &[Address],
    redactor: &Redactor,
) -> Result<Outcome, Box<dyn Error + Send + Sync>> {
    let from = message.envelope().from().cloned();
    let takes_utf8 = connection.server_info().supports_feature(Extension::SmtpUtfEight);
    let is_sent_as_utf8 = |address: &Address| !AsRef::<str>::as_ref(address).is_ascii();
    if !takes_utf8 && from.as_ref().is_some_and(is_sent_as_utf8) {
        return Err("the sender needs SMTPUTF8, which the mail server does not have".into());
    }
    let needs_utf8 = from.iter().chain(to).any(is_sent_as_utf8);
    let options = (takes_utf8 && needs_utf8).then_some(MailParameter::SmtpUtfEight);
    connection.command(Mail::new(from, options.into_iter().collect())).await?;
    let mut outcome = Outcome::default();
    for address in to {
        // Refused here and not by an error, so that the other recipients get the mail.
        if !takes_utf8 && is_sent_as_utf8(address) {
            let text = "needs SMTPUTF8, which the mail server does not have".to_owned();
            outcome.refused.push(Said { address: address.clone(), status: NOT_ALLOWED, text });
            continue;
        }
        let asked = connection.command(Rcpt::new(address.clone(), Vec::new())).await;
        let Err(error) = asked else {
            outcome.taken.push(address.clone());
            continue;
        };
        let status = error.status().map(u16::from);
        // Any other error is about the server or the credentials and would meet every recipient.
        let Some(status) = status.filter(|status| is_about_the_recipient(*status)) else {
            return Err(error.into());
        };
        let text = redactor.excerpt(&error.to_string(), SAID_BYTES);
        let is_deferred = status < 500 || status == TOO_MANY.0 && text.contains(TOO_MANY.1);
        let list = if is_deferred { &mut outcome.deferred } else { &mut outcome.refused };
        list.push(Said { address: address.clone(), status, text });
    }
    if !outcome.taken.is_empty() {
        connection.command(Data).await?;
        let answer: smtp::response::Response = connection.message(&message.formatted()).await?;
        outcome.answer = answer.message().collect::<Vec<_>>().join(" ");
    }
    Ok(outcome)
}

/// Returns whether a code is about the recipient. 421 ends the session, and the codes of RFC 4954,
/// section 6, are about our credentials.
const fn is_about_the_recipient(status: u16) -> bool {
    !matches!(status, 421 | 530 | 534 | 535 | 538)
}
