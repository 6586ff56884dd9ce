//! Promises about channels whose id Slack changes, and about unrouted alerts.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::JoinSet;

use super::{DAY, LEASE, RETENTION, World, alert, app, channel, name};
use crate::{
    ids::{AlertId, ChannelId, MessageTs, TsKey},
    store::{Accepted, AlertQuery, CHAIN_MAX, LookAlike, NewMessage, Source, State},
};

fn under(channel: &ChannelId, message: NewMessage) -> NewMessage {
    let mut message = message;
    message.key.channel = channel.clone();
    message
}

fn new_id(number: usize) -> ChannelId {
    ChannelId::new(&format!("C0NEW{number:06}"))
}

/// Numbers without order, the same in every run.
fn dice(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 40).unwrap()
}

impl World {
    async fn change_id(&self, old: &ChannelId, new: &ChannelId) {
        self.store().replace_channel_id(&app(), old, new).await.unwrap();
    }

    async fn chains(&self) -> Vec<Vec<ChannelId>> {
        self.store().chains(&app()).await.unwrap()
    }

    async fn all_ids(&self) -> Vec<AlertId> {
        let query = AlertQuery { limit: 1000, ..AlertQuery::default() };
        self.store().alerts(query).await.unwrap().into_iter().map(|view| view.id).collect()
    }

    async fn route(&self, id: &AlertId, destinations: &[&str]) -> u64 {
        let names: Vec<_> = destinations.iter().map(|text| name(text)).collect();
        self.store().route(id, &names, None).await.unwrap().made
    }
}

pub(crate) async fn a_message_is_known_under_any_id_of_its_channel(mut w: World) {
    let (old, new) = (channel(), new_id(0));
    // Stored under the new id before the relay learns of the change.
    let early = under(&new, w.message(2));
    assert_eq!(w.accept(w.message(1)).await, Accepted::New { alerts: 1 });
    assert_eq!(w.accept(early.clone()).await, Accepted::New { alerts: 1 });
    w.change_id(&old, &new).await;
    for _ in 0..2 {
        for source in [Source::Push, Source::CatchUp, Source::Backfill] {
            for number in [1, 2] {
                for id in [&old, &new] {
                    let again = NewMessage { source, ..under(id, w.message(number)) };
                    assert_eq!(w.accept(again).await, Accepted::Duplicate, "{number} {id}");
                }
            }
        }
        w.crash();
    }
    let later = under(&new, w.message(3));
    assert_eq!(w.accept(later).await, Accepted::New { alerts: 1 });
    let mut incident = under(&new, w.message(1));
    incident.alerts = vec![alert(0, &["soar"]), alert(1, &["soar"])];
    assert_eq!(w.accept(incident).await, Accepted::New { alerts: 1 }, "an edit brings one more");
    let mut second = w.id(1);
    second.ordinal = 1;
    let early = AlertId { message: early.key, ordinal: 0 };
    let expected = [second, w.id(3), early.clone(), w.id(1)];
    assert_eq!(w.all_ids().await, expected);
    for id in expected {
        for channel in [&old, &new] {
            let mut asked = id.clone();
            asked.message.channel = channel.clone();
            let found = w.store().alert(&asked).await.unwrap();
            assert_eq!(found.map(|view| view.id), Some(id.clone()), "{asked}");
        }
    }
    for text in [old.as_str(), "c0new000000"] {
        let query = AlertQuery { text: Some(text.to_owned()), limit: 9, ..AlertQuery::default() };
        assert_eq!(w.store().alerts(query).await.unwrap().len(), 4, "{text}");
    }
    assert_eq!(w.chains().await, [[old.clone(), new.clone()]]);
    assert_eq!(w.store().channel_ids(&app()).await.unwrap(), [(old.to_string(), new)]);
}

pub(crate) async fn a_batch_brings_a_message_under_two_ids_once(w: World) {
    let (old, new) = (channel(), new_id(0));
    w.change_id(&old, &new).await;
    let batch = vec![under(&new, w.message(1)), w.message(1), under(&new, w.message(1))];
    let results: Vec<_> = w.try_accept(batch).await.into_iter().map(Result::unwrap).collect();
    let once = [Accepted::New { alerts: 1 }, Accepted::Duplicate, Accepted::Duplicate];
    assert_eq!(results, once);
    assert_eq!(w.all_ids().await, [w.id(1)]);
}

