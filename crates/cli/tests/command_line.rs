//! The program as people and scripts use it, against a small daemon on a socket of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adoption;
mod fake;

use fake::Fake;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn workloadnet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_workloadnet"));
    command
        .args(args)
        .env_remove("WORKLOADNET_SOCKET")
        .stdin(Stdio::null());
    command
}

fn run(socket: &Path, args: &[&str]) -> Output {
    workloadnet(args)
        .env("WORKLOADNET_SOCKET", socket)
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn stdout_of(socket: &Path, args: &[&str]) -> String {
    let output = run(socket, args);
    assert_eq!(
        (code(&output), text(&output.stderr)),
        (0, ""),
        "{args:?}: {output:?}"
    );
    text(&output.stdout).to_owned()
}

/// Exit code and standard error.
fn failure(socket: &Path, args: &[&str]) -> (i32, String) {
    let output = run(socket, args);
    assert_eq!(text(&output.stdout), "", "{args:?}");
    (code(&output), text(&output.stderr).to_owned())
}

/// Names of all commands, as the help lists them.
fn commands() -> Vec<String> {
    let help = workloadnet(&["--help"]).output().unwrap();
    let names: Vec<String> = text(&help.stdout)
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    names
}

#[test]
fn what_was_asked_reaches_the_daemon_and_its_answer_is_shown() {
    let fake = Fake::new();
    let attached = stdout_of(
        fake.socket(),
        &[
            "attach",
            "web-1",
            "--netns",
            "/run/netns/web",
            "--owner",
            "k8s.io",
            "--if-name",
            "net1",
            "--mtu",
            "1400",
            "--ip",
            "10.77.0.5",
            "--ip",
            "fd77::5",
            "--publish",
            "127.0.0.1:8080:80",
            "--publish",
            "53:5353/udp",
            "--label",
            "app=web",
        ],
    );
    assert_eq!(
        attached,
        "\
addresses         10.77.0.5
gateways          169.254.77.1
routes inside     -
link on the node  wk0123456789abc
MAC inside        02:00:00:00:00:05
MTU               1400
"
    );
    let asked = fake.attach_asked();
    assert_eq!((&*asked.workload_id, &*asked.owner), ("web-1", "k8s.io"));
    let netns = asked.netns.unwrap();
    assert_eq!((&*netns.netns_path, &*netns.if_name), ("/run/netns/web", "net1"));
    assert_eq!(asked.mtu, 1400);
    assert_eq!(asked.labels["app"], "web");
    let ports: Vec<_> = asked
        .port_mapping
        .iter()
        .map(|p| (p.host_port, p.container_port, p.protocol, p.host_ip.len()))
        .collect();
    assert_eq!(ports, [(8080, 80, 1, 4), (53, 5353, 2, 0)]);
    let v6: std::net::Ipv6Addr = "fd77::5".parse().unwrap();
    assert_eq!(asked.requested_ip, [vec![10, 77, 0, 5], v6.octets().to_vec()]);

    assert_eq!(
        stdout_of(fake.socket(), &["detach", "web-1", "--owner", "k8s.io"]),
        "web-1 is detached\n"
    );
    let asked = fake.detach_asked();
    assert_eq!((&*asked.workload_id, &*asked.owner), ("web-1", "k8s.io"));
    let netns = asked.netns.unwrap();
    assert_eq!((&*netns.netns_path, &*netns.if_name), ("", "eth0"));

    // It may be another sandbox that is attached: then that one stays, and this is still true.
    assert_eq!(
        stdout_of(fake.socket(), &["detach", "web-1", "--netns", "web"]),
        "web-1 is detached from /run/netns/web\n"
    );
    assert_eq!(fake.detach_asked().netns.unwrap().netns_path, "/run/netns/web");
}

#[test]
fn a_namespace_may_be_named_from_here() {
    let fake = Fake::new();
    let output = workloadnet(&["attach", "web-1", "--netns", "ns/web"])
        .current_dir(fake.socket().parent().unwrap())
        .env("WORKLOADNET_SOCKET", fake.socket())
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    let expected = fake.socket().with_file_name("ns/web");
    assert_eq!(
        fake.attach_asked().netns.unwrap().netns_path,
        expected.to_str().unwrap()
    );
}

#[test]
fn every_question_has_both_forms_of_answer() {
    let fake = Fake::new();
    let socket = fake.socket();
    assert_eq!(stdout_of(socket, &["status"]), "ready\n");
    assert!(stdout_of(socket, &["list"]).contains("web-1"));
    assert_eq!(
        stdout_of(socket, &["list", "--owner", "nobody"]),
        "nothing of owner nobody is attached\n"
    );
    assert!(stdout_of(socket, &["get", "web-1"]).starts_with("workload          web-1\n"));
    assert!(stdout_of(socket, &["node"]).contains("version      0.0.0"));
    let json = |args: &[&str]| -> Value {
        let text = stdout_of(socket, &[&["--output", "json"], args].concat());
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(json(&["status"]), json!({ "ready": true, "unready": [] }));
    assert_eq!(json(&["list"])["attachment"][0]["key"]["workload_id"], "web-1");
    assert_eq!(json(&["list", "--owner", "nobody"]), json!({ "attachment": [] }));
    assert_eq!(json(&["get", "web-1"])["attachment"]["key"]["if_name"], "eth0");
    assert_eq!(json(&["node"])["version"], "0.0.0");
    assert_eq!(json(&["check", "web-1"]), json!({ "finding": [] }));
    assert_eq!(json(&["detach", "web-1"]), json!({}));
    assert_eq!(
        json(&["attach", "web-1", "--netns", "/n"])["host_link"],
        "wk0123456789abc"
    );
}

#[test]
fn findings_of_a_check_make_exit_code_1() {
    let fake = Fake::new();
    let output = run(fake.socket(), &["check"]);
    assert_eq!(code(&output), 1);
    assert_eq!(
        text(&output.stdout),
        "\
OWNER  WORKLOAD  INTERFACE  FINDING
-      (node)    -          table inet workloadnet is missing
"
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn what_the_daemon_refuses_is_exit_code_1_with_a_hint() {
    let fake = Fake::new();
    let table = [
        (
            &["get", "nobody"] as &[&str],
            "error: \"nobody\" is not attached\n\
             hint: `workloadnet list` shows what is attached; the key is owner, workload id and if-name together\n",
        ),
        (
            &["attach", "held", "--netns", "/n"],
            "error: 10.77.0.5 is held by web-2\nhint: leave --ip away, or detach the holder first\n",
        ),
        (
            &["attach", "kernel", "--netns", "/n"],
            "error: ip link add: No buffer space available (errno 105)\n",
        ),
    ];
    for (args, expected) in table {
        assert_eq!(failure(fake.socket(), args), (1, expected.to_owned()), "{args:?}");
    }
    let (code, json) = failure(fake.socket(), &["get", "nobody", "--output", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["error"]["exit_code"]), (1, &json!(1)));
    assert_eq!(json["error"]["reason"], "NOT_ATTACHED");
    assert_eq!(json["error"]["code"], "NOT_FOUND");
    assert_eq!(json["error"]["metadata"]["key"], "nobody");
}

#[test]
fn wrong_usage_is_exit_code_2_and_asks_nobody() {
    let missing = Path::new("/nowhere/socket");
    let table = [
        (&[] as &[&str], "Usage: workloadnet"),
        (&["attach", "web-1"], "--netns <PATH>"),
        (
            &["attach", "web-1", "--netns", "/n", "--label", "a"],
            "a label is KEY=VALUE",
        ),
        (
            &["attach", "web-1", "--netns", "/n", "--ip", "10.0.0.0/8"],
            "--ip <ADDRESS>",
        ),
        (
            &["attach", "web-1", "--netns", "/n", "--mtu", "65536"],
            "--mtu <MTU>",
        ),
        (&["attach", "web-1", "--netns", "/n", "--mtu", "0"], "--mtu <MTU>"),
        (&["attach", "web-1", "--netns", ""], "--netns <PATH>"),
        // A variable that is not set must not take off whatever is attached.
        (&["detach", "web-1", "--netns", ""], "--netns <PATH>"),
        (
            &[
                "attach", "web-1", "--netns", "/n", "--label", "a=1", "--label", "a=2",
            ],
            "the label \"a\" is given twice",
        ),
        (&["check", "--owner", "k8s.io"], "<ID>"),
        (&["check", "--if-name", "eth0"], "<ID>"),
        (&["list", "--output", "yaml"], "possible values: table, json"),
        (&["nonsense"], "unrecognized subcommand"),
    ];
    for (args, expected) in table {
        let (code, text) = failure(missing, args);
        assert_eq!(code, 2, "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
    }
    let long = format!("/{}", "x".repeat(107));
    let (code, text) = failure(Path::new(&long), &["status"]);
    assert_eq!(code, 2, "{text}");
    assert!(
        text.ends_with("hint: a socket's path has 1 to 107 bytes\n"),
        "{text}"
    );
}

#[test]
fn a_daemon_that_is_not_there_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let (code, text) = failure(&socket, &["list"]);
    let error = format!(
        "error: workloadnetd cannot be reached on {}: No such file or directory (os error 2)\n",
        socket.display()
    );
    let hint = text.strip_prefix(&error).unwrap_or_else(|| panic!("{text}"));
    assert!(
        hint.starts_with("hint: is workloadnetd running? systemctl status workloadnetd"),
        "{hint}"
    );
    assert_eq!(code, 3);
}

#[test]
fn a_socket_is_named_by_flag_before_environment_and_may_be_relative() {
    let fake = Fake::new();
    let folder = fake.socket().parent().unwrap();
    let output = workloadnet(&["--socket", "socket", "status"])
        .current_dir(folder)
        .env("WORKLOADNET_SOCKET", "/nowhere/socket")
        .output()
        .unwrap();
    assert_eq!(
        (code(&output), text(&output.stdout)),
        (0, "ready\n"),
        "{output:?}"
    );
}

#[test]
fn an_empty_name_of_a_socket_in_the_environment_is_none() {
    // Whoever is asked then, or nobody: it is no wrong usage.
    let output = run(Path::new(""), &["list"]);
    assert_ne!(code(&output), 2, "{output:?}");
}

#[test]
fn a_daemon_that_is_not_ready_is_exit_code_4_with_each_condition() {
    let fake = Fake::unready(&["no address is left in 10.77.0.0/24", "the kernel is being read"]);
    let output = run(fake.socket(), &["status"]);
    assert_eq!(code(&output), 4);
    assert_eq!(
        text(&output.stdout),
        "not ready:\n  no address is left in 10.77.0.0/24\n  the kernel is being read\n"
    );
    let (code, text) = failure(fake.socket(), &["attach", "web-1", "--netns", "/n"]);
    assert_eq!(
        text,
        "error: not ready: no address is left in 10.77.0.0/24; the kernel is being read\n\
         hint: `workloadnet status` shows what is missing, one condition a line\n"
    );
    assert_eq!(code, 4);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::new();
    for args in [
        &["list"] as &[&str],
        &["completions", "bash"],
        &["--help"],
        &["man"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = workloadnet(args)
            .env("WORKLOADNET_SOCKET", fake.socket())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), &*said), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn the_help_of_every_command_has_an_example_of_it() {
    for name in commands() {
        let help = workloadnet(&[&name, "--help"]).output().unwrap();
        let (_, examples) = text(&help.stdout)
            .split_once("\nExample")
            .unwrap_or_else(|| panic!("{name}"));
        assert!(
            examples.contains(&format!("workloadnet {name}")),
            "{name}: {examples}"
        );
    }
}

#[test]
fn the_help_lists_the_exit_codes_as_the_documentation_does() {
    let help = workloadnet(&["--help"]).output().unwrap();
    let documentation = include_str!("../../../docs/operating.md");
    let (_, codes) = text(&help.stdout).split_once("Exit codes:\n").unwrap();
    let mut count = 0;
    for line in codes.lines().take_while(|line| !line.is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let row = format!("| {code} | {meaning} |");
        assert!(
            documentation.contains(&row),
            "docs/operating.md has no row {row:?}"
        );
        count += 1;
    }
    assert_eq!(count, 5);
}

#[test]
fn completions_of_every_shell_know_every_command() {
    let commands = commands();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = workloadnet(&["completions", shell]).output().unwrap();
        assert_eq!(code(&script), 0, "{shell}");
        for name in &commands {
            assert!(text(&script.stdout).contains(name.as_str()), "{shell}: {name}");
        }
    }
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    let output = workloadnet(&["man", pages.to_str().unwrap()]).output().unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    let main = std::fs::read_to_string(pages.join("workloadnet.1")).unwrap();
    assert!(main.contains("Exit codes"), "{main}");
    for name in commands() {
        let page = std::fs::read_to_string(pages.join(format!("workloadnet-{name}.1"))).unwrap();
        assert!(page.starts_with(".ie"), "{name}: {page}");
    }
    let printed = workloadnet(&["man"]).output().unwrap();
    assert_eq!(text(&printed.stdout), main);
    // Below a file there can be no folder.
    let below = pages.join("workloadnet.1/x");
    let output = workloadnet(&["man", below.to_str().unwrap()]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(
        text(&output.stderr).contains("cannot write man pages into"),
        "{output:?}"
    );
    let output = workloadnet(&["--output", "json", "man", below.to_str().unwrap()])
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(json["error"]["exit_code"], 1);
}
