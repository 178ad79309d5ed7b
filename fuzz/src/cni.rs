//! The plugin's environment and stdin.

use crate::is_bounded;
use cni::rehearsal::rehearse;
use serde_json::Value;

const VARIABLES: [&str; 5] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_IFNAME",
    "CNI_NETNS",
    "CNI_ARGS",
];
/// The specification's codes that are given without a daemon, and that of a CHECK.
const CODES: [u64; 6] = [1, 2, 4, 6, 7, 103];

/// The variables' values, each ended by a NUL; then the configuration.
pub(crate) fn cni(bytes: &[u8]) {
    let mut rest = bytes;
    let mut values = Vec::new();
    for _ in VARIABLES {
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        values.push(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    match called(&values, rest) {
        Ok(printed) => is_in_order(&values, rest, printed),
        Err(failure) => {
            let code = failure["code"].as_u64().unwrap_or_default();
            let msg = failure["msg"].as_str().unwrap_or_default();
            assert!(CODES.contains(&code) && msg.len() > 10, "{failure}");
            assert!(failure["cniVersion"].is_string(), "{failure}");
            is_bounded(msg, bytes);
        }
    }
}

fn called(values: &[&[u8]], input: &[u8]) -> Result<Option<Value>, Value> {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    let variable = |name: &str| {
        let at = VARIABLES.iter().position(|known| *known == name)?;
        let value = OsString::from_vec(values[at].to_vec());
        Some(value.into_string())
    };
    rehearse(variable, input)
}

fn is_in_order(values: &[&[u8]], input: &[u8], printed: Option<Value>) {
    let verb = values[0];
    assert_eq!(
        printed.is_some(),
        [&b"ADD"[..], b"VERSION"].contains(&verb),
        "{printed:?}"
    );
    let Some(result) = printed.filter(|_| verb == b"ADD") else {
        return;
    };
    let config: Value = serde_json::from_slice(input).expect("it was read");
    assert_eq!(result["cniVersion"], config["cniVersion"]);
    for (list, own) in [("interfaces", 2), ("ips", 2), ("routes", 2)] {
        let all = result[list].as_array().expect("a result has this list");
        let before = config["prevResult"][list]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        assert_eq!(
            &all[..all.len() - own],
            before,
            "what was before stays in its place"
        );
    }
    passes_its_check(values, config, result);
}

/// What an ADD printed is what CHECK finds to be right, where nobody else's is mixed in.
fn passes_its_check(values: &[&[u8]], mut config: Value, result: Value) {
    if !config["prevResult"].is_null() || ["0.3.0", "0.3.1"].iter().any(|old| config["cniVersion"] == *old) {
        return;
    }
    config["prevResult"] = result;
    let mut values = values.to_vec();
    values[0] = b"CHECK";
    let input = serde_json::to_vec(&config).expect("it has a form");
    assert_eq!(called(&values, &input), Ok(None));
}
