//! The metrics as monitoring asks for them: over real HTTP, of a real daemon.

use crate::daemon::{Build, Daemon, attach, detach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use stage::wait::{PATIENCE, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const PORT: u16 = 4777;

/// A daemon that tells its metrics, not running yet; with more settings.
fn telling(rest: &str) -> Daemon {
    let mut daemon = Daemon::new();
    run(&daemon.node.node, "ip link set lo up");
    daemon.set_rest(format!("[metrics]\nlisten = \"127.0.0.1:{PORT}\"\n{rest}"));
    daemon
}

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = daemon
        .node
        .node
        .within(|| TcpStream::connect(("127.0.0.1", PORT)))
        .unwrap()
        .unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

/// Sends bytes, and reads until the daemon closes.
fn speak(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        // What was sent and not read is a reset after the answer.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => {}
    }
    let all = String::from_utf8(all).unwrap();
    let (headers, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let status = headers.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("{all:?}")),
        headers: headers.to_lowercase(),
        body: body.to_owned(),
    }
}

fn ask(daemon: &Daemon, method: &str, path: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    speak(connect(daemon), &request)
}

fn get(daemon: &Daemon, path: &str) -> (u16, String) {
    let Answer { status, body, .. } = ask(daemon, "GET", path);
    (status, body)
}

fn page(daemon: &Daemon) -> String {
    let (status, text) = get(daemon, "/metrics");
    assert_eq!(status, 200, "{text}");
    text
}

/// What stands behind a metric with its labels.
#[track_caller]
fn value(page: &str, name: &str) -> f64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("no {name}: {page}"));
    line.parse().unwrap()
}

/// Waits for it.
#[track_caller]
fn expect(daemon: &Daemon, name: &str, expected: f64) {
    eventually(
        PATIENCE,
        name,
        || value(&page(daemon), name),
        |now| *now == expected,
    );
}

