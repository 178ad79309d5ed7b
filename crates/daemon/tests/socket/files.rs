//! Open files: as many as the daemon may have, and none left is waited out.

use crate::lock::is_served;
use crate::process::Place;
use stage::Namespace;
use std::os::unix::net::UnixStream;

#[test]
fn a_daemon_may_open_as_many_files_as_it_may_allow_itself() {
    let (network, place) = (Namespace::new().unwrap(), Place::new());
    let daemon = place.start_limited("daemon", &network, "ulimit -Sn 256; ulimit -Hn 2000");
    is_served(&place.path("daemon.sock"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["2000", "2000"]);
    daemon.logs("fewer files may be open than [limits] may need");
}

#[test]
fn a_daemon_without_a_file_left_says_so_once_and_serves_again_when_there_is_one() {
    let (network, place) = (Namespace::new().unwrap(), Place::new());
    let daemon = place.start_limited("daemon", &network, "ulimit -n 48");
    let socket = place.path("daemon.sock");
    is_served(&socket);
    let many: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    daemon.logs("no connection can be taken: Too many open files");
    drop(many);
    is_served(&socket);
    let told = daemon.log().matches("Too many open files").count();
    assert_eq!(told, 1);
}
