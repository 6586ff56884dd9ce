//! The standard output as a destination, for trying out.

use std::{
    io::{self, Write},
    thread,
};

use tokio::sync::oneshot;

use crate::destination::Receipt;

/// One line of JSON: line breaks between values are no part of it. On a thread of its own, since
/// whoever reads the output may stop to, and the relay goes on.
pub(super) async fn print_line(body: Vec<u8>) -> io::Result<Receipt> {
    let (done, printed) = oneshot::channel();
    thread::Builder::new()
        .name("stdout".to_owned())
        .spawn(move || drop(done.send(print(body, io::stdout().lock()))))?;
    printed.await.map_err(io::Error::other)?
}

fn print(body: Vec<u8>, mut out: impl Write) -> io::Result<Receipt> {
    let mut line: Vec<u8> = body.into_iter().filter(|byte| *byte != b'\n').collect();
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()?;
    Ok(Receipt::default())
}
