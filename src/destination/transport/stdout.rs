//! Standard output as a destination: the relay may run in a pipeline.

use std::{
    io::{self, Write},
    thread,
};

use tokio::sync::{Semaphore, oneshot};

use crate::destination::Receipt;

/// Lock for standard output. If the reader of a pipeline stops, one thread waits for it, and no
/// more.
static WRITER: Semaphore = Semaphore::const_new(1);

/// Writes one line of JSON, without line breaks between values. Runs on a thread of its own, so
/// that the relay goes on while nothing reads; attempts that find it busy wait, and time out.
pub(super) async fn print_line(body: Vec<u8>) -> io::Result<Receipt> {
    let place = WRITER.acquire().await.map_err(io::Error::other)?;
    let (done, printed) = oneshot::channel();
    thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        let result = print(body, io::stdout().lock());
        drop(place);
        drop(done.send(result));
    })?;
    printed.await.map_err(io::Error::other)?
}

fn print(body: Vec<u8>, mut out: impl Write) -> io::Result<Receipt> {
    let mut line: Vec<u8> = body.into_iter().filter(|byte| *byte != b'\n').collect();
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()?;
    Ok(Receipt::default())
}
