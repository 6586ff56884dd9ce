//! Incidents that history brings and that are not plainly alerts: what the store says decides.

use super::{
    reader::{ReadError, Reader},
    task::{Purpose, Task},
};
use crate::{
    code_defender::matcher::{Doubt, Vouched},
    intake::{IncidentMessage, doubt::Scales},
};

/// A message with incidents, and what counts about it.
pub(super) struct Candidate {
    pub(super) incoming: IncidentMessage,
    pub(super) is_first: bool,
    pub(super) is_fresh: bool,
    /// What must be decided before it is stored.
    pub(super) question: Question,
}

/// What the store must be asked about an incident.
#[derive(Clone, Copy)]
pub(super) enum Question {
    Nothing,
    /// Whether another bot is the one that reports incidents.
    Layout(Vouched),
    /// Whether it is an alert already; if not, it is a near miss.
    NearMiss(Doubt),
}

impl Reader {
    /// Decides about incidents that are not plainly alerts, and keeps those that are near misses.
    /// Returns what is to be stored, and adds to `near_misses` what was not counted before.
    pub(super) async fn weigh(
        &self,
        task: &Task,
        candidates: Vec<Candidate>,
        near_misses: &mut u64,
    ) -> Result<Vec<Candidate>, ReadError> {
        let parts = &self.parts;
        let scales =
            Scales { store: parts.store.as_ref(), notes: &parts.notes, clock: &parts.clock };
        let mut alerts = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let doubt = match candidate.question {
                Question::Nothing => None,
                // What is marked as known is delivered to nobody.
                Question::Layout(_) if task.purpose == Purpose::MarkKnown => None,
                Question::Layout(vouched) => {
                    let doubt = scales.doubt(&candidate.incoming, vouched).await;
                    doubt.map_err(ReadError::Store)?
                }
                Question::NearMiss(_) if task.purpose == Purpose::MarkKnown => continue,
                Question::NearMiss(doubt) => Some(doubt),
            };
            let Some(doubt) = doubt else {
                alerts.push(candidate);
                continue;
            };
            let kept = scales.keep(candidate.incoming, doubt).await;
            let is_alert = kept.map_err(ReadError::Store)?;
            if candidate.is_fresh && !is_alert {
                *near_misses += 1;
            }
        }
        Ok(alerts)
    }
}
