//! The writer: one thread that puts everything waiting for it into one transaction.
//!
//! A thousand waiting jobs cost one flush to disk, and a lone one waits for nobody. A job that
//! fails through its own fault is found by doing the transaction again, each job by itself.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, TrySendError},
    },
    thread,
};

use rusqlite::{Connection, ErrorCode, ffi};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    db::{Db, Memory, empty_log, roll_back},
    purpose::{Purpose, Which, only_what_is_kept},
    threads::Shared,
};
use crate::store::StoreError;

/// How many jobs may wait. At 5,500 commits' worth of work a second, on a slow disk, this is
/// under a second of waiting; the sender is told to come back rather than to wait longer.
pub(super) const QUEUE: usize = 4096;

/// The most jobs, and about the most bytes, that share a transaction.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

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

/// Puts a job in the queue, or tells it why not.
pub(super) fn submit(queue: Option<&SyncSender<Box<dyn Job>>>, job: Box<dyn Job>) {
    let Some(queue) = queue else {
        return job.done(Err(StoreError::Closed));
    };
    match queue.try_send(job) {
        Ok(()) => {}
        Err(TrySendError::Full(job)) => job.done(Err(StoreError::Busy)),
        Err(TrySendError::Disconnected(job)) => job.done(Err(StoreError::Closed)),
    }
}

/// The writing thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) memory: Memory,
    pub(super) shared: Arc<Shared>,
    /// Where a batch's callers wait. There one task wakes them all; from the writer's thread each
    /// would cost a system call.
    pub(super) runtime: Option<Handle>,
}

impl Writer {
    /// Commits batch after batch until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, queue: &Receiver<Box<dyn Job>>) -> Connection {
        while let Ok(first) = queue.recv() {
            self.commit(gather(first, queue));
        }
        self.connection
    }

    fn commit(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let shared = Arc::clone(&self.shared);
        let gate = jobs.iter().any(|job| job.stops_leases()).then(|| shared.leases.gate());
        let result = catch_unwind(AssertUnwindSafe(|| self.transaction(&mut jobs))).unwrap_or_else(
            |panic| {
                self.roll_back();
                Err(panicked(panic.as_ref()))
            },
        );
        drop(gate);
        let result = result.map(|faults| only_what_is_kept(&self.shared.files, &jobs, faults));
        self.after_commit(&jobs);
        match &self.runtime {
            Some(runtime) if jobs.len() > 1 => {
                drop(runtime.spawn(async move { answer_all(jobs, result) }));
            }
            Some(_) | None => answer_all(jobs, result),
        }
    }

    /// Returns the jobs that could not be done, and why, in order; all others are durable.
    fn transaction(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<Vec<Fault>> {
        let which = self.which();
        let result = match self.attempt(jobs, Mode::Together, &which) {
            Err(error) if is_items_own(&error) => self.attempt(jobs, Mode::Apart, &which),
            result => result,
        };
        match result {
            Err(error) if is_out_of_space(&error) => self.without_space(jobs, &which),
            result => result,
        }
    }

    /// Does what can still be done on a full disk. Half of what the log holds may be in the file
    /// already, so it is emptied first; then what was to be taken in is left out; then the ballast
    /// is given up for the rest.
    fn without_space(
        &mut self,
        jobs: &mut [Box<dyn Job>],
        which: &Which,
    ) -> rusqlite::Result<Vec<Fault>> {
        empty_log(&self.connection);
        let result = self.attempt(jobs, Mode::Apart, which);
        let is_all_intake = jobs.iter().all(|job| job.purpose() == Purpose::Intake);
        if is_all_intake || !result.as_ref().is_err_and(is_out_of_space) {
            return result;
        }
        let which = match which {
            Which::All => &Which::NoIntake,
            Which::NoIntake | Which::OnlyFinish(_) => which,
        };
        let result = self.attempt(jobs, Mode::Apart, which);
        let now = self.shared.clock.instant();
        if !result.as_ref().is_err_and(is_out_of_space)
            || !self.shared.size.disk().give_ballast_up(now)
        {
            return result;
        }
        empty_log(&self.connection);
        self.attempt(jobs, Mode::Apart, which)
    }

    /// Looks at disk and files before each commit, since others change both.
    fn which(&self) -> Which {
        self.shared.size.disk().look();
        if let Err(StoreError::Gone(problem)) = self.shared.files.check_if_gone() {
            Which::OnlyFinish(problem)
        } else if self.shared.size.disk().was_full() {
            Which::NoIntake
        } else {
            Which::All
        }
    }

    fn attempt(
        &mut self,
        jobs: &mut [Box<dyn Job>],
        mode: Mode,
        which: &Which,
    ) -> rusqlite::Result<Vec<Fault>> {
        let Self { connection, memory, shared, .. } = self;
        let result = Db::begin(connection, memory, shared.clock.now()).and_then(|mut db| {
            let faults = run_all(&mut db, jobs, mode, which)?;
            let start = shared.clock.instant();
            db.commit()?;
            let end = shared.clock.instant();
            shared.commit_seconds.record(end.duration_since(start).as_secs_f64());
            Ok(faults)
        });
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    fn roll_back(&mut self) {
        self.memory.forget();
        roll_back(&self.connection);
    }

    /// Gives space back to the disk if somebody waits for it, and measures what is used.
    fn after_commit(&self, jobs: &[Box<dyn Job>]) {
        let may_end = |purpose| matches!(purpose, Purpose::Action | Purpose::Finish);
        if jobs.iter().any(|job| may_end(job.purpose())) {
            self.shared.relief.wake();
        }
        if self.shared.gives_back.swap(false, Ordering::AcqRel) {
            empty_log(&self.connection);
            self.shared.size.disk().look();
        }
        self.shared.size.keep_up(&self.connection, self.shared.clock.instant());
    }
}

fn run_all(
    db: &mut Db<'_>,
    jobs: &mut [Box<dyn Job>],
    mode: Mode,
    which: &Which,
) -> rusqlite::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for (index, job) in jobs.iter_mut().enumerate() {
        if let Some(refused) = which.refuses(job.purpose()) {
            faults.push((index, refused));
            continue;
        }
        match mode {
            Mode::Together => job.run(db, mode)?,
            Mode::Apart => {
                let result = db.apart(|db| job.run(db, mode))?;
                faults.extend(result.err().map(|error| (index, item(error))));
            }
        }
    }
    Ok(faults)
}

