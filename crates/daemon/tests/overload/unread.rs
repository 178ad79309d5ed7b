//! Callers that never read what they are told: long answers, and short ones without number.

use crate::daemon::{Daemon, attach};
use crate::frames::{STREAMS, asked, hello, nth};
use crate::sandbox::Sandbox;
use crate::siege::{Reads, Siege, Stops, Told, flood, pause};
use std::thread;
use std::time::Duration;

const STATUS: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Status";
const LIST: &str = "/workloadnet.v1.Inspection/List";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, section 6.5.2): no answer's message may be sent.
const NO_WINDOW: [(u16, u32); 1] = [(4, 0)];

/// Peers that ask for the same as often as they can, with and without a window, and read nothing.
#[track_caller]
fn withstands(
    siege: &Siege,
    (peers, times): (usize, u32),
    settings: &[(u16, u32)],
    method: &str,
    message: &[u8],
) {
    let (socket, told) = (siege.daemon.socket(), Told::default());
    let says = |n| match n {
        0 => Some(hello(settings)),
        n if n < times => Some(asked(nth(n), method, message)),
        _ => None,
    };
    thread::scope(|scope| {
        let _stops = Stops(&told);
        flood(scope, (&socket, &told), peers, Reads::Nothing, says);
        pause(Duration::from_secs(1));
        siege.serves();
        pause(Duration::from_secs(1));
        siege.serves();
    });
    eprintln!("{method}: {told:?}");
}

/// With as many labels as an attachment may have: a list of them all has about a megabyte.
fn with_a_long_list() -> (Daemon, Vec<Sandbox>) {
    let daemon = Daemon::started();
    let sandboxes: Vec<Sandbox> = (0..40).map(|_| Sandbox::new()).collect();
    for (n, sandbox) in sandboxes.iter().enumerate() {
        let mut request = attach(&format!("w{n}"), sandbox);
        for label in 0..64 {
            request.labels.insert(format!("label-{label}"), "x".repeat(256));
        }
        daemon.caller().attach(request).unwrap();
    }
    (daemon, sandboxes)
}

#[test]
fn long_answers_that_nobody_reads_are_bounded_together() {
    let mut kept = Vec::new();
    let siege = Siege::of(|| {
        let (daemon, sandboxes) = with_a_long_list();
        kept = sandboxes;
        daemon
    });
    withstands(&siege, (16, 100), &NO_WINDOW, LIST, &[]);
    withstands(&siege, (16, 100), &[], LIST, &[]);
    siege.is_withstood_with(41);
}

#[test]
fn files_of_reflection_that_nobody_reads_are_bounded_together() {
    let siege = Siege::new();
    // file_containing_symbol.
    let symbol = "workloadnet.v1.Inspection";
    let message = [&[0x22, u8::try_from(symbol.len()).unwrap()], symbol.as_bytes()].concat();
    withstands(&siege, (16, STREAMS), &NO_WINDOW, REFLECTION, &message);
    siege.is_withstood();
}

#[test]
fn short_answers_without_number_that_nobody_reads_are_bounded_together() {
    let siege = Siege::new();
    withstands(&siege, (8, STREAMS), &NO_WINDOW, STATUS, &[]);
    withstands(&siege, (8, 2 * STREAMS), &[], STATUS, &[]);
    siege.is_withstood();
}
