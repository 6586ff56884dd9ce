//! Decides which jobs run while the disk is full or the files are gone.

use std::sync::Arc;

use super::{
    files::Files,
    job::{Fault, Job, Purpose},
};
use crate::store::StoreError;

/// Restriction on the jobs of a batch.
#[derive(Clone, Debug)]
pub(super) enum Restriction {
    All,
    /// The disk is full, so nothing new is stored.
    NoIntake,
    /// The files are gone, for the given reason.
    OnlyFinish(Arc<str>),
}

impl Restriction {
    /// Returns the error for a job that must not run.
    pub(super) fn refuses(&self, purpose: Purpose) -> Option<StoreError> {
        match (self, purpose) {
            (Self::NoIntake, Purpose::Intake) => Some(StoreError::Full),
            (Self::OnlyFinish(problem), Purpose::Intake | Purpose::Action) => {
                Some(StoreError::Gone(Arc::clone(problem)))
            }
            (Self::All, _)
            | (Self::NoIntake, Purpose::Action | Purpose::Finish | Purpose::Room)
            | (Self::OnlyFinish(_), Purpose::Finish | Purpose::Room) => None,
        }
    }
}

/// Adds the jobs of a committed batch that are lost, because the files are gone, to its faults.
///
/// Callers must not be told that something is durable that a restart would not find, so the files
/// are checked between the commit and the answers.
pub(super) fn with_lost_jobs(
    files: &Files,
    jobs: &[Box<dyn Job>],
    faults: Vec<Fault>,
) -> Vec<Fault> {
    let Err(StoreError::Gone(problem)) = files.check() else {
        return faults;
    };
    let restriction = Restriction::OnlyFinish(problem);
    let purposes = jobs.iter().map(|job| job.purpose()).enumerate();
    let refuse = |(index, purpose)| Some((index, restriction.refuses(purpose)?));
    let mut refused: Vec<Fault> = purposes.filter_map(refuse).collect();
    let goes_on = |index: &usize| {
        let purpose = jobs.get(*index).map(|job| job.purpose());
        matches!(purpose, Some(Purpose::Finish | Purpose::Room))
    };
    // A lost job has one fault, whether or not it had failed before.
    refused.extend(faults.into_iter().filter(|(index, _)| goes_on(index)));
    refused.sort_by_key(|(index, _)| *index);
    refused
}
