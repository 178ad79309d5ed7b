//! Which values can be used, by themselves and together.

use super::{Config, Kubernetes, Network};
use crate::metrics::Listen;
use crate::source::{Kind, kubernetes};
use anyhow::{Context as _, bail};
use model::peer::Peer;
use model::survey::DYING_GROUPS;

impl Config {
    /// Whether every value can be used.
    pub fn check(&self) -> anyhow::Result<()> {
        self.prefixes()?;
        self.no_masquerade()?;
        self.large_mtu_owners()?;
        self.check_source()?;
        self.socket_ids()?;
        self.allowed()?;
        if !self.socket.path.is_absolute() {
            bail!("socket.path {:?}: must be absolute", self.socket.path);
        }
        let Network {
            state, proc_sys_net, ..
        } = &self.network;
        for (name, path) in [("state", state), ("proc_sys_net", proc_sys_net)] {
            if !path.is_absolute() {
                bail!("network.{name} {path:?}: must be absolute");
            }
        }
        let group = self.network.group;
        if group == 0 || DYING_GROUPS.contains(&group) {
            bail!(
                "network.group {group}: must not be 0, which every link has, nor {} to {}, where links are moved to be deleted",
                DYING_GROUPS.start(),
                DYING_GROUPS.end()
            );
        }
        if let Some(mtu) = self.network.mtu
            && mtu < 1280
        {
            bail!("network.mtu {mtu}: must be 1280 to 65535");
        }
        if self.network.cool_down_seconds > 86_400 {
            bail!(
                "network.cool_down_seconds {}: must be at most 86400",
                self.network.cool_down_seconds
            );
        }
        if !(1..1 << 24).contains(&self.routes.vxlan_id) {
            bail!("routes.vxlan_id {}: must be 1 to 16777215", self.routes.vxlan_id);
        }
        if self.routes.vxlan_port == 0 {
            bail!("routes.vxlan_port 0: must be 1 to 65535");
        }
        Peer::new("this node", self.routes.addresses.clone(), Vec::new()).context("routes.addresses")?;
        if let Some(path) = self.routes.peers.as_ref().filter(|path| !path.is_absolute()) {
            bail!("routes.peers {path:?}: must be absolute");
        }
        if let Some(Listen::Unix(path)) = &self.metrics.listen
            && *path == self.socket.path
        {
            bail!(
                "metrics.listen \"unix:{}\": is socket.path already",
                path.display()
            );
        }
        if self.limits.max_queued == 0 {
            bail!("limits.max_queued 0: must be at least 1");
        }
        if self.limits.max_connections == 0 {
            bail!("limits.max_connections 0: must be at least 1");
        }
        Ok(())
    }

    /// Settings of one source with another one chosen would be overlooked.
    fn check_source(&self) -> anyhow::Result<()> {
        let source = self.prefixes.source;
        if source != Kind::Fixed && self.network.prefixes.is_some() {
            bail!(
                "network.prefixes: prefixes.source is {source:?}, and these are used only with \"fixed\"",
                source = source.to_string()
            );
        }
        match &self.prefixes.file {
            None if source == Kind::File => {
                bail!("prefixes.file: must be set where prefixes.source is \"file\"")
            }
            Some(file) if source != Kind::File => {
                bail!("prefixes.file {file:?}: is used only where prefixes.source is \"file\"")
            }
            Some(file) if !file.is_absolute() => bail!("prefixes.file {file:?}: must be absolute"),
            _ => {}
        }
        if source != Kind::Kubernetes && self.kubernetes != Kubernetes::default() {
            bail!("kubernetes: is used only where prefixes.source is \"kubernetes\"");
        }
        if let Some(node) = self
            .kubernetes
            .node
            .as_ref()
            .filter(|node| !kubernetes::is_name(node))
        {
            bail!("kubernetes.node {node:?}: is no name of a Node");
        }
        if let Some(file) = self.routes.peers.as_ref().filter(|_| source == Kind::Kubernetes) {
            bail!(
                "routes.peers {file:?}: with prefixes.source \"kubernetes\" the other nodes are known from Kubernetes"
            );
        }
        if let Some(path) = &self.kubernetes.kubeconfig
            && !path.is_absolute()
        {
            bail!("kubernetes.kubeconfig {path:?}: must be absolute");
        }
        Ok(())
    }
}
