//! `manifest`: the Slack app that this configuration needs, to be pasted into Slack.

use std::process::ExitCode;

use clap::Args;
use url::Url;

use super::{BadConfiguration, Common, environment, say, say_json};
use crate::{
    config::{self, App},
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
    /// Where Slack reaches the relay, such as `https://relay.example.com`.
    #[arg(long, value_name = "URL")]
    url: Url,
    /// The app of the configuration, if there are several.
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Print JSON and not YAML.
    #[arg(long)]
    json: bool,
    /// Print an address that opens Slack's dialog for a new app with the manifest filled in.
    #[arg(long, conflicts_with = "json")]
    link: bool,
    /// Leave out the incoming webhook through which Code Defender posts.
    #[arg(long)]
    no_incoming_webhook: bool,
}

/// Stands for a secret that does not exist yet: the app that has it is still to be made.
const PLACEHOLDER: &str = "https://not-known-yet.invalid/";

/// Where the relay listens for Slack, below its own address.
const EVENTS: &str = "/slack/events";

impl Manifest {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        if self.url.scheme() != "https" || self.url.host().is_none() {
            let message = "--url: Slack calls https:// only; TLS may end before the relay";
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

    fn needs(&self, apps: &[App]) -> anyhow::Result<Needs> {
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
                // One Slack app has one request URL, whichever workspaces it is installed in.
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

/// Returns the address before `/slack/events`. The README names the whole request URL, so that may
/// be what is given.
pub(super) fn base_url(url: &Url) -> String {
    let base = url.as_str().trim_end_matches('/');
    base.strip_suffix(EVENTS).unwrap_or(base).trim_end_matches('/').to_owned()
}

/// Returns the needs of the only app of a configuration that reads history in such channels.
pub(super) fn needs_of_channels(base: &str, kinds: Vec<ChannelKind>) -> Needs {
    Needs { request_url: format!("{base}{EVENTS}"), kinds, catch_up: true, incoming_webhook: true }
}

/// Returns the address of Slack's dialog for a new app with the manifest in it. Many projects link
/// to it in this form; the documentation of manifests that we could read does not describe it.
pub(super) fn link(manifest: &slack::manifest::Manifest) -> anyhow::Result<String> {
    let json = serde_json::to_string(manifest)?;
    let mut link = Url::parse("https://api.slack.com/apps?new_app=1")?;
    link.query_pairs_mut().append_pair("manifest_json", &json);
    // Form encoding writes a blank as `+`; percent encoding is read the same way everywhere.
    Ok(link.as_str().replace('+', "%20"))
}

/// The kinds of channels that an app's configuration may mean.
pub(super) fn kinds(app: &App) -> Vec<ChannelKind> {
    if app.channels.is_empty() || !app.channel_names.is_empty() {
        return vec![ChannelKind::Public, ChannelKind::Private];
    }
    app.channels.iter().flat_map(|id| ChannelKind::of(id.as_str())).copied().collect()
}

fn shares_its_secret(app: &App, apps: &[App]) -> bool {
    let shares = |other: &App| {
        let known =
            |secret: &Secret| app.signing_secrets.iter().any(|own| own.reveal() == secret.reveal());
        other.name != app.name && other.signing_secrets.iter().any(known)
    };
    apps.iter().any(shares)
}

/// The configured apps; none if there is no configuration yet. Secrets need not exist.
fn apps(common: &Common) -> anyhow::Result<Vec<App>> {
    let path = common.path();
    if common.config.is_none() && !path.exists() {
        return Ok(Vec::new());
    }
    let secret = |name: &str| environment(name).or_else(|| Some(format!("{PLACEHOLDER}{name}")));
    let loaded =
        config::load(&path, &secret).map_err(|problems| BadConfiguration(problems.to_string()))?;
    Ok(loaded.config.apps)
}
