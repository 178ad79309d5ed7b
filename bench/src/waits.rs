//! The kernel's waits of an attach and a detach, each by the function that waits, with what is done about it.

use crate::figures::Figures;
use crate::samples::{digits, table};

/// Whether a wait could be done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nobody who called waits for it.
    Aside,
    /// It is shared by those that come at once.
    Shared,
    Unavoidable,
    /// A thread with nothing to do, or one that waits for another one of the daemon.
    HandOver,
}

impl Way {
    fn words(self) -> &'static str {
        match self {
            Self::Aside => "out of the way: who called does not wait for it",
            Self::Shared => "cannot be avoided; shared by detaches that come at once",
            Self::Unavoidable => "cannot be avoided",
            Self::HandOver => "no wait of the kernel",
        }
    }
}

const RTNL: &str =
    "RTNL, which is the kernel's one lock for changes of links: another one of the node is under way";
const EXPEDITED: &str = "synchronize_net under RTNL: until no CPU looks at the link";
const NOTHING: &str = "nothing to do, or the answer of another thread";

/// The function, what it is, and what is done about it.
const KNOWN: &[(&str, &str, Way)] = &[
    (
        "rcu_barrier",
        "netdev_run_todo, after the end was announced: until every callback of RCU has run",
        Way::Aside,
    ),
    ("synchronize_rcu_expedited", EXPEDITED, Way::Shared),
    ("synchronize_rcu_expedited_wait_once", EXPEDITED, Way::Shared),
    ("exp_funnel_lock", EXPEDITED, Way::Shared),
    ("synchronize_net", EXPEDITED, Way::Shared),
    (
        "__flush_work",
        "flush_all_backlogs under RTNL: until each CPU has passed on the packets that it has queued",
        Way::Shared,
    ),
    ("rtnl_lock", RTNL, Way::Unavoidable),
    ("rtnl_lock_killable", RTNL, Way::Unavoidable),
    ("rtnetlink_rcv_msg", RTNL, Way::Unavoidable),
    ("rtnl_newlink", RTNL, Way::Unavoidable),
    ("rtnl_setlink", RTNL, Way::Unavoidable),
    ("rtnl_dellink", RTNL, Way::Unavoidable),
    ("inet_rtm_newaddr", RTNL, Way::Unavoidable),
    ("inet6_rtm_newaddr", RTNL, Way::Unavoidable),
    ("inet_rtm_newroute", RTNL, Way::Unavoidable),
    ("inet6_rtm_newroute", RTNL, Way::Unavoidable),
    ("addrconf_fixup_forwarding", RTNL, Way::Unavoidable),
    (
        "netlink_table_grab",
        "another socket of netlink is being opened or closed",
        Way::Unavoidable,
    ),
    (
        "hrtimer_nanosleep",
        "addrconf_dad_work, which makes the local routes of IPv6 addresses in a work queue and tells nobody; they are looked for every 30 µs",
        Way::Unavoidable,
    ),
    (
        "io_schedule",
        "the state file, on a disk where the bench runs; a thread of its own writes it",
        Way::Aside,
    ),
    (
        "io_schedule_timeout",
        "the state file, on a disk where the bench runs; a thread of its own writes it",
        Way::Aside,
    ),
    ("futex_wait", NOTHING, Way::HandOver),
    ("ep_poll", NOTHING, Way::HandOver),
    ("do_epoll_wait", NOTHING, Way::HandOver),
    ("do_sys_poll", NOTHING, Way::HandOver),
    ("poll_schedule_timeout", NOTHING, Way::HandOver),
    ("do_poll", NOTHING, Way::HandOver),
];

/// As a table, the longest first.
pub(crate) fn report(figures: &Figures) -> String {
    let mut rows = Vec::new();
    for verb in ["attach", "detach"] {
        let begin = format!("waits/{verb}/");
        let mut waits: Vec<_> = figures
            .below(&begin)
            .map(|(place, count)| (place, count.value, figures.of(&format!("wait/{verb}/{place}"))))
            .collect();
        waits.sort_by(|a, b| b.2.unwrap_or_default().total_cmp(&a.2.unwrap_or_default()));
        for (place, count, time) in waits {
            let (call, function) = place.split_once('/').unwrap_or(("?", place));
            let known = KNOWN.iter().find(|(name, ..)| *name == function);
            rows.push(vec![
                verb.to_owned(),
                format!("`{function}`"),
                call.to_owned(),
                digits(count),
                time.map_or_else(|| "-".to_owned(), digits),
                known.map_or("", |(_, what, _)| what).to_owned(),
                known.map_or("not explained", |(.., way)| way.words()).to_owned(),
            ]);
        }
    }
    let head = [
        "of a lone",
        "kernel's function",
        "in",
        "times each",
        "µs each",
        "what",
        "avoided",
    ];
    format!(
        "Times that a thread of the daemon went to sleep, from the scheduler's events, 50 ms after whatever was before. From going to \
         sleep until running again, so with the time in which a CPU wakes up.\n\n{}",
        table(&head, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_comes_first_and_what_is_not_known_says_so() {
        let mut figures = Figures::default();
        for (name, unit, value) in [
            ("waits/detach/sendto/rcu_barrier", "waits", 1.0),
            ("wait/detach/sendto/rcu_barrier", "µs", 17_000.0),
            ("waits/detach/sendto/something", "waits", 2.0),
            ("wait/detach/sendto/something", "µs", 18_000.0),
            ("waits/detach/futex/futex_wait", "waits", 3.0),
        ] {
            figures.value(name, unit, value);
        }
        let report = report(&figures);
        let rows: Vec<_> = report
            .lines()
            .filter(|line| line.starts_with("| detach"))
            .collect();
        assert_eq!(rows.len(), 3);
        assert!(
            rows[0].contains("`something`") && rows[0].ends_with("| not explained |"),
            "{}",
            rows[0]
        );
        assert!(rows[1].contains("out of the way"), "{}", rows[1]);
        assert!(
            rows[2].contains("| - |") && rows[2].contains("no wait of the kernel"),
            "{}",
            rows[2]
        );
    }
}
