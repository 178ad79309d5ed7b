//! What the process is done with goes back to the kernel at once.

/// glibc's own threshold, in bytes.
#[cfg(target_env = "gnu")]
const THRESHOLD: libc::c_int = 128 * 1024;

/// Pieces of memory beyond 128 KiB, as a look at thousands of links needs them, are given back when they are done with. glibc
/// would take the first one that is freed for the size of those to come, and keep twice as much of them for good
/// (`M_MMAP_THRESHOLD` in mallopt(3)). To be called before there is a second thread.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "there is no other way to tell glibc")
)]
pub fn give_back_what_is_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers and no pointer, and is called while there is one thread.
    unsafe {
        // It refuses only what is too large.
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
    }
}
