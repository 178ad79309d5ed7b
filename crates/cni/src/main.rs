//! `workloadnet-cni`: the CNI plugin.

fn main() -> std::process::ExitCode {
    cni::run()
}
