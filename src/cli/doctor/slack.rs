//! One Slack app: its secrets, its token and scopes, Slack's clock, and its channels.

use std::collections::HashSet;

use super::{Finding, store::known_channels};
use crate::{
    cli::{catch_up::web_api, manifest::kinds},
    clock::Clock,
    config::{App, Config},
    ids::ChannelId,
    logging::chain,
    metrics::Metrics,
    slack::{
        manifest::{Needs, scopes},
        web_api::{ApiError, Channel, Identity, Pages, WebApi},
    },
};

/// Where every walk through Slack's settings begins.
const SETTINGS: &str = "open https://api.slack.com/apps and choose the app";

/// At 300 s every push is refused; long before, something is wrong with the clock.
const SKEW_WARN_SECONDS: i64 = 60;
const SKEW_FAIL_SECONDS: i64 = 240;

struct Patient<'a> {
    app: &'a App,
    api: WebApi,
    findings: Vec<Finding>,
}

/// `is_whole`: the file has no mistake, so a secret that is not there is not configured.
pub(super) async fn examine(
    config: &Config,
    app: &App,
    is_whole: bool,
) -> anyhow::Result<Vec<Finding>> {
    let clock = Clock::system();
    let api = web_api(config, app, &clock, &Metrics::new())?;
    let mut patient = Patient { app, api, findings: Vec::new() };
    if !app.signing_secrets.is_empty() {
        patient.signing_secret();
    }
    if app.bot_token.is_none() && !is_whole {
        return Ok(patient.findings);
    }
    let identity = patient.identity(config.slack_api.as_str()).await;
    patient.clock();
    if let Some(identity) = identity {
        patient.scopes(&identity);
        patient.channels(config).await;
    }
    Ok(patient.findings)
}

