//! How a connection is made: where the server is, over TLS if it can, and what its session must
//! be. A server that may forget a commit is refused.

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::Connect;
use rustls::ClientConfig;
use tokio::task::JoinHandle;
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Error, Notification, SimpleQueryMessage, Socket,
    config::TargetSessionAttrs, tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::OpenError;

/// Where the server is: the text is asked for at each connection, since a password may change.
#[derive(Clone)]
pub struct Url(Arc<dyn Fn() -> Arc<String> + Send + Sync>);

impl Url {
    /// What the function returns, when it is needed.
    pub fn new(reveal: impl Fn() -> Arc<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reveal))
    }

    /// Whether it names a database at all.
    pub fn is_usable(&self) -> bool {
        self.config().is_ok()
    }

    /// The URL as the driver reads it.
    ///
    /// # Errors
    /// [`OpenError::Url`]. The text is not shown: it may hold a password.
    pub(super) fn config(&self) -> Result<Config, OpenError> {
        self.config_from(0)
    }

    /// The same, beginning with another one of its hosts.
    pub(super) fn config_from(&self, host: usize) -> Result<Config, OpenError> {
        // The driver's `require` verifies certificate and name, as these do elsewhere.
        let text = beginning_with(host, &(self.0)())
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = text.parse().map_err(|_shows_a_password| OpenError::Url)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(OpenError::Url);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_application_name().is_none() {
            config.application_name("slack-soar-relay");
        }
        config
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE)
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        Ok(config)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url(***)")
    }
}

/// The URL with its hosts turned round. What is no URL stays as it is.
fn beginning_with(host: usize, url: &str) -> String {
    let turned = || {
        let start = url.find('@').or_else(|| Some(url.find("://")? + 2))? + 1;
        let (login, rest) = url.split_at_checked(start)?;
        let (hosts, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let mut hosts: Vec<&str> = hosts.split(',').collect();
        let first = host % hosts.len();
        hosts.rotate_left(first);
        // Its addresses would no longer be those of its hosts.
        (!tail.contains("hostaddr=")).then(|| format!("{login}{}{tail}", hosts.join(",")))
    };
    turned().unwrap_or_else(|| url.to_owned())
}

/// For TCP to one host.
const CONNECT: Duration = Duration::from_secs(3);

/// For a whole connection, whichever of its hosts is alive; and for a look at its settings.
pub(super) const CREATE: Duration = Duration::from_secs(5);

/// After that long without an answer from its machine a connection is dead.
const SILENCE: Duration = Duration::from_secs(5);

/// Makes connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) url: Url,
    pub(super) tls: Arc<ClientConfig>,
    /// How often a commit gave up waiting for its standby.
    pub(super) warnings: Arc<AtomicU64>,
    /// The host that is tried first.
    pub(super) first: Arc<AtomicUsize>,
}

impl Connector {
    /// The host to begin with.
    pub(super) fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    fn tls(&self) -> MakeRustlsConnect {
        MakeRustlsConnect::new(self.tls.as_ref().clone())
    }

    /// A connection of its own, and what drives it: that ends when the connection does, and hears
    /// what is notified.
    pub(super) async fn connect_to<H: FnMut(&Notification) + Send + 'static>(
        &self,
        config: Config,
        hear: H,
    ) -> Result<(Client, impl Future<Output = ()> + Send + use<H>), Error> {
        let mut attempt = Attempt { hosts: &self.first, first: self.first(), is_done: false };
        let (client, connection) = config.connect(self.tls()).await?;
        attempt.is_done = true;
        Ok((client, drive(connection, Arc::clone(&self.warnings), hear)))
    }
}

/// A server that takes a connection and then says nothing would stand in the way of those named
/// after it, time and again: an attempt that is given up lets the next one begin with another.
struct Attempt<'a> {
    hosts: &'a AtomicUsize,
    first: usize,
    is_done: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            next_host(self.hosts, self.first);
        }
    }
}

