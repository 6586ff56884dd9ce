//! Which part of a channel's history to read, page after page, until nothing of it is left. Pure.
//!
//! Slack's documentation says that the newest messages come first, and shows a request that only
//! works if the oldest do. So nothing is concluded from the order: both ends of the window are
//! fixed, every page is read, and only then does the cursor move. Where Slack says that there is
//! more and not where, what lies on either side of the page is read as a window of its own.

use std::{collections::HashMap, time::Duration};

use super::Settings;
use crate::{
    clock::Timestamp,
    ids::MessageTs,
    slack::web_api::{Astray, LIMITED_PAGE, Moment, PAGE, Pages},
};

/// How often a window is begun anew because Slack does not know its own cursor any more.
const RESTARTS: u32 = 3;

/// A cursor that lies further in the future is put back.
const FUTURE: Duration = Duration::from_secs(300);

/// How far history is read back from a cursor in the future if nothing tells how far it was read.
const UNKNOWN_BACK: Duration = Duration::from_secs(24 * 3600);

/// The size that pages are kept near. Fewer messages are asked for when they are large.
const PAGE_BYTES: usize = 1024 * 1024;

/// A part of a channel's history, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) oldest: MessageTs,
    pub(super) latest: MessageTs,
}

/// How far a channel's history was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The cursor.
    pub(super) committed: Option<MessageTs>,
    /// The newest message of a window that was read to its end, never one from the future: history
    /// is known to be read up to there, whatever the clocks showed.
    pub(super) seen: Option<MessageTs>,
}

/// What to read of a channel, and what it means for the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) window: Window,
    /// Where the cursor is once the window is read. None while it is in doubt what time it is and
    /// there is no cursor yet: the first one decides what is never read.
    pub(super) commit: Option<MessageTs>,
    /// Where a cursor in the future is put back to, before anything is read.
    pub(super) put_back: Option<MessageTs>,
}

impl Plan {
    /// Reads from the overlap before what was read, or `also_from` if that is before it, to now.
    ///
    /// The end of the window is the latest time that any clock shows, since reading further than
    /// there is anything does no harm. The cursor moves by the earliest time only. So a clock that
    /// is ahead moves no cursor, and one that is behind leaves nothing unread.
    ///
    /// `waited` is how long a channel without a cursor has waited for the time to be known.
    pub(super) fn new(
        place: Place,
        also_from: Option<MessageTs>,
        moment: Moment,
        waited: Duration,
        settings: Settings,
    ) -> Self {
        let now = ts(moment.earliest);
        let (mut put_back, mut commit) = (None, Some(back(now, settings.settle)));
        let start = match place.committed {
            Some(committed) if committed <= now => back(committed, settings.overlap),
            Some(committed) => {
                let seen = place.seen.filter(|seen| *seen <= now);
                let unknown = settings.first_lookback.max(UNKNOWN_BACK);
                let start = seen.unwrap_or_else(|| back(now, unknown));
                let start = start.min(back(now, settings.overlap));
                if committed > ts(moment.latest + FUTURE) {
                    put_back = Some(start);
                }
                back(start, settings.overlap)
            }
            None if moment.believed.is_some() => {
                back(now, settings.first_lookback.saturating_add(waited))
            }
            None => {
                commit = None;
                ts(moment.latest - settings.first_lookback)
            }
        };
        let oldest = also_from.map_or(start, |also| also.min(start));
        let window = Window { oldest, latest: ts(moment.latest).max(oldest) };
        // A cursor that stays ahead of now by a little is left where it is.
        let kept = if put_back.is_some() { None } else { place.committed };
        Self {
            window,
            commit: commit.map(|commit| kept.map_or(commit, |kept| kept.max(commit))),
            put_back,
        }
    }
}

pub(super) fn ts(at: Timestamp) -> MessageTs {
    MessageTs::from_micros(at.micros())
}

fn back(at: MessageTs, by: Duration) -> MessageTs {
    ts(Timestamp::from_micros(at.micros()) - by)
}

