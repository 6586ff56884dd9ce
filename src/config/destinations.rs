//! Resolves the destinations of the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    checked::DestinationConfig,
    file::{self, HeaderText, Severity, TestIncidents},
    resolve::Resolver,
    schema::did_you_mean,
    sources::{Fingerprint, fingerprint},
    tree::escape,
};
use crate::{
    clock::Clock,
    code_defender::risk_level::RiskLevel,
    destination::{
        self,
        preset::{FEED_TOKEN, Preset, Transport},
    },
    http_client,
    ids::{AppName, DestinationName},
    intake::routing::{self, When},
    logging::chain,
    secret::{Form, Secret},
};

/// Time in which a worker must record the outcome after an attempt.
const LEASE_RESERVE: Duration = Duration::from_secs(30);

/// Longest time limit that may be configured for an attempt.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// Suffixes of the names of secret parameters that may contain spaces: passwords chosen by a
/// person, and the key file of a service account.
const MAY_HAVE_SPACES: [&str; 3] = ["password", "passphrase", "service_account"];

/// Keys without an effect on a feed.
const SENDING_KEYS: [&str; 3] = ["timeout", "concurrency", "rate_limit"];

impl Resolver<'_> {
    pub(super) fn destinations(
        &mut self,
        destinations: Vec<file::DestinationSection>,
        presets_dir: Option<&Path>,
        lease: Duration,
    ) -> Vec<DestinationConfig> {
        let mut names = BTreeSet::new();
        let mut resolved = Vec::new();
        for (index, destination) in destinations.into_iter().enumerate() {
            let at = format!("/destinations/{index}");
            if !names.insert(destination.name.clone()) {
                let message = format!("two destinations are named `{}`", destination.name);
                self.problem(&format!("{at}/name"), message);
            }
            // A lease with a mistake was replaced by the default, which the file does not mention.
            let is_known = !self.context.discarded.has("/delivery/lease");
            if is_known && lease < destination.timeout.0 + LEASE_RESERVE {
                let message = "must be at least 30s shorter than `delivery.lease`: otherwise two \
                               attempts could overlap";
                self.problem(&format!("{at}/timeout"), message);
            }
            let destination = self.destination(&at, destination, presets_dir);
            // Invalid destinations are left out, so each one keeps its index in the file for
            // warnings.
            resolved.extend(destination.map(|destination| (index, destination)));
        }
        self.warn_of_same_receivers(&resolved);
        resolved.into_iter().map(|(_, destination)| destination).collect()
    }

    fn destination(
        &mut self,
        at: &str,
        destination: file::DestinationSection,
        presets_dir: Option<&Path>,
    ) -> Option<DestinationConfig> {
        let timeout_at = format!("{at}/timeout");
        let timeout = self.within(&timeout_at, destination.timeout.0, 1..=MAX_TIMEOUT.as_secs());
        let signing_secret = destination
            .signing_secret
            .as_ref()
            .map(|secret| self.secret(&format!("{at}/signing_secret"), secret));
        let headers = self.headers(&format!("{at}/headers"), &destination);
        let when = self.when(&format!("{at}/when"), &destination.when);
        let preset = self.preset(&format!("{at}/preset"), &destination.preset, presets_dir);
        let problems_before = self.problems.len();
        let fingerprint = self.fingerprint(at, &destination, presets_dir);
        let url = self.url(at, destination.url.as_ref(), preset.as_deref());
        if let Some(url) = &url {
            self.warn_if_in_clear(&format!("{at}/url"), &url.reveal(), "alerts and keys");
        }
        let params_at = format!("{at}/params");
        let before_params = self.problems.len();
        let (params, secrets) = self.params(&params_at, destination.params, preset.as_deref());
        let unreadable = self.problems.split_off(before_params);
        for (name, message) in preset.iter().flat_map(|one| one.check_params(&params, &secrets)) {
            let pointer = format!("{params_at}/{}", escape(&name));
            // A secret that cannot be read is not reported as missing as well.
            if !unreadable.iter().any(|problem| problem.is_at(&pointer)) {
                self.problem(&pointer, message);
            }
        }
        self.problems.extend(unreadable);
        if preset.as_ref().is_some_and(|preset| preset.transport() == Transport::Feed) {
            let has_problem = self.problems.len() > problems_before;
            self.feed(at, &params, has_problem);
        }
        let concurrency = usize::try_from(destination.concurrency).ok().and_then(NonZeroUsize::new);
        let settings = destination::Settings {
            name: DestinationName::new(&destination.name).ok()?,
            preset: preset?,
            url: url?,
            params,
            secrets,
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
        // Building the destination finds the remaining problems, such as an invalid header.
        if problems_before == self.problems.len()
            && !self.context.discarded.has_within(&params_at)
            && let Err(error) = destination::Destination::new(settings.clone(), Clock::system())
        {
            self.problem(at, chain(&error));
        }
        Some(DestinationConfig {
            http: settings,
            when,
            concurrency: concurrency?,
            rate_limit: destination.rate_limit.map(|rate| rate.per_minute),
            max_age: destination.retry.max_age.0,
            fingerprint,
        })
    }

    fn preset(&mut self, at: &str, name: &str, presets_dir: Option<&Path>) -> Option<Arc<Preset>> {
        let error = match Preset::load(name, presets_dir) {
            Ok(preset) => return Some(preset),
            Err(error) => error,
        };
        match error.suggestion() {
            Some(name) => {
                self.problem_with(at, chain(&error), &format!("did you mean `{name}`?"));
            }
            None => self.problem(at, chain(&error)),
        }
        None
    }

    /// Computes the destination's fingerprint, and adds its files to those that are watched.
    fn fingerprint(
        &mut self,
        at: &str,
        destination: &file::DestinationSection,
        presets_dir: Option<&Path>,
    ) -> Fingerprint {
        let named =
            [&destination.ca_file, &destination.client_cert_file, &destination.client_key_file];
        let files: Vec<PathBuf> =
            named.into_iter().flatten().map(|path| self.beside(path.clone())).collect();
        let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let is_own_preset = Preset::builtin_names().all(|name| name != destination.preset);
        let text = self.context.value.pointer(at).unwrap_or(&Value::Null);
        let fingerprint = fingerprint(text, &paths, presets_dir.filter(|_dir| is_own_preset));
        self.files.extend(files);
        fingerprint
    }

    /// Returns the configured URL, or the URL of the preset.
    fn url(
        &mut self,
        at: &str,
        given: Option<&file::SecretRef>,
        preset: Option<&Preset>,
    ) -> Option<Secret> {
        match (given, preset.map(Preset::url)) {
            (Some(reference), _) => self.secret(&format!("{at}/url"), reference),
            (None, Some(Some(url))) => Secret::fixed("url", url).ok(),
            (None, Some(None)) => {
                if !self.context.discarded.has(&format!("{at}/url")) {
                    self.problem(at, "`url` is missing: write {env: NAME} or {file: PATH}");
                }
                None
            }
            (None, None) => None,
        }
    }

    /// Checks a feed: its token must be a secret, and keys for sending have no effect.
    fn feed(&mut self, at: &str, params: &Map<String, Value>, has_problem: bool) {
        // A placeholder for the token, as in samples, is not a secret.
        if !has_problem
            && params.get(FEED_TOKEN).is_some_and(|text| matches!(text.as_str(), Some("" | "***")))
        {
            let token_at = format!("{at}/params/{FEED_TOKEN}");
            self.problem(&token_at, "must be a secret: write {env: NAME} or {file: PATH}");
        }
        for key in SENDING_KEYS {
            let at = format!("{at}/{key}");
            if self.context.positions.has(&at) {
                self.warn(&at, "has no effect: a feed is read, not sent to");
            }
        }
    }

    /// Separates the parameters that are references to secrets from the plain ones.
    fn params(
        &mut self,
        at: &str,
        given: Map<String, Value>,
        preset: Option<&Preset>,
    ) -> (Map<String, Value>, BTreeMap<String, Secret>) {
        let mut plain = Map::new();
        let mut secrets = BTreeMap::new();
        let known = preset.map(Preset::params_documented).unwrap_or_default();
        let is_key = |name: &str| {
            let is_secret = known.iter().any(|param| param.name == name && param.kind == "secret");
            is_secret && !MAY_HAVE_SPACES.iter().any(|word| name.ends_with(word))
        };
        for (name, value) in given {
            match serde_json::from_value::<file::SecretRef>(value.clone()) {
                Ok(reference) if value.is_object() => {
                    let pointer = format!("{at}/{}", escape(&name));
                    let form = if is_key(&name) { Form::Word } else { Form::Text };
                    let secret = self.secret_of(&pointer, &reference, form);
                    secrets.extend(secret.map(|secret| (name, secret)));
                }
                // The preset checks plain values, and reports an object that is not a reference.
                Ok(_) | Err(_) => {
                    plain.insert(name, value);
                }
            }
        }
        (plain, secrets)
    }

    /// Resolves a path relative to the configuration file.
    fn beside(&self, path: PathBuf) -> PathBuf {
        self.context.dir.join(path)
    }

    fn headers(
        &mut self,
        pointer: &str,
        destination: &file::DestinationSection,
    ) -> Vec<(String, destination::HeaderValue)> {
        let mut headers = Vec::new();
        for (name, text) in &destination.headers {
            let at = format!("{pointer}/{}", escape(name));
            let value = match text {
                HeaderText::Plain(text) => {
                    if is_credential(name) {
                        self.warn(&at, "looks like a secret: write {env: NAME} or {file: PATH}");
                    }
                    Some(destination::HeaderValue::Plain(text.clone()))
                }
                HeaderText::Secret(secret) => {
                    // The value may be several words, such as `Bearer TOKEN`.
                    self.secret_of(&at, secret, Form::Text).map(destination::HeaderValue::Secret)
                }
            };
            headers.extend(value.map(|value| (name.clone(), value)));
        }
        headers
    }

    fn when(&mut self, pointer: &str, when: &file::WhenSection) -> When {
        let mut apps = Vec::new();
        for (index, name) in when.apps.iter().enumerate() {
            let at = format!("{pointer}/apps/{index}");
            match AppName::new(name) {
                Ok(app) => apps.push(app),
                Err(error) => self.problem(&at, error.to_string()),
            }
            let names = &self.app_names;
            // An app whose name could not be read has an empty one here, and may be the app that is
            // meant.
            if !names.contains(name) && !names.contains("") && !names.is_empty() {
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let hint = did_you_mean(name, &known);
                let message =
                    format!("no app is named `{name}`: its alerts would never arrive here");
                self.problem_with(&at, message, &hint);
            }
        }
        When {
            min_severity: when.min_severity.map(risk_level),
            apps,
            channels: self
                .channels(&format!("{pointer}/channels"), when.channels.iter().enumerate()),
            test: match when.test {
                TestIncidents::Include => routing::TestIncidents::Include,
                TestIncidents::Exclude => routing::TestIncidents::Exclude,
                TestIncidents::Only => routing::TestIncidents::Only,
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

fn is_credential(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    ["authorization", "cookie", "token", "api-key", "apikey", "appkey", "secret"]
        .iter()
        .any(|word| header.contains(word))
}
