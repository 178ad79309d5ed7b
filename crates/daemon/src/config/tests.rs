//! Every default in its example, and every mistake by its name.

use super::*;

#[test]
fn the_commented_example_says_every_default() {
    let example = include_str!("../../../../packaging/workloadnetd.toml");
    assert_eq!(Config::parse(example).unwrap(), Config::default());
    // With every setting that is commented out put in, it still is one.
    let all: String = example
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    // Not all of them go together, but each of them is one.
    let mut all: Config = toml::from_str(&all).unwrap();
    assert!(all.prefixes.file.take().is_some());
    let kubernetes = std::mem::take(&mut all.kubernetes);
    assert!(kubernetes.node.is_some() && kubernetes.kubeconfig.is_some());
    all = Config::parse(&all.to_toml()).unwrap();
    assert!(
        all.socket.owner.is_some()
            && all.socket.group.is_some()
            && all.network.mtu.is_some()
            && all.routes.peers.is_some()
            && all.metrics.listen.is_some()
    );
    assert_eq!(Config::parse(&all.to_toml()).unwrap(), all);
}

#[test]
fn users_and_groups_are_ids_or_names_and_the_daemons_own_user_may_always_speak() {
    let text =
        "[socket]\nowner = \"root\"\ngroup = 7\nallowed_uids = [1, \"root\"]\nallowed_gids = [\"root\"]";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.socket_ids().unwrap(), (Some(0), Some(7)));
    let own = rustix::process::geteuid().as_raw();
    let allowed = config.allowed().unwrap();
    assert_eq!((allowed.uids, allowed.gids), (vec![1, 0, own], vec![0]));
    assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
    let nobody = Config::parse("[socket]\nallowed_uids = []").unwrap();
    assert_eq!(nobody.allowed().unwrap().uids, [own]);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let table = [
        ("[network]\nprefix = []", "line 2, column 1"),
        ("[network]\nprefix = []", "unknown field `prefix`"),
        ("[socket]\npath = 3", "line 2, column 8"),
        (
            "[network]\nprefixes = [\"10.0.0.0/33\"]",
            "\"10.0.0.0/33\" is not a prefix",
        ),
        (
            "[network]\nprefixes = [\"10.0.0.0/8\", \"10.1.0.0/16\"]",
            "10.0.0.0/8 and 10.1.0.0/16 overlap",
        ),
        ("[network]\ngroup = 0", "network.group 0: must not be 0"),
        ("[network]\nmtu = 1279", "network.mtu 1279: must be 1280 to 65535"),
        (
            "[socket]\npath = \"x.sock\"",
            "socket.path \"x.sock\": must be absolute",
        ),
        (
            "[metrics]\nlisten = \"localhost:4777\"",
            "metrics.listen \"localhost:4777\": must be an address and a port",
        ),
        (
            "[socket]\npath = \"/a\"\n[metrics]\nlisten = \"unix:/a\"",
            "metrics.listen \"unix:/a\": is socket.path already",
        ),
        (
            "[limits]\nmax_queued = 0",
            "limits.max_queued 0: must be at least 1",
        ),
        (
            "[limits]\nmax_connections = 0",
            "limits.max_connections 0: must be at least 1",
        ),
        ("nonsense", "line 1, column"),
        ("[routes]\nmode = \"bgp\"", "unknown variant `bgp`"),
        (
            "[routes]\nvxlan_id = 16777216",
            "routes.vxlan_id 16777216: must be 1 to 16777215",
        ),
        ("[routes]\nvxlan_port = 0", "routes.vxlan_port 0: must be"),
        (
            "[routes]\npeers = \"peers.toml\"",
            "routes.peers \"peers.toml\": must be absolute",
        ),
        (
            "[routes]\naddresses = [\"127.0.0.1\"]",
            "routes.addresses: peer this node: 127.0.0.1 is no address",
        ),
        (
            "[network]\nno_masquerade = [\"x\"]",
            "network.no_masquerade \"x\": is not a prefix",
        ),
        (
            "[network]\nlarge_mtu_owners = [\"a\\u0007b\"]",
            "network.large_mtu_owners \"a\\u{7}b\"",
        ),
        (
            "[socket]\nowner = \"no one here\"",
            "socket.owner \"no one here\": /etc/passwd has no such name",
        ),
        (
            "[socket]\nallowed_gids = [0, \"no one here\"]",
            "socket.allowed_gids \"no one here\": /etc/group has no such name",
        ),
        ("[socket]\ngroup = -1", "line 2, column 9"),
        (
            "[socket]\ngroup = -1",
            "expected an id such as 0 or a name such as",
        ),
        ("[network]\nmtu = 65536", "line 2, column 7"),
        (
            "[network]\ngroup = 2003501056",
            "network.group 2003501056: must not be 0",
        ),
        (
            "[network]\nstate = \"state.json\"",
            "network.state \"state.json\": must be absolute",
        ),
        (
            "[network]\nproc_sys_net = \"net\"",
            "network.proc_sys_net \"net\": must be absolute",
        ),
        (
            "[network]\ncool_down_seconds = 86401",
            "network.cool_down_seconds 86401: must be at most 86400",
        ),
        ("[network]\ngroup = 8\ngroup = 9", "line 3, column 1"),
        (
            "[prefixes]\nsource = \"file\"",
            "prefixes.file: must be set where prefixes.source is \"file\"",
        ),
        (
            "[prefixes]\nfile = \"/x\"",
            "prefixes.file \"/x\": is used only where prefixes.source is \"file\"",
        ),
        (
            "[prefixes]\nsource = \"file\"\nfile = \"x\"",
            "prefixes.file \"x\": must be absolute",
        ),
        (
            "[prefixes]\nsource = \"api\"\n[network]\nprefixes = [\"10.77.0.0/24\", \"fd77:77:77::/64\"]",
            "network.prefixes: prefixes.source is \"api\"",
        ),
        ("[prefixes]\nsource = \"etcd\"", "unknown variant `etcd`"),
        (
            "[kubernetes]\nnode = \"a\"",
            "kubernetes: is used only where prefixes.source is \"kubernetes\"",
        ),
        (
            "[prefixes]\nsource = \"kubernetes\"\n[kubernetes]\nkubeconfig = \"x\"",
            "kubernetes.kubeconfig \"x\": must be absolute",
        ),
        (
            "[prefixes]\nsource = \"kubernetes\"\n[routes]\npeers = \"/x\"",
            "routes.peers \"/x\": with prefixes.source \"kubernetes\" the other nodes are known",
        ),
        (
            "[prefixes]\nsource = \"kubernetes\"\n[kubernetes]\nnode = \"a b\"",
            "kubernetes.node \"a b\": is no name of a Node",
        ),
        ("[network]\nprefixes = [\"224.0.0.0/4\"]", "it touches multicast"),
        (
            &format!("[network]\nprefixes = {:?}", vec!["10.0.0.0/24"; 257]),
            "network.prefixes: 257 prefixes are too many: a node serves at most 256",
        ),
    ];
    for (text, expected) in table {
        let error = format!("{:#}", Config::parse(text).unwrap_err());
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}
