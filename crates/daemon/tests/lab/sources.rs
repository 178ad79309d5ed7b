//! Prefixes that come and go under workloads: from a file that somebody replaces and spoils, and by SetPrefixes, with a
//! daemon that is killed meanwhile.

use crate::daemon::{Caller, Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use client::Error;
use client::inspection::prefix::State;
use stage::wait::{A_SECOND, PATIENCE, eventually};
use stage::{OUTSIDE, ping};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const ONE: [&str; 2] = ["10.77.1.0/24", "fd77:1::/64"];
const TWO: [&str; 2] = ["10.77.2.0/24", "fd77:2::/64"];

/// A daemon with prefixes from a source, not running yet.
fn told_by(source: &str) -> (Daemon, PathBuf) {
    let mut daemon = Daemon::new();
    let file = daemon.folder().join("prefixes.toml");
    daemon.set_prefixes(&[]);
    daemon.set_rest(match source {
        "file" => format!("[prefixes]\nsource = \"file\"\nfile = {file:?}\n"),
        source => format!("[prefixes]\nsource = {source:?}\n"),
    });
    (daemon, file)
}

/// As those write files who know how.
fn replace(file: &Path, prefixes: &[&str]) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, format!("prefixes = {prefixes:?}\n")).unwrap();
    std::fs::rename(beside, file).unwrap();
}

/// What each prefix is, as `10.77.1.0/24 serves 1 of generation 2`, in their order.
fn shown(caller: &Caller) -> Vec<String> {
    let show = |p: &client::inspection::Prefix| {
        let does = match p.state() {
            State::Draining => "drains",
            _ => "serves",
        };
        format!("{} {does} {} of generation {}", p.prefix, p.used, p.generation)
    };
    caller.node().prefix.iter().map(show).collect()
}

/// The same of both families of a pair.
fn both(pair: [&str; 2], is: &str) -> Vec<String> {
    pair.iter().map(|prefix| format!("{prefix} {is}")).collect()
}

#[track_caller]
fn expect(caller: &Caller, expected: &[Vec<String>]) {
    let expected = expected.concat();
    eventually(PATIENCE, "the prefixes", || shown(caller), |now| *now == expected);
}

/// Attaches, and says out of which pair.
fn attached(caller: &Caller, id: &str, namespace: &Sandbox) -> [&'static str; 2] {
    let answer = caller.attach(attach(id, namespace)).unwrap();
    let of = |pair: [&str; 2], address: &IpAddr| {
        let nets = pair.map(|text| text.parse::<ipnet::IpNet>().unwrap());
        nets.iter().any(|net| net.contains(address))
    };
    let addresses = addresses(&answer.ip);
    let mut pairs = [ONE, TWO].into_iter();
    pairs
        .find(|pair| addresses.iter().all(|address| of(*pair, address)))
        .unwrap_or_else(|| panic!("{addresses:?}"))
}

#[track_caller]
fn reaches_the_outside(namespace: &Sandbox) {
    for outside in OUTSIDE {
        ping(namespace, outside.parse().unwrap(), A_SECOND).unwrap();
    }
}

fn refused(error: Error) -> String {
    match error {
        Error::Refused(refused) => refused.message,
        other => panic!("{other}"),
    }
}

#[test]
fn what_drains_outlives_a_crash_and_serves_again_when_its_prefix_returns() {
    let (mut daemon, file) = told_by("file");
    daemon.start_lacking("prefixes.toml cannot be read: No such file or directory");
    let (web, api, late) = (Sandbox::new(), Sandbox::new(), Sandbox::new());
    let why = refused(daemon.caller().attach(attach("web", &web)).unwrap_err());
    assert!(why.contains("not ready: no prefix yet: "), "{why}");
    replace(&file, &ONE);
    let caller = daemon.caller();
    eventually(PATIENCE, "ready", || caller.status().is_ok(), |&ready| ready);
    assert_eq!(attached(&caller, "web", &web), ONE);

    // Gone from the file, and then the daemon's life, too.
    replace(&file, &TWO);
    expect(
        &caller,
        &[
            both(TWO, "serves 0 of generation 2"),
            both(ONE, "drains 1 of generation 2"),
        ],
    );
    assert_eq!(attached(&caller, "api", &api), TWO);
    let (world, before) = (daemon.world(), shown(&caller));
    daemon.crash();
    reaches_the_outside(&web);
    daemon.start();
    assert_eq!((shown(&daemon.caller()), daemon.world()), (before, world));
    reaches_the_outside(&web);
    let caller = daemon.caller();
    assert_eq!(attached(&caller, "late", &late), TWO);
    caller.detach(detach("late")).unwrap();

    // It returns, and serves with what it had.
    replace(&file, &[ONE, TWO].concat());
    expect(
        &caller,
        &[
            both(ONE, "serves 1 of generation 3"),
            both(TWO, "serves 1 of generation 2"),
        ],
    );
    assert_eq!(attached(&caller, "late", &late), ONE);
    caller.detach(detach("late")).unwrap();

    // It ends with its last lease.
    replace(&file, &TWO);
    expect(
        &caller,
        &[
            both(TWO, "serves 1 of generation 2"),
            both(ONE, "drains 1 of generation 4"),
        ],
    );
    caller.detach(detach("web")).unwrap();
    expect(&caller, &[both(TWO, "serves 1 of generation 2")]);
    assert_eq!(caller.findings(), [""; 0]);
}

