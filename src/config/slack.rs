//! From the file's Slack apps to checked settings.

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::Value;
use url::Url;

use super::{App, Fingerprint, file, resolve::Resolver, sources::fingerprint};
use crate::{
    http_client::{self, ClientError},
    ids::{AppName, ChannelId},
    intake::events_api::{MAX_SHORT_PATH_SECRETS, is_short_path_served},
    logging::chain,
};

impl Resolver<'_> {
    pub(super) fn apps(&mut self, slack: file::Slack) -> Vec<App> {
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
                let message = "no `bot_token`: pushes are received, and what Slack does not push \
                               is never found";
                self.warn(&at, message);
            }
            let is_named = app.bot_token.is_some();
            let token_at = format!("{at}/bot_token");
            let bot_token = app.bot_token.and_then(|token| self.secret(&token_at, &token));
            self.slack_secrets(&at, current.as_ref(), previous.as_ref(), bot_token.as_ref());
            let client = self.client(&at, app.proxy, app.ca_file, Some(&shared));
            let (written_ids, names) = app
                .channels
                .iter()
                .enumerate()
                .partition::<Vec<_>, _>(|(_, channel)| !is_named || is_channel_id(channel));
            let at = format!("{at}/channels");
            let channels = self.channels(&at, written_ids);
            let channel_names = self.channel_names(&at, names);
            if let Ok(name) = AppName::new(&app.name) {
                let signing_secrets = current.into_iter().chain(previous).collect();
                resolved.push(App {
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
        self.shared_secrets(&resolved);
        resolved
    }

    /// Reads how the Web API is reached: what stands at `at`, else what is `shared` by all apps.
    fn client(
        &mut self,
        at: &str,
        proxy: Option<String>,
        ca_file: Option<PathBuf>,
        shared: Option<&http_client::Settings>,
    ) -> http_client::Settings {
        let ca_file = ca_file.map(|path| self.place.dir.join(path));
        self.files.extend(ca_file.clone());
        let own = http_client::Settings { proxy, ca_file, ..http_client::Settings::default() };
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

    /// Apps that share a signing secret are told apart by their workspace alone.
    fn shared_secrets(&mut self, apps: &[App]) {
        for (index, app) in apps.iter().enumerate() {
            let share = |other: &&App| shares_a_secret(app, other);
            let is_other = |(at, _): &(usize, &App)| *at != index;
            let mut others = apps.iter().enumerate().filter(is_other).map(|(_, other)| other);
            let Some(other) =
                others.find(|other| share(other) && (app.team.is_none() || app.team == other.team))
            else {
                continue;
            };
            let at = format!("/slack/apps/{index}/team");
            if self.place.spoilt.has(&at) {
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
            let hint = "the id of the workspace, such as T0123456789: Slack shows it in the \
                        address of the workspace in a browser";
            self.problem_with(&at, message, hint);
        }
        let secrets = apps.iter().flat_map(|app| app.signing_secrets.clone());
        if !is_short_path_served(&secrets.collect::<Vec<_>>()) {
            let message = format!(
                "more than {MAX_SHORT_PATH_SECRETS} distinct signing secrets: /slack/events is \
                 answered 404, and every Slack app needs /slack/events/NAME as its request URL"
            );
            self.warn("/slack/apps", message);
        }
    }

    /// Ids; each comes with its place in the list.
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
            let hint = "Slack shows the id at the end of the channel's details; an app with a \
                        `bot_token` may have names in its `channels`";
            self.problem_with(&format!("{pointer}/{index}"), message, hint);
        }
        ids
    }

    fn channel_names(&mut self, pointer: &str, names: Vec<(usize, &String)>) -> Vec<String> {
        let mut known = Vec::new();
        for (index, written) in names {
            let name = written.strip_prefix('#').unwrap_or(written);
            if is_channel_name(name) {
                known.push(name.to_owned());
                continue;
            }
            let message = format!("`{written}` is neither the id nor the name of a channel");
            let hint = "names have small letters and no spaces, ids look like C0123456789";
            self.problem_with(&format!("{pointer}/{index}"), message, hint);
        }
        known
    }

    /// Returns the address of the Web API; Slack's own one if that of the file cannot be used.
    #[expect(clippy::expect_used, reason = "the address is a constant, and a URL")]
    pub(super) fn slack_api(&mut self, text: &str) -> Url {
        let fault = match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                "must start with https:// or http://".to_owned()
            }
            Ok(url) if is_slack(&url) && url.path().trim_end_matches('/') != "/api" => {
                "is not the Web API, which is https://slack.com/api".to_owned()
            }
            Ok(url) => match http_client::check_host(&url) {
                Ok(()) => {
                    self.in_clear("/slack/api_url", text, "tokens and messages");
                    return url;
                }
                Err(error) => error.to_string(),
            },
            Err(error) => format!("is no URL: {error}"),
        };
        self.problem("/slack/api_url", fault);
        Url::parse(file::SLACK_API).expect("a URL")
    }
}

fn is_slack(url: &Url) -> bool {
    url.host_str().is_some_and(|host| host == "slack.com" || host.ends_with(".slack.com"))
}

fn shares_a_secret(one: &App, other: &App) -> bool {
    one.signing_secrets
        .iter()
        .any(|secret| other.signing_secrets.iter().any(|known| *known.reveal() == *secret.reveal()))
}

fn client_files(client: &http_client::Settings) -> Fingerprint {
    let files: Vec<_> = client.ca_file.iter().map(PathBuf::as_path).collect();
    fingerprint(&Value::Null, &files, None)
}

/// Small letters of any script, digits, `-` and `_`.
fn is_channel_name(text: &str) -> bool {
    let fits = |c: char| (c.is_alphanumeric() && !c.is_uppercase()) || "-_".contains(c);
    (1..=80).contains(&text.chars().count()) && text.chars().all(fits)
}

/// Channels, private channels and direct messages: <https://docs.slack.dev/reference/objects>.
pub(super) fn is_channel_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| b"CGD".contains(&first))
        && text.len() >= 7
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
