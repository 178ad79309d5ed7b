//! What to do when something fails, and the exit code that says of which kind it is.

use client::Error;
use std::process::ExitCode;

/// The next step, where one can be named.
pub(crate) fn of(error: &Error) -> Option<&'static str> {
    match error {
        Error::Unreachable { why, .. } if why.contains("Permission denied") => {
            Some("the socket belongs to root; try as root, or see [socket] owner and group in the settings")
        }
        Error::Unreachable { .. } => Some(
            "is workloadnetd running? It says where it listens when it starts; --socket names another place",
        ),
        Error::BadSocket(_) => Some("--socket takes an absolute path"),
        Error::Deadline(_) => Some("the daemon's log says what it is doing"),
        Error::Refused(refused) => match refused.reason.as_str() {
            "NOT_READY" => Some("what is missing is said above; `workloadnet node` shows the prefixes"),
            "ADDRESSES_EXHAUSTED" => {
                Some("`workloadnet list` shows who has addresses; more prefixes go into the settings")
            }
            "ADDRESS_HELD" => Some("leave --ip away, or detach the holder first"),
            "DIFFERENT" => Some("detach it first; `workloadnet get` shows how it is attached"),
            "PEER_DENIED" => {
                Some("add your uid or gid to [socket] allowed_uids or allowed_gids in the settings")
            }
            "INTERFACE_TAKEN" => Some("another name for the link is given by --if-name"),
            "NOT_ATTACHED" => Some(
                "`workloadnet list` shows what is attached; the key is owner, workload id and if-name together",
            ),
            _ => None,
        },
    }
}

/// 1 refused, 3 unreachable, 4 not ready.
pub(crate) fn exit_code(error: &Error) -> ExitCode {
    ExitCode::from(match error {
        Error::Unreachable { .. } | Error::Deadline(_) => 3,
        Error::BadSocket(_) => 2,
        Error::Refused(refused)
            if matches!(refused.reason.as_str(), "NOT_READY" | "STOPPING" | "OVERLOADED") =>
        {
            4
        }
        Error::Refused(_) => 1,
    })
}
