//! The targets of `fuzz/` under libFuzzer, one after the other: what was tried, how much of the code that reached, and what
//! failed. A stable compiler can count coverage too; only its address sanitizer needs another one, and the code under test
//! is safe.

use crate::cargo::{cargo, graph, host, run};
use crate::packages;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Coverage of every edge, and comparisons, as libFuzzer reads them (SanitizerCoverage of LLVM).
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Names the target (`fuzz::VARIABLE`).
const VARIABLE: &str = "WORKLOADNET_FUZZ";
const COMMITTED: &str = "fuzz/corpus";
const FOUND: &str = "fuzz/found";
const SECONDS: u64 = 60;
/// Bytes of an input.
const LONGEST: &str = "-max_len=4096";
/// Seconds for one input, and megabytes for all: beyond that a reader is taken to be broken.
const LIMITS: [&str; 2] = ["-timeout=20", "-rss_limit_mb=2048"];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// All of them where none is named.
    target: Option<String>,
    seconds: u64,
    /// Instead of looking for more, keep the fewest inputs that reach as much.
    minimises: bool,
}

impl Asked {
    fn read(args: &[String]) -> Result<Self> {
        let mut asked = Self {
            target: None,
            seconds: SECONDS,
            minimises: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--minimise" => asked.minimises = true,
                "--seconds" => {
                    let number = args.next().and_then(|text| text.parse().ok());
                    asked.seconds = number.filter(|n| *n > 0).context("--seconds needs a number")?;
                }
                name if !name.starts_with('-') && asked.target.is_none() => {
                    asked.target = Some(name.to_owned())
                }
                other => bail!("{other:?}: there is TARGET, --seconds N and --minimise"),
            }
        }
        Ok(asked)
    }
}

/// Runs the targets, or makes what is committed of them smaller.
pub(crate) fn fuzz(args: &[String]) -> Result<ExitCode> {
    let asked = Asked::read(args)?;
    let targets = chosen(&asked)?;
    packages::ensure(packages::FOR_FUZZ)?;
    let program = build()?;
    if asked.minimises {
        targets.iter().try_for_each(|target| minimise(&program, target))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut is_good = true;
    let mut lines = Vec::new();
    for target in &targets {
        let tried = look(&program, target, asked.seconds)?;
        is_good &= tried.is_good;
        lines.push(tried.to_string());
    }
    println!("\ntarget         executions  seconds   edges  features  verdict");
    lines.iter().for_each(|line| println!("{line}"));
    match is_good {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

fn chosen(asked: &Asked) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(COMMITTED).with_context(|| format!("read {COMMITTED}"))? {
        all.push(entry?.file_name().to_string_lossy().into_owned());
    }
    all.sort();
    match &asked.target {
        None => Ok(all),
        Some(name) if all.contains(name) => Ok(vec![name.clone()]),
        Some(name) => bail!("there is no target {name:?}: {}", all.join(", ")),
    }
}

/// In a folder of its own: everything is built with other flags.
fn build() -> Result<PathBuf> {
    let (target, host) = (graph()?.target.join("fuzz"), host()?);
    let mut build = cargo();
    build.args([
        "build",
        "--locked",
        "--profile",
        "fuzz",
        "--package",
        "workloadnet-fuzz",
        "--bin",
        "fuzz",
    ]);
    // With a target named, the flags do not reach build scripts and procedural macros.
    build.args(["--target", &host, "--target-dir"]).arg(&target);
    run(build.env("RUSTFLAGS", FLAGS))?;
    Ok(target.join(host).join("fuzz/fuzz"))
}

/// Where what is found interesting is kept, beside what is committed.
fn working(target: &str) -> Result<PathBuf> {
    let folder = graph()?.target.join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// What came of one target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tried {
    target: String,
    executions: u64,
    seconds: u64,
    edges: u64,
    features: u64,
    is_good: bool,
}

impl Tried {
    /// Takes in a line of libFuzzer's: `#4096 pulse  cov: 121 ft: 200 corp: ...`, `stat::number_of_executed_units: 9`,
    /// `Done 9 runs in 3 second(s)`.
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| text.parse::<u64>().ok();
        for pair in words.windows(2) {
            match (pair[0], number(pair[1])) {
                ("cov:", Some(n)) => self.edges = n,
                ("ft:", Some(n)) => self.features = n,
                ("stat::number_of_executed_units:", Some(n)) => self.executions = n,
                _ => {}
            }
        }
        if let ["Done", _, "runs", "in", seconds, ..] = words[..] {
            self.seconds = number(seconds).unwrap_or_default();
        }
    }
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.is_good { "ok" } else { "FAILED" };
        write!(
            f,
            "{:<13}{:>12}{:>9}{:>8}{:>10}  {verdict}",
            self.target, self.executions, self.seconds, self.edges, self.features
        )
    }
}

