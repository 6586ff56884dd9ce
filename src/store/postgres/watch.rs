//! What the store does by itself: it looks every second, since other processes add deliveries, and
//! listens to them if it may.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::timeout};

use super::{
    connect::{CREATE, Connector},
    poller,
    shared::Shared,
};
use crate::{clock::Clock, ids::DestinationName};

/// Between two looks for what other processes have added.
const LOOK: Duration = Duration::from_secs(1);

/// The right to poll is renewed every so many looks.
const RENEW_EVERY: u32 = 3;

/// From the first to the longest pause after the listening connection broke.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Relays that share a database do not notify one another as often as this in one [`LOOK`]:
/// somebody else does. To look is enough then.
const FLOOD: u32 = 20_000;

/// After a flood nobody is listened to for that long.
const DEAF: Duration = Duration::from_secs(60);

/// Wakes everybody who waits, every second.
pub(super) async fn look(shared: Arc<Shared>) {
    for round in 1_u32.. {
        shared.clock.sleep(LOOK).await;
        shared.hints.wake(None);
        if round.is_multiple_of(RENEW_EVERY) {
            poller::renew(&shared).await;
        }
    }
}

/// Hears of what other processes have added, sooner than by looking. Nothing depends on it.
pub(super) async fn listen(shared: Arc<Shared>, connector: Connector) {
    let mut pause = PAUSES.0;
    let mut is_said = false;
    loop {
        match listen_once(&shared, &connector).await {
            Ok(Ended::Connection) => pause = PAUSES.0,
            Ok(Ended::Flood) => {
                if !is_said {
                    tracing::warn!(
                        "another role floods the channel relay_due of the database with NOTIFY: \
                         the relay does not listen for a minute at a time, and still looks every \
                         second"
                    );
                }
                is_said = true;
                pause = DEAF;
            }
            Err(error) => {
                tracing::warn!(%error, "the relay cannot listen to PostgreSQL; it still looks");
                pause = (pause * 2).min(PAUSES.1);
            }
        }
        Clock::system().sleep(pause).await;
    }
}

async fn listen_once(
    shared: &Arc<Shared>,
    connector: &Connector,
) -> Result<Ended, Box<dyn std::error::Error + Send + Sync>> {
    let hearing = Arc::clone(shared);
    let flooded = Arc::new(Notify::new());
    let floods = Arc::clone(&flooded);
    let (mut since, mut heard_since) = (shared.clock.instant(), 0_u32);
    let hear = move |heard: &tokio_postgres::Notification| {
        let now = hearing.clock.instant();
        if now.duration_since(since) >= LOOK {
            (since, heard_since) = (now, 0);
        }
        heard_since = heard_since.saturating_add(1);
        if heard_since > FLOOD {
            return floods.notify_one();
        }
        match DestinationName::new(heard.payload()) {
            Ok(destination) => hearing.hints.wake_known(&destination),
            // All of them, or none that can be.
            Err(_) if heard.payload().is_empty() => hearing.hints.wake(None),
            Err(_) => {}
        }
    };
    let connecting = connector.connect_to(connector.url.config_from(connector.first())?, hear);
    let (client, driver) = timeout(CREATE, connecting).await??;
    let listen = async {
        let listening = client.batch_execute("LISTEN relay_due").await;
        shared.hints.wake(None);
        // The client is kept for as long as the connection lives.
        if listening.is_ok() {
            std::future::pending::<()>().await;
        }
        listening
    };
    tokio::select! {
        () = driver => Ok(Ended::Connection),
        () = flooded.notified() => Ok(Ended::Flood),
        listening = listen => Ok(listening.map(|()| Ended::Connection)?),
    }
}

/// Why nothing is heard any more.
enum Ended {
    Connection,
    Flood,
}
