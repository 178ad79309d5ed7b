//! Scenarios as text: a command on each line, and below it, indented, what it prints.
//!
//! ```text
//! start [PREFIX...]            stop             crash            # the daemon; prefixes last until others are given
//! netns NAME                   drop netns NAME                   # a workload's namespace begins and ends
//! attach ID NAME [owner=O] [ip=A]... [mtu=N] [if=I]              # prints IPv4, IPv6, or an address that was asked for
//! detach ID [NAME] [owner=O] [if=I]
//! list                                                           # prints OWNER/ID INTERFACE in NAME
//! ping NAME first-hop|outside|NAME         ping node NAME        # on every family that the workload has
//! flush table    flush routes    down link ID    delete link ID  # by somebody else
//! state lost|torn|garbage                                        # the file below /run
//! remember                                                       # the world as it is
//! expect as remembered | nothing left | used=N | no findings     # within a second
//! ```
//! A refusal prints its code and reason. Each scenario has a node of its own.

use crate::daemon::{Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use crate::wait::{A_SECOND, eventually};
use client::Error;
use stage::change::{By, Links};
use stage::{NODE, Namespace, OUTSIDE, ping};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(2);
const FIRST_HOP: [&str; 2] = ["169.254.77.1", "fe80::1"];

/// Plays a file; panics at the first line that does something else than it says.
pub(crate) fn play(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut play = Play::default();
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(n, line)| {
            (
                n + 1,
                line.split_once('#').map_or(line, |(before, _)| before).trim_end(),
            )
        })
        .filter(|(_, line)| !line.is_empty())
        .collect();
    let mut at = 0;
    while let Some(&(number, line)) = lines.get(at) {
        assert!(
            !line.starts_with(' '),
            "{}:{number}: nothing prints this",
            path.display()
        );
        let expected: Vec<&str> = lines[at + 1..]
            .iter()
            .map(|(_, line)| *line)
            .take_while(|line| line.starts_with(' '))
            .collect();
        at += 1 + expected.len();
        eprintln!("{}:{number}: {line}", path.display());
        let words: Vec<&str> = line.split_whitespace().collect();
        let printed = play
            .command(&words)
            .unwrap_or_else(|| panic!("{line:?} is no command"));
        let expected: Vec<&str> = expected.iter().map(|line| line.trim()).collect();
        assert_eq!(printed, expected, "{}:{number}: {line}", path.display());
    }
}

struct Play {
    daemon: Daemon,
    namespaces: HashMap<String, Sandbox>,
    /// Paths and addresses outlive their namespaces: a late detach names what is gone.
    paths: HashMap<String, String>,
    addresses: HashMap<String, Vec<IpAddr>>,
    inodes: BTreeMap<u64, String>,
    remembered: Vec<String>,
    first: Option<Vec<String>>,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            daemon: Daemon::new(),
            namespaces: HashMap::new(),
            paths: HashMap::new(),
            addresses: HashMap::new(),
            inodes: BTreeMap::new(),
            remembered: Vec::new(),
            first: None,
        }
    }
}

impl Play {
    /// What a command prints; `None` where there is no such command.
    fn command(&mut self, words: &[&str]) -> Option<Vec<String>> {
        match words {
            ["start", prefixes @ ..] => self.start(prefixes),
            ["stop"] => self.daemon.stop(),
            ["crash"] => self.daemon.crash(),
            ["netns", name] => self.begin(name),
            ["drop", "netns", name] => drop(self.namespaces.remove(*name).expect("a namespace of this name")),
            ["attach", id, name, options @ ..] => return Some(self.attach(id, name, options)),
            ["detach", id, rest @ ..] => return Some(self.detach(id, rest)),
            ["list"] => return Some(self.list()),
            ["ping", "node", name] => return Some(self.ping_workload(&self.daemon.node.node, name)),
            ["ping", name, to] => return Some(self.ping(name, to)),
            ["flush", "table"] => {
                crate::witness::run(&self.daemon.node.node, "nft delete table inet workloadnet");
            }
            ["flush", "routes"] => self.flush_routes(),
            ["down", "link", id] => self.links().set_up(&self.link_of(id), false).unwrap(),
            ["delete", "link", id] => self.links().delete(&self.link_of(id)).unwrap(),
            ["state", what] => self.spoil_state(what),
            ["remember"] => self.remembered = self.daemon.world(),
            ["expect", "as", "remembered"] => self.expect_world(&self.remembered),
            ["expect", "nothing", "left"] => self.expect_world(self.first.as_ref().expect("a start before")),
            ["expect", "no", "findings"] => {
                eventually(
                    A_SECOND,
                    "no findings",
                    || self.daemon.caller().findings(),
                    Vec::is_empty,
                );
            }
            ["expect", used] => self.expect_used(used.strip_prefix("used=")?.parse().ok()?),
            _ => return None,
        }
        Some(Vec::new())
    }

    fn start(&mut self, prefixes: &[&str]) {
        if !prefixes.is_empty() {
            self.daemon.set_prefixes(prefixes);
        }
        self.daemon.start();
        if self.first.is_none() {
            self.first = Some(self.daemon.world());
        }
    }

    fn begin(&mut self, name: &str) {
        let namespace = Sandbox::new();
        let inode = std::fs::metadata(namespace.path()).unwrap().ino();
        self.inodes.insert(inode, name.to_owned());
        self.paths.insert(name.to_owned(), namespace.path());
        assert!(
            self.namespaces.insert(name.to_owned(), namespace).is_none(),
            "{name} is there already"
        );
    }

