//! Bodies of the API's answers: `api` writes them, the command line reads them. Changes are
//! additive only. Absent texts are empty, times are RFC 3339.

mod actions;
mod alert;
mod backfill;
mod concern;
mod feed;
mod review;
mod status;
mod waiting;

pub use self::{
    actions::{Changed, ChangedDelivery, PauseState, Routed, TestReport},
    alert::{Attempt, Delivery, Detail, Page, Reference, Revision, Row},
    backfill::{BackfillReport, Unread},
    concern::{Concern, ConcernKind},
    feed::{FeedItem, FeedPage},
    review::{
        Adopted, Counted, Ignored, NearMiss, NearMissDetail, NearMisses, Quarantine, Quarantined,
        Refused,
    },
    status::{
        App, Bot, Breaker, CatchUp, Channel, Configuration, Destination, Pause, Signing, Status,
        StoreUse,
    },
    waiting::{WaitKind, Waiting},
};
