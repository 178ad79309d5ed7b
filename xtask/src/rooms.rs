//! Who may know whom, as the packages declare it. `sources` checks what the declarations cannot say.
//!
//! ```text
//!  cni, cli -> client -> api, queue        bench -> anything, known by nobody
//!  cli -> migrate
//!   '---> stage --> kernel -> model        stage: known by the demo and by tests
//!  daemon -> api, cluster, model, queue; its main -> kernel
//!  daemon, kernel, queue -> mishap, which is empty in the product
//!  cluster -> model                        fuzz -> all that reads bytes, known by nobody
//! ```

use crate::graph::{Graph, Kind, Package};

/// One of our packages and what it may know of the others.
struct Room {
    name: &'static str,
    knows: &'static [&'static str],
    /// Beside `knows`, for its tests.
    tests_know: &'static [&'static str],
}

const fn room(
    name: &'static str,
    knows: &'static [&'static str],
    tests_know: &'static [&'static str],
) -> Room {
    Room {
        name,
        knows,
        tests_know,
    }
}

const API: &str = "workloadnet-api";
const BENCH: &str = "workloadnet-bench";
const CLIENT: &str = "workloadnet-client";
const CLIENT_TESTS: &str = "workloadnet-client-tests";
const CLI: &str = "workloadnet-cli";
const CLUSTER: &str = "workloadnet-cluster";
const CLUSTER_TESTS: &str = "workloadnet-cluster-tests";
const CNI: &str = "workloadnet-cni";
const DAEMON: &str = "workloadnet-daemon";
const FUZZ: &str = "workloadnet-fuzz";
const KERNEL: &str = "workloadnet-kernel";
const MIGRATE: &str = "workloadnet-migrate";
const MISHAP: &str = "workloadnet-mishap";
const MODEL: &str = "workloadnet-model";
const NEMESIS: &str = "workloadnet-nemesis";
const QUEUE: &str = "workloadnet-queue";
const STAGE: &str = "workloadnet-stage";
const XTASK: &str = "xtask";

const ROOMS: &[Room] = &[
    room(MODEL, &[], &[]),
    room(MIGRATE, &[], &[]),
    room(MISHAP, &[], &[]),
    room(KERNEL, &[MISHAP, MODEL], &[STAGE]),
    room(API, &[], &[]),
    room(QUEUE, &[MISHAP], &[]),
    room(CLIENT, &[API, QUEUE], &[STAGE]),
    room(CLUSTER, &[MODEL], &[STAGE]),
    room(STAGE, &[KERNEL, MODEL], &[]),
    room(CLI, &[CLIENT, MIGRATE, STAGE], &[]),
    room(CNI, &[CLIENT], &[QUEUE, STAGE]),
    room(
        DAEMON,
        &[API, CLUSTER, KERNEL, MISHAP, MODEL, QUEUE],
        &[CLIENT, STAGE],
    ),
    room(BENCH, &[API, CLIENT, KERNEL, MODEL, STAGE], &[]),
    room(
        FUZZ,
        &[API, CLUSTER, CNI, DAEMON, KERNEL, MIGRATE, MODEL, QUEUE],
        &[],
    ),
    room(CLIENT_TESTS, &[], &[API, CLIENT, KERNEL, MODEL, STAGE]),
    room(CLUSTER_TESTS, &[], &[STAGE]),
    room(NEMESIS, &[CLIENT, STAGE], &[]),
    room(XTASK, &[], &[]),
];

/// Everything that `model` may depend on directly.
const MODEL_NEEDS: &[&str] = &["ipnet", "sha2", "thiserror"];

/// Rooms and what may not even be reached from them.
const UNREACHABLE: &[(&str, &[&str], &str)] = &[
    (
        MODEL,
        &[
            "tokio",
            "tonic",
            "libc",
            "rustix",
            "tracing",
            "log",
            "mio",
            "netlink-sys",
        ],
        "the model is pure",
    ),
    (KERNEL, &["tokio", "tonic", "hyper"], "no async below the door"),
    (STAGE, &["tokio", "tonic"], "the stage is sync, as the kernel is"),
    (CLIENT, &["netlink-sys", "rustix"], "a client only translates"),
    (CNI, &["netlink-sys", "rustix"], "the plugin only translates"),
    (
        CLUSTER,
        &["netlink-sys"],
        "the cluster's room only listens and tells",
    ),
];

