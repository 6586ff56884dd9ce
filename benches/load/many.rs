//! Ten destinations in place of one: what they cost the accepting side, and what one of them that
//! hangs costs the others.

use crate::{
    NONE, Place, Table,
    events::Kind,
    generator::{self, Latencies, Sink},
};

const DESTINATIONS: usize = 10;

/// Number of connections that the relay opens to one destination by default.
const CONCURRENCY: u32 = 4;

/// One stall of the disk is met by all deliveries of an event, so that few events make a p99: both
/// cases in turn, so often.
const PAIRS: usize = 4;

pub(crate) async fn destinations(place: &Place<'_>, seconds: u64, table: &mut Table) {
    // Receivers that answer at once would keep the generator's core busy, and measure that.
    let (silent, working) = (Sink::silent().await, Sink::working().await);
    for (sink, name) in [
        (&silent, "incidents, 10 destinations that hang"),
        (&working, "incidents, 10 destinations that answer in 10 ms"),
    ] {
        let one = place.relay(&[sink.address], CONCURRENCY);
        let (one, _used) = one.under(Kind::Incident, seconds).await;
        let ten = place.relay(&[sink.address; DESTINATIONS], CONCURRENCY);
        let (ten, _used) = ten.under(Kind::Incident, seconds).await;
        table.add(name, "share of one's", place.bounds(["0.35", "0.5"], NONE), ten / one);
    }
    let (mut healthy, mut hanging) = (Latencies::default(), Latencies::default());
    for _ in 0..PAIRS {
        healthy.add(latencies(place, false, seconds).await);
        hanging.add(latencies(place, true, seconds).await);
    }
    let name = "of ten destinations one hangs: the others' p99 at 50/s";
    table.add(name, "x if none does", ["1.2", "1"], hanging.p99() / healthy.p99());
}

/// From received by us to received by the SOAR, at nine destinations beside a tenth.
async fn latencies(place: &Place<'_>, tenth_hangs: bool, seconds: u64) -> Latencies {
    let mut nine = Vec::new();
    for _ in 1..DESTINATIONS {
        nine.push(Sink::answering().await);
    }
    let tenth = if tenth_hangs { Sink::silent().await } else { Sink::answering().await };
    let addresses: Vec<_> = nine.iter().chain([&tenth]).map(|sink| sink.address).collect();
    let relay = place.relay(&addresses, CONCURRENCY);
    let sent = generator::open(relay.address, Kind::Incident, 50, seconds).await.at;
    let mut latencies = Latencies::default();
    for sink in &nine {
        sink.has(sent.len() as u64).await;
        latencies.add(sink.latencies(&sent));
    }
    latencies
}
