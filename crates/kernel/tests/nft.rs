//! Our nftables table among others: what is put in place, what of it is missed, and whose changes are told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kernel::linux::Linux;
use kernel::netns;
use model::address::Family;
use model::datapath::{Datapath as _, Event};
use model::ports::{Place, PortForward, Protocol};
use model::ruleset::Ruleset;
use model::spared::Spared;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

const WITH_MASQUERADE: Ruleset = Ruleset::new(8, true);
const WITHOUT: Ruleset = Ruleset::new(8, false);

fn on_a_node(test: impl FnOnce(Linux) + Send) {
    let node = netns::create().unwrap();
    netns::within(node.as_fd(), || test(Linux::open(8).unwrap())).unwrap();
}

/// Runs `nft` with one command, which it parses itself.
fn nft(command: &str) -> String {
    nft_with(&[command])
}

/// Our tables as `nft` lists them.
fn listed() -> String {
    ["inet", "arp"]
        .map(|family| nft(&format!("list table {family} workloadnet")))
        .concat()
}

fn nft_with(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "nft {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What is wrong with our table, once it stood as published and then something was done to it.
fn drift_after(linux: &Linux, damages: &[&str]) -> Vec<String> {
    linux.publish(&WITH_MASQUERADE).unwrap();
    assert_eq!(linux.drift(&WITH_MASQUERADE), Ok(Vec::new()));
    for damage in damages {
        nft(damage);
    }
    linux.drift(&WITH_MASQUERADE).unwrap()
}

#[test]
fn every_damage_is_told_in_words() {
    let cases: [(&[&str], &[&str]); 14] = [
        (
            &["delete table inet workloadnet"],
            &["nftables table inet workloadnet is missing"],
        ),
        (
            &["flush ruleset"],
            &[
                "nftables table inet workloadnet is missing",
                "nftables table arp workloadnet is missing",
            ],
        ),
        (
            &["delete table arp workloadnet"],
            &["nftables table arp workloadnet is missing"],
        ),
        (
            &["flush table arp workloadnet"],
            &["nftables chain guard of the table for ARP has 0 rules instead of 2"],
        ),
        (
            &["flush table inet workloadnet"],
            &[
                "nftables chain pieces has 0 rules instead of 2",
                "nftables chain guard has 0 rules instead of 15",
                "nftables chain told has 0 rules instead of 2",
                "nftables chain ports has 0 rules instead of 6",
                "nftables chain own_ports has 0 rules instead of 6",
                "nftables chain returns has 0 rules instead of 3",
                "nftables chain outbound has 0 rules instead of 3",
            ],
        ),
        (
            &["delete table inet workloadnet", "add table inet workloadnet"],
            &[
                "nftables chain pieces is missing",
                "nftables chain guard is missing",
                "nftables chain told is missing",
                "nftables chain ports is missing",
                "nftables chain own_ports is missing",
                "nftables chain returns is missing",
                "nftables chain outbound is missing",
            ],
        ),
        (
            &["insert rule inet workloadnet guard accept"],
            &["nftables chain guard has 16 rules instead of 15"],
        ),
        (
            &["add table inet workloadnet { flags dormant; }"],
            &["nftables table inet workloadnet is dormant"],
        ),
        (
            &["add chain inet workloadnet guard { policy drop; }"],
            &["nftables chain guard is not `type filter hook prerouting priority raw; policy accept;`"],
        ),
        (
            &["add chain inet workloadnet another { type filter hook forward priority 0; policy drop; }"],
            &["nftables chain another is none of ours"],
        ),
        (
            &[
                "flush chain inet workloadnet outbound",
                "delete chain inet workloadnet outbound",
                "add chain inet workloadnet outbound { type nat hook postrouting priority 99; policy accept; }",
                "add rule inet workloadnet outbound iifgroup 8 ip daddr @cluster4 accept",
                "add rule inet workloadnet outbound iifgroup 8 ip6 daddr @cluster6 accept",
                "add rule inet workloadnet outbound iifgroup 8 oifgroup != 8 masquerade",
            ],
            &["nftables chain outbound is not `type nat hook postrouting priority srcnat; policy accept;`"],
        ),
        (
            &[
                "flush chain inet workloadnet outbound",
                "delete chain inet workloadnet outbound",
                "add chain inet workloadnet outbound",
                "add rule inet workloadnet outbound iifgroup 8 ip daddr @cluster4 accept",
                "add rule inet workloadnet outbound iifgroup 8 ip6 daddr @cluster6 accept",
                "add rule inet workloadnet outbound iifgroup 8 oifgroup != 8 accept",
            ],
            &[
                "nftables chain outbound is not `type nat hook postrouting priority srcnat; policy accept;`",
                "nftables chain outbound: a rule is not `iifgroup 8 oifgroup != 8 masquerade`",
            ],
        ),
        (
            &[
                "flush chain inet workloadnet outbound",
                "add rule inet workloadnet outbound iifgroup 8 ip daddr @cluster4 accept",
                "add rule inet workloadnet outbound iifgroup 8 ip6 daddr @cluster6 accept",
                "add rule inet workloadnet outbound iifgroup 8 oifgroup != 9 masquerade",
            ],
            &["nftables chain outbound: a rule is not `iifgroup 8 oifgroup != 8 masquerade`"],
        ),
        (
            &[
                "flush chain inet workloadnet outbound",
                "add rule inet workloadnet outbound iifgroup 8 ip daddr @cluster4 accept",
                "add rule inet workloadnet outbound iifgroup 8 ip6 daddr @cluster6 accept",
                "add rule inet workloadnet outbound iifgroup 8 oifgroup != 8 masquerade random",
            ],
            &["nftables chain outbound: a rule is not `iifgroup 8 oifgroup != 8 masquerade`"],
        ),
    ];
    on_a_node(|linux| {
        for (damages, words) in cases {
            assert_eq!(drift_after(&linux, damages), words, "{damages:?}");
        }
        // Each is mended by publishing again.
        assert!(drift_after(&linux, &[]).is_empty());
    });
}

#[test]
fn a_rule_that_nft_put_back_is_no_drift() {
    on_a_node(|linux| {
        // Of this rule nft makes the same expressions; where it asks for the family once more, it does not.
        linux.publish(&WITH_MASQUERADE).unwrap();
        nft("flush chain inet workloadnet outbound");
        nft("add rule inet workloadnet outbound iifgroup 8 ip daddr @cluster4 accept");
        nft("add rule inet workloadnet outbound iifgroup 8 ip6 daddr @cluster6 accept");
        nft("add rule inet workloadnet outbound iifgroup 8 oifgroup != 8 masquerade");
        assert_eq!(linux.drift(&WITH_MASQUERADE), Ok(Vec::new()));
    });
}

#[test]
fn masquerade_that_is_switched_off_goes() {
    on_a_node(|linux| {
        linux.publish(&WITH_MASQUERADE).unwrap();
        assert_eq!(
            linux.drift(&WITHOUT).unwrap(),
            ["nftables chain outbound is none of ours"]
        );
        linux.publish(&WITHOUT).unwrap();
        assert_eq!(linux.drift(&WITHOUT), Ok(Vec::new()));
        assert_eq!(listed(), WITHOUT.to_string());
        assert_eq!(
            linux.drift(&WITH_MASQUERADE).unwrap(),
            ["nftables chain outbound is missing"]
        );
    });
}

#[test]
fn tables_of_others_stay_as_they_are_and_are_nothing_to_us() {
    on_a_node(|linux| {
        let (sender, events) = mpsc::channel();
        linux
            .watch(Box::new(move |event| drop(sender.send(event))))
            .unwrap();
        // Among them one with our name in another family.
        for table in ["ip workloadnet", "inet others", "ip6 others"] {
            nft(&format!("add table {table}"));
            nft(&format!(
                "add chain {table} guard {{ type filter hook input priority 0; policy accept; }}"
            ));
            nft(&format!("add rule {table} guard counter accept"));
            nft(&format!("add set {table} some {{ type inet_service; }}"));
            nft(&format!("add element {table} some {{ 22, 80 }}"));
        }
        let others = || {
            ["ip workloadnet", "inet others", "ip6 others"].map(|table| {
                let words: Vec<&str> = ["-j", "-a", "list", "table"]
                    .into_iter()
                    .chain(table.split(' '))
                    .collect();
                nft_with(&words)
            })
        };
        let before = others();
        linux.publish(&WITH_MASQUERADE).unwrap();
        linux.publish(&WITH_MASQUERADE).unwrap();
        assert_eq!(linux.drift(&WITH_MASQUERADE), Ok(Vec::new()));
        assert_eq!(others(), before);
        assert_eq!(listed(), WITH_MASQUERADE.to_string());
        let tunnelled = Ruleset {
            tunnel: Some(4789),
            ..WITH_MASQUERADE
        };
        assert_ne!(linux.drift(&tunnelled), Ok(Vec::new()));
        linux.publish(&tunnelled).unwrap();
        assert_eq!(linux.drift(&tunnelled), Ok(Vec::new()));
        assert_eq!(listed(), tunnelled.to_string());
        linux.publish(&WITH_MASQUERADE).unwrap();
        nft("delete table ip workloadnet");
        nft("delete table inet others");
        let touched = |events: &mpsc::Receiver<Event>| {
            std::iter::from_fn(|| events.recv_timeout(Duration::from_millis(300)).ok())
                .any(|event| event == Event::RulesetTouched)
        };
        assert!(!touched(&events), "nobody touched our table but we");
        nft("add chain inet workloadnet guard { policy drop; }");
        assert!(touched(&events), "somebody did");
    });
}

fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn prefixes_of_the_cluster_are_in_sets_that_change_alone_and_come_back_with_the_table() {
    on_a_node(|linux| {
        let before = [
            "10.0.0.0/8",
            "10.0.0.0/24",
            "11.0.0.0/24",
            "11.0.1.0/24",
            "fd00::/64",
        ];
        let mut ruleset = Ruleset {
            spared: Spared::new(nets(&before)),
            ..WITH_MASQUERADE
        };
        linux.publish(&ruleset).unwrap();
        assert_eq!(linux.drift(&ruleset), Ok(Vec::new()));
        let set = |name: &str| nft(&format!("list set inet workloadnet {name}"));
        assert!(
            set("cluster4").contains("{ 10.0.0.0/8, 11.0.0.0/24,\n\t\t\t     11.0.1.0/24 }"),
            "{}",
            set("cluster4")
        );
        // The wide one goes, and what was inside it comes; its neighbours stay.
        let after = Spared::new(nets(&[
            "10.0.0.0/24",
            "10.0.1.0/24",
            "11.0.1.0/24",
            "fd00::/64",
            "fd01::/64",
        ]));
        let (gone, came) = ruleset.spared.differences(&after);
        linux.spare(&gone, &came).unwrap();
        ruleset.spared = after;
        assert_eq!(linux.drift(&ruleset), Ok(Vec::new()));
        assert!(set("cluster6").contains("fd01::/64"));
        for damage in [
            "delete element inet workloadnet cluster4 { 11.0.1.0/24 }",
            "add element inet workloadnet cluster6 { fd09::/64 }",
            "flush set inet workloadnet cluster4",
        ] {
            nft(damage);
            assert_ne!(linux.drift(&ruleset), Ok(Vec::new()), "{damage}");
            linux.publish(&ruleset).unwrap();
            assert_eq!(linux.drift(&ruleset), Ok(Vec::new()), "{damage}");
        }
        // What cannot be done changes nothing.
        let fault = linux
            .spare(&nets(&["12.0.0.0/24"]), &nets(&["13.0.0.0/24"]))
            .unwrap_err();
        assert!(fault.tried.contains("12.0.0.0/24"), "{fault}");
        assert_eq!(linux.drift(&ruleset), Ok(Vec::new()));
        // More than fits into one message, by far.
        let many = (0..20_000_u32)
            .map(|n| ipnet::IpNet::new(std::net::Ipv4Addr::from(0x0b00_0000 + n * 256).into(), 24).unwrap());
        ruleset.spared = Spared::new(many);
        linux.publish(&ruleset).unwrap();
        assert_eq!(linux.drift(&ruleset), Ok(Vec::new()));
    });
}

#[test]
fn who_opens_a_port_of_a_table_that_somebody_deleted_puts_in_what_was_spared_since_it_was_published() {
    on_a_node(|linux| {
        let before = Ruleset {
            spared: Spared::new(nets(&["10.0.0.0/24", "10.0.1.0/24"])),
            ..WITH_MASQUERADE
        };
        linux.publish(&before).unwrap();
        let after = Ruleset {
            spared: Spared::new(nets(&["10.0.1.0/24", "fd01::/64"])),
            ..WITH_MASQUERADE
        };
        let (gone, came) = before.spared.differences(&after.spared);
        linux.spare(&gone, &came).unwrap();
        nft("delete table inet workloadnet");
        let forward = PortForward {
            place: Place {
                family: Family::V4,
                protocol: Protocol::Tcp,
                port: 8080,
                address: None,
            },
            to: ([10, 77, 0, 2].into(), 80),
        };
        linux.set_forwards(100_000, &[forward]).unwrap();
        assert_eq!(linux.drift(&after), Ok(Vec::new()));
    });
}

#[test]
fn the_cni_plugins_masquerade_rules_are_read_and_left_alone() {
    on_a_node(|linux| {
        assert_eq!(linux.masquerade_rules(), Ok(Vec::new()));
        // As ptp 1.9.1 makes them where it finds no iptables; one without a comment is nobody's.
        let comment = "a6d96fa05fb243a1-f4d01f2ef4b92245, net: old, if: eth0, id: c1";
        let rules = format!(
            r#"table inet cni_plugins_masquerade {{
                   chain masq_checks {{
                       ip saddr 10.1.0.2 ip daddr != 10.1.0.0/24 masquerade comment "{comment}"
                       ip6 saddr fd01::2 ip6 daddr != fd01::/64 masquerade comment "{comment}"
                       counter
                   }}
                   chain postrouting {{ type nat hook postrouting priority srcnat; goto masq_checks comment "not of that chain"; }}
               }}"#
        );
        nft(&rules);
        let before = nft_with(&["-a", "list", "table", "inet", "cni_plugins_masquerade"]);
        let found = linux.masquerade_rules().unwrap();
        assert_eq!(found.len(), 2, "{found:#?}");
        for rule in &found {
            assert_eq!(rule.comment, comment);
            let shown = format!("comment \"{comment}\" # handle {}\n", rule.handle);
            assert_eq!(before.matches(&shown).count(), 1, "{before}");
        }
        assert_ne!(found[0].handle, found[1].handle);
        assert_eq!(
            nft_with(&["-a", "list", "table", "inet", "cni_plugins_masquerade"]),
            before
        );
    });
}
