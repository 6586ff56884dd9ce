//! Describes the bots that have posted incidents, and the `bots` key that allows only them.

use std::collections::{BTreeMap, BTreeSet};

use super::terminal::harmless;
use crate::{
    clock::{Timestamp, rough},
    intake::posters::TEST_BOT,
    ops::view::Bot,
};

/// Maximum number of bots that are listed.
const SHOWN: usize = 5;

/// Lists each bot with the number and the newest of its incidents; `None` if there are no bots.
pub(super) fn seen(bots: &[Bot], now: Timestamp) -> Option<String> {
    // A bot may post in several channels: the counts are added up.
    let mut all: BTreeMap<&str, (u64, Timestamp)> = BTreeMap::new();
    for bot in real(bots) {
        let (incidents, last) = all.entry(id(bot)).or_insert((0, bot.last));
        *incidents += bot.incidents;
        *last = (*last).max(bot.last);
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, (_, last))| std::cmp::Reverse(*last));
    let line = |(id, (incidents, last)): &(&str, (u64, Timestamp))| {
        let noun = if *incidents == 1 { "incident" } else { "incidents" };
        format!("{} ({incidents} {noun}, {} ago)", harmless(id), rough(now.since(*last)))
    };
    let mut lines: Vec<String> = all.iter().take(SHOWN).map(line).collect();
    if all.len() > SHOWN {
        lines.push(format!("and {} more", all.len() - SHOWN));
    }
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Returns the `bots` key for the configuration of the app.
pub(super) fn allow(bots: &[Bot]) -> String {
    let is_id = |id: &&str| id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let ids: BTreeSet<&str> = real(bots).map(id).filter(is_id).collect();
    format!("bots: [{}]", ids.into_iter().collect::<Vec<_>>().join(", "))
}

/// Returns all bots except the fictitious one of `send-test`.
fn real(bots: &[Bot]) -> impl Iterator<Item = &Bot> {
    bots.iter().filter(|bot| bot.bot_id != TEST_BOT && !id(bot).is_empty())
}

/// Returns the id of the bot's app, or else of the bot.
fn id(bot: &Bot) -> &str {
    // A reinstalled app keeps its id and gets a new bot.
    if bot.app_id.is_empty() { &bot.bot_id } else { &bot.app_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bots_are_counted_over_channels_and_listed_by_their_apps() {
        let now = Timestamp::from_micros(1_600_000_100_000_000);
        let bot = |bot_id: &str, app_id: &str, channel: &str, incidents, age: i64| Bot {
            bot_id: bot_id.to_owned(),
            app_id: app_id.to_owned(),
            channel: channel.to_owned(),
            incidents,
            last: Timestamp::from_micros(now.micros() - age * 1_000_000),
        };
        let bots = [
            bot("B0VENDOR", "A0VENDOR", "C1", 2, 60),
            bot("B0VENDOR", "A0VENDOR", "C2", 3, 5),
            bot("B0WEBHOOK", "", "C1", 1, 30),
            bot(TEST_BOT, "", "C1", 9, 1),
        ];
        let said = seen(&bots, now).unwrap();
        assert_eq!(said, "A0VENDOR (5 incidents, 5s ago), B0WEBHOOK (1 incident, 30s ago)");
        assert_eq!(allow(&bots), "bots: [A0VENDOR, B0WEBHOOK]");
        assert_eq!(seen(&bots[3..], now), None);
    }
}
