//! Which part of a channel's history to read, page after page, until nothing of it is left. Pure.
//!
//! Slack's documentation says that the newest messages come first, and shows a request that only
//! works if the oldest do. So nothing is concluded from the order: both ends of the window are
//! fixed, every page is read, and only then does the cursor move. Where Slack says that there is
//! more and not where, what lies on either side of the page is read as a window of its own.

use std::time::Duration;

use super::Settings;
use crate::{
    clock::Timestamp,
    ids::MessageTs,
    slack::web_api::{LIMITED_PAGE, PAGE},
};

/// How often a window is begun anew because Slack does not know its own cursor any more.
const RESTARTS: u32 = 3;

/// A part of a channel's history, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) oldest: MessageTs,
    pub(super) latest: MessageTs,
}

impl Window {
    /// What to read now: from the overlap before what was read, or `also_from` if that is before
    /// it, to now; both by Slack's clock.
    pub(super) fn next(
        committed: Option<MessageTs>,
        also_from: Option<MessageTs>,
        now: Timestamp,
        settings: Settings,
    ) -> Self {
        let start = committed.map_or_else(
            || ts(now - settings.first_lookback),
            |committed| back(committed, settings.overlap),
        );
        let oldest = also_from.map_or(start, |also| also.min(start));
        Self { oldest, latest: ts(now).max(oldest) }
    }

    /// Up to where history counts as read once this window is: messages of the last moments may
    /// still appear.
    pub(super) fn committed(self, settle: Duration) -> MessageTs {
        back(self.latest, settle)
    }
}

fn ts(at: Timestamp) -> MessageTs {
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
    pub(super) next_cursor: Option<String>,
    pub(super) has_more: bool,
}

impl Page {
    fn is_last(&self) -> bool {
        self.next_cursor.is_none() && !self.has_more
    }

    /// Whether Slack gives this app 15 messages a minute and no more. Nothing can be told from a
    /// page that is the last one.
    pub(super) fn is_limited(&self) -> Option<bool> {
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

/// The reading of one window.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    whole: Window,
    /// What is left; the last one is being read.
    left: Vec<Window>,
    cursor: Option<String>,
    restarts: u32,
}

impl Reading {
    pub(super) fn new(whole: Window) -> Self {
        Self { whole, left: vec![whole], cursor: None, restarts: 0 }
    }

    /// What to ask for.
    pub(super) fn request(&self) -> (Window, Option<&str>) {
        (self.left.last().copied().unwrap_or(self.whole), self.cursor.as_deref())
    }

    /// Takes note of the page that was asked for.
    pub(super) fn take(&mut self, page: &Page) -> Next {
        // A cursor that leads to its own page leads nowhere.
        if page.next_cursor.is_some() && page.next_cursor != self.cursor {
            self.cursor.clone_from(&page.next_cursor);
            return Next::More;
        }
        self.cursor = None;
        let read = self.left.pop();
        if let (false, Some(window)) = (page.is_last(), read) {
            self.left.extend(beside(window, page));
        }
        if self.left.is_empty() { Next::Last } else { Next::More }
    }

