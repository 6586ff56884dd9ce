//! Counts which bots post incidents. Accepting must not wait for a number, so the incidents are
//! counted in memory and added to the store once a second, the first of a bot at once.

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

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// The most bots that are held in memory. Only members of a workspace can add one.
const MAX_BOTS: usize = 1_000;

/// The bot that posted a message. Absent texts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bot {
    /// Slack's id of the bot.
    pub bot_id: String,
    /// Slack's id of its app.
    pub app_id: String,
}

/// A message's bot, taken before the store takes the message.
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
            // History may bring what was posted long ago, and a message may lie in the future.
            last: posted_at.min(message.received_at),
        })
    }
}

/// The incidents that each bot has posted, as far as the store does not know them yet.
#[derive(Debug, Default)]
pub struct Ledger {
    bots: Mutex<Vec<Entry>>,
    /// Woken by a bot's first incident.
    first: Notify,
    /// Held while the store is written to, so that whoever asks for a write waits for its end.
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

/// The bot of test incidents. It reports none of the vendor's.
pub const TEST_BOT: &str = "B0RELAYTEST";

/// Takes back what was not written, also if nobody waits for the store's answer any more. A write
/// that is done after all is then counted twice: a bot must not be missing from those that report.
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
    /// none, and shows only that a bot that is counted still posts.
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
        // A known message may have been made an alert by hand, whoever posted it.
        if incidents == 0 || poster.bot_id == TEST_BOT || bots.len() >= MAX_BOTS {
            return;
        }
        bots.push(Entry { poster, is_written: false });
        self.first.notify_one();
    }

    /// Adds to the store what it does not know yet.
    ///
    /// # Errors
    /// The store failed; nothing is forgotten.
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

    /// Writes until the relay ends, and once more then.
    pub async fn run(&self, store: &dyn store::Posters, clock: &Clock, shutdown: &Shutdown) {
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = self.first.notified() => {}
                () = clock.sleep(PAUSE) => {}
                () = shutdown.stopped() => break,
            }
            let written = self.write(store).await;
            if let Err(error) = &written
                && !is_failing
            {
                let error = chain(error);
                tracing::warn!(error, "the incidents of each bot cannot be counted: {error}");
            }
            is_failing = written.is_err();
        }
        if let Err(error) = self.write(store).await {
            tracing::debug!(error = chain(&error), "the newest counts of bots are not kept");
        }
    }

    fn bots(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.bots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
