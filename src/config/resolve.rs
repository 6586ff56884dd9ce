//! From the file to checked settings: names, secrets, presets, and what must fit together.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use super::{
    Config, Postgres, Server, Sources, Store,
    file::{self, SecretRef},
    mend::Spoilt,
    problem::Problem,
    tree::Positions,
};
use crate::{
    code_defender::settings::{FieldTitles, MatchSettings, TitlePattern},
    intake::catch_up::CatchUpSettings,
    logging::chain,
    secret::{Form, Secret, SecretError},
    store::{Retention, postgres},
};

/// Where the file is, and what is around it.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// The secrets that are in use.
    pub(super) known: &'a [Secret],
    pub(super) positions: Positions,
    /// The file as a tree.
    pub(super) value: &'a Value,
    /// What is not read from it.
    pub(super) spoilt: Spoilt,
}

pub(super) struct Resolver<'a> {
    pub(super) place: Place<'a>,
    pub(super) problems: Vec<Problem>,
    /// As they are written.
    pub(super) app_names: BTreeSet<String>,
    /// Files that the configuration names, secrets left out.
    pub(super) files: Vec<PathBuf>,
    warnings: Vec<Problem>,
    secrets: Vec<Secret>,
}

/// What a file means, and what is wrong with it.
pub(super) struct Resolved {
    /// With gaps where something is wrong.
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) sources: Sources,
    pub(super) spoilt: Spoilt,
}

/// Checks everything that the schema cannot say; `problems` are those that it could.
pub(super) fn resolve(file: file::File, place: Place<'_>, problems: Vec<Problem>) -> Resolved {
    let app_names = file.slack.apps.iter().map(|app| app.name.clone()).collect();
    let (files, warnings, secrets) = (Vec::new(), Vec::new(), Vec::new());
    let mut resolver = Resolver { place, problems, app_names, files, warnings, secrets };
    let lease = file.delivery.lease.0;
    resolver.warn_of_idleness(&file);
    resolver.sense(&file);
    let server = resolver.server(&file.server);
    let slack_api = resolver.slack_api(&file.slack.api_url);
    let apps = resolver.apps(file.slack);
    let catch_up = resolver.catch_up(&file.catch_up);
    let matching = resolver.matching(file.matching);
    let presets_dir = file.presets_dir.map(|dir| resolver.place.dir.join(dir));
    let destinations = resolver.destinations(file.destinations, presets_dir.as_deref(), lease);
    let store = Store {
        postgres: file.store.postgres.and_then(|postgres| resolver.postgres(postgres)),
        path: resolver.place.dir.join(file.store.sqlite.path),
        max_size_bytes: resolver.max_size(file.store.sqlite.max_size.0),
        lease,
    };
    let retention =
        Retention { delivered: file.retention.delivered.0, dead: file.retention.dead.0 };
    let Resolver { mut problems, files, mut warnings, secrets, place, .. } = resolver;
    problems.sort_by_key(|problem| problem.position);
    warnings.sort_by_key(|warning| warning.position);
    let config = Config {
        server,
        slack_api,
        apps,
        catch_up,
        matching,
        store,
        retention,
        destinations,
        secrets,
    };
    let sources = Sources::of(files, presets_dir);
    Resolved { config, problems, warnings, sources, spoilt: place.spoilt }
}

