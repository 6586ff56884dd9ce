//! The store's file, and how long its disk takes to keep something; or the database.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use super::Finding;
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

/// How often the disk is tried.
const TRIES: usize = 9;

/// A commit that takes this long leaves little of Slack's patience.
const SLOW: Duration = Duration::from_millis(100);

/// A commit that takes longer than 1.5 s is answered 503.
const TOO_SLOW: Duration = Duration::from_millis(1_000);

/// With less than this a relay soon takes no alerts, or takes none already.
const SHORT_BYTES: u64 = 64 * 1024 * 1024;
const FULL_BYTES: u64 = 4 * 1024 * 1024;

pub(super) async fn examine(store: &config::Store) -> Vec<Finding> {
    if let Some(postgres) = &store.postgres {
        return database(postgres, store).await;
    }
    let path = &store.path;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    vec![integrity(path), disk(directory.unwrap_or_else(|| Path::new("."))), space(path)]
}

/// The ids that the relay has found behind the configured channels of an app, if any are known.
pub(super) async fn known_channels(
    store: &config::Store,
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

async fn database(postgres: &config::Postgres, store: &config::Store) -> Vec<Finding> {
    let looked =
        async { anyhow::Ok(Checkup::new(postgres_settings(postgres, store)?)?.report().await?) };
    let found = match looked.await {
        Ok(found) => found,
        Err(error) => {
            let advice = "look at `store.postgres`: the host, the password, TLS; and at the server";
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
    let advice = "switch it on, at the server, for the database and for the role";
    if is_allowed {
        Finding::warn(CHECK, message, advice)
    } else {
        Finding::fail(CHECK, message, advice)
    }
}

fn write(found: &ServerReport) -> Finding {
    const CHECK: &str = "commit";
    match found.write {
        Some(took) => {
            timed(CHECK, took, "look at the server's disk, its standby and the way to it")
        }
        None => Finding::ok(CHECK, "no tables yet; `serve` makes them"),
    }
}

fn integrity(path: &Path) -> Finding {
    let advice = "stop the relay, restore a backup, or move the file and those beside it away, \
                  knowing that the alerts in it are then not delivered";
    match checkup::integrity(path) {
        Ok(None) => Finding::ok("store", format!("none yet; `serve` makes {}", path.display())),
        Ok(Some(problems)) if problems.is_empty() => {
            Finding::ok("store", format!("{} is sound", path.display()))
        }
        Ok(Some(problems)) => {
            let message = format!("{} is damaged: {}", path.display(), problems.join("; "));
            Finding::fail("store", message, advice)
        }
        Err(error) => Finding::fail("store", chain(&error), ""),
    }
}

fn disk(directory: &Path) -> Finding {
    let took = match flushes(directory) {
        Ok(took) => took,
        Err(error) => {
            let message = format!("nothing can be written in {}: {error}", directory.display());
            let advice = "create the folder, and let the relay's user write in it";
            return Finding::fail("disk", message, advice);
        }
    };
    timed("disk", took, "move the store to a local disk that others use less")
}

fn space(path: &Path) -> Finding {
    const CHECK: &str = "space";
    let free = match checkup::free_bytes(path) {
        Ok(free) => free,
        Err(error) => {
            return Finding::warn(
                CHECK,
                format!("the disk does not say what is free: {error}"),
                "",
            );
        }
    };
    let message = format!("{} MiB are free on the disk of the store", free / (1024 * 1024));
    let advice = "free some space, or move the store: on a full disk alerts are refused, and only \
                  what is stored is still delivered";
    if free < FULL_BYTES {
        Finding::fail(CHECK, message, advice)
    } else if free < SHORT_BYTES {
        Finding::warn(CHECK, message, advice)
    } else {
        Finding::ok(CHECK, message)
    }
}

fn timed(check: &str, took: Duration, advice: &str) -> Finding {
    let ms = took.as_secs_f64() * 1_000.0;
    let message = format!("a small write is kept after {ms:.1} ms");
    if took > TOO_SLOW {
        Finding::fail(check, message, advice)
    } else if took > SLOW {
        Finding::warn(check, message, advice)
    } else {
        Finding::ok(check, message)
    }
}

/// The median time of a write with its flush.
fn flushes(directory: &Path) -> io::Result<Duration> {
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
