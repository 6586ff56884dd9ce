//! Checks a Slack app: secrets, token, scopes, clock and channels.

use std::collections::HashSet;

use super::{finding::Finding, store::known_channels};
use crate::{
    cli::{catch_up::web_api, manifest::kinds},
    clock::Clock,
    config::{AppConfig, Config},
    ids::ChannelId,
    logging::chain,
    metrics::Metrics,
    slack::{
        manifest::{Needs, scopes},
        web_api::{ApiError, Channel, Identity, Pages, WebApi},
    },
};

/// Start of every instruction for Slack's settings.
const SETTINGS: &str = "open https://api.slack.com/apps and choose the app";

/// Difference from Slack's clock that is a warning. At 300 s every push is refused.
const SKEW_WARN_SECONDS: i64 = 60;

/// Difference from Slack's clock that is a failure.
const SKEW_FAIL_SECONDS: i64 = 240;

/// Collects the findings about one app.
struct AppCheck<'a> {
    app: &'a AppConfig,
    api: WebApi,
    findings: Vec<Finding>,
}

/// Checks an app. `is_whole`: the file could be read completely.
pub(super) async fn examine(
    config: &Config,
    app: &AppConfig,
    is_whole: bool,
) -> anyhow::Result<Vec<Finding>> {
    let clock = Clock::system();
    let api = web_api(config, app, &clock, &Metrics::new())?;
    let mut check = AppCheck { app, api, findings: Vec::new() };
    if !app.signing_secrets.is_empty() {
        check.signing_secret();
    }
    // The token may be in the part of the file that could not be read: its absence proves nothing.
    if app.bot_token.is_none() && !is_whole {
        return Ok(check.findings);
    }
    let identity = check.identity(config.slack_api.as_str()).await;
    check.clock();
    if let Some(identity) = identity {
        check.scopes(&identity);
        check.channels(config).await;
    }
    Ok(check.findings)
}

