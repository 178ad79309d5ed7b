//! Messages of 4 MB: such as never end, to every service, and such as are complete and full of what takes much room.

use crate::frames::{DATA, END_HEADERS, HEADERS, LONGEST, call, frame, hello, nth};
use crate::requests::{Asker, reason};
use crate::siege::{Reads, Siege, Stops, Told, flood, pause};
use std::thread;
use std::time::Duration;

/// What gRPC's libraries take of anybody, unless they are told otherwise.
const LONG: usize = 4 << 20;
/// What may be sent before the daemon has said that it has read something.
const WINDOW: usize = 1 << 20;

/// One of each service that is served.
const METHODS: [&str; 5] = [
    "/metropolis.node.core.network.workloads.WorkloadNetworking/Attach",
    "/workloadnet.v1.Inspection/CollectGarbage",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[test]
fn messages_without_end_to_any_service_are_bounded_together() {
    let siege = Siege::new();
    for method in METHODS {
        let (socket, told) = (siege.daemon.socket(), Told::default());
        let says = |n| match n {
            0 => Some(hello(&[])),
            1 => {
                // Until the daemon has opened its windows.
                pause(Duration::from_millis(200));
                let mut said = Vec::new();
                said.extend(frame(HEADERS, END_HEADERS, nth(0), &call(method)));
                let mut beginning = vec![0];
                beginning.extend(u32::try_from(LONG).unwrap().to_be_bytes());
                said.extend(frame(DATA, 0, nth(0), &beginning));
                Some(said)
            }
            n if (n as usize) <= WINDOW / LONGEST => Some(frame(DATA, 0, nth(0), &[0; LONGEST])),
            _ => None,
        };
        thread::scope(|scope| {
            let _stops = Stops(&told);
            flood(scope, (&socket, &told), 300, Reads::Nothing, says);
            pause(Duration::from_secs(1));
            siege.serves();
            pause(Duration::from_millis(500));
            siege.serves();
        });
        eprintln!("{method}: {told:?}");
    }
    siege.is_withstood();
}

/// A field with a length and nothing in it, again and again: two bytes, of which a decoder makes a value with pointers.
fn full_of(field: u8) -> Vec<u8> {
    [field << 3 | 2, 0].repeat(LONG / 2 - 8)
}

#[test]
fn messages_full_of_empty_values_are_refused_in_words() {
    let siege = Siege::new();
    let long = [
        // requested_ip, port_mapping, alias, whose numbers take two bytes, as their tags do.
        (METHODS[0], [0x9a, 0x01, 0].repeat(LONG / 3 - 8)),
        (METHODS[0], [0xaa, 0x01, 0].repeat(LONG / 3 - 8)),
        (METHODS[0], [0xba, 0x01, 0].repeat(LONG / 3 - 8)),
        ("/workloadnet.v1.Inspection/CollectGarbage", full_of(2)),
        ("/workloadnet.v1.Inspection/Adopt", full_of(2)),
        ("/workloadnet.v1.Inspection/Adopt", full_of(3)),
        ("/workloadnet.v1.Inspection/SetPrefixes", full_of(1)),
    ];
    for (method, message) in long {
        let asker = Asker::new(&siege.daemon.socket());
        let answers = asker.ask_at_once(8, method, &message, Duration::from_secs(30));
        for answer in answers {
            let refused = answer.unwrap_err();
            let why = reason(&refused);
            assert!(
                ["INVALID_FIELD", "OVERLOADED"].contains(&&*why),
                "{method}: {why}: {refused}"
            );
        }
        eprintln!("{method}: {} MiB", crate::siege::high_water(&siege.daemon) >> 10);
    }
    siege.is_withstood();
}
