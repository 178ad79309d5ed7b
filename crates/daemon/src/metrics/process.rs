//! What the kernel says of the daemon's own process (proc_pid_stat(5), proc_pid_statm(5)). What cannot be read is 0.

use std::fs;

pub(super) struct Process {
    /// Since the Unix epoch, in seconds.
    pub(super) began: f64,
    /// In bytes.
    pub(super) resident: u64,
    pub(super) descriptors: usize,
}

pub(super) fn look() -> Process {
    Process {
        began: began().unwrap_or_default(),
        resident: resident().unwrap_or_default(),
        // The one by which the folder is read is among them.
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, |all| all.count().saturating_sub(1)),
    }
}

/// The time of boot, and the ticks from then to the start: field 22, the 20th after the name in parentheses.
fn began() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks: f64 = rest.split(' ').nth(19)?.parse().ok()?;
    let node = fs::read_to_string("/proc/stat").ok()?;
    let boot = node.lines().find_map(|line| line.strip_prefix("btime "))?;
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(boot.trim().parse::<f64>().ok()? + ticks / per_second)
}

fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn the_own_process_has_begun_lately_and_has_memory_and_descriptors() {
        let process = look();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        // btime is a whole second.
        assert!(
            (now - 3600.0..now + 2.0).contains(&process.began),
            "{}",
            process.began
        );
        assert!(process.resident > 100_000);
        assert!(process.descriptors >= 3);
    }
}
