//! What was not taken, as the ops API sees it.

use crate::{
    ids::AppName,
    intake::{
        Admission,
        notes::{Notes, Refused},
    },
    ops::{NoAdoption, Refusal},
    store::{NearMiss, NewMessage, Source},
};

/// Returns the messages of an app with the title of incidents that were not taken.
pub(super) fn refused(notes: &Notes, app: &AppName) -> Vec<Refusal> {
    let refusal = |one: Refused| Refusal {
        reason: one.reason.label(),
        channel: one.channel,
        count: one.count,
        last: one.last,
        last_ts: one.last_ts,
    };
    notes.refused_of(app).into_iter().map(refusal).collect()
}

/// Makes of a near miss what the store is given for its alerts.
///
/// # Errors
/// [`NoAdoption`].
pub(super) fn adopt(
    admission: &Admission,
    apps: &[AppName],
    near_miss: &NearMiss,
) -> Result<NewMessage, NoAdoption> {
    let app = &near_miss.id.message.app;
    if !apps.contains(app) {
        return Err(NoAdoption::Unknown(app.clone()));
    }
    admission.adopt(near_miss, Source::Push).ok_or(NoAdoption::Unreadable)
}
