//! The configuration: one YAML file, checked to the end before anything starts.
//!
//! `cli` loads it and hands each component its own settings; nothing else sees this module. The
//! file is parsed to a tree with positions, validated against the schema that it publishes, and
//! only then read; every problem found on the way is reported, not just the first.

mod destinations;
mod file;
mod mend;
mod problem;
mod reference;
mod resolve;
mod salvage;
mod schema;
mod sense;
mod slack;
mod sources;
mod tree;
mod units;

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use url::Url;

use self::{
    mend::Mended,
    resolve::{Place, Resolved},
    tree::Positions,
};
pub use self::{
    problem::{Problem, Problems},
    reference::reference,
    salvage::{Salvaged, salvage},
    schema::schema,
    sources::{Fingerprint, Sources},
};
use crate::{
    code_defender::settings::MatchSettings,
    destination, http_client,
    ids::{AppName, ChannelId},
    intake::{catch_up::CatchUpSettings, routing::When},
    secret::Secret,
    store::Retention,
    text,
};

/// A configuration with every key, commented; what is commented out is the default.
pub const EXAMPLE: &str = include_str!("../../deploy/relay.example.yaml");

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The listeners.
    pub server: Server,
    /// Slack's Web API.
    pub slack_api: Url,
    /// The Slack apps, at least one.
    pub apps: Vec<App>,
    /// How history is read.
    pub catch_up: CatchUpSettings,
    /// What an incident looks like.
    pub matching: MatchSettings,
    /// Where alerts are kept.
    pub store: Store,
    /// How long finished alerts are kept.
    pub retention: Retention,
    /// Where alerts go.
    pub destinations: Vec<Destination>,
    /// Every secret of the file, to be refreshed.
    pub secrets: Vec<Secret>,
}

/// The listeners.
#[derive(Clone, Debug)]
pub struct Server {
    /// What Slack calls.
    pub listen: SocketAddr,
    /// What operators and Kubernetes call.
    pub ops_listen: SocketAddr,
    /// Guards the API.
    pub ops_token: Option<Secret>,
    /// For reading a head, and for an idle connection.
    pub idle_timeout: Duration,
    /// How long requests are accepted after SIGTERM.
    pub drain_delay: Duration,
}

/// A Slack app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: AppName,
    /// The current signing secret, and the one before it.
    pub signing_secrets: Vec<Secret>,
    /// The bot token; without one history is not read.
    pub bot_token: Option<Secret>,
    /// The channels with incidents, by id; with no names either, every channel.
    pub channels: Vec<ChannelId>,
    /// The channels with incidents, by name.
    pub channel_names: Vec<String>,
    /// The bots that may post incidents; empty for all.
    pub bots: Vec<String>,
    /// The workspace or organisation whose events are taken; every one if there is none.
    pub team: Option<String>,
    /// How the Web API is reached.
    pub client: http_client::Settings,
    /// Digest of the certificates that `client` names: a poller goes on as long as it is the same.
    pub client_files: Fingerprint,
}

/// Where alerts are kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Store {
    /// The database that is used in place of the file, if one is given.
    pub postgres: Option<Postgres>,
    /// The file.
    pub path: PathBuf,
    /// How large it may become.
    pub max_size_bytes: u64,
    /// How long a lease lasts.
    pub lease: Duration,
}

/// A database that several relays share.
#[derive(Debug, PartialEq, Eq)]
pub struct Postgres {
    /// Where it is.
    pub url: Secret,
    /// Where it can be listened to.
    pub listen_url: Option<Secret>,
    /// How many connections one relay opens.
    pub max_connections: usize,
    /// Certificates that are trusted beside the public roots.
    pub ca_file: Option<PathBuf>,
    /// Whether a server that may forget is good enough.
    pub allow_unsafe: bool,
}

/// Where alerts go.
#[derive(Debug)]
pub struct Destination {
    /// How it is spoken to.
    pub http: destination::Settings,
    /// Which alerts it gets.
    pub when: When,
    /// Attempts at once.
    pub concurrency: NonZeroUsize,
    /// Attempts a minute.
    pub rate_limit: Option<NonZeroU32>,
    /// The age at which an alert is dead.
    pub max_age: Duration,
    /// Of everything here but `when`: as long as it is the same, its worker may go on.
    pub fingerprint: Fingerprint,
}

/// A configuration, and what is odd about it but does not stop the relay.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is odd.
    pub warnings: Vec<Problem>,
    /// The files that it was made of.
    pub sources: Sources,
}

/// A duration as the file writes it: `30s`, `10m`, `72h`.
pub fn duration(text: &str) -> Option<Duration> {
    units::Span::parse(text).map(|span| span.0)
}

/// A file of configuration larger than this is none.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Loads a file. `env` looks up an environment variable.
///
/// # Errors
/// [`Problems`]: everything that is wrong with it.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    load_again(path, env, &[])
}

/// Loads a file while an earlier version of it is in use: a secret file that is among `known` is
/// read again and stays the same [`Secret`].
///
/// # Errors
/// [`Problems`]: everything that is wrong with it.
pub fn load_again(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    known: &[Secret],
) -> Result<Loaded, Problems> {
    let fail = |list| Problems { file: path.to_owned(), list };
    let text = read(path).map_err(|problem| fail(vec![problem]))?;
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    let mut loaded = parse_with(&text, dir, env, known).map_err(fail)?;
    let Sources { mut files, presets_dir, .. } = loaded.sources;
    files.push(path.to_owned());
    loaded.sources = Sources::of(files, presets_dir);
    Ok(loaded)
}

/// Checks the text of a file in the folder `dir`. `env` looks up an environment variable.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    text: &str,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Vec<Problem>> {
    parse_with(text, dir, env, &[])
}

fn parse_with(
    text: &str,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    known: &[Secret],
) -> Result<Loaded, Vec<Problem>> {
    let (value, positions) = tree::read(text).map_err(|problem| vec![problem])?;
    let Resolved { config, problems, warnings, sources, .. } =
        interpret(&value, positions, dir, env, known);
    if problems.is_empty() { Ok(Loaded { config, warnings, sources }) } else { Err(problems) }
}

/// Holds a file's tree against the schema, and resolves what can be read of it.
fn interpret(
    value: &Value,
    positions: Positions,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    known: &[Secret],
) -> Resolved {
    let faults = schema::validate(value, &positions);
    let Mended { file, problems, spoilt } = mend::read(value.clone(), faults, &positions);
    resolve::resolve(file, Place { dir, env, known, positions, value, spoilt }, problems)
}

fn read(path: &Path) -> Result<String, Problem> {
    let whole = |message: String| Problem::new(None, "", &message);
    let cannot = |error: &std::io::Error| whole(format!("cannot be read: {error}"));
    let absent = |error: &std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            cannot(error).hint("name the file with --config, or make one: slack-soar-relay setup")
        } else {
            cannot(error)
        }
    };
    let size = std::fs::metadata(path).map_err(|error| absent(&error))?.len();
    if size > MAX_FILE_BYTES {
        let message = format!("is larger than {MAX_FILE_BYTES} bytes: not a configuration");
        return Err(whole(message));
    }
    let bytes = std::fs::read(path).map_err(|error| cannot(&error))?;
    text::decode(bytes).map_err(|broken| {
        let problem = Problem::new(Some(broken.position), "", &broken.to_string());
        problem.hint("save the file as UTF-8")
    })
}

#[cfg(test)]
mod tests;
