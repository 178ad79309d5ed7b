//! One target under libFuzzer: `cargo xtask fuzz` builds this so that it can run, and names the target in the environment.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::chosen()(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    eprintln!("built without libFuzzer: use cargo xtask fuzz");
    std::process::ExitCode::FAILURE
}
