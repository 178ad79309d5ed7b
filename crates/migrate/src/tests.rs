//! Folders as host-local and libcni leave them.

use super::played::{Folders, PTP};
use super::*;
use serde_json::json;
use tempfile::TempDir;

struct Node {
    folder: TempDir,
    folders: Folders,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("netns"), "").unwrap();
        Self {
            folders: Folders::below(folder.path()).unwrap(),
            folder,
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn reserve(&self, network: &str, address: &str, container: &str) -> PathBuf {
        self.folders.reserve(network, address, container).unwrap()
    }

    fn cache(&self, network: &str, address: &str, container: &str, netns: &str, plugins: &[&str]) -> PathBuf {
        let namespace = self.path(netns);
        self.folders
            .cache(network, address, container, &namespace, plugins)
            .unwrap()
    }

    fn pod(&self, network: &str, address: &str, container: &str, plugins: &[&str]) {
        self.reserve(network, address, container);
        self.cache(network, address, container, "netns", plugins);
    }

    fn read(&self, networks: &[&str]) -> Old {
        let networks: Vec<String> = networks.iter().map(|name| (*name).to_owned()).collect();
        read(&self.folders.networks, &self.folders.results, &networks).unwrap()
    }

    fn remove(&self, old: &Old) {
        for pod in &old.pods {
            remove(&self.folders.networks, pod).unwrap();
        }
    }
}

#[track_caller]
fn refusal(old: &Old) -> String {
    match &old.pods[0].fate {
        Fate::Refused(reasons) => reasons.join("; "),
        fate => panic!("{fate:?}"),
    }
}

#[test]
fn only_a_pod_whose_namespace_is_gone_is_dead() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "alive", &[PTP]);
    node.reserve("old", "10.1.0.3", "dead");
    node.cache("old", "10.1.0.3", "dead", "nowhere", &[PTP]);
    node.reserve("old", "10.1.0.4", "torn");
    fs::write(node.path("results/old-torn-eth0"), "{\"kind\":\"cniCa").unwrap();
    let old = node.read(&[]);
    let fates: Vec<(&str, &Fate)> = old
        .pods
        .iter()
        .map(|pod| (pod.container.as_str(), &pod.fate))
        .collect();
    assert_eq!(
        fates,
        [
            ("alive", &Fate::Open),
            ("dead", &Fate::Gone),
            ("torn", &Fate::Uncached)
        ]
    );
    assert_eq!(old.unreadable[0].0, node.path("results/old-torn-eth0"));
}

#[test]
fn by_what_a_pods_packets_get_the_nodes_address_is_as_it_was_configured() {
    for (plugin, expected) in [
        (PTP.to_owned(), Some(Masquerade::Iptables)),
        (
            PTP.replace(r#""ipMasq":true"#, r#""ipMasq":true,"ipMasqBackend":"nftables""#),
            Some(Masquerade::Nftables),
        ),
        (PTP.replace("true", "false"), None),
    ] {
        let node = Node::new();
        node.pod("old", "10.1.0.2", "a", &[&plugin]);
        assert_eq!(node.read(&[]).pods[0].masquerade, expected, "{plugin}");
    }
}

#[test]
fn a_rate_in_the_configuration_of_bandwidth_is_a_reason() {
    for (plugin, expected) in [
        (
            r#"{"type":"bandwidth","ingressRate":1000,"ingressBurst":9}"#,
            Some("ingressRate 1000"),
        ),
        (r#"{"type":"bandwidth","egressRate":7}"#, Some("egressRate 7")),
        (r#"{"type":"bandwidth","ingressRate":0,"egressRate":0}"#, None),
        (r#"{"type":"bandwidth","capabilities":{"bandwidth":true}}"#, None),
    ] {
        let node = Node::new();
        node.pod("old", "10.1.0.2", "a", &[PTP, plugin]);
        let old = node.read(&[]);
        match expected {
            Some(words) => assert!(refusal(&old).ends_with(words), "{}", refusal(&old)),
            None => assert_eq!(old.pods[0].fate, Fate::Open, "{plugin}"),
        }
    }
}

#[test]
fn a_configuration_without_a_plugin_is_refused() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "a", &[]);
    assert_eq!(
        refusal(&node.read(&[])),
        "its cached configuration names no plugin"
    );
}

#[test]
fn a_pod_that_no_key_or_record_fits_is_refused_and_no_other() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "both", &[PTP]);
    node.reserve("old", "10.1.0.3", "both");
    node.pod("old", "10.1.0.4", "twin", &[PTP]);
    node.pod("other", "10.2.0.4", "twin", &[PTP]);
    node.pod("old", "10.1.0.5", "well", &[PTP]);
    let old = node.read(&[]);
    assert!(
        refusal(&old).contains("it has 10.1.0.2,10.1.0.3, and one IPv4 address is the most"),
        "{}",
        refusal(&old)
    );
    let twins: Vec<&Pod> = old.pods.iter().filter(|pod| pod.container == "twin").collect();
    let why = Fate::Refused(vec!["it is in several networks: old, other".to_owned()]);
    assert!(
        twins.len() == 2 && twins.iter().all(|pod| pod.fate == why),
        "{twins:#?}"
    );
    assert!(
        old.pods
            .iter()
            .any(|pod| pod.container == "well" && pod.fate == Fate::Open)
    );
    // With one network named, it is told from the other.
    let one = node.read(&["other"]);
    assert_eq!(one.pods[0].fate, Fate::Open);
}

