//! Turns the deserialized file into the checked configuration: resolves names, secrets and presets,
//! and checks values that depend on one another.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use super::{
    checked::{Config, PostgresConfig, ServerConfig, StoreConfig},
    file::{self, SecretRef},
    problem::Problem,
    recover::Discarded,
    sources::Sources,
    tree::Positions,
};
use crate::{
    code_defender::settings::{FieldTitles, MatchSettings, TitlePattern},
    intake::catch_up::CatchUpSettings,
    logging::chain,
    secret::{Form, Secret, SecretError},
    store::{Retention, postgres},
};

/// Everything about a file besides its deserialized values.
pub(super) struct FileContext<'a> {
    /// Folder that relative paths are relative to.
    pub(super) dir: &'a Path,
    /// Looks up an environment variable.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Secrets of the configuration in use.
    pub(super) known: &'a [Secret],
    pub(super) positions: Positions,
    /// The file as a tree.
    pub(super) value: &'a Value,
    /// Values that are not the file's own.
    pub(super) discarded: Discarded,
}

/// Collects problems and warnings while the sections of a file are resolved.
pub(super) struct Resolver<'a> {
    pub(super) context: FileContext<'a>,
    pub(super) problems: Vec<Problem>,
    /// Names of the apps as written in the file, valid or not.
    pub(super) app_names: BTreeSet<String>,
    /// Files that the configuration names, except files of secrets.
    pub(super) files: Vec<PathBuf>,
    warnings: Vec<Problem>,
    secrets: Vec<Secret>,
}

/// The checked configuration of a file, and the problems found on the way.
pub(super) struct Resolved {
    /// Complete if there are no problems; otherwise invalid parts are missing or defaults.
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) sources: Sources,
    pub(super) discarded: Discarded,
}

/// Checks everything that the schema cannot express. `problems` are the violations of the schema.
pub(super) fn resolve(
    file: file::File,
    context: FileContext<'_>,
    problems: Vec<Problem>,
) -> Resolved {
    let mut resolver = Resolver {
        context,
        problems,
        app_names: file.slack.apps.iter().map(|app| app.name.clone()).collect(),
        files: Vec::new(),
        warnings: Vec::new(),
        secrets: Vec::new(),
    };
    let lease = file.delivery.lease.0;
    resolver.warn_if_no_destination(&file);
    resolver.check_sanity(&file);
    let server = resolver.server(&file.server);
    let slack_api = resolver.slack_api(&file.slack.api_url);
    let apps = resolver.apps(file.slack);
    let catch_up = resolver.catch_up(&file.catch_up);
    let matching = resolver.matching(file.matching);
    let presets_dir = file.presets_dir.map(|dir| resolver.context.dir.join(dir));
    let destinations = resolver.destinations(file.destinations, presets_dir.as_deref(), lease);
    let store = StoreConfig {
        postgres: file.store.postgres.and_then(|postgres| resolver.postgres(postgres)),
        path: resolver.context.dir.join(file.store.sqlite.path),
        max_size_bytes: resolver.max_size(file.store.sqlite.max_size.0),
        lease,
    };
    let retention =
        Retention { delivered: file.retention.delivered.0, dead: file.retention.dead.0 };
    let Resolver { mut problems, files, mut warnings, secrets, context, .. } = resolver;
    // The checks above run by subject; people read the file from top to bottom.
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
    let sources = Sources::new(files, presets_dir);
    Resolved { config, problems, warnings, sources, discarded: context.discarded }
}

