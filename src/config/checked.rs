//! The checked configuration: what the rest of the program is built from.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use super::sources::Fingerprint;
use crate::{
    code_defender::settings::MatchSettings,
    destination, http_client,
    ids::{AppName, ChannelId},
    intake::{catch_up::CatchUpSettings, routing::When},
    secret::Secret,
    store::Retention,
};

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Addresses and timeouts of the two listeners.
    pub server: ServerConfig,
    /// Base URL of Slack's Web API.
    pub slack_api: Url,
    /// The Slack apps, at least one.
    pub apps: Vec<AppConfig>,
    /// Settings for reading the channels' history.
    pub catch_up: CatchUpSettings,
    /// Titles by which incidents are recognised.
    pub matching: MatchSettings,
    /// The place where alerts are kept.
    pub store: StoreConfig,
    /// Time for which finished alerts are kept.
    pub retention: Retention,
    /// The receivers of alerts, in the order of the file.
    pub destinations: Vec<DestinationConfig>,
    /// Every secret of the file; those that come from files are refreshed regularly.
    pub secrets: Vec<Secret>,
}

/// The two listeners.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address that Slack calls.
    pub listen: SocketAddr,
    /// Address for operators, Kubernetes and Prometheus.
    pub ops_listen: SocketAddr,
    /// Bearer token of the API.
    pub ops_token: Option<Secret>,
    /// Time limit for reading a request's head, and for an idle connection.
    pub idle_timeout: Duration,
    /// Time after SIGTERM during which requests are still accepted.
    pub drain_delay: Duration,
}

/// A Slack app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppConfig {
    /// Name of the app, part of every alert id.
    pub name: AppName,
    /// The current signing secret, followed by the previous one if there is one.
    pub signing_secrets: Vec<Secret>,
    /// The bot token. Without a token, history is not read.
    pub bot_token: Option<Secret>,
    /// Channels with incidents, by id. If no names are given either, every channel.
    pub channels: Vec<ChannelId>,
    /// Channels with incidents, by name.
    pub channel_names: Vec<String>,
    /// Bots that may post incidents; empty for all.
    pub bots: Vec<String>,
    /// Workspace or organisation whose events are accepted; all if `None`.
    pub team: Option<String>,
    /// Proxy and certificates for calls of the Web API.
    pub client: http_client::Settings,
    /// Digest of the certificates that `client` names. A reload keeps the poller as long as the
    /// digest is the same.
    pub client_files: Fingerprint,
}

/// The place where alerts are kept.
#[derive(Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The database that is used instead of the file, if one is configured.
    pub postgres: Option<PostgresConfig>,
    /// Path of the SQLite file.
    pub path: PathBuf,
    /// Maximum size of the SQLite store.
    pub max_size_bytes: u64,
    /// Time after which a lease expires.
    pub lease: Duration,
}

/// A PostgreSQL database that several relays share.
#[derive(Debug, PartialEq, Eq)]
pub struct PostgresConfig {
    /// URL of the database.
    pub url: Secret,
    /// URL for `LISTEN`, which a pooler in transaction mode does not support.
    pub listen_url: Option<Secret>,
    /// Maximum number of connections of one relay.
    pub max_connections: usize,
    /// PEM file of certificates to trust in addition to the public roots.
    pub ca_file: Option<PathBuf>,
    /// `true` if the relay starts on a server that may lose acknowledged commits.
    pub allow_unsafe: bool,
}

/// A receiver of alerts.
#[derive(Debug)]
pub struct DestinationConfig {
    /// Preset, URL, secrets and headers: everything a request is made from.
    pub http: destination::Settings,
    /// Conditions on the alerts that are sent to this destination.
    pub when: When,
    /// Maximum number of simultaneous attempts.
    pub concurrency: NonZeroUsize,
    /// Maximum number of attempts per minute.
    pub rate_limit: Option<NonZeroU32>,
    /// Age at which an undelivered alert is given up.
    pub max_age: Duration,
    /// Digest of everything here except `when`. A reload keeps the destination's worker as long as
    /// the digest is the same.
    pub fingerprint: Fingerprint,
}
