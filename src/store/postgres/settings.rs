//! Where a store in PostgreSQL is, and what may be asked of it.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;

use super::connect::{Connector, Url};

/// Where the database is, and what may be asked of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is. A pooler that shares connections by transaction may stand in between.
    pub url: Url,
    /// Where it can be listened to, without such a pooler; `None`: relays only look every second.
    pub listen_url: Option<Url>,
    /// What is trusted, if the server speaks TLS.
    pub tls: Arc<ClientConfig>,
    /// How many connections this relay opens at most, the listening one not counted.
    pub max_connections: usize,
    /// Start on a server that may forget what it has acknowledged.
    pub allow_unsafe: bool,
    /// How long a lease lasts.
    pub lease: Duration,
}

impl Settings {
    pub(super) fn connector(&self) -> Connector {
        Connector {
            url: self.url.clone(),
            tls: Arc::clone(&self.tls),
            warnings: Arc::default(),
            first: Arc::default(),
        }
    }
}