/// Lets the next attempt begin with another host, unless that is done already.
pub(super) fn next_host(hosts: &AtomicUsize, first: usize) {
    let next = first.wrapping_add(1);
    let is_done = hosts.compare_exchange(first, next, Ordering::Relaxed, Ordering::Relaxed);
    if is_done.is_ok() {
        tracing::debug!("the next connection to PostgreSQL begins with the next host");
    }
}

/// The part of the server that says that a commit waits no longer for its standby. The message may
/// be in any language; this is not.
const GAVE_UP_WAITING: &str = "SyncRepWaitForLSN";

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Moves the connection's bytes. One warning is more than chatter: a commit that no longer waits
/// for its standby says so, and then reports success.
async fn drive(
    mut connection: Connection<Socket, Stream>,
    warnings: Arc<AtomicU64>,
    mut hear: impl FnMut(&Notification),
) {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                if notice.routine() == Some(GAVE_UP_WAITING) {
                    warnings.fetch_add(1, Ordering::SeqCst);
                    tracing::warn!(message = notice.message(), "PostgreSQL warns at a commit");
                }
            }
            Ok(AsyncMessage::Notification(notification)) => hear(&notification),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection to PostgreSQL broke");
                return;
            }
        }
    }
}

type Connecting<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Connector {
    #[expect(clippy::disallowed_methods, reason = "the pool aborts it with its connection")]
    fn connect(&self, known: &Config) -> Connecting<'_> {
        // A URL that can no longer be read is told by the server's refusal of the one before it.
        let config = self.url.config_from(self.first()).unwrap_or_else(|_unreadable| known.clone());
        Box::pin(async move {
            let (client, driver) = self.connect_to(config, |_| {}).await?;
            Ok((client, tokio::spawn(driver)))
        })
    }
}

/// What the server does with a commit, by its own words.
const SAFETY: &str = "SELECT current_setting('synchronous_commit'), current_setting('fsync'), \
    current_setting('full_page_writes')";

/// Whether the server keeps what it has acknowledged; if not, which setting is wrong.
pub(super) async fn unsafe_setting(client: &Client) -> Result<Option<String>, Error> {
    const NAMES: [&str; 3] = ["synchronous_commit", "fsync", "full_page_writes"];
    let answer = client.simple_query(SAFETY).await?;
    let row = answer.iter().find_map(|message| {
        if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None }
    });
    let off = |(index, name): (usize, &&str)| {
        let value = row.and_then(|row| row.get(index)).unwrap_or("unknown");
        ["off", "unknown"].contains(&value).then(|| format!("{name}={value}"))
    };
    Ok(NAMES.iter().enumerate().find_map(off))
}

#[cfg(test)]
mod tests {
    use super::beginning_with;

    #[test]
    fn a_url_begins_with_each_of_its_hosts_in_turn() {
        let turned = |url| [0, 1, 2, usize::MAX].map(|host| beginning_with(host, url));
        let url = "postgresql://relay:p,w@a:1,b,[::1]:3/relay?sslmode=require";
        let [same, second, third, last] = turned(url);
        assert_eq!(same, url);
        assert_eq!(second, "postgresql://relay:p,w@b,[::1]:3,a:1/relay?sslmode=require");
        assert_eq!(third, "postgresql://relay:p,w@[::1]:3,a:1,b/relay?sslmode=require");
        assert_eq!(last, same, "a count that has gone round");
        let [_, odd, ..] = turned("postgresql://u:p/w?,@a,b/d");
        assert_eq!(odd, "postgresql://u:p/w?,@b,a/d");
        let addresses = "postgresql://a,b/d?hostaddr=127.0.0.1,127.0.0.2";
        for one in ["postgresql://a", "postgresql://a/d", "host=a,b user=relay", addresses, ""] {
            assert!(turned(one).iter().all(|turned| turned == one), "{one}");
        }
    }
}