/// What a page says about the rest of the window.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// How many messages it has.
    pub(super) count: usize,
    /// The first and the last of their timestamps.
    pub(super) ends: Option<(MessageTs, MessageTs)>,
    /// Whether one of its timestamps was not seen before in this window.
    pub(super) has_news: bool,
    pub(super) next_cursor: Option<String>,
    pub(super) has_more: bool,
    /// The size of the answer.
    pub(super) bytes: usize,
}

impl Page {
    fn is_last(&self) -> bool {
        self.next_cursor.is_none() && !self.has_more
    }

    /// Whether Slack gives this app 15 messages a minute and no more. Nothing can be told from a
    /// page that is the last one, or for which no more were asked.
    pub(super) fn is_limited(&self, limit: usize) -> Option<bool> {
        if limit <= LIMITED_PAGE {
            return None;
        }
        if self.count > LIMITED_PAGE || self.count >= PAGE {
            return Some(false);
        }
        (!self.is_last()).then_some(self.count == LIMITED_PAGE)
    }
}

/// Whether there is more to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    More,
    Last,
}

/// Whether a message was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Never since the window was begun.
    First,
    /// Before Slack forgot its cursors and the window was begun anew.
    Anew,
    Known,
}

/// The reading of one window.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    whole: Window,
    /// What is left; the last one is being read.
    left: Vec<Window>,
    cursor: Option<String>,
    restarts: u32,
    pages: Pages,
    /// The messages of the window, each with the number of restarts when it was last seen.
    seen: HashMap<MessageTs, u32>,
    limit: usize,
}

impl Reading {
    pub(super) fn new(whole: Window) -> Self {
        Self {
            whole,
            left: vec![whole],
            cursor: None,
            restarts: 0,
            pages: Pages::default(),
            seen: HashMap::new(),
            limit: PAGE,
        }
    }

    /// What to ask for.
    pub(super) fn request(&self) -> (Window, Option<&str>) {
        (self.left.last().copied().unwrap_or(self.whole), self.cursor.as_deref())
    }

    /// How many messages to ask for.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// The answer was too large. Returns whether fewer messages can be asked for.
    pub(super) fn shrink(&mut self) -> bool {
        let is_smaller = self.limit > 1;
        self.limit = (self.limit / 4).max(1);
        is_smaller
    }

    /// Takes note of a message.
    pub(super) fn see(&mut self, ts: MessageTs) -> Sight {
        match self.seen.insert(ts, self.restarts) {
            None => Sight::First,
            Some(pass) if pass < self.restarts => Sight::Anew,
            Some(_) => Sight::Known,
        }
    }

    /// Takes note of the page that was asked for.
    ///
    /// # Errors
    /// [`Astray`]: the pages lead nowhere. The window is not read.
    pub(super) fn take(&mut self, page: &Page) -> Result<Next, Astray> {
        self.fit(page);
        if !page.is_last() {
            self.pages.follow(page.next_cursor.as_deref(), page.has_news)?;
        }
        if page.next_cursor.is_some() {
            self.cursor.clone_from(&page.next_cursor);
            return Ok(Next::More);
        }
        self.cursor = None;
        let read = self.left.pop();
        if let (true, Some(window)) = (page.has_more, read) {
            let ends = page.ends.ok_or(Astray::Nowhere)?;
            self.left.extend(beside(window, page.count, ends));
        }
        Ok(if self.left.is_empty() { Next::Last } else { Next::More })
    }

    /// Asks for as many messages as made a page of the wanted size, at most four times as many as
    /// before.
    fn fit(&mut self, page: &Page) {
        if let Some(bytes) = page.bytes.checked_div(page.count) {
            let fitting = PAGE_BYTES / bytes.max(1);
            self.limit = fitting.clamp(1, PAGE.min(self.limit * 4));
        }
    }

