//! For people: columns that fit their contents, and `name value` lines.

use super::{address, addresses, mac, prefix_state, state};
use client::inspection::{Attachment, Finding, GetNodeResponse, HostPort, Key};
use client::workload::AttachResponse;
use comfy_table::{Table, presets};
use std::collections::{HashMap, HashSet};

/// Ports of one attachment that a list shows.
const SHOWN_PORTS: usize = 3;

/// What stands where there is nothing, so that columns can be told apart.
const NOTHING: &str = "-";

pub(super) fn status(unready: &[String]) -> String {
    if unready.is_empty() {
        return "ready\n".to_owned();
    }
    let conditions = unready.iter().map(|why| format!("  {why}\n"));
    format!("not ready:\n{}", conditions.collect::<String>())
}

pub(super) fn list(all: &[Attachment], owner: Option<&str>) -> String {
    if all.is_empty() {
        return match owner {
            None => "nothing is attached\n".to_owned(),
            Some("") => "nothing is attached that names no owner\n".to_owned(),
            Some(owner) => format!("nothing of owner {owner} is attached\n"),
        };
    }
    let header = [
        "OWNER",
        "WORKLOAD",
        "INTERFACE",
        "ADDRESSES",
        "LINK",
        "MTU",
        "STATE",
        "PORTS",
        "LABELS",
    ];
    let rows = all.iter().map(|one| {
        let key = one.key.clone().unwrap_or_default();
        vec![
            key.owner,
            key.workload_id,
            key.if_name,
            one.ip.join(" "),
            one.host_link.clone(),
            one.mtu.to_string(),
            state(one).to_owned(),
            first_ports(&one.host_port),
            labels(&one.labels),
        ]
    });
    columns(&header, rows)
}

pub(super) fn attachment(one: &Attachment) -> String {
    let Key {
        owner,
        workload_id,
        if_name,
    } = one.key.clone().unwrap_or_default();
    lines(&[
        ("workload", workload_id),
        ("owner", owner),
        ("interface", if_name),
        ("state", state(one).to_owned()),
        ("addresses", one.ip.join(" ")),
        ("gateways", one.gateway.join(" ")),
        (
            "link on the node",
            format!("{} (index {})", one.host_link, one.host_index),
        ),
        ("MAC on the node", one.host_mac.clone()),
        ("MAC inside", one.workload_mac.clone()),
        ("MTU", one.mtu.to_string()),
        (
            "namespace",
            format!("device {} inode {}", one.namespace_device, one.namespace_inode),
        ),
        ("ports", ports(&one.host_port)),
        ("labels", labels(&one.labels)),
    ])
}

pub(super) fn check(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "the kernel holds all that it is to hold\n".to_owned();
    }
    let rows = findings.iter().map(|finding| match &finding.key {
        Some(key) => vec![
            key.owner.clone(),
            key.workload_id.clone(),
            key.if_name.clone(),
            finding.text.clone(),
        ],
        None => vec![
            String::new(),
            "(node)".to_owned(),
            String::new(),
            finding.text.clone(),
        ],
    });
    columns(&["OWNER", "WORKLOAD", "INTERFACE", "FINDING"], rows)
}

pub(super) fn attached(answer: &AttachResponse) -> String {
    let routes = answer.route.iter().map(|route| {
        let to = match (route.prefix_length, route.destination.len()) {
            (0, _) => "default".to_owned(),
            (32, 4) | (128, 16) => address(&route.destination),
            (length, _) => format!("{}/{length}", address(&route.destination)),
        };
        match route.gateway.is_empty() {
            true => to,
            false => format!("{to} via {}", address(&route.gateway)),
        }
    });
    lines(&[
        ("addresses", addresses(&answer.ip).join(" ")),
        ("gateways", addresses(&answer.gateway).join(" ")),
        ("routes inside", routes.collect::<Vec<_>>().join(", ")),
        ("link on the node", answer.host_link.clone()),
        ("MAC inside", mac(&answer.workload_mac)),
        ("MTU", answer.mtu.to_string()),
    ])
}

pub(super) fn node(node: &GetNodeResponse) -> String {
    let rows = node.prefix.iter().map(|prefix| {
        let mut row = vec![prefix.prefix.clone(), prefix_state(prefix).to_owned()];
        let counts = [
            prefix.used,
            prefix.free,
            prefix.cooling,
            prefix.capacity,
            prefix.generation,
        ];
        row.extend(counts.map(|n| n.to_string()));
        row
    });
    let mut text = columns(
        &[
            "PREFIX",
            "STATE",
            "USED",
            "FREE",
            "COOLING",
            "CAPACITY",
            "GENERATION",
        ],
        rows,
    );
    text.push('\n');
    if !node.peer_route.is_empty() {
        let rows = node.peer_route.iter().map(|route| {
            let way = match route.way.as_str() {
                "" => format!("none: {}", route.fault),
                "direct" => format!("direct over {}", route.device),
                way => way.to_owned(),
            };
            vec![route.peer.clone(), route.family.clone(), route.via.clone(), way]
        });
        text.push_str(&columns(&["PEER", "FAMILY", "VIA", "WAY"], rows));
        text.push('\n');
    }
    let mut facts = vec![
        ("version", node.version.clone()),
        ("attachments", node.attachments.to_string()),
        ("MTU", format!("{} ({})", node.mtu, node.mtu_source)),
        ("features", node.feature.join(" ")),
    ];
    if let Some(source) = &node.source {
        let mut text = format!("{}, generation {}", source.kind, source.generation);
        if !source.trouble.is_empty() {
            text.push_str(&format!(": {}", source.trouble));
        }
        facts.push(("prefixes from", text));
    }
    if !matches!(node.routes.as_str(), "" | "none") {
        let peers: HashSet<&str> = node.peer_route.iter().map(|route| route.peer.as_str()).collect();
        let noun = if peers.len() == 1 { "peer" } else { "peers" };
        facts.push(("routes", format!("{} ({} {noun})", node.routes, peers.len())));
    }
    if let Some(limits) = node.limits {
        facts.push(("may wait", format!("{} orders", limits.max_queued)));
    }
    facts.extend(node.unready.iter().map(|why| ("not ready", why.clone())));
    facts.extend(node.warning.iter().map(|why| ("warning", why.clone())));
    text.push_str(&lines(&facts));
    text
}

