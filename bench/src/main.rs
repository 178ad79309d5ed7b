//! Figures of attach and detach, beside the bare kernel and beside CNI plugins, in one run on one machine: what counts is
//! the ratios. Prints Markdown. Everything happens in network namespaces of its own.

mod bare;
mod cni;
mod path;
mod peers;
mod product;
mod samples;
mod stand;

use anyhow::{Context as _, Result, bail};
use samples::{Samples, ms, ratio, table};
use stand::{EightCallers, Executed, OneCaller, Stand, Thousand, Way};
use std::path::PathBuf;
use std::time::Duration;

/// How much is measured.
struct Size {
    blocks: usize,
    plugins: usize,
    attachments: usize,
    starts: usize,
    peers: peers::Size,
}

const FULL: Size = Size {
    blocks: 25,
    plugins: 4,
    attachments: 1000,
    starts: 5,
    peers: peers::FULL,
};
/// To see that it runs; its figures mean little.
const QUICK: Size = Size {
    blocks: 2,
    plugins: 2,
    attachments: 200,
    starts: 2,
    peers: peers::QUICK,
};

fn main() -> Result<()> {
    let (mut size, mut part) = (FULL, None);
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "path") {
        words.remove(0);
        return path::main(&words);
    }
    for word in words {
        match word.as_str() {
            "--quick" => size = QUICK,
            "peers" => part = Some(word),
            other => bail!("{other:?}: there are the parts path and peers, and the option --quick"),
        }
    }
    if part.is_some() {
        return peers::run(&size.peers);
    }
    let node = stage::Node::new()?;
    node.node.within(|| run(&size))?
}

fn run(size: &Size) -> Result<()> {
    // As it is shipped, which cargo xtask bench builds.
    let plugin: PathBuf = std::env::var_os("WORKLOADNET_CNI")
        .context("WORKLOADNET_CNI has to name the plugin")?
        .into();
    let data = tempfile::tempdir_in("/dev/shm").context("make a folder in memory for host-local")?;
    let mut stand = Stand::here(data.path())?;
    let one = stand.one_caller(size.blocks, size.plugins)?;
    let executed = stand.executed(&plugin, size.blocks.div_ceil(2))?;
    let eight = stand.eight_callers(size.blocks.div_ceil(5), size.plugins)?;
    let thousand = stand.thousand(size.attachments, size.starts)?;
    let bytes = std::fs::metadata(&plugin).context("look at the plugin")?.len();
    let plugins = plugins(&executed, bytes);
    print!("{}", report(&one, &eight, &plugins, &thousand, size));
    Ok(())
}

fn report(one: &OneCaller, eight: &EightCallers, plugins: &str, thousand: &Thousand, size: &Size) -> String {
    [
        machine(),
        "## Attach and detach, dual stack\n\nMilliseconds. Ratios are to the bare sequence of the same run.\n".to_owned(),
        latencies(one, eight),
        "## Plugins, executed for every call\n".to_owned(),
        plugins.to_owned(),
        format!("## With up to {} attachments\n", size.attachments),
        growth(thousand),
        costs(one, thousand, size),
        "## Goals\n".to_owned(),
        goals(one, thousand),
    ]
    .join("\n")
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "# Figures\n\nMeasured by `cargo xtask bench` on Linux {} with {cpus} CPUs, all ways interleaved in one run. Compare ratios, not \
         milliseconds; p99 is partly the machine's noise.\n",
        kernel.trim()
    )
}

fn latencies(one: &OneCaller, eight: &EightCallers) -> String {
    let floor = (one.bare.attach.p50(), one.bare.detach.p50());
    let row = |what: &str, way: &Way| {
        let cells = |samples: &Samples, floor| {
            let (p50, p99) = (samples.p50(), samples.percentile(99));
            [ms(p50), ms(p99), format!("{:.2}", ratio(p50, floor))]
        };
        let mut row = vec![what.to_owned(), way.attach.len().to_string()];
        row.extend(cells(&way.attach, floor.0));
        row.extend(cells(&way.detach, floor.1));
        row
    };
    let rows = [
        row("bare sequence, no daemon; detach: awaited DELLINK", &one.bare),
        row("kernel room alone, no daemon", &one.room),
        row("**workloadnetd over gRPC, 1 caller**", &one.daemon),
        row("**workloadnetd over gRPC, 8 callers**", &eight.daemon),
        row("ptp + host-local, DAD off, 1 caller", &one.ptp),
        row("ptp + host-local, DAD off, 8 callers", &eight.ptp),
        row("ptp + host-local, as usual, 1 caller", &one.ptp_with_dad),
    ];
    let head = [
        "what",
        "n",
        "attach p50",
        "p99",
        "ratio",
        "detach p50",
        "p99",
        "ratio",
    ];
    let rate =
        |samples: &Samples, took: Duration| format!("{:.0}", samples.len() as f64 / took.as_secs_f64());
    let rates = [
        vec![
            "workloadnetd".to_owned(),
            rate(&eight.daemon.attach, eight.daemon_took[0]),
            rate(&eight.daemon.detach, eight.daemon_took[1]),
        ],
        vec![
            "ptp + host-local, DAD off".to_owned(),
            rate(&eight.ptp.attach, eight.ptp_took[0]),
            rate(&eight.ptp.detach, eight.ptp_took[1]),
        ],
    ];
    format!(
        "{}\n{}",
        table(&head, &rows),
        table(
            &["8 callers", "attaches per second", "detaches per second"],
            &rates
        )
    )
}

