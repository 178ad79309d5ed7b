//! `workloadnet-cni`: the CNI plugin. It translates a runtime's call to the daemon's contract and its answer back, and has
//! no opinion of its own: it opens no netlink socket, enters no namespace and keeps nothing but deletions that wait.
//!
//! ```text
//!  environment, stdin --> call (values, or a failure) --> verbs --> client --> daemon
//!                                stdout <-- result, failure <--'
//! ```
//! The specification is <https://www.cni.dev/docs/spec/>, its conventions <https://www.cni.dev/docs/conventions/>.

mod args;
mod asked;
mod call;
mod config;
mod failure;
pub mod rehearsal;
mod result;
mod text;
mod verb;
mod verbs;
mod version;

use call::Call;
use failure::Failure;
use serde_json::Value;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

/// A configuration beyond this was not written by a runtime.
const INPUT_LIMIT: u64 = 16 << 20;

/// One call, from the environment and stdin to stdout.
pub fn run() -> ExitCode {
    let began = Instant::now();
    if std::env::var_os("CNI_COMMAND").is_none_or(|command| command.is_empty()) {
        let versions = version::SUPPORTED.join(", ");
        let version = env!("CARGO_PKG_VERSION");
        let about = format!(
            "workloadnet-cni {version}, the CNI plugin of workloadnetd\nCNI protocol versions: {versions}\n"
        );
        let _ = io::stderr().write_all(about.as_bytes());
        return ExitCode::SUCCESS;
    }
    let input = input();
    let outcome = input
        .as_deref()
        .map_err(|error| Failure::io(format!("stdin cannot be read: {error}")))
        .and_then(Call::read)
        .and_then(|call| verbs::carry_out(&call, began));
    let (answer, exit) = match outcome {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(failure) => {
            let asked = version::of_input(input.as_deref().unwrap_or_default());
            let shown = failure.to_json(version::of_answer(asked));
            (Some(shown), ExitCode::FAILURE)
        }
    };
    if let Some(answer) = answer
        && show(&answer).is_err()
    {
        return ExitCode::FAILURE;
    }
    exit
}

fn input() -> io::Result<Vec<u8>> {
    let mut input = Vec::new();
    // By hand, VERSION needs none.
    if !io::stdin().is_terminal() {
        io::stdin().lock().take(INPUT_LIMIT + 1).read_to_end(&mut input)?;
        if input.len() as u64 > INPUT_LIMIT {
            return Err(io::Error::other(format!("it has more than {INPUT_LIMIT} bytes")));
        }
    }
    Ok(input)
}

fn show(answer: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{answer:#}")?;
    out.flush()
}
