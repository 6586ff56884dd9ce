//! Checks the store: the SQLite file with its disk, or the PostgreSQL database.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use super::finding::Finding;
use crate::{
    cli::open_store::postgres_settings,
    clock::Clock,
    config,
    ids::{AppName, ChannelId},
    logging::chain,
    store::{
        postgres::checkup::{Checkup, ServerReport},
        sqlite::checkup,
    },
};

/// Number of writes by which the disk is measured.
const TRIES: usize = 9;

/// Time of a commit that is a warning: Slack waits for 3 s only.
const SLOW: Duration = Duration::from_millis(100);

/// Time of a commit that is a failure: after 1.5 s the relay answers 503.
const TOO_SLOW: Duration = Duration::from_millis(1_000);

/// Free disk space below which the relay will soon refuse alerts.
const LOW_BYTES: u64 = 64 * 1024 * 1024;

/// Free disk space below which the relay refuses alerts.
const FULL_BYTES: u64 = 4 * 1024 * 1024;

pub(super) async fn examine(store: &config::StoreConfig) -> Vec<Finding> {
    if let Some(postgres) = &store.postgres {
        return database(postgres, store).await;
    }
    let path = &store.path;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    vec![integrity(path), disk(directory.unwrap_or_else(|| Path::new("."))), space(path)]
}

/// Returns the stored ids of an app's configured channels, each with the configured id or name.
pub(super) async fn known_channels(
    store: &config::StoreConfig,
    app: &AppName,
) -> Vec<(String, ChannelId)> {
    let Some(postgres) = &store.postgres else {
        return checkup::known_channels(&store.path, app).unwrap_or_default();
    };
    let known = async {
        let checkup = Checkup::new(postgres_settings(postgres, store)?)?;
        anyhow::Ok(checkup.known_channels(app).await?)
    };
    known.await.unwrap_or_default()
}

async fn database(postgres: &config::PostgresConfig, store: &config::StoreConfig) -> Vec<Finding> {
    let looked =
        async { anyhow::Ok(Checkup::new(postgres_settings(postgres, store)?)?.report().await?) };
    let found = match looked.await {
        Ok(found) => found,
        Err(error) => {
            let advice = "check `store.postgres` (host, password, TLS), and the server";
            return vec![Finding::fail("store", format!("{error:#}"), advice)];
        }
    };
    let reached = format!("PostgreSQL {} answers", found.version);
    vec![Finding::ok("store", reached), durability(&found, postgres.allow_unsafe), write(&found)]
}

fn durability(found: &ServerReport, is_allowed: bool) -> Finding {
    const CHECK: &str = "durability";
    let Some((name, value)) = found.unsafe_setting() else {
        let settings = found.settings.iter().map(|(name, value)| format!("{name}={value}"));
        return Finding::ok(CHECK, settings.collect::<Vec<_>>().join(", "));
    };
    let message = format!("the server may lose what it has acknowledged: {name}={value}");
    let advice = "switch the setting on, for the server, the database and the role";
    if is_allowed {
        Finding::warn(CHECK, message, advice)
    } else {
        Finding::fail(CHECK, message, advice)
    }
}

fn write(found: &ServerReport) -> Finding {
    const CHECK: &str = "commit";
    match found.write {
        Some(took) => timed(CHECK, took, "check the server's disk, its standby and the network"),
        None => Finding::ok(CHECK, "no tables yet; `serve` creates them"),
    }
}

fn integrity(path: &Path) -> Finding {
    let advice = "stop the relay and restore a backup; or move the file and those beside it away, \
                  in which case the alerts in it are not delivered";
    match checkup::integrity(path) {
        Ok(None) => Finding::ok("store", format!("none yet; `serve` creates {}", path.display())),
        Ok(Some(problems)) if problems.is_empty() => {
            Finding::ok("store", format!("{} is intact", path.display()))
        }
        Ok(Some(problems)) => {
            let message = format!("{} is damaged: {}", path.display(), problems.join("; "));
            Finding::fail("store", message, advice)
        }
        Err(error) => Finding::fail("store", chain(&error), ""),
    }
}

fn disk(directory: &Path) -> Finding {
    let took = match write_time(directory) {
        Ok(took) => took,
        Err(error) => {
            let message = format!("cannot write to {}: {error}", directory.display());
            let advice = "create the folder, and give the relay's user write access";
            return Finding::fail("disk", message, advice);
        }
    };
    timed("disk", took, "move the store to a local disk with less load")
}

fn space(path: &Path) -> Finding {
    const CHECK: &str = "space";
    let free = match checkup::free_bytes(path) {
        Ok(free) => free,
        Err(error) => {
            return Finding::warn(
                CHECK,
                format!("cannot determine the free disk space: {error}"),
                "",
            );
        }
    };
    let message = format!("{} MiB are free on the disk of the store", free / (1024 * 1024));
    let advice = "free some space, or move the store: on a full disk new alerts are refused, and \
                  only stored alerts are delivered";
    if free < FULL_BYTES {
        Finding::fail(CHECK, message, advice)
    } else if free < LOW_BYTES {
        Finding::warn(CHECK, message, advice)
    } else {
        Finding::ok(CHECK, message)
    }
}

fn timed(check: &str, took: Duration, advice: &str) -> Finding {
    let ms = took.as_secs_f64() * 1_000.0;
    let message = format!("a small write takes {ms:.1} ms");
    if took > TOO_SLOW {
        Finding::fail(check, message, advice)
    } else if took > SLOW {
        Finding::warn(check, message, advice)
    } else {
        Finding::ok(check, message)
    }
}

/// Returns the median time of a small write followed by a flush.
fn write_time(directory: &Path) -> io::Result<Duration> {
    let clock = Clock::system();
    let mut file: File = tempfile::tempfile_in(directory)?;
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let start = clock.instant();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(clock.instant().saturating_duration_since(start));
    }
    times.sort_unstable();
    Ok(times.get(TRIES / 2).copied().unwrap_or_default())
}
