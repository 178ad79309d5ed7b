//! `packaging/kubernetes`, applied as it is but for the image's name.

use crate::cluster::Cluster;
use crate::node::PRODUCT;
use std::fs;
use std::path::{Path, PathBuf};

impl Cluster {
    pub(crate) fn install(&self) {
        let base = self.control.folder().join("base");
        fs::create_dir(&base).unwrap();
        let files = fs::read_dir(packaging("kubernetes")).unwrap();
        for file in files.map(|entry| entry.unwrap().path()) {
            if file.is_file() {
                fs::copy(&file, base.join(file.file_name().unwrap())).unwrap();
            }
        }
        let overlay = self.overlay();
        fs::create_dir(&overlay).unwrap();
        let (name, tag) = PRODUCT.rsplit_once(':').unwrap();
        let text = format!(
            "resources: [../base]\nimages:\n- {{name: workloadnet, newName: {name}, newTag: {tag}}}\n"
        );
        fs::write(overlay.join("kustomization.yaml"), text).unwrap();
        self.kubectl(&["apply", "--validate=strict", "-k", overlay.to_str().unwrap()]);
    }

    /// Takes all of it away again.
    pub(crate) fn uninstall(&self) {
        self.kubectl(&["delete", "-k", self.overlay().to_str().unwrap()]);
    }

    fn overlay(&self) -> PathBuf {
        self.control.folder().join("overlay")
    }
}

/// A file or folder of `packaging`.
pub(crate) fn packaging(path: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    own.join(path).canonicalize().unwrap()
}
