//! `packaging/kubernetes`, applied as it is but for the image's name.

use crate::cluster::Cluster;
use crate::node::PRODUCT;
use std::fs;
use std::path::Path;

impl Cluster {
    pub(crate) fn install(&self) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/kubernetes");
        let base = self.control.folder().join("base");
        fs::create_dir(&base).unwrap();
        for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            if file.is_file() {
                fs::copy(&file, base.join(file.file_name().unwrap())).unwrap();
            }
        }
        self.share_lists(&base);
        let overlay = self.control.folder().join("overlay");
        fs::create_dir(&overlay).unwrap();
        let (name, tag) = PRODUCT.rsplit_once(':').unwrap();
        let text = format!(
            "resources: [../base]\nimages:\n- {{name: workloadnet, newName: {name}, newTag: {tag}}}\n"
        );
        fs::write(overlay.join("kustomization.yaml"), text).unwrap();
        self.kubectl(&["apply", "--validate=strict", "-k", overlay.to_str().unwrap()]);
    }

    /// Prefixes cannot come from Kubernetes yet, so that each node has a file of its own.
    fn share_lists(&self, base: &Path) {
        let path = base.join("workloadnetd.toml");
        let shipped = fs::read_to_string(&path).unwrap();
        let mut text: String = shipped
            .lines()
            .filter(|line| !line.starts_with("prefixes = "))
            .map(|line| format!("{line}\n"))
            .collect();
        text += "[prefixes]\nsource = \"file\"\nfile = \"/run/workloadnet/prefixes.toml\"\n";
        text += "[routes]\nmode = \"auto\"\npeers = \"/run/workloadnet/peers.toml\"\n";
        fs::write(&path, text).unwrap();
        self.write_lists();
    }

    /// Prefixes and peers, as Kubernetes gave them to the nodes.
    pub(crate) fn write_lists(&self) {
        let peers: String = self
            .nodes
            .iter()
            .map(|node| {
                format!(
                    "[[peer]]\nname = {:?}\naddresses = {:?}\nprefixes = {:?}\n",
                    node.name,
                    node.ips.map(|ip| ip.to_string()),
                    self.prefixes(node)
                )
            })
            .collect();
        for node in &self.nodes {
            node.room.write("/run/workloadnet/peers.toml", &peers);
            node.room.write(
                "/run/workloadnet/prefixes.toml",
                &format!("prefixes = {:?}\n", self.prefixes(node)),
            );
        }
    }
}
