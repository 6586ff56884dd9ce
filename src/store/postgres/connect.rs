//! Opens connections: the URL with its hosts, TLS, and the check of the server's settings.

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

use super::error::OpenError;

/// Address of the database. The text is read again for each connection, since the password may
/// change.
#[derive(Clone)]
pub struct Url(Arc<dyn Fn() -> Arc<String> + Send + Sync>);

impl Url {
    /// Returns a URL that calls the function whenever it needs the text.
    pub fn new(reveal: impl Fn() -> Arc<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reveal))
    }

    /// Returns whether the text can be parsed as the URL of a database.
    pub fn is_usable(&self) -> bool {
        self.config().is_ok()
    }

    /// Returns the driver's configuration.
    ///
    /// # Errors
    /// [`OpenError::Url`]. The text is not shown, since it may contain a password.
    pub(super) fn config(&self) -> Result<Config, OpenError> {
        self.config_from(0)
    }

    /// Returns the driver's configuration with the hosts rotated so that this one is tried first.
    pub(super) fn config_from(&self, host: usize) -> Result<Config, OpenError> {
        // With rustls `require` verifies the certificate and the name, as these two do in libpq.
        let text = beginning_with(host, &(self.0)())
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = text.parse().map_err(|_shows_a_password| OpenError::Url)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(OpenError::Url);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(HOST_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("slack-soar-relay");
        }
        config
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .tcp_user_timeout(DEAD_AFTER)
            .keepalives_idle(DEAD_AFTER)
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

/// Returns the URL with its hosts rotated. Text that is not a URL is returned unchanged.
fn beginning_with(host: usize, url: &str) -> String {
    let rotated = || {
        let start = url.find('@').or_else(|| Some(url.find("://")? + 2))? + 1;
        let (login, rest) = url.split_at_checked(start)?;
        let (hosts, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let mut hosts: Vec<&str> = hosts.split(',').collect();
        let first = host % hosts.len();
        hosts.rotate_left(first);
        // `hostaddr` lists addresses in the order of the hosts, which would no longer match.
        (!tail.contains("hostaddr=")).then(|| format!("{login}{}{tail}", hosts.join(",")))
    };
    rotated().unwrap_or_else(|| url.to_owned())
}

/// Time limit for the TCP connection to one host.
const HOST_TIMEOUT: Duration = Duration::from_secs(3);

/// Time limit for a whole connection attempt over all hosts, and for the check of its settings.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without an answer from the server's machine after which TCP gives up a connection.
const DEAD_AFTER: Duration = Duration::from_secs(5);

/// Opens connections to the database.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) url: Url,
    pub(super) tls: Arc<ClientConfig>,
    /// Number of commits that gave up waiting for a standby.
    pub(super) warnings: Arc<AtomicU64>,
    /// Index of the host that is tried first.
    pub(super) first: Arc<AtomicUsize>,
}

impl Connector {
    /// Returns the index of the host that is tried first.
    pub(super) fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    fn tls(&self) -> MakeRustlsConnect {
        MakeRustlsConnect::new(self.tls.as_ref().clone())
    }

    /// Opens a connection. Returns the client and the future that drives the connection, which ends
    /// with the connection and calls `on_notify` for each notification.
    pub(super) async fn connect_to<H: FnMut(&Notification) + Send + 'static>(
        &self,
        config: Config,
        on_notify: H,
    ) -> Result<(Client, impl Future<Output = ()> + Send + use<H>), Error> {
        let mut attempt = Attempt { hosts: &self.first, first: self.first(), is_done: false };
        let (client, connection) = config.connect(self.tls()).await?;
        attempt.is_done = true;
        Ok((client, drive(connection, Arc::clone(&self.warnings), on_notify)))
    }
}

/// A connection attempt. If it is dropped unfinished, the next attempt begins with another host:
/// a server that accepts the connection and then hangs would block the hosts behind it each time.
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

/// Lets the next attempt begin with another host, unless another attempt has done so.
pub(super) fn next_host(hosts: &AtomicUsize, first: usize) {
    let next = first.wrapping_add(1);
    let changed = hosts.compare_exchange(first, next, Ordering::Relaxed, Ordering::Relaxed);
    if changed.is_ok() {
        tracing::debug!("the next connection to PostgreSQL begins with the next host");
    }
}

/// Routine of the server that warns that a commit no longer waits for its standby. The message is
/// translated; the routine's name is not.
const STANDBY_WAIT: &str = "SyncRepWaitForLSN";

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Moves the connection's bytes until it ends. Counts the warnings of commits that gave up waiting
/// for their standby.
async fn drive(
    mut connection: Connection<Socket, Stream>,
    warnings: Arc<AtomicU64>,
    mut on_notify: impl FnMut(&Notification),
) {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                if notice.routine() == Some(STANDBY_WAIT) {
                    // The server then reports success. The warning comes before the answer to the
                    // commit, which fails because of this counter.
                    warnings.fetch_add(1, Ordering::SeqCst);
                    tracing::warn!(message = notice.message(), "PostgreSQL warns at a commit");
                }
            }
            Ok(AsyncMessage::Notification(notification)) => on_notify(&notification),
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
        // If the URL can no longer be read, the old one is tried: the server's refusal says more.
        let config = self.url.config_from(self.first()).unwrap_or_else(|_unreadable| known.clone());
        Box::pin(async move {
            let (client, driver) = self.connect_to(config, |_| {}).await?;
            Ok((client, tokio::spawn(driver)))
        })
    }
}

/// Reads the settings that decide whether a commit survives a crash.
const SAFETY: &str = "SELECT current_setting('synchronous_commit'), current_setting('fsync'), \
    current_setting('full_page_writes')";

/// Returns the setting by which the server may lose an acknowledged commit, if there is one.
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
    fn a_url_is_rotated_to_begin_with_each_of_its_hosts() {
        let rotated = |url| [0, 1, 2, usize::MAX].map(|host| beginning_with(host, url));
        let url = "postgresql://relay:p,w@a:1,b,[::1]:3/relay?sslmode=require";
        let [same, second, third, last] = rotated(url);
        assert_eq!(same, url);
        assert_eq!(second, "postgresql://relay:p,w@b,[::1]:3,a:1/relay?sslmode=require");
        assert_eq!(third, "postgresql://relay:p,w@[::1]:3,a:1,b/relay?sslmode=require");
        assert_eq!(last, same, "the counter has wrapped around");
        let [_, odd, ..] = rotated("postgresql://u:p/w?,@a,b/d");
        assert_eq!(odd, "postgresql://u:p/w?,@b,a/d");
        let addresses = "postgresql://a,b/d?hostaddr=127.0.0.1,127.0.0.2";
        for one in ["postgresql://a", "postgresql://a/d", "host=a,b user=relay", addresses, ""] {
            assert!(rotated(one).iter().all(|url| url == one), "{one}");
        }
    }
}
