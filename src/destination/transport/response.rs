//! Turns the bytes of an answer into a result of the attempt. Results do not contain secrets, and
//! no answer is read further than its beginning.

use std::{collections::BTreeMap, error::Error, time::Duration};

use reqwest::{
    Response,
    header::{HeaderValue, RETRY_AFTER},
};

use crate::{
    clock::Timestamp,
    destination::{
        Answer, DeliveryError, Receipt,
        access::redact::Redactor,
        preset::answer::{Class, Reading, Reply, retry_after},
    },
};

/// Bytes of an answer that are read. Rules see them; the rest is dropped with the connection. The
/// limit is low because some receivers repeat the whole alert, and parsed JSON takes forty times
/// the memory of its text.
const ANSWER_BYTES: usize = 256 * 1024;

/// Bytes of an answer that are kept with the attempt.
pub(in crate::destination) const EXCERPT_BYTES: usize = 4_000;

/// An answer, as far as it was read.
pub(in crate::destination) struct Received {
    pub(in crate::destination) reply: Reply,
    /// `true` if the answer was read to its end.
    pub(in crate::destination) is_whole: bool,
    /// Time that `Retry-After` asks for.
    wait: Option<Duration>,
    /// Error that broke the connection in the middle of the body.
    cut_off: Option<reqwest::Error>,
}

pub(in crate::destination) async fn receive(mut response: Response, now: Timestamp) -> Received {
    let status = response.status().as_u16();
    let headers: BTreeMap<_, _> =
        response.headers().iter().map(|(name, value)| (name.to_string(), lossy(value))).collect();
    let mut body = Vec::new();
    let mut cut_off = None;
    while body.len() < ANSWER_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                // What was read is kept: the status and the beginning may say why the alert was not
                // taken.
                cut_off = Some(error);
                break;
            }
        }
    }
    let is_whole = cut_off.is_none() && body.len() < ANSWER_BYTES;
    body.truncate(ANSWER_BYTES);
    let wait = headers.get(RETRY_AFTER.as_str());
    Received {
        is_whole,
        wait: wait.and_then(|value| retry_after(value, now)),
        reply: Reply { status, headers, text: String::from_utf8_lossy(&body).into_owned() },
        cut_off,
    }
}

/// Turns an answer, as the rules read it, into the result of the attempt.
pub(in crate::destination) fn verdict(
    received: Received,
    reading: &Reading,
    redactor: &Redactor,
) -> Result<Receipt, DeliveryError> {
    let Received { reply, wait, cut_off, .. } = received;
    let answer =
        Answer { status: reply.status, excerpt: redactor.excerpt(&reply.text, EXCERPT_BYTES) };
    match (reading.class, cut_off) {
        // A success whose body broke off: the rest could have said that the alert was not
        // taken.
        (Class::Delivered | Class::Duplicate, Some(error)) => Err(failed(error, redactor)),
        (Class::Delivered | Class::Duplicate, None) => Ok(Receipt {
            duplicate: reading.class == Class::Duplicate,
            status: Some(answer.status),
            excerpt: answer.excerpt,
            reference_id: redactor.excerpt(&reading.reference_id, EXCERPT_BYTES),
            reference_url: redactor.excerpt(&reading.reference_url, EXCERPT_BYTES),
        }),
        (Class::Auth, _) => Err(DeliveryError::Auth(answer)),
        (Class::AlertFault, _) => Err(DeliveryError::Refused {
            reason: format!("status {}", answer.status),
            answer: Some(answer),
        }),
        (Class::DestinationFault, _) if wait.is_none() => Err(DeliveryError::Destination(answer)),
        (Class::DestinationFault | Class::Throttled, _) => {
            Err(DeliveryError::Throttled { answer, retry_after: wait })
        }
    }
}

/// Text of an error that broke the connection. The client's own error may contain the URL, so only
/// its redacted text is kept.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

/// Returns the error for an answer that is missing or incomplete.
pub(in crate::destination) fn failed(error: reqwest::Error, redactor: &Redactor) -> DeliveryError {
    // A connection that did not come about in time is a fault of the network.
    if error.is_timeout() && !error.is_connect() {
        return DeliveryError::TimedOut;
    }
    let text = chain(&error.without_url());
    unreachable(&text, redactor)
}

/// Returns the error for a destination that cannot be reached, with the reason.
pub(in crate::destination) fn unreachable(reason: &str, redactor: &Redactor) -> DeliveryError {
    DeliveryError::Unreachable(Box::new(Broken(redactor.excerpt(reason, EXCERPT_BYTES))))
}

/// Formats the error and its causes in one line.
pub(in crate::destination) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

pub(in crate::destination) fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
