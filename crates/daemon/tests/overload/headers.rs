//! Frames that cost their sender little: headers without end, many and long ones, settings, pings, streams that are reset.

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, LONGEST, PING, RST_STREAM, SETTINGS, asked, call,
    frame, hello, message, nth, plain, remembered,
};
use crate::siege::{Reads, Siege, Stops, Told, flood, pause};
use stage::wait::{PATIENCE, eventually};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

const STATUS: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Status";
const ATTACH: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Attach";
/// CANCEL (RFC 9113, section 7).
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// What becomes of who does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The daemon ends their connection.
    Comes,
    /// It need not.
    MayCome,
}

/// Many do that at once, and the daemon goes on.
#[track_caller]
fn withstands(
    siege: &Siege,
    (peers, reads, end): (usize, Reads, End),
    says: impl Fn(u32) -> Option<Vec<u8>> + Send + Sync,
) {
    let (socket, told) = (siege.daemon.socket(), Told::default());
    let says = &says;
    thread::scope(|scope| {
        let _stops = Stops(&told);
        flood(scope, (&socket, &told), peers, reads, says);
        pause(Duration::from_millis(500));
        for _ in 0..3 {
            siege.serves();
        }
        if end == End::Comes {
            let ended = || told.ended.load(Ordering::Relaxed);
            eventually(PATIENCE, "connections are ended", ended, |&ended| ended >= peers);
        }
    });
    eprintln!("{told:?}");
    siege.is_withstood();
}

#[test]
fn headers_without_end_end_their_connection() {
    let part = plain("a", &"b".repeat(LONGEST - 100));
    withstands(&Siege::new(), (16, Reads::Nothing, End::Comes), |n| {
        Some(match n {
            0 => [hello(&[]), frame(HEADERS, 0, nth(0), &call(STATUS))].concat(),
            _ => frame(CONTINUATION, 0, nth(0), &part),
        })
    });
}

#[test]
fn continuations_of_nothing_end_their_connection() {
    let nothing = frame(CONTINUATION, 0, nth(0), &[]).repeat(1000);
    withstands(&Siege::new(), (16, Reads::Nothing, End::Comes), |n| {
        Some(match n {
            0 => [hello(&[]), frame(HEADERS, 0, nth(0), &call(STATUS))].concat(),
            _ => nothing.clone(),
        })
    });
}

#[test]
fn headers_that_are_too_long_are_refused_or_end_their_connection() {
    let part = plain("a", &"b".repeat(LONGEST - 100));
    withstands(&Siege::new(), (16, Reads::All, End::MayCome), |n| {
        let mut said = match n {
            0 => hello(&[]),
            _ => Vec::new(),
        };
        said.extend(frame(HEADERS, END_STREAM, nth(n), &call(STATUS)));
        said.extend(frame(CONTINUATION, 0, nth(n), &part).repeat(2));
        said.extend(frame(CONTINUATION, END_HEADERS, nth(n), &part));
        Some(said)
    });
}

/// One byte for each header, which the daemon has to keep as long as the call lasts. Their messages never come.
#[test]
fn calls_with_hundreds_of_headers_are_bounded_by_what_these_take() {
    let first = [call(ATTACH), remembered("x", "y")].concat();
    // The first entry of the connection's table (RFC 7541, section 2.3.3).
    let more = [call(ATTACH), vec![0x80 | 62; 400]].concat();
    withstands(&Siege::new(), (4, Reads::All, End::MayCome), |n| match n {
        0 => Some([hello(&[]), frame(HEADERS, END_HEADERS, nth(0), &first)].concat()),
        n if n < 1000 => Some(frame(HEADERS, END_HEADERS, nth(n), &more)),
        _ => None,
    });
}

#[test]
fn settings_and_pings_without_end_hinder_nobody() {
    let settings = frame(SETTINGS, 0, 0, &[]).repeat(500);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(500);
    let siege = Siege::new();
    for flood in [settings, pings] {
        for reads in [Reads::Nothing, Reads::All] {
            withstands(&siege, (16, reads, End::MayCome), |n| {
                Some(match n {
                    0 => hello(&[]),
                    _ => flood.clone(),
                })
            });
        }
    }
}

/// CVE-2023-44487.
#[test]
fn calls_that_are_taken_back_at_once_end_their_connection() {
    withstands(&Siege::new(), (16, Reads::All, End::Comes), |n| {
        let mut said = match n {
            0 => hello(&[]),
            _ => Vec::new(),
        };
        for n in n * 100..(n + 1) * 100 {
            said.extend(asked(nth(n), STATUS, &[]));
            said.extend(frame(RST_STREAM, 0, nth(n), &CANCEL));
        }
        Some(said)
    });
}

#[test]
fn messages_in_pieces_of_nothing_hinder_nobody() {
    let nothing = frame(DATA, 0, nth(0), &[]).repeat(1000);
    withstands(&Siege::new(), (16, Reads::All, End::MayCome), |n| {
        Some(match n {
            0 => [
                hello(&[]),
                frame(HEADERS, END_HEADERS, nth(0), &call(STATUS)),
                frame(DATA, 0, nth(0), &message(&[0; 9])[..5]),
            ]
            .concat(),
            _ => nothing.clone(),
        })
    });
}
