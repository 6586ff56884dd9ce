//! The algorithm of catch-up: chooses the part of a channel's history to read, and follows Slack's
//! pages until all of that part is read. Pure.
//!
//! Slack's documentation says that the newest messages come first, and shows a request that only
//! works if the oldest do. The algorithm therefore concludes nothing from the order: both ends of
//! the window are fixed, every page is read, and only then does the cursor move. If Slack says that
//! there is more and gives no cursor, the parts of the window on either side of the page are read
//! as windows of their own.

use std::{collections::HashMap, time::Duration};

use super::settings::CatchUpSettings;
use crate::{
    clock::Timestamp,
    ids::MessageTs,
    slack::web_api::{Astray, LIMITED_PAGE, Moment, PAGE, Pages},
};

/// Times that a window is begun again because Slack rejects its own page cursor.
const RESTARTS: u32 = 3;

/// Distance from now beyond which a cursor in the future is put back.
const FUTURE: Duration = Duration::from_secs(300);

/// Time before now to which such a cursor is put back if nothing tells how far history was read.
const UNKNOWN_BACK: Duration = Duration::from_secs(24 * 3600);

/// Wanted size of a page. Fewer messages are requested when messages are large.
const PAGE_BYTES: usize = 1024 * 1024;

/// Part of a channel's history, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) oldest: MessageTs,
    pub(super) latest: MessageTs,
}

/// Position up to which a channel's history was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReadProgress {
    /// Cursor in the store.
    pub(super) committed: Option<MessageTs>,
    /// Newest message of a window that was read to its end, never one from the future. History was
    /// read up to there whatever the clocks showed.
    pub(super) seen: Option<MessageTs>,
}

/// Window to read, and its effect on the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowPlan {
    pub(super) window: Window,
    /// Position of the cursor after the window is read. `None` while the time is in doubt and the
    /// channel does not have a cursor: the first cursor decides which history is never read.
    pub(super) commit: Option<MessageTs>,
    /// Position to which a cursor in the future is put back before anything is read.
    pub(super) put_back: Option<MessageTs>,
}

impl WindowPlan {
    /// Plans a window from the overlap before the cursor, or from `gap_from` if that is earlier, to
    /// now.
    ///
    /// The window ends at the latest time that any clock shows, since reading beyond the newest
    /// message does no harm. The cursor moves to the earliest time only. A clock that is ahead
    /// therefore moves no cursor, and one that is behind leaves nothing unread.
    ///
    /// `waited` is the time that a channel without a cursor has waited for a time to be believed.
    pub(super) fn new(
        place: ReadProgress,
        gap_from: Option<MessageTs>,
        moment: Moment,
        waited: Duration,
        settings: CatchUpSettings,
    ) -> Self {
        let now = ts(moment.earliest);
        let (mut put_back, mut commit) = (None, Some(back(now, settings.settle)));
        let start = match place.committed {
            Some(committed) if committed <= now => back(committed, settings.overlap),
            // The cursor is in the future: start from what was really seen, or a day back.
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
        let oldest = gap_from.map_or(start, |also| also.min(start));
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

/// Facts of a page that tell how the window goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct PageFacts {
    /// Number of messages.
    pub(super) count: usize,
    /// Earliest and latest timestamp.
    pub(super) ends: Option<(MessageTs, MessageTs)>,
    /// At least one timestamp was not seen before in this window.
    pub(super) has_news: bool,
    pub(super) next_cursor: Option<String>,
    pub(super) has_more: bool,
    /// Size of the answer.
    pub(super) bytes: usize,
}

impl PageFacts {
    fn is_last(&self) -> bool {
        self.next_cursor.is_none() && !self.has_more
    }

    /// Returns whether Slack limits this app to 15 messages a minute. Returns `None` if the page
    /// does not tell: it is the last one, or no more than 15 messages were requested.
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

/// Progress of a window after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowStep {
    /// There is another page to request.
    More,
    /// The window was read to its end.
    Last,
}

/// Earlier appearance of a message in the same window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// The message was not seen before.
    First,
    /// The message was seen before Slack rejected its cursor and the window was begun again.
    Again,
    /// The message was seen on an earlier page.
    Known,
}

/// Pages of one window: what was read and what is left.
#[derive(Clone, Debug)]
pub(super) struct HistoryPages {
    whole: Window,
    /// Parts that are left; the last one is being read.
    left: Vec<Window>,
    cursor: Option<String>,
    restarts: u32,
    pages: Pages,
    /// Messages seen, each with the number of restarts at the last appearance.
    seen: HashMap<MessageTs, u32>,
    limit: usize,
}

impl HistoryPages {
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

