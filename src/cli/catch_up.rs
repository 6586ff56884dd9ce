//! Catch-up as a part of the running relay: the channels and notices that it shares with the
//! receiver, and one poller for each app that has a token.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;

use crate::{
    clock::Clock,
    config::{self, Config},
    ids::AppName,
    intake::{
        catch_up::{self, App, Handle, Parts, Poller},
        channels::Channels,
        events_api,
        notice::Notices,
    },
    metrics::{Metric, Metrics},
    secret::Secret,
    slack::web_api::{self, WebApi},
    store::Store,
};

/// What the receiver and the pollers share.
pub(super) struct CatchUp {
    /// Each app's channels.
    pub(super) channels: BTreeMap<AppName, Arc<Channels>>,
    /// Where the receiver tells each app's poller; a missing one has none.
    pub(super) notices: BTreeMap<AppName, Notices>,
    apps: Vec<App>,
    settings: catch_up::Settings,
}

/// Prepares every app, with what the store knows of its channels. Calls nothing yet.
///
/// # Errors
/// The store failed, or the HTTP client cannot be built.
pub(super) async fn prepare(
    config: &Config,
    store: &dyn Store,
    clock: &Clock,
    metrics: &Metrics,
) -> anyhow::Result<CatchUp> {
    let mut prepared = CatchUp {
        channels: BTreeMap::new(),
        notices: BTreeMap::new(),
        apps: Vec::new(),
        settings: config.catch_up,
    };
    for app in &config.apps {
        let ids = app.channels.clone();
        let channels = Arc::new(Channels::new(ids, app.channel_names.clone(), app.bots.clone()));
        catch_up::recall(store, &app.name, &channels).await?;
        prepared.channels.insert(app.name.clone(), Arc::clone(&channels));
        if let Some(token) = &app.bot_token {
            let api = web_api(config, Some(token.clone()), clock, metrics)?;
            let (notices, receiver) = Notices::new();
            prepared.notices.insert(app.name.clone(), notices);
            let name = app.name.clone();
            prepared.apps.push(App { name, channels, notices: receiver, api });
        }
    }
    Ok(prepared)
}

impl CatchUp {
    /// What the receiver needs of an app.
    pub(super) fn receiver(&self, app: &config::App) -> events_api::App {
        events_api::App {
            name: app.name.clone(),
            signing_secrets: app.signing_secrets.clone(),
            notices: self.notices.get(&app.name).cloned().unwrap_or_default(),
        }
    }

    /// Starts the pollers; they end with the process.
    pub(super) fn start(self, parts: &Parts) -> Vec<Handle> {
        let mut handles = Vec::new();
        for app in self.apps {
            let (poller, handle) = Poller::new(app, self.settings, parts.clone());
            parts.shutdown.spawn(poller.run());
            handles.push(handle);
        }
        handles
    }
}

/// Slack's Web API for one app.
///
/// # Errors
/// The HTTP client cannot be built.
pub(super) fn web_api(
    config: &Config,
    token: Option<Secret>,
    clock: &Clock,
    metrics: &Metrics,
) -> anyhow::Result<WebApi> {
    let settings = web_api::Settings { url: config.slack_api.clone(), token };
    WebApi::new(settings, clock.clone(), metrics.clone()).context("Slack's Web API")
}

/// An alert rule on a series that does not exist yet never fires, so the series exist from the
/// start.
pub(super) fn name_every_metric(config: &Config, metrics: &Metrics) {
    let commit = option_env!("RELAY_COMMIT").unwrap_or("unknown");
    metrics.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION"), commit]).set(1.0);
    metrics.gauge(Metric::ConfigReload, &[]).set(1.0);
    metrics.gauge(Metric::ClockSkew, &[]).set(0.0);
    metrics.counter(Metric::SlackApiCalls, &["conversations.history", "ok"]).increment(0);
    for app in &config.apps {
        for channel in &app.channels {
            let names = [app.name.as_str(), channel.as_str()];
            metrics.gauge(Metric::CatchUpLastSuccess, &names).set(0.0);
            for cause in ["push", "downtime"] {
                let names = [app.name.as_str(), channel.as_str(), cause];
                metrics.counter(Metric::MissedPush, &names).increment(0);
            }
        }
    }
}