impl AppCheck<'_> {
    fn name(&self, what: &str) -> String {
        format!("slack {}, {what}", self.app.name)
    }

    fn ok(&mut self, what: &str, message: impl Into<String>) {
        let check = self.name(what);
        self.findings.push(Finding::ok(&check, message));
    }

    fn warn(&mut self, what: &str, message: impl Into<String>, advice: impl Into<String>) {
        let check = self.name(what);
        self.findings.push(Finding::warn(&check, message, advice));
    }

    fn fail(&mut self, what: &str, message: impl Into<String>, advice: impl Into<String>) {
        let check = self.name(what);
        self.findings.push(Finding::fail(&check, message, advice));
    }

    /// Checks the form of the signing secrets; Slack offers no way to verify them.
    fn signing_secret(&mut self) {
        let hex = |secret: &str| {
            secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let advice = format!(
            "{SETTINGS}, Basic Information, App Credentials, Signing Secret, Show: put this value \
             where `signing_secret` points to"
        );
        let secrets: Vec<_> =
            self.app.signing_secrets.iter().map(crate::secret::Secret::reveal).collect();
        if secrets.iter().any(|secret| secret.starts_with("xox") || secret.starts_with("xapp-")) {
            self.fail("signing secret", "is a token, not a signing secret", advice);
        } else if secrets.iter().all(|secret| hex(secret)) {
            self.ok("signing secret", "has the right form");
        } else {
            self.warn(
                "signing secret",
                "does not have the usual form: 32 characters 0-9 and a-f",
                advice,
            );
        }
    }

    /// Checks the token, and returns its identity if Slack accepts it.
    async fn identity(&mut self, url: &str) -> Option<Identity> {
        // Called even without a token: any answer shows that Slack can be reached, and its `Date`
        // is what the clock is compared with.
        let result = with_retries(|| self.api.auth_test()).await;
        let Some(token) = &self.app.bot_token else {
            let advice = format!(
                "{SETTINGS}, OAuth & Permissions, copy the Bot User OAuth Token and point \
                 `bot_token` to it"
            );
            let message = "none configured: incidents that Slack does not push are never found";
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
                    "; it is another kind of token, since it does not begin with xoxb-"
                };
                let advice = format!(
                    "{SETTINGS}, OAuth & Permissions, Install (or Reinstall) to Workspace, copy \
                     the Bot User OAuth Token (xoxb-...) to where `bot_token` points to"
                );
                self.fail("token", format!("Slack does not accept it: {code}{kind}"), advice);
            }
            Err(error) => {
                let advice = if error.cure().is_empty() { NETWORK } else { error.cure() };
                self.fail("web api", format!("{url}: {}", chain(&error)), advice);
            }
        }
        None
    }

    /// Checks that the token belongs to the configured workspace, or to an organisation.
    fn team(&mut self, identity: &Identity) {
        let id = &identity.team_id;
        match &self.app.team {
            Some(team) if team != id && !id.starts_with('E') => {
                let advice = format!(
                    "set `team` of this app to {id}, or point `bot_token` to the token of {team}"
                );
                self.fail("token", format!("belongs to workspace {id}, not to {team}"), advice);
            }
            None if id.starts_with('E') => {
                let advice = "set `team` of this app to the id of the workspace with the channel";
                self.fail("token", format!("belongs to the whole organisation {id}"), advice);
            }
            Some(_) | None => self.ok("token", format!("valid, for workspace {id}")),
        }
    }

    fn clock(&mut self) {
        let Some(slack) = self.api.slack_now() else {
            return;
        };
        let skew = Clock::system().now().seconds() - slack.seconds();
        let message = format!("{skew} s off Slack's clock");
        let advice = "synchronise the clock, for example with `timedatectl set-ntp true`; at 300 s \
                      every push is refused";
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
            return self.ok("scopes", "complete");
        }
        let advice = format!(
            "{SETTINGS}, OAuth & Permissions, Bot Token Scopes, Add an OAuth Scope: {}; then \
             Reinstall to Workspace at the top of that page",
            missing.join(", ")
        );
        self.fail("scopes", format!("missing: {}", missing.join(", ")), advice);
    }

    /// Checks the configured channels, by the ids that the relay knows if it has run before.
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
        match with_retries(|| self.api.channel(id)).await {
            Ok(channel) => self.membership(&what, &channel),
            Err(error) => {
                let advice = if error.code() == "channel_not_found" {
                    "if the channel is private, open it in Slack and type: /invite \
                     @slack-soar-relay (the name of the app); otherwise compare the id, which \
                     Slack shows at the end of the channel's details"
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

    /// Lists all channels to check those given by name, or to find those that the bot is in.
    async fn listed(&mut self, names: &[&String], is_every: bool) {
        let mut all = Vec::new();
        let mut cursor = None::<String>;
        let mut pages = Pages::default();
        let mut seen = HashSet::new();
        loop {
            let page = with_retries(|| self.api.channels(cursor.as_deref())).await;
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
            // A list that repeats a cursor, or whose pages bring nothing new, may never end.
            if let Err(astray) = pages.follow(page.next_cursor.as_deref(), has_news) {
                let advice = "configure the channels by their ids, so that the list is not needed";
                return self.fail("channels", chain(&astray), advice);
            }
            cursor = page.next_cursor;
        }
        for name in names {
            let what = format!("channel {name}");
            if let Some(channel) = all.iter().find(|channel| channel.name == **name) {
                self.membership(&what, channel);
            } else {
                let advice = "if the channel is private, open it in Slack and type: /invite \
                              @slack-soar-relay (the name of the app); otherwise compare the name";
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
            self.fail("channels", "the bot is not in any channel", advice);
        } else if is_every {
            self.ok("channels", format!("the bot is in #{}", joined.join(", #")));
        }
    }
}

/// Advice if Slack cannot be reached.
const NETWORK: &str = "check that this machine can reach Slack: name lookup, firewall, \
                       `slack.api_url`, `slack.proxy`, `slack.ca_file`";

/// Returns advice for an error of Slack.
fn advice(error: &ApiError) -> &'static str {
    if error.cure().is_empty() { "see the lines above" } else { error.cure() }
}

/// Repeats a call while Slack's rate limit requires waiting. All other errors are returned.
async fn with_retries<T, F: Future<Output = Result<T, ApiError>>>(
    call: impl Fn() -> F,
) -> Result<T, ApiError> {
    loop {
        match call().await {
            Err(ApiError::Throttled { wait }) => Clock::system().sleep(wait).await,
            result => return result,
        }
    }
}
