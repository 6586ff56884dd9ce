//! A channel's turn: the next page of its window, and what comes of it.

use std::{sync::Arc, time::Duration};

use super::{
    EXTRA_GAP, Found, Poller, ReadError, SLOW_RETRY,
    beginnings::{SLACKS_SECOND, floor},
    moved,
    reader::{Beat, Open, TRIES},
    task::{Purpose, Task},
    window::{Place, Plan, ts},
    with_cure,
};
use crate::{
    clock::Timestamp,
    ids::{ChannelId, MessageTs},
    logging::chain,
    slack::web_api::ApiError,
    store::{CursorMove, Source, StoreError},
};

/// How long the status shows that a cursor was found in the future.
const PUT_BACK_SHOWN: Duration = Duration::from_secs(3600);

/// What the poller remembers of a channel from one page to the next.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) begun: Option<Begun>,
    /// Up to where messages have been counted.
    counted: Option<MessageTs>,
    /// Since when the channel waits for its first cursor.
    waits_since: Option<Duration>,
    /// Where the store should have moved the cursor.
    pub(super) moved_to: Option<MessageTs>,
    /// What is shown until then, though the channel is read.
    shown: Option<(String, Duration)>,
}

/// A window that is being read.
#[derive(Debug)]
pub(super) struct Begun {
    open: Open,
    at: Duration,
    /// What it covers of what Slack left out.
    also_from: Option<MessageTs>,
    /// Up to where its messages are counted once it is read.
    counts_to: MessageTs,
    /// The time is in doubt: Slack's next answer may tell more.
    is_doubtful: bool,
}

impl Poller {
    /// Reads the next page of a channel.
    pub(super) async fn turn(&mut self, channel: &ChannelId, term: Option<u64>) {
        let (reader, heartbeat) = (Arc::clone(&self.reader), self.heartbeat.clone());
        let mut read = self.reads.remove(channel).unwrap_or_default();
        let result = match self.begin(channel, term, &mut read).await {
            Ok(begun) => reader.step(&mut begun.open, Beat(Some(&heartbeat))).await,
            Err(error) => Err(ReadError::Store(error)),
        };
        match result {
            Ok(None) => {
                self.note_heard(true);
                self.turns.goes_on(channel, self.uptime());
            }
            Ok(Some(found)) => {
                self.note_heard(true);
                self.finish(channel, found, &mut read);
            }
            Err(error) => self.note_failure(channel, &error, &mut read),
        }
        self.reads.insert(channel.clone(), read);
    }