pub(crate) async fn a_push_under_another_id_is_not_missed(w: World) {
    let (old, new) = (channel(), new_id(0));
    for number in [1, 2] {
        w.accept(NewMessage { source: Source::CatchUp, ..w.message(number) }).await;
    }
    w.change_id(&old, &new).await;
    w.accept(under(&new, w.message(1))).await;
    let before = MessageTs::from_micros(i64::MAX);
    let missed = w.store().take_unpushed(&app(), before).await.unwrap();
    assert_eq!(missed, [(old, w.message(2).posted_at)]);
}

pub(crate) async fn an_accept_beside_a_change_of_the_id_makes_no_second_alert(w: World) {
    let mut tasks = JoinSet::new();
    let ids: Vec<ChannelId> = std::iter::once(channel()).chain((0..4).map(new_id)).collect();
    // The changes run side by side and come in any order.
    for pair in ids.windows(2) {
        let (store, pair) = (Arc::clone(w.store()), pair.to_vec());
        tasks.spawn(async move {
            store.replace_channel_id(&app(), &pair[0], &pair[1]).await.unwrap();
        });
    }
    for number in 0..40 {
        let (store, message) = (Arc::clone(w.store()), w.message(number));
        tasks.spawn(async move { drop(store.accept(vec![message], None, None).await.unwrap()) });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for id in &ids {
        for number in 0..40 {
            let again = under(id, w.message(number));
            assert_eq!(w.accept(again).await, Accepted::Duplicate);
        }
    }
}

pub(crate) async fn whatever_ids_a_channel_gets_each_message_is_one_alert(mut w: World) {
    let mut state = 7;
    // Two channels, whose ids change, come back and meet.
    let ids: Vec<ChannelId> = (0..CHAIN_MAX + 6).map(new_id).collect();
    let mut stored: BTreeMap<i64, AlertId> = BTreeMap::new();
    let mut chains: Vec<Vec<ChannelId>> = Vec::new();
    for step in 0..200 {
        match dice(&mut state) % 12 {
            0 | 1 => {
                let (old, new) = (dice(&mut state) % ids.len(), dice(&mut state) % ids.len());
                let meets = |id: &ChannelId| {
                    let chain = chains.iter().find(|chain| chain.contains(id));
                    chain.map_or(1, Vec::len)
                };
                // A chain beyond the limit would lose ids, and messages that only these lead to.
                if old != new && meets(&ids[old]) + meets(&ids[new]) <= CHAIN_MAX {
                    w.change_id(&ids[old], &ids[new]).await;
                    chains = w.chains().await;
                }
            }
            2 if step % 3 == 0 => w.crash(),
            _ => {
                let number = i64::try_from(dice(&mut state) % 30).unwrap();
                let posted = stored.get(&number).map(|id| id.message.channel.clone());
                let any = ids[dice(&mut state) % ids.len()].clone();
                // A message that is known comes again under any id that its channel has by now.
                let id = posted.map_or(any.clone(), |posted| {
                    let chain = chains.iter().find(|chain| chain.contains(&posted));
                    chain.map_or(posted, |chain| chain[dice(&mut state) % chain.len()].clone())
                });
                let source = Source::ALL[dice(&mut state) % 3];
                let message = NewMessage { source, ..under(&id, w.message(number)) };
                let accepted = w.accept(message.clone()).await;
                let is_known = stored.contains_key(&number);
                let new = Accepted::New { alerts: 1 };
                let expected = if is_known { Accepted::Duplicate } else { new };
                assert_eq!(accepted, expected, "step {step}: {id}");
                let chain = chains.iter().find(|chain| chain.contains(&id));
                let mut key = message.key;
                key.channel = chain.map_or(id, |chain| chain[0].clone());
                stored.entry(number).or_insert(AlertId { message: key, ordinal: 0 });
            }
        }
    }
    let mut all = w.all_ids().await;
    all.sort();
    let mut expected: Vec<AlertId> = stored.into_values().collect();
    expected.sort();
    assert_eq!(all, expected);
}

pub(crate) async fn a_chain_of_ids_has_an_end(w: World) {
    let ids: Vec<ChannelId> = (0..40).map(new_id).collect();
    for pair in ids.windows(2) {
        w.change_id(&pair[0], &pair[1]).await;
    }
    w.change_id(&ids[39], &ids[38]).await;
    let chains = w.chains().await;
    assert_eq!((chains.len(), chains[0].len()), (1, CHAIN_MAX));
    assert_eq!((&chains[0][0], &chains[0][CHAIN_MAX - 1]), (&ids[0], &ids[39]));
    assert_eq!(w.accept(under(&ids[39], w.message(1))).await, Accepted::New { alerts: 1 });
    assert_eq!(w.accept(under(&ids[0], w.message(1))).await, Accepted::Duplicate);
}

pub(crate) async fn a_message_that_is_known_elsewhere_is_found_by_its_timestamp(w: World) {
    let (other, third) = (new_id(0), ChannelId::new("C0"));
    w.accept_numbers(1..4).await;
    w.accept(under(&other, w.message(3))).await;
    w.accept(under(&third, w.message(5))).await;
    let ts = |number| w.message(number).posted_at;
    let all: Vec<MessageTs> = (0..6).map(ts).collect();
    let look = async |own: &[ChannelId]| w.store().look_alikes(&app(), own, &all).await.unwrap();
    let alike = |number, channel: ChannelId| LookAlike {
        ts: ts(number),
        channel,
        search: Some(w.message(number).alerts[0].search.clone()),
    };
    let here = [alike(1, channel()), alike(2, channel()), alike(5, third.clone())];
    assert_eq!(look(std::slice::from_ref(&other)).await, here, "3 is known here too");
    assert_eq!(look(&[channel()]).await, [alike(5, third.clone())]);
    assert_eq!(look(&[channel(), third]).await, []);
    // A message without a timestamp is not found by one.
    let digest = TsKey::Digest([7; 8]);
    let mut without = w.message(9);
    without.key.ts = digest;
    w.accept(without).await;
    assert_eq!(look(&[other]).await.len(), 3);
}

pub(crate) async fn an_alert_that_nothing_was_routed_to_is_routed_once(mut w: World) {
    let unrouted = |number| NewMessage { alerts: vec![alert(0, &[])], ..w.message(number) };
    w.accept(unrouted(1)).await;
    w.accept(w.message(2)).await;
    let mut tasks = JoinSet::new();
    // Several operators route the same alert at once.
    for _ in 0..8 {
        let (store, id) = (Arc::clone(w.store()), w.id(1));
        tasks.spawn(async move {
            store.route(&id, &[name("soar"), name("chat")], None).await.unwrap().made
        });
    }
    let mut made = 0;
    while let Some(one) = tasks.join_next().await {
        made += one.unwrap();
    }
    assert_eq!(made, 2, "one of them makes both");
    assert_eq!(w.route(&w.id(1), &["pager"]).await, 0);
    assert_eq!(w.route(&w.id(2), &["chat"]).await, 0, "it goes to `soar`, and stays so");
    assert_eq!(w.route(&w.id(3), &["chat"]).await, 0, "there is no such alert");
    w.crash();
    let view = w.store().alert(&w.id(1)).await.unwrap().unwrap();
    let to: Vec<_> = view.deliveries.iter().map(|one| one.destination.to_string()).collect();
    assert_eq!(to, ["chat", "soar"]);
    assert!(view.deliveries.iter().all(|one| one.state == State::Pending));
    w.clock.advance(LEASE);
    assert_eq!(w.lease("soar", 9).await.len(), 2);
    assert_eq!(w.lease("chat", 9).await.len(), 1);
}

pub(crate) async fn an_alert_whose_message_is_gone_is_not_routed(w: World) {
    let unrouted = NewMessage { alerts: vec![alert(0, &[])], ..w.message(1) };
    w.accept(unrouted).await;
    w.clock.advance(8 * DAY);
    assert_eq!(w.store().prune(RETENTION).await.unwrap().messages, 1);
    assert_eq!(w.route(&w.id(1), &["soar"]).await, 0);
    let known = w.store().look_alikes(&app(), &[new_id(0)], &[w.message(1).posted_at]).await;
    assert_eq!(known.unwrap()[0].search, None, "it is known, and not what it was");
}
