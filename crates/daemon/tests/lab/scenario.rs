//! Scenarios as text: a command on each line, and below it, indented, what it prints.
//!
//! ```text
//! start [PREFIX...] [cool-down=S]    stop    crash               # the daemon; settings last until others are given
//! netns NAME                   drop netns NAME                   # a workload's namespace begins and ends
//! attach ID NAME [owner=O] [ip=A]... [mtu=N] [if=I] [label=K:V]... [show]
//! detach ID [NAME] [path=P] [owner=O] [if=I]
//! status
//! why                                                            # prints the text of the last refusal
//! list                                                           # prints OWNER/ID INTERFACE in NAME
//! labels ID                                                      # prints K=V
//! ping NAME first-hop|outside|NAME         ping node NAME        # on every family that the workload has
//! flush table    delete table    flush ruleset    flush routes   # by somebody else
//! down link ID    delete link ID
//! state lost|torn|garbage                                        # the state file
//! remember                                                       # the world as it is
//! expect as remembered | nothing left | no findings              # within a second
//! expect used=N|cooling=N [PREFIX]                               # of every prefix, or of this one
//! ```
//! An attach prints IPv4 and IPv6, or the address itself where it was asked for or is to be shown. A refusal prints its
//! code and reason. Each scenario has a node of its own.

use crate::daemon::{Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use client::{Error, inspection};
use stage::change::{By, Links};
use stage::wait::{A_SECOND, eventually};
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
    /// As refusals write them.
    identities: BTreeMap<String, String>,
    /// Text of the last refusal.
    why: String,
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
            identities: BTreeMap::new(),
            why: String::new(),
            remembered: Vec::new(),
            first: None,
        }
    }
}

impl Play {
    /// What a command prints; `None` where there is no such command.
    fn command(&mut self, words: &[&str]) -> Option<Vec<String>> {
        match words {
            ["start", settings @ ..] => self.start(settings),
            ["stop"] => self.daemon.stop(),
            ["crash"] => self.daemon.crash(),
            ["netns", name] => self.begin(name),
            ["drop", "netns", name] => drop(self.namespaces.remove(*name).expect("a namespace of this name")),
            ["attach", id, name, options @ ..] => return Some(self.attach(id, name, options)),
            ["detach", id, rest @ ..] => return Some(self.detach(id, rest)),
            ["status"] => {
                let outcome = self.daemon.caller().status();
                return Some(self.refusals(outcome.err()));
            }
            ["why"] => return Some(vec![self.why.clone()]),
            ["list"] => return Some(self.list()),
            ["labels", id] => return Some(self.labels(id)),
            ["ping", "node", name] => return Some(self.ping_workload(&self.daemon.node.node, name)),
            ["ping", name, to] => return Some(self.ping(name, to)),
            ["flush", "table"] => self.run("nft flush table inet workloadnet"),
            ["delete", "table"] => self.run("nft delete table inet workloadnet"),
            ["flush", "ruleset"] => self.run("nft flush ruleset"),
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
            ["expect", count] => self.expect_count(count, None)?,
            ["expect", count, prefix] => self.expect_count(count, Some(prefix))?,
            _ => return None,
        }
        Some(Vec::new())
    }

    fn start(&mut self, settings: &[&str]) {
        let (mut prefixes, mut cool_down) = (Vec::new(), None);
        for setting in settings {
            match setting.split_once('=') {
                Some(("cool-down", seconds)) => cool_down = Some(seconds.parse().unwrap()),
                Some(_) => panic!("{setting:?} is no setting of start"),
                None => prefixes.push(*setting),
            }
        }
        if !prefixes.is_empty() {
            self.daemon.set_prefixes(&prefixes);
        }
        if let Some(seconds) = cool_down {
            self.daemon.set_cool_down(seconds);
        }
        self.daemon.start();
        if self.first.is_none() {
            self.first = Some(self.daemon.world());
        }
    }

