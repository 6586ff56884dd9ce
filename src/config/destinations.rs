//! From the file's destinations to checked settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    Destination, Fingerprint,
    file::{self, HeaderText, Severity, Test},
    resolve::Resolver,
    schema::did_you_mean,
    sources::fingerprint,
    tree::step,
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

/// A worker needs this much more than its attempt: to record the outcome.
const LEASE_RESERVE: Duration = Duration::from_secs(30);

/// The longest attempt that anybody may wait for.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// Ends of the names of secret parameters that may have spaces inside: passwords that a person
/// chose, and the key file of a service account.
const MAY_HAVE_SPACES: [&str; 3] = ["password", "passphrase", "service_account"];

/// What a destination that is read has no use for.
const OF_SENDING: [&str; 3] = ["timeout", "concurrency", "rate_limit"];

impl Resolver<'_> {
    pub(super) fn destinations(
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
            let is_known = !self.place.spoilt.has("/delivery/lease");
            if is_known && lease < destination.timeout.0 + LEASE_RESERVE {
                let message = "`delivery.lease` must be at least 30s longer: else an alert is sent \
                               twice at once";
                self.problem(&format!("{at}/timeout"), message);
            }
            let destination = self.destination(&at, destination, presets_dir);
            resolved.extend(destination.map(|destination| (index, destination)));
        }
        self.same_receivers(&resolved);
        resolved.into_iter().map(|(_, destination)| destination).collect()
    }

    fn destination(
        &mut self,
        at: &str,
        destination: file::Destination,
        presets_dir: Option<&Path>,
    ) -> Option<Destination> {
        let timeout_at = format!("{at}/timeout");
        let timeout = self.between(&timeout_at, destination.timeout.0, (1, MAX_TIMEOUT.as_secs()));
        let signing_secret = destination
            .signing_secret
            .as_ref()
            .map(|secret| self.secret(&format!("{at}/signing_secret"), secret));
        let headers = self.headers(&format!("{at}/headers"), &destination);
        let when = self.when(&format!("{at}/when"), &destination.when);
        let preset = self.preset(&format!("{at}/preset"), &destination.preset, presets_dir);
        let before = self.problems.len();
        let fingerprint = self.fingerprint(at, &destination, presets_dir);
        let url = self.url(at, destination.url.as_ref(), preset.as_deref());
        if let Some(url) = &url {
            self.in_clear(&format!("{at}/url"), &url.reveal(), "alerts and keys");
        }
        let params_at = format!("{at}/params");
        let before_params = self.problems.len();
        let (params, secrets) = self.params(&params_at, destination.params, preset.as_deref());
        let unread = self.problems.split_off(before_params);
        for (name, message) in preset.iter().flat_map(|one| one.check_params(&params, &secrets)) {
            let pointer = format!("{params_at}/{}", step(&name));
            // A secret that cannot be read is not missing as well.
            if !unread.iter().any(|problem| problem.is_at(&pointer)) {
                self.problem(&pointer, message);
            }
        }
        self.problems.extend(unread);
        if preset.as_ref().is_some_and(|preset| preset.transport() == Transport::Feed) {
            self.feed(at, &params, before);
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
        if before == self.problems.len()
            && !self.place.spoilt.has_within(&params_at)
            && let Err(error) = destination::Destination::new(settings.clone(), Clock::system())
        {
            self.problem(at, chain(&error));
        }
        Some(Destination {
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

    /// Notes the destination's files, too.
    fn fingerprint(
        &mut self,
        at: &str,
        destination: &file::Destination,
        presets_dir: Option<&Path>,
    ) -> Fingerprint {
        let named =
            [&destination.ca_file, &destination.client_cert_file, &destination.client_key_file];
        let files: Vec<PathBuf> =
            named.into_iter().flatten().map(|path| self.beside(path.clone())).collect();
        let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let own_preset = Preset::builtin_names().all(|name| name != destination.preset);
        let text = self.place.value.pointer(at).unwrap_or(&Value::Null);
        let fingerprint = fingerprint(text, &paths, presets_dir.filter(|_dir| own_preset));
        self.files.extend(files);
        fingerprint
    }

    /// The configured address, or the one that the preset knows.
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
                if !self.place.spoilt.has(&format!("{at}/url")) {
                    self.problem(at, "`url` is missing: write {env: NAME} or {file: PATH}");
                }
                None
            }
            (None, None) => None,
        }
    }

    /// Of a destination that is read: it needs its token, and nothing that sending needs.
    /// `before`: how many problems there were before its parameters were looked at.
    fn feed(&mut self, at: &str, params: &Map<String, Value>, before: usize) {
        // What stands for a secret in samples is none.
        let is_told = self.problems.len() > before;
        if !is_told
            && params.get(FEED_TOKEN).is_some_and(|text| matches!(text.as_str(), Some("" | "***")))
        {
            let token_at = format!("{at}/params/{FEED_TOKEN}");
            self.problem(&token_at, "is a secret: write {env: NAME} or {file: PATH}");
        }
        for key in OF_SENDING {
            let at = format!("{at}/{key}");
            if self.place.positions.has(&at) {
                self.warn(&at, "has no meaning here: the destination is read, not sent to");
            }
        }
    }

    /// Parameters that are references are secrets, the others are what they are.
    fn params(
        &mut self,
        at: &str,
        given: Map<String, Value>,
        preset: Option<&Preset>,
    ) -> (Map<String, Value>, BTreeMap<String, Secret>) {
        let (mut plain, mut secrets) = (Map::new(), BTreeMap::new());
        let known = preset.map(Preset::params_documented).unwrap_or_default();
        let is_key = |name: &str| {
            let is_secret = known.iter().any(|param| param.name == name && param.kind == "secret");
            is_secret && !MAY_HAVE_SPACES.iter().any(|word| name.ends_with(word))
        };
        for (name, value) in given {
            match serde_json::from_value::<file::SecretRef>(value.clone()) {
                Ok(reference) if value.is_object() => {
                    let pointer = format!("{at}/{}", step(&name));
                    let form = if is_key(&name) { Form::Word } else { Form::Text };
                    let secret = self.secret_of(&pointer, &reference, form);
                    secrets.extend(secret.map(|secret| (name, secret)));
                }
                Ok(_) | Err(_) => {
                    plain.insert(name, value);
                }
            }
        }
        (plain, secrets)
    }

    fn beside(&self, path: PathBuf) -> PathBuf {
        self.place.dir.join(path)
    }

    fn headers(
        &mut self,
        pointer: &str,
        destination: &file::Destination,
    ) -> Vec<(String, destination::HeaderValue)> {
        let mut headers = Vec::new();
        for (name, text) in &destination.headers {
            let at = format!("{pointer}/{}", step(name));
            let value = match text {
                HeaderText::Plain(text) => {
                    if is_credential(name) {
                        self.warn(&at, "looks like a secret: write {env: NAME} or {file: PATH}");
                    }
                    Some(destination::HeaderValue::Plain(text.clone()))
                }
                HeaderText::Secret(secret) => {
                    // Such as `Bearer TOKEN`.
                    self.secret_of(&at, secret, Form::Text).map(destination::HeaderValue::Secret)
                }
            };
            headers.extend(value.map(|value| (name.clone(), value)));
        }
        headers
    }

    fn when(&mut self, pointer: &str, when: &file::When) -> When {
        let mut apps = Vec::new();
        for (index, name) in when.apps.iter().enumerate() {
            let at = format!("{pointer}/apps/{index}");
            match AppName::new(name) {
                Ok(app) => apps.push(app),
                Err(error) => self.problem(&at, error.to_string()),
            }
            let names = &self.app_names;
            if !names.contains(name) && !names.contains("") && !names.is_empty() {
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let hint = did_you_mean(name, &known);
                let message = format!("no app is named `{name}`: alerts would not get here");
                self.problem_with(&at, message, &hint);
            }
        }
        When {
            min_severity: when.min_severity.map(risk_level),
            apps,
            channels: self
                .channels(&format!("{pointer}/channels"), when.channels.iter().enumerate()),
            test: match when.test {
                Test::Include => routing::TestIncidents::Include,
                Test::Exclude => routing::TestIncidents::Exclude,
                Test::Only => routing::TestIncidents::Only,
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
