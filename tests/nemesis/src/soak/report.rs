//! What a soak has shown, written for people, for programs, and to look at.

use super::svg::{Line, Panel, draw};
use super::{Bound, Latency, Window};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Writes `soak.md`, `soak.json` and `soak.svg` into a folder.
pub fn write(folder: &Path, about: &str, windows: &[Window], bounds: &[Bound]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let all = serde_json::json!({ "about": about, "bounds": bounds, "windows": windows });
    fs::write(
        folder.join("soak.json"),
        serde_json::to_string_pretty(&all)? + "\n",
    )?;
    fs::write(folder.join("soak.md"), text(about, windows, bounds))?;
    fs::write(folder.join("soak.svg"), draw(&panels(windows)))?;
    Ok(())
}

fn text(about: &str, windows: &[Window], bounds: &[Bound]) -> String {
    let cycles: usize = windows
        .iter()
        .map(|window| latency(window, "detach").number)
        .sum();
    let mut text = format!(
        "# Soak\n{about}. {cycles} times an attach and a detach, dual stack with a port of the node each. Made by `cargo xtask soak`.\n\n\
         ![memory, files, threads and latencies over time](soak.svg)\n\n\
         The second quarter of the time beside the last one (medians of the windows; the first quarter warms up):\n\n\
         | | second quarter | last quarter | bound | |\n|---|---|---|---|---|\n"
    );
    for bound in bounds {
        let verdict = if bound.is_kept() { "kept" } else { "broken" };
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.0} | {verdict} |",
            bound.what, bound.before, bound.after, bound.limit
        );
    }
    text
}

fn latency(window: &Window, what: &str) -> Latency {
    window.latencies.get(what).copied().unwrap_or_default()
}

fn panels(windows: &[Window]) -> Vec<Panel> {
    let line = |name, colour, of: &dyn Fn(&Window) -> f64| Line {
        name,
        colour,
        points: windows.iter().map(|window| (window.end, of(window))).collect(),
    };
    let (blue, orange, green) = ("#1f77b4", "#ff7f0e", "#2ca02c");
    let milliseconds = |micros: u64| micros as f64 / 1000.0;
    let latencies = |title, what: &'static str| Panel {
        title,
        lines: vec![
            line("p50", blue, &|window| milliseconds(latency(window, what).p50)),
            line("p90", green, &|window| milliseconds(latency(window, what).p90)),
            line("p99", orange, &|window| milliseconds(latency(window, what).p99)),
        ],
    };
    vec![
        Panel {
            title: "memory, KiB",
            lines: vec![
                line("RSS", blue, &|window| window.rss as f64),
                line("PSS", orange, &|window| window.pss as f64),
            ],
        },
        Panel {
            title: "open files and threads",
            lines: vec![
                line("files", blue, &|window| window.files as f64),
                line("threads", orange, &|window| window.threads as f64),
            ],
        },
        latencies("attach, ms", "attach"),
        latencies("detach, ms", "detach"),
        Panel {
            title: "cycles in a window",
            lines: vec![line("cycles", blue, &|window| {
                latency(window, "detach").number as f64
            })],
        },
    ]
}