/// Fork to exit, as a runtime sees it.
fn plugins(executed: &Executed, bytes: u64) -> String {
    let Executed {
        nothing,
        version,
        ours,
        ptp,
    } = executed;
    let row = |what: &str, samples: &Samples| {
        let p50 = samples.p50();
        let ratio = format!("{:.2}", ratio(p50, nothing.p50()));
        vec![
            what.to_owned(),
            samples.len().to_string(),
            ms(p50),
            ms(samples.percentile(99)),
            ratio,
        ]
    };
    let rows = [
        row("a static program that does nothing", nothing),
        row("**workloadnet-cni** VERSION", &version[0]),
        row("ptp VERSION", &version[1]),
        row("**workloadnet-cni** ADD, dual stack", &ours.attach),
        row("ptp + host-local ADD, dual stack, DAD off", &ptp.attach),
        row("**workloadnet-cni** DEL", &ours.detach),
        row("ptp + host-local DEL", &ptp.detach),
    ];
    format!(
        "{}\nThe plugin has {bytes} bytes. It comes {:.1} times as fast as ptp for an ADD, and {:.1} times for a DEL.\n",
        table(&["what", "n", "p50", "p99", "beside nothing"], &rows),
        ratio(ptp.attach.p50(), ours.attach.p50()),
        ratio(ptp.detach.p50(), ours.detach.p50()),
    )
}

fn growth(thousand: &Thousand) -> String {
    let rows: Vec<_> = thousand
        .growth
        .iter()
        .map(|(standing, bare, daemon)| {
            vec![
                standing.to_string(),
                ms(*bare),
                ms(*daemon),
                format!("{:.2}", ratio(*daemon, *bare)),
            ]
        })
        .collect();
    table(
        &["standing", "bare attach p50", "workloadnetd attach p50", "ratio"],
        &rows,
    )
}

fn costs(one: &OneCaller, thousand: &Thousand, size: &Size) -> String {
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let row = |what: String, value: String| vec![what, value];
    let count = size.attachments;
    let [awaited, one_by_one, at_once] = &thousand.hundred;
    let rows = [
        row(
            "a gRPC call that does nothing (Status)".to_owned(),
            format!("{} ms", ms(one.status.p50())),
        ),
        row(
            "resident memory, none attached".to_owned(),
            mib(thousand.resident[0]),
        ),
        row(
            format!("resident memory, {count} attached"),
            mib(thousand.resident[1]),
        ),
        row(
            "start until ready, none to recover".to_owned(),
            format!("{} ms", ms(thousand.start[0].p50())),
        ),
        row(
            format!("start after kill -9 until ready, {count} to recover"),
            format!("{} ms", ms(thousand.start[1].p50())),
        ),
        row(
            "100 awaited DELLINKs, one by one".to_owned(),
            format!("{} ms", ms(awaited.p50())),
        ),
        row(
            "100 detaches over gRPC, one by one".to_owned(),
            format!("{} ms", ms(one_by_one.p50())),
        ),
        row(
            "each of those".to_owned(),
            format!(
                "{} ms (p99 {} ms)",
                ms(thousand.each.p50()),
                ms(thousand.each.percentile(99))
            ),
        ),
        row(
            "100 detaches over gRPC, at once".to_owned(),
            format!("{} ms", ms(at_once.p50())),
        ),
    ];
    table(&["what", "p50"], &rows)
}

fn goals(one: &OneCaller, thousand: &Thousand) -> String {
    let [awaited, _, at_once] = &thousand.hundred;
    let row = |goal: &str, limit: f64, is: f64| {
        let verdict = if is <= limit { "met" } else { "missed" };
        vec![
            goal.to_owned(),
            format!("{limit}"),
            format!("{is:.3}"),
            verdict.to_owned(),
        ]
    };
    let rows = [
        row(
            "attach p50 over gRPC / bare sequence",
            1.5,
            ratio(one.daemon.attach.p50(), one.bare.attach.p50()),
        ),
        row(
            "detach p50 over gRPC / awaited DELLINK",
            0.1,
            ratio(one.daemon.detach.p50(), one.bare.detach.p50()),
        ),
        row(
            "each of 100 detaches over gRPC in a row, p50 / awaited DELLINK",
            0.1,
            ratio(thousand.each.p50(), one.bare.detach.p50()),
        ),
        row(
            "100 detaches at once / 100 awaited one by one",
            0.1,
            ratio(at_once.p50(), awaited.p50()),
        ),
        row(
            "start with all to recover, in ms",
            100.0,
            thousand.start[1].p50().as_secs_f64() * 1000.0,
        ),
    ];
    table(&["goal", "at most", "is", ""], &rows)
}
