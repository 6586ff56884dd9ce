//! Jobs for the writer: what they write, and how their callers hear of the result.

use tokio::sync::oneshot;

use super::db::Db;
use crate::store::StoreError;

/// How much a job's outcome depends on the disk and on the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Takes something in, so there must be space that is not the ballast's, and the files must be
    /// where a start would find them.
    Intake,
    /// An operator's action, for which the files must be there too; it may use the ballast.
    Action,
    /// Ends something: it goes on for as long as anything can be written.
    Finish,
    /// Removes something, or gives space back. As [`Purpose::Finish`], but it ends no delivery.
    Room,
}

/// How a transaction is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// All together; the first fault ends it.
    Together,
    /// Each job, and each message in it, behind a savepoint of its own.
    Apart,
}

/// Something to be written.
pub(super) trait Job: Send {
    /// Does it inside a transaction; may be called again after that was rolled back.
    fn run(&mut self, db: &mut Db<'_>, mode: Mode) -> rusqlite::Result<()>;

    /// Says how it went: `Ok` once it is durable.
    fn done(self: Box<Self>, result: Result<(), StoreError>);

    /// About how much it writes.
    fn bytes(&self) -> usize;

    /// Whether no lease may be granted between its start and its commit.
    fn stops_leases(&self) -> bool;

    /// What it is for.
    fn purpose(&self) -> Purpose;
}

/// A job made of two functions: `run` writes, `after` hears whether that is durable, and the
/// caller gets what `run` returned.
pub(super) struct Write<T, R, A> {
    run: R,
    after: A,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    bytes: usize,
    stops_leases: bool,
    purpose: Purpose,
}

/// What comes back from the writer; an error if its thread dropped the job.
pub(super) type Reply<T> = oneshot::Receiver<Result<T, StoreError>>;

pub(super) async fn answer<T>(reply: Reply<T>) -> Result<T, StoreError> {
    reply.await.unwrap_or(Err(StoreError::Closed))
}

impl<T, R, A> Write<T, R, A>
where
    T: Send,
    R: FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<T> + Send,
    A: FnOnce(bool) + Send,
{
    pub(super) fn new(run: R, after: A) -> (Self, Reply<T>) {
        let (reply, receiver) = oneshot::channel();
        let write = Self {
            run,
            after,
            value: None,
            reply,
            bytes: 0,
            stops_leases: false,
            purpose: Purpose::Action,
        };
        (write, receiver)
    }

    pub(super) fn of_bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    pub(super) fn stopping_leases(self) -> Self {
        Self { stops_leases: true, ..self }
    }

    pub(super) fn with(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }
}

impl<T, R, A> Job for Write<T, R, A>
where
    T: Send,
    R: FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<T> + Send,
    A: FnOnce(bool) + Send,
{
    fn run(&mut self, db: &mut Db<'_>, mode: Mode) -> rusqlite::Result<()> {
        self.value = Some((self.run)(db, mode)?);
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { run, after, value, reply, .. } = *self;
        // What it wrote is part of the buffer that the caller reads its next request into.
        drop(run);
        after(result.is_ok());
        let value = result.and_then(|()| value.ok_or(StoreError::Closed));
        // Whoever no longer waits does not want to know.
        drop(reply.send(value));
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn stops_leases(&self) -> bool {
        self.stops_leases
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }
}

/// Which job was not done, or is not kept, and why.
pub(super) type Fault = (usize, StoreError);
