//! The report: `report.json` with all figures, and `README.md` with what they say.

use crate::charts;
use crate::figures::{Figure, Figures, Report};
use crate::goals;
use crate::graphs::PICTURES;
use crate::samples::{digits, table};
use crate::waits;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;

/// Writes everything into a folder.
pub(crate) fn write(folder: &Path, report: &Report) -> Result<()> {
    put(
        folder,
        "report.json",
        &(serde_json::to_string_pretty(report).context("write figures as JSON")? + "\n"),
    )?;
    for (name, picture) in charts::all(&report.figures) {
        put(folder, name, &picture)?;
    }
    put(folder, "README.md", &readme(report))
}

/// One file of it.
pub(crate) fn put(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn readme(report: &Report) -> String {
    let figures = &report.figures;
    let mut parts = vec![head(report), "## Goals\n".to_owned(), goals::report(figures)];
    let slower = goals::slower(figures);
    let worst = slower.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((name, ratio)) = worst {
        parts.push(format!(
            "Of {} medians and rates that both have, `{name}` is the one at which the daemon is least ahead of the first version: it \
             takes {} of the first version's time.\n",
            slower.len(),
            digits(*ratio)
        ));
    }
    for (title, text, pictures) in [
        ("One caller", one_caller(figures), &["attach", "detach"] as &[_]),
        ("Several callers", several(figures), &["throughput", "churn"]),
        (
            "Programs that a runtime executes",
            programs(figures),
            &["add", "del"],
        ),
        (
            "As attachments grow",
            growth(figures),
            &["growth-attach", "growth-detach"],
        ),
        ("What attach and detach are made of", inside(figures), &["calls"]),
    ] {
        parts.push(format!("## {title}\n"));
        parts.push(text);
        parts.extend(pictures.iter().map(|name| format!("![{name}]({name}.svg)\n")));
    }
    if report.parts.contains_key("graphs") {
        parts.push("## Where the time goes\n".to_owned());
        parts.push(waits::report(figures));
        parts.extend(report.notes.get("graphs").cloned());
        parts.extend(
            PICTURES
                .iter()
                .map(|(name, title)| format!("### {title}\n\n![{title}]({name}.svg)\n")),
        );
    }
    parts.join("\n")
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    let parts: Vec<_> = report
        .parts
        .iter()
        .map(|(part, size)| format!("{part} ({size})"))
        .collect();
    format!(
        "# Report of `cargo xtask bench`\n\n\
         Linux {}, {} CPUs, {}. Parts: {}. All figures: [report.json](report.json).\n\n\
         Whom a part compares it measures in turn, in the same minutes and after a warm-up that does not count. Times are in \
         milliseconds; behind a median and a p99 are the least and the greatest of the rounds' own. Compare ratios, not \
         milliseconds, and only of one machine; p99 is partly the machine's noise.\n\n\
         - **floor**: the fewest netlink messages that make the same attachment, usable when the last is answered, in a bare \
         loop (`bench/src/bare.rs`); for the end of a link, the time until the kernel announces it (RTM_DELLINK).\n\
         - **daemon**: workloadnetd over gRPC, as it is shipped.\n\
         - **first version**: its sequence of calls in Go behind gRPC (`bench/first`): one message a call. Unlike it, this one \
         does not name the IPv6 source address in the default route, which the kernel would refuse.\n",
        machine.kernel,
        machine.cpus,
        machine.cpu,
        parts.join(", "),
    )
}

/// A median with its spread.
fn cell(figure: Option<&Figure>) -> String {
    let Some(figure) = figure else {
        return "-".to_owned();
    };
    with_spread(figure.value, figure.spread)
}

fn p99(figure: Option<&Figure>) -> String {
    figure
        .and_then(|figure| Some(with_spread(figure.p99?, figure.p99_spread)))
        .unwrap_or_else(|| "-".to_owned())
}

fn with_spread(value: f64, spread: Option<[f64; 2]>) -> String {
    match spread {
        Some([low, high]) if low < high => {
            format!("{} ({}..{})", digits(value), digits(low), digits(high))
        }
        _ => digits(value),
    }
}

fn over(figures: &Figures, a: &str, b: &str) -> String {
    match (figures.of(a), figures.of(b)) {
        (Some(a), Some(b)) if b > 0.0 => format!("{:.2}", a / b),
        _ => "-".to_owned(),
    }
}

/// Those rows of which something was measured: a title, a name, and the name of what it is compared with.
fn times(figures: &Figures, compared: &str, rows: &[(&str, &str, &str)]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .filter_map(|(title, name, with)| {
            let figure = figures.get(name)?;
            Some(vec![
                (*title).to_owned(),
                figure.n.to_string(),
                cell(Some(figure)),
                p99(Some(figure)),
                over(figures, name, with),
            ])
        })
        .collect();
    table(&["what", "n", "p50", "p99", compared], &rows)
}

fn one_caller(figures: &Figures) -> String {
    let attach = [
        ("floor", "attach/floor", "attach/floor"),
        (
            "kernel room of the daemon alone, no daemon around it",
            "attach/kernel-room",
            "attach/floor",
        ),
        ("**daemon**", "attach/daemon", "attach/floor"),
        ("first version", "attach/first", "attach/floor"),
    ];
    let detach = [
        ("floor: RTM_DELLINK", "detach/floor", "detach/floor"),
        ("**daemon**", "detach/daemon", "detach/floor"),
        ("bare, acknowledged", "detach/floor-acknowledged", "detach/floor"),
        ("first version", "detach/first", "detach/floor"),
    ];
    let status = [
        ("**daemon**", "status/daemon", "status/daemon"),
        ("first version", "status/first", "status/daemon"),
    ];
    format!(
        "Attach, dual stack:\n\n{}\nDetach, 50 ms after whatever was before:\n\n{}\nA call that does nothing (Status):\n\n{}",
        times(figures, "/ floor", &attach),
        times(figures, "/ floor", &detach),
        times(figures, "/ daemon", &status),
    )
}

fn several(figures: &Figures) -> String {
    let mut rows = Vec::new();
    for (title, what) in [
        ("attaches", "attach"),
        ("detaches", "detach"),
        ("cycles of attach and detach", "cycle"),
    ] {
        for callers in crate::callers::CALLERS {
            let names = ["daemon", "first"].map(|who| format!("rate/{what}/{who}/{callers}"));
            let Some(ours) = figures.get(&names[0]) else {
                continue;
            };
            let floor = match what {
                "attach" => cell(figures.get(&format!("rate/attach/floor/{callers}"))),
                _ => String::new(),
            };
            rows.push(vec![
                title.to_owned(),
                callers.to_string(),
                cell(Some(ours)),
                cell(figures.get(&names[1])),
                floor,
                over(figures, &names[0], &names[1]),
            ]);
        }
    }
    let rates = table(
        &[
            "per second",
            "callers",
            "**daemon**",
            "first version",
            "floor, 1 thread",
            "daemon / first version",
        ],
        &rows,
    );
    let mut rows = Vec::new();
    for what in ["attach", "detach"] {
        for callers in crate::callers::CALLERS {
            let names = ["daemon", "first"].map(|who| format!("churn/{what}/{who}/{callers}"));
            let [ours, first] = [figures.get(&names[0]), figures.get(&names[1])];
            if ours.is_some() {
                let cells = [cell(ours), p99(ours), cell(first), p99(first)];
                rows.push([vec![what.to_owned(), callers.to_string()], cells.to_vec()].concat());
            }
        }
    }
    let churn = table(
        &[
            "while all churn",
            "callers",
            "**daemon** p50",
            "p99",
            "first version p50",
            "p99",
        ],
        &rows,
    );
    format!("{rates}\n{churn}")
}

fn programs(figures: &Figures) -> String {
    let alone = [
        (
            "a static program that does nothing",
            "exec/nothing",
            "exec/nothing",
        ),
        ("**workloadnet-cni** VERSION", "exec/version/ours", "exec/nothing"),
        ("ptp VERSION", "exec/version/ptp", "exec/nothing"),
    ];
    let names = [
        ("**workloadnet-cni**, IPv4", "ours4", "ours4"),
        ("ptp + host-local, IPv4", "ptp4", "ours4"),
        ("bridge + host-local, IPv4", "bridge4", "ours4"),
        ("netavark, IPv4", "netavark4", "ours4"),
        ("**workloadnet-cni**, dual stack", "ours46", "ours46"),
        ("ptp + host-local, dual stack, DAD off", "ptp46", "ours46"),
        ("bridge + host-local, dual stack, DAD off", "bridge46", "ours46"),
        ("netavark, dual stack", "netavark46", "ours46"),
        ("ptp + host-local, dual stack as usual", "ptp46-dad", "ours46"),
        (
            "bridge + host-local, dual stack as usual",
            "bridge46-dad",
            "ours46",
        ),
    ];
    let of = |verb: &str| {
        let names: Vec<_> = names
            .iter()
            .map(|(title, name, with)| (*title, format!("{verb}/{name}"), format!("{verb}/{with}")))
            .collect();
        let rows: Vec<_> = names
            .iter()
            .map(|(title, name, with)| (*title, name.as_str(), with.as_str()))
            .collect();
        times(figures, "/ ours", &rows)
    };
    let mut rows = Vec::new();
    for (title, name) in [
        ("**workloadnet-cni**", "ours46"),
        ("ptp + host-local, DAD off", "ptp46"),
    ] {
        let cells = ["add", "del"].map(|verb| cell(figures.get(&format!("rate/{verb}/{name}/8"))));
        rows.push([vec![title.to_owned()], cells.to_vec()].concat());
    }
    format!(
        "From fork to exit, as a runtime sees it. DAD: duplicate address detection, which does not concern an address that \
         nobody else can have. ptp waits for it; bridge, of Debian's release, was not seen to.\n\n{}\nADD, setup:\n\n{}\nDEL, teardown:\n\n{}\n\
         Eight at once, dual stack:\n\n{}",
        times(figures, "/ nothing", &alone),
        of("add"),
        of("del"),
        table(&["per second", "ADD", "DEL"], &rows),
    )
}

fn growth(figures: &Figures) -> String {
    let mut rows = Vec::new();
    for count in goals::counts(figures) {
        let name = |begin: &str| format!("growth/{begin}/{count}");
        let mut row = vec![count.to_string()];
        for verb in ["attach", "detach"] {
            let [floor, ours] = ["floor", "daemon"].map(|who| name(&format!("{verb}/{who}")));
            row.extend([
                cell(figures.get(&floor)),
                cell(figures.get(&ours)),
                over(figures, &ours, &floor),
                cell(figures.get(&name(&format!("{verb}/own")))),
            ]);
        }
        row.push(cell(figures.get(&name("get"))));
        row.push(cell(figures.get(&name("check-each"))));
        row.push(cell(figures.get(&name("check-own"))));
        rows.push(row);
    }
    let calls = table(
        &[
            "standing",
            "attach: floor",
            "daemon",
            "/ floor",
            "own share",
            "detach: floor",
            "daemon",
            "/ floor",
            "own share",
            "get",
            "look at all, µs each",
            "own share",
        ],
        &rows,
    );
    let mut rows = Vec::new();
    let mut counts: Vec<usize> = figures
        .below("memory/")
        .filter_map(|(count, _)| count.parse().ok())
        .collect();
    counts.sort_unstable();
    for count in &counts {
        rows.push(vec![
            count.to_string(),
            cell(figures.get(&format!("start/{count}"))),
            cell(figures.get(&format!("links/{count}"))),
            cell(figures.get(&format!("memory/{count}"))),
        ]);
    }
    let costs = table(
        &[
            "attachments",
            "start after kill -9 until ready, ms",
            "the kernel tells of as many links of the floor's, ms",
            "resident memory, MiB",
        ],
        &rows,
    );
    let least = counts.first().map(|count| figures.of(&format!("memory/{count}")));
    let most = counts
        .last()
        .map(|count| (figures.of(&format!("memory/{count}")), *count));
    let each = match (least.flatten(), most) {
        (Some(least), Some((Some(most), count))) if count > 0 => {
            format!("{:.2} KiB", (most - least) * 1024.0 / count as f64)
        }
        _ => "-".to_owned(),
    };
    format!(
        "The own share is what a call takes beyond the daemon's phase `kernel`: gRPC and the desk; means of the rounds. A look at \
         all is the call Check, which reads and compares what the sweep does; its own share is what it takes beyond the kernel's telling \
         of as many links of the floor's.\n\n{calls}\n{costs}\n\
         Each attachment adds {each}. With nothing to do for {} s, in which all is compared \
         with the kernel twice: {} wake-ups per second, {} % of one CPU.\n",
        crate::growth::IDLE.as_secs(),
        cell(figures.get("idle/wake-ups")),
        cell(figures.get("idle/cpu")),
    )
}

fn inside(figures: &Figures) -> String {
    let mut rows = Vec::new();
    for (title, who) in [
        ("floor", "floor"),
        ("**daemon**", "daemon"),
        ("first version", "first"),
        ("workloadnet-cni by itself", "plugin"),
        ("ptp + host-local", "ptp46"),
        ("bridge + host-local", "bridge46"),
        ("netavark", "netavark46"),
    ] {
        let cells = [
            "calls/attach",
            "messages/attach",
            "calls/detach",
            "messages/detach",
        ]
        .map(|begin| cell(figures.get(&format!("{begin}/{who}"))));
        rows.push([vec![title.to_owned()], cells.to_vec()].concat());
    }
    let counts = table(
        &[
            "dual stack",
            "attach: system calls",
            "netlink messages",
            "detach: system calls",
            "netlink messages",
        ],
        &rows,
    );
    let mut rows = Vec::new();
    for (name, figure) in figures.below("call/attach/daemon/") {
        let floor = figures.get(&format!("call/attach/floor/{name}"));
        rows.push(vec![name.to_owned(), digits(figure.value), cell(floor)]);
    }
    rows.sort_by(|a, b| a[0].cmp(&b[0]));
    let calls = table(&["system call of an attach", "daemon", "floor"], &rows);
    format!(
        "Of one call. System calls and the others' messages are counted by strace, which slows down what it follows, so that the \
         daemon looks oftener for what the kernel has not done yet; its messages it counts itself. Messages are those to the \
         kernel. Programs: with all that they execute, from exec to exit.\n\n{counts}\n{calls}\nOf {} attaches, {} first packets were lost, of two each: an echo request over IPv4 and one over \
         IPv6 to a host beyond the node, sent right after the answer. Answered after {} ms (p99 {}).\n",
        cell(figures.get("first-packets/attaches")),
        cell(figures.get("first-packets/lost")),
        cell(figures.get("first-packets/echo")),
        p99(figures.get("first-packets/echo")),
    )
}
