//! A channel's turn: reads the next page of its window, and finishes or gives up the window.

use std::{sync::Arc, time::Duration};

use super::{
    BegunWindow, ChannelRead, Poller,
    beginnings::{SLACKS_SECOND, floor},
    with_cure,
};
use crate::{
    clock::Timestamp,
    ids::{ChannelId, MessageTs},
    intake::catch_up::{
        open_window::{OpenWindow, ReadCounts},
        pace::{EXTRA_GAP, SLOW_RETRY, TRIES},
        read::{Beat, ReadError, UNKNOWN_CHANNEL},
        task::{Purpose, WindowTask},
        window::{ReadProgress, WindowPlan, ts},
    },
    logging::chain,
    slack::web_api::ApiError,
    store::{CursorMove, Source, StoreError},
};

/// Time for which the status shows that a cursor was found in the future.
const PUT_BACK_SHOWN: Duration = Duration::from_secs(3600);

impl Poller {
    /// Reads the next page of a channel.
    pub(super) async fn turn(&mut self, channel: &ChannelId, term: Option<u64>) {
        let reader = Arc::clone(&self.reader);
        let heartbeat = self.heartbeat.clone();
        let mut read = self.reads.remove(channel).unwrap_or_default();
        let result = match self.begin(channel, term, &mut read).await {
            Ok(begun) => reader.step(&mut begun.window, Beat(Some(&heartbeat))).await,
            Err(error) => Err(ReadError::Store(error)),
        };
        match result {
            Ok(None) => {
                self.note_heard(true);
                self.turns.goes_on(channel, self.uptime());
            }
            Ok(Some(counts)) => {
                self.note_heard(true);
                self.finish(channel, counts, &mut read);
            }
            Err(error) => {
                // The channel may be gone for good. Any other window that is given up is forgotten,
                // since the next one brings its messages again, with the oldest page.
                let may_be_gone = matches!(error, ReadError::Slack(ApiError::Configuration { .. }));
                if self.note_failure(channel, &error)
                    && let Some(begun) = read.open.take()
                    && may_be_gone
                {
                    reader.abandon(begun.window).await;
                }
            }
        }
        self.reads.insert(channel.clone(), read);
    }

