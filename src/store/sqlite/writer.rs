//! The writer: one thread that puts everything waiting for it into one transaction.
//!
//! A thousand waiting jobs cost one flush to disk, and a lone one waits for nobody. A job that
//! fails through its own fault is found by doing the transaction again, each job by itself.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    thread,
};

use rusqlite::Connection;
use tokio::runtime::Handle;

use super::{
    connect::{empty_log, roll_back},
    db::{Db, Memory},
    error::{engine_shared, is_items_own, is_out_of_space, item, panicked},
    job::{Fault, Job, Mode, Purpose},
    restriction::{Which, only_what_is_kept},
    shared::Shared,
};
use crate::store::StoreError;

/// How many jobs may wait. At 5,500 commits' worth of work a second, on a slow disk, this is
/// under a second of waiting; the sender is told to come back rather than to wait longer.
pub(super) const QUEUE: usize = 4096;

/// The most jobs, and about the most bytes, that share a transaction.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

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
            self.shared.eviction.wake();
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
