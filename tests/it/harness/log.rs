//! The log of one test, kept in memory.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::Once,
};

use serde_json::Value;

thread_local! {
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Keeps what is logged on this thread from now on.
pub(crate) fn keep() {
    begin();
    LINES.set(Some(Vec::new()));
}

/// Takes the log of the whole process, before the first line. One subscriber serves all threads:
/// `tracing` remembers for each log line of the code whether anybody wants it, and may have asked
/// on a thread that has no subscriber of its own.
pub(crate) fn begin() {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| {
        let lines = tracing_subscriber::fmt().json().flatten_event(true);
        let subscriber = lines.with_writer(|| OfThisThread).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// Returns the lines logged since [`keep`].
pub(crate) fn lines() -> Vec<Value> {
    let text = LINES.with_borrow(|lines| String::from_utf8(lines.clone().unwrap()).unwrap());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

struct OfThisThread;

impl Write for OfThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
