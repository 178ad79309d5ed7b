//! Licences, bans and sources of the dependencies. Why not cargo-deny: `docs/decisions/0006`.

use crate::graph::{Graph, Package};
use spdx::{AdditionItem, Expression, ParseMode};

/// Where crates may come from, as cargo writes it.
pub(crate) const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Licences under which Apache-2.0 code may use a crate or a Go module with no more than a notice.
pub(crate) const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Exceptions (`WITH` in an expression) that only allow more than the licence that they stand behind, and why they came in.
const WIDENING: &[(&str, &str)] = &[(
    "LLVM-exception",
    "object code may leave out notices that Apache-2.0 asks for; ar_archive_writer has it, which only build scripts run",
)];

/// Crates that do not come in, and why.
const BANNED: &[(&str, &str)] = &[
    ("async-std", "one runtime is enough, and that is tokio"),
    ("aws-lc-sys", "needs a C++ build; ring is the cryptography here"),
    ("bindgen", "needs a C compiler's headers"),
    ("cmake", "needs a C++ build"),
    ("grpcio", "a C++ core; tonic is the gRPC here"),
    ("native-tls", "rustls is the TLS here"),
    ("neli", "netlink-sys is the netlink socket here"),
    (
        "nftables",
        "starts the nft program, which costs 400 times as much as the message it sends",
    ),
    ("nix", "rustix is the system call crate here"),
    ("openssl", "rustls is the TLS here"),
    ("openssl-sys", "rustls is the TLS here"),
    ("protobuf-src", "builds protoc in C++; protox reads the protos"),
    (
        "protoc-bin-vendored",
        "brings a binary that nobody here built; protox reads the protos",
    ),
    ("reqwest", "kube is the HTTP client here"),
    (
        "rtnetlink",
        "async, one message per round trip; kernel sends batches on a blocking socket",
    ),
    ("rustables", "GPL-3.0"),
    ("serde_yaml", "archived by its author; settings are TOML"),
];

/// Every dependency that may not be one.
pub(crate) fn violations(graph: &Graph) -> Vec<String> {
    graph
        .packages
        .values()
        .flat_map(|package| {
            let ours = package.is_ours();
            let ban = BANNED.iter().find(|(name, _)| *name == package.name);
            let who = format!("{} {}", package.name, package.version);
            [
                licence(package).map(|what| format!("{who}: {what}")),
                ban.map(|(_, why)| format!("{who} is banned: {why}")),
                source(package)
                    .filter(|_| !ours)
                    .map(|what| format!("{who}: {what}")),
            ]
        })
        .flatten()
        .collect()
}

fn licence(package: &Package) -> Option<String> {
    let Some(text) = &package.licence else {
        return Some("names no licence".to_owned());
    };
    // "MIT/Apache-2.0" was how cargo wrote OR before it took SPDX expressions.
    let expression = match Expression::parse_mode(text, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("{text:?} is no licence expression: {}", error.reason)),
    };
    let is_allowed = expression.evaluate(|requirement| {
        let id = requirement.license.id();
        let is_widened = requirement.addition.as_ref().is_none_or(widens);
        is_widened && id.is_some_and(|id| ALLOWED.contains(&id.name))
    });
    (!is_allowed).then(|| format!("its licence {text:?} is not among the allowed ones"))
}

fn widens(addition: &AdditionItem) -> bool {
    let exception = addition.id().map(|id| id.name);
    exception.is_some_and(|name| WIDENING.iter().any(|(known, _)| *known == name))
}

fn source(package: &Package) -> Option<String> {
    let source = package.source.as_deref()?;
    (source != REGISTRY).then(|| format!("comes from {source}, and not from the crates registry"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::fake;

    fn with(change: impl FnOnce(&mut Package)) -> Vec<String> {
        let mut graph = fake("workloadnet-model: other");
        change(graph.packages.get_mut("other").unwrap());
        violations(&graph)
    }

    fn licensed(text: &str) -> Vec<String> {
        with(|package| package.licence = Some(text.to_owned()))
    }

    #[test]
    fn a_choice_is_fine_where_one_of_it_is_allowed() {
        for text in [
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "GPL-3.0-only OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(licensed(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_named() {
        assert_eq!(
            licensed("MIT AND GPL-3.0-only"),
            ["other 1.0.0: its licence \"MIT AND GPL-3.0-only\" is not among the allowed ones"]
        );
        assert_eq!(licensed("LicenseRef-mine").len(), 1);
        assert_eq!(licensed("GPL-2.0-only WITH LLVM-exception").len(), 1);
        assert_eq!(licensed("Apache-2.0 WITH Classpath-exception-2.0").len(), 1);
        assert_eq!(licensed("hold my beer").len(), 1);
        assert_eq!(
            with(|package| package.licence = None),
            ["other 1.0.0: names no licence"]
        );
    }

    #[test]
    fn a_banned_crate_is_named_with_the_reason() {
        assert_eq!(
            with(|package| package.name = "nix".to_owned()),
            ["nix 1.0.0 is banned: rustix is the system call crate here"]
        );
    }

    #[test]
    fn another_source_is_named() {
        assert_eq!(
            with(|package| package.source = Some("git+https://example.org/x".to_owned())),
            ["other 1.0.0: comes from git+https://example.org/x, and not from the crates registry"]
        );
    }
}