    /// The window that is being read of the channel, begun now if there is none.
    async fn begin<'r>(
        &mut self,
        channel: &ChannelId,
        term: Option<u64>,
        read: &'r mut Read,
    ) -> Result<&'r mut Begun, StoreError> {
        if let Some(begun) = read.begun.take() {
            return Ok(read.begun.insert(begun));
        }
        let reader = Arc::clone(&self.reader);
        let (now, moment) = (self.uptime(), reader.api.moment());
        let place = self.place(channel, moment).await?;
        if term.is_some() && place.committed < read.moved_to.take() {
            // The store has logged why.
            let problem = "the store did not move the cursor: compare the clocks of this machine \
                           and of the database";
            read.shown = Some((problem.to_owned(), now + self.settings.every));
        }
        let beginning = self.beginning(channel, place, moment).await?;
        let waited = now.saturating_sub(*read.waits_since.get_or_insert(now));
        let waited = beginning.map_or(waited, |beginning| moment.earliest.since(beginning));
        // What has been read here is not read once more because another channel fails.
        let also_from = self.also_from.filter(|_| !self.also_read.contains(channel));
        let mut plan = Plan::new(place, also_from, moment, waited, self.settings);
        // What is older is none of ours to bring.
        let lookback = self.settings.first_lookback;
        let floor = beginning.map(|beginning| floor(beginning, lookback, place));
        let now_at_most = ts(moment.earliest + SLACKS_SECOND);
        let floor = floor.filter(|floor| *floor <= now_at_most);
        if let (Some(floor), None) = (floor, also_from) {
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
            self.tell_of_put_back(channel, place, back, read);
        }
        // A count that a wrong clock has moved into the future tells nothing.
        let counted = read.counted.filter(|counted| *counted <= ts(moment.latest));
        let task = Task {
            channel: channel.clone(),
            began: now,
            window: plan.window,
            source: Source::CatchUp,
            purpose: Purpose::Deliver,
            cursor: plan.commit.and_then(cursor),
            now: ts(moment.earliest),
            counted_to: counted.or(place.committed.filter(|to| *to <= ts(moment.latest))),
        };
        self.begun_at = now;
        let counts_to = ts(moment.believed.unwrap_or(moment.earliest));
        let is_doubtful = plan.commit.is_none();
        let open = Open::new(task);
        Ok(read.begun.insert(Begun { open, at: now, also_from, counts_to, is_doubtful }))
    }

    fn tell_of_put_back(
        &self,
        channel: &ChannelId,
        place: Place,
        back: MessageTs,
        read: &mut Read,
    ) {
        let shown = |ts: MessageTs| Timestamp::from_micros(ts.micros());
        let was = place.committed.map(shown).unwrap_or_default();
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
        read.shown = Some((problem, self.uptime() + PUT_BACK_SHOWN));
    }

    /// A channel was read to its end.
    fn finish(&mut self, channel: &ChannelId, found: Found, read: &mut Read) {
        let Some(Begun { open, at, also_from, counts_to, is_doubtful }) = read.begun.take() else {
            return;
        };
        self.lost.remove(channel);
        read.counted = read.counted.max(Some(counts_to));
        if found.new > 0 {
            tracing::info!(
                app = %self.reader.app,
                %channel,
                new = found.new,
                "catch-up found {} incidents in {channel} that were not known",
                found.new
            );
        }
        let now = self.uptime();
        let every = self.settings.every;
        let pause = if is_doubtful { every.min(EXTRA_GAP) } else { every };
        self.turns.went_well(channel, (at + pause).max(now));
        self.note_also_read(channel, also_from);
        if let Some(cursor) = &open.task.cursor {
            read.waits_since = None;
            read.moved_to = Some(cursor.to);
        }
        read.shown = read.shown.take().filter(|(_, until)| *until > now);
        let problem = read.shown.as_ref().map_or("", |(problem, _)| problem);
        let read_at = self.time_to_show();
        self.board.channel(channel, |status| {
            if let Some(cursor) = &open.task.cursor {
                status.committed = Some(cursor.to);
            }
            status.last_success = Some(read_at);
            problem.clone_into(&mut status.problem);
        });
        self.show_last_success(channel, read_at);
    }

    /// What Slack left out has been read in the channel, or cannot be; in the last one, it is done.
    fn note_also_read(&mut self, channel: &ChannelId, also_from: Option<MessageTs>) {
        if self.also_from.is_none() {
            return;
        }
        if self.also_from == also_from {
            self.also_read.insert(channel.clone());
        }
        if self.ours().iter().all(|channel| self.also_read.contains(channel)) {
            self.also_from = None;
        }
    }

    /// Puts the channel aside, and tells operators once of each new problem.
    fn note_failure(&mut self, channel: &ChannelId, error: &ReadError, read: &mut Read) {
        let now = self.uptime();
        let jitter = self.reader.ground.clock.jitter();
        match error {
            ReadError::Slack(ApiError::Throttled { wait }) => {
                self.history_at = now.saturating_add(*wait);
                return;
            }
            ReadError::Slack(error @ ApiError::Token(_)) => return self.lose_access(error),
            ReadError::Slack(ApiError::Configuration { code, .. }) => {
                self.note_heard(true);
                if code.as_str() == moved::UNKNOWN {
                    self.lose(channel);
                }
                read.begun = None;
                self.turns.put_aside(channel, now + SLOW_RETRY);
                self.note_also_read(channel, self.also_from);
            }
            ReadError::Slack(ApiError::Transient(_)) => {
                self.note_heard(false);
                // The window goes on where it was, unless that never works.
                if self.turns.failed(channel, now, jitter).is_multiple_of(TRIES) {
                    read.begun = None;
                }
            }
            ReadError::Store(_) => {
                self.note_heard(true);
                // The page may not have been stored, and it is not asked for again in this window.
                read.begun = None;
                self.turns.failed(channel, now, jitter);
            }
            ReadError::Slack(ApiError::Ours(_)) | ReadError::Astray(_) | ReadError::TooLarge => {
                self.note_heard(true);
                read.begun = None;
                self.turns.went_astray(channel, now);
            }
        }
        self.show_failure(channel, error);
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
