//! What its owner does not know any more.

use crate::fake::World;
use crate::orders::{attach, detach, detach_order, give_detach_order, key, open};
use daemon::desk::order::Detached;
use model::key::Owner;
use std::collections::HashSet;
use std::time::{Duration, Instant};

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
    let mut order = detach_order("dead", None);
    order.before = Some(found.before);
    assert_eq!(
        give_detach_order(&desk, order).outcome().unwrap(),
        Detached::IsNewer
    );
    assert!(desk.get(&key("dead")).unwrap().is_some());
}
