//! Catch-up in the running relay: one poller for each app with a token, and the channels and
//! notices that the pollers share with the receiver.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;

use crate::{
    clock::Clock,
    config::{self, Config},
    ids::AppName,
    intake::{
        catch_up::{CatchUpSettings, PolledApp, Poller, PollerHandle, PollerParts},
        channels::Channels,
        notice::Notices,
    },
    metrics::Metrics,
    shutdown::Shutdown,
    slack::web_api::{WebApi, WebApiSettings},
    store::History,
};

/// The channels, by app.
pub(super) type AppChannels = BTreeMap<AppName, Arc<Channels>>;

/// The senders of notices from the receiver to the pollers, by app. Apps without a poller are
/// missing.
pub(super) type AppNotices = BTreeMap<AppName, Notices>;

/// The prepared pollers, and the state that the receiver shares with them.
pub(super) struct CatchUp {
    pub(super) channels: AppChannels,
    pub(super) notices: AppNotices,
    apps: Vec<PolledApp>,
    settings: CatchUpSettings,
}

/// Prepares every app with the channels that the store knows. Does not call Slack yet.
///
/// # Errors
/// The store failed, or the HTTP client cannot be built.
pub(super) async fn prepare(
    config: &Config,
    store: &dyn History,
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
        // Before anything is received: until the ids of configured names are known, incidents of
        // every channel are accepted. The store knows the ids that this or another relay has found.
        channels.recall(store, &app.name).await?;
        prepared.channels.insert(app.name.clone(), Arc::clone(&channels));
        // An app without a token cannot read history. Its channels are needed all the same, to
        // judge what is pushed.
        if app.bot_token.is_some() {
            let api = web_api(config, app, clock, metrics)?;
            let (notices, receiver) = Notices::new();
            prepared.notices.insert(app.name.clone(), notices);
            let name = app.name.clone();
            prepared.apps.push(PolledApp { name, channels, notices: receiver, api });
        }
    }
    Ok(prepared)
}

/// The running pollers, and the state that the receiver shares with them.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) channels: AppChannels,
    pub(super) notices: AppNotices,
    pub(super) handles: Vec<PollerHandle>,
    /// Stops only the pollers; they also stop with the process.
    pub(super) shutdown: Shutdown,
}

impl CatchUp {
    /// Starts the pollers; they end with the shutdown of `parts`.
    pub(super) fn start(self, parts: &PollerParts) -> Following {
        let mut handles = Vec::new();
        for app in self.apps {
            let (poller, handle) = Poller::new(app, self.settings, parts.clone());
            parts.ground.shutdown.spawn(poller.run());
            handles.push(handle);
        }
        Following {
            channels: self.channels,
            notices: self.notices,
            handles,
            shutdown: parts.ground.shutdown.clone(),
        }
    }
}

/// Builds the client of Slack's Web API for one app.
///
/// # Errors
/// The HTTP client cannot be built.
pub(super) fn web_api(
    config: &Config,
    app: &config::AppConfig,
    clock: &Clock,
    metrics: &Metrics,
) -> anyhow::Result<WebApi> {
    let settings = WebApiSettings {
        url: config.slack_api.clone(),
        token: app.bot_token.clone(),
        team: app.team.clone(),
        client: app.client.clone(),
    };
    WebApi::new(settings, clock.clone(), metrics.clone()).context("Slack's Web API")
}
