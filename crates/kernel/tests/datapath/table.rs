//! Our nftables table.

use crate::node::{RULESET, on_a_node, run};
use kernel::linux::Linux;
use model::datapath::{Datapath as _, Event};
use std::sync::mpsc;
use std::time::Duration;
#[test]
fn the_table_reads_back_and_every_foreign_change_is_noticed() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let (sender, events) = mpsc::channel();
        linux
            .watch(Box::new(move |event| drop(sender.send(event))))
            .unwrap();
        run("nft add table inet foreign");
        assert_eq!(
            linux.drift(&RULESET).unwrap()[0],
            "nftables table inet workloadnet is missing"
        );
        for damage in [
            "true",
            "nft flush table inet workloadnet",
            "nft delete table inet workloadnet",
            "nft delete table arp workloadnet",
            "nft flush chain arp workloadnet guard",
            "nft flush ruleset",
            "nft delete chain inet workloadnet outbound",
            "nft insert rule inet workloadnet guard accept",
        ] {
            linux.publish(&RULESET).unwrap();
            assert_eq!(linux.drift(&RULESET), Ok(Vec::new()), "{damage}");
            let listed = ["inet", "arp"].map(|family| run(&format!("nft list table {family} workloadnet")));
            assert_eq!(listed.concat(), RULESET.to_string());
            assert_eq!(
                events.try_iter().find(|event| *event == Event::RulesetTouched),
                None,
                "{damage}"
            );
            if damage == "true" {
                assert!(run("nft list tables").contains("foreign"));
                continue;
            }
            if damage.contains("delete chain") {
                run("nft flush chain inet workloadnet outbound");
            }
            run(damage);
            assert_ne!(linux.drift(&RULESET), Ok(Vec::new()), "{damage}");
            while events.recv_timeout(Duration::from_secs(5)).expect(damage) != Event::RulesetTouched {}
            // One change has several notifications; the rest of them belongs to it.
            while events.recv_timeout(Duration::from_millis(200)).is_ok() {}
        }
    });
}