/// As `--publish` takes them.
fn ports(all: &[HostPort]) -> String {
    let one = |port: &HostPort| {
        let address = match port.address.as_str() {
            "" => String::new(),
            v6 if v6.contains(':') => format!("[{v6}]:"),
            v4 => format!("{v4}:"),
        };
        format!("{address}{}:{}/{}", port.port, port.workload_port, port.protocol)
    };
    all.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Not more than a row of a table can hold.
fn first_ports(all: &[HostPort]) -> String {
    match all.len().checked_sub(SHOWN_PORTS) {
        None | Some(0) => ports(all),
        Some(more) => format!("{} and {more} more", ports(&all[..SHOWN_PORTS])),
    }
}

fn labels(all: &HashMap<String, String>) -> String {
    let mut all: Vec<String> = all.iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.sort();
    all.join(" ")
}

fn columns(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|text| or_nothing(text)));
    }
    table.lines().map(|line| format!("{}\n", line.trim())).collect()
}

fn lines(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    facts
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {}\n", or_nothing(value)))
        .collect()
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { NOTHING } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_list_has_a_line_for_each_attachment() {
        assert_eq!(
            list(&example::attachments(), None),
            "\
OWNER   WORKLOAD  INTERFACE  ADDRESSES                LINK             MTU   STATE      PORTS                            LABELS
-       db        eth0       10.77.0.6                wkfedcba9876543  1400  detaching  -                                -
k8s.io  web-1     eth0       10.77.0.5 fd77:77:77::5  wk0123456789abc  1500  attached   8080:80/tcp [fd00::1]:53:53/udp  app=web tier=front
"
        );
        assert_eq!(list(&[], None), "nothing is attached\n");
        assert_eq!(list(&[], Some("podman")), "nothing of owner podman is attached\n");
    }

    #[test]
    fn an_attachment_is_shown_whole() {
        assert_eq!(
            attachment(&example::attachments()[1]),
            "\
workload          web-1
owner             k8s.io
interface         eth0
state             attached
addresses         10.77.0.5 fd77:77:77::5
gateways          169.254.77.1 fe80::1
link on the node  wk0123456789abc (index 7)
MAC on the node   02:9c:52:fe:6d:0a
MAC inside        02:00:00:00:00:05
MTU               1500
namespace         device 4 inode 4026532281
ports             8080:80/tcp [fd00::1]:53:53/udp
labels            app=web tier=front
"
        );
    }

    #[test]
    fn a_check_says_what_is_wrong_and_where() {
        assert_eq!(
            check(&example::findings()),
            "\
OWNER   WORKLOAD  INTERFACE  FINDING
-       (node)    -          table inet workloadnet is missing
k8s.io  web-1     eth0       host route 10.77.0.5/32 is missing
"
        );
        assert_eq!(check(&[]), "the kernel holds all that it is to hold\n");
    }

    #[test]
    fn unmet_conditions_stand_one_per_line() {
        let unready = ["no prefix is set".to_owned(), "forwarding is off".to_owned()];
        assert_eq!(
            status(&unready),
            "not ready:\n  no prefix is set\n  forwarding is off\n"
        );
        assert_eq!(status(&[]), "ready\n");
    }

    #[test]
    fn an_attach_shows_what_the_workload_got() {
        assert_eq!(
            attached(&example::answer()),
            "\
addresses         10.77.0.5
gateways          169.254.77.1
routes inside     169.254.77.1, default via 169.254.77.1
link on the node  wk0123456789abc
MAC inside        02:00:00:00:00:05
MTU               1500
"
        );
    }

    #[test]
    fn a_node_shows_how_full_its_prefixes_are() {
        assert_eq!(
            node(&example::node()),
            "\
PREFIX           STATE     USED  FREE                  COOLING  CAPACITY              GENERATION
10.77.0.0/24     serving   2     250                   1        253                   3
fd77:77:77::/64  draining  1     18446744073709551614  0        18446744073709551615  2

PEER    FAMILY  VIA        WAY
node-b  IPv4    192.0.2.2  direct over eth0

version        0.1.0
attachments    2
MTU            1500 (uplink eth0)
features       owner mtu
prefixes from  file, generation 3
routes         auto (1 peer)
may wait       1024 orders
not ready      no IPv4 address is left
warning        10.77.0.0/24 is nearly full
"
        );
    }

    #[test]
    fn a_list_shows_the_first_ports_and_one_attachment_all_of_them() {
        let mut one = example::attachments().remove(1);
        let port = one.host_port[0].clone();
        one.host_port = (0..5)
            .map(|n| HostPort {
                port: 8080 + n,
                ..port.clone()
            })
            .collect();
        let list = list(std::slice::from_ref(&one), None);
        assert!(
            list.contains("8080:80/tcp 8081:80/tcp 8082:80/tcp and 2 more"),
            "{list}"
        );
        assert!(attachment(&one).contains("8084:80/tcp"));
    }
}
