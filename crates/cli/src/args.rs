//! What can be typed. Each command's help ends with an example.

use crate::install;
use clap::{Args, Parser, Subcommand, ValueEnum};
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
    /// Socket of the daemon.
    #[arg(long, global = true, value_name = "PATH", env = client::SOCKET_VARIABLE, default_value = client::DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// How answers and errors look.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
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
        #[command(flatten)]
        rest: KeyRest,
    },
    /// Attach a network namespace.
    #[command(
        after_help = "Example: workloadnet attach web-1 --netns /run/netns/web-1 --ip 10.77.0.5 --label app=web"
    )]
    Attach {
        #[command(flatten)]
        key: KeyArgs,
        /// The network namespace: a bind mount of one, or /proc/PID/ns/net.
        #[arg(long, value_name = "PATH")]
        netns: String,
        /// MTU of the link, in bytes; without it, the daemon's setting.
        #[arg(long)]
        mtu: Option<u16>,
        /// An address to have; once per family. Without it the daemon chooses.
        #[arg(long = "ip", value_name = "ADDRESS")]
        ips: Vec<IpAddr>,
        /// A label for people; may be given several times.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Take a workload off. What is not attached is a success.
    #[command(after_help = "Example: workloadnet detach web-1")]
    Detach {
        #[command(flatten)]
        key: KeyArgs,
        /// Only if it is attached to this network namespace.
        #[arg(long, value_name = "PATH")]
        netns: Option<String>,
    },
    /// Put the CNI plugin and a network where runtimes look.
    #[command(after_help = "Example: workloadnet install-cni --owner k8s.io --chain portmap")]
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
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    pub(crate) if_name: String,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
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
    fn a_label_is_split_at_its_first_equals_sign() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("a").is_err());
    }
}