    /// Returns the window and the page cursor to request.
    pub(super) fn request(&self) -> (Window, Option<&str>) {
        (self.left.last().copied().unwrap_or(self.whole), self.cursor.as_deref())
    }

    /// Returns the number of messages to request.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Requests fewer messages after an answer that was too large. Returns `false` if a single
    /// message was requested already.
    pub(super) fn shrink(&mut self) -> bool {
        let is_smaller = self.limit > 1;
        self.limit = (self.limit / 4).max(1);
        is_smaller
    }

    /// Records a message.
    pub(super) fn see(&mut self, ts: MessageTs) -> Sight {
        match self.seen.insert(ts, self.restarts) {
            None => Sight::First,
            Some(pass) if pass < self.restarts => Sight::Again,
            Some(_) => Sight::Known,
        }
    }

    /// Records a page and finds the next part to read.
    ///
    /// # Errors
    /// [`Astray`] if the pages do not lead to an end; the window counts as not read.
    pub(super) fn advance(&mut self, page: &PageFacts) -> Result<WindowStep, Astray> {
        self.fit(page);
        if !page.is_last() {
            self.pages.follow(page.next_cursor.as_deref(), page.has_news)?;
        }
        if page.next_cursor.is_some() {
            self.cursor.clone_from(&page.next_cursor);
            return Ok(WindowStep::More);
        }
        self.cursor = None;
        let read = self.left.pop();
        // More, but no cursor: what lies on either side of this page is still to be read.
        if let (true, Some(window)) = (page.has_more, read) {
            let ends = page.ends.ok_or(Astray::Nowhere)?;
            self.left.extend(beside(window, page.count, ends));
        }
        Ok(if self.left.is_empty() { WindowStep::Last } else { WindowStep::More })
    }

    /// Chooses the number of messages that would have made a page of the wanted size, at most four
    /// times the number before.
    fn fit(&mut self, page: &PageFacts) {
        if let Some(bytes) = page.bytes.checked_div(page.count) {
            let fitting = PAGE_BYTES / bytes.max(1);
            self.limit = fitting.clamp(1, PAGE.min(self.limit * 4));
        }
    }

    /// Begins the window again because Slack rejected the page cursor. Returns `false` after the
    /// last allowed restart.
    pub(super) fn restart(&mut self) -> bool {
        self.restarts += 1;
        self.left = vec![self.whole];
        self.cursor = None;
        self.pages = Pages::default();
        self.restarts <= RESTARTS
    }
}

/// Returns the parts of a window on either side of a page that spans `first` to `last`. Each side
/// includes the page's outermost message, so that nothing between two neighbours is missed; not if
/// that is the page's only message, since the same page would be read again.
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