impl Resolver<'_> {
    /// Records a problem of the value at this JSON pointer.
    pub(super) fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        let position = self.context.positions.of(pointer);
        self.push(pointer, Problem::new(position, pointer, &message.into()));
    }

    /// Records a problem together with the correction to make.
    pub(super) fn problem_with(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        let position = self.context.positions.of(pointer);
        self.push(pointer, Problem::new(position, pointer, &message.into()).hint(hint));
    }

    fn push(&mut self, pointer: &str, problem: Problem) {
        if !self.context.discarded.has(pointer) {
            self.problems.push(problem);
        }
    }

    /// Records a warning about the value at this JSON pointer.
    pub(super) fn warn(&mut self, pointer: &str, message: impl Into<String>) {
        let position = self.context.positions.of(pointer);
        self.push_warning(pointer, Problem::new(position, pointer, &message.into()));
    }

    /// Records a warning together with the correction to make.
    pub(super) fn warn_with(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        let position = self.context.positions.of(pointer);
        self.push_warning(pointer, Problem::new(position, pointer, &message.into()).hint(hint));
    }

    fn push_warning(&mut self, pointer: &str, warning: Problem) {
        if !self.context.discarded.has(pointer) {
            self.warnings.push(warning);
        }
    }

    fn warn_if_no_destination(&mut self, file: &file::File) {
        if file.destinations.is_empty() {
            self.warn("/destinations", "no destination: alerts are stored and sent nowhere");
        }
    }

    /// Resolves a secret that is a single word: a key, a token or a URL.
    pub(super) fn secret(&mut self, pointer: &str, reference: &SecretRef) -> Option<Secret> {
        self.secret_of(pointer, reference, Form::Word)
    }

    /// Resolves a secret. Records a problem and returns `None` if the secret is not usable.
    pub(super) fn secret_of(
        &mut self,
        pointer: &str,
        reference: &SecretRef,
        form: Form,
    ) -> Option<Secret> {
        let mut is_unset = false;
        let resolved = match (&reference.env, &reference.file) {
            // The text is not shown, since it may be the secret itself.
            (Some(name), _) if !is_variable_name(name) => Err("`env` must be the name of a \
                variable: letters, digits and _, without a $ and not the value itself"
                .to_owned()),
            (Some(name), _) => {
                if let Some(value) = (self.context.env)(name) {
                    Secret::variable(name, &value, form).map_err(|error| error.to_string())
                } else {
                    is_unset = true;
                    Err(format!("the environment variable {name} is not set"))
                }
            }
            (None, Some(path)) => {
                self.secret_file(&self.context.dir.join(path), form).map_err(|error| chain(&error))
            }
            (None, None) => Err("write {env: NAME} or {file: PATH}".to_owned()),
        };
        match resolved {
            Ok(secret) => {
                self.secrets.push(secret.clone());
                Some(secret)
            }
            Err(message) => {
                let position = self.context.positions.of(pointer);
                let problem = Problem::new(position, pointer, &message)
                    .hint("every secret must be available when the relay starts");
                self.push(pointer, Problem { is_of_environment: is_unset, ..problem });
                None
            }
        }
    }

    /// Reads a secret file. A secret of the configuration in use is refreshed instead, so that
    /// everything that holds it sees the new value.
    fn secret_file(&self, path: &Path, form: Form) -> Result<Secret, SecretError> {
        let Some(known) = self.context.known.iter().find(|secret| secret.is_file(path, form))
        else {
            return Secret::file(path, form);
        };
        known.refresh()?;
        Ok(known.clone())
    }

    fn server(&mut self, server: &file::ServerSection) -> ServerConfig {
        if overlap(server.listen, server.ops_listen) {
            self.problem("/server/ops_listen", "is the same address as `listen`");
        }
        let ops_token =
            server.ops_token.as_ref().and_then(|token| self.secret("/server/ops_token", token));
        if let Some(token) = &ops_token {
            self.check_ops_token(token);
        }
        ServerConfig {
            listen: server.listen,
            ops_listen: server.ops_listen,
            ops_token,
            idle_timeout: self.within("/server/idle_timeout", server.idle_timeout.0, 1..=600),
            drain_delay: self.within("/server/drain_delay", server.drain_delay.0, 0..=60),
        }
    }

    fn postgres(&mut self, postgres: file::PostgresSection) -> Option<PostgresConfig> {
        // `sqlite` has defaults, so only a position shows that the file names this store as well.
        if self.context.positions.has("/store/sqlite") {
            self.problem(
                "/store/postgres",
                "only one store can be used: choose `sqlite` or `postgres`",
            );
        }
        let url = self.secret_of("/store/postgres/url", &postgres.url, Form::Text);
        let listen_url = postgres
            .listen_url
            .and_then(|url| self.secret_of("/store/postgres/listen_url", &url, Form::Text));
        for (pointer, secret) in
            [("/store/postgres/url", &url), ("/store/postgres/listen_url", &listen_url)]
        {
            if secret.as_ref().is_some_and(|secret| !is_database_url(&secret.reveal())) {
                let message = "is not a database URL such as \
                    postgresql://relay:password@db.example.com/relay?sslmode=require";
                self.problem(pointer, message);
            } else if let Some(secret) = secret {
                self.warn_if_database_in_clear(pointer, &secret.reveal());
            }
        }
        if postgres.allow_unsafe {
            let message = "true: alerts that were acknowledged to Slack may be lost";
            self.warn("/store/postgres/allow_unsafe", message);
        }
        Some(PostgresConfig {
            url: url?,
            listen_url,
            max_connections: usize::try_from(postgres.max_connections).unwrap_or(usize::MAX),
            ca_file: postgres.ca_file.map(|file| self.context.dir.join(file)),
            allow_unsafe: postgres.allow_unsafe,
        })
    }

    /// Checks that a duration is within limits, given in seconds, and returns it.
    pub(super) fn within(
        &mut self,
        pointer: &str,
        value: Duration,
        seconds: RangeInclusive<u64>,
    ) -> Duration {
        let (min, max) = seconds.into_inner();
        if value < Duration::from_secs(min) || value > Duration::from_secs(max) {
            self.problem(pointer, format!("must be from {min}s to {max}s"));
        }
        value
    }

    /// Checks the maximum size of the store, and returns it.
    fn max_size(&mut self, bytes: u64) -> u64 {
        const AT: &str = "/store/sqlite/max_size";
        // A single large message may fill a smaller store.
        const MIN: u64 = 2 * 1024 * 1024;
        // A burst of alerts may fill a smaller store while a destination is down.
        const MIN_USUAL: u64 = 64 * 1024 * 1024;
        if bytes < MIN {
            self.problem(AT, "is less than 2MiB, which a single large message would fill");
        } else if bytes < MIN_USUAL {
            let message = "less than 64MiB: while a destination is down, alerts are soon refused";
            self.warn(AT, message);
        }
        bytes
    }

    fn catch_up(&mut self, catch_up: &file::CatchUpSection) -> CatchUpSettings {
        let file::CatchUpSection { every, overlap, settle, first_lookback } = catch_up;
        if every.0 < Duration::from_secs(60) {
            let message = "less than 60s: with many channels, Slack's rate limit is reached";
            self.warn("/catch_up/every", message);
        }
        CatchUpSettings {
            every: self.within("/catch_up/every", every.0, 1..=DAY),
            overlap: self.within("/catch_up/overlap", overlap.0, 0..=DAY),
            settle: self.within("/catch_up/settle", settle.0, 0..=3600),
            first_lookback: self.within(
                "/catch_up/first_lookback",
                first_lookback.0,
                0..=400 * DAY,
            ),
        }
    }

    fn matching(&mut self, matching: file::MatchSection) -> MatchSettings {
        let mut titles = Vec::new();
        for (index, title) in matching.titles.iter().enumerate() {
            match TitlePattern::parse(title) {
                Ok(pattern) => titles.push(pattern),
                Err(error) => self.problem(&format!("/match/titles/{index}"), chain(&error)),
            }
        }
        let file::FieldsSection { script, risk, host } = matching.fields;
        MatchSettings { titles, fields: FieldTitles { script, risk, host } }
    }
}

/// One day, in seconds.
pub(super) const DAY: u64 = 24 * 3600;

/// Returns whether a text can be the name of a variable, and is not a secret written in its place.
fn is_variable_name(name: &str) -> bool {
    // Kubernetes allows dots and hyphens.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    // The forms of Slack's tokens, webhook secrets and signing secrets.
    let is_value = ["xox", "xapp-", "whsec_"].iter().any(|start| name.starts_with(start))
        || (name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    name.bytes().all(fits) && name.starts_with(|c: char| !c.is_ascii_digit()) && !is_value
}

/// Returns whether two listeners cannot be bound to these addresses at the same time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // A listener on the unspecified IPv6 address accepts IPv4 connections as well.
    let covers = |all: SocketAddr, some: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || some.is_ipv4())
    };
    let is_same_ip = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    is_same_ip && one.port() == other.port() && one.port() != 0
}

fn is_database_url(url: &str) -> bool {
    let url = Arc::new(url.to_owned());
    postgres::Url::new(move || Arc::clone(&url)).is_usable()
}
