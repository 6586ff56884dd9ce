//! The configuration file as it is written: source of the JSON Schema and of the reference page.
//! Private to `config`; the rest of the program uses the checked configuration.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::units::{Rate, Size, Span};
use crate::code_defender::settings::{DEFAULT_TITLE, FieldTitles};

/// The configuration of slack-soar-relay.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "slack-soar-relay configuration")]
pub(super) struct File {
    /// Addresses and timeouts of the two listeners.
    #[serde(default)]
    pub(super) server: ServerSection,
    /// The Slack apps whose incidents are relayed.
    pub(super) slack: SlackSection,
    /// Titles by which incidents are recognised.
    #[serde(default, rename = "match")]
    pub(super) matching: MatchSection,
    /// Regular reading of the channels' history, which finds what Slack did not push.
    #[serde(default)]
    pub(super) catch_up: CatchUpSection,
    /// The place where alerts are kept, before and after their delivery.
    #[serde(default)]
    pub(super) store: StoreSection,
    /// Time for which finished alerts are kept. Undelivered alerts are never removed.
    #[serde(default)]
    pub(super) retention: RetentionSection,
    /// Settings common to the deliveries of all destinations.
    #[serde(default)]
    pub(super) delivery: DeliverySection,
    /// Folder with presets of your own, in addition to the built-in ones.
    pub(super) presets_dir: Option<PathBuf>,
    /// Receivers of alerts. Each destination receives every alert that meets its `when`.
    #[serde(default)]
    pub(super) destinations: Vec<DestinationSection>,
}

/// Addresses and timeouts of the two listeners.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServerSection {
    /// Address that Slack calls. Serves `/slack/events` and `/healthz`, nothing else.
    pub(super) listen: SocketAddr,
    /// Address for operators: health, metrics and the API.
    pub(super) ops_listen: SocketAddr,
    /// Bearer token of the API. Without a token the API is open on a loopback address and disabled
    /// on any other.
    pub(super) ops_token: Option<SecretRef>,
    /// Time limit for reading a request's head, and for an idle connection. Use 75s behind a proxy
    /// that pools connections.
    pub(super) idle_timeout: Span,
    /// Time after SIGTERM during which requests are still accepted while readiness is off.
    pub(super) drain_delay: Span,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            ops_listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            ops_token: None,
            idle_timeout: Span::seconds(10),
            drain_delay: Span::seconds(5),
        }
    }
}

/// The Slack apps whose incidents are relayed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SlackSection {
    /// Base URL of Slack's Web API.
    #[serde(default = "slack_api")]
    pub(super) api_url: String,
    /// HTTP proxy for calls of the Web API: `http://[user:password@]host:port`.
    pub(super) proxy: Option<String>,
    /// PEM file of certificates to trust in addition to the public roots, for calls of the Web API.
    pub(super) ca_file: Option<PathBuf>,
    /// One or more Slack apps, usually one per workspace.
    #[schemars(length(min = 1))]
    pub(super) apps: Vec<AppSection>,
}

impl Default for SlackSection {
    fn default() -> Self {
        Self { api_url: slack_api(), proxy: None, ca_file: None, apps: Vec::new() }
    }
}

/// Base URL of the Web API at Slack itself.
pub(super) const SLACK_API: &str = "https://slack.com/api";

fn slack_api() -> String {
    SLACK_API.to_owned()
}

/// A Slack app.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AppSection {
    /// Name of the app, part of every alert id: keep the name when the Slack app is replaced.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub(super) name: String,
    /// "Signing Secret" from the app's page Basic Information.
    pub(super) signing_secret: SecretRef,
    /// The previous signing secret, accepted while the secret is rotated.
    pub(super) previous_signing_secret: Option<SecretRef>,
    /// "Bot User OAuth Token" from the app's page OAuth & Permissions, for catch-up.
    pub(super) bot_token: Option<SecretRef>,
    /// Channels with incidents, by id, or by name if `bot_token` is set. Empty: every channel that
    /// the bot is in.
    #[serde(default)]
    pub(super) channels: Vec<String>,
    /// The `bot_id` or `app_id` of each bot that may post incidents. Empty: every bot.
    #[serde(default)]
    pub(super) bots: Vec<String>,
    /// Id of the workspace whose events are accepted. Required where several apps share a signing
    /// secret (one Slack app in several workspaces), and for the token of an organisation.
    #[schemars(regex(pattern = r"^[TE][A-Z0-9]{2,}$"))]
    pub(super) team: Option<String>,
    /// Replaces `slack.proxy` for this app.
    pub(super) proxy: Option<String>,
    /// Replaces `slack.ca_file` for this app.
    pub(super) ca_file: Option<PathBuf>,
}

