//! Programs that are started: cargo itself, and the tests it runs, whose closing lines are counted as they pass by.

use crate::graph::Graph;
use crate::totals::Totals;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How long a test's output may stay open after cargo has ended.
const OUTPUT_LIMIT: Duration = Duration::from_secs(5);

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.stdin(Stdio::null());
    cargo
}

/// Runs a program; its failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = spell(command);
    let status = command.status().with_context(|| format!("start {text}"))?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(())
}

/// The build's packages, for the machine that this runs on.
pub(crate) fn graph() -> Result<Graph> {
    graph_of(cargo())
}

/// With those that only the fuzzer is built with.
pub(crate) fn graph_with_fuzzer() -> Result<Graph> {
    let mut command = cargo();
    command.env("RUSTFLAGS", "--cfg fuzzing");
    graph_of(command)
}

fn graph_of(mut command: Command) -> Result<Graph> {
    command.args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        &host()?,
    ]);
    Graph::parse(&serde_json::from_str(&answer(&mut command)?).context("read cargo's metadata")?)
}

/// The target triple of this machine.
pub(crate) fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = answer(Command::new(rustc).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// What a program prints; its failure is an error.
pub(crate) fn answer(command: &mut Command) -> Result<String> {
    let text = spell(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {text}"))?;
    if !output.status.success() {
        bail!("{text}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{text} answered in bytes that are no text"))
}

/// Runs tests, passes on what they print, and counts. Any failure is in the totals, or an error.
pub(crate) fn count_tests(command: &mut Command, mut show: impl Write + Send + 'static) -> Result<Totals> {
    let text = spell(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {text}"))?;
    let output = child.stdout.take().context("the tests' output is piped")?;
    let (sender, receiver) = channel();
    // A thread of its own, because a process that a test left behind would keep the pipe open for ever.
    thread::spawn(move || {
        let mut lines = BufReader::new(output);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            // Where nobody reads any more, counting goes on.
            let _ = show.write_all(&line).and_then(|()| show.flush());
            if let Some(totals) = Totals::parse(&String::from_utf8_lossy(&line)) {
                let _ = sender.send(totals);
            }
            line.clear();
        }
    });
    let status = child.wait().with_context(|| format!("wait for {text}"))?;
    let mut totals = Totals::default();
    loop {
        match receiver.recv_timeout(OUTPUT_LIMIT) {
            Ok(more) => totals += more,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                bail!("{text}: a test left a process behind that holds its output")
            }
        }
    }
    if !status.success() && totals.failed == 0 {
        // It did not build, or a test program died before its closing line.
        totals.failed = 1;
    }
    Ok(totals)
}

fn spell(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut text = name.to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::sink;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const CLOSING: &str = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";

    #[test]
    fn tests_are_counted_over_several_programs() {
        let totals = count_tests(&mut sh(&format!("{CLOSING}; {CLOSING}")), sink()).unwrap();
        assert_eq!(
            totals,
            Totals {
                passed: 4,
                failed: 0,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_test_program_that_dies_counts_as_failed() {
        let totals = count_tests(&mut sh(&format!("{CLOSING}; exit 101")), sink()).unwrap();
        assert_eq!(
            totals,
            Totals {
                passed: 2,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_process_left_behind_is_an_error_and_not_a_hang() {
        // Ends by itself a little later, so that this test leaves nothing behind either.
        let error = count_tests(&mut sh(&format!("{CLOSING}; sleep 8 &")), sink()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("a test left a process behind that holds its output")
        );
    }

    #[test]
    fn a_failure_names_the_command() {
        assert_eq!(
            run(&mut sh("exit 3")).unwrap_err().to_string(),
            "sh -c exit 3: exit status: 3"
        );
    }
}