impl Patient<'_> {
    fn check(&self, what: &str) -> String {
        format!("slack {}, {what}", self.app.name)
    }

    fn ok(&mut self, what: &str, message: impl Into<String>) {
        let check = self.check(what);
        self.findings.push(Finding::ok(&check, message));
    }

    fn warn(&mut self, what: &str, message: impl Into<String>, advice: impl Into<String>) {
        let check = self.check(what);
        self.findings.push(Finding::warn(&check, message, advice));
    }

    fn fail(&mut self, what: &str, message: impl Into<String>, advice: impl Into<String>) {
        let check = self.check(what);
        self.findings.push(Finding::fail(&check, message, advice));
    }

    /// Slack cannot be asked for it, but what is no signing secret can be told.
    fn signing_secret(&mut self) {
        let hex = |secret: &str| {
            secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let advice = format!(
            "{SETTINGS}, Basic Information, App Credentials, Signing Secret, Show: that value \
             belongs where `signing_secret` points to"
        );
        let secrets: Vec<_> =
            self.app.signing_secrets.iter().map(crate::secret::Secret::reveal).collect();
        if secrets.iter().any(|secret| secret.starts_with("xox") || secret.starts_with("xapp-")) {
            self.fail("signing secret", "this is a token and no signing secret", advice);
        } else if secrets.iter().all(|secret| hex(secret)) {
            self.ok("signing secret", "looks like one");
        } else {
            self.warn("signing secret", "does not look like one: 32 of 0-9 and a-f", advice);
        }
    }

    async fn identity(&mut self, url: &str) -> Option<Identity> {
        let result = patiently(|| self.api.auth_test()).await;
        let Some(token) = &self.app.bot_token else {
            let advice = format!(
                "{SETTINGS}, OAuth & Permissions, copy the Bot User OAuth Token and point \
                 `bot_token` to it"
            );
            let message = "none configured: what Slack does not push is never found";
            self.warn("token", message, advice);
            if let Err(ApiError::Transient(failure)) = result {
                self.fail("web api", format!("{url}: {}", chain(&failure)), NETWORK);
            }
            return None;
        };
        match result {
            Ok(identity) => {
                self.team(&identity);
                return Some(identity);
            }
            Err(ApiError::Token(code)) => {
                let kind = if token.reveal().starts_with("xoxb-") {
                    ""
                } else {
                    "; it does not begin with xoxb-, so it is another kind of token"
                };
                let advice = format!(
                    "{SETTINGS}, OAuth & Permissions, Install (or Reinstall) to Workspace, copy \
                     the Bot User OAuth Token (xoxb-...) to where `bot_token` points to"
                );
                self.fail("token", format!("Slack does not take it: {code}{kind}"), advice);
            }
            Err(error) => {
                let advice = if error.cure().is_empty() { NETWORK } else { error.cure() };
                self.fail("web api", format!("{url}: {}", chain(&error)), advice);
            }
        }
        None
    }

    /// The token of an organisation is for all of its workspaces.
    fn team(&mut self, identity: &Identity) {
        let id = &identity.team_id;
        match &self.app.team {
            Some(team) if team != id && !id.starts_with('E') => {
                let advice = format!(
                    "set `team` of this app to {id}, or point `bot_token` to the token of {team}"
                );
                self.fail("token", format!("it is for workspace {id}, not for {team}"), advice);
            }
            None if id.starts_with('E') => {
                let advice = "set `team` of this app to the id of the workspace with the channel";
                self.fail("token", format!("it is for the whole organisation {id}"), advice);
            }
            Some(_) | None => self.ok("token", format!("good, for workspace {id}")),
        }
    }

    fn clock(&mut self) {
        let Some(slack) = self.api.slack_now() else {
            return;
        };
        let skew = Clock::system().now().seconds() - slack.seconds();
        let message = format!("{skew} s away from Slack's");
        let advice = "let the machine set its clock by itself, for example \
                      `timedatectl set-ntp true`; at 300 s every push is refused";
        if skew.abs() >= SKEW_FAIL_SECONDS {
            self.fail("clock", message, advice);
        } else if skew.abs() >= SKEW_WARN_SECONDS {
            self.warn("clock", message, advice);
        } else {
            self.ok("clock", message);
        }
    }

    fn scopes(&mut self, identity: &Identity) {
        let needs = Needs {
            request_url: String::new(),
            kinds: kinds(self.app),
            catch_up: true,
            incoming_webhook: false,
        };
        let has = |scope: &&str| identity.scopes.iter().any(|known| known == scope);
        let missing: Vec<&str> = scopes(&needs).into_iter().filter(|scope| !has(scope)).collect();
        if missing.is_empty() {
            return self.ok("scopes", "all there");
        }
        let advice = format!(
            "{SETTINGS}, OAuth & Permissions, Bot Token Scopes, Add an OAuth Scope: {}; then \
             Reinstall to Workspace at the top of that page",
            missing.join(", ")
        );
        self.fail("scopes", format!("missing: {}", missing.join(", ")), advice);
    }

    async fn channels(&mut self, config: &Config) {
        let app = self.app;
        let known = known_channels(&config.store, &app.name).await;
        let found = |written: &str| known.iter().find(|(known, _)| known == written);
        let current = |id: &ChannelId| found(id.as_str()).map_or(id, |(_, id)| id).clone();
        for id in app.channels.iter().map(current) {
            self.channel(&id).await;
        }
        let (resolved, unresolved): (Vec<_>, Vec<_>) =
            app.channel_names.iter().partition(|name| found(name).is_some());
        for (_, id) in resolved.into_iter().filter_map(|name| found(name)) {
            self.channel(id).await;
        }
        let is_every = app.channels.is_empty() && app.channel_names.is_empty();
        if !unresolved.is_empty() || is_every {
            self.listed(&unresolved, is_every).await;
        }
    }

    async fn channel(&mut self, id: &ChannelId) {
        let what = format!("channel {id}");
        match patiently(|| self.api.channel(id)).await {
            Ok(channel) => self.membership(&what, &channel),
            Err(error) => {
                let advice = if error.code() == "channel_not_found" {
                    "if it is a private channel, open it in Slack and type: /invite \
                     @slack-soar-relay (the name of the app); else compare the id, which stands at \
                     the end of the channel's details"
                } else {
                    advice(&error)
                };
                self.fail(&what, chain(&error), advice);
            }
        }
    }

    fn membership(&mut self, what: &str, channel: &Channel) {
        let name = &channel.name;
        if channel.is_archived {
            let advice = "unarchive it in its settings, or configure another channel";
            self.fail(what, format!("#{name} is archived"), advice);
        } else if channel.is_member {
            self.ok(what, format!("the bot is in #{name}"));
        } else {
            let advice = format!(
                "open #{name} in Slack and type: /invite @slack-soar-relay (the name of the app)"
            );
            self.fail(what, format!("the bot is not in #{name}"), advice);
        }
    }

    /// Looks through the list for names, or for whatever the bot is in.
    async fn listed(&mut self, names: &[&String], is_every: bool) {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        let (mut pages, mut seen) = (Pages::default(), HashSet::new());
        loop {
            let page = patiently(|| self.api.channels(cursor.as_deref())).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => return self.fail("channels", chain(&error), advice(&error)),
            };
            let before = seen.len();
            seen.extend(page.channels.iter().map(|channel| channel.id.clone()));
            all.extend(page.channels);
            if page.next_cursor.is_none() {
                break;
            }
            let has_news = seen.len() > before;
            if let Err(astray) = pages.follow(page.next_cursor.as_deref(), has_news) {
                let advice = "configure the channels by their ids: then none are listed";
                return self.fail("channels", chain(&astray), advice);
            }
            cursor = page.next_cursor;
        }
        for name in names {
            let what = format!("channel {name}");
            if let Some(channel) = all.iter().find(|channel| channel.name == **name) {
                self.membership(&what, channel);
            } else {
                let advice = "if it is a private channel, open it in Slack and type: /invite \
                              @slack-soar-relay (the name of the app); else compare the name";
                self.fail(&what, "no such channel", advice);
            }
        }
        let joined: Vec<&str> = all
            .iter()
            .filter(|channel| is_every && channel.is_member)
            .map(|channel| channel.name.as_str())
            .collect();
        if is_every && joined.is_empty() {
            let advice = "open the channel with the incidents in Slack and type: /invite \
                          @slack-soar-relay (the name of the app)";
            self.fail("channels", "the bot is in none", advice);
        } else if is_every {
            self.ok("channels", format!("the bot is in #{}", joined.join(", #")));
        }
    }
}

const NETWORK: &str = "let this machine reach Slack: name lookup, firewall, `slack.api_url`, \
                       `slack.proxy`, `slack.ca_file`";

/// How to mend what Slack refused.
fn advice(error: &ApiError) -> &'static str {
    if error.cure().is_empty() { "see the lines above" } else { error.cure() }
}

/// Waits where Slack asks for it; everything else is a finding.
async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(
    call: impl Fn() -> F,
) -> Result<T, ApiError> {
    loop {
        match call().await {
            Err(ApiError::Throttled { wait }) => Clock::system().sleep(wait).await,
            result => return result,
        }
    }
}
