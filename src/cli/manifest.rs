//! `manifest`: prints the manifest of the Slack app that the configuration needs.

use std::process::ExitCode;

use clap::Args;
use url::Url;

use super::{
    environment::environment,
    options::{BadConfiguration, Common},
    output::{say, say_json},
};
use crate::{
    config::{self, AppConfig},
    secret::Secret,
    slack::{
        self,
        manifest::{ChannelKind, Needs, manifest},
    },
};

/// Print the manifest of the Slack app: paste it at `https://api.slack.com/apps`, Create New App,
/// From a manifest.
#[derive(Args, Debug)]
pub struct Manifest {
    /// Address at which Slack reaches the relay, such as `https://relay.example.com`.
    #[arg(long, value_name = "URL")]
    url: Url,
    /// Name of the app, if the configuration has several.
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Print JSON instead of YAML.
    #[arg(long)]
    json: bool,
    /// Print a link that opens Slack's dialog for a new app with the manifest filled in.
    #[arg(long, conflicts_with = "json")]
    link: bool,
    /// Leave out the incoming webhook through which Code Defender posts.
    #[arg(long)]
    no_incoming_webhook: bool,
}

/// Placeholder for secrets that do not exist before the Slack app does.
const PLACEHOLDER: &str = "https://not-known-yet.invalid/";

/// Path of the request URL.
const EVENTS: &str = "/slack/events";

impl Manifest {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        if self.url.scheme() != "https" || self.url.host().is_none() {
            let message = "--url: Slack calls only https:// URLs; a proxy may terminate TLS";
            return Err(BadConfiguration(message.to_owned()).into());
        }
        let apps = apps(common)?;
        let needs = self.needs(&apps)?;
        let manifest = manifest(&needs);
        if self.link {
            say(&link(&manifest)?);
        } else if self.json {
            say_json(&manifest)?;
        } else {
            say(serde_saphyr::to_string(&manifest)?.trim_end());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn needs(&self, apps: &[AppConfig]) -> anyhow::Result<Needs> {
        let base = base_url(&self.url);
        let wrong = |message: String| anyhow::Error::from(BadConfiguration(message));
        let (app, path) = match (apps, &self.app) {
            ([], None) => (None, String::new()),
            ([only], None) => (Some(only), String::new()),
            (_, None) => {
                let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
                let message = format!("there are several apps: add --app {}", names.join(" or "));
                return Err(wrong(message));
            }
            (_, Some(name)) => {
                let app = apps.iter().find(|app| app.name.as_str() == name);
                let app = app.ok_or_else(|| wrong(format!("no app is named {name}")))?;
                // Apps with a common signing secret are one Slack app, which has one request URL.
                let is_alone = apps.len() == 1 || shares_its_secret(app, apps);
                (Some(app), if is_alone { String::new() } else { format!("/{name}") })
            }
        };
        Ok(Needs {
            request_url: format!("{base}{EVENTS}{path}"),
            kinds: app.map_or_else(|| vec![ChannelKind::Public, ChannelKind::Private], kinds),
            catch_up: app.is_none_or(|app| app.bot_token.is_some()),
            incoming_webhook: !self.no_incoming_webhook,
        })
    }
}

/// Returns the part of a URL before `/slack/events`, if the whole request URL is given.
pub(super) fn base_url(url: &Url) -> String {
    let base = url.as_str().trim_end_matches('/');
    base.strip_suffix(EVENTS).unwrap_or(base).trim_end_matches('/').to_owned()
}

/// Returns the needs of a single app that reads the history of these kinds of channels.
pub(super) fn needs_of_channels(base: &str, kinds: Vec<ChannelKind>) -> Needs {
    Needs { request_url: format!("{base}{EVENTS}"), kinds, catch_up: true, incoming_webhook: true }
}

/// Returns a link to Slack's dialog for a new app with the manifest filled in.
///
/// Many projects use links of this form, but Slack's documentation of manifests does not describe
/// it.
pub(super) fn link(manifest: &slack::manifest::Manifest) -> anyhow::Result<String> {
    let json = serde_json::to_string(manifest)?;
    let mut link = Url::parse("https://api.slack.com/apps?new_app=1")?;
    link.query_pairs_mut().append_pair("manifest_json", &json);
    // Form encoding writes a space as `+`, which not every reader decodes; `%20` always works.
    Ok(link.as_str().replace('+', "%20"))
}

/// Returns the kinds of channels that an app may read by its configuration.
pub(super) fn kinds(app: &AppConfig) -> Vec<ChannelKind> {
    if app.channels.is_empty() || !app.channel_names.is_empty() {
        return vec![ChannelKind::Public, ChannelKind::Private];
    }
    app.channels.iter().flat_map(|id| ChannelKind::of(id.as_str())).copied().collect()
}

fn shares_its_secret(app: &AppConfig, apps: &[AppConfig]) -> bool {
    let shares = |other: &AppConfig| {
        let known =
            |secret: &Secret| app.signing_secrets.iter().any(|own| own.reveal() == secret.reveal());
        other.name != app.name && other.signing_secrets.iter().any(known)
    };
    apps.iter().any(shares)
}

/// Returns the configured apps; none if there is no configuration file yet.
fn apps(common: &Common) -> anyhow::Result<Vec<AppConfig>> {
    let path = common.path();
    if common.config.is_none() && !path.exists() {
        return Ok(Vec::new());
    }
    // The secrets may not exist yet.
    let secret = |name: &str| environment(name).or_else(|| Some(format!("{PLACEHOLDER}{name}")));
    let loaded =
        config::load(&path, &secret).map_err(|problems| BadConfiguration(problems.to_string()))?;
    Ok(loaded.config.apps)
}
