//! What others took away is put back, whatever fails meanwhile, by the next sweep at the latest.

use crate::effects::{EEXIST, Errors, each, recorded, under};
use crate::world::{GROUP, RULESET, Workload, on_a_node, run, same, sweep, world};
use kernel::linux::Linux;
use model::datapath::{Datapath as _, Fault};
use std::time::{Duration, Instant};

/// A test that waits this long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// As much as can be taken away of a host end without taking it away.
fn damage(link: &str) {
    for line in [
        format!("ip link property del dev {link} altname wk-w0"),
        format!("ip route delete 10.77.0.5 dev {link}"),
        format!("ip -6 route delete fd77::5 dev {link}"),
        format!("ip address flush dev {link}"),
        format!("ip neighbour flush dev {link} nud permanent"),
        format!("ip link set {link} down"),
        format!("ip link set {link} mtu 1300"),
        "nft flush ruleset".to_owned(),
    ] {
        run(&line);
    }
}

/// As the desk does it: past every fault, which is returned.
fn sweep_past_faults(linux: &Linux, workload: &Workload) -> Vec<Fault> {
    let survey = match linux.survey() {
        Ok(survey) => survey,
        Err(fault) => return vec![fault],
    };
    let found = survey
        .links
        .first()
        .expect("what stands is seen in every survey that succeeds");
    let missing = found.missing(&workload.plan.record, &workload.plan.link);
    let mut faults = linux.restore(&workload.target(found.index), &missing);
    match linux.drift(&RULESET) {
        Ok(drift) if drift.is_empty() => {}
        Ok(_) => faults.extend(linux.publish(&RULESET).err()),
        Err(fault) => faults.extend(linux.publish(&RULESET).err().or(Some(fault))),
    }
    faults
}

#[test]
fn what_was_taken_away_is_put_back_whatever_fails_meanwhile() {
    on_a_node(|linux| {
        let workload = Workload::new(linux, 0);
        let index = workload.attach(linux).unwrap();
        let link = workload.plan.link.host.as_str().to_owned();
        let whole = world();
        damage(&link);
        let calls = recorded(|| assert_eq!(sweep_past_faults(linux, &workload), []));
        sweep(linux);
        same(&world(), &whole, &());
        let mut told = 0;
        let cases = each(&calls, Errors::InTurn, |mut mishap| {
            // That it is there already is believed.
            if mishap.errno() == Some(EEXIST) {
                return;
            }
            damage(&link);
            let faults = under(&mut mishap, || sweep_past_faults(linux, &workload));
            told += usize::from(!faults.is_empty());
            if let [fault] = &faults[..] {
                mishap.is_named_in(&fault.to_string());
            }
            let found = linux
                .find(&workload.plan.link.host)
                .unwrap()
                .expect("it is never taken away");
            assert_eq!((found.index, found.group), (index, GROUP), "{mishap:?}");
            // The next sweep; the kernel tells of what follows from a change, and it is looked at again.
            sweep(linux);
            sweep(linux);
            workload.is_whole(linux, &mishap);
            // The kernel makes an address's own route a moment later.
            let start = Instant::now();
            while world() != whole && start.elapsed() < PATIENCE {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            same(&world(), &whole, &(&mishap, &faults));
        });
        println!("{cases} mishaps of {} calls, {told} told", calls.len());
    });
}