    /// Begins anew, since the cursor is not known any more; not for ever.
    pub(super) fn restart(&mut self) -> bool {
        self.restarts += 1;
        self.left = vec![self.whole];
        self.cursor = None;
        self.pages = Pages::default();
        self.restarts <= RESTARTS
    }
}

/// What lies on either side of a page, which spans `first` to `last`. A side begins with the page's
/// own message, so that nothing is asked for between two neighbours; unless the page has no other:
/// then the same page would come again.
fn beside(
    window: Window,
    count: usize,
    (first, last): (MessageTs, MessageTs),
) -> impl Iterator<Item = Window> {
    let step = i64::from(count <= 1);
    let newer = Window { oldest: MessageTs::from_micros(last.micros() + step), ..window };
    let older = Window { latest: MessageTs::from_micros(first.micros() - step), ..window };
    let has_room = move |side: &Window| side.oldest.micros() < side.latest.micros() + step;
    [newer, older].into_iter().filter(move |side| *side != window && has_room(side))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings {
        every: Duration::from_secs(60),
        overlap: Duration::from_secs(600),
        settle: Duration::from_secs(30),
        first_lookback: Duration::from_secs(86_400),
    };

    fn at(seconds: i64) -> MessageTs {
        MessageTs::from_micros(seconds * 1_000_000)
    }

    fn clocks(earliest: i64, latest: i64, believed: Option<i64>) -> Moment {
        Moment {
            earliest: Timestamp::from_seconds(earliest),
            latest: Timestamp::from_seconds(latest),
            believed: believed.map(Timestamp::from_seconds),
            skew_seconds: None,
        }
    }

    fn now() -> Moment {
        clocks(100_000, 100_000, Some(100_000))
    }

    fn place(committed: Option<i64>, seen: Option<i64>) -> Place {
        Place { committed: committed.map(at), seen: seen.map(at) }
    }

    fn plan(place: Place, also_from: Option<i64>, moment: Moment) -> Plan {
        Plan::new(place, also_from.map(at), moment, Duration::ZERO, SETTINGS)
    }

    #[test]
    fn the_first_window_looks_back_and_the_next_ones_overlap() {
        let first = plan(Place::default(), None, now());
        assert_eq!(first.window, Window { oldest: at(13_600), latest: at(100_000) });
        assert_eq!(first.commit, Some(at(99_970)));
        let next = plan(place(Some(99_970), None), None, now());
        assert_eq!((next.window.oldest, next.put_back), (at(99_370), None));
        let from_now = Settings { first_lookback: Duration::ZERO, ..SETTINGS };
        let waited = Duration::from_secs(7);
        let first = Plan::new(Place::default(), None, now(), waited, from_now);
        assert_eq!(first.window.oldest, at(99_993), "what came while the time was in doubt");
    }

    #[test]
    fn a_minute_that_slack_left_out_is_read_too() {
        let early = plan(place(Some(99_970), None), Some(90_000), now());
        assert_eq!(early.window.oldest, at(90_000));
        let covered = plan(place(Some(99_970), None), Some(99_900), now());
        assert_eq!(covered.window.oldest, at(99_370));
    }

    #[test]
    fn the_window_ends_with_the_latest_clock_and_the_cursor_moves_by_the_earliest() {
        let plan = plan(place(Some(99_970), None), None, clocks(100_000, 186_400, Some(100_000)));
        assert_eq!((plan.window.latest, plan.commit), (at(186_400), Some(at(99_970))));
    }

    #[test]
    fn while_the_time_is_in_doubt_no_channel_gets_its_first_cursor() {
        let plan = plan(Place::default(), None, clocks(100_000, 900_000, None));
        assert_eq!((plan.window.oldest, plan.commit), (at(813_600), None));
    }

    #[test]
    fn a_cursor_in_the_future_is_put_back_to_what_was_really_seen() {
        let seen = plan(place(Some(500_000), Some(70_000)), None, now());
        assert_eq!(seen.put_back, Some(at(70_000)));
        assert_eq!((seen.window.oldest, seen.commit), (at(69_400), Some(at(99_970))));
        let recent = plan(place(Some(500_000), Some(99_990)), None, now());
        assert_eq!(recent.put_back, Some(at(99_400)));
        for unknown in [None, Some(400_000)] {
            let plan = plan(place(Some(500_000), unknown), None, now());
            assert_eq!(plan.put_back, Some(at(13_600)), "{unknown:?} tells nothing");
        }
    }

    #[test]
    fn a_clock_behind_the_cursor_reads_from_what_was_seen_and_leaves_the_cursor() {
        let wrong = clocks(13_600, 100_000, Some(100_000));
        let plan = plan(place(Some(99_970), Some(9_000)), None, wrong);
        assert_eq!((plan.put_back, plan.commit), (None, Some(at(99_970))));
        assert_eq!(plan.window, Window { oldest: at(8_400), latest: at(100_000) });
    }

    #[test]
    fn fifteen_of_two_hundred_with_more_to_come_is_the_limited_profile() {
        let page = |count, has_more| Page { count, has_more, ..Page::default() }.is_limited(PAGE);
        assert_eq!(page(15, true), Some(true));
        assert_eq!(page(15, false), None, "there may just be fifteen");
        assert_eq!(page(14, true), Some(false));
        assert_eq!(page(16, false), Some(false));
        assert_eq!(page(200, true), Some(false));
        assert_eq!(page(0, false), None);
        let few = Page { count: 15, has_more: true, ..Page::default() };
        assert_eq!(few.is_limited(15), None, "no more were asked for");
    }

    #[test]
    fn pages_of_large_messages_get_smaller_and_grow_again() {
        let mut reading = Reading::new(Window { oldest: at(1), latest: at(9) });
        assert!(reading.shrink() && reading.limit() == 50);
        assert!(reading.shrink() && reading.limit() == 12);
        let page = |count, bytes| Page { count, bytes, ..Page::default() };
        reading.fit(&page(12, 12 * 240_000));
        assert_eq!(reading.limit(), 4);
        reading.fit(&page(4, 4_000));
        assert_eq!(reading.limit(), 16);
        reading.fit(&page(16, 16_000));
        reading.fit(&page(64, 64_000));
        assert_eq!(reading.limit(), PAGE);
        reading.fit(&page(1, 16 * 1024 * 1024));
        assert!(reading.limit() == 1 && !reading.shrink());
    }

    #[test]
    fn more_without_a_page_or_a_place_leads_nowhere() {
        let mut reading = Reading::new(Window { oldest: at(1), latest: at(9) });
        let lost = Page { has_more: true, ..Page::default() };
        assert_eq!(reading.take(&lost), Err(Astray::Nowhere));
    }

    #[test]
    fn a_cursor_that_comes_back_does_not_end_the_window_as_read() {
        let mut reading = Reading::new(Window { oldest: at(1), latest: at(9) });
        let page = |cursor: &str| Page {
            next_cursor: Some(cursor.into()),
            has_news: true,
            ..Page::default()
        };
        assert_eq!(reading.take(&page("a=")), Ok(Next::More));
        assert_eq!(reading.take(&page("b=")), Ok(Next::More));
        assert_eq!(reading.take(&page("a=")), Err(Astray::Circle));
    }

    #[test]
    fn a_window_is_not_begun_anew_for_ever() {
        let mut reading = Reading::new(Window { oldest: at(1), latest: at(9) });
        let again: Vec<bool> = (0..4).map(|_| reading.restart()).collect();
        assert_eq!(again, [true, true, true, false]);
    }

    #[test]
    fn a_message_is_new_again_when_the_window_is_begun_anew() {
        let mut reading = Reading::new(Window { oldest: at(1), latest: at(9) });
        assert_eq!((reading.see(at(3)), reading.see(at(3))), (Sight::First, Sight::Known));
        reading.restart();
        assert_eq!((reading.see(at(3)), reading.see(at(3))), (Sight::Anew, Sight::Known));
    }

    /// Which end of a window Slack's first page is at.
    #[derive(Clone, Copy, Debug)]
    enum Anchor {
        Newest,
        Oldest,
    }

    /// A channel that pages with cursors or without.
    struct Slack {
        all: Vec<i64>,
        anchor: Anchor,
        page: usize,
        cursors: bool,
    }

    impl Slack {
        fn ask(&self, window: Window, cursor: Option<&str>) -> (Vec<i64>, Page) {
            let inside =
                |second: &&i64| at(**second) >= window.oldest && at(**second) <= window.latest;
            let mut inside: Vec<i64> = self.all.iter().filter(inside).copied().collect();
            if let Anchor::Newest = self.anchor {
                inside.reverse();
            }
            let skip = cursor.map_or(0, |cursor| cursor.parse().unwrap());
            let given: Vec<i64> = inside.iter().skip(skip).take(self.page).copied().collect();
            let has_more = skip + given.len() < inside.len();
            let ends = given.iter().min().zip(given.iter().max());
            let page = Page {
                count: given.len(),
                ends: ends.map(|(first, last)| (at(*first), at(*last))),
                next_cursor: (has_more && self.cursors).then(|| (skip + given.len()).to_string()),
                has_more,
                ..Page::default()
            };
            (given, page)
        }
    }

    proptest! {
        #[test]
        fn every_message_of_the_window_is_read_in_either_order_with_and_without_cursors(
            seconds in prop::collection::btree_set(0_i64..200, 0..60),
            page in 1_usize..20,
            newest_first: bool,
            cursors: bool,
        ) {
            let anchor = if newest_first { Anchor::Newest } else { Anchor::Oldest };
            let slack = Slack { all: seconds.iter().copied().collect(), anchor, page, cursors };
            let window = Window { oldest: at(20), latest: at(180) };
            let (mut reading, mut found, mut asked) = (Reading::new(window), BTreeSet::new(), 0);
            loop {
                let (part, cursor) = reading.request();
                let (given, mut page) = slack.ask(part, cursor);
                for second in &given {
                    page.has_news |= reading.see(at(*second)) != Sight::Known;
                }
                found.extend(given);
                asked += 1;
                prop_assert!(asked < 200);
                if reading.take(&page).unwrap() == Next::Last {
                    break;
                }
            }
            let expected = seconds.iter().filter(|second| (20..=180).contains(*second));
            prop_assert_eq!(found, expected.copied().collect::<BTreeSet<_>>());
        }

        /// Pages of a Slack that answers anything: what it gives, whether it gives a cursor and
        /// which, and whether it says that there is more.
        #[test]
        fn whatever_slack_answers_a_window_ends_and_only_its_own_word_ends_it_as_read(
            answers in prop::collection::vec(
                (
                    prop::collection::vec(20_i64..60, 0..4),
                    prop::option::of(0_u32..40),
                    any::<bool>(),
                ),
                1..40,
            ),
        ) {
            let mut reading = Reading::new(Window { oldest: at(20), latest: at(60) });
            let (mut asked, mut barren) = (0, 0);
            for (times, cursor, has_more) in answers.iter().cycle() {
                asked += 1;
                // 40 messages, each of which may be preceded by nine pages without any.
                prop_assert!(asked <= 41 * 10, "it goes on for ever");
                let mut page = Page {
                    count: times.len(),
                    ends: times.iter().min().zip(times.iter().max()).map(|(a, b)| (at(*a), at(*b))),
                    next_cursor: cursor.map(|cursor| cursor.to_string()),
                    has_more: *has_more,
                    ..Page::default()
                };
                for second in times {
                    page.has_news |= reading.see(at(*second)) != Sight::Known;
                }
                barren = if page.has_news { 0 } else { barren + 1 };
                match reading.take(&page) {
                    Ok(Next::Last) => {
                        // Sides of a page may be empty: then nothing is left of the window.
                        prop_assert!(cursor.is_none());
                        break;
                    }
                    Ok(Next::More) => prop_assert!(page.is_last() || barren < 10),
                    Err(Astray::Circle) => {
                        prop_assert!(cursor.is_some());
                        break;
                    }
                    Err(Astray::Endless) => {
                        prop_assert_eq!(barren.min(10), 10);
                        break;
                    }
                    Err(Astray::Nowhere) => {
                        prop_assert!(*has_more && times.is_empty() && cursor.is_none());
                        break;
                    }
                }
            }
        }
    }

    /// A fault of one clock: it shows this many seconds too much from one minute to another.
    #[derive(Clone, Copy, Debug)]
    struct Fault {
        is_slacks: bool,
        error: i64,
        from: u64,
        minutes: u64,
        restarts: bool,
    }

    fn faults() -> impl Strategy<Value = Vec<Fault>> {
        let errors = prop_oneof![-1_000_000_i64..1_000_000, -900_i64..900];
        let fault = (any::<bool>(), errors, 0_u64..50, 1_u64..8, any::<bool>());
        let fault = fault.prop_map(|(is_slacks, error, from, minutes, restarts)| Fault {
            is_slacks,
            error,
            from,
            minutes,
            restarts,
        });
        prop::collection::vec(fault, 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Both clocks may be wrong at once, a channel's cursor may have been moved by an older
        /// version, and what is posted appears at once. A minute is a reading.
        #[test]
        fn after_every_fault_of_a_clock_every_incident_is_found_and_no_cursor_is_in_the_future(
            faults in faults(),
            posts in prop::collection::btree_set(0_i64..4_700, 0..40),
            overlap in 0_u64..900,
        ) {
            use crate::slack::web_api::Clocks;
            let settings = Settings { overlap: Duration::from_secs(overlap), ..SETTINGS };
            let begin = 1_000_000;
            let (mut clocks, mut place, mut found) =
                (Clocks::default(), Place::default(), BTreeSet::new());
            let mut began = None;
            for minute in 0..80_u64 {
                let up = Duration::from_secs(minute * 60);
                let true_now = begin + i64::try_from(minute).unwrap() * 60;
                let is_on = |fault: &&Fault| {
                    (fault.from..fault.from + fault.minutes).contains(&minute)
                };
                let error = |is_slacks| -> i64 {
                    let on = faults.iter().filter(is_on);
                    on.filter(|fault| fault.is_slacks == is_slacks).map(|fault| fault.error).sum()
                };
                if faults.iter().any(|fault| fault.restarts && fault.from == minute) {
                    clocks = Clocks::default();
                }
                let own = Timestamp::from_seconds(true_now + error(false));
                clocks.note(Timestamp::from_seconds(true_now + error(true)), own, up);
                let began_at = *began.get_or_insert(up);
                let waited = up.saturating_sub(began_at);
                let plan = Plan::new(place, None, clocks.now(own, up), waited, settings);
                let inside = |ts: &MessageTs| {
                    (plan.window.oldest..=plan.window.latest).contains(ts) && *ts <= at(true_now)
                };
                let posted = posts.iter().map(|post| at(begin + post));
                let read: Vec<_> = posted.filter(inside).collect();
                let known = ts(clocks.now(own, up).earliest);
                let newest = read.iter().copied().filter(|ts| *ts <= known).max();
                found.extend(read);
                if let Some(back) = plan.put_back {
                    place.committed = Some(back);
                }
                if let Some(to) = plan.commit {
                    place.committed = place.committed.max(Some(to));
                    place.seen = place.seen.max(newest);
                }
            }
            let expected: BTreeSet<_> = posts.iter().map(|post| at(begin + post)).collect();
            prop_assert!(found.is_superset(&expected) && expected.is_superset(&found));
            prop_assert!(place.committed.unwrap() <= at(begin + 80 * 60));
        }
    }
}
