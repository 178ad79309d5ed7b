//! How many connections the door takes, and for how long it keeps one whose peer is silent.

use crate::played::{Played, bounded, ourselves};
use crate::raw::{STATUS, call};
use daemon::door::Bounds;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Nothing here takes this long.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_connection_too_many_waits_for_the_end_of_another_and_is_served_then() {
    let desk = Played::default();
    let bounds = Bounds {
        connections: 2,
        ..Bounds::default()
    };
    let door = bounded(&desk, ourselves(), bounds);
    let (first, second, third) = (door.connection(), door.connection(), door.connection());
    for channel in [&first, &second] {
        call(channel, STATUS, Vec::new()).await.unwrap();
    }
    let mut waiting = std::pin::pin!(call(&third, STATUS, Vec::new()));
    tokio::select! {
        _ = &mut waiting => panic!("a third connection is served"),
        answer = call(&first, STATUS, Vec::new()) => drop(answer.unwrap()),
    }
    tokio::select! {
        _ = &mut waiting => panic!("a third connection is served"),
        () = tokio::time::sleep(Duration::from_millis(100)) => {}
    }
    drop(second);
    tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_answer_a_ping_is_let_go() {
    let desk = Played::default();
    let bounds = Bounds {
        silence: Duration::from_millis(90),
        ..Bounds::default()
    };
    let door = bounded(&desk, ourselves(), bounds);
    let mut silent = UnixStream::connect(door.folder.path().join("socket"))
        .await
        .unwrap();
    // The preface and empty settings (RFC 9113, section 3.4), and then nothing more.
    silent
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    silent.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut heard = Vec::new();
    tokio::time::timeout(LONG, silent.read_to_end(&mut heard))
        .await
        .unwrap()
        .unwrap();
    // One that answers stays.
    let channel = door.connection();
    for _ in 0..3 {
        call(&channel, STATUS, Vec::new()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}