    /// Returns the window that is being read of the channel, begun now if there is none.
    ///
    /// # Errors
    /// The store failed.
    async fn begin<'r>(
        &mut self,
        channel: &ChannelId,
        term: Option<u64>,
        read: &'r mut ChannelRead,
    ) -> Result<&'r mut BegunWindow, StoreError> {
        if let Some(begun) = read.open.take() {
            return Ok(read.open.insert(begun));
        }
        let reader = Arc::clone(&self.reader);
        let now = self.uptime();
        let moment = reader.api.moment();
        let progress = self.progress(channel, moment).await?;
        if term.is_some() && progress.committed < read.moved_to.take() {
            // The store has logged why.
            let problem = "the store did not move the cursor: compare the clocks of this machine \
                           and of the database";
            read.shown = Some((problem.to_owned(), now + self.settings.every));
        }
        let beginning = self.beginning(channel, progress, moment).await?;
        let waited = now.saturating_sub(*read.waits_since.get_or_insert(now));
        let waited = beginning.map_or(waited, |beginning| moment.earliest.since(beginning));
        // A channel in which the rate-limited minute was read is not read from there again because
        // another channel fails.
        let gap_from = self.gap_from.filter(|_| !self.gap_read.contains(channel));
        let mut plan = WindowPlan::new(progress, gap_from, moment, waited, self.settings);
        // The overlap does not reach behind the start of the first reading: older incidents were
        // handled before the relay was set up.
        let lookback = self.settings.first_lookback;
        let floor = beginning.map(|beginning| floor(beginning, lookback, progress));
        let now_at_most = ts(moment.earliest + SLACKS_SECOND);
        let floor = floor.filter(|floor| *floor <= now_at_most);
        if let (Some(floor), None) = (floor, gap_from) {
            plan.window.oldest = plan.window.oldest.max(floor);
        }
        let cursor = |to| {
            term.map(|term| CursorMove {
                app: reader.app.clone(),
                channel: channel.clone(),
                from: plan.window.oldest,
                to,
                seen: None,
                term,
            })
        };
        if let Some(back) = plan.put_back
            && let Some(cursor) = cursor(back)
        {
            reader.ground.store.put_cursor_back(&cursor).await?;
            self.tell_of_put_back(channel, progress, back, read);
        }
        // A count from the future, left by a wrong clock, does not show what was counted.
        let counted = read.counted.filter(|counted| *counted <= ts(moment.latest));
        let task = WindowTask {
            channel: channel.clone(),
            began: now,
            window: plan.window,
            source: Source::CatchUp,
            purpose: Purpose::Deliver,
            cursor: plan.commit.and_then(cursor),
            now: ts(moment.earliest),
            counted_to: counted.or(progress.committed.filter(|to| *to <= ts(moment.latest))),
        };
        self.begun_at = now;
        Ok(read.open.insert(BegunWindow {
            window: OpenWindow::new(task),
            at: now,
            gap_from,
            counts_to: ts(moment.believed.unwrap_or(moment.earliest)),
            is_doubtful: plan.commit.is_none(),
        }))
    }

    fn tell_of_put_back(
        &self,
        channel: &ChannelId,
        progress: ReadProgress,
        back: MessageTs,
        read: &mut ChannelRead,
    ) {
        let shown = |ts: MessageTs| Timestamp::from_micros(ts.micros());
        let was = progress.committed.map(shown).unwrap_or_default();
        let problem = format!(
            "a wrong clock had left the cursor in the future, at {was}: it was put back, and \
             history is read again from {}",
            shown(back)
        );
        tracing::error!(
            app = %self.reader.app,
            %channel,
            %was,
            "catch-up of {channel} was blind: {problem}. What is older is read by `backfill`"
        );
        // Kept for a time: the next window that is read would otherwise clear the problem before
        // anybody has seen it.
        read.shown = Some((problem, self.uptime() + PUT_BACK_SHOWN));
    }

    /// Finishes a window that was read to its end.
    fn finish(&mut self, channel: &ChannelId, counts: ReadCounts, read: &mut ChannelRead) {
        let Some(begun) = read.open.take() else {
            return;
        };
        let BegunWindow { window, at, gap_from, counts_to, is_doubtful } = begun;
        // Slack has returned the channel's history, so the channel's id is still valid.
        self.lost.remove(channel);
        read.counted = read.counted.max(Some(counts_to));
        if counts.new > 0 {
            tracing::info!(
                app = %self.reader.app,
                %channel,
                new = counts.new,
                "catch-up found {} incidents in {channel} that were not known",
                counts.new
            );
        }
        let now = self.uptime();
        let every = self.settings.every;
        // A window that was begun while the time was in doubt has moved no cursor, so another one
        // follows soon. The pause counts from the beginning, however long the reading took.
        let pause = if is_doubtful { every.min(EXTRA_GAP) } else { every };
        self.turns.went_well(channel, (at + pause).max(now));
        self.note_gap_read(channel, gap_from);
        if let Some(cursor) = &window.task.cursor {
            read.waits_since = None;
            read.moved_to = Some(cursor.to);
        }
        read.shown = read.shown.take().filter(|(_, until)| *until > now);
        let problem = read.shown.as_ref().map_or("", |(problem, _)| problem);
        let read_at = self.time_to_show();
        self.board.channel(channel, |status| {
            if let Some(cursor) = &window.task.cursor {
                status.committed = Some(cursor.to);
            }
            status.last_success = Some(read_at);
            problem.clone_into(&mut status.problem);
        });
        self.show_last_success(channel, read_at);
    }

    /// Records that the rate-limited minutes from `gap_from` on were read in the channel, or cannot
    /// be read there. After the last channel the gap is closed.
    fn note_gap_read(&mut self, channel: &ChannelId, gap_from: Option<MessageTs>) {
        if self.gap_from.is_none() {
            return;
        }
        if self.gap_from == gap_from {
            self.gap_read.insert(channel.clone());
        }
        if self.ours().iter().all(|channel| self.gap_read.contains(channel)) {
            self.gap_from = None;
        }
    }

    /// Plans the channel's next turn after a failure, and tells operators once of each new problem.
    /// Returns whether the window is given up; otherwise the same page is read again.
    fn note_failure(&mut self, channel: &ChannelId, error: &ReadError) -> bool {
        let now = self.uptime();
        let jitter = self.reader.ground.clock.jitter();
        let gives_up = match error {
            ReadError::Slack(ApiError::Throttled { wait }) => {
                self.history_at = now.saturating_add(*wait);
                return false;
            }
            ReadError::Slack(error @ ApiError::Token(_)) => {
                self.lose_access(error);
                return true;
            }
            ReadError::Slack(ApiError::Configuration { code, .. }) => {
                self.note_heard(true);
                if code.as_str() == UNKNOWN_CHANNEL {
                    self.lose(channel);
                }
                self.turns.put_aside(channel, now + SLOW_RETRY);
                self.note_gap_read(channel, self.gap_from);
                true
            }
            ReadError::Slack(ApiError::Transient(_)) => {
                self.note_heard(false);
                // A page that never comes may be due to the window, so another one is begun.
                self.turns.failed(channel, now, jitter).is_multiple_of(TRIES)
            }
            ReadError::Store(_) => {
                self.note_heard(true);
                // The page may not have been stored, and this window does not read it again.
                self.turns.failed(channel, now, jitter);
                true
            }
            ReadError::Slack(ApiError::Ours(_)) | ReadError::Astray(_) | ReadError::TooLarge => {
                self.note_heard(true);
                self.turns.went_astray(channel, now);
                true
            }
        };
        self.show_failure(channel, error);
        gives_up
    }

    fn show_failure(&self, channel: &ChannelId, error: &ReadError) {
        let cure = match error {
            ReadError::Slack(error) => error.cure(),
            ReadError::Astray(_) | ReadError::TooLarge | ReadError::Store(_) => "",
        };
        let problem = with_cure(&chain(error), cure);
        let mut is_new = false;
        self.board.channel(channel, |status| {
            is_new = status.problem != problem;
            status.problem.clone_from(&problem);
        });
        // A failure that comes again with every turn is shown, and not logged again.
        if is_new {
            tracing::error!(
                app = %self.reader.app,
                %channel,
                error = problem,
                "catch-up cannot read {channel} of app {}; others are read on, and `doctor` says \
                 what to do",
                self.reader.app
            );
        }
    }
}