#[test]
fn attaches_detaches_addresses_and_drift_are_counted() {
    let mut daemon = telling("");
    daemon.set_prefixes(&["10.77.0.0/29", "fd77::/64"]);
    daemon.set_cool_down(150);
    daemon.start();
    let before = page(&daemon);
    for (name, expected) in [
        ("workloadnet_ready", 1.0),
        ("workloadnet_attachments", 0.0),
        ("workloadnet_attaches_total{code=\"OK\"}", 0.0),
        ("workloadnet_orders", 0.0),
        ("workloadnet_orders_limit", 1024.0),
        ("workloadnet_source_stale", 0.0),
        ("workloadnet_source_generation", 1.0),
        ("workloadnet_link_mtu_bytes", 1500.0),
        ("workloadnet_put_backs_total{what=\"table\"}", 0.0),
        ("workloadnet_prefix_capacity{prefix=\"10.77.0.0/29\"}", 5.0),
        (
            "workloadnet_prefix_addresses{prefix=\"10.77.0.0/29\",state=\"free\"}",
            5.0,
        ),
        ("workloadnet_prefix_draining{prefix=\"fd77::/64\"}", 0.0),
    ] {
        assert_eq!(value(&before, name), expected, "{name}");
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    for name in [
        "process_start_time_seconds",
        "workloadnet_source_last_good_timestamp_seconds",
    ] {
        assert!(
            (now - 600.0..=now + 2.0).contains(&value(&before, name)),
            "{name}"
        );
    }
    assert!(value(&before, "process_resident_memory_bytes") > 1e6);
    assert!(value(&before, "process_open_fds") > 5.0);

    let sandboxes: Vec<Sandbox> = (0..6).map(|_| Sandbox::new()).collect();
    for (n, sandbox) in sandboxes.iter().enumerate() {
        let outcome = daemon.caller().attach(attach(&format!("w{n}"), sandbox));
        assert_eq!(outcome.is_ok(), n < 5, "{outcome:?}");
    }
    let mut nameless = attach("", &sandboxes[0]);
    nameless.workload_id.clear();
    daemon.caller().attach(nameless).unwrap_err();
    daemon.caller().detach(detach("w0")).unwrap();
    daemon.caller().detach(detach("w0")).unwrap();
    daemon.caller().detach(detach("")).unwrap_err();
    let after = page(&daemon);
    for (name, expected) in [
        ("workloadnet_attaches_total{code=\"OK\"}", 5.0),
        ("workloadnet_attaches_total{code=\"RESOURCE_EXHAUSTED\"}", 1.0),
        ("workloadnet_attaches_total{code=\"INVALID_ARGUMENT\"}", 1.0),
        ("workloadnet_detaches_total{code=\"OK\"}", 2.0),
        ("workloadnet_detaches_total{code=\"INVALID_ARGUMENT\"}", 1.0),
        ("workloadnet_attach_duration_seconds_count", 5.0),
        ("workloadnet_attach_duration_seconds_bucket{le=\"+Inf\"}", 5.0),
        (
            "workloadnet_attach_phase_duration_seconds_count{phase=\"open\"}",
            6.0,
        ),
        (
            "workloadnet_attach_phase_duration_seconds_count{phase=\"wait\"}",
            6.0,
        ),
        (
            "workloadnet_attach_phase_duration_seconds_count{phase=\"kernel\"}",
            5.0,
        ),
        ("workloadnet_detach_duration_seconds_count", 2.0),
        (
            "workloadnet_detach_phase_duration_seconds_count{phase=\"kernel\"}",
            1.0,
        ),
        ("workloadnet_attachments", 4.0),
        (
            "workloadnet_prefix_addresses{prefix=\"10.77.0.0/29\",state=\"used\"}",
            4.0,
        ),
        (
            "workloadnet_prefix_addresses{prefix=\"10.77.0.0/29\",state=\"cooling\"}",
            1.0,
        ),
        (
            "workloadnet_prefix_addresses{prefix=\"10.77.0.0/29\",state=\"free\"}",
            0.0,
        ),
    ] {
        assert_eq!(value(&after, name), expected, "{name}");
    }
    let (sum, kernel) = (
        value(&after, "workloadnet_attach_duration_seconds_sum"),
        value(
            &after,
            "workloadnet_attach_phase_duration_seconds_sum{phase=\"kernel\"}",
        ),
    );
    assert!(0.0 < kernel && kernel < sum, "{kernel} of {sum}");

    // What others take away.
    let link = &daemon.caller().list()[0].host_link;
    run(&daemon.node.node, &format!("ip -4 route flush dev {link}"));
    expect(&daemon, "workloadnet_put_backs_total{what=\"route\"}", 1.0);
    run(&daemon.node.node, "nft flush ruleset");
    let tables = || value(&page(&daemon), "workloadnet_put_backs_total{what=\"table\"}");
    eventually(PATIENCE, "the tables are counted", tables, |count| *count >= 1.0);
    assert_eq!(value(&page(&daemon), "workloadnet_pruned_links_total"), 0.0);
}

#[test]
fn every_metric_is_described_with_its_labels_and_nothing_else_is() {
    let mut daemon = telling("");
    daemon.start();
    let answer = ask(&daemon, "GET", "/metrics");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.headers.contains(kind), "{}", answer.headers);
    assert!(answer.body.ends_with("# EOF\n"));
    // Names as Prometheus stores them, with the labels that are ours.
    let mut told: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
    let mut current = (String::new(), String::new());
    for line in answer.body.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            let end = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            current = (format!("{name}{end}"), kind.to_owned());
            assert!(told.insert(current.0.clone(), None).is_none(), "{name} twice");
        }
        if line.starts_with('#') {
            continue;
        }
        assert!(line.starts_with(&current.0), "{line} is none of {current:?}");
        let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let labels = labels.map_or("", |(labels, _)| labels).split(',');
        let names = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        let names: BTreeSet<String> = names.filter(|name| name != "le").collect();
        let seen = told.get_mut(&current.0).unwrap();
        assert!(
            seen.replace(names.clone()).is_none_or(|before| before == names),
            "{line}"
        );
    }
    let document = include_str!("../../../../docs/operating.md");
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| `workloadnet_") || line.starts_with("| `process_"));
    let mut described = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, labels, meaning, _alert, _] = cells[..] else {
            panic!("{row}")
        };
        assert!(meaning.len() > 10, "{row}");
        let in_code = |cell: &str| -> BTreeSet<String> {
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        for name in in_code(name) {
            assert!(described.insert(name, in_code(labels)).is_none(), "{row}");
        }
    }
    let names = |all: Vec<&String>| all.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(told.keys().collect()), names(described.keys().collect()));
    for (name, labels) in told {
        if let Some(labels) = labels {
            assert_eq!(labels, described[&name], "{name}");
        }
    }
}

