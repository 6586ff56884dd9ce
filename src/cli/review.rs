//! Refused messages and near misses, for the ops API.

use crate::{
    ids::AppName,
    intake::{
        Admission,
        notes::{Notes, RefusedMessages},
    },
    ops::{NoAdoption, view::Refused},
    store::{NearMiss, NewMessage, Source},
};

/// Returns the messages of an app with the title of incidents that were not taken.
pub(super) fn refused(notes: &Notes, app: &AppName) -> Vec<Refused> {
    let refused = |one: RefusedMessages| Refused {
        reason: one.reason.label().to_owned(),
        channel: one.channel.to_string(),
        count: one.count,
        last: one.last,
        last_ts: one.last_ts,
    };
    notes.refused_of(app).into_iter().map(refused).collect()
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
