//! Resolves the Slack apps of the file.

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::Value;
use url::Url;

use super::{
    checked::AppConfig,
    file,
    resolve::Resolver,
    sources::{Fingerprint, fingerprint},
};
use crate::{
    http_client::{self, ClientError},
    ids::{AppName, ChannelId},
    intake::events_api::{MAX_SHORT_PATH_SECRETS, is_short_path_served},
    logging::chain,
};

impl Resolver<'_> {
    pub(super) fn apps(&mut self, slack: file::SlackSection) -> Vec<AppConfig> {
        let mut names = BTreeSet::new();
        let mut resolved = Vec::new();
        let shared = self.client("/slack", slack.proxy, slack.ca_file, None);
        for (index, app) in slack.apps.into_iter().enumerate() {
            let at = format!("/slack/apps/{index}");
            if !names.insert(app.name.clone()) {
                self.problem(&format!("{at}/name"), format!("two apps are named `{}`", app.name));
            }
            let current = self.secret(&format!("{at}/signing_secret"), &app.signing_secret);
            let previous = app
                .previous_signing_secret
                .and_then(|old| self.secret(&format!("{at}/previous_signing_secret"), &old));
            if app.bot_token.is_none() {
                let message = "no `bot_token`: pushes are received, but incidents that Slack does \
                               not push are never found";
                self.warn(&at, message);
            }
            let may_use_names = app.bot_token.is_some();
            let token_at = format!("{at}/bot_token");
            let bot_token = app.bot_token.and_then(|token| self.secret(&token_at, &token));
            self.check_slack_secrets(&at, current.as_ref(), previous.as_ref(), bot_token.as_ref());
            let client = self.client(&at, app.proxy, app.ca_file, Some(&shared));
            // Without a token names cannot be resolved, so every entry must be an id.
            let (ids, names) =
                app.channels.iter().enumerate().partition::<Vec<_>, _>(|(_, channel)| {
                    !may_use_names || is_channel_id(channel)
                });
            let at = format!("{at}/channels");
            let channels = self.channels(&at, ids);
            let channel_names = self.channel_names(&at, names);
            if let Ok(name) = AppName::new(&app.name) {
                let signing_secrets = current.into_iter().chain(previous).collect();
                resolved.push(AppConfig {
                    name,
                    signing_secrets,
                    bot_token,
                    channels,
                    channel_names,
                    bots: app.bots,
                    team: app.team,
                    client_files: client_files(&client),
                    client,
                });
            }
        }
        self.check_shared_secrets(&resolved);
        resolved
    }

    /// Resolves proxy and certificates for the Web API: the values at `at`, or else the `shared`
    /// ones.
    fn client(
        &mut self,
        at: &str,
        proxy: Option<String>,
        ca_file: Option<PathBuf>,
        shared: Option<&http_client::Settings>,
    ) -> http_client::Settings {
        let ca_file = ca_file.map(|path| self.context.dir.join(path));
        self.files.extend(ca_file.clone());
        let own = http_client::Settings { proxy, ca_file, ..http_client::Settings::default() };
        // Only the values of this section are tried: a mistake in shared ones is reported once.
        if let Err(error) = http_client::build(&own) {
            let key = if matches!(error, ClientError::Proxy) { "proxy" } else { "ca_file" };
            self.problem(&format!("{at}/{key}"), chain(&error));
        }
        match shared {
            Some(shared) => http_client::Settings {
                proxy: own.proxy.or_else(|| shared.proxy.clone()),
                ca_file: own.ca_file.or_else(|| shared.ca_file.clone()),
                ..own
            },
            None => own,
        }
    }

    /// Checks that apps with a common signing secret can be told apart by their workspaces, and
    /// that the short path can be served.
    fn check_shared_secrets(&mut self, apps: &[AppConfig]) {
        for (index, app) in apps.iter().enumerate() {
            let others = apps.iter().enumerate().filter(|(at, _)| *at != index);
            let mut sharing =
                others.map(|(_, other)| other).filter(|other| shares_a_secret(app, other));
            // A signature shows that one of these apps is meant. Only the workspace in the body
            // says which.
            let Some(other) = sharing.find(|other| app.team.is_none() || app.team == other.team)
            else {
                continue;
            };
            let at = format!("/slack/apps/{index}/team");
            if self.context.discarded.has(&at) {
                continue;
            }
            let message = if app.team.is_none() {
                format!(
                    "`team` is missing: this app shares its signing secret with `{}`",
                    other.name
                )
            } else {
                format!("`{}` has the same signing secret and the same `team`", other.name)
            };
            let hint = "write the id of the workspace, such as T0123456789: Slack shows the id \
                        in the browser's address bar";
            self.problem_with(&at, message, hint);
        }
        let secrets = apps.iter().flat_map(|app| app.signing_secrets.clone());
        if !is_short_path_served(&secrets.collect::<Vec<_>>()) {
            let message = format!(
                "more than {MAX_SHORT_PATH_SECRETS} distinct signing secrets: /slack/events \
                 answers 404, and every Slack app needs /slack/events/NAME as its request URL"
            );
            self.warn("/slack/apps", message);
        }
    }

    /// Resolves the ids of channels, each with its index in the list.
    pub(super) fn channels<'c, C: IntoIterator<Item = (usize, &'c String)>>(
        &mut self,
        pointer: &str,
        channels: C,
    ) -> Vec<ChannelId> {
        let mut ids = Vec::new();
        for (index, channel) in channels {
            if is_channel_id(channel) {
                ids.push(ChannelId::new(channel));
                continue;
            }
            let message = format!("`{channel}` is not a channel id such as C0123456789");
            let hint = "Slack shows the id at the end of the channel's details; names are allowed \
                        in the `channels` of an app with a `bot_token`";
            self.problem_with(&format!("{pointer}/{index}"), message, hint);
        }
        ids
    }

    /// Resolves the names of channels, each with its index in the list.
    fn channel_names(&mut self, pointer: &str, names: Vec<(usize, &String)>) -> Vec<String> {
        let mut valid = Vec::new();
        for (index, written) in names {
            let name = written.strip_prefix('#').unwrap_or(written);
            if is_channel_name(name) {
                valid.push(name.to_owned());
                continue;
            }
            let message = format!("`{written}` is neither the id nor the name of a channel");
            let hint = "names have lower-case letters and no spaces, ids look like C0123456789";
            self.problem_with(&format!("{pointer}/{index}"), message, hint);
        }
        valid
    }

    /// Returns the base URL of the Web API, or Slack's own if the configured one is not usable.
    #[expect(clippy::expect_used, reason = "the constant is a valid URL")]
    pub(super) fn slack_api(&mut self, text: &str) -> Url {
        let fault = match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                "must start with https:// or http://".to_owned()
            }
            Ok(url) if is_slack(&url) && url.path().trim_end_matches('/') != "/api" => {
                "is not the address of the Web API, which is https://slack.com/api".to_owned()
            }
            Ok(url) => match http_client::check_host(&url) {
                Ok(()) => {
                    self.warn_if_in_clear("/slack/api_url", text, "tokens and messages");
                    return url;
                }
                Err(error) => error.to_string(),
            },
            Err(error) => format!("is not a valid URL: {error}"),
        };
        // The problem refuses the file; the default lets the remaining checks go on.
        self.problem("/slack/api_url", fault);
        Url::parse(file::SLACK_API).expect("a valid URL")
    }
}

fn is_slack(url: &Url) -> bool {
    url.host_str().is_some_and(|host| host == "slack.com" || host.ends_with(".slack.com"))
}

fn shares_a_secret(one: &AppConfig, other: &AppConfig) -> bool {
    one.signing_secrets
        .iter()
        .any(|secret| other.signing_secrets.iter().any(|known| *known.reveal() == *secret.reveal()))
}

/// Computes the digest of the files that `client` names.
fn client_files(client: &http_client::Settings) -> Fingerprint {
    let files: Vec<_> = client.ca_file.iter().map(PathBuf::as_path).collect();
    fingerprint(&Value::Null, &files, None)
}

/// Returns whether a text has the form of a channel's name: lower-case letters of any script,
/// digits, `-` and `_`.
fn is_channel_name(text: &str) -> bool {
    let fits = |c: char| (c.is_alphanumeric() && !c.is_uppercase()) || "-_".contains(c);
    (1..=80).contains(&text.chars().count()) && text.chars().all(fits)
}

/// Returns whether a text has the form of the id of a channel, a private channel or a direct
/// message: <https://docs.slack.dev/reference/objects>.
pub(super) fn is_channel_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| b"CGD".contains(&first))
        && text.len() >= 7
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
