//! Who may know whom, under which licences we build, and what is never a dependency: read from `cargo metadata`.

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// Our rooms, and which of them each may know outside of its tests.
const ROOMS: [(&str, &[&str]); 8] = [
    ("workloadnet-model", &[]),
    ("workloadnet-kernel", &["workloadnet-model"]),
    ("workloadnet-api", &[]),
    ("workloadnet-client", &["workloadnet-api"]),
    ("workloadnet-stage", &["workloadnet-kernel"]),
    (
        "workloadnet-daemon",
        &["workloadnet-model", "workloadnet-api", "workloadnet-kernel"],
    ),
    ("workloadnet-cli", &["workloadnet-client", "workloadnet-stage"]),
    ("xtask", &[]),
];

/// What `model`, which is pure, may use.
const PURE: [&str; 3] = ["ipnet", "sha2", "thiserror"];

/// Licences under which a dependency may come. Of alternatives (OR) one is enough.
const LICENCES: [&str; 9] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Never a dependency, and why.
const BANNED: [(&str, &str); 5] = [
    ("openssl-sys", "a C library; nothing here speaks TLS"),
    ("rtnetlink", "one task and one round trip per request"),
    ("nix", "rustix does it without unsafe wrappers of our own"),
    ("protoc-bin-vendored", "protox compiles protos in Rust"),
    ("rustables", "GPL-3.0"),
];

/// Places in the sources where a word may not stand: folder, word, file that may, why.
const WORDS: [(&str, &str, &str, &str); 6] = [
    (
        "crates/daemon/src",
        "kernel::",
        "main.rs",
        "only main knows the kernel",
    ),
    ("crates/daemon/src/desk", "tokio", "", "no async below the door"),
    ("crates/model/src", "std::fs", "", "model is pure"),
    ("crates/model/src", "std::net::Udp", "", "model is pure"),
    (
        "crates/kernel/src",
        "process::Command",
        "",
        "the product executes no tools",
    ),
    (
        "crates/daemon/src",
        "process::Command",
        "",
        "the product executes no tools",
    ),
];

/// Fails with everything that is wrong.
pub(crate) fn check() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let mut wrong = findings(&metadata)?;
    let root = text(&metadata["workspace_root"])?;
    for (folder, word, except, why) in WORDS {
        for file in sources(&Path::new(root).join(folder))? {
            let name = file
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name != except && fs::read_to_string(&file)?.contains(word) {
                wrong.push(format!("{} has {word:?}: {why}", file.display()));
            }
        }
    }
    match wrong.is_empty() {
        true => {
            println!("dependencies, licences and bans are as they are to be");
            Ok(())
        }
        false => bail!("{}", wrong.join("\n")),
    }
}

/// Where cargo builds.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    Ok(text(&metadata()?["target_directory"])?.into())
}

fn metadata() -> anyhow::Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--all-features"])
        .output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value
        .as_str()
        .context("cargo metadata has another form than known")
}

fn list(value: &Value) -> anyhow::Result<&[Value]> {
    value
        .as_array()
        .map(Vec::as_slice)
        .context("cargo metadata has another form than known")
}

fn findings(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for package in list(&metadata["packages"])? {
        let name = text(&package["name"])?;
        if package["source"].is_null() {
            match ROOMS.iter().find(|(room, _)| *room == name) {
                Some((_, may)) => wrong.extend(directions(package, name, may)?),
                None => wrong.push(format!("{name} is no room of the table in xtask/src/deps.rs")),
            }
            continue;
        }
        if !text(&package["source"])?.starts_with("registry+") {
            wrong.push(format!("{name} does not come from the crates registry"));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            wrong.push(format!("{name} is banned: {why}"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_allowed(licence) {
            wrong.push(format!("{name} comes under {licence}, which is not on the list"));
        }
    }
    Ok(wrong)
}

fn directions(package: &Value, name: &str, may: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for dependency in list(&package["dependencies"])? {
        if dependency["kind"].as_str() == Some("dev") {
            continue;
        }
        let to = text(&dependency["name"])?;
        if ROOMS.iter().any(|(room, _)| *room == to) && !may.contains(&to) {
            wrong.push(format!("{name} may not know {to}"));
        }
        if name == "workloadnet-model" && !PURE.contains(&to) {
            wrong.push(format!("{name} is pure and may not use {to}"));
        }
    }
    Ok(wrong)
}

/// Whether an SPDX expression can be fulfilled. Alternatives bind weaker than conditions; of parentheses those registry
/// crates have only the forms "(A OR B) AND C" and "A AND (B OR C)".
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut depth = 0_i32;
    let split = |word: &str| -> Vec<String> {
        let mut parts = vec![String::new()];
        depth = 0;
        for token in expression
            .replace('(', " ( ")
            .replace(')', " ) ")
            .split_whitespace()
        {
            depth += i32::from(token == "(") - i32::from(token == ")");
            if depth == 0 && token == word {
                parts.push(String::new());
            } else if let Some(last) = parts.last_mut() {
                last.push(' ');
                last.push_str(token);
            }
        }
        parts
    };
    let mut split = split;
    let any = split("OR");
    if any.len() > 1 {
        return any.iter().any(|part| is_allowed(part));
    }
    let all = split("AND");
    if all.len() > 1 {
        return all.iter().all(|part| is_allowed(part));
    }
    let one = all[0].trim();
    match one
        .strip_prefix("( ")
        .and_then(|inside| inside.strip_suffix(" )"))
    {
        Some(inside) => is_allowed(inside),
        None => LICENCES.contains(&one),
    }
}

fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn licences_are_read_as_spdx_expressions() {
        for allowed in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "none",
            "",
            "(MIT OR Apache-2.0) AND GPL-3.0",
        ] {
            assert!(!is_allowed(refused), "{refused}");
        }
    }

    #[test]
    fn what_may_not_be_is_found() {
        let dependency = |name: &str| json!({ "name": name, "kind": null });
        let metadata = json!({ "packages": [
            { "name": "workloadnet-model", "source": null,
              "dependencies": [dependency("workloadnet-kernel"), dependency("ipnet"), dependency("tokio")] },
            { "name": "workloadnet-stranger", "source": null, "dependencies": [] },
            { "name": "rtnetlink", "source": "registry+x", "license": "MIT", "dependencies": [] },
            { "name": "copyleft", "source": "git+x", "license": "GPL-3.0", "dependencies": [] },
        ]});
        assert_eq!(
            findings(&metadata).unwrap(),
            [
                "workloadnet-model may not know workloadnet-kernel",
                "workloadnet-model is pure and may not use workloadnet-kernel",
                "workloadnet-model is pure and may not use tokio",
                "workloadnet-stranger is no room of the table in xtask/src/deps.rs",
                "rtnetlink is banned: one task and one round trip per request",
                "copyleft does not come from the crates registry",
                "copyleft comes under GPL-3.0, which is not on the list",
            ]
        );
    }
}
