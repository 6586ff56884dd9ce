//! The writer: one thread that runs all waiting jobs in one transaction (group commit).
//!
//! A thousand waiting jobs cost one flush to disk, and a single job does not wait for others. If a
//! job itself is at fault, the transaction is repeated with a savepoint for each job.

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
    restriction::{Restriction, with_lost_jobs},
    shared::Shared,
};
use crate::store::StoreError;

/// Number of jobs that may wait. On a slow disk, which takes 5,500 jobs a second, this is less than
/// a second of waiting. Beyond that a caller is refused and tries again.
pub(super) const QUEUE: usize = 4096;

/// Numbers of jobs and of bytes at which a batch is complete.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The writing thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) memory: Memory,
    pub(super) shared: Arc<Shared>,
    /// Runtime of the callers. One task there wakes all callers of a batch; from the writer's
    /// thread each wake-up would cost a system call.
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
        // Held until the commit, so that no lease is granted for a delivery that a job changes.
        let gate = jobs.iter().any(|job| job.stops_leases()).then(|| shared.leases.gate());
        let result = catch_unwind(AssertUnwindSafe(|| self.transaction(&mut jobs))).unwrap_or_else(
            |panic| {
                self.roll_back();
                Err(panicked(panic.as_ref()))
            },
        );
        drop(gate);
        let result = result.map(|faults| with_lost_jobs(&self.shared.files, &jobs, faults));
        self.after_commit(&jobs);
        match &self.runtime {
            Some(runtime) if jobs.len() > 1 => {
                drop(runtime.spawn(async move { answer_all(jobs, result) }));
            }
            Some(_) | None => answer_all(jobs, result),
        }
    }

    /// Returns the jobs that were not done, in order. All others are durable.
    fn transaction(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<Vec<Fault>> {
        let restriction = self.restriction();
        let result = match self.attempt(jobs, Mode::Together, &restriction) {
            Err(error) if is_items_own(&error) => self.attempt(jobs, Mode::Apart, &restriction),
            result => result,
        };
        match result {
            Err(error) if is_out_of_space(&error) => self.without_space(jobs, &restriction),
            result => result,
        }
    }

    /// Runs the jobs that can still be done on a full disk: empties the log, then leaves out new
    /// messages, then removes the ballast.
    fn without_space(
        &mut self,
        jobs: &mut [Box<dyn Job>],
        restriction: &Restriction,
    ) -> rusqlite::Result<Vec<Fault>> {
        // The log may hold enough space.
        empty_log(&self.connection);
        let result = self.attempt(jobs, Mode::Apart, restriction);
        let is_all_intake = jobs.iter().all(|job| job.purpose() == Purpose::Intake);
        if is_all_intake || !result.as_ref().is_err_and(is_out_of_space) {
            return result;
        }
        // Slack sends new messages again, so they are left out before the ballast is touched.
        let restriction = match restriction {
            Restriction::All => &Restriction::NoIntake,
            Restriction::NoIntake | Restriction::OnlyFinish(_) => restriction,
        };
        let result = self.attempt(jobs, Mode::Apart, restriction);
        let now = self.shared.clock.instant();
        if !result.as_ref().is_err_and(is_out_of_space)
            // The ballast is for outcomes, which let retention and eviction free more space.
            || !self.shared.size.disk().give_ballast_up(now)
        {
            return result;
        }
        empty_log(&self.connection);
        self.attempt(jobs, Mode::Apart, restriction)
    }

    /// Checks disk and files before each commit, since other processes change both.
    fn restriction(&self) -> Restriction {
        self.shared.size.disk().look();
        if let Err(StoreError::Gone(problem)) = self.shared.files.check_if_gone() {
            Restriction::OnlyFinish(problem)
        } else if self.shared.size.disk().was_full() {
            Restriction::NoIntake
        } else {
            Restriction::All
        }
    }

    fn attempt(
        &mut self,
        jobs: &mut [Box<dyn Job>],
        mode: Mode,
        restriction: &Restriction,
    ) -> rusqlite::Result<Vec<Fault>> {
        let Self { connection, memory, shared, .. } = self;
        let result = Db::begin(connection, memory, shared.clock.now()).and_then(|mut db| {
            let faults = run_all(&mut db, jobs, mode, restriction)?;
            // Only the commit is measured, which waits for the disk.
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

    /// Returns space to the disk if a job asked for that, and measures the used space.
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
    restriction: &Restriction,
) -> rusqlite::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for (index, job) in jobs.iter_mut().enumerate() {
        if let Some(refused) = restriction.refuses(job.purpose()) {
            faults.push((index, refused));
            continue;
        }
        match mode {
            // If the job is at fault, the caller repeats the transaction in the other mode.
            Mode::Together => job.run(db, mode)?,
            Mode::Apart => {
                let result = db.apart(|db| job.run(db, mode))?;
                faults.extend(result.err().map(|error| (index, item(error))));
            }
        }
    }
    Ok(faults)
}

/// Takes all waiting jobs, and all that come while other threads run. On one core these would
/// otherwise wait for the writer, and each commit would carry half as many jobs.
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