#[test]
fn readiness_follows_the_prefixes_and_life_does_not() {
    let mut daemon = telling("[prefixes]\nsource = \"api\"\n");
    daemon.set_prefixes(&[]);
    daemon.start_lacking("nobody has called SetPrefixes");
    let tell = |daemon: &Daemon| {
        let prefixes = vec!["10.77.0.0/30".to_owned()];
        daemon
            .caller()
            .talk(async |client| client.set_prefixes(prefixes).await)
            .unwrap()
    };
    let ready = (200, "ok\n".to_owned());
    let unready = (503, "no prefix yet: nobody has called SetPrefixes\n".to_owned());
    assert_eq!(get(&daemon, "/readyz"), unready);
    assert_eq!(get(&daemon, "/healthz"), ready);
    let text = page(&daemon);
    assert_eq!(value(&text, "workloadnet_ready"), 0.0);
    assert_eq!(value(&text, "workloadnet_source_stale"), 1.0);
    assert_eq!(
        value(&text, "workloadnet_source_last_good_timestamp_seconds"),
        0.0
    );
    tell(&daemon);
    assert_eq!(get(&daemon, "/readyz"), ready);
    let text = page(&daemon);
    assert_eq!(value(&text, "workloadnet_ready"), 1.0);
    assert_eq!(value(&text, "workloadnet_source_stale"), 0.0);
    // Its only address is given out, and comes back.
    let web = Sandbox::new();
    daemon.caller().attach(attach("web", &web)).unwrap();
    assert_eq!(
        get(&daemon, "/readyz"),
        (503, "no IPv4 address is left\n".to_owned())
    );
    assert_eq!(get(&daemon, "/healthz"), ready);
    daemon.caller().detach(detach("web")).unwrap();
    assert_eq!(get(&daemon, "/readyz"), ready);
    // A file that cannot be used, under workloads.
    daemon.stop();
    let file = daemon.folder().join("prefixes.toml");
    std::fs::write(&file, "prefixes = [\"10.77.0.0/24\"]").unwrap();
    daemon.set_rest(format!(
        "[metrics]\nlisten = \"127.0.0.1:{PORT}\"\n[prefixes]\nsource = \"file\"\nfile = {file:?}\n"
    ));
    daemon.start();
    std::fs::write(&file, "nonsense").unwrap();
    expect(&daemon, "workloadnet_source_stale", 1.0);
    assert!(value(&page(&daemon), "workloadnet_source_failures_total") >= 1.0);
    assert_eq!(get(&daemon, "/readyz"), ready);
}

#[test]
fn what_is_no_question_is_refused_and_a_connection_has_one_answer() {
    let mut daemon = telling("");
    daemon.start();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("POST", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/metrics?name=x", 200),
    ] {
        let answer = ask(&daemon, method, path);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(
            answer.headers.contains("allow: get, head"),
            status == 405,
            "{answer:?}"
        );
    }
    let head = ask(&daemon, "HEAD", "/healthz");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.headers.contains("content-length: 3"), "{}", head.headers);
    // Nothing comes after the first answer, whatever is asked.
    let two = "GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: keep-alive\r\n\r\n".repeat(2);
    let answer = speak(connect(&daemon), &two);
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    for (request, status) in [
        (
            format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000)),
            431,
        ),
        (
            "GET /healthz HTTP/1.1\r\n".to_owned() + &"X: y\r\n".repeat(100) + "\r\n",
            431,
        ),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        assert_eq!(speak(connect(&daemon), &request).status, status);
    }
    assert_eq!(get(&daemon, "/healthz").0, 200);
}

/// More than may be open, none of which says what it wants.
#[test]
fn those_who_are_slow_keep_nobody_out_and_are_not_waited_for() {
    let mut daemon = telling("");
    daemon.start();
    let open = |daemon: &Daemon| value(&page(daemon), "process_open_fds");
    let idle = open(&daemon);
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(&daemon);
            stream.write_all(b"GET /metrics HTT").unwrap();
            stream
        })
        .collect();
    let (now, most) = (open(&daemon), idle + 50.0);
    assert!(now < most, "the oldest are closed: {now} of {most}");
    assert_eq!(get(&daemon, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(&daemon, "/readyz"), (200, "ok\n".to_owned()));
    // The last ones of them go after a while, too; and who reads nothing does.
    for mut stream in slow {
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            outcome => drop(outcome.unwrap()),
        }
        assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
    }
    let before = open(&daemon);
    let deaf: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = connect(&daemon);
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")
                .unwrap();
            stream
        })
        .collect();
    eventually(
        PATIENCE,
        "they are closed",
        || open(&daemon),
        |now| *now <= before,
    );
    drop(deaf);
}

#[test]
fn a_place_that_somebody_listens_on_is_refused_by_the_settings_name() {
    let mut daemon = telling("");
    let taken = daemon
        .node
        .node
        .within(|| TcpListener::bind(("127.0.0.1", PORT)))
        .unwrap()
        .unwrap();
    let child = daemon.spawn(daemon.command(Build::Usual));
    daemon.adopt(child);
    assert!(!daemon.wait().success());
    let said = "workloadnetd: metrics.listen \"127.0.0.1:4777\": Address already in use";
    assert!(daemon.logged().contains(said), "{}", daemon.logged());
    drop(taken);
    daemon.start();
    assert_eq!(get(&daemon, "/healthz").0, 200);
    // After a crash at once, too.
    daemon.crash();
    daemon.start();
    assert_eq!(get(&daemon, "/healthz").0, 200);
}

#[test]
fn a_socket_of_the_file_system_tells_the_same() {
    let mut daemon = Daemon::new();
    let path = daemon.folder().join("told/metrics.sock");
    daemon.set_rest(format!("[metrics]\nlisten = \"unix:{}\"\n", path.display()));
    daemon.start();
    let request = "GET /readyz HTTP/1.0\r\n\r\n";
    let answer = speak(UnixStream::connect(&path).unwrap(), request);
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    daemon.crash();
    daemon.start();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(speak(&mut stream, request).status, 200);
}
