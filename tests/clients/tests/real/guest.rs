//! A virtual machine in a pod's network namespace, connected as Kata Containers does it: a tap, and whatever comes in at
//! either of the pod's link and the tap goes out at the other. The guest has the link's MAC and the pod's addresses.
//!
//! QEMU emulates the processor, so that it runs where there is no /dev/kvm. The guest's kernel is Debian's for clouds, and
//! busybox is all that runs on it. It takes one script a line on a virtio port: a serial line loses what comes too fast.

use crate::host::{Host, built};
use crate::image::{BUSYBOX, WHO};
use crate::member::Member;
use crate::room::Running;
use stage::wait::{PATIENCE, eventually};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What the guest's kernel loads, in this order.
const MODULES: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_console",
];
const APPLETS: [&str; 12] = [
    "sh", "mount", "insmod", "ip", "httpd", "nc", "cat", "sleep", "printf", "ping", "timeout", "echo",
];
/// Said behind each answer.
const END: &str = "-- end of the answer --";

pub(crate) struct Guest {
    addresses: Vec<IpAddr>,
    line: RefCell<BufReader<UnixStream>>,
    qemu: Running,
}

impl Guest {
    /// Boots a guest in a pod's namespace, where its addresses are, and waits until it serves.
    pub(crate) fn start(host: &Host, namespace: &str, mac: &str, addresses: Vec<IpAddr>) -> Self {
        let room = &host.room;
        let enter = format!("--net={namespace}");
        let inside = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            room.run(&[&["nsenter", &enter, "--"], &words[..]].concat())
        };
        inside("ip tuntap add tap0 mode tap");
        inside("ip link set tap0 up");
        for (from, to) in [("eth0", "tap0"), ("tap0", "eth0")] {
            inside(&format!("tc qdisc add dev {from} ingress"));
            inside(&format!(
                "tc filter add dev {from} parent ffff: protocol all u32 match u8 0 0 action mirred egress redirect dev {to}"
            ));
        }
        let socket = room.folder().join("line");
        let initramfs = room.folder().join("initramfs");
        fs::write(&initramfs, self::initramfs()).unwrap();
        let (kernel, shown) = (part("vmlinuz"), |path: &Path| path.display().to_string());
        let console = format!("file:{}", shown(&room.log("guest")));
        let line = format!(
            "qemu-system-x86_64 -machine q35,accel=tcg -m 128 -nodefaults -display none -no-reboot \
             -serial {console} -device virtio-serial-pci \
             -chardev socket,id=line,path={},server=on,wait=off -device virtserialport,chardev=line \
             -netdev tap,id=pod,ifname=tap0,script=no,downscript=no,vhost=off -device virtio-net-pci,netdev=pod,mac={mac} \
             -kernel {} -initrd {}",
            shown(&socket),
            shown(&kernel),
            shown(&initramfs)
        );
        let words: Vec<&str> = line.split(' ').collect();
        let append = ["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"];
        let mut qemu = room.start(
            "qemu",
            &[&["nsenter", &enter, "--"], &words[..], &append].concat(),
        );
        let stream = eventually(
            PATIENCE,
            "qemu listens",
            || {
                assert!(!qemu.has_ended(), "qemu has ended");
                UnixStream::connect(&socket)
            },
            Result::is_ok,
        );
        let stream = stream.unwrap();
        // Under software emulation, beside other tests, a boot takes up to some ten seconds.
        stream.set_read_timeout(Some(3 * PATIENCE)).unwrap();
        let guest = Self {
            addresses,
            line: RefCell::new(BufReader::new(stream)),
            qemu,
        };
        guest.answer();
        guest.configure();
        guest
    }

    /// What an agent inside would do: the addresses, and the routes that the pod's namespace has.
    fn configure(&self) {
        let [v4, v6] = self.addresses[..] else {
            panic!("one address of each family: {:?}", self.addresses)
        };
        let said = self.run(&format!(
            "ip link set lo up; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up; \
             ip address add {v4}/32 dev eth0; ip route add 169.254.77.1 dev eth0; \
             ip route add default via 169.254.77.1; ip address add {v6}/128 dev eth0; \
             ip -6 route add default via fe80::1 dev eth0; httpd -p 80 -h /www"
        ));
        assert_eq!(said, "");
    }

    /// The lines up to the next end.
    fn answer(&self) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let length = self.line.borrow_mut().read_line(&mut line);
            assert!(length.unwrap() > 0, "the guest has ended; it said {said:?}");
            if line.trim() == END {
                return said;
            }
            said.push_str(&line);
        }
    }

    /// SIGKILL for the machine.
    pub(crate) fn end(self, host: &Host) {
        host.room.kill(self.qemu);
    }
}

impl Member for Guest {
    fn run(&self, script: &str) -> String {
        let line = format!("{script}\n");
        self.line
            .borrow_mut()
            .get_mut()
            .write_all(line.as_bytes())
            .unwrap();
        self.answer()
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.clone()
    }
}

/// A file of the guest's kernel, which `cargo xtask test` puts below the target folder.
fn part(name: &str) -> PathBuf {
    let path = built("guest").join(name);
    assert!(
        path.is_file(),
        "{} is missing: cargo xtask clients brings it",
        path.display()
    );
    path
}

/// The guest's files, as a cpio archive (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
fn initramfs() -> Vec<u8> {
    let mut init = String::from("#!/bin/sh\nmount -t proc proc /proc\nmount -t devtmpfs dev /dev\n");
    for module in MODULES {
        writeln!(init, "insmod /modules/{module}.ko").unwrap();
    }
    let serve = "while read -r line; do eval \"$line\"; echo \"$END\"; done";
    // The port comes a moment after its driver, and only one can have it open.
    init.push_str("until (: <>/dev/vport0p1) 2>/dev/null; do sleep 0.1; done\n");
    writeln!(
        init,
        "exec 0<>/dev/vport0p1 1>&0 2>&0\nEND='{END}'\necho \"$END\"\n{serve}"
    )
    .unwrap();
    let busybox = fs::read(BUSYBOX).unwrap_or_else(|error| {
        panic!("{BUSYBOX}, of the Debian package busybox-static, is what the guest runs: {error}")
    });
    let mut archive = Cpio::default();
    for folder in ["bin", "modules", "proc", "dev", "www", "www/cgi-bin"] {
        archive.entry(folder, 0o040_755, b"");
    }
    archive.entry("init", 0o100_755, init.as_bytes());
    archive.entry("www/cgi-bin/who", 0o100_755, WHO.as_bytes());
    archive.entry("bin/busybox", 0o100_755, &busybox);
    for applet in APPLETS {
        archive.entry(&format!("bin/{applet}"), 0o120_777, b"busybox");
    }
    for module in MODULES {
        let name = format!("{module}.ko");
        archive.entry(
            &format!("modules/{name}"),
            0o100_644,
            &fs::read(part(&name)).unwrap(),
        );
    }
    archive.end()
}

/// An archive in the "newc" form.
#[derive(Default)]
struct Cpio(Vec<u8>);

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let number = self.0.len();
        let (size, length) = (content.len(), name.len() + 1);
        let mut head = format!("070701{number:08x}{mode:08x}");
        // uid, gid, links, mtime; size; four numbers of devices; the name's length and no checksum.
        write!(head, "{:08x}{:08x}{:08x}{:08x}{size:08x}", 0, 0, 1, 0).unwrap();
        write!(head, "{:08x}{:08x}{:08x}{:08x}{length:08x}{:08x}", 0, 0, 0, 0, 0).unwrap();
        self.0.extend(head.as_bytes());
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.0
    }
}