    const SETTINGS: CatchUpSettings = CatchUpSettings {
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

    fn place(committed: Option<i64>, seen: Option<i64>) -> ReadProgress {
        ReadProgress { committed: committed.map(at), seen: seen.map(at) }
    }

    fn plan(place: ReadProgress, gap_from: Option<i64>, moment: Moment) -> WindowPlan {
        WindowPlan::new(place, gap_from.map(at), moment, Duration::ZERO, SETTINGS)
    }

    #[test]
    fn the_first_window_looks_back_and_the_next_ones_overlap() {
        let first = plan(ReadProgress::default(), None, now());
        assert_eq!(first.window, Window { oldest: at(13_600), latest: at(100_000) });
        assert_eq!(first.commit, Some(at(99_970)));
        let next = plan(place(Some(99_970), None), None, now());
        assert_eq!((next.window.oldest, next.put_back), (at(99_370), None));
        let from_now = CatchUpSettings { first_lookback: Duration::ZERO, ..SETTINGS };
        let waited = Duration::from_secs(7);
        let first = WindowPlan::new(ReadProgress::default(), None, now(), waited, from_now);
        assert_eq!(first.window.oldest, at(99_993), "what came while the time was in doubt");
    }

    #[test]
    fn a_rate_limited_minute_is_read_too() {
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
        let plan = plan(ReadProgress::default(), None, clocks(100_000, 900_000, None));
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
        let page = |count, has_more| {
            PageFacts { count, has_more, ..PageFacts::default() }.is_limited(PAGE)
        };
        assert_eq!(page(15, true), Some(true));
        assert_eq!(page(15, false), None, "there may just be fifteen");
        assert_eq!(page(14, true), Some(false));
        assert_eq!(page(16, false), Some(false));
        assert_eq!(page(200, true), Some(false));
        assert_eq!(page(0, false), None);
        let few = PageFacts { count: 15, has_more: true, ..PageFacts::default() };
        assert_eq!(few.is_limited(15), None, "no more were asked for");
    }

    #[test]
    fn pages_of_large_messages_get_smaller_and_grow_again() {
        let mut reading = HistoryPages::new(Window { oldest: at(1), latest: at(9) });
        assert!(reading.shrink() && reading.limit() == 50);
        assert!(reading.shrink() && reading.limit() == 12);
        let page = |count, bytes| PageFacts { count, bytes, ..PageFacts::default() };
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
    fn more_messages_without_a_cursor_or_a_timestamp_lead_nowhere() {
        let mut reading = HistoryPages::new(Window { oldest: at(1), latest: at(9) });
        let lost = PageFacts { has_more: true, ..PageFacts::default() };
        assert_eq!(reading.advance(&lost), Err(Astray::Nowhere));
    }

    #[test]
    fn a_cursor_that_comes_back_does_not_end_the_window_as_read() {
        let mut reading = HistoryPages::new(Window { oldest: at(1), latest: at(9) });
        let page = |cursor: &str| PageFacts {
            next_cursor: Some(cursor.into()),
            has_news: true,
            ..PageFacts::default()
        };
        assert_eq!(reading.advance(&page("a=")), Ok(WindowStep::More));
        assert_eq!(reading.advance(&page("b=")), Ok(WindowStep::More));
        assert_eq!(reading.advance(&page("a=")), Err(Astray::Circle));
    }

    #[test]
    fn a_window_is_begun_again_three_times_at_most() {
        let mut reading = HistoryPages::new(Window { oldest: at(1), latest: at(9) });
        let again: Vec<bool> = (0..4).map(|_| reading.restart()).collect();
        assert_eq!(again, [true, true, true, false]);
    }

    #[test]
    fn a_message_counts_as_seen_again_after_the_window_is_begun_again() {
        let mut reading = HistoryPages::new(Window { oldest: at(1), latest: at(9) });
        assert_eq!((reading.see(at(3)), reading.see(at(3))), (Sight::First, Sight::Known));
        reading.restart();
        assert_eq!((reading.see(at(3)), reading.see(at(3))), (Sight::Again, Sight::Known));
    }

    /// End of a window at which Slack's first page is.
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
        fn ask(&self, window: Window, cursor: Option<&str>) -> (Vec<i64>, PageFacts) {
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
            let page = PageFacts {
                count: given.len(),
                ends: ends.map(|(first, last)| (at(*first), at(*last))),
                next_cursor: (has_more && self.cursors).then(|| (skip + given.len()).to_string()),
                has_more,
                ..PageFacts::default()
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
            let mut reading = HistoryPages::new(window);
            let mut found = BTreeSet::new();
            let mut asked = 0;
            loop {
                let (part, cursor) = reading.request();
                let (given, mut page) = slack.ask(part, cursor);
                for second in &given {
                    page.has_news |= reading.see(at(*second)) != Sight::Known;
                }
                found.extend(given);
                asked += 1;
                prop_assert!(asked < 200);
                if reading.advance(&page).unwrap() == WindowStep::Last {
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
            let mut reading = HistoryPages::new(Window { oldest: at(20), latest: at(60) });
            let (mut asked, mut barren) = (0, 0);
            for (times, cursor, has_more) in answers.iter().cycle() {
                asked += 1;
                // 40 messages, each of which may be preceded by nine pages without any.
                prop_assert!(asked <= 41 * 10, "it goes on for ever");
                let mut page = PageFacts {
                    count: times.len(),
                    ends: times.iter().min().zip(times.iter().max()).map(|(a, b)| (at(*a), at(*b))),
                    next_cursor: cursor.map(|cursor| cursor.to_string()),
                    has_more: *has_more,
                    ..PageFacts::default()
                };
                for second in times {
                    page.has_news |= reading.see(at(*second)) != Sight::Known;
                }
                barren = if page.has_news { 0 } else { barren + 1 };
                match reading.advance(&page) {
                    Ok(WindowStep::Last) => {
                        // Sides of a page may be empty: then nothing is left of the window.
                        prop_assert!(cursor.is_none());
                        break;
                    }
                    Ok(WindowStep::More) => prop_assert!(page.is_last() || barren < 10),
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
            let settings = CatchUpSettings { overlap: Duration::from_secs(overlap), ..SETTINGS };
            let begin = 1_000_000;
            let (mut clocks, mut place, mut found) =
                (Clocks::default(), ReadProgress::default(), BTreeSet::new());
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
                let plan = WindowPlan::new(place, None, clocks.now(own, up), waited, settings);
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