    /// Begins anew, since the cursor is not known any more; not for ever.
    pub(super) fn restart(&mut self) -> bool {
        self.restarts += 1;
        self.left = vec![self.whole];
        self.cursor = None;
        self.restarts <= RESTARTS
    }
}

/// What lies on either side of the page. A side that is no smaller than the window is left out:
/// asking for it again would bring the same page.
fn beside(window: Window, page: &Page) -> impl Iterator<Item = Window> {
    let sides = page.ends.map(|(first, last)| {
        let (newer, older) =
            (Window { oldest: last, ..window }, Window { latest: first, ..window });
        [newer, older]
    });
    let is_less = move |side: &Window| *side != window && side.oldest < side.latest;
    sides.into_iter().flatten().filter(is_less)
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

    fn now() -> Timestamp {
        Timestamp::from_seconds(100_000)
    }

    #[test]
    fn the_first_window_looks_back_and_the_next_ones_overlap() {
        let first = Window::next(None, None, now(), SETTINGS);
        assert_eq!(first, Window { oldest: at(13_600), latest: at(100_000) });
        assert_eq!(first.committed(SETTINGS.settle), at(99_970));
        let next = Window::next(Some(at(99_970)), None, now(), SETTINGS);
        assert_eq!(next.oldest, at(99_370));
        let from_now = Settings { first_lookback: Duration::ZERO, ..SETTINGS };
        assert_eq!(Window::next(None, None, now(), from_now).oldest, at(100_000));
    }

    #[test]
    fn a_minute_that_slack_left_out_is_read_too() {
        let early = Window::next(Some(at(99_970)), Some(at(90_000)), now(), SETTINGS);
        assert_eq!(early.oldest, at(90_000));
        let covered = Window::next(Some(at(99_970)), Some(at(99_900)), now(), SETTINGS);
        assert_eq!(covered.oldest, at(99_370));
    }

    #[test]
    fn a_clock_before_the_cursor_gives_no_window_that_is_upside_down() {
        let window = Window::next(Some(at(500_000)), None, now(), SETTINGS);
        assert_eq!(window.oldest, window.latest);
    }

    #[test]
    fn fifteen_of_two_hundred_with_more_to_come_is_the_limited_profile() {
        let page = |count, has_more| Page { count, has_more, ..Page::default() }.is_limited();
        assert_eq!(page(15, true), Some(true));
        assert_eq!(page(15, false), None, "there may just be fifteen");
        assert_eq!(page(14, true), Some(false));
        assert_eq!(page(16, false), Some(false));
        assert_eq!(page(200, true), Some(false));
        assert_eq!(page(0, false), None);
    }

    #[test]
    fn more_without_a_page_or_a_place_ends_the_window() {
        let mut reading = Reading::new(Window { oldest: at(1), latest: at(9) });
        let lost = Page { has_more: true, ..Page::default() };
        assert_eq!(reading.take(&lost), Next::Last);
    }

    #[test]
    fn a_cursor_that_leads_to_itself_is_none() {
        let mut reading = Reading::new(Window { oldest: at(1), latest: at(9) });
        let page = Page { next_cursor: Some("a=".into()), ..Page::default() };
        assert_eq!(reading.take(&page), Next::More);
        assert_eq!(reading.take(&page), Next::Last);
    }

    #[test]
    fn a_window_is_not_begun_anew_for_ever() {
        let mut reading = Reading::new(Window { oldest: at(1), latest: at(9) });
        let again: Vec<bool> = (0..4).map(|_| reading.restart()).collect();
        assert_eq!(again, [true, true, true, false]);
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
            };
            (given, page)
        }
    }

    proptest! {
        #[test]
        fn every_message_of_the_window_is_read_in_either_order_with_and_without_cursors(
            seconds in prop::collection::btree_set(0_i64..200, 0..60),
            page in 2_usize..20,
            newest_first: bool,
            cursors: bool,
        ) {
            let anchor = if newest_first { Anchor::Newest } else { Anchor::Oldest };
            let slack = Slack { all: seconds.iter().copied().collect(), anchor, page, cursors };
            let window = Window { oldest: at(20), latest: at(180) };
            let (mut reading, mut found, mut asked) = (Reading::new(window), BTreeSet::new(), 0);
            loop {
                let (part, cursor) = reading.request();
                let (given, page) = slack.ask(part, cursor);
                found.extend(given);
                asked += 1;
                prop_assert!(asked < 200);
                if reading.take(&page) == Next::Last {
                    break;
                }
            }
            let expected = seconds.iter().filter(|second| (20..=180).contains(*second));
            prop_assert_eq!(found, expected.copied().collect::<BTreeSet<_>>());
        }
    }
}
