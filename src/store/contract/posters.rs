//! Promises about the bots that have posted incidents.

use super::*;
use crate::store::{POSTER_KEPT, Poster};

fn poster(w: &World, bot_id: &str, app_id: &str, incidents: u64) -> Poster {
    let (bot_id, app_id) = (bot_id.to_owned(), app_id.to_owned());
    Poster { app: app(), channel: channel(), bot_id, app_id, incidents, last: w.clock.now() }
}

pub(in crate::store) async fn the_bots_that_posted_incidents_are_remembered_and_counted(
    mut w: World,
) {
    assert_eq!(w.store().posters(&app()).await.unwrap(), []);
    let first = poster(&w, "B1", "", 2);
    let with_app = poster(&w, "B1", "A\0", 1);
    w.store().add_posters(vec![with_app.clone(), first.clone()]).await.unwrap();
    w.clock.advance(HOUR);
    let elsewhere = Poster { channel: ChannelId::new("C2"), ..poster(&w, "B1", "", 7) };
    let of_another = Poster { app: AppName::new("other").unwrap(), ..poster(&w, "B1", "", 1) };
    // A count that is written late does not set back the time of the last incident.
    let late = Poster { last: first.last - DAY, ..poster(&w, "B1", "", 3) };
    w.store().add_posters(vec![elsewhere.clone(), late, of_another]).await.unwrap();
    w.crash();
    let expected = [
        elsewhere,
        Poster { incidents: 5, ..first },
        Poster { app_id: "A\u{fffd}".to_owned(), ..with_app },
    ];
    assert_eq!(w.store().posters(&app()).await.unwrap(), expected);
}

pub(in crate::store) async fn a_bot_that_has_long_posted_nothing_is_forgotten(w: World) {
    w.store().add_posters(vec![poster(&w, "B1", "", 1)]).await.unwrap();
    w.clock.advance(DAY);
    w.store().add_posters(vec![poster(&w, "B2", "", 1)]).await.unwrap();
    w.clock.advance(POSTER_KEPT.saturating_sub(HOUR));
    w.store().prune(RETENTION).await.unwrap();
    w.clock.advance(HOUR);
    w.store().prune(RETENTION).await.unwrap();
    let left = w.store().posters(&app()).await.unwrap();
    assert_eq!(left.iter().map(|poster| &*poster.bot_id).collect::<Vec<_>>(), ["B2"]);
}
