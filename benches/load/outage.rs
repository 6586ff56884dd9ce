//! Time until a destination that has come back is used again.

use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use crate::{
    Place, Table,
    events::Kind,
    generator::{self, Sink},
};

/// Incidents that wait for the end of the outage.
const WAITING: u64 = 1_000;

/// The destination refuses every connection for so long, then takes them.
pub(crate) async fn measure(place: &Place<'_>, seconds: u64, table: &mut Table) {
    // A bound socket that does not listen refuses connections and keeps its port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let relay = place.relay(&[socket.local_addr().unwrap()], 4);
    generator::count(relay.address, Kind::Incident, WAITING).await;
    println!("an outage of {seconds} s");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let sink = Sink::answering_on(socket.listen(1024).unwrap());
    let back = Instant::now();
    sink.has(1).await;
    table.add("network outage: first delivery after", "s", ["15", ""], seconds_since(back));
    sink.has(WAITING).await;
    table.add("network outage: 1,000 deliveries after", "s", ["", ""], seconds_since(back));
}

fn seconds_since(instant: Instant) -> f64 {
    instant.elapsed().as_secs_f64()
}
