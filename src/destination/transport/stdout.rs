//! The standard output as a destination: the relay may run in a pipeline.

use std::{
    io::{self, Write},
    thread,
};

use tokio::sync::{Semaphore, oneshot};

use crate::destination::Receipt;

/// Whoever reads the output may stop to: then one thread waits for that, and no more.
static WRITER: Semaphore = Semaphore::const_new(1);

/// One line of JSON: line breaks between values are no part of it. On a thread of its own, so that
/// the relay goes on while nobody reads; attempts that find it busy wait, and time out.
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
