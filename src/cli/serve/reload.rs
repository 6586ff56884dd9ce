//! Takes a new configuration into use while the relay runs: at once on SIGHUP, and soon after one
//! of its files has changed. A refused configuration changes nothing: the log and `/api/v1/status`
//! have the reason, and `config_last_reload_successful` is 0.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Mutex, task::spawn_blocking};

use super::{
    housekeeping::warn_of_orphans,
    live::{Changes, Diff, Live},
};
use crate::{
    clock::Moment,
    config::{self, Loaded, Sources},
    metrics::Metric,
};

/// Time between two checks of the files.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Time after which a refused configuration is tried again: the cause may lie outside of its files,
/// such as a missing secret.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Function that looks up an environment variable.
type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The file that the configuration in use was loaded from.
#[derive(Clone)]
pub struct ConfigFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Environment that secrets may come from.
    pub env: Environment,
    /// Files that were read when the configuration was loaded.
    pub sources: Sources,
}

impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Watches the configuration file and reloads it.
#[derive(Debug)]
pub(super) struct Reloader {
    live: Arc<Live>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    file: ConfigFile,
    /// Time of the last load, on the monotonic clock.
    read_at: Moment,
}

impl Reloader {
    pub(super) fn new(live: Arc<Live>, file: ConfigFile) -> Arc<Self> {
        let read_at = live.ground.clock.moment();
        Arc::new(Self { live, watched: Mutex::new(Watched { file, read_at }) })
    }

    /// Starts the task that checks the files until the relay stops.
    pub(super) fn start(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let ground = &self.live.ground;
        let heartbeat = ground.shutdown.heartbeat("reload", ground.clock.instant());
        ground.shutdown.spawn(async move {
            let ground = &this.live.ground;
            loop {
                tokio::select! {
                    () = ground.clock.sleep(CHECK_EVERY) => {}
                    () = ground.shutdown.stopped() => return,
                }
                heartbeat.beat(ground.clock.instant());
                this.check_files().await;
            }
        });
    }

    async fn check_files(&self) {
        let mut watched = self.watched.lock().await;
        let is_time = self.live.ground.clock.moment().since(watched.read_at) >= RETRY_AFTER;
        if self.live.refused().is_some() && is_time || watched.file.sources.have_changed() {
            drop(self.reload_from(&mut watched, false).await);
        }
    }

    /// Reads the file and takes it into use.
    ///
    /// # Errors
    /// Returns every mistake of the file; the configuration in use stays.
    pub(super) async fn reload(&self) -> Result<(), String> {
        self.reload_from(&mut *self.watched.lock().await, true).await
    }

    async fn reload_from(&self, watched: &mut Watched, is_requested: bool) -> Result<(), String> {
        watched.read_at = self.live.ground.clock.moment();
        let file = &mut watched.file;
        // Taken before the files are read: a change in between then causes another load.
        file.sources = file.sources.refreshed();
        let taken = match self.load(file).await {
            Ok(Loaded { config, warnings, sources }) => {
                file.sources = sources;
                let replaced = self.live.replace(config).await;
                replaced.map(|changes| (changes, warnings)).map_err(|error| format!("{error:#}"))
            }
            Err(reason) => Err(reason),
        };
        let gauge = self.live.ground.metrics.gauge(Metric::ConfigReload, &[]);
        gauge.set(if taken.is_ok() { 1.0 } else { 0.0 });
        match taken {
            Ok((changes, warnings)) => {
                for warning in warnings {
                    tracing::warn!("{}", warning.in_file(&file.path));
                }
                self.log_changes(&changes).await;
                Ok(())
            }
            Err(reason) => {
                if self.live.note_refused(&reason) || is_requested {
                    tracing::error!(
                        reason,
                        "the new configuration is refused, the previous one stays in use: {reason}"
                    );
                }
                Err(reason)
            }
        }
    }

    /// Loads the configuration on a thread for blocking work: compiling presets and reading
    /// certificates takes too long for a thread that answers Slack.
    async fn load(&self, file: &ConfigFile) -> Result<Loaded, String> {
        let (path, env) = (file.path.clone(), Arc::clone(&file.env));
        let known = self.live.secrets().await;
        spawn_blocking(move || config::load_again(&path, &*env, &known))
            .await
            .map_err(|panic| panic.to_string())?
            .map_err(|problems| problems.to_string())
    }

    async fn log_changes(&self, changes: &Changes) {
        let Changes { destinations, apps, keys } = changes;
        let list = |names: &[String]| names.join(" ");
        tracing::info!(
            added = list(&destinations.added),
            changed = list(&destinations.changed),
            removed = list(&destinations.removed),
            apps_added = list(&apps.added),
            apps_changed = list(&apps.changed),
            apps_removed = list(&apps.removed),
            keys = keys.join(" "),
            "the new configuration is in use: {}",
            description(changes)
        );
        if !destinations.removed.is_empty() {
            warn_of_orphans(self.live.ground.store.as_ref(), &self.live.destinations()).await;
        }
    }
}

/// Returns the changes of a reload in words.
fn description(changes: &Changes) -> String {
    let Changes { destinations, apps, keys } = changes;
    let mut words = Vec::new();
    for (kind, Diff { added, changed, removed }) in [("app", apps), ("destination", destinations)] {
        for (verb, names) in [("added", added), ("changed", changed), ("removed", removed)] {
            words.extend(names.iter().map(|name| format!("{kind} {name} {verb}")));
        }
    }
    words.extend(keys.iter().map(|key| format!("{key} changed")));
    if words.is_empty() { "no relevant changes".to_owned() } else { words.join(", ") }
}
