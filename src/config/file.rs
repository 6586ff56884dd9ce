//! The configuration file as it is written: the source of the schema and of its documentation.
//! Private to `config`; the rest of the program sees checked values.

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
    /// The listeners.
    #[serde(default)]
    pub(super) server: Server,
    /// Where incidents come from.
    pub(super) slack: Slack,
    /// What an incident looks like.
    #[serde(default, rename = "match")]
    pub(super) matching: Match,
    /// Reading the channel's history for what Slack did not push.
    #[serde(default)]
    pub(super) catch_up: CatchUp,
    /// Where alerts are kept until they are delivered, and after.
    #[serde(default)]
    pub(super) store: Store,
    /// How long finished alerts are kept. Undelivered ones are never removed.
    #[serde(default)]
    pub(super) retention: Retention,
    /// How deliveries are shared out.
    #[serde(default)]
    pub(super) delivery: Delivery,
    /// A folder with presets of your own, beside the built-in ones.
    pub(super) presets_dir: Option<PathBuf>,
    /// Where alerts go: each destination gets each alert that its `when` lets through.
    #[serde(default)]
    pub(super) destinations: Vec<Destination>,
}

/// The listeners.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    /// What Slack calls: `/slack/events` and `/healthz`, nothing else.
    pub(super) listen: SocketAddr,
    /// Health, metrics and API.
    pub(super) ops_listen: SocketAddr,
    /// Guards the API, which without it is open on a loopback address and off on any other.
    pub(super) ops_token: Option<SecretRef>,
    /// For reading a request's head, and for an idle connection. Use 75s behind a proxy that keeps
    /// a pool of connections.
    pub(super) idle_timeout: Span,
    /// After SIGTERM: how long requests are still accepted while readiness is off.
    pub(super) drain_delay: Span,
}

impl Default for Server {
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

/// Where incidents come from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Slack {
    /// Slack's Web API.
    #[serde(default = "slack_api")]
    pub(super) api_url: String,
    /// `http://[user:password@]host:port`, for calls of the Web API.
    pub(super) proxy: Option<String>,
    /// PEM certificates that are trusted beside the public roots, for calls of the Web API.
    pub(super) ca_file: Option<PathBuf>,
    /// One or more Slack apps; one for each workspace is usual.
    #[schemars(length(min = 1))]
    pub(super) apps: Vec<App>,
}

impl Default for Slack {
    fn default() -> Self {
        Self { api_url: slack_api(), proxy: None, ca_file: None, apps: Vec::new() }
    }
}

/// Slack's own address of its Web API.
pub(super) const SLACK_API: &str = "https://slack.com/api";

fn slack_api() -> String {
    SLACK_API.to_owned()
}

/// A Slack app.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct App {
    /// Part of every alert id: keep it when the Slack app is replaced.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub(super) name: String,
    /// "Signing Secret" on the app's page Basic Information.
    pub(super) signing_secret: SecretRef,
    /// The signing secret before that one, while it is rotated.
    pub(super) previous_signing_secret: Option<SecretRef>,
    /// "Bot User OAuth Token" on the app's page OAuth & Permissions, for catch-up.
    pub(super) bot_token: Option<SecretRef>,
    /// The channels with incidents, by id, or by name if there is a `bot_token`; empty for every
    /// channel that the bot is in.
    #[serde(default)]
    pub(super) channels: Vec<String>,
    /// The `bot_id` or `app_id` of each bot that may post incidents; empty for every bot.
    #[serde(default)]
    pub(super) bots: Vec<String>,
    /// The id of the workspace whose events are taken. Needed where several apps share a signing
    /// secret (one Slack app in several workspaces), and for the token of an organisation.
    #[schemars(regex(pattern = r"^[TE][A-Z0-9]{2,}$"))]
    pub(super) team: Option<String>,
    /// In place of `slack.proxy`.
    pub(super) proxy: Option<String>,
    /// In place of `slack.ca_file`.
    pub(super) ca_file: Option<PathBuf>,
}

/// What an incident looks like.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Match {
    /// Titles of the attachment: a text (trimmed, in any case), or a `/regular expression/`.
    #[schemars(length(min = 1))]
    pub(super) titles: Vec<String>,
    /// Titles of the attachment's fields, in any case and whatever markup is around them. The order
    /// of the list decides: the first title whose field has something in it is read.
    pub(super) fields: Fields,
}

impl Default for Match {
    fn default() -> Self {
        Self { titles: vec![DEFAULT_TITLE.to_owned()], fields: Fields::default() }
    }
}

/// Titles of the attachment's fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fields {
    /// Of the script.
    pub(super) script: Vec<String>,
    /// Of the risk level.
    pub(super) risk: Vec<String>,
    /// Of the host domain.
    pub(super) host: Vec<String>,
}

impl Default for Fields {
    fn default() -> Self {
        let FieldTitles { script, risk, host } = FieldTitles::default();
        Self { script, risk, host }
    }
}

/// Reading the channel's history.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CatchUp {
    /// How often.
    pub(super) every: Span,
    /// How far each reading goes back before the one before it.
    pub(super) overlap: Span,
    /// Newer messages than this may still appear, so the next reading covers them again.
    pub(super) settle: Span,
    /// How far the very first reading goes back.
    pub(super) first_lookback: Span,
}