/// Every way in which the packages break the rules.
pub(crate) fn violations(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (id, package) in graph.ours() {
        match ROOMS.iter().find(|room| room.name == package.name) {
            Some(room) => found.extend(neighbours(graph, id, room)),
            None => found.push(format!(
                "{} is in no room: add it to xtask/src/rooms.rs",
                package.name
            )),
        }
        if package.name == MODEL {
            let foreign = graph.direct(id, &[Kind::Normal, Kind::Build]);
            let unexpected =
                foreign.filter(|need| !need.is_ours() && !MODEL_NEEDS.contains(&need.name.as_str()));
            found.extend(unexpected.map(|need| format!("{MODEL} may not need {}: it is pure", need.name)));
        }
        let ways = graph.ways(id);
        for (_, unreachable, why) in UNREACHABLE.iter().filter(|(name, ..)| *name == package.name) {
            found.extend(
                unreachable
                    .iter()
                    .filter_map(|name| ways.get(*name))
                    .map(|way| format!("{way}: {why}")),
            );
        }
    }
    found
}

fn neighbours(graph: &Graph, id: &str, room: &Room) -> Vec<String> {
    let is_known = |need: &&Package| need.is_ours() && need.name != room.name;
    let mut found = Vec::new();
    for need in graph.direct(id, &[Kind::Normal, Kind::Build]).filter(is_known) {
        if !room.knows.contains(&need.name.as_str()) {
            found.push(format!("{} may not know {}", room.name, need.name));
        }
    }
    for need in graph.direct(id, &[Kind::Dev]).filter(is_known) {
        let name = need.name.as_str();
        if !room.knows.contains(&name) && !room.tests_know.contains(&name) {
            found.push(format!("the tests of {} may not know {name}", room.name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::fake;

    fn found(lines: &str) -> Vec<String> {
        violations(&fake(lines))
    }

    #[test]
    fn the_rooms_as_designed_are_in_order() {
        let rooms = "
            workloadnet-model: ipnet, sha2, thiserror, proptest(dev)
            workloadnet-kernel: workloadnet-model, rustix, workloadnet-stage(dev)
            workloadnet-api: tonic, protox(build)
            workloadnet-client: workloadnet-api, tokio
            workloadnet-stage: workloadnet-kernel, workloadnet-model
            workloadnet-cli: workloadnet-client, workloadnet-stage
            workloadnet-daemon: workloadnet-api, workloadnet-kernel, workloadnet-model, workloadnet-stage(dev)
            xtask: spdx
        ";
        assert_eq!(found(rooms), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_neighbour_is_named() {
        assert_eq!(
            found(
                "workloadnet-cli: workloadnet-kernel\n workloadnet-kernel: workloadnet-model\n workloadnet-model:"
            ),
            ["workloadnet-cli may not know workloadnet-kernel"]
        );
        assert_eq!(
            found("workloadnet-daemon: workloadnet-stage\n workloadnet-stage:"),
            ["workloadnet-daemon may not know workloadnet-stage"]
        );
        assert_eq!(
            found("workloadnet-model: workloadnet-stage(dev)\n workloadnet-stage:"),
            ["the tests of workloadnet-model may not know workloadnet-stage"]
        );
    }

    #[test]
    fn the_model_has_a_closed_list_of_needs() {
        assert_eq!(
            found("workloadnet-model: rand"),
            ["workloadnet-model may not need rand: it is pure"]
        );
        assert_eq!(
            found("workloadnet-model: cc(build)"),
            ["workloadnet-model may not need cc: it is pure"]
        );
    }

    #[test]
    fn async_below_the_door_is_found_at_any_depth() {
        let mut graph = fake("workloadnet-kernel: between");
        graph
            .packages
            .insert("tokio".to_owned(), graph.packages["between"].clone());
        graph.packages.get_mut("tokio").unwrap().name = "tokio".to_owned();
        let between = graph.packages.get_mut("between").unwrap();
        between.needs.insert((Kind::Normal, "tokio".to_owned()));
        assert_eq!(
            violations(&graph),
            ["workloadnet-kernel -> between -> tokio: no async below the door"]
        );
    }

    #[test]
    fn a_package_without_a_room_is_found() {
        assert_eq!(
            found("workloadnet-extra:"),
            ["workloadnet-extra is in no room: add it to xtask/src/rooms.rs"]
        );
    }
}
