//! What failed, what to do about it, and the exit code that says of which kind it is.

use crate::output::Output;
use client::{Code, Error, Refused};
use serde_json::{Value, json};
use std::error::Error as _;
use std::io;

/// Exit codes. `--help` and docs/operating.md list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Refused = 1,
    Usage = 2,
    Unreachable = 3,
    NotReady = 4,
}

/// An error as it is shown.
pub(crate) fn text(error: &Error, output: Output) -> String {
    let what = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    match output {
        Output::Table => {
            let hint = next_step(error).map(|hint| format!("hint: {hint}\n"));
            format!("error: {what}\n{}", hint.unwrap_or_default())
        }
        Output::Json => {
            let mut shown = json!({
                "message": what, "hint": next_step(error), "exit_code": exit(error) as u8,
            });
            if let Error::Refused(refused) = error {
                let Refused {
                    code,
                    reason,
                    field,
                    retry_after,
                    metadata,
                    ..
                } = &**refused;
                shown["code"] = Value::from(name_of(*code));
                shown["reason"] = Value::from(reason.as_str());
                shown["field"] = json!(field);
                shown["retry_after_ms"] = json!(retry_after.map(|time| time.as_millis() as u64));
                shown["metadata"] = json!(metadata);
            }
            format!("{:#}\n", json!({ "error": shown }))
        }
    }
}

/// What failed without the daemon: a page that cannot be written, a demo that found something.
pub(crate) fn own_failure(what: &str, output: Output) -> String {
    match output {
        Output::Table => format!("error: {what}\n"),
        Output::Json => {
            let shown = json!({ "message": what, "hint": null, "exit_code": Exit::Refused as u8 });
            format!("{:#}\n", json!({ "error": shown }))
        }
    }
}

/// Of which kind it is.
pub(crate) fn exit(error: &Error) -> Exit {
    match error {
        Error::Unreachable { .. } | Error::Deadline(_) => Exit::Unreachable,
        Error::BadSocket(_) => Exit::Usage,
        Error::Refused(refused) => match refused.reason.as_str() {
            "NOT_READY" | "STOPPING" | "OVERLOADED" | "NODE_EXHAUSTED" => Exit::NotReady,
            _ => Exit::Refused,
        },
        _ => Exit::Refused,
    }
}

/// The next step, where one can be named.
fn next_step(error: &Error) -> Option<&'static str> {
    match error {
        Error::Unreachable { source, .. } => Some(match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "the socket belongs to root; try as root, or see [socket] owner and group in the settings"
            }
            io::ErrorKind::ConnectionAborted => {
                "something else may serve this socket, or workloadnetd has ended: journalctl -u workloadnetd"
            }
            _ => {
                "is workloadnetd running? systemctl status workloadnetd; if it listens elsewhere, --socket or $WORKLOADNET_SOCKET says where"
            }
        }),
        Error::BadSocket(_) => Some("a socket's path has 1 to 107 bytes"),
        Error::Deadline(_) => Some(
            "an attach or detach may still be carried out, see `workloadnet list`; what the daemon is doing: journalctl -u workloadnetd",
        ),
        Error::Refused(refused) => refused_hint(refused),
        _ => None,
    }
}

fn refused_hint(refused: &Refused) -> Option<&'static str> {
    Some(match refused.reason.as_str() {
        "NOT_READY" => "`workloadnet status` shows what is missing, one condition a line",
        "STOPPING" => "the daemon is going down or is being replaced; try again in a moment",
        "OVERLOADED" => "try again in a moment; [limits] max_queued is how many may wait",
        "NODE_EXHAUSTED" => "the node is out of memory or open files; try again in a moment",
        "NAMESPACE_UNREADABLE" => {
            "the daemon has to be able to open the path; --netns takes one below /run/netns, or /proc/PID/ns/net"
        }
        "ADDRESSES_EXHAUSTED" => {
            "`workloadnet list` shows who has addresses; more prefixes go into [network] prefixes in the settings"
        }
        "ADDRESS_HELD" => "leave --ip away, or detach the holder first",
        "DIFFERENT" => "detach it first; `workloadnet get` shows how it is attached",
        "PEER_DENIED" => "add your uid or gid to [socket] allowed_uids or allowed_gids in the settings",
        "INTERFACE_TAKEN" => "--if-name gives the link another name",
        "NAMESPACE_NOT_FOUND" => "`ip netns list` shows named namespaces, which are below /run/netns",
        "NOT_A_NAMESPACE" => "--netns takes a bind mount of a network namespace, or /proc/PID/ns/net",
        "NAMESPACE_FORBIDDEN" => "a workload needs a network namespace of its own: ip netns add NAME",
        "LINK_IN_THE_WAY" => "`ip -d link show` shows it; the daemon takes away only what is its own",
        "NOT_ATTACHED" => {
            "`workloadnet list` shows what is attached; the key is owner, workload id and if-name together"
        }
        _ if refused.code == Code::Unimplemented => {
            "the daemon is older than this command, or something else serves the socket"
        }
        _ => return None,
    })
}

/// As the gRPC documentation writes it, e.g. `NOT_FOUND`.
fn name_of(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::time::Duration;

    fn refused(code: Code, reason: &str) -> Error {
        Error::Refused(Box::new(Refused {
            code,
            reason: reason.to_owned(),
            message: "10.77.0.5 is held by web-2".to_owned(),
            field: Some("requested_ip".to_owned()),
            retry_after: Some(Duration::from_millis(250)),
            metadata: HashMap::from([("holder".to_owned(), "web-2".to_owned())]),
        }))
    }

    #[test]
    fn people_are_told_what_failed_and_what_to_do() {
        let error = Error::Unreachable {
            socket: "/run/x.sock".into(),
            source: io::Error::from_raw_os_error(13),
        };
        assert_eq!(
            text(&error, Output::Table),
            "error: workloadnetd cannot be reached on /run/x.sock: Permission denied (os error 13)\n\
             hint: the socket belongs to root; try as root, or see [socket] owner and group in the settings\n"
        );
        assert_eq!(
            text(&refused(Code::Internal, "KERNEL"), Output::Table),
            "error: 10.77.0.5 is held by web-2\n"
        );
    }

    #[test]
    fn programs_are_told_all_that_the_daemon_said() {
        let shown: Value = serde_json::from_str(&text(
            &refused(Code::ResourceExhausted, "ADDRESS_HELD"),
            Output::Json,
        ))
        .unwrap();
        assert_eq!(
            shown,
            json!({ "error": {
                "message": "10.77.0.5 is held by web-2",
                "hint": "leave --ip away, or detach the holder first",
                "exit_code": 1,
                "code": "RESOURCE_EXHAUSTED",
                "reason": "ADDRESS_HELD",
                "field": "requested_ip",
                "retry_after_ms": 250,
                "metadata": { "holder": "web-2" },
            } })
        );
    }

    #[test]
    fn the_exit_code_says_whether_another_try_can_help() {
        let cases = [
            (refused(Code::ResourceExhausted, "ADDRESS_HELD"), Exit::Refused),
            (refused(Code::Unavailable, "NOT_READY"), Exit::NotReady),
            (refused(Code::Unavailable, "STOPPING"), Exit::NotReady),
            (refused(Code::Unavailable, "OVERLOADED"), Exit::NotReady),
            (refused(Code::Unavailable, "NODE_EXHAUSTED"), Exit::NotReady),
            (Error::BadSocket("x".into()), Exit::Usage),
            (Error::Deadline(Duration::from_secs(2)), Exit::Unreachable),
        ];
        for (error, expected) in cases {
            assert_eq!(exit(&error), expected, "{error:?}");
        }
    }
}
