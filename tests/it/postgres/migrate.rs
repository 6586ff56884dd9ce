//! `migrate-store`: a relay goes from its file to the database, and loses nothing on the way.

use super::{Relays, both_ways, cluster::Place, ids, stored};
use crate::{
    harness::soar::{FakeSoar, Mood},
    process::{Process, command, until_all},
};

both_ways! {
    a_relay_moves_to_postgresql_with_what_it_has_not_delivered,
}

async fn a_relay_moves_to_postgresql_with_what_it_has_not_delivered(place: Place) {
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let relays = Relays::new(place.url(), &soar);
    let on_file = tempfile::tempdir().unwrap();
    let yaml = std::fs::read_to_string(relays.folder().join("relay.yaml")).unwrap();
    let (before, after) = yaml.split_once("store:").unwrap();
    let after = after.split_once('\n').unwrap().1;
    std::fs::write(on_file.path().join("relay.yaml"), [before, after].concat()).unwrap();
    let migrate = || {
        let output = command()
            .args(["migrate-store", "--to", "postgres", "--from"])
            .arg(format!("sqlite:{}", on_file.path().join("relay.db").display()))
            .arg("--config")
            .arg(relays.folder().join("relay.yaml"))
            .envs(relays.env.iter().cloned())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };

    let mut old = Process::start(on_file.path(), &relays.env);
    for n in 0..20 {
        assert_eq!(old.post(n).await, Some(200));
    }
    let (code, said) = migrate();
    assert!(code == Some(1) && said.contains("another relay is using the store"), "{said}");
    old.terminate();
    let (code, said) = migrate();
    assert!(code == Some(0) && said.contains("20 deliveries"), "{said}");
    let (code, said) = migrate();
    assert!(code == Some(1) && said.contains("already holds 20 messages"), "{said}");
    assert_eq!(stored(&place.cluster).await.len(), 20);

    // As a retry by hand does: the test need not wait for the next attempt.
    place.cluster.sql("UPDATE relay.deliveries SET due_at = 0").await;
    soar.becomes(Mood::Status(200));
    let new = relays.start();
    assert_eq!(new.post(3).await, Some(200), "known, and taken once");
    let counts = until_all(&soar, &ids(0..20)).await;
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}
