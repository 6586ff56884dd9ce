//! A destination that is read by its receiver instead of being sent to.
//!
//! `cli` starts one [`Feed`] for each such destination and passes requests on to it. Alerts that a
//! reader has passed are delivered; alerts that nobody reads expire as at every destination. The
//! feed does not store a reader's position: each reader sends its own.

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
    outcome::{AttemptClass, DeadReason},
    worker::{LOOK_AROUND, loop_name},
};
use crate::{
    alert::Alert,
    clock::{Clock, Timestamp},
    code_defender::matcher::Matcher,
    ground::{Ground, StoreOutages},
    ids::{AlertId, DestinationName},
    metrics::Metric,
    shutdown::Shutdown,
    store::{Hasten, Store, StoreError},
};

/// A destination that is read.
#[derive(Debug)]
pub struct Feed {
    name: DestinationName,
    max_age: Duration,
    store: Arc<dyn Store>,
    clock: Clock,
    shutdown: Shutdown,
    outages: StoreOutages,
    matcher: Arc<ArcSwap<Matcher>>,
    numbers: Numbers,
    /// Changes when there may be new items.
    news: watch::Sender<()>,
    /// Time of the last request of a reader, in microseconds; 0 if there was none.
    read_at: AtomicI64,
}

/// An alert and its number in the feed.
#[derive(Debug)]
pub struct NumberedAlert {
    /// Number of the item, larger than that of every item before it.
    pub seq: i64,
    /// Alert of the item.
    pub alert: Alert,
}

/// Reason why a feed could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The number is higher than any that was given to a reader. Nothing was marked as delivered.
    #[error("no number beyond {0} has been given")]
    Beyond(i64),
    /// The store failed; the same request may be made again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Feed {
    /// Creates a feed. [`Feed::run`] gives up alerts older than `max_age`.
    pub fn new(
        name: &DestinationName,
        max_age: Duration,
        ground: Ground,
        matcher: Arc<ArcSwap<Matcher>>,
    ) -> Arc<Self> {
        // A feed has no breaker, but alert rules expect the series for every destination.
        ground.metrics.gauge(Metric::BreakerOpen, &[name.as_str()]).set(0.0);
        Arc::new(Self {
            name: name.clone(),
            max_age,
            numbers: Numbers::new(name, &ground.metrics),
            store: ground.store,
            clock: ground.clock,
            shutdown: ground.shutdown,
            outages: ground.outages,
            matcher,
            news: watch::Sender::new(()),
            read_at: AtomicI64::new(0),
        })
    }

    /// Returns when a reader last asked, if one has since the start.
    pub fn read_at(&self) -> Option<Timestamp> {
        let micros = self.read_at.load(Ordering::Relaxed);
        (micros != 0).then(|| Timestamp::from_micros(micros))
    }

    /// Stops the feed. Requests that wait for items are answered.
    pub fn retire(&self) {
        self.shutdown.stop();
    }

    /// Wakes readers and gives up overdue alerts until the feed is stopped.
    pub async fn run(self: Arc<Self>) {
        let stopped = self.shutdown.stopped();
        tokio::pin!(stopped);
        let loop_name = loop_name(&self.name);
        let heartbeat = self.shutdown.heartbeat(&loop_name, self.clock.instant());
        let hint = self.store.due_hint(&self.name);
        let mut next_expiry_check = self.clock.moment();
        while !self.shutdown.is_stopping() {
            let beat = || heartbeat.beat(self.clock.instant());
            beat();
            if self.clock.moment() >= next_expiry_check {
                self.end_wrong_waits().await;
                let store = self.store.as_ref();
                match self.numbers.expire_overdue(store, self.max_age, beat).await {
                    Ok(()) => self.outages.answered(),
                    Err(error) => self.outages.failed("give up overdue alerts", &error),
                }
                next_expiry_check = self.clock.moment() + LOOK_AROUND;
            }
            tokio::select! {
                () = hint.notified() => {}
                () = self.clock.sleep_to(next_expiry_check) => {}
                () = stopped.as_mut() => {}
            }
            // Also without a hint: an alert that was held back becomes due by time alone.
            self.news.send_replace(());
        }
        self.shutdown.forget_heartbeat(&loop_name, &heartbeat);
        // The hint may have woken this feed, and another one may serve the destination now.
        hint.notify_one();
    }

    /// Returns the items after the number `after`, and marks the items up to that number as
    /// delivered, since the reader has taken them. Waits for items for `wait` at most, and not once
    /// the relay drains.
    ///
    /// # Errors
    /// [`FeedError`] if the number was never given, or the store failed.
    pub async fn read(
        &self,
        after: i64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<NumberedAlert>, FeedError> {
        self.read_at.store(self.clock.now().micros(), Ordering::Relaxed);
        let deadline = self.clock.moment() + wait;
        let drained = self.shutdown.drained();
        tokio::pin!(drained);
        // Subscribed before the first look, so that no item in between is missed.
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

    /// Returns the next items. Gives up deliveries whose message cannot be read, and looks further.
    ///
    /// # Errors
    /// [`FeedError`], as [`Feed::read`].
    async fn page(&self, after: i64, limit: usize) -> Result<Vec<NumberedAlert>, FeedError> {
        let mut behind = after;
        loop {
            let page = self.store.feed_page(&self.name, behind, limit).await?;
            if after > page.end {
                return Err(FeedError::Beyond(page.end));
            }
            let Some((last, _)) = page.entries.last() else {
                return Ok(Vec::new());
            };
            behind = *last;
            let mut items = Vec::new();
            let mut unreadable = Vec::new();
            for (seq, delivery) in page.entries {
                match alert_of(&delivery, &self.matcher.load()) {
                    Ok(alert) => items.push(NumberedAlert { seq, alert }),
                    Err(_no_alert) => unreadable.push(delivery.alert),
                }
            }
            self.give_up(&unreadable).await?;
            // A page without one readable message must not look like the end of the feed.
            if !items.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Makes deliveries due that a clock set back has delayed.
    async fn end_wrong_waits(&self) {
        if let Err(error) = self.store.hasten(&self.name, Hasten::Misdated).await {
            self.outages.failed("end waits that a wrong clock caused", &error);
        }
    }

    /// Gives up unreadable deliveries, which must not count as delivered when a reader passes them.
    async fn give_up(&self, unreadable: &[AlertId]) -> Result<(), StoreError> {
        if unreadable.is_empty() {
            return Ok(());
        }
        let destination = &self.name;
        let reason = DeadReason::Refused.label();
        for alert_id in self.store.give_up(destination, unreadable, reason).await? {
            self.numbers.died(DeadReason::Refused);
            tracing::error!(
                %alert_id, %destination, outcome = "refused", reason,
                "alert {alert_id} given up for {destination}: its message cannot be read; \
                 it is kept to be retried by hand"
            );
        }
        Ok(())
    }

    /// Marks the items up to a number as delivered.
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
                self.numbers.attempted(AttemptClass::Delivered);
                self.numbers.delivered(now, one.received_at, one.posted_at);
                tracing::info!(
                    %alert_id, %destination, outcome = "delivered",
                    "alert {alert_id} delivered to {destination}: a reader has taken it"
                );
            }
        }
    }
}
