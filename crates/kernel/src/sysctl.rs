//! Settings below /proc/sys/net, which shows the reading thread's network namespace.

use crate::fault::io as io_fault;
use model::address::Family;
use model::datapath::Fault;
use model::plan::Sysctl;
use model::survey::Forwarding;
use std::fs;
use std::path::Path;

const FORWARDING_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARDING_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Whether this kernel runs IPv6 at all (`ipv6.disable=1` leaves no folder).
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Writes one setting of a link.
pub(crate) fn write(link: &str, sysctl: &Sysctl) -> Result<(), Fault> {
    let version = match sysctl.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let path = format!("/proc/sys/net/{version}/conf/{link}/{}", sysctl.name);
    fs::write(&path, sysctl.value.to_string())
        .map_err(|error| io_fault(format!("sysctl {}", sysctl.of(link)), &error))
}

/// How forwarding stands.
pub(crate) fn forwarding() -> Forwarding {
    let on = |path| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    Forwarding {
        v4: on(FORWARDING_V4),
        v6: on(FORWARDING_V6),
    }
}

/// Switches forwarding on where it is off.
///
/// A node that forwards IPv6 forgets its advertised default routes at once and believes no advertisement any more, but on
/// links whose `accept_ra` is 2 (`rt6_purge_dflt_routers`, net/ipv6/route.c). `advertised` names the links that live from
/// advertisements: they go on doing so.
pub(crate) fn ensure_forwarding(
    advertised: impl FnOnce() -> Result<Vec<String>, Fault>,
) -> Result<(), Fault> {
    let stands = forwarding();
    let write =
        |path: &str| fs::write(path, "1").map_err(|error| io_fault(format!("write 1 to {path}"), &error));
    if !stands.v4 {
        write(FORWARDING_V4)?;
    }
    if !stands.v6 && has_ipv6() {
        for link in advertised()? {
            let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
            if fs::read_to_string(path).is_ok_and(|text| text.trim() == "1") {
                self::write(&link, &Sysctl::v6("accept_ra", 2))?;
                tracing::info!(
                    link,
                    "accept_ra is set to 2, as its routes are advertised and IPv6 forwarding goes on"
                );
            }
        }
        write(FORWARDING_V6)?;
    }
    Ok(())
}
