//! From the file to checked settings: names, secrets, presets, and what must fit together.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    App, Config, Destination, Loaded, Server, Store,
    file::{self, HeaderText, SecretRef, Severity, Test},
    problem::Problem,
    tree::Positions,
};
use crate::{
    clock::Clock,
    code_defender::{
        matcher::{self, FieldTitles, TitlePattern},
        risk_level::RiskLevel,
    },
    destination::{
        http::{self, HttpDestination},
        preset::Preset,
    },
    http_client,
    ids::{AppName, ChannelId, DestinationName},
    intake::routing::{self, When},
    logging::chain,
    secret::Secret,
    store::Retention,
};

/// A worker needs this much more than its attempt: to record the outcome.
const LEASE_RESERVE: Duration = Duration::from_secs(30);

/// The longest attempt: one that ends within the time in which the process ends.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the file is, and what is around it.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) positions: Positions,
}

struct Resolver<'a> {
    place: Place<'a>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    secrets: Vec<Secret>,
}

/// Checks everything that the schema cannot say.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn resolve(file: file::File, place: Place<'_>) -> Result<Loaded, Vec<Problem>> {
    let (problems, warnings, secrets) = (Vec::new(), Vec::new(), Vec::new());
    let mut resolver = Resolver {
        place,
        problems,
        warnings,
        secrets,
    };
    let lease = file.delivery.lease.0;
    resolver.warn_of_later_parts(&file);
    let server = resolver.server(&file.server);
    let apps = resolver.apps(file.slack.apps);
    let matching = resolver.matching(file.matching);
    let presets_dir = file.presets_dir.map(|dir| resolver.place.dir.join(dir));
    let destinations = resolver.destinations(file.destinations, presets_dir.as_deref(), lease);
    let store = Store {
        path: resolver.place.dir.join(file.store.sqlite.path),
        max_size_bytes: file.store.sqlite.max_size.0,
        lease,
    };
    let retention = Retention {
        delivered: file.retention.delivered.0,
        dead: file.retention.dead.0,
    };
    let Resolver {
        mut problems,
        warnings,
        secrets,
        ..
    } = resolver;
    if problems.is_empty() {
        let config = Config {
            server,
            apps,
            matching,
            store,
            retention,
            destinations,
            secrets,
        };
        return Ok(Loaded { config, warnings });
    }
    problems.sort_by_key(|problem| problem.position);
    Err(problems)
}