    fn begin(&mut self, name: &str) {
        let namespace = Sandbox::new();
        let found = std::fs::metadata(namespace.path()).unwrap();
        self.inodes.insert(found.ino(), name.to_owned());
        let identity = format!("{:x}:{:x}", found.dev(), found.ino());
        self.identities.insert(identity, name.to_owned());
        self.paths.insert(name.to_owned(), namespace.path());
        assert!(
            self.namespaces.insert(name.to_owned(), namespace).is_none(),
            "{name} is there already"
        );
    }

    fn attach(&mut self, id: &str, name: &str, options: &[&str]) -> Vec<String> {
        let mut request = attach(id, &self.namespaces[name]);
        let (mut asked, mut show) = (Vec::new(), false);
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
                Some(("label", label)) => {
                    let (key, value) = label.split_once(':').expect("K:V");
                    request.labels.insert(key.to_owned(), value.to_owned());
                }
                None if *option == "show" => show = true,
                _ => panic!("{option:?} is no option of attach"),
            }
        }
        match self.daemon.caller().attach(request) {
            Ok(answer) => {
                let given = addresses(&answer.ip);
                let printed = given
                    .iter()
                    .map(|address| shown(*address, show || asked.contains(address)))
                    .collect::<Vec<_>>();
                self.addresses.insert(name.to_owned(), given);
                vec![printed.join(" ")]
            }
            Err(error) => self.refusals(Some(error)),
        }
    }

    /// Prints a refusal, and keeps its text with namespaces by their names.
    fn refusals(&mut self, error: Option<Error>) -> Vec<String> {
        let Some(error) = error else { return Vec::new() };
        self.why = error.to_string();
        for (identity, name) in &self.identities {
            self.why = self.why.replace(identity, name);
        }
        vec![refusal(&error)]
    }

    fn detach(&mut self, id: &str, rest: &[&str]) -> Vec<String> {
        let mut request = detach(id);
        let netns = request.netns.as_mut().unwrap();
        for word in rest {
            match word.split_once('=') {
                Some(("owner", owner)) => request.owner = owner.to_owned(),
                Some(("if", name)) => netns.if_name = name.to_owned(),
                Some(("path", path)) => netns.netns_path = path.to_owned(),
                _ => netns.netns_path.clone_from(&self.paths[*word]),
            }
        }
        let outcome = self.daemon.caller().detach(request);
        self.refusals(outcome.err())
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

    fn attachment(&self, id: &str) -> inspection::Attachment {
        let listed = self.daemon.caller().list();
        let found = listed
            .into_iter()
            .find(|a| a.key.as_ref().is_some_and(|key| key.workload_id == id));
        found.expect("an attachment of this id")
    }

    fn link_of(&self, id: &str) -> String {
        self.attachment(id).host_link
    }

    fn labels(&self, id: &str) -> Vec<String> {
        let mut all: Vec<String> = self
            .attachment(id)
            .labels
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        all.sort();
        all
    }

    fn run(&self, line: &str) {
        run(&self.daemon.node.node, line);
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

    fn expect_count(&self, count: &str, of: Option<&str>) -> Option<()> {
        let (what, number) = count.split_once('=')?;
        let number: u64 = number.parse().ok()?;
        let counted: fn(&inspection::Prefix) -> u64 = match what {
            "used" => |prefix| prefix.used,
            "cooling" => |prefix| prefix.cooling,
            _ => return None,
        };
        let look = || {
            let mut prefixes = self.daemon.caller().node().prefix;
            prefixes.retain(|prefix| of.is_none_or(|of| prefix.prefix == of));
            prefixes
        };
        eventually(A_SECOND, count, look, |prefixes| {
            !prefixes.is_empty() && prefixes.iter().all(|prefix| counted(prefix) == number)
        });
        Some(())
    }
}

/// An address as it is, or by its family.
fn shown(address: IpAddr, as_it_is: bool) -> String {
    match (as_it_is, address) {
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
