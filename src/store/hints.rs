//! Wakes the workers of destinations when a delivery may have become due. Both engines use it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::NewMessage;
use crate::ids::DestinationName;

/// One [`Notify`] for each destination. It wakes one waiter, or the next one to wait.
#[derive(Debug, Default)]
pub(super) struct Hints(Mutex<HashMap<DestinationName, Arc<Notify>>>);

impl Hints {
    fn lock(&self) -> MutexGuard<'_, HashMap<DestinationName, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the hint of a destination, creating it if necessary.
    pub(super) fn of(&self, destination: &DestinationName) -> Arc<Notify> {
        Arc::clone(self.lock().entry(destination.clone()).or_default())
    }

    /// Returns the hints of all destinations to which the messages are routed, without repetition.
    pub(super) fn of_messages(&self, messages: &[NewMessage]) -> Vec<Arc<Notify>> {
        let mut hints: Vec<Arc<Notify>> = Vec::new();
        let alerts = messages.iter().flat_map(|message| &message.alerts);
        for destination in alerts.flat_map(|alert| &alert.destinations) {
            let hint = self.of(destination);
            if !hints.iter().any(|known| Arc::ptr_eq(known, &hint)) {
                hints.push(hint);
            }
        }
        hints
    }

    /// Returns the number of destinations that have a hint.
    #[cfg(all(test, feature = "postgres-tests"))]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Wakes the worker of one destination, or of all.
    pub(super) fn wake(&self, destination: Option<&DestinationName>) {
        match destination {
            Some(destination) => self.of(destination).notify_one(),
            None => self.lock().values().for_each(|hint| hint.notify_one()),
        }
    }

    /// Wakes the worker of a destination if it has one here. Unlike [`Hints::wake`], this keeps no
    /// entry for a name that came from outside.
    pub(super) fn wake_known(&self, destination: &DestinationName) {
        if let Some(hint) = self.lock().get(destination) {
            hint.notify_one();
        }
    }
}
