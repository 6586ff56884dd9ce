//! Log lines: text for a person, JSON for a machine, always on standard error.

mod json;

use std::{
    error::Error,
    io::{self, Write},
    mem,
    str::FromStr,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

/// How long a line may wait for others. Under load it spares a system call for nearly every one.
const LINGER: Duration = Duration::from_millis(10);

/// Whoever has more to say than this waits until some of it is written.
const WAITING_MAX_BYTES: usize = 1024 * 1024;

static LINES: Lines =
    Lines { waiting: Mutex::new(Vec::new()), has_come: Condvar::new(), has_gone: Condvar::new() };

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is not a log format: use text or json")),
        }
    }
}

/// Sends the log of the whole process to standard error. `level` is `info`, or a filter such as
/// `info,slack_soar_relay::delivery=debug`.
///
/// # Errors
/// The level is not one, or logging has already begun.
pub fn init(format: Format, level: &str, colour: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter: Targets = level.parse()?;
    match format {
        Format::Text => {
            let lines = fmt().with_max_level(LevelFilter::TRACE).with_writer(|| &LINES);
            lines.with_ansi(colour).with_target(false).finish().with(filter).try_init()?;
        }
        Format::Json => {
            registry().with(json::Json(|line: &[u8]| LINES.add(line))).with(filter).try_init()?;
        }
    }
    thread::Builder::new().name("log".to_owned()).spawn(|| LINES.write_for_ever())?;
    Ok(())
}

/// Writes what still waits: before the process ends, and before anything else goes to standard
/// error.
pub fn flush() {
    LINES.write_out();
}

/// The lines that wait to be written, in their order.
struct Lines {
    waiting: Mutex<Vec<u8>>,
    has_come: Condvar,
    has_gone: Condvar,
}

impl Lines {
    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self) {
        loop {
            let wait = self.has_come.wait_while(self.waiting(), |waiting| waiting.is_empty());
            let waiting = wait.unwrap_or_else(PoisonError::into_inner);
            let is_small = |waiting: &mut Vec<u8>| waiting.len() < WAITING_MAX_BYTES;
            drop(self.has_come.wait_timeout_while(waiting, LINGER, is_small));
            self.write_out();
        }
    }

    /// Standard error is locked first, so that nothing overtakes what was taken out earlier.
    fn write_out(&self) {
        let mut to = io::stderr().lock();
        let lines = mem::take(&mut *self.waiting());
        self.has_gone.notify_all();
        // A log that nobody can take is no reason to stop.
        drop(to.write_all(&lines));
    }

    fn add(&self, line: &[u8]) {
        let is_full = |waiting: &mut Vec<u8>| waiting.len() >= WAITING_MAX_BYTES;
        let wait = self.has_gone.wait_while(self.waiting(), is_full);
        let mut waiting = wait.unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            self.has_come.notify_one();
        }
        waiting.extend_from_slice(line);
        if waiting.len() >= WAITING_MAX_BYTES {
            self.has_come.notify_one();
        }
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error with its causes, in one line.
///
/// ```
/// let error = std::io::Error::other("no space left");
/// assert_eq!(slack_soar_relay::logging::chain(&error), "no space left");
/// ```
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
