//! A short run of the whole, so that it stays able to run: two rounds with every strike.

use std::process::Command;

#[test]
fn two_rounds_of_the_random_test_find_nothing() {
    for program in ["workloadnetd", "workloadnet-cni"] {
        let built = stage::sibling(program);
        assert!(
            built.is_ok(),
            "{program} is built beside this test: cargo build --workspace --bins"
        );
    }
    let report = tempfile::tempdir().unwrap();
    let mut nemesis = Command::new(env!("CARGO_BIN_EXE_nemesis"));
    nemesis.args(["--seed", "1", "--operations", "300", "--per-round", "150"]);
    let output = nemesis.arg("--report").arg(report.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(
        said.contains("300 operations") || said.contains("302 operations"),
        "{said}"
    );
}
