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
        let overlay = self.control.folder().join("overlay");
        fs::create_dir(&overlay).unwrap();
        let (name, tag) = PRODUCT.rsplit_once(':').unwrap();
        let text = format!(
            "resources: [../base]\nimages:\n- {{name: workloadnet, newName: {name}, newTag: {tag}}}\n"
        );
        fs::write(overlay.join("kustomization.yaml"), text).unwrap();
        self.kubectl(&["apply", "--validate=strict", "-k", overlay.to_str().unwrap()]);
    }
}
