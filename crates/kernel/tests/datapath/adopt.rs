//! A link of somebody else's, given back.

use crate::node::{on_a_node, run};
use kernel::linux::Linux;
use model::datapath::Datapath as _;
use model::op::{Ipv4Conf, Mark, Op};
use model::survey::FoundLink;

#[test]
fn what_cannot_be_given_back_hinders_nothing_but_that_it_is_forgotten_how_the_link_was() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        run("ip link add other type bridge");
        run("ip link add veth1 index 77 type veth peer name eth0");
        for name in ["claim", "was"] {
            run(&format!("ip link property add dev veth1 altname {name}"));
        }
        run("ip link set veth1 group 8 alias record");
        let link = FoundLink {
            name: "veth1".to_owned(),
            index: 77,
            mtu: 1500,
            ..FoundLink::default()
        };
        let mark = Op::Mark(Mark {
            alias: String::new(),
            group: 3,
            v4: Ipv4Conf {
                forwarding: 0,
                rp_filter: 0,
                accept_redirects: 1,
                send_redirects: 1,
            },
        });
        let drop = |name: &str| Op::DropName(name.to_owned());
        // Another link has the name.
        let fails = Op::Claim("other".to_owned());

        let ops = [fails.clone(), mark.clone(), drop("claim"), drop("was")];
        let before = run("ip -d link show dev veth1");
        let fault = linux.change(&link, &ops).unwrap_err();
        assert_eq!(run("ip -d link show dev veth1"), before, "a change ends there");

        assert_eq!(linux.give_back(&link, &ops), Err(fault));
        let shown = run("ip -d link show dev veth1");
        assert!(
            shown.contains("group 3") && !shown.contains("alias") && !shown.contains("claim"),
            "{shown}"
        );
        assert!(shown.contains("altname was"), "{shown}");
        assert_eq!(linux.give_back(&link, &ops[1..]), Ok(()));
        assert!(!run("ip link show dev veth1").contains("altname"));
    });
}
