//! Capabilities (capabilities(7)) of the calling thread, and of all that it starts.

use crate::fault::sys;
use model::datapath::Fault;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// NET_ADMIN: links, routes, nftables, settings. SYS_ADMIN: setns. SYS_PTRACE: `/proc/PID/ns/net` of a process that may more
/// than we do, or is another user's. DAC_READ_SEARCH: namespaces in folders of other users.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Keeps those that are needed, as far as they are there, and none that could be passed on.
pub(super) fn drop_unneeded() -> Result<(), Fault> {
    let tried = |errno| sys("drop capabilities", errno);
    let have = capabilities(None).map_err(tried)?;
    // First, as it takes SETPCAP, which goes with the others.
    bound(have.effective).map_err(tried)?;
    clear_ambient_capability_set().map_err(tried)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: have.effective & NEEDED,
            permitted: have.permitted & NEEDED,
            inheritable: CapabilitySet::empty(),
        },
    )
    .map_err(tried)
}

/// What is not bounded could be had by executing a program, which is given up, too. So it may stay where the right to take it
/// away is missing: a service manager that kept that back has bounded it already.
fn bound(effective: CapabilitySet) -> Result<(), Errno> {
    if !effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for n in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << n);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !NEEDED.contains(one) => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // Behind the last one that the kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
