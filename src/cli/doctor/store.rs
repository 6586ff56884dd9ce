//! The store's file, and how long its disk takes to keep something.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use super::Finding;
use crate::{clock::Clock, logging::chain, store::sqlite::checkup};

/// How often the disk is tried.
const TRIES: usize = 9;

/// A commit that takes this long leaves little of Slack's patience.
const SLOW: Duration = Duration::from_millis(100);

/// A commit that takes longer than 1.5 s is answered 503.
const TOO_SLOW: Duration = Duration::from_millis(1_000);

pub(super) fn examine(path: &Path) -> Vec<Finding> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    vec![integrity(path), disk(directory.unwrap_or_else(|| Path::new(".")))]
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
    let ms = took.as_secs_f64() * 1_000.0;
    let message = format!("a small write is kept after {ms:.1} ms");
    let advice = "move the store to a local disk that others use less";
    if took > TOO_SLOW {
        Finding::fail("disk", message, advice)
    } else if took > SLOW {
        Finding::warn("disk", message, advice)
    } else {
        Finding::ok("disk", message)
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
