//! What containerd (CRI), ctr and podman really sent to a plugin, sent to ours. Their recordings are `ptp`'s: the type, its
//! socket and its ipam section are replaced, everything else is as it was. Calls of `loopback` are another plugin's.

use crate::played::Played;
use crate::plugin::run;
use client::workload::port_mapping::Protocol;
use serde_json::{Value, json};

fn calls() -> Vec<Value> {
    include_str!("../fixtures/cni-calls.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|call: &Value| call["plugin"] == "ptp")
        .collect()
}

#[test]
fn everything_that_runtimes_sent_is_served() {
    let played = Played::up();
    played.script().features = vec!["requested-mac", "port-mapping", "bandwidth", "alias"];
    let mut answers = Vec::new();
    for call in calls() {
        let mut input = call["stdin"].clone();
        let verb = call["env"]["CNI_COMMAND"].as_str().unwrap().to_owned();
        if verb != "VERSION" {
            input["type"] = json!("workloadnet-cni");
            input["socket"] = json!(played.socket());
            input.as_object_mut().unwrap().remove("ipam").unwrap();
        }
        let variables = call["env"].as_object().unwrap().iter();
        let variables = variables.map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
        let answer = run(variables, input.to_string().as_bytes());
        assert!(answer.succeeded, "{call:#}: {answer:?}");
        match verb.as_str() {
            "VERSION" => {
                assert_eq!(answer.json()["cniVersion"], "1.0.0");
                let supported = answer.json()["supportedVersions"].clone();
                assert_eq!(supported, json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
            }
            "DEL" => answer.is_silent(),
            _ => answers.push(answer.json()),
        }
    }
    let script = played.script();
    let [cri, ctr, podman] = &script.attached[..] else {
        panic!("{:#?}", script.attached);
    };

    assert_eq!(cri.owner, "lab-rec");
    assert_eq!(
        cri.workload_id,
        "11edfa5544d2e7cbea4298d1f687e7595f2f17cc5db038719013b9b60fa0b1dc"
    );
    let netns = cri.netns.as_ref().unwrap();
    assert_eq!(
        netns.netns_path,
        "/var/run/netns/cni-570cba9f-956d-9deb-d2f8-27e83951f5ac"
    );
    assert_eq!((&*netns.if_name, cri.mtu), ("eth0", 1420));
    assert_eq!(cri.labels.len(), 4);
    assert_eq!(cri.labels["K8S_POD_NAME"], "pod-a");
    let port = &cri.port_mapping[0];
    assert_eq!((port.host_port, port.container_port), (18080, 8080));
    assert_eq!((port.protocol(), port.host_ip.len()), (Protocol::Tcp, 0));
    let bandwidth = cri.bandwidth.unwrap();
    assert_eq!(
        (bandwidth.ingress_rate, bandwidth.ingress_burst),
        (10_000_000, 4_294_967_295)
    );
    assert_eq!((bandwidth.egress_rate, bandwidth.egress_burst), (0, 0));
    let dns = json!({
        "nameservers": ["10.96.0.10"], "search": ["lab.svc.cluster.local"], "options": ["ndots:5"],
    });
    assert_eq!(answers[0]["dns"], dns);

    assert_eq!(ctr.workload_id, "default-t21665");
    assert_eq!(ctr.netns.as_ref().unwrap().netns_path, "/proc/21705/ns/net");
    assert!(ctr.labels.is_empty() && ctr.port_mapping.is_empty() && ctr.bandwidth.is_none());
    assert_eq!(answers[1]["dns"], json!({}));

    assert_eq!(podman.requested_ip, [vec![10, 88, 80, 77]]);
    assert_eq!(podman.requested_mac, [2, 0, 0, 0, 0, 0x77]);
    assert_eq!(podman.alias, ["foo", "5a09588ffedd"]);
    assert_eq!(podman.port_mapping[0].host_port, 18082);
    assert_eq!(podman.labels.len(), 1);

    let detached: Vec<(&str, bool)> = script
        .detached
        .iter()
        .map(|d| {
            (
                &d.workload_id[..4],
                d.netns.as_ref().unwrap().netns_path.is_empty(),
            )
        })
        .collect();
    let expected = [
        ("11ed", false),
        ("11ed", true),
        ("11ed", true),
        ("defa", true),
        ("5a09", false),
    ];
    assert_eq!(detached, expected);
    assert!(script.detached.iter().all(|detach| detach.owner == "lab-rec"));
}
