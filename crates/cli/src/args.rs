//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// Sees and changes what workloadnetd attaches to this node's network.
#[derive(Debug, Parser)]
#[command(
    name = "workloadnet",
    version,
    after_help = "Exit codes: 0 done; 1 refused by the daemon, or the check found something; 2 wrong usage; \
                  3 the daemon cannot be reached; 4 the daemon is not ready."
)]
pub(crate) struct Cli {
    /// Socket of the daemon.
    #[arg(long, global = true, env = client::SOCKET_VARIABLE, default_value = client::DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// How answers look.
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
    Demo,
    /// Say whether an attach could succeed now.
    Status,
    /// Show the node: prefixes and how full they are, MTU, limits.
    Node,
    /// List attachments. Example: workloadnet list --owner k8s.io
    List {
        /// Only attachments of this owner.
        #[arg(long)]
        owner: Option<String>,
    },
    /// Show one attachment. Example: workloadnet get web-1
    Get(KeyArgs),
    /// Compare what the kernel holds with what it is to hold. Example: workloadnet check
    Check {
        /// Only this workload.
        workload_id: Option<String>,
        #[command(flatten)]
        rest: KeyRest,
    },
    /// Attach a network namespace. Example: workloadnet attach web-1 --netns /run/netns/web-1
    Attach {
        #[command(flatten)]
        key: KeyArgs,
        /// Path of the network namespace.
        #[arg(long)]
        netns: String,
        /// MTU of the link, in bytes.
        #[arg(long)]
        mtu: Option<u16>,
        /// An address to have; once per family.
        #[arg(long = "ip")]
        ips: Vec<IpAddr>,
        /// A label for people.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Take a workload off. What is not attached is a success. Example: workloadnet detach web-1
    Detach {
        #[command(flatten)]
        key: KeyArgs,
        /// Only if it is attached to this network namespace.
        #[arg(long)]
        netns: Option<String>,
    },
    /// Print a completion script. Example: workloadnet completions bash
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages into a folder. Example: workloadnet man /usr/share/man/man1
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// What the workload is known by.
    pub(crate) workload_id: String,
    #[command(flatten)]
    pub(crate) rest: KeyRest,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRest {
    /// The namespace of ids that the workload id is one of.
    #[arg(long, default_value = "")]
    pub(crate) owner: String,
    /// Name of the link inside the namespace.
    #[arg(long, default_value = "eth0")]
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
}
