//! What the service manager is told (sd_notify(3)), and when.

use crate::daemon::{Build, Daemon, attach, detach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use stage::pipe::fill;
use stage::wait::PATIENCE;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;

/// Starts the daemon as a service manager does that wants to be told.
fn start_notifying(daemon: &mut Daemon) -> UnixDatagram {
    let path = daemon.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = daemon.command(Build::Usual);
    command.env("NOTIFY_SOCKET", &path);
    let child = daemon.spawn(command);
    daemon.adopt(child);
    socket
}

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn ready_is_told_when_everything_is_as_it_was_and_stopping_at_the_end() {
    let mut daemon = Daemon::started();
    let namespaces: Vec<Sandbox> = (0..30).map(|_| Sandbox::new()).collect();
    let caller = daemon.caller();
    let mut hosts = Vec::new();
    for (n, namespace) in namespaces.iter().enumerate() {
        hosts.push(
            caller
                .attach(attach(&format!("w{n}"), namespace))
                .unwrap()
                .host_link,
        );
    }
    let world = daemon.world();
    daemon.stop();
    run(&daemon.node.node, "nft flush ruleset");
    for host in hosts {
        run(&daemon.node.node, &format!("ip address flush dev {host}"));
    }
    assert_ne!(daemon.world(), world);

    let socket = start_notifying(&mut daemon);
    assert_eq!(next(&socket), "STATUS=recovering: the kernel is being read\n");
    assert_eq!(next(&socket), "READY=1\nSTATUS=serving\n");
    assert_eq!(daemon.world(), world);
    daemon.caller().status().unwrap();
    daemon.stop();
    assert_eq!(next(&socket), "STOPPING=1\nSTATUS=finishing what runs\n");
}

/// A service that cannot attach serves all the same, and says why it cannot.
#[test]
fn ready_comes_with_what_an_attach_would_lack() {
    let mut daemon = Daemon::new();
    daemon.set_prefixes(&["10.77.0.0/30"]);
    daemon.start();
    let namespace = Sandbox::new();
    daemon.caller().attach(attach("web", &namespace)).unwrap();
    daemon.stop();
    let socket = start_notifying(&mut daemon);
    next(&socket);
    assert_eq!(next(&socket), "READY=1\nSTATUS=no IPv4 address is left\n");
}

/// As a journal that hangs, or a pipe that somebody has forgotten.
#[test]
fn a_log_that_nobody_reads_holds_up_no_order() {
    let mut daemon = Daemon::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let filled = fill(&writer).unwrap();
    let mut command = daemon.command(Build::Usual);
    command.stderr(writer);
    let child = daemon.spawn(command);
    daemon.adopt(child);
    daemon.wait_until_recovered();
    let (namespace, caller) = (Sandbox::new(), daemon.caller());
    for _ in 0..3 {
        caller.attach(attach("web", &namespace)).unwrap();
        caller.detach(detach("web")).unwrap();
    }
    reader.read_exact(&mut vec![0; filled]).unwrap();
    caller.attach(attach("web", &namespace)).unwrap();
    caller.detach(detach("web")).unwrap();
    daemon.stop();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let (first, rest) = rest.split_once('\n').unwrap();
    assert!(
        first.ends_with("lines were left out here: nobody read the log"),
        "{first}"
    );
    assert!(rest.contains("attached"), "{rest}");
}
