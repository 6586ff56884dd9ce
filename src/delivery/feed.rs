//! A destination that is read: nothing is sent, its readers come and ask.
//!
//! `cli` starts one for each such destination and hands readers on to it. What a reader has passed
//! is delivered; what nobody reads grows too old, as at every destination. It keeps no reader's
//! place: that is the reader's own number.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    attempt::alert_of,
    numbers::Numbers,
    outcome::REFUSED,
    worker::{LOOK_AROUND, loop_name},
};
use crate::{
    alert::Alert,
    clock::{Clock, Timestamp},
    code_defender::matcher::Matcher,
    ground::Ground,
    ids::{AlertId, DestinationName},
    logging::chain,
    metrics::Metric,
    shutdown::Shutdown,
    store::{Hasten, Store, StoreError},
};

/// One destination that is read.
#[derive(Debug)]
pub struct Feed {
    name: DestinationName,
    max_age: Duration,
    store: Arc<dyn Store>,
    clock: Clock,
    shutdown: Shutdown,
    matcher: Arc<ArcSwap<Matcher>>,
    numbers: Numbers,
    /// Changes when there may be something to read.
    news: watch::Sender<()>,
    /// When a reader last asked, in microseconds; 0 if none has.
    read_at: AtomicI64,
}

/// An alert and its place in the feed.
#[derive(Debug)]
pub struct Item {
    /// Larger than that of every item before it.
    pub seq: i64,
    /// The alert.
    pub alert: Alert,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No reader can have been given that number. Nothing was marked.
    #[error("no number beyond {0} has been given")]
    Beyond(i64),
    /// The store failed; the same call may be made again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Feed {
    /// A feed that gives up what is older than `max_age`, as soon as [`Feed::run`] runs.
    pub fn new(
        name: &DestinationName,
        max_age: Duration,
        ground: Ground,
        matcher: Arc<ArcSwap<Matcher>>,
    ) -> Arc<Self> {
        // An alert rule that asks for a series finds it.
        ground.metrics.gauge(Metric::BreakerOpen, &[name.as_str()]).set(0.0);
        Arc::new(Self {
            name: name.clone(),
            max_age,
            numbers: Numbers::new(name, &ground.metrics),
            store: ground.store,
            clock: ground.clock,
            shutdown: ground.shutdown,
            matcher,
            news: watch::Sender::new(()),
            read_at: AtomicI64::new(0),
        })
    }

    /// When a reader last asked, since the start.
    pub fn read_at(&self) -> Option<Timestamp> {
        let micros = self.read_at.load(Ordering::Relaxed);
        (micros != 0).then(|| Timestamp::from_micros(micros))
    }

    /// Ends it: whoever waits is answered.
    pub fn retire(&self) {
        self.shutdown.stop();
    }

    /// Wakes readers, and gives up what grew too old, until it is ended.
    pub async fn run(self: Arc<Self>) {
        let stopped = self.shutdown.stopped();
        tokio::pin!(stopped);
        let loop_name = loop_name(&self.name);
        let heartbeat = self.shutdown.heartbeat(&loop_name, self.clock.instant());
        let hint = self.store.due_hint(&self.name);
        let mut burial_at = self.clock.moment();
        while !self.shutdown.is_stopping() {
            let beat = || heartbeat.beat(self.clock.instant());
            beat();
            if self.clock.moment() >= burial_at {
                self.end_wrong_waits().await;
                self.numbers.bury_the_too_old(self.store.as_ref(), self.max_age, beat).await;
                burial_at = self.clock.moment() + LOOK_AROUND;
            }
            tokio::select! {
                () = hint.notified() => {}
                () = self.clock.sleep_to(burial_at) => {}
                () = stopped.as_mut() => {}
            }
            // Also now and then: what was held back is due without a hint.
            self.news.send_replace(());
        }
        self.shutdown.forget_heartbeat(&loop_name, &heartbeat);
        // The hint may have come to us, and there may be another one now.
        hint.notify_one();
    }

    /// What is behind the number `after`, which the reader has taken with everything before it: so
    /// that is marked as delivered. Waits while there is nothing, until the relay drains at most.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        &self,
        after: i64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Item>, ReadError> {
        self.read_at.store(self.clock.now().micros(), Ordering::Relaxed);
        let deadline = self.clock.moment() + wait;
        let drained = self.shutdown.drained();
        tokio::pin!(drained);
        // Before the first look: what comes in between is news.
        let mut news = self.news.subscribe();
        let mut items = self.page(after, limit).await?;
        self.take(after).await?;
        while items.is_empty() {
            tokio::select! {
                changed = news.changed() => if changed.is_err() { break },
                () = self.clock.sleep_to(deadline) => break,
                () = drained.as_mut() => break,
            }
            items = self.page(after, limit).await?;
        }
        Ok(items)
    }

    /// The next items; looks on behind deliveries of which no alert can be made.
    async fn page(&self, after: i64, limit: usize) -> Result<Vec<Item>, ReadError> {
        let mut behind = after;
        loop {
            let page = self.store.feed_page(&self.name, behind, limit).await?;
            if after > page.end {
                return Err(ReadError::Beyond(page.end));
            }
            let Some((last, _)) = page.entries.last() else {
                return Ok(Vec::new());
            };
            behind = *last;
            let (mut items, mut unreadable) = (Vec::new(), Vec::new());
            for (seq, delivery) in page.entries {
                match alert_of(&delivery, &self.matcher.load()) {
                    Ok(alert) => items.push(Item { seq, alert }),
                    Err(_no_alert) => unreadable.push(delivery.alert),
                }
            }
            self.give_up(&unreadable).await?;
            if !items.is_empty() {
                return Ok(items);
            }
        }
    }

    async fn end_wrong_waits(&self) {
        let hastened = self.store.hasten(&self.name, Hasten::Misdated).await;
        if let Err(error) = hastened {
            let (destination, error) = (&self.name, chain(&error));
            tracing::error!(%destination, error, "the store does not say what waits");
        }
    }

    /// No reader gets these, so they must not count as delivered when one has passed them.
    async fn give_up(&self, unreadable: &[AlertId]) -> Result<(), StoreError> {
        if unreadable.is_empty() {
            return Ok(());
        }
        let destination = &self.name;
        for alert_id in self.store.give_up(destination, unreadable, REFUSED).await? {
            self.numbers.died(REFUSED);
            tracing::error!(
                %alert_id, %destination, outcome = "refused", reason = REFUSED,
                "alert {alert_id} given up for {destination}: its message cannot be read; \
                 it is kept to be retried by hand"
            );
        }
        Ok(())
    }

    async fn take(&self, up_to: i64) -> Result<(), StoreError> {
        let destination = &self.name;
        loop {
            let taken = self.store.feed_taken(destination, up_to).await?;
            if taken.is_empty() {
                return Ok(());
            }
            let now = self.clock.now();
            for one in taken {
                let alert_id = one.alert;
                self.numbers.attempted("delivered");
                self.numbers.delivered(now, one.received_at, one.posted_at);
                tracing::info!(
                    %alert_id, %destination, outcome = "delivered",
                    "alert {alert_id} delivered to {destination}: a reader has taken it"
                );
            }
        }
    }
}
