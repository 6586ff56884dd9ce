//! What the store does by itself: it looks every second, since other processes add deliveries, and
//! listens to them if it may.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

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

/// Wakes everybody who waits, every second.
pub(super) async fn look(shared: Arc<Shared>) {
    for round in 1_u32.. {
        shared.clock.sleep(LOOK).await;
        shared.wake(None);
        if round.is_multiple_of(RENEW_EVERY) {
            poller::renew(&shared).await;
        }
    }
}

/// Hears of what other processes have added, sooner than by looking. Nothing depends on it.
pub(super) async fn listen(shared: Arc<Shared>, connector: Connector) {
    let mut pause = PAUSES.0;
    loop {
        match listen_once(&shared, &connector).await {
            Ok(()) => pause = PAUSES.0,
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
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let hearing = Arc::clone(shared);
    let hear = move |heard: &tokio_postgres::Notification| {
        hearing.wake(DestinationName::new(heard.payload()).ok().as_ref());
    };
    let connecting = connector.connect_to(connector.url.config_from(connector.first())?, hear);
    let (client, driver) = timeout(CREATE, connecting).await??;
    let listen = async {
        let listening = client.batch_execute("LISTEN relay_due").await;
        shared.wake(None);
        // The client is kept for as long as the connection lives.
        if listening.is_ok() {
            std::future::pending::<()>().await;
        }
        listening
    };
    tokio::select! {
        () = driver => Ok(()),
        listening = listen => Ok(listening?),
    }
}
