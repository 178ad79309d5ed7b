//! What can be typed. Each command's help ends with an example.

use crate::output::Output;
use crate::{adopt, install};
use clap::{Args, Parser, Subcommand};
use client::network::octets;
use client::workload::PortMapping;
use client::workload::port_mapping::Protocol;
use std::net::IpAddr;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused by the daemon, or the check found something
  2  wrong usage
  3  the daemon cannot be reached, or did not answer in time
  4  the daemon is not ready, stopping, or overloaded: a later try can succeed

Example: workloadnet --output json list --owner k8s.io";

/// Sees and changes what workloadnetd attaches to this node's network.
#[derive(Debug, Parser)]
#[command(name = "workloadnet", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Socket of the daemon; without it $WORKLOADNET_SOCKET, or /run/workloadnet/workloadnet.sock.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// How answers and errors look.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole of it in a minute, in namespaces of its own; needs neither root nor a running daemon.
    #[command(after_help = "Example: workloadnet demo")]
    Demo,
    /// Say whether an attach could succeed now, and what is missing where not.
    #[command(after_help = "Example: until workloadnet status; do sleep 1; done")]
    Status,
    /// Show the node: prefixes and how full they are, MTU, limits.
    #[command(after_help = "Example: workloadnet node")]
    Node,
    /// List attachments.
    #[command(after_help = "Example: workloadnet list --owner k8s.io")]
    List {
        /// Only attachments of this owner; '' is the owner of those that name none.
        #[arg(long)]
        owner: Option<String>,
    },
    /// Show one attachment with everything that is known of it.
    #[command(after_help = "Example: workloadnet get web-1")]
    Get(KeyArgs),
    /// Compare what the kernel holds with what it is to hold.
    #[command(after_help = "Examples:\n  workloadnet check\n  workloadnet check web-1")]
    Check {
        /// Only this workload; without it, all of them and the node.
        #[arg(value_name = "ID")]
        workload_id: Option<String>,
        /// The namespace of ids that the workload id is one of.
        #[arg(long, requires = "workload_id")]
        owner: Option<String>,
        /// Name of the link inside the namespace; without it, eth0.
        #[arg(long, value_name = "NAME", requires = "workload_id")]
        if_name: Option<String>,
    },
    /// Attach a network namespace.
    #[command(
        after_help = "Example: workloadnet attach web-1 --netns /run/netns/web-1 --publish 8080:80 --label app=web"
    )]
    Attach {
        #[command(flatten)]
        key: KeyArgs,
        /// The network namespace: a bind mount of one, /proc/PID/ns/net, or a name that `ip netns` knows.
        #[arg(long, value_name = "PATH", value_parser = namespace)]
        netns: String,
        /// MTU of the link, in bytes; without it, the daemon's setting.
        #[arg(long, value_parser = clap::value_parser!(u16).range(68..))]
        mtu: Option<u16>,
        /// An address to have; once per family. Without it the daemon chooses.
        #[arg(long = "ip", value_name = "ADDRESS")]
        ips: Vec<IpAddr>,
        /// MAC of the workload's end; without it the daemon chooses.
        #[arg(long, value_name = "MAC", value_parser = mac)]
        mac: Option<[u8; 6]>,
        /// A port of the node that leads to one of the workload's, with tcp, udp or sctp behind it; may be given several times.
        #[arg(long = "publish", value_name = "[ADDRESS:]PORT:PORT[/PROTOCOL]", value_parser = publish)]
        ports: Vec<PortMapping>,
        /// A label for people; may be given several times.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Take a workload off. What is not attached is a success.
    #[command(after_help = "Example: workloadnet detach web-1")]
    Detach {
        #[command(flatten)]
        key: KeyArgs,
        /// Only if it is attached to this network namespace; named as for attach.
        #[arg(long, value_name = "PATH", value_parser = namespace)]
        netns: Option<String>,
    },
    /// Take over running pods of other CNI plugins, without touching a packet; without --take, only look.
    #[command(
        after_help = "Examples:\n  workloadnet adopt --from host-local\n  workloadnet adopt --from host-local --take\n  workloadnet adopt --from host-local --commit"
    )]
    Adopt(adopt::Adopt),
    /// Tell which prefixes serve, where the settings have prefixes.source = "api". What is not named drains.
    #[command(after_help = "Example: workloadnet set-prefixes 10.77.3.0/24 fd77:3::/64")]
    SetPrefixes {
        /// All of them, in the order in which they are to be used.
        #[arg(value_name = "PREFIX", required = true)]
        prefixes: Vec<String>,
    },
    /// Put the CNI plugin and a network where runtimes look.
    #[command(after_help = "Example: workloadnet install-cni --owner k8s.io --chain bandwidth")]
    InstallCni(install::Network),
    /// Take the CNI plugin and its network away.
    #[command(after_help = "Example: workloadnet uninstall-cni")]
    UninstallCni(install::Place),
    /// Print a completion script.
    #[command(after_help = "Example: workloadnet completions bash > /etc/bash_completion.d/workloadnet")]
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages of all commands into a folder, or print the first one.
    #[command(
        after_help = "Examples:\n  workloadnet man /usr/local/share/man/man1\n  workloadnet man | man -l -"
    )]
    Man {
        /// The folder, made where it is missing.
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// What the workload is known by.
    #[arg(value_name = "ID")]
    pub(crate) workload_id: String,
    #[command(flatten)]
    pub(crate) rest: KeyRest,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRest {
    /// The namespace of ids that the workload id is one of.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) owner: String,
    /// Name of the link inside the namespace.
    #[arg(long, value_name = "NAME", default_value = IF_NAME)]
    pub(crate) if_name: String,
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || "a MAC is six pairs of hexadecimal digits with colons between them".to_owned();
    let bytes: Vec<u8> = text
        .split(':')
        .map(|pair| match pair.len() {
            2 if pair.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u8::from_str_radix(pair, 16).map_err(|_| wrong())
            }
            _ => Err(wrong()),
        })
        .collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| wrong())
}

