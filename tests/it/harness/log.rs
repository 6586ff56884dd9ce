//! The log of one test: each has a thread of its own, and so has its log.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::{Arc, Mutex, Once},
};

thread_local! {
    static KEPT: RefCell<Option<Arc<Mutex<Vec<u8>>>>> = const { RefCell::new(None) };
}

/// Writes to what the thread keeps, if it keeps anything.
struct Here;

impl Write for Here {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        KEPT.with_borrow(|kept| {
            if let Some(kept) = kept {
                kept.lock().unwrap().extend_from_slice(line);
            }
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the log of the whole process. Before the first line: a place in the code that logs while
/// nobody listens may be switched off for good.
pub(crate) fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let lines = tracing_subscriber::fmt().json().flatten_event(true);
        tracing::subscriber::set_global_default(lines.with_writer(|| Here).finish()).unwrap();
    });
}

/// Keeps what this test logs from now on.
pub(crate) fn keep() -> Arc<Mutex<Vec<u8>>> {
    begin();
    let kept = Arc::default();
    KEPT.set(Some(Arc::clone(&kept)));
    kept
}
