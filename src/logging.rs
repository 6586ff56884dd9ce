//! Log lines on standard error: text for a person, JSON for a machine.
//!
//! Logging never waits: lines go to a buffer of bounded size, and one thread writes them. If
//! nothing reads standard error, lines are dropped and counted, and the relay goes on.

pub mod escape;
mod json;
mod text;

use std::{
    error::Error,
    io::{self, Write},
    mem,
    panic::{self, PanicHookInfo},
    str::FromStr,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

/// Longest wait of a line for others. Under load this saves a system call for nearly every line.
const LINGER: Duration = Duration::from_millis(10);

/// Bytes of waiting lines beyond which lines are dropped.
const WAITING_MAX_BYTES: usize = 1024 * 1024;

/// Longest wait for the last lines to be written at the end of the process.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

static LINES: Lines = Lines {
    waiting: Mutex::new(Waiting { bytes: Vec::new(), is_writing: false, is_wanted_now: false }),
    has_come: Condvar::new(),
    has_gone: Condvar::new(),
    dropped: AtomicU64::new(0),
};

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text for a person.
    Text,
    /// One JSON object per line.
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

/// Sends the log of the whole process, panics included, to standard error. `level` is `info`, or a
/// filter such as `info,slack_soar_relay::delivery=debug`.
///
/// # Errors
/// Fails if the level cannot be parsed, or logging has already begun.
pub fn init(format: Format, level: &str, colour: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter: Targets = level.parse()?;
    let write = |line: &[u8]| LINES.add(line);
    match format {
        Format::Text => registry().with(text::Text { colour, write }).with(filter).try_init()?,
        Format::Json => registry().with(json::Json(write)).with(filter).try_init()?,
    }
    thread::Builder::new().name("log".to_owned()).spawn(|| LINES.write_for_ever())?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic. The hook of the standard library would wait until standard error is read.
fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let message = info.payload_as_str().unwrap_or("no message");
    tracing::error!(
        thread = thread.name().unwrap_or("unnamed"),
        place = info.location().map(ToString::to_string),
        "a thread panicked: {message}"
    );
}

/// Writes the waiting lines, before the process ends and before anything else goes to standard
/// error. Gives up after a moment, since nothing may be reading.
pub fn flush() {
    LINES.flush(FLUSH_LIMIT);
}

/// Returns how many lines were dropped since the process began.
pub fn dropped_lines() -> u64 {
    LINES.dropped.load(Ordering::Relaxed)
}

/// Writes a line to standard error at once: as a JSON line with `level`, or as plain text. Used
/// where logging may not have begun.
pub fn say(format: Format, level: &str, line: &str) {
    match format {
        Format::Text => complain(line),
        Format::Json => complain(&json::line(level, line)),
    }
}

/// Writes a last line to standard error, without a log's form. Waits no longer than [`flush`].
pub fn complain(line: &str) {
    flush();
    let line = format!("{line}\n");
    let (done, written) = mpsc::channel();
    let write = move || {
        drop(io::stderr().write_all(line.as_bytes()));
        done.send(()).unwrap_or_default();
    };
    if thread::Builder::new().spawn(write).is_ok() {
        // Whether it was written or not, that was all.
        written.recv_timeout(FLUSH_LIMIT).unwrap_or_default();
    }
}

/// Lines that wait to be written, in order.
struct Lines {
    waiting: Mutex<Waiting>,
    has_come: Condvar,
    has_gone: Condvar,
    dropped: AtomicU64,
}

struct Waiting {
    bytes: Vec<u8>,
    /// `true` while lines that were taken out are being written.
    is_writing: bool,
    /// `true` while a thread waits in [`flush`].
    is_wanted_now: bool,
}

impl Waiting {
    fn is_urgent(&self) -> bool {
        self.is_wanted_now || self.bytes.len() >= WAITING_MAX_BYTES / 2
    }
}

impl Lines {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self) {
        let mut said = 0;
        loop {
            let is_empty = |waiting: &mut Waiting| waiting.bytes.is_empty();
            let wait = self.has_come.wait_while(self.waiting(), is_empty);
            let waiting = wait.unwrap_or_else(PoisonError::into_inner);
            let may_linger = |waiting: &mut Waiting| !waiting.is_urgent();
            drop(self.has_come.wait_timeout_while(waiting, LINGER, may_linger));
            if self.write_out() {
                said = self.tell_dropped(said);
            }
        }
    }

    /// Writes the waiting lines. Returns `false` if standard error does not take them.
    fn write_out(&self) -> bool {
        let lines = {
            let mut waiting = self.waiting();
            waiting.is_writing = true;
            mem::take(&mut waiting.bytes)
        };
        let is_written = io::stderr().write_all(&lines).is_ok();
        if !is_written {
            let lost = memchr::memchr_iter(b'\n', &lines).count();
            self.dropped.fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        let mut waiting = self.waiting();
        waiting.is_writing = false;
        waiting.is_wanted_now &= !waiting.bytes.is_empty();
        self.has_gone.notify_all();
        is_written
    }

    /// Writes a line that tells how many lines were dropped, once something reads again. Returns
    /// the number of dropped lines that have been reported.
    fn tell_dropped(&self, said: u64) -> u64 {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let lines = dropped - said;
        if lines > 0 {
            tracing::warn!(
                lines,
                "{lines} log lines were dropped: standard error was not read fast enough"
            );
        }
        dropped
    }

    fn add(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.bytes.len() + line.len() > WAITING_MAX_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_urgent = waiting.is_urgent();
        if waiting.bytes.is_empty() {
            self.has_come.notify_one();
        }
        waiting.bytes.extend_from_slice(line);
        if !was_urgent && waiting.is_urgent() {
            self.has_come.notify_one();
        }
    }

    fn flush(&self, limit: Duration) {
        let mut waiting = self.waiting();
        waiting.is_wanted_now = !waiting.bytes.is_empty();
        self.has_come.notify_one();
        let is_left = |waiting: &mut Waiting| waiting.is_writing || !waiting.bytes.is_empty();
        drop(self.has_gone.wait_timeout_while(waiting, limit, is_left));
    }
}

/// Formats an error with its causes in one line.
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
