//! Counts the incidents of each bot. An accept must not wait for a count, so incidents are counted
//! in memory and added to the store once a second; a bot's first incident is added at once.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    clock::{Clock, Timestamp},
    logging::chain,
    shutdown::Shutdown,
    store::{self, Accepted, NewMessage, Poster, StoreError},
};

/// Pause between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// Most bots that are held in memory. Only members of a workspace can add a bot.
const MAX_BOTS: usize = 1_000;

/// Bot that posted a message. Absent texts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bot {
    /// Slack's id of the bot.
    pub bot_id: String,
    /// Slack's id of the bot's app.
    pub app_id: String,
}

/// Bot, channel and time of a message, taken before the message is given to the store.
#[derive(Debug)]
pub(super) struct Note(Poster);

impl Note {
    pub(super) fn of(message: &NewMessage, bot: Bot) -> Self {
        let Bot { bot_id, app_id } = bot;
        let posted_at = Timestamp::from_micros(message.posted_at.micros());
        Self(Poster {
            app: message.key.app.clone(),
            channel: message.key.channel.clone(),
            bot_id,
            app_id,
            incidents: 0,
            // History brings messages from long ago, and a timestamp may lie in the future.
            last: posted_at.min(message.received_at),
        })
    }
}

/// Incidents of each bot that are not in the store yet.
#[derive(Debug, Default)]
pub struct Ledger {
    bots: Mutex<Vec<Entry>>,
    /// Woken by a bot's first incident.
    first: Notify,
    /// Held during a write, so that a caller of [`Ledger::write`] also waits for a write under way.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Entry {
    poster: Poster,
    is_written: bool,
}

impl Entry {
    fn is_of(&self, other: &Poster) -> bool {
        let Poster { app, channel, bot_id, app_id, .. } = &self.poster;
        *bot_id == other.bot_id
            && *app_id == other.app_id
            && *channel == other.channel
            && *app == other.app
    }
}

/// Bot of test incidents. It does not count as a bot that reports incidents.
pub const TEST_BOT: &str = "B0RELAYTEST";

/// Puts unwritten counts back into the ledger when dropped, also if the write is cancelled. A
/// cancelled write that succeeds after all is counted twice, which is better than a missing bot.
struct Writing<'l> {
    ledger: &'l Ledger,
    unwritten: Vec<Poster>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.ledger.take_back(std::mem::take(&mut self.unwritten));
    }
}

impl Ledger {
    /// Counts the incidents of a message that the store has accepted. A message that was known adds
    /// no incident and only updates the time of the bot's last post.
    pub(super) fn note(&self, note: Note, accepted: Accepted) {
        let incidents = match accepted {
            Accepted::New { alerts } => u64::from(alerts),
            Accepted::Duplicate | Accepted::Revision => 0,
        };
        let poster = Poster { incidents, ..note.0 };
        let mut bots = self.bots();
        if let Some(known) = bots.iter_mut().find(|entry| entry.is_of(&poster)) {
            known.poster.incidents += incidents;
            known.poster.last = known.poster.last.max(poster.last);
            known.is_written &= incidents == 0;
            return;
        }
        if bots.len() >= MAX_BOTS {
            bots.retain(|entry| !entry.is_written);
        }
        // A known message may be a near miss that an operator adopted, which any bot may have
        // posted.
        if incidents == 0 || poster.bot_id == TEST_BOT || bots.len() >= MAX_BOTS {
            return;
        }
        bots.push(Entry { poster, is_written: false });
        self.first.notify_one();
    }

    /// Adds the unwritten counts to the store.
    ///
    /// # Errors
    /// The store failed; the counts are kept for the next write.
    pub async fn write(&self, store: &dyn store::Posters) -> Result<(), StoreError> {
        let _turn = self.writing.lock().await;
        let mut unwritten = Vec::new();
        for Entry { poster, is_written } in self.bots().iter_mut().filter(|one| !one.is_written) {
            unwritten.push(poster.clone());
            poster.incidents = 0;
            *is_written = true;
        }
        if unwritten.is_empty() {
            return Ok(());
        }
        let mut writing = Writing { ledger: self, unwritten };
        store.add_posters(writing.unwritten.clone()).await?;
        writing.unwritten.clear();
        Ok(())
    }

    fn take_back(&self, unwritten: Vec<Poster>) {
        let mut bots = self.bots();
        for poster in unwritten {
            match bots.iter_mut().find(|entry| entry.is_of(&poster)) {
                Some(entry) => {
                    entry.poster.incidents += poster.incidents;
                    entry.is_written = false;
                }
                None => bots.push(Entry { poster, is_written: false }),
            }
        }
    }

    /// Writes until the relay stops, and once more then.
    pub async fn run(&self, store: &dyn store::Posters, clock: &Clock, shutdown: &Shutdown) {
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = self.first.notified() => {}
                () = clock.sleep(PAUSE) => {}
                () = shutdown.stopped() => break,
            }
            let written = self.write(store).await;
            // One line for each outage: the next try follows in a second.
            if let Err(error) = &written
                && !is_failing
            {
                let error = chain(error);
                tracing::warn!(error, "the incidents of each bot cannot be counted: {error}");
            }
            is_failing = written.is_err();
        }
        if let Err(error) = self.write(store).await {
            tracing::debug!(error = chain(&error), "the newest counts of bots are lost");
        }
    }

    fn bots(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.bots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
