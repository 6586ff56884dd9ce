//! Background tasks: one wakes the workers every second, since other processes add deliveries; the
//! other listens for notifications, if `store.postgres.listen_url` is set.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::timeout};

use super::{
    connect::{CONNECT_TIMEOUT, Connector},
    poller,
    shared::Shared,
};
use crate::{clock::Clock, ids::DestinationName};

/// Time between two wake-ups of all workers.
const WAKE_EVERY: Duration = Duration::from_secs(1);

/// Wake-ups between two renewals of the right to poll.
const RENEW_EVERY: u32 = 3;

/// First and longest backoff after the listening connection broke.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Most notifications within [`WAKE_EVERY`]. Relays never send more, so another role floods the
/// channel; waking the workers every second is enough then.
const FLOOD: u32 = 20_000;

/// Time without listening after a flood.
const FLOOD_PAUSE: Duration = Duration::from_secs(60);

/// Wakes all workers every second, and renews the right to poll.
pub(super) async fn wake_regularly(shared: Arc<Shared>) {
    for round in 1_u32.. {
        shared.clock.sleep(WAKE_EVERY).await;
        shared.hints.wake(None);
        if round.is_multiple_of(RENEW_EVERY) {
            poller::renew(&shared).await;
        }
    }
}

/// Listens for deliveries that other processes add, and wakes their workers at once. Only latency
/// depends on this task, since all workers are woken every second.
pub(super) async fn listen(shared: Arc<Shared>, connector: Connector) {
    let mut pause = MIN_BACKOFF;
    let mut has_warned = false;
    loop {
        match listen_once(&shared, &connector).await {
            // Listening had worked, so the backoff begins again.
            Ok(Ended::Connection) => pause = MIN_BACKOFF,
            Ok(Ended::Flood) => {
                if !has_warned {
                    tracing::warn!(
                        "another role floods the channel relay_due of the database with NOTIFY: \
                         the relay stops listening for a minute at a time, and still looks for \
                         deliveries every second"
                    );
                }
                has_warned = true;
                pause = FLOOD_PAUSE;
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "could not listen for PostgreSQL notifications; the relay still looks for \
                     deliveries every second");
                pause = (pause * 2).min(MAX_BACKOFF);
            }
        }
        Clock::system().sleep(pause).await;
    }
}

async fn listen_once(
    shared: &Arc<Shared>,
    connector: &Connector,
) -> Result<Ended, Box<dyn std::error::Error + Send + Sync>> {
    let on_flood = Arc::new(Notify::new());
    let flooded = Arc::clone(&on_flood);
    let own = Arc::clone(shared);
    let mut since = shared.clock.instant();
    let mut received = 0_u32;
    let on_notify = move |notification: &tokio_postgres::Notification| {
        let now = own.clock.instant();
        if now.duration_since(since) >= WAKE_EVERY {
            since = now;
            received = 0;
        }
        received = received.saturating_add(1);
        if received > FLOOD {
            return flooded.notify_one();
        }
        match DestinationName::new(notification.payload()) {
            Ok(destination) => own.hints.wake_known(&destination),
            // An empty name means all destinations. Relays do not send other invalid names.
            Err(_) if notification.payload().is_empty() => own.hints.wake(None),
            Err(_) => {}
        }
    };
    let connecting = connector.connect_to(connector.url.config_from(connector.first())?, on_notify);
    let (client, driver) = timeout(CONNECT_TIMEOUT, connecting).await??;
    let listen = async {
        let listening = client.batch_execute("LISTEN relay_due").await;
        shared.hints.wake(None);
        // The connection ends when the client is dropped, so this future never ends.
        if listening.is_ok() {
            std::future::pending::<()>().await;
        }
        listening
    };
    tokio::select! {
        () = driver => Ok(Ended::Connection),
        () = on_flood.notified() => Ok(Ended::Flood),
        listening = listen => Ok(listening.map(|()| Ended::Connection)?),
    }
}

/// Reason why listening ended.
enum Ended {
    Connection,
    Flood,
}
