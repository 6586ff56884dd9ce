//! From the file to checked settings: names, secrets, presets, and what must fit together.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use super::{
    App, Config, Loaded, Postgres, Server, Store,
    file::{self, SecretRef},
    problem::Problem,
    tree::Positions,
};
use crate::{
    code_defender::matcher::{self, FieldTitles, TitlePattern},
    ids::{AppName, ChannelId},
    logging::chain,
    secret::Secret,
    store::{Retention, postgres},
};

/// Where the file is, and what is around it.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) positions: Positions,
}

pub(super) struct Resolver<'a> {
    pub(super) place: Place<'a>,
    pub(super) problems: Vec<Problem>,
    warnings: Vec<Problem>,
    secrets: Vec<Secret>,
}

/// Checks everything that the schema cannot say.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn resolve(file: file::File, place: Place<'_>) -> Result<Loaded, Vec<Problem>> {
    let (problems, warnings, secrets) = (Vec::new(), Vec::new(), Vec::new());
    let mut resolver = Resolver { place, problems, warnings, secrets };
    let lease = file.delivery.lease.0;
    resolver.warn_of_later_parts(&file);
    let server = resolver.server(&file.server);
    let apps = resolver.apps(file.slack.apps);
    let matching = resolver.matching(file.matching);
    let presets_dir = file.presets_dir.map(|dir| resolver.place.dir.join(dir));
    let destinations = resolver.destinations(file.destinations, presets_dir.as_deref(), lease);
    let store = Store {
        postgres: file.store.postgres.and_then(|postgres| resolver.postgres(postgres)),
        path: resolver.place.dir.join(file.store.sqlite.path),
        max_size_bytes: file.store.sqlite.max_size.0,
        lease,
    };
    let retention =
        Retention { delivered: file.retention.delivered.0, dead: file.retention.dead.0 };
    let Resolver { mut problems, warnings, secrets, .. } = resolver;
    if problems.is_empty() {
        let config = Config { server, apps, matching, store, retention, destinations, secrets };
        return Ok(Loaded { config, warnings });
    }
    problems.sort_by_key(|problem| problem.position);
    Err(problems)
}