/// Titles by which incidents are recognised.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MatchSection {
    /// Titles of an incident's attachment: a text, compared without regard to case and surrounding
    /// white space, or a `/regular expression/`.
    #[schemars(length(min = 1))]
    pub(super) titles: Vec<String>,
    /// Titles of the attachment's fields, compared without regard to case and markup. If a message
    /// has several of the fields in a list, the first title in the list whose field is not empty is
    /// read.
    pub(super) fields: FieldsSection,
}

impl Default for MatchSection {
    fn default() -> Self {
        Self { titles: vec![DEFAULT_TITLE.to_owned()], fields: FieldsSection::default() }
    }
}

/// Titles of the attachment's fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FieldsSection {
    /// Titles of the script's field.
    pub(super) script: Vec<String>,
    /// Titles of the risk level's field.
    pub(super) risk: Vec<String>,
    /// Titles of the host domain's field.
    pub(super) host: Vec<String>,
}

impl Default for FieldsSection {
    fn default() -> Self {
        let FieldTitles { script, risk, host } = FieldTitles::default();
        Self { script, risk, host }
    }
}

/// Regular reading of the channels' history.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CatchUpSection {
    /// Time between two readings of a channel.
    pub(super) every: Span,
    /// Distance before the end of the last reading at which the next one starts.
    pub(super) overlap: Span,
    /// Age below which messages are read again by the next reading, since Slack may still show
    /// others beside them.
    pub(super) settle: Span,
    /// Period that the very first reading covers.
    pub(super) first_lookback: Span,
}

impl Default for CatchUpSection {
    fn default() -> Self {
        Self {
            every: Span::seconds(60),
            overlap: Span::seconds(600),
            settle: Span::seconds(30),
            first_lookback: Span::seconds(24 * 3600),
        }
    }
}

/// The place where alerts are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StoreSection {
    /// A file on a local disk, for a single relay.
    pub(super) sqlite: SqliteSection,
    /// A PostgreSQL database that several relays share, instead of `sqlite`.
    pub(super) postgres: Option<PostgresSection>,
}

/// The embedded SQLite database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SqliteSection {
    /// Path of the database file, on a local disk. Network file systems are refused.
    pub(super) path: PathBuf,
    /// Maximum size of the store, at least 2MiB; below 64MiB `check` warns. At 80 % the relay
    /// warns, at 90 % delivered alerts are removed before their retention is over, at 95 % new
    /// alerts are refused and Slack sends them again.
    pub(super) max_size: Size,
}

impl Default for SqliteSection {
    fn default() -> Self {
        Self { path: PathBuf::from("relay.db"), max_size: Size::gibibytes(1) }
    }
}

/// The shared PostgreSQL database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PostgresSection {
    /// `postgresql://user:password@host:port/database?sslmode=require`. Separate several hosts by
    /// commas: the one that accepts writes is used. May point to a pooler in transaction mode.
    pub(super) url: SecretRef,
    /// URL of the same database that does not point to such a pooler. With this URL relays notify
    /// one another of due deliveries; without it they look every second.
    pub(super) listen_url: Option<SecretRef>,
    /// Maximum number of connections of one relay, not counting the one that listens.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 4, max = 1000))]
    pub(super) max_connections: u32,
    /// PEM file of certificates to trust in addition to the public roots.
    pub(super) ca_file: Option<PathBuf>,
    /// Start even if the server may lose acknowledged commits (`synchronous_commit`, `fsync` or
    /// `full_page_writes` is off). Alerts may be lost.
    #[serde(default)]
    pub(super) allow_unsafe: bool,
}