#[test]
fn a_torn_result_of_another_network_is_no_business_of_the_named_one() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "a", &[PTP]);
    fs::write(node.path("results/older-b-eth0"), "{").unwrap();
    assert_eq!(node.read(&[]).unreadable.len(), 1);
    assert_eq!(node.read(&["old"]).unreadable, []);
    fs::write(node.path("results/old-b-eth0"), "{").unwrap();
    assert_eq!(node.read(&["old"]).unreadable.len(), 1);
}

#[test]
fn an_address_that_somebody_else_was_given_meanwhile_stays() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "a", &[PTP]);
    let old = node.read(&[]);
    let file = node.reserve("old", "10.1.0.2", "next");
    node.remove(&old);
    assert!(fs::read_to_string(&file).unwrap().starts_with("next"));
    assert!(node.path("networks/old/lock").exists() && node.path("networks/old/last_reserved_ip.0").exists());
    assert!(!node.path("results/old-a-eth0").exists());
}

#[test]
fn the_lock_stays_as_long_as_the_folder() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "a", &[PTP]);
    fs::write(node.path("networks/old/notes"), "somebody's").unwrap();
    node.remove(&node.read(&[]));
    assert!(!node.path("networks/old/10.1.0.2").exists());
    assert!(node.path("networks/old/lock").exists() && node.path("networks/old/last_reserved_ip.0").exists());
    fs::remove_file(node.path("networks/old/notes")).unwrap();
    node.pod("old", "10.1.0.2", "a", &[PTP]);
    node.remove(&node.read(&[]));
    assert!(!node.path("networks/old").exists());
}

#[test]
fn a_cached_result_goes_though_the_reservations_are_gone() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "a", &[PTP]);
    let old = node.read(&[]);
    fs::remove_dir_all(node.path("networks/old")).unwrap();
    node.remove(&old);
    assert!(!node.path("results/old-a-eth0").exists());
    assert!(!node.path("networks/old").exists());
}

#[test]
fn a_result_whose_names_lead_elsewhere_is_told_of_and_nothing_more() {
    let node = Node::new();
    fs::create_dir(node.path("elsewhere")).unwrap();
    let long = "n".repeat(256);
    let names = ["../elsewhere", "", ".", "..", "a/b", "/", "a\u{1b}[2J", &long];
    for (n, name) in names.into_iter().enumerate() {
        let file = node.cache("old", "10.1.0.2", &format!("c{n}"), "netns", &[PTP]);
        let text = fs::read_to_string(&file).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        json["networkName"] = json!(name);
        fs::write(&file, json.to_string()).unwrap();
    }
    let old = node.read(&[]);
    assert_eq!((old.pods.len(), old.unreserved.len()), (0, 0), "{old:#?}");
    assert_eq!(old.unreadable.len(), names.len());
    let said = &old.unreadable[0].1;
    assert_eq!(said, r#"its networkName is "../elsewhere", which names nothing"#);
    assert!(
        old.unreadable
            .iter()
            .all(|(_, why)| !why.contains(char::is_control))
    );
}

#[test]
fn what_cannot_be_shown_in_a_line_names_nobody() {
    let node = Node::new();
    for (address, text, why) in [
        ("10.1.0.2", "", "it names no container"),
        ("10.1.0.3", "a\u{1b}b\neth0", "it names no container"),
        ("10.1.0.4", "a\neth\u{7}0", "it names no interface"),
    ] {
        let file = node.reserve("old", address, "");
        fs::write(&file, text).unwrap();
        let old = node.read(&[]);
        assert_eq!(old.unreadable.last(), Some(&(file, why.to_owned())));
        assert_eq!(old.pods.len(), 0);
    }
}
