//! Jobs for the writer: what they write, and how their callers hear of the result.

use tokio::sync::oneshot;

use super::db::Db;
use crate::store::StoreError;

/// Purpose of a job, which decides whether it runs on a full disk or while the files are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Stores something new. Needs free space besides the ballast, and all files in their places.
    Intake,
    /// An operator's action. Needs all files in their places, and may use the ballast.
    Action,
    /// Ends deliveries. Runs as long as anything can be written.
    Finish,
    /// Removes something or returns space. Runs like [`Purpose::Finish`], but ends no delivery.
    Room,
}

/// Isolation of the jobs in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// None: the first error ends the transaction.
    Together,
    /// Each job, and each message in a job, has a savepoint of its own.
    Apart,
}

/// Something that the writer runs in a transaction.
pub(super) trait Job: Send {
    /// Writes inside a transaction. May be called again after a rollback.
    fn run(&mut self, db: &mut Db<'_>, mode: Mode) -> rusqlite::Result<()>;

    /// Reports the result: `Ok` once the job is durable.
    fn done(self: Box<Self>, result: Result<(), StoreError>);

    /// Returns about how many bytes the job writes.
    fn bytes(&self) -> usize;

    /// Returns `true` if no lease may be granted between the start of the job and the commit.
    fn stops_leases(&self) -> bool;

    /// Returns the purpose of the job.
    fn purpose(&self) -> Purpose;
}

/// A job made of two functions: `run` writes, `after` is told whether that is durable, and the
/// caller receives the value that `run` returned.
pub(super) struct Write<T, R, A> {
    run: R,
    after: A,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    bytes: usize,
    stops_leases: bool,
    purpose: Purpose,
}

/// Receives the result of a job; an error if the writer dropped the job.
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
        // Dropped first: messages share the buffer into which the caller reads its next request.
        drop(run);
        after(result.is_ok());
        let value = result.and_then(|()| value.ok_or(StoreError::Closed));
        // The caller may have given up.
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

/// Index of a job that was not done or is not kept, and the error.
pub(super) type Fault = (usize, StoreError);
