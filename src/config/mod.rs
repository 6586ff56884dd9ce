//! The configuration: one YAML file, checked to the end before anything starts.
//!
//! `cli` loads it and hands each component its own settings; nothing else sees this module. The
//! file is parsed to a tree with positions, validated against the schema that it publishes, and
//! only then read; every problem found on the way is reported, not just the first.

mod destinations;
mod file;
mod problem;
mod resolve;
mod schema;
mod tree;
mod units;

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    problem::{Problem, Problems},
    schema::schema,
};
use crate::{
    code_defender::matcher,
    destination::http,
    ids::{AppName, ChannelId},
    intake::routing::When,
    secret::Secret,
    store::Retention,
};

/// A configuration with every key, commented; what is commented out is the default.
pub const EXAMPLE: &str = include_str!("../../deploy/relay.example.yaml");

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The listeners.
    pub server: Server,
    /// The Slack apps, at least one.
    pub apps: Vec<App>,
    /// What an incident looks like.
    pub matching: matcher::Settings,
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
#[derive(Debug)]
pub struct Server {
    /// What Slack calls.
    pub listen: SocketAddr,
    /// What operators and Kubernetes call.
    pub ops_listen: SocketAddr,
    /// For reading a head, and for an idle connection.
    pub idle_timeout: Duration,
    /// How long requests are accepted after SIGTERM.
    pub drain_delay: Duration,
}

/// A Slack app.
#[derive(Debug)]
pub struct App {
    /// Its name.
    pub name: AppName,
    /// The current signing secret, and the one before it.
    pub signing_secrets: Vec<Secret>,
    /// The channels with incidents; empty for all.
    pub channels: Vec<ChannelId>,
    /// The bots that may post incidents; empty for all.
    pub bots: Vec<String>,
}

/// Where alerts are kept.
#[derive(Debug)]
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
#[derive(Debug)]
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
    pub http: http::Settings,
    /// Which alerts it gets.
    pub when: When,
    /// Attempts at once.
    pub concurrency: NonZeroUsize,
    /// Attempts a minute.
    pub rate_limit: Option<NonZeroU32>,
    /// The age at which an alert is dead.
    pub max_age: Duration,
}

/// A configuration, and what is odd about it but does not stop the relay.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is odd.
    pub warnings: Vec<Problem>,
}

/// A file of configuration larger than this is none.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Loads a file. `env` looks up an environment variable.
///
/// # Errors
/// [`Problems`]: everything that is wrong with it.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let fail = |list| Problems { file: path.to_owned(), list };
    let text = read(path).map_err(|message| fail(vec![Problem::new(None, "", message)]))?;
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    parse(&text, dir, env).map_err(fail)
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
    let (value, positions) = tree::read(text).map_err(|problem| vec![problem])?;
    let mut problems = schema::validate(&value, &positions);
    if problems.is_empty() {
        match serde_json::from_value(value) {
            Ok(file) => {
                return resolve::resolve(file, resolve::Place { dir, env, positions });
            }
            Err(error) => problems.push(Problem::new(None, "", error.to_string())),
        }
    }
    problems.sort_by_key(|problem| problem.position);
    Err(problems)
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes: not a configuration"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests;
