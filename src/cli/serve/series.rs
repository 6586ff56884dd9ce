//! Metric series that exist from the start.

use crate::{
    config::{AppConfig, Config},
    metrics::{Metric, Metrics},
};

/// Creates the series that exist from the start, since an alert rule on a series that does not
/// exist never fires.
pub(super) fn name_every_metric(config: &Config, metrics: &Metrics) {
    let commit = option_env!("RELAY_COMMIT").unwrap_or("unknown");
    metrics.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION"), commit]).set(1.0);
    metrics.gauge(Metric::ConfigReload, &[]).set(1.0);
    metrics.gauge(Metric::ClockSkew, &[]).set(0.0);
    metrics.counter(Metric::LogLinesDropped, &[]).increment(0);
    metrics.counter(Metric::SlackApiCalls, &["conversations.history", "ok"]).increment(0);
    name_metrics_of(&config.apps, metrics);
}

/// Creates the series of these apps. Series that exist keep their values.
pub(super) fn name_metrics_of(apps: &[AppConfig], metrics: &Metrics) {
    for app in apps {
        for channel in &app.channels {
            let names = [app.name.as_str(), channel.as_str()];
            metrics.gauge(Metric::CatchUpLastSuccess, &names).increment(0.0);
            for cause in ["push", "downtime"] {
                let names = [app.name.as_str(), channel.as_str(), cause];
                metrics.counter(Metric::MissedPush, &names).increment(0);
            }
        }
    }
}