const fn default_max_connections() -> u32 {
    10
}

/// Time for which finished alerts are kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetentionSection {
    /// Delivered, cancelled and unrouted alerts.
    pub(super) delivered: Span,
    /// Dead alerts: those that were given up.
    pub(super) dead: Span,
}

impl Default for RetentionSection {
    fn default() -> Self {
        Self { delivered: Span::seconds(30 * 86_400), dead: Span::seconds(90 * 86_400) }
    }
}

/// Settings common to the deliveries of all destinations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeliverySection {
    /// Time for which a worker may hold a delivery, at least 30s more than every `timeout`.
    pub(super) lease: Span,
}

impl Default for DeliverySection {
    fn default() -> Self {
        Self { lease: Span::seconds(90) }
    }
}

/// A receiver of alerts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DestinationSection {
    /// Name of the destination in metrics, logs and commands.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub(super) name: String,
    /// Preset for the receiver: a built-in one, or one from `presets_dir`.
    pub(super) preset: String,
    /// URL of the receiver. A secret, since the URLs of webhooks contain keys. Required unless the
    /// preset has a URL.
    pub(super) url: Option<SecretRef>,
    /// Parameters that the preset defines. A text may be `{env: NAME}` or `{file: PATH}`; a secret
    /// must be.
    #[serde(default)]
    pub(super) params: Map<String, Value>,
    /// Conditions on the alerts that are sent to this destination. Without conditions, all are.
    #[serde(default)]
    pub(super) when: WhenSection,
    /// Time limit for one attempt as a whole.
    #[serde(default = "attempt_timeout")]
    pub(super) timeout: Span,
    /// Maximum number of simultaneous attempts.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 256))]
    pub(super) concurrency: u32,
    /// Maximum rate of attempts, for each relay process.
    pub(super) rate_limit: Option<Rate>,
    /// Limits on the retries of failed deliveries.
    #[serde(default)]
    pub(super) retry: RetrySection,
    /// HTTP proxy: `http://[user:password@]host:port`.
    pub(super) proxy: Option<String>,
    /// PEM file of certificates to trust in addition to the public roots.
    pub(super) ca_file: Option<PathBuf>,
    /// PEM file of the client certificate; needs `client_key_file`.
    pub(super) client_cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub(super) client_key_file: Option<PathBuf>,
    /// Additional headers of each request.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, HeaderText>,
    /// Secret with which every request is signed, in the way of Standard Webhooks.
    pub(super) signing_secret: Option<SecretRef>,
}

fn attempt_timeout() -> Span {
    Span::seconds(15)
}

fn concurrency() -> u32 {
    4
}

/// Conditions on the alerts that are sent to a destination. An alert must meet all of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WhenSection {
    /// The lowest severity that is sent.
    pub(super) min_severity: Option<Severity>,
    /// Names of the apps whose alerts are sent.
    pub(super) apps: Vec<String>,
    /// Ids of the channels whose alerts are sent.
    pub(super) channels: Vec<String>,
    /// Treatment of test incidents.
    pub(super) test: TestIncidents,
}

/// A severity level.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Informative,
    Low,
    Medium,
    High,
    Critical,
}

/// Treatment of test incidents.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TestIncidents {
    #[default]
    Include,
    Exclude,
    Only,
}

/// Limits on the retries of failed deliveries.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetrySection {
    /// Age at which an undelivered alert is given up: it is kept as dead and can be retried by
    /// hand.
    pub(super) max_age: Span,
}

impl Default for RetrySection {
    fn default() -> Self {
        Self { max_age: Span::seconds(72 * 3600) }
    }
}

/// A reference to a secret: `{env: NAME}`, or `{file: PATH}`, which is read again when it changes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct SecretRef {
    /// Name of an environment variable.
    pub(super) env: Option<String>,
    /// Path of a file.
    pub(super) file: Option<PathBuf>,
}

/// Value of a header: a text, or a reference to a secret.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum HeaderText {
    Plain(String),
    Secret(SecretRef),
}