#[test]
fn a_file_that_is_spoiled_takes_nothing_away_and_says_why() {
    let (mut daemon, file) = told_by("file");
    replace(&file, &ONE);
    daemon.start();
    let (web, caller) = (Sandbox::new(), daemon.caller());
    assert_eq!(attached(&caller, "web", &web), ONE);
    let (world, before) = (daemon.world(), shown(&caller));
    let long: Vec<String> = (0..40_000_u32)
        .map(|n| format!("10.{}.{}.{}/30", 100 + (n >> 14), (n >> 6) & 255, (n & 63) << 2))
        .collect();
    for (spoiled, why) in [
        (Some(String::new()), "missing field `prefixes`"),
        (Some("prefixes = [".to_owned()), "line 1, column"),
        (Some("prefixes = []".to_owned()), "it names no prefix"),
        (
            Some("prefixes = [\"10.77.1.0/24\", \"10.77.0.0/16\"]".to_owned()),
            "overlap",
        ),
        (
            Some(format!("prefixes = {long:?}")),
            "40000 prefixes are too many: a node serves at most 256",
        ),
        (None, "cannot be read: No such file or directory"),
    ] {
        match spoiled {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let source = || caller.node().source.unwrap();
        eventually(PATIENCE, why, source, |source| source.trouble.contains(why));
        assert_eq!(source().generation, 1);
        assert_eq!(
            (shown(&caller), daemon.world()),
            (before.clone(), world.clone()),
            "{why}"
        );
        // Who is attached is not asked, and who comes is served.
        let other = Sandbox::new();
        assert_eq!(attached(&caller, "other", &other), ONE);
        caller.detach(detach("other")).unwrap();
        caller.status().unwrap();
    }
    replace(&file, &ONE);
    let trouble = || caller.node().source.unwrap().trouble;
    eventually(PATIENCE, "all is well", trouble, String::is_empty);
    assert_eq!((shown(&caller), daemon.world()), (before, world));
}

#[test]
fn what_was_told_serves_on_after_a_crash_and_is_the_same_generation_when_it_is_told_again() {
    const LACKS: &str = "no prefix yet: nobody has called SetPrefixes";
    let (mut daemon, _) = told_by("api");
    let tell = |caller: &Caller, prefixes: &[&str]| {
        let prefixes = prefixes.iter().map(|&text| text.to_owned()).collect();
        caller.talk(async |client| client.set_prefixes(prefixes).await)
    };
    daemon.start_lacking(LACKS);
    let caller = daemon.caller();
    assert_eq!(tell(&caller, &ONE).unwrap(), 1);
    let (web, api) = (Sandbox::new(), Sandbox::new());
    assert_eq!(attached(&caller, "web", &web), ONE);
    assert_eq!(tell(&caller, &TWO).unwrap(), 2);
    // Killed right after the answer.
    daemon.crash();
    daemon.start();
    reaches_the_outside(&web);
    let caller = daemon.caller();
    let doubt = "nobody has called SetPrefixes since the daemon began";
    let stand = [
        both(TWO, "serves 0 of generation 2"),
        both(ONE, "drains 1 of generation 2"),
    ];
    assert_eq!(shown(&caller), stand.concat());
    let source = caller.node().source.unwrap();
    assert_eq!((source.generation, source.trouble.as_str()), (2, doubt));
    assert_eq!(
        caller.node().warning,
        [format!("the prefixes of generation 2 stay: {doubt}")]
    );
    assert_eq!(attached(&caller, "api", &api), TWO);
    assert_eq!(attached(&caller, "web", &web), ONE);
    let before = shown(&caller);

    assert_eq!(tell(&caller, &TWO).unwrap(), 2);
    assert_eq!((shown(&caller), caller.node().warning), (before.clone(), vec![]));
    let many = vec!["10.9.0.0/24"; 257];
    let why = refused(tell(&caller, &many).unwrap_err());
    assert!(why.contains("257 prefixes are too many"), "{why}");
    assert!(tell(&caller, &[]).is_err());
    assert_eq!(shown(&caller), before);

    assert_eq!(tell(&caller, &ONE).unwrap(), 3);
    expect(
        &caller,
        &[
            both(ONE, "serves 1 of generation 3"),
            both(TWO, "drains 1 of generation 3"),
        ],
    );
    caller.detach(detach("web")).unwrap();
    caller.detach(detach("api")).unwrap();
    assert_eq!(shown(&caller), both(ONE, "serves 0 of generation 3"));

    // The file is a memory: without it the daemon waits.
    daemon.crash();
    std::fs::remove_file(daemon.state()).unwrap();
    daemon.start_lacking(LACKS);
    assert_eq!(shown(&daemon.caller()), [""; 0]);
}
