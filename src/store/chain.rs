//! Chains: the ids that one channel has had. Pure; the engines store them, `intake` uses them.

use std::slice;

use crate::ids::ChannelId;

/// The largest number of ids in a chain. Slack changes an id when a private channel is first
/// shared, so a channel has two ids, hardly ever three.
pub const CHAIN_MAX: usize = 16;

/// Joins two chains, after Slack replaced one of the ids `old` with one of the ids `new`. The
/// result is ordered, oldest first.
///
/// An id that is in both is kept once. Of more than [`CHAIN_MAX`] ids the first one, by which
/// alerts are named, and the newest ones stay.
///
/// ```
/// use slack_soar_relay::{ids::ChannelId, store::joined};
/// let [a, b, c] = ["G1", "C1", "C2"].map(ChannelId::new);
/// let chain = joined(&[a.clone(), b.clone()], &[c.clone()]);
/// assert_eq!(chain, [a.clone(), b.clone(), c]);
/// assert_eq!(joined(&chain, &[a]), chain);
/// ```
pub fn joined(old: &[ChannelId], new: &[ChannelId]) -> Vec<ChannelId> {
    let mut chain: Vec<ChannelId> = Vec::with_capacity(old.len() + new.len());
    for id in old.iter().chain(new) {
        if !chain.contains(id) {
            chain.push(id.clone());
        }
    }
    if chain.len() > CHAIN_MAX {
        chain.drain(1..=chain.len() - CHAIN_MAX);
    }
    chain
}

/// Returns all chains after Slack replaced the id `old` with `new`, and the chain that holds both.
pub fn with_new_id(
    mut chains: Vec<Vec<ChannelId>>,
    old: &ChannelId,
    new: &ChannelId,
) -> (Vec<Vec<ChannelId>>, Vec<ChannelId>) {
    let mut take = |id: &ChannelId| {
        let at = chains.iter().position(|chain| chain.contains(id));
        at.map_or_else(|| vec![id.clone()], |at| chains.swap_remove(at))
    };
    let before = take(old);
    // If both were in one chain, that chain is removed from the list by now.
    let chain = if before.contains(new) {
        before
    } else {
        // `joined` keeps the newest ids, so the id in use must be the last.
        let mut after = take(new);
        after.retain(|id| id != new);
        after.push(new.clone());
        joined(&before, &after)
    };
    chains.push(chain.clone());
    (chains, chain)
}

/// Returns the ids that a channel had before Slack replaced `old` with `new`, or nothing if one of
/// the chains already holds both.
pub(super) fn former_ids<'a>(
    chains: &'a [Vec<ChannelId>],
    old: &'a ChannelId,
    new: &ChannelId,
) -> &'a [ChannelId] {
    let chain = chains.iter().find(|chain| chain.contains(old));
    let former = chain.map_or_else(|| slice::from_ref(old), Vec::as_slice);
    if former.contains(new) { &[] } else { former }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> ChannelId {
        ChannelId::new(&format!("C{number}"))
    }

    #[test]
    fn a_chain_without_surplus_keeps_every_id() {
        let ids: Vec<ChannelId> = (0..16).map(id).collect();
        assert_eq!(joined(&ids, &[]), ids);
        let longer = joined(&ids, &[id(16), id(17)]);
        assert_eq!(longer.len(), CHAIN_MAX);
        assert_eq!((&longer[0], &longer[1], &longer[15]), (&id(0), &id(3), &id(17)));
    }

    proptest! {
        #[test]
        fn chains_are_disjoint_sets_that_hold_both_ids_and_keep_their_first(
            changes in prop::collection::vec((0_u8..40, 0_u8..40), 0..80),
        ) {
            let mut chains = Vec::new();
            for (old, new) in changes {
                let (old, new) = (id(old), id(new));
                let first = chains.iter().find(|chain: &&Vec<ChannelId>| chain.contains(&old));
                let first = first.map_or(old.clone(), |chain| chain[0].clone());
                let (after, chain) = with_new_id(chains, &old, &new);
                prop_assert!(chain.len() <= CHAIN_MAX && chain.contains(&new));
                prop_assert_eq!(&chain[0], &first);
                let mut all: Vec<&ChannelId> = after.iter().flatten().collect();
                let number = all.len();
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), number, "no id is in two chains");
                chains = after;
            }
        }
    }
}
