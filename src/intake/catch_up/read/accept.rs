//! Stores messages with incidents from history, and counts what the store answers.

use std::time::Duration;

use super::{ReadError, Reader};
use crate::{
    intake::{
        admission::IncidentMessage,
        catch_up::{
            open_window::{Candidate, OpenWindow, ReadCounts, Tally},
            task::{Purpose, WindowTask},
        },
        fate::{Acceptance, Fate},
        posters::Note,
        trace::Trace,
    },
    logging::chain,
    store::{Accepted, CursorMove, NewMessage, Source, StoreError},
};

impl Reader {
    /// Stores messages and moves the cursor, in one transaction.
    ///
    /// # Errors
    /// [`ReadError::Store`] if nothing was stored. A single message that cannot be stored is logged
    /// and counted, and does not keep the others from being stored.
    pub(super) async fn accept(
        &self,
        open: &mut OpenWindow,
        candidates: Vec<Candidate>,
        cursor: Option<CursorMove>,
    ) -> Result<(), ReadError> {
        // The last page moves the cursor even if that page holds no incident.
        if candidates.is_empty() && cursor.is_none() {
            return Ok(());
        }
        let messages = candidates.iter().map(|one| one.incident.message.clone());
        let batch = match open.task.purpose {
            Purpose::Deliver => messages.collect(),
            Purpose::MarkKnown => messages.map(NewMessage::into_identity).collect(),
        };
        let stored = self.ground.store.accept(batch, None, cursor).await;
        for (result, candidate) in stored.map_err(ReadError::Store)?.into_iter().zip(candidates) {
            self.note(&open.task, result, &candidate, &mut open.tally);
        }
        Ok(())
    }

    /// Counts and logs the store's answer for one message.
    fn note(
        &self,
        task: &WindowTask,
        result: Result<Accepted, StoreError>,
        candidate: &Candidate,
        tally: &mut Tally,
    ) {
        let Candidate { incident, is_first, is_fresh, .. } = candidate;
        let IncidentMessage { message, certainty, .. } = incident;
        tally.counts.found += u64::from(*is_first);
        let accepted = match result {
            Ok(accepted) => accepted,
            Err(error) => {
                let key = message.key.to_string();
                tracing::error!(
                    message_key = key,
                    error = chain(&error),
                    "message {key} cannot be stored; catch-up goes on without it"
                );
                return self.count_at_once(task, Fate::Store);
            }
        };
        if task.purpose == Purpose::MarkKnown {
            match accepted {
                Accepted::New { .. } => tally.counts.marked += 1,
                Accepted::Revision | Accepted::Duplicate => {
                    tally.counts.known += u64::from(*is_first);
                }
            }
            return;
        }
        self.notes.posters.note(Note::of(message, incident.bot.clone()), accepted);
        let is_routed = message.alerts.iter().any(|alert| !alert.destinations.is_empty());
        let acceptance = Acceptance::of(accepted, is_routed, *certainty);
        let fate = Fate::Stored(acceptance);
        match accepted {
            Accepted::New { .. } => tally.counts.new += 1,
            Accepted::Revision => tally.counts.known += u64::from(*is_first),
            // The overlap brings every message again: it is counted once, at the end of the window.
            Accepted::Duplicate => {
                tally.counts.known += u64::from(*is_first);
                *tally.fates.entry(fate).or_default() += u64::from(*is_fresh);
                return;
            }
        }
        self.count_at_once(task, fate);
        let trace = Trace::of(message);
        self.problems.count(&trace, accepted);
        trace.log_stored(None, Duration::ZERO, acceptance);
    }

    pub(super) fn count_at_once(&self, task: &WindowTask, fate: Fate) {
        self.fates.count(fate);
        self.count_received(task.source, 1);
    }

    /// Counts the rest of a window that was read to its end.
    pub(super) fn count(&self, open: &mut OpenWindow) -> ReadCounts {
        for (fate, times) in std::mem::take(&mut open.tally.fates) {
            self.fates.count_many(fate, times);
            self.count_received(open.task.source, times);
        }
        open.tally.counts
    }

    fn count_received(&self, source: Source, times: u64) {
        if let Some((_, counter)) = self.received.iter().find(|(known, _)| *known == source) {
            counter.increment(times);
        }
    }
}
