//! The desk on a fake datapath: failing at every step, and against a small reference model over any sequence of orders.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fake;
mod left;

use daemon::desk::order::{AttachOrder, Attachment, DetachOrder, Detached, Refusal};
use daemon::desk::{Desk, Settings};
use fake::{Fake, World};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

fn settings() -> Settings {
    Settings {
        group: 8,
        prefixes: ["10.9.0.0/28", "fd09::/64"]
            .map(|prefix| prefix.parse().unwrap())
            .to_vec(),
        mtu: None,
        cool_down: Duration::from_secs(30),
        max_queued: 100,
        masquerade: true,
        memory: None,
        queue: None,
        open_limit: Duration::from_secs(5),
        round: Duration::from_secs(60),
    }
}

fn open(world: &World) -> Arc<Desk<Fake>> {
    let desk = Desk::open(Fake::on(world), settings()).unwrap();
    desk.wait_until_recovered();
    desk
}

fn key(id: &str) -> Key {
    let interface = InterfaceName::new("eth0").unwrap();
    Key::new(Owner::default(), WorkloadId::new(id).unwrap(), interface).unwrap()
}

fn attach(desk: &Arc<Desk<Fake>>, id: &str, path: &str) -> Result<Attachment, Refusal> {
    let (sender, receiver) = mpsc::channel();
    let order = AttachOrder {
        key: key(id),
        path: path.to_owned(),
        mtu: None,
        v4: None,
        v6: None,
        labels: BTreeMap::new(),
        deadline: None,
    };
    desk.attach(order, Box::new(move |outcome| sender.send(outcome).unwrap()));
    receiver.recv_timeout(Duration::from_secs(10)).unwrap()
}

fn detach(desk: &Arc<Desk<Fake>>, id: &str, path: Option<&str>) -> Result<Detached, Refusal> {
    let (sender, receiver) = mpsc::channel();
    let order = DetachOrder {
        key: key(id),
        path: path.map(str::to_owned),
        before: None,
    };
    desk.detach(order, Box::new(move |outcome| sender.send(outcome).unwrap()));
    receiver.recv_timeout(Duration::from_secs(10)).unwrap()
}

/// How full the pools are, for comparing before and after.
fn used(desk: &Desk<Fake>) -> Vec<(u128, u128, u128)> {
    desk.node()
        .prefixes
        .iter()
        .map(|p| (p.used, p.free, p.cooling))
        .collect()
}

#[test]
fn a_failed_attach_at_any_step_leaves_no_trace() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "other", "/n/9").unwrap();
    let mut step = 0;
    loop {
        step += 1;
        let before = (world.text(), used(&desk), desk.list(None).unwrap());
        world.fail_at(Some(step));
        let outcome = attach(&desk, "w", "/n/1");
        world.fail_at(None);
        match outcome {
            Err(Refusal::Wire(_)) => assert_eq!(
                (world.text(), used(&desk), desk.list(None).unwrap()),
                before,
                "step {step}"
            ),
            Err(other) => panic!("step {step}: {other}"),
            Ok(_) => break,
        }
    }
    assert!(step > 15, "an attach has more than {step} steps");
    assert_eq!(detach(&desk, "w", None).unwrap(), Detached::Done);
}

#[test]
fn a_failed_detach_keeps_the_attachment_and_its_addresses() {
    let world = World::default();
    let desk = open(&world);
    let attached = attach(&desk, "w", "/n/1").unwrap();
    let before = used(&desk);
    world.refuse_deletions(true);
    assert!(matches!(detach(&desk, "w", None), Err(Refusal::Kernel(_))));
    assert_eq!(
        (desk.get(&key("w")).unwrap(), used(&desk)),
        (Some(attached), before)
    );
    world.refuse_deletions(false);
    assert_eq!(detach(&desk, "w", None).unwrap(), Detached::Done);
}

#[test]
fn an_order_whose_deadline_has_passed_changes_nothing() {
    let world = World::default();
    let desk = open(&world);
    let (sender, receiver) = mpsc::channel();
    let order = AttachOrder {
        key: key("w"),
        path: "/n/1".to_owned(),
        mtu: None,
        v4: None,
        v6: None,
        labels: BTreeMap::new(),
        deadline: Some(Instant::now()),
    };
    desk.attach(order, Box::new(move |outcome| sender.send(outcome).unwrap()));
    assert!(matches!(receiver.recv().unwrap(), Err(Refusal::TooLate)));
    assert_eq!(world.text(), "");
}