impl Resolver<'_> {
    pub(super) fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        let position = self.place.positions.of(pointer);
        self.push(pointer, Problem::new(position, pointer, &message.into()));
    }

    /// As [`Resolver::problem`], with what to write instead.
    pub(super) fn problem_with(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        let position = self.place.positions.of(pointer);
        self.push(pointer, Problem::new(position, pointer, &message.into()).hint(hint));
    }

    fn push(&mut self, pointer: &str, problem: Problem) {
        if !self.place.spoilt.has(pointer) {
            self.problems.push(problem);
        }
    }

    pub(super) fn warn(&mut self, pointer: &str, message: impl Into<String>) {
        let position = self.place.positions.of(pointer);
        self.push_warning(pointer, Problem::new(position, pointer, &message.into()));
    }

    /// As [`Resolver::warn`], with what to write instead.
    pub(super) fn warn_with(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        let position = self.place.positions.of(pointer);
        self.push_warning(pointer, Problem::new(position, pointer, &message.into()).hint(hint));
    }

    fn push_warning(&mut self, pointer: &str, warning: Problem) {
        if !self.place.spoilt.has(pointer) {
            self.warnings.push(warning);
        }
    }

    fn warn_of_idleness(&mut self, file: &file::File) {
        if file.destinations.is_empty() {
            self.warn("/destinations", "no destination: alerts are stored and go nowhere");
        }
    }

    /// Reads a secret that is one word: a key, a token, a URL.
    pub(super) fn secret(&mut self, pointer: &str, reference: &SecretRef) -> Option<Secret> {
        self.secret_of(pointer, reference, Form::Word)
    }

    pub(super) fn secret_of(
        &mut self,
        pointer: &str,
        reference: &SecretRef,
        form: Form,
    ) -> Option<Secret> {
        let mut is_unset = false;
        let found = match (&reference.env, &reference.file) {
            // Not shown: somebody may have put the secret itself there.
            (Some(name), _) if !is_variable(name) => Err("`env` takes the name of a variable: \
                letters, digits and _, without a $ or a value"
                .to_owned()),
            (Some(name), _) => {
                if let Some(value) = (self.place.env)(name) {
                    Secret::variable(name, &value, form).map_err(|error| error.to_string())
                } else {
                    is_unset = true;
                    Err(format!("the environment variable {name} is not set"))
                }
            }
            (None, Some(path)) => {
                self.secret_file(&self.place.dir.join(path), form).map_err(|error| chain(&error))
            }
            (None, None) => Err("write {env: NAME} or {file: PATH}".to_owned()),
        };
        match found {
            Ok(secret) => {
                self.secrets.push(secret.clone());
                Some(secret)
            }
            Err(message) => {
                let position = self.place.positions.of(pointer);
                let problem = Problem::new(position, pointer, &message)
                    .hint("every secret must be there at the start");
                self.push(pointer, Problem { is_of_environment: is_unset, ..problem });
                None
            }
        }
    }

    /// One that is in use stays the same value for all who use it.
    fn secret_file(&self, path: &Path, form: Form) -> Result<Secret, SecretError> {
        let Some(known) = self.place.known.iter().find(|secret| secret.is_file(path, form)) else {
            return Secret::file(path, form);
        };
        known.refresh()?;
        Ok(known.clone())
    }

    fn server(&mut self, server: &file::Server) -> Server {
        if is_same_place(server.listen, server.ops_listen) {
            self.problem("/server/ops_listen", "is the same address as `listen`");
        }
        let ops_token =
            server.ops_token.as_ref().and_then(|token| self.secret("/server/ops_token", token));
        if let Some(token) = &ops_token {
            self.ops_token(token);
        }
        Server {
            listen: server.listen,
            ops_listen: server.ops_listen,
            ops_token,
            idle_timeout: self.between("/server/idle_timeout", server.idle_timeout.0, (1, 600)),
            drain_delay: self.between("/server/drain_delay", server.drain_delay.0, (0, 60)),
        }
    }

    fn postgres(&mut self, postgres: file::Postgres) -> Option<Postgres> {
        if self.place.positions.has("/store/sqlite") {
            self.problem("/store/postgres", "there is one store: choose `sqlite` or `postgres`");
        }
        let url = self.secret_of("/store/postgres/url", &postgres.url, Form::Text);
        let listen_url = postgres
            .listen_url
            .and_then(|url| self.secret_of("/store/postgres/listen_url", &url, Form::Text));
        for (pointer, secret) in
            [("/store/postgres/url", &url), ("/store/postgres/listen_url", &listen_url)]
        {
            if secret.as_ref().is_some_and(|secret| !is_database(&secret.reveal())) {
                let message = "is not a database URL such as \
                    postgresql://relay:password@db.example.com/relay?sslmode=require";
                self.problem(pointer, message);
            } else if let Some(secret) = secret {
                self.database_in_clear(pointer, &secret.reveal());
            }
        }
        if postgres.allow_unsafe {
            let message = "true: alerts that Slack was told are stored may be lost";
            self.warn("/store/postgres/allow_unsafe", message);
        }
        Some(Postgres {
            url: url?,
            listen_url,
            max_connections: usize::try_from(postgres.max_connections).unwrap_or(usize::MAX),
            ca_file: postgres.ca_file.map(|file| self.place.dir.join(file)),
            allow_unsafe: postgres.allow_unsafe,
        })
    }

    /// `limits` in seconds.
    pub(super) fn between(
        &mut self,
        pointer: &str,
        value: Duration,
        limits: (u64, u64),
    ) -> Duration {
        let (least, most) = limits;
        if value < Duration::from_secs(least) || value > Duration::from_secs(most) {
            self.problem(pointer, format!("must be from {least}s to {most}s"));
        }
        value
    }

    /// Below the least size a single large message may fill the store; below the usual one a burst
    /// does while a destination is down.
    fn max_size(&mut self, bytes: u64) -> u64 {
        const AT: &str = "/store/sqlite/max_size";
        const LEAST: u64 = 2 * 1024 * 1024;
        const USUAL: u64 = 64 * 1024 * 1024;
        if bytes < LEAST {
            self.problem(AT, "is less than 2MiB, which a single large message would fill");
        } else if bytes < USUAL {
            self.warn(AT, "less than 64MiB: alerts are refused soon while a destination is down");
        }
        bytes
    }

    fn catch_up(&mut self, catch_up: &file::CatchUp) -> CatchUpSettings {
        let file::CatchUp { every, overlap, settle, first_lookback } = catch_up;
        if every.0 < Duration::from_secs(60) {
            let message = "less than 60s: with many channels Slack's rate limit is reached";
            self.warn("/catch_up/every", message);
        }
        CatchUpSettings {
            every: self.between("/catch_up/every", every.0, (1, DAY)),
            overlap: self.between("/catch_up/overlap", overlap.0, (0, DAY)),
            settle: self.between("/catch_up/settle", settle.0, (0, 3600)),
            first_lookback: self.between(
                "/catch_up/first_lookback",
                first_lookback.0,
                (0, 400 * DAY),
            ),
        }
    }

    fn matching(&mut self, matching: file::Match) -> MatchSettings {
        let mut titles = Vec::new();
        for (index, title) in matching.titles.iter().enumerate() {
            match TitlePattern::parse(title) {
                Ok(pattern) => titles.push(pattern),
                Err(error) => self.problem(&format!("/match/titles/{index}"), chain(&error)),
            }
        }
        let file::Fields { script, risk, host } = matching.fields;
        MatchSettings { titles, fields: FieldTitles { script, risk, host } }
    }
}

pub(super) const DAY: u64 = 24 * 3600;

/// Returns whether a text is the name of a variable, which Kubernetes allows to have dots and
/// hyphens, and not a value that somebody has put in its place.
fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let is_value = ["xox", "xapp-", "whsec_"].iter().any(|start| name.starts_with(start))
        || (name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    name.bytes().all(fits) && name.starts_with(|c: char| !c.is_ascii_digit()) && !is_value
}

/// Returns whether two listeners cannot both have these addresses.
fn is_same_place(one: SocketAddr, other: SocketAddr) -> bool {
    // Whoever listens on every address of IPv6 has those of IPv4 as well.
    let covers = |all: SocketAddr, some: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || some.is_ipv4())
    };
    let is_same_ip = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    is_same_ip && one.port() == other.port() && one.port() != 0
}

fn is_database(url: &str) -> bool {
    let url = Arc::new(url.to_owned());
    postgres::Url::new(move || Arc::clone(&url)).is_usable()
}
