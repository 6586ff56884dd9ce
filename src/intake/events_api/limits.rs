//! How much may be under way at once. Whoever finds no place is refused at once: Slack sends again.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::Refusal;

/// Requests at once.
const MAX_IN_FLIGHT: usize = 256;

/// Large bodies at once: with those of all other requests, 80 MiB at most. Nobody is trusted before
/// the body is here, and hundreds of large ones would fill the memory.
const MAX_LARGE_BODIES: usize = 16;

/// The places that are left.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Semaphore,
    large_bodies: Semaphore,
}

impl Limits {
    pub(super) const fn new() -> Self {
        Self {
            requests: Semaphore::const_new(MAX_IN_FLIGHT),
            large_bodies: Semaphore::const_new(MAX_LARGE_BODIES),
        }
    }

    pub(super) fn request(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.requests.try_acquire().map_err(|_all_taken| Refusal::Overload)
    }

    pub(super) fn large_body(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.large_bodies.try_acquire().map_err(|_all_taken| Refusal::Overload)
    }
}