/// All that waits, and all that comes while those who are ready to send something go first. On
/// one core they would otherwise wait for us, and each commit would carry half as much.
fn gather(first: Box<dyn Job>, queue: &Receiver<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
    let mut bytes = first.bytes();
    let mut jobs = vec![first];
    loop {
        let before = jobs.len();
        thread::yield_now();
        while jobs.len() < BATCH
            && bytes < BATCH_BYTES
            && let Ok(job) = queue.try_recv()
        {
            bytes += job.bytes();
            jobs.push(job);
        }
        if jobs.len() == before {
            return jobs;
        }
    }
}

fn answer_all(jobs: Vec<Box<dyn Job>>, result: rusqlite::Result<Vec<Fault>>) {
    match result {
        Ok(faults) => {
            let mut faults = faults.into_iter().peekable();
            for (index, job) in jobs.into_iter().enumerate() {
                let fault = faults.next_if(|(at, _)| *at == index);
                job.done(fault.map_or(Ok(()), |(_, error)| Err(error)));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for job in jobs {
                job.done(Err(engine_shared(&error)));
            }
        }
    }
}

/// Which job was not done, or is not kept, and why.
pub(super) type Fault = (usize, StoreError);

/// Whether the item is at fault, and not the engine, the disk or somebody else's lock.
pub(super) fn is_items_own(error: &rusqlite::Error) -> bool {
    let own = [ErrorCode::ConstraintViolation, ErrorCode::TooBig, ErrorCode::TypeMismatch];
    error.sqlite_error_code().is_some_and(|code| own.contains(&code))
        || matches!(error, rusqlite::Error::ToSqlConversionFailure(_))
}

/// Whether nothing more fits on the disk. SQLite has a name of its own only for the usual case.
pub(super) fn is_out_of_space(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull
            || [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE].contains(&error.extended_code)
    })
}

pub(super) fn item(error: rusqlite::Error) -> StoreError {
    StoreError::Item(error.into())
}

pub(super) fn engine(error: rusqlite::Error) -> StoreError {
    engine_shared(&Arc::new(error))
}

fn engine_shared(error: &Arc<rusqlite::Error>) -> StoreError {
    if is_out_of_space(error) {
        StoreError::Full
    } else {
        StoreError::Engine(Box::new(Arc::clone(error)))
    }
}

/// What a caught panic said, as an error of the engine.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> rusqlite::Error {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    rusqlite::Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_INTERNAL),
        Some(format!("panic in the store: {said}")),
    )
}
