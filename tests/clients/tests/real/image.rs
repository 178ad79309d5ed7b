//! A container image with nothing but Debian's static busybox, as `docker save` writes it;
//!
//! Every container serves HTTP on port 80. `/cgi-bin/who` says who the client is and which addresses the server has, so that
//! who is reached by an address is known by what it says, not by what it is called.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What a container does.
pub(crate) const SERVE: [&str; 6] = ["/bin/httpd", "-f", "-p", "80", "-h", "/www"];
/// What `/cgi-bin/who` is.
pub(crate) const WHO: &str = "#!/bin/sh\necho\necho \"$REMOTE_ADDR\"\nip -o address show dev eth0\n";
/// Where Debian's busybox-static puts it.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// Names by which busybox is called.
const APPLETS: [&str; 9] = [
    "sh", "httpd", "nc", "ip", "cat", "printf", "ping", "sleep", "timeout",
];

/// Writes the image; `name` has a registry's host in front and a tag behind.
pub(crate) fn write(path: &Path, name: &str) {
    let mut layer = Tar::default();
    for folder in ["bin", "www", "www/cgi-bin", "etc", "proc", "sys", "dev", "tmp"] {
        layer.folder(folder);
    }
    let busybox = fs::read(BUSYBOX).unwrap_or_else(|error| {
        panic!("{BUSYBOX}, of the Debian package busybox-static, is what the containers run: {error}")
    });
    layer.file("bin/busybox", 0o755, &busybox);
    for applet in APPLETS {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    layer.file("www/cgi-bin/who", 0o755, WHO.as_bytes());
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    save(path, name, layer, &SERVE);
}

/// One layer and a command, as an archive.
pub(crate) fn save(path: &Path, name: &str, layer: Tar, command: &[&str]) {
    let layer = layer.end();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": command, "Env": ["PATH=/bin"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
    })
    .to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let manifest =
        serde_json::json!([{ "Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"] }]);
    let mut image = Tar::default();
    image.file("layer.tar", 0o644, &layer);
    image.file(&config_name, 0o644, config.as_bytes());
    image.file("manifest.json", 0o644, manifest.to_string().as_bytes());
    fs::write(path, image.end()).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes any text");
            text
        })
}

/// An archive in the ustar form (POSIX.1-1988).
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn folder(&mut self, name: &str) {
        self.entry(name, 0o755, b'5', "", &[]);
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, mode, b'0', "", content);
    }

    fn link(&mut self, name: &str, target: &str) {
        self.entry(name, 0o777, b'2', target, &[]);
    }

    fn entry(&mut self, name: &str, mode: u32, kind: u8, target: &str, content: &[u8]) {
        let mut head = [0; 512];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(157, target);
        put(257, "ustar\x0000");
        head[156] = kind;
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(head);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
