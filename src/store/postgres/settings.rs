//! Settings of a store in PostgreSQL.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;

use super::connect::{Connector, Url};

/// The database's address and the limits for its use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the database, or of a pooler in transaction mode in front of it.
    pub url: Url,
    /// Address for `LISTEN`, without such a pooler. With `None` relays look for deliveries of other
    /// relays every second only.
    pub listen_url: Option<Url>,
    /// TLS configuration for servers that offer TLS.
    pub tls: Arc<ClientConfig>,
    /// The most connections of this relay, not counting the listening one.
    pub max_connections: usize,
    /// Accept a server that may lose a commit that it acknowledged.
    pub allow_unsafe: bool,
    /// Duration of a delivery's lease.
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
