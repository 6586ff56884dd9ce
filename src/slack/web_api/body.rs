//! Bodies of answers within limits: of one answer, and of all that the process holds at once.

use std::borrow::Cow;

use reqwest::Response;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{ApiError, Failure};
use crate::slack;

/// Limit of an answer. A page of history that is too large is asked for again with fewer messages.
pub(super) const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Limit of an answer with one message, which is never too large: the store takes 16 MiB, and
/// Slack's requests are limited to a quarter of that.
pub(super) const MESSAGE_BYTES: usize = 20 * 1024 * 1024;

/// Size up to which an answer does not need a permit.
const SMALL_BYTES: usize = 256 * 1024;

/// Permit for larger answers. The whole process holds one at a time, until its messages are stored:
/// many apps and backfills together need no more memory than one.
static LARGE: Semaphore = Semaphore::const_new(1);

/// Permit to hold a large answer, until dropped.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "it is held, not read")] SemaphorePermit<'static>);

/// Reads the whole body, with a permit to hold it if it is large.
pub(super) async fn read(
    mut response: Response,
    max_bytes: usize,
    failed: impl Fn(reqwest::Error) -> ApiError,
) -> Result<(Vec<u8>, Option<Hold>), ApiError> {
    let too_large = || ApiError::Transient(Failure::TooLarge);
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let (mut body, mut hold) = (Vec::new(), None);
    while let Some(chunk) = response.chunk().await.map_err(&failed)? {
        let length = body.len() + chunk.len();
        if length > max_bytes {
            return Err(too_large());
        }
        if length > SMALL_BYTES && hold.is_none() {
            // Waits until the messages of any other large answer are stored. The buffer gets its
            // full size at once: one that grows holds its contents twice while they are moved.
            hold = LARGE.acquire().await.ok().map(Hold);
            body.reserve_exact(announced.unwrap_or(ANSWER_BYTES).saturating_sub(body.len()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, hold))
}

/// Returns the body as text, without a copy if it is valid.
pub(super) fn readable(body: Vec<u8>) -> String {
    if let Cow::Owned(repaired) = slack::readable(&body) {
        return repaired;
    }
    String::from_utf8(body).unwrap_or_default()
}
