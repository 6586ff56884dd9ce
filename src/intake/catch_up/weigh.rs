//! Incidents that history brings and that are not plainly alerts: what the store says decides.

use std::mem;

use super::{
    reader::{Open, ReadError, Reader},
    task::{Purpose, Task},
};
use crate::{
    code_defender::verdict::{Doubt, Vouched},
    intake::{IncidentMessage, doubt::Scales},
    store::CursorMove,
};

/// The most incidents in a new layout that wait for the rest of a window.
const MAX_HELD: usize = 1_000;

/// A message with incidents, and what counts about it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) incoming: IncidentMessage,
    pub(super) is_first: bool,
    pub(super) is_fresh: bool,
    /// What must be decided before it is stored.
    pub(super) question: Question,
}

impl Candidate {
    pub(super) const fn is_in_new_layout(&self) -> bool {
        matches!(self.question, Question::Layout(_))
    }
}

/// What the store must be asked about an incident.
#[derive(Clone, Copy, Debug)]
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
        let scales = self.scales();
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

    /// Stores what a page has brought, and moves the cursor.
    pub(super) async fn take_in(
        &self,
        open: &mut Open,
        candidates: Vec<Candidate>,
        cursor: Option<CursorMove>,
        is_last: bool,
    ) -> Result<(), ReadError> {
        if open.layouts.is_empty() {
            return self.accept(open, candidates, cursor).await;
        }
        // Whoever posts incidents of the known shape is known then.
        self.accept(open, candidates, None).await?;
        self.decide(open, is_last).await?;
        self.accept(open, Vec::new(), cursor).await
    }

    /// Decides about the incidents in a new layout that the window has brought, the oldest first,
    /// as push does: the bot that was first is the one that reports incidents. Pages begin with the
    /// newest, so while nobody is known to report, they wait for the last page.
    async fn decide(&self, open: &mut Open, is_last: bool) -> Result<(), ReadError> {
        let Some(first) = open.layouts.first() else {
            return Ok(());
        };
        if !is_last && open.layouts.len() < MAX_HELD {
            let reporters = self.scales().reporters(&first.incoming.message.key).await;
            if reporters.map_err(ReadError::Store)?.is_empty() {
                return Ok(());
            }
        }
        let mut layouts = mem::take(&mut open.layouts);
        layouts.sort_by_key(|one| one.incoming.message.posted_at);
        for one in layouts {
            let mut near_misses = 0;
            let alerts = self.weigh(&open.task, vec![one], &mut near_misses).await?;
            open.count_near_misses(near_misses);
            self.accept(open, alerts, None).await?;
        }
        Ok(())
    }

    fn scales(&self) -> Scales<'_> {
        let ground = &self.ground;
        Scales { store: ground.store.as_ref(), notes: &self.notes, clock: &ground.clock }
    }
}