fn look(program: &Path, target: &str, seconds: u64) -> Result<Tried> {
    let found = Path::new(FOUND).join(target);
    fs::create_dir_all(&found).with_context(|| format!("make {}", found.display()))?;
    println!("\n== {target}");
    let mut libfuzzer = Command::new(program);
    libfuzzer
        .env(VARIABLE, target)
        .args(LIMITS)
        .args([LONGEST, "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        // New ones go into the first.
        .arg(working(target)?)
        .arg(Path::new(COMMITTED).join(target))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = libfuzzer
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let mut tried = Tried {
        target: target.to_owned(),
        ..Tried::default()
    };
    let lines = BufReader::new(child.stderr.take().context("its errors are piped")?);
    for line in lines.split(b'\n') {
        let line = line.context("read what libFuzzer says")?;
        let line = String::from_utf8_lossy(&line);
        tried.hear(&line);
        // What it says of each new input is of no interest afterwards.
        if !line.starts_with('#') {
            println!("{line}");
        }
    }
    tried.is_good = child.wait().context("wait for libFuzzer")?.success();
    // Where nothing failed there is no folder.
    let _ = fs::remove_dir(&found);
    Ok(tried)
}

/// Puts the fewest inputs that reach all that is reached in the place of those that are committed.
fn minimise(program: &Path, target: &str) -> Result<()> {
    let (committed, working) = (Path::new(COMMITTED).join(target), working(target)?);
    let fewest = working.with_extension("fewest");
    if fewest.exists() {
        fs::remove_dir_all(&fewest).with_context(|| format!("remove {}", fewest.display()))?;
    }
    fs::create_dir(&fewest).with_context(|| format!("make {}", fewest.display()))?;
    let mut libfuzzer = Command::new(program);
    libfuzzer
        .env(VARIABLE, target)
        .args(LIMITS)
        // Not how often an edge was passed: an input for each would be thousands.
        .args([LONGEST, "-use_counters=0", "-set_cover_merge=1"])
        .args([&fewest, &committed, &working]);
    run(libfuzzer.stdin(Stdio::null()).stderr(Stdio::null()))?;
    fs::remove_dir_all(&committed).with_context(|| format!("remove {}", committed.display()))?;
    fs::create_dir(&committed).with_context(|| format!("make {}", committed.display()))?;
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(&fewest).with_context(|| format!("read {}", fewest.display()))? {
        let from = entry?.path();
        let to = committed.join(from.file_name().context("an input has a name")?);
        bytes += fs::copy(&from, &to).with_context(|| format!("write {}", to.display()))?;
        files += 1;
    }
    println!("{target}: {files} inputs, {bytes} bytes");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Asked::read(&words)
    }

    #[test]
    fn one_target_or_all_for_some_seconds() {
        let all = asked("").unwrap();
        assert_eq!((all.target, all.seconds, all.minimises), (None, SECONDS, false));
        let one = asked("door --seconds 7").unwrap();
        assert_eq!((one.target.as_deref(), one.seconds), (Some("door"), 7));
        assert!(asked("--minimise").unwrap().minimises);
        for wrong in ["--seconds", "--seconds x", "--seconds 0", "a b", "--what"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_libfuzzer_says_is_counted() {
        let mut tried = Tried::default();
        for line in [
            "#8\tINITED cov: 100 ft: 110 corp: 1/1b exec/s: 0 rss: 40Mb",
            "#65536\tpulse  cov: 121 ft: 200 corp: 9/80b lim: 17 exec/s: 32768 rss: 41Mb",
            "Done 70001 runs in 3 second(s)",
            "stat::number_of_executed_units: 70001",
        ] {
            tried.hear(line);
        }
        let expected = Tried {
            executions: 70_001,
            seconds: 3,
            edges: 121,
            features: 200,
            ..Tried::default()
        };
        assert_eq!(tried, expected);
    }
}
