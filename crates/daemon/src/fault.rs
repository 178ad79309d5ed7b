//! What the kernel's refusals mean, whoever asked.

use model::datapath::Fault;
use rustix::io::Errno;

/// As the kernel had it; what we refuse ourselves has none, and rustix takes only what is one.
pub(crate) fn number(fault: &Fault) -> Option<Errno> {
    let is_one = (1..4096).contains(&fault.errno);
    is_one.then(|| Errno::from_raw_os_error(fault.errno))
}

/// Too many open files here or on the node, no memory: nothing was learned, and the same may succeed in a moment.
pub(crate) fn is_exhaustion(fault: &Fault) -> bool {
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    number(fault).is_some_and(|number| passing.contains(&number))
}