/// What a link is called inside where nobody says.
pub(crate) const IF_NAME: &str = "eth0";
/// Where `ip netns` keeps its namespaces (ip-netns(8)).
const NAMED: &str = "/run/netns";

/// The daemon's working directory is another one, so it gets an absolute path.
fn namespace(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if !text.contains('/') {
        return Ok(format!("{NAMED}/{text}"));
    }
    let path = std::path::absolute(text).map_err(|error| error.to_string())?;
    path.into_os_string()
        .into_string()
        .map_err(|path| format!("{} is not UTF-8", path.display()))
}

/// As runtimes take it: `8080:80`, `127.0.0.1:8080:80`, `[fd00::1]:53:5353/udp`.
fn publish(text: &str) -> Result<PortMapping, String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(format!("{other:?} is not tcp, udp or sctp")),
    };
    let (rest, container_port) = rest
        .rsplit_once(':')
        .ok_or("there are two ports, as in 8080:80")?;
    let (address, host_port) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, port)) => (Some(address), port),
    };
    let address = address.map(|text| {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let address = match bare {
            Some(v6) => v6.parse().map(IpAddr::V6).ok(),
            None => text.parse().map(IpAddr::V4).ok(),
        };
        address.ok_or_else(|| format!("{text:?} is no address; one of IPv6 is in brackets"))
    });
    let port = |text: &str| {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        port.map(u32::from)
            .ok_or_else(|| format!("{text:?} is not 1 to 65535"))
    };
    Ok(PortMapping {
        host_port: port(host_port)?,
        container_port: port(container_port)?,
        protocol: protocol.into(),
        host_ip: address.transpose()?.as_ref().map(octets).unwrap_or_default(),
    })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A label that is given twice, of which one would be lost.
pub(crate) fn twice(labels: &[(String, String)]) -> Option<&str> {
    let mut keys: Vec<&str> = labels.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_namespace_is_a_name_of_ip_netns_or_a_path_from_here() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(namespace("web-1").unwrap(), "/run/netns/web-1");
        assert_eq!(namespace("/proc/1/ns/net").unwrap(), "/proc/1/ns/net");
        let below = here.join("ns/web-1").display().to_string();
        assert_eq!(namespace("ns/web-1").unwrap(), below);
        assert_eq!(namespace("./ns/web-1").unwrap(), below);
        assert!(namespace("").is_err());
    }

    #[test]
    fn a_port_is_published_as_runtimes_write_it() {
        let port = |host_port, container_port, protocol: Protocol, host_ip: &[u8]| PortMapping {
            host_port,
            container_port,
            protocol: protocol.into(),
            host_ip: host_ip.to_vec(),
        };
        assert_eq!(publish("8080:80"), Ok(port(8080, 80, Protocol::Tcp, &[])));
        assert_eq!(
            publish("127.0.0.1:53:5353/udp"),
            Ok(port(53, 5353, Protocol::Udp, &[127, 0, 0, 1]))
        );
        let v6 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(publish("[fd00::1]:1:2/sctp"), Ok(port(1, 2, Protocol::Sctp, &v6)));
        for (text, why) in [
            ("80", "there are two ports, as in 8080:80"),
            ("0:80", "\"0\" is not 1 to 65535"),
            ("80:65536", "\"65536\" is not 1 to 65535"),
            ("80:80/icmp", "\"icmp\" is not tcp, udp or sctp"),
            (
                "fd00::1:80:80",
                "\"fd00::1\" is no address; one of IPv6 is in brackets",
            ),
            (
                "[127.0.0.1]:80:80",
                "\"[127.0.0.1]\" is no address; one of IPv6 is in brackets",
            ),
        ] {
            assert_eq!(publish(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_label_that_is_given_twice_is_found() {
        let all = |keys: &[&str]| -> Vec<(String, String)> {
            keys.iter()
                .map(|key| ((*key).to_owned(), String::new()))
                .collect()
        };
        assert_eq!(twice(&all(&["b", "a", "c", "a"])), Some("a"));
        assert_eq!(twice(&all(&["b", "a"])), None);
    }

    #[test]
    fn a_label_is_split_at_its_first_equals_sign() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("a").is_err());
    }
}