impl Resolver<'_> {
    fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        let position = self.place.positions.of(pointer);
        self.problems
            .push(Problem::new(position, pointer, message.into()));
    }

    fn warn(&mut self, pointer: &str, message: impl Into<String>) {
        let position = self.place.positions.of(pointer);
        self.warnings
            .push(Problem::new(position, pointer, message.into()));
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
            self.warn(
                "/destinations",
                "no destination: alerts are stored and go nowhere",
            );
        }
    }

    fn secret(&mut self, pointer: &str, reference: &SecretRef) -> Option<Secret> {
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

    /// `limits` in seconds.
    fn between(&mut self, pointer: &str, value: Duration, limits: (u64, u64)) -> Duration {
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
                self.problem(
                    &format!("{at}/name"),
                    format!("two apps are named `{}`", app.name),
                );
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
                resolved.push(App {
                    name,
                    signing_secrets,
                    channels,
                    bots: app.bots,
                });
            }
        }
        resolved
    }

    fn channels(&mut self, pointer: &str, channels: &[String]) -> Vec<ChannelId> {
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
        matcher::Settings {
            titles,
            fields: FieldTitles { script, risk, host },
        }
    }

    fn destinations(
        &mut self,
        destinations: Vec<file::Destination>,
        presets_dir: Option<&Path>,
        lease: Duration,
    ) -> Vec<Destination> {
        let mut names = BTreeSet::new();
        let mut resolved = Vec::new();
        for (index, destination) in destinations.into_iter().enumerate() {
            let at = format!("/destinations/{index}");
            if !names.insert(destination.name.clone()) {
                let message = format!("two destinations are named `{}`", destination.name);
                self.problem(&format!("{at}/name"), message);
            }
            if lease < destination.timeout.0 + LEASE_RESERVE {
                let message = "`delivery.lease` must be at least 30s longer: else an alert is sent \
                               twice at once";
                self.problem(&format!("{at}/timeout"), message);
            }
            resolved.extend(self.destination(&at, destination, presets_dir));
        }
        resolved
    }

    fn destination(
        &mut self,
        at: &str,
        destination: file::Destination,
        presets_dir: Option<&Path>,
    ) -> Option<Destination> {
        let timeout_at = format!("{at}/timeout");
        let timeout = self.between(
            &timeout_at,
            destination.timeout.0,
            (1, MAX_TIMEOUT.as_secs()),
        );
        let url = self.secret(&format!("{at}/url"), &destination.url);
        let signing_secret = destination
            .signing_secret
            .as_ref()
            .map(|secret| self.secret(&format!("{at}/signing_secret"), secret));
        let headers = self.headers(&format!("{at}/headers"), &destination);
        let when = self.when(&format!("{at}/when"), &destination.when);
        let preset = match Preset::load(&destination.preset, presets_dir) {
            Ok(preset) => Some(preset),
            Err(error) => {
                self.problem(&format!("{at}/preset"), chain(&error));
                None
            }
        };
        let params_problems = preset
            .iter()
            .flat_map(|preset| preset.check_params(&destination.params));
        for message in params_problems.collect::<Vec<_>>() {
            self.problem(&format!("{at}/params"), message);
        }
        let concurrency = usize::try_from(destination.concurrency)
            .ok()
            .and_then(NonZeroUsize::new);
        let before = self.problems.len();
        let settings = http::Settings {
            name: DestinationName::new(&destination.name).ok()?,
            preset: preset?,
            url: url?,
            params: destination.params,
            timeout,
            headers,
            signing_secret: signing_secret.flatten(),
            client: http_client::Settings {
                proxy: destination.proxy,
                ca_file: destination.ca_file.map(|path| self.beside(path)),
                client_cert_file: destination.client_cert_file.map(|path| self.beside(path)),
                client_key_file: destination.client_key_file.map(|path| self.beside(path)),
                ..http_client::Settings::default()
            },
        };
        if let Err(error) = HttpDestination::new(settings.clone(), Clock::system()) {
            let is_told = matches!(error, http::SetupError::Params(_));
            if !is_told && before == self.problems.len() {
                self.problem(at, chain(&error));
            }
        }
        Some(Destination {
            http: settings,
            when,
            concurrency: concurrency?,
            rate_limit: destination.rate_limit.map(|rate| rate.0),
            max_age: destination.retry.max_age.0,
        })
    }

    fn beside(&self, path: PathBuf) -> PathBuf {
        self.place.dir.join(path)
    }

    fn headers(
        &mut self,
        pointer: &str,
        destination: &file::Destination,
    ) -> Vec<(String, http::HeaderValue)> {
        let mut headers = Vec::new();
        for (name, text) in &destination.headers {
            let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            let value = match text {
                HeaderText::Plain(text) => {
                    if is_credential(name) {
                        self.warn(
                            &at,
                            "looks like a secret: write {env: NAME} or {file: PATH}",
                        );
                    }
                    Some(http::HeaderValue::Plain(text.clone()))
                }
                HeaderText::Secret(secret) => {
                    self.secret(&at, secret).map(http::HeaderValue::Secret)
                }
            };
            headers.extend(value.map(|value| (name.clone(), value)));
        }
        headers
    }

    fn when(&mut self, pointer: &str, when: &file::When) -> When {
        let mut apps = Vec::new();
        for (index, name) in when.apps.iter().enumerate() {
            match AppName::new(name) {
                Ok(app) => apps.push(app),
                Err(error) => self.problem(&format!("{pointer}/apps/{index}"), error.to_string()),
            }
        }
        When {
            min_severity: when.min_severity.map(risk_level),
            apps,
            channels: self.channels(&format!("{pointer}/channels"), &when.channels),
            test: match when.test {
                Test::Include => routing::Test::Include,
                Test::Exclude => routing::Test::Exclude,
                Test::Only => routing::Test::Only,
            },
        }
    }
}

fn risk_level(severity: Severity) -> RiskLevel {
    match severity {
        Severity::Informative => RiskLevel::Informative,
        Severity::Low => RiskLevel::Low,
        Severity::Medium => RiskLevel::Medium,
        Severity::High => RiskLevel::High,
        Severity::Critical => RiskLevel::Critical,
    }
}

/// Channels, private channels and direct messages: <https://docs.slack.dev/reference/objects>.
fn is_channel_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| b"CGD".contains(&first))
        && text.len() >= 7
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn is_credential(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    [
        "authorization",
        "cookie",
        "token",
        "api-key",
        "apikey",
        "appkey",
        "secret",
    ]
    .iter()
    .any(|word| header.contains(word))
}
