//! Which of the writer's jobs go on when the disk is full or the files are gone.

use std::sync::Arc;

use super::{
    files::Files,
    job::{Fault, Job, Purpose},
};
use crate::store::StoreError;

/// Which jobs of a batch are done.
#[derive(Clone, Debug)]
pub(super) enum Which {
    All,
    /// There is no space for what would be taken in.
    NoIntake,
    /// The files are gone, for this reason.
    OnlyFinish(Arc<str>),
}

impl Which {
    /// Why a job is left out, or nothing.
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

/// Adds to the faults of a batch that was just committed what is not kept. Nobody is told that
/// something is kept which a start would not find, so the files are looked at between the commit
/// and the answers.
pub(super) fn only_what_is_kept(
    files: &Files,
    jobs: &[Box<dyn Job>],
    faults: Vec<Fault>,
) -> Vec<Fault> {
    let Err(StoreError::Gone(problem)) = files.check() else {
        return faults;
    };
    let which = Which::OnlyFinish(problem);
    let purposes = jobs.iter().map(|job| job.purpose()).enumerate();
    let refuse = |(index, purpose)| Some((index, which.refuses(purpose)?));
    let mut refused: Vec<Fault> = purposes.filter_map(refuse).collect();
    let goes_on = |index: &usize| {
        let purpose = jobs.get(*index).map(|job| job.purpose());
        matches!(purpose, Some(Purpose::Finish | Purpose::Room))
    };
    refused.extend(faults.into_iter().filter(|(index, _)| goes_on(index)));
    refused.sort_by_key(|(index, _)| *index);
    refused
}