impl Default for CatchUp {
    fn default() -> Self {
        Self {
            every: Span::seconds(60),
            overlap: Span::seconds(600),
            settle: Span::seconds(30),
            first_lookback: Span::seconds(24 * 3600),
        }
    }
}

/// Where alerts are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Store {
    /// One file on a local disk: for one relay.
    pub(super) sqlite: Sqlite,
    /// A PostgreSQL database: for several relays that share it. In place of `sqlite`.
    pub(super) postgres: Option<Postgres>,
}

/// The embedded store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sqlite {
    /// The file, on a local disk: network file systems are refused.
    pub(super) path: PathBuf,
    /// At 80 % a warning, at 90 % delivered alerts go before their retention is over, at 95 %
    /// alerts are refused and Slack sends them again. At least 2MiB; below 64MiB a warning.
    pub(super) max_size: Size,
}

impl Default for Sqlite {
    fn default() -> Self {
        Self { path: PathBuf::from("relay.db"), max_size: Size::gibibytes(1) }
    }
}

/// The shared store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Postgres {
    /// `postgresql://user:password@host:port/database?sslmode=require`; several hosts by commas,
    /// of which the one that takes writes is used. A pooler by transaction may stand in between.
    pub(super) url: SecretRef,
    /// The same database without such a pooler: relays then tell one another what is due. Without
    /// it they look every second.
    pub(super) listen_url: Option<SecretRef>,
    /// How many connections one relay opens at most, the listening one not counted.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 4, max = 1000))]
    pub(super) max_connections: u32,
    /// PEM certificates that are trusted beside the public roots.
    pub(super) ca_file: Option<PathBuf>,
    /// Start on a server that may forget what it has acknowledged (`synchronous_commit`, `fsync`
    /// or `full_page_writes` off). Alerts may be lost.
    #[serde(default)]
    pub(super) allow_unsafe: bool,
}

const fn default_max_connections() -> u32 {
    10
}

/// How long finished alerts are kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retention {
    /// Delivered, cancelled and unrouted ones.
    pub(super) delivered: Span,
    /// Dead ones.
    pub(super) dead: Span,
}

impl Default for Retention {
    fn default() -> Self {
        Self { delivered: Span::seconds(30 * 86_400), dead: Span::seconds(90 * 86_400) }
    }
}

/// How deliveries are shared out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Delivery {
    /// How long one worker may hold a delivery; at least 30s more than every `timeout`.
    pub(super) lease: Span,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { lease: Span::seconds(90) }
    }
}

/// Where alerts go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Destination {
    /// Its name in metrics, logs and commands.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub(super) name: String,
    /// How it is spoken to: a built-in preset, or one of `presets_dir`.
    pub(super) preset: String,
    /// Its URL. A secret: the URLs of webhooks hold their keys. Needed, unless the preset has one.
    pub(super) url: Option<SecretRef>,
    /// What the preset defines. A text may be `{env: NAME}` or `{file: PATH}`; a secret must be.
    #[serde(default)]
    pub(super) params: Map<String, Value>,
    /// Which alerts it gets. Every one, if nothing is said.
    #[serde(default)]
    pub(super) when: When,
    /// For one whole attempt.
    #[serde(default = "attempt_timeout")]
    pub(super) timeout: Span,
    /// Attempts at once.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 256))]
    pub(super) concurrency: u32,
    /// At most so many attempts, in each process.
    pub(super) rate_limit: Option<Rate>,
    /// Trying again.
    #[serde(default)]
    pub(super) retry: Retry,
    /// `http://[user:password@]host:port`.
    pub(super) proxy: Option<String>,
    /// PEM certificates that are trusted beside the public roots.
    pub(super) ca_file: Option<PathBuf>,
    /// PEM certificate to show to the destination; needs `client_key_file`.
    pub(super) client_cert_file: Option<PathBuf>,
    /// PEM key of that certificate.
    pub(super) client_key_file: Option<PathBuf>,
    /// Further headers.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, HeaderText>,
    /// Signs every request as Standard Webhooks do.
    pub(super) signing_secret: Option<SecretRef>,
}

fn attempt_timeout() -> Span {
    Span::seconds(15)
}

fn concurrency() -> u32 {
    4
}

/// Which alerts a destination gets: those for which everything here holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct When {
    /// This severity and above.
    pub(super) min_severity: Option<Severity>,
    /// From these apps.
    pub(super) apps: Vec<String>,
    /// From these channels, by id.
    pub(super) channels: Vec<String>,
    /// Test incidents.
    pub(super) test: Test,
}

/// A severity.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Informative,
    Low,
    Medium,
    High,
    Critical,
}

/// What happens to test incidents.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Test {
    #[default]
    Include,
    Exclude,
    Only,
}

/// Trying again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// An alert that is undelivered for so long is dead: kept, and to be retried by hand.
    pub(super) max_age: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_age: Span::seconds(72 * 3600) }
    }
}

/// A reference to a secret: `{env: NAME}`, or `{file: PATH}`, which is read again when it changes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct SecretRef {
    /// An environment variable.
    pub(super) env: Option<String>,
    /// A file.
    pub(super) file: Option<PathBuf>,
}

/// The value of a header: a text, or a reference to a secret.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum HeaderText {
    Plain(String),
    Secret(SecretRef),
}
