//! Decides about incidents from history that are not plainly alerts, with what the store knows.

use std::mem;

use super::{ReadError, Reader};
use crate::{
    code_defender::verdict::{Doubt, Reason, Vouched},
    intake::{
        catch_up::{
            open_window::{Candidate, OpenWindow, Question},
            task::Purpose,
        },
        doubt::{Kept, Scales},
        fate::Fate,
    },
    store::CursorMove,
};

/// Most incidents in a new layout that are held for the rest of a window.
const MAX_HELD: usize = 1_000;

impl Reader {
    /// Settles the question of each candidate: keeps the near misses and returns the messages that
    /// are to be stored.
    ///
    /// # Errors
    /// [`ReadError::Store`].
    pub(super) async fn settle(
        &self,
        open: &mut OpenWindow,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, ReadError> {
        let scales = self.scales();
        let marks_known = open.task.purpose == Purpose::MarkKnown;
        let mut alerts = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let doubt = match candidate.question {
                Question::Settled => None,
                // An incident that is marked as known is never delivered, so no doubt matters.
                Question::NewLayout(_) if marks_known => None,
                Question::NewLayout(vouched) => {
                    let doubt = scales.doubt(&candidate.incident, vouched).await;
                    doubt.map_err(ReadError::Store)?
                }
                Question::NearMiss(_) if marks_known => continue,
                Question::NearMiss(doubt) => Some(doubt),
            };
            let Some(doubt) = doubt else {
                alerts.push(candidate);
                continue;
            };
            let fate = Fate::Ignored(Reason::NearMiss);
            match scales.keep(candidate.incident, doubt).await.map_err(ReadError::Store)? {
                Kept::New => self.count_at_once(&open.task, fate),
                Kept::Before => {
                    *open.tally.fates.entry(fate).or_default() += u64::from(candidate.is_fresh);
                }
                Kept::AsAlert => {}
            }
        }
        Ok(alerts)
    }

    /// Stores the incidents of a page and moves the cursor.
    ///
    /// # Errors
    /// [`ReadError::Store`].
    pub(super) async fn store_page(
        &self,
        open: &mut OpenWindow,
        candidates: Vec<Candidate>,
        cursor: Option<CursorMove>,
        is_last: bool,
    ) -> Result<(), ReadError> {
        if open.held.is_empty() {
            return self.accept(open, candidates, cursor).await;
        }
        // First the incidents in the known layout: they show which bot reports incidents. The
        // cursor moves last, when the held incidents are stored too.
        self.accept(open, candidates, None).await?;
        self.decide_held(open, is_last).await?;
        self.accept(open, Vec::new(), cursor).await
    }

    /// Decides about the held incidents, the oldest first as a push would bring them: the bot that
    /// was first is the one that reports incidents. Pages begin with the newest message, so while
    /// no bot is known to report, the incidents are held until the last page.
    ///
    /// # Errors
    /// [`ReadError::Store`]; the window must be begun again.
    pub(super) async fn decide_held(
        &self,
        open: &mut OpenWindow,
        is_last: bool,
    ) -> Result<(), ReadError> {
        let Some(first) = open.held.first() else {
            return Ok(());
        };
        if !is_last && open.held.len() < MAX_HELD {
            let reporters = self.scales().reporters(&first.incident.message.key).await;
            if reporters.map_err(ReadError::Store)?.is_empty() {
                return Ok(());
            }
        }
        let mut held = mem::take(&mut open.held);
        held.sort_by_key(|one| one.incident.message.posted_at);
        // One by one: each stored incident may make another bot the one that reports.
        for candidate in held {
            let alerts = self.settle(open, vec![candidate]).await?;
            self.accept(open, alerts, None).await?;
        }
        Ok(())
    }

    /// Decides about the held incidents of a window that may never be read to its end. While no bot
    /// is known to report incidents, the first of them may be a SOAR's announcement of an incident
    /// that only the missing pages show, so they become near misses.
    ///
    /// # Errors
    /// [`ReadError::Store`].
    pub(super) async fn decide_without_last_page(
        &self,
        open: &mut OpenWindow,
    ) -> Result<(), ReadError> {
        let Some(first) = open.held.first() else {
            return Ok(());
        };
        let reporters = self.scales().reporters(&first.incident.message.key).await;
        let is_unknown = reporters.map_err(ReadError::Store)?.is_empty();
        if is_unknown && open.task.purpose == Purpose::Deliver {
            for one in &mut open.held {
                if matches!(one.question, Question::NewLayout(Vouched::ByNobody)) {
                    one.question = Question::NearMiss(Doubt::History);
                }
            }
        }
        self.decide_held(open, true).await
    }

    fn scales(&self) -> Scales<'_> {
        let ground = &self.ground;
        Scales { store: ground.store.as_ref(), notes: &self.notes, clock: &ground.clock }
    }
}