impl Resolver<'_> {
    pub(super) fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        let position = self.place.positions.of(pointer);
        self.problems.push(Problem::new(position, pointer, message.into()));
    }

    pub(super) fn warn(&mut self, pointer: &str, message: impl Into<String>) {
        let position = self.place.positions.of(pointer);
        self.warnings.push(Problem::new(position, pointer, message.into()));
    }

    /// A key that is accepted and does nothing would be a lie, unless it is said.
    fn warn_of_later_parts(&mut self, file: &file::File) {
        let later = "this version receives pushes only: catch-up is not part of it yet";
        if file.catch_up != file::CatchUp::default() {
            self.warn("/catch_up", later);
        }
        if file.slack.api_url != "https://slack.com/api" {
            self.warn("/slack/api_url", later);
        }
        if self.place.positions.has("/server/ops_token") {
            let message = "this version has no API yet: the token is checked, and not used";
            self.warn("/server/ops_token", message);
        }
        for (index, app) in file.slack.apps.iter().enumerate() {
            if app.bot_token.is_some() {
                self.warn(&format!("/slack/apps/{index}/bot_token"), later);
            }
        }
        if file.destinations.is_empty() {
            self.warn("/destinations", "no destination: alerts are stored and go nowhere");
        }
    }

    pub(super) fn secret(&mut self, pointer: &str, reference: &SecretRef) -> Option<Secret> {
        let found = match (&reference.env, &reference.file) {
            (Some(name), _) => match (self.place.env)(name) {
                Some(value) => Secret::fixed(name, &value).map_err(|error| error.to_string()),
                None => Err(format!("the environment variable {name} is not set")),
            },
            (None, Some(path)) => {
                Secret::file(&self.place.dir.join(path)).map_err(|error| chain(&error))
            }
            (None, None) => Err("write {env: NAME} or {file: PATH}".to_owned()),
        };
        match found {
            Ok(secret) => {
                self.secrets.push(secret.clone());
                Some(secret)
            }
            Err(message) => {
                self.problem(pointer, message);
                None
            }
        }
    }

    fn server(&mut self, server: &file::Server) -> Server {
        if server.listen == server.ops_listen && server.listen.port() != 0 {
            self.problem("/server/ops_listen", "is the same address as `listen`");
        }
        if let Some(token) = &server.ops_token {
            self.secret("/server/ops_token", token);
        }
        Server {
            listen: server.listen,
            ops_listen: server.ops_listen,
            idle_timeout: self.between("/server/idle_timeout", server.idle_timeout.0, (1, 600)),
            drain_delay: self.between("/server/drain_delay", server.drain_delay.0, (0, 60)),
        }
    }

    fn postgres(&mut self, postgres: file::Postgres) -> Option<Postgres> {
        if self.place.positions.has("/store/sqlite") {
            self.problem("/store/postgres", "there is one store: choose `sqlite` or `postgres`");
        }
        let url = self.secret("/store/postgres/url", &postgres.url);
        let listen_url =
            postgres.listen_url.and_then(|url| self.secret("/store/postgres/listen_url", &url));
        for (pointer, secret) in
            [("/store/postgres/url", &url), ("/store/postgres/listen_url", &listen_url)]
        {
            if secret.as_ref().is_some_and(|secret| !is_database(&secret.reveal())) {
                let message = "is not a database URL such as \
                    postgresql://relay:password@db.example.com/relay?sslmode=require";
                self.problem(pointer, message);
            }
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

    fn apps(&mut self, apps: Vec<file::App>) -> Vec<App> {
        let mut names = BTreeSet::new();
        let mut resolved = Vec::new();
        for (index, app) in apps.into_iter().enumerate() {
            let at = format!("/slack/apps/{index}");
            if !names.insert(app.name.clone()) {
                self.problem(&format!("{at}/name"), format!("two apps are named `{}`", app.name));
            }
            let current = self.secret(&format!("{at}/signing_secret"), &app.signing_secret);
            let previous = app
                .previous_signing_secret
                .and_then(|old| self.secret(&format!("{at}/previous_signing_secret"), &old));
            if let Some(token) = &app.bot_token {
                self.secret(&format!("{at}/bot_token"), token);
            }
            let channels = self.channels(&format!("{at}/channels"), &app.channels);
            if let Ok(name) = AppName::new(&app.name) {
                let signing_secrets = current.into_iter().chain(previous).collect();
                resolved.push(App { name, signing_secrets, channels, bots: app.bots });
            }
        }
        resolved
    }

    pub(super) fn channels(&mut self, pointer: &str, channels: &[String]) -> Vec<ChannelId> {
        let mut ids = Vec::new();
        for (index, channel) in channels.iter().enumerate() {
            if is_channel_id(channel) {
                ids.push(ChannelId::new(channel));
                continue;
            }
            let message = format!("`{channel}` is not a channel id such as C0123456789");
            let position = self.place.positions.of(&format!("{pointer}/{index}"));
            let problem = Problem::new(position, &format!("{pointer}/{index}"), message);
            let hint = "this version takes ids only; Slack shows the id at the end of the \
                        channel's details";
            self.problems.push(problem.hint(hint));
        }
        ids
    }

    fn matching(&mut self, matching: file::Match) -> matcher::Settings {
        let mut titles = Vec::new();
        for (index, title) in matching.titles.iter().enumerate() {
            match TitlePattern::parse(title) {
                Ok(pattern) => titles.push(pattern),
                Err(error) => self.problem(&format!("/match/titles/{index}"), chain(&error)),
            }
        }
        let file::Fields { script, risk, host } = matching.fields;
        matcher::Settings { titles, fields: FieldTitles { script, risk, host } }
    }
}

fn is_database(url: &str) -> bool {
    let url = Arc::new(url.to_owned());
    postgres::Url::new(move || Arc::clone(&url)).is_usable()
}

/// Channels, private channels and direct messages: <https://docs.slack.dev/reference/objects>.
fn is_channel_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| b"CGD".contains(&first))
        && text.len() >= 7
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
