//! Reads a window, page by page.

use bytes::Bytes;

use super::{Beat, ReadError, Reader};
use crate::{
    ids::MessageTs,
    intake::{
        admission::Admitted,
        catch_up::{
            open_window::{Candidate, OpenWindow, Question, ReadCounts},
            task::WindowTask,
            window::{PageFacts, Sight, WindowStep},
        },
        fate::Fate,
        notes::log_ignored,
    },
    logging::chain,
    slack::{
        message,
        web_api::{ApiError, Failure, HistoryPage},
    },
    store::CursorMove,
};

impl Reader {
    /// Reads a window to its end, waiting for passing failures to end.
    ///
    /// # Errors
    /// [`ReadError`]; the incidents that were read are stored.
    pub(in crate::intake::catch_up) async fn read(
        &self,
        task: WindowTask,
        beat: Beat<'_>,
    ) -> Result<ReadCounts, ReadError> {
        let mut open = OpenWindow::new(task);
        let mut failed = 0;
        let error = loop {
            beat.beat(self);
            match self.step(&mut open, beat).await {
                Ok(Some(counts)) => return Ok(counts),
                Ok(None) => failed = 0,
                Err(ReadError::Slack(error)) => {
                    if let Err(error) = self.wait_after(error, &mut failed, beat).await {
                        break ReadError::Slack(error);
                    }
                }
                Err(error) => break error,
            }
        };
        // Nobody may read this window again, so the incidents that waited for the last page are
        // decided now.
        self.abandon(open).await;
        Err(error)
    }

    /// Reads the next page and stores its incidents. Returns the window's numbers after the last
    /// page.
    ///
    /// # Errors
    /// [`ReadError`]. The same page may be read again, except after [`ReadError::Store`]: then the
    /// window must be begun again.
    pub(in crate::intake::catch_up) async fn step(
        &self,
        open: &mut OpenWindow,
        beat: Beat<'_>,
    ) -> Result<Option<ReadCounts>, ReadError> {
        let page = match self.api.history(&open.query()).await {
            Ok(page) => page,
            Err(ApiError::Transient(Failure::TooLarge)) => {
                return if open.pages.shrink() { Ok(None) } else { Err(ReadError::TooLarge) };
            }
            Err(ApiError::Ours(code)) if code.as_str() == "invalid_cursor" => {
                let goes_on = open.pages.restart();
                return if goes_on {
                    Ok(None)
                } else {
                    Err(ReadError::Slack(ApiError::Ours(code)))
                };
            }
            Err(error) => return Err(ReadError::Slack(error)),
        };
        // Before the page is recorded: if this fails, the same page is requested again.
        if self.recognise(&open.task, &page, beat).await? {
            // The channel's earlier id may have left messages unread before this window.
            open.task.cursor = None;
        }
        self.note_answer(&open.task.channel);
        let limit = open.pages.limit();
        let (facts, candidates) = self.admit(open, &page);
        let (held, candidates): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(Candidate::is_in_new_layout);
        open.held.extend(held);
        let candidates = self.settle(open, candidates).await?;
        if let Some(is_limited) = facts.is_limited(limit) {
            self.api.limit_history(is_limited);
        }
        // The page's incidents are stored even if the pages lead nowhere.
        let step = open.pages.advance(&facts);
        let cursor = match step {
            Ok(WindowStep::Last) => open.task.cursor.clone(),
            Ok(WindowStep::More) | Err(_) => None,
        };
        let cursor = cursor.map(|cursor| CursorMove { seen: open.tally.newest, ..cursor });
        let is_last = !matches!(step, Ok(WindowStep::More));
        self.store_page(open, candidates, cursor, is_last).await?;
        // The page counts as memory in use until here.
        drop(page);
        match step? {
            WindowStep::Last => Ok(Some(self.count(open))),
            WindowStep::More => Ok(None),
        }
    }

    /// Gives up a window that may never be read again: the channel may be gone, or the window is a
    /// backfill's, which may not be repeated. Keeps the incidents that were held for the last page.
    pub(in crate::intake::catch_up) async fn abandon(&self, mut open: OpenWindow) {
        if let Err(error) = self.decide_without_last_page(&mut open).await {
            let channel = &open.task.channel;
            tracing::error!(
                app = %self.app,
                %channel,
                error = chain(&error),
                "incidents in a new layout from {channel} are not stored"
            );
        }
    }

    /// Returns a page's facts about the window, and the page's messages with incidents.
    fn admit(&self, open: &mut OpenWindow, page: &HistoryPage) -> (PageFacts, Vec<Candidate>) {
        let OpenWindow { task, pages, tally, .. } = open;
        let mut candidates = Vec::new();
        let mut facts = PageFacts {
            count: page.messages.len(),
            next_cursor: page.next_cursor.clone(),
            has_more: page.has_more,
            bytes: page.bytes,
            ..PageFacts::default()
        };
        let post = self.post(task.source, self.ground.clock.now());
        for text in &page.messages {
            let Ok(message) = message::parse(text) else {
                continue;
            };
            let ts: Option<MessageTs> = message.ts.parse().ok();
            let sight = ts.map_or(Sight::First, |ts| pages.see(ts));
            if let Some(ts) = ts {
                facts.has_news |= sight != Sight::Known;
                let (first, last) = facts.ends.unwrap_or((ts, ts));
                facts.ends = Some((first.min(ts), last.max(ts)));
                tally.newest = tally.newest.max(Some(ts).filter(|ts| *ts <= task.now));
            }
            let is_first = sight == Sight::First;
            let is_fresh = is_first && task.is_fresh(ts);
            let raw = || Bytes::copy_from_slice(text.as_bytes());
            let admitted = self.admission.load().admit(&message, text, post, raw);
            let (incident, question) = match admitted {
                Admitted::Incident(incident) => (incident, Question::Settled),
                Admitted::NewLayout(incident, vouched) => (incident, Question::NewLayout(vouched)),
                Admitted::NearMiss(incident, doubt) => (incident, Question::NearMiss(doubt)),
                Admitted::Refused(reason) if is_fresh => {
                    let clock = &self.ground.clock;
                    self.notes.refused(&self.app, reason, &message, clock);
                    *tally.fates.entry(Fate::Ignored(reason)).or_default() += 1;
                    continue;
                }
                Admitted::Ignored(reason) if is_fresh => {
                    log_ignored(&self.app, reason, &message);
                    *tally.fates.entry(Fate::Ignored(reason)).or_default() += 1;
                    continue;
                }
                // An earlier reading has counted the message.
                Admitted::Refused(_) | Admitted::Ignored(_) => continue,
            };
            if task.may_take(ts) {
                candidates.push(Candidate { incident, is_first, is_fresh, question });
            }
        }
        (facts, candidates)
    }
}
