//! The loop of a poller: when to do something, and in which order.

use std::{sync::Arc, time::Duration};

use super::{Poller, loop_name};
use crate::{
    ids::ChannelId,
    intake::catch_up::{pace::backoff, status::Topic},
    logging::chain,
    store::StoreError,
};

/// Pause before a relay that stands by asks again for the right to poll. The store takes a poller
/// for dead 10 s after its last sign of life, so another relay takes over within 15 s.
const STAND_BY: Duration = Duration::from_secs(3);

/// Time of Slack's silence after which the right to poll is offered to another relay, which may
/// have a better network. Longer than the retries of one call, which take two minutes.
const DEAF: Duration = Duration::from_secs(300);

/// Pause after that before this relay asks for the right to poll; relays that stand by ask sooner.
const STEP_ASIDE: Duration = Duration::from_secs(10);

/// Longest time between two heartbeats, and two looks at the clocks, of a poller that rests.
const REST: Duration = Duration::from_secs(10);

impl Poller {
    /// Reads history until the relay stops.
    pub async fn run(mut self) {
        let shutdown = self.reader.ground.shutdown.clone();
        tokio::select! {
            () = self.work() => {}
            () = shutdown.stopped() => {}
        }
        shutdown.forget_heartbeat(&loop_name(&self.reader.app), &self.heartbeat);
    }

    async fn work(&mut self) {
        loop {
            self.beat();
            self.round().await;
            self.watch_clocks();
            if self.wake_at() > self.uptime() {
                self.count_missed().await;
                let aside = if self.steps_aside().await { STEP_ASIDE } else { Duration::ZERO };
                self.rest(aside).await;
            }
            while let Ok(notice) = self.notices.try_recv() {
                self.apply_notice(notice).await;
            }
        }
    }

    /// Gives up the right to poll if Slack has been silent for long. Returns whether another relay
    /// may take it. If no relay hears Slack, the right goes round, to each for some minutes.
    async fn steps_aside(&mut self) -> bool {
        let now = self.uptime();
        let is_deaf = self.silent_since.is_some_and(|since| now.saturating_sub(since) >= DEAF);
        if self.stands_by || !is_deaf {
            return false;
        }
        self.silent_since = None;
        let app = self.reader.app.clone();
        let is_free = matches!(self.reader.ground.store.stop_polling(&app).await, Ok(true));
        if is_free {
            tracing::warn!(%app, "catch-up of app {app} is left to another relay: Slack is silent");
        }
        is_free
    }

    /// Waits until something is due, at least for `aside`. Notices are applied meanwhile.
    async fn rest(&mut self, aside: Duration) {
        let clock = self.reader.ground.clock.clone();
        let aside_until = self.uptime() + aside;
        loop {
            self.beat();
            self.watch_clocks();
            let left = self.wake_at().max(aside_until).saturating_sub(self.uptime());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                Some(notice) = self.notices.recv() => self.apply_notice(notice).await,
                () = clock.sleep(left.min(REST)) => {}
            }
        }
    }

    /// Returns when the next round is due.
    fn wake_at(&self) -> Duration {
        let every = self.settings.every;
        // A round begins with the store and does nothing else until the store answers.
        if self.store_failures > 0 {
            return self.asked_at + every.min(backoff(self.store_failures));
        }
        let mut asks_again = self.asked_at + every;
        if self.stands_by {
            asks_again = asks_again.min(self.asked_at + STAND_BY);
            // Another relay reads history; only a rate-limited minute is read here too.
            if self.gap_from.is_none() {
                return asks_again;
            }
        }
        // Without a valid token a round reads nothing. Once there is a new token, this time is in
        // the past, so a round begins at once.
        if let Some(at) = self.access.lost_until(self.reader.api.token_version()) {
            return at.max(self.ask_access_at);
        }
        let access = (!self.access.is_good()).then_some(self.ask_access_at);
        let listing = self.listing_at();
        let doubted = self.doubts.next_at();
        let search_at = self.history_at.max(self.search_at);
        let suspects = (!self.suspects.is_empty()).then_some(search_at);
        let turn = self.turns.next_at().map(|at| at.max(self.history_at));
        [access, listing, doubted, suspects, turn]
            .into_iter()
            .flatten()
            .fold(asks_again, Duration::min)
    }

    /// Asks the store for the right to poll, and reads a page of every channel that is due.
    async fn round(&mut self) {
        let term = self.ask_store().await;
        self.asked_at = self.uptime();
        self.stands_by = matches!(term, Ok(None));
        let term = match term {
            // Slack has told this process which minute it rate-limited, and may not have told the
            // one that polls. This process reads that minute too and moves no cursor.
            Ok(term) if term.is_some() || self.gap_from.is_some() => term,
            Ok(_) => return self.drop_windows(),
            Err(error) => {
                self.store_failures = self.store_failures.saturating_add(1);
                let problem = format!("the store does not say what to read: {}", chain(&error));
                if self.board.say(Topic::Store, &problem) {
                    tracing::error!(error = chain(&error), "the store does not say what to read");
                }
                return;
            }
        };
        if term != self.term {
            // The store refuses a cursor move of another term.
            self.drop_windows();
            self.term = term;
        }
        self.store_failures = 0;
        self.board.say(Topic::Store, "");
        if !self.has_access().await {
            return;
        }
        // Each of these steps may wait for one answer of Slack's.
        self.beat();
        self.find_channels().await;
        self.beat();
        self.ask_doubted().await;
        let ours = self.ours();
        self.doubts.keep(&ours);
        self.turns.keep(&self.wanted(&ours), self.uptime());
        self.forget_others(&ours).await;
        for _ in 0..self.turns.due(self.uptime()) {
            if self.access.is_lost() || self.history_at > self.uptime() {
                return;
            }
            if let Some(channel) = self.turns.next(self.uptime()) {
                self.beat();
                self.turn(&channel, term).await;
            }
        }
        // Last, so that Slack's allowance for history goes to the known channels first.
        self.beat();
        self.search_suspect().await;
        self.beat();
    }

    /// Returns the term of the right to poll, or `None` if another process has it. In both cases
    /// the channel ids that other relays have found are applied, since every relay receives pushes.
    async fn ask_store(&mut self) -> Result<Option<u64>, StoreError> {
        let store = Arc::clone(&self.reader.ground.store);
        let term = store.poller_term(&self.reader.app).await?;
        self.keep_unkept().await?;
        self.recall().await?;
        self.forget_former_ids();
        if term != self.term {
            // Another process may have stored more of them.
            self.beginnings = None;
        }
        if term.is_some() {
            self.note_beginnings().await?;
        }
        Ok(term)
    }

    /// Returns the channels to read: all, or, while another process polls, those in which the
    /// rate-limited minute was not read yet.
    fn wanted(&self, ours: &[ChannelId]) -> Vec<ChannelId> {
        let is_wanted = |id: &&ChannelId| !self.stands_by || !self.gap_read.contains(*id);
        ours.iter().filter(is_wanted).cloned().collect()
    }
}
