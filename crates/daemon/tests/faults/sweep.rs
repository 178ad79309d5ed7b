//! What others take away is put back, though a call fails meanwhile.

use crate::node::{Stand, web};
use crate::sandbox::Sandbox;
use crate::seam::{Calls, mishaps};

#[test]
fn what_is_taken_away_is_put_back_whichever_call_fails_meanwhile() {
    let stand = Stand::started();
    let sandbox = Sandbox::new();
    let answer = stand.daemon.caller().attach(web(&sandbox)).unwrap();
    let whole = stand.world();
    stand.seam.record();
    stand.damage(&answer.host_link);
    stand.becomes(&whole, &"before");
    let calls = stand.seam.recorded();
    let mut tried = 0;
    for mishap in mishaps(&calls, Calls::OfAKind, 1) {
        stand.seam.plan(Some(&mishap));
        stand.damage(&answer.host_link);
        stand.becomes(&whole, &mishap);
        tried += usize::from(stand.seam.has_fired());
    }
    println!("{tried} mishaps of {} calls of a sweep", calls.len());
    assert!(tried > 30, "{tried}");
}