#[test]
fn a_desk_that_stops_refuses_what_comes() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "w", "/n/1").unwrap();
    desk.stop();
    assert!(matches!(attach(&desk, "x", "/n/2"), Err(Refusal::Stopping)));
    assert_eq!(open(&world).list(None).unwrap().len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Attach { id: u8, namespace: u8 },
    Detach { id: u8, namespace: Option<u8> },
    Fail { id: u8, namespace: u8, step: u32 },
    Crash,
    Vanish { namespace: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let (id, namespace) = (|| 0..6_u8, || 0..6_u8);
    prop_oneof![
        5 => (id(), namespace()).prop_map(|(id, namespace)| Step::Attach { id, namespace }),
        3 => (id(), proptest::option::of(namespace())).prop_map(|(id, namespace)| Step::Detach { id, namespace }),
        1 => (id(), namespace(), 1..15_u32).prop_map(|(id, namespace, step)| Step::Fail { id, namespace, step }),
        1 => Just(Step::Crash),
        1 => namespace().prop_map(|namespace| Step::Vanish { namespace }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_sequence_of_orders_and_accidents_ends_as_the_reference_says(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let world = World::default();
        let mut desk = open(&world);
        // Of each id: its namespace, and its addresses.
        let mut reference: BTreeMap<u8, (u8, String)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Attach { id, namespace } | Step::Fail { id, namespace, .. } => {
                    if let Step::Fail { step, .. } = step {
                        world.fail_at(Some(step));
                    }
                    let outcome = attach(&desk, &format!("w{id}"), &format!("/n/{namespace}"));
                    world.fail_at(None);
                    let taken = reference.iter().any(|(other, (n, _))| *other != id && *n == namespace);
                    match (outcome, reference.get(&id)) {
                        (Ok(attached), Some((n, addresses))) => {
                            prop_assert_eq!((*n, addresses), (namespace, &attached.addresses().to_string()));
                        }
                        (Ok(attached), None) => {
                            prop_assert!(!taken, "eth0 is inside already");
                            reference.insert(id, (namespace, attached.addresses().to_string()));
                        }
                        (Err(Refusal::Different { .. }), Some((n, _))) => prop_assert_ne!(*n, namespace),
                        (Err(Refusal::Wire(_)), None) => {
                            let fails = matches!(step, Step::Fail { .. });
                            prop_assert!(taken || fails, "refused for no reason");
                        }
                        (Err(other), _) => prop_assert!(false, "{other}"),
                    }
                }
                Step::Detach { id, namespace } => {
                    let path = namespace.map(|n| format!("/n/{n}"));
                    let outcome = detach(&desk, &format!("w{id}"), path.as_deref()).unwrap();
                    let expected = match (reference.get(&id), namespace) {
                        (None, _) => Detached::WasAbsent,
                        (Some((n, _)), Some(named)) if *n != named => Detached::IsNewer,
                        (Some(_), _) => Detached::Done,
                    };
                    prop_assert_eq!(outcome, expected);
                    if expected == Detached::Done {
                        reference.remove(&id);
                    }
                }
                Step::Crash => {
                    world.forget_the_daemon();
                    desk = open(&world);
                }
                Step::Vanish { namespace } => {
                    world.vanish(&format!("/n/{namespace}"));
                    reference.retain(|_, (n, _)| *n != namespace);
                }
            }
            let listed: BTreeMap<u8, String> = desk
                .list(None).unwrap()
                .iter()
                .map(|a| (a.key().workload().as_str()[1..].parse().unwrap(), a.addresses().to_string()))
                .collect();
            let expected: BTreeMap<u8, String> =
                reference.iter().map(|(id, (_, addresses))| (*id, addresses.clone())).collect();
            prop_assert_eq!(&listed, &expected);
            prop_assert_eq!(world.links(), expected.len());
            prop_assert_eq!(desk.node().prefixes[0].used, expected.len() as u128);
            prop_assert_eq!(desk.check(None).unwrap(), Some(Vec::new()));
        }
    }
}

#[test]
fn garbage_is_what_its_owner_does_not_know_and_had_before_the_call_began() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "lives", "/n/1").unwrap();
    attach(&desk, "dead", "/n/2").unwrap();
    let began = Instant::now();
    attach(&desk, "young", "/n/3").unwrap();
    let valid = HashSet::from([key("lives")]);
    let found = desk.garbage(&Owner::default(), &valid, began.elapsed()).unwrap();
    assert_eq!(found.keys, [key("dead")]);
    let of_others = desk.garbage(&Owner::new("k8s.io").unwrap(), &HashSet::new(), Duration::ZERO);
    assert_eq!(of_others.unwrap().keys, []);

    // What was attached anew meanwhile is not what was found.
    detach(&desk, "dead", None).unwrap();
    attach(&desk, "dead", "/n/2").unwrap();
    let (sender, receiver) = mpsc::channel();
    let order = DetachOrder {
        key: key("dead"),
        path: None,
        before: Some(found.before),
    };
    desk.detach(order, Box::new(move |outcome| sender.send(outcome).unwrap()));
    assert_eq!(receiver.recv().unwrap().unwrap(), Detached::IsNewer);
    assert!(desk.get(&key("dead")).unwrap().is_some());
}