    fn attach(&mut self, id: &str, name: &str, options: &[&str]) -> Vec<String> {
        let mut request = attach(id, &self.namespaces[name]);
        let mut asked = Vec::new();
        for option in options {
            match option.split_once('=') {
                Some(("owner", owner)) => request.owner = owner.to_owned(),
                Some(("mtu", mtu)) => request.mtu = mtu.parse().unwrap(),
                Some(("if", name)) => request.netns.as_mut().unwrap().if_name = name.to_owned(),
                Some(("ip", ip)) => {
                    let address: IpAddr = ip.parse().unwrap();
                    asked.push(address);
                    request.requested_ip.push(match address {
                        IpAddr::V4(a) => a.octets().to_vec(),
                        IpAddr::V6(a) => a.octets().to_vec(),
                    });
                }
                _ => panic!("{option:?} is no option of attach"),
            }
        }
        match self.daemon.caller().attach(request) {
            Ok(answer) => {
                let given = addresses(&answer.ip);
                let printed = given
                    .iter()
                    .map(|address| shown(*address, &asked))
                    .collect::<Vec<_>>();
                self.addresses.insert(name.to_owned(), given);
                vec![printed.join(" ")]
            }
            Err(error) => vec![refusal(&error)],
        }
    }

    fn detach(&mut self, id: &str, rest: &[&str]) -> Vec<String> {
        let mut request = detach(id);
        let netns = request.netns.as_mut().unwrap();
        for word in rest {
            match word.split_once('=') {
                Some(("owner", owner)) => request.owner = owner.to_owned(),
                Some(("if", name)) => netns.if_name = name.to_owned(),
                _ => netns.netns_path.clone_from(&self.paths[*word]),
            }
        }
        self.daemon
            .caller()
            .detach(request)
            .err()
            .iter()
            .map(refusal)
            .collect()
    }

    fn list(&self) -> Vec<String> {
        let name = |inode| self.inodes.get(&inode).map_or("nowhere", String::as_str);
        self.daemon
            .caller()
            .list()
            .into_iter()
            .map(|attachment| {
                let key = attachment.key.unwrap();
                let place = name(attachment.namespace_inode);
                format!("{}/{} {} in {place}", key.owner, key.workload_id, key.if_name)
            })
            .collect()
    }

    fn ping(&self, from: &str, to: &str) -> Vec<String> {
        let all = |list: [&str; 2]| list.map(|text| text.parse().unwrap()).to_vec();
        let namespace = &self.namespaces[from];
        let own = &self.addresses[from];
        let to: Vec<IpAddr> = match to {
            "first-hop" => all(FIRST_HOP),
            "outside" => all(OUTSIDE),
            "node" => all(NODE),
            name => self.addresses[name].clone(),
        };
        let has = |address: &&IpAddr| own.iter().any(|mine| mine.is_ipv4() == address.is_ipv4());
        to.iter()
            .filter(has)
            .filter_map(|address| silent(namespace, *address))
            .collect()
    }

    fn ping_workload(&self, from: &Namespace, to: &str) -> Vec<String> {
        self.addresses[to]
            .iter()
            .filter_map(|address| silent(from, *address))
            .collect()
    }

    fn links(&self) -> Links {
        Links::of(&self.daemon.node.node).unwrap()
    }

    fn link_of(&self, id: &str) -> String {
        let listed = self.daemon.caller().list();
        let found = listed
            .into_iter()
            .find(|a| a.key.as_ref().is_some_and(|key| key.workload_id == id));
        found.expect("an attachment of this id").host_link
    }

    fn flush_routes(&self) {
        for attachment in self.daemon.caller().list() {
            for ip in &attachment.ip {
                let address: IpAddr = ip.parse().unwrap();
                self.links()
                    .delete_route(address.into(), By::Link(&attachment.host_link))
                    .unwrap();
            }
        }
    }

    fn spoil_state(&self, how: &str) {
        let path = self.daemon.state();
        match how {
            "lost" => std::fs::remove_file(path).unwrap(),
            "garbage" => std::fs::write(path, b"\0\xff{]").unwrap(),
            "torn" => {
                let whole = std::fs::read(&path).unwrap();
                std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
            }
            _ => panic!("{how:?} is no way to spoil a file"),
        }
    }

    fn expect_world(&self, wanted: &[String]) {
        let wanted = wanted.to_vec();
        eventually(
            A_SECOND,
            &format!("the world is {wanted:#?}"),
            || self.daemon.world(),
            |world| *world == wanted,
        );
    }

    fn expect_used(&self, used: u64) {
        eventually(
            A_SECOND,
            "so many addresses in use",
            || self.daemon.caller().node().prefix,
            |prefixes| !prefixes.is_empty() && prefixes.iter().all(|prefix| prefix.used == used),
        );
    }
}

/// An address that was asked for as it is, another one by its family.
fn shown(address: IpAddr, asked: &[IpAddr]) -> String {
    match (asked.contains(&address), address) {
        (true, _) => address.to_string(),
        (false, IpAddr::V4(_)) => "IPv4".to_owned(),
        (false, IpAddr::V6(_)) => "IPv6".to_owned(),
    }
}

fn refusal(error: &Error) -> String {
    match error {
        Error::Refused(refused) => format!("{:?} {}", refused.code, refused.reason),
        other => other.to_string(),
    }
}

fn silent(from: &Namespace, to: IpAddr) -> Option<String> {
    ping(from, to, ANSWER)
        .err()
        .map(|_| format!("no answer from {to}"))
}
