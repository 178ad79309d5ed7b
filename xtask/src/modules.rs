//! Licences of Go modules. Go has no field for them, so they are read in the modules' own files, as people would.

use crate::licences::ALLOWED;

/// A module that another one's build links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) path: String,
    pub(crate) version: String,
    /// What it is replaced by, where go.mod says so.
    pub(crate) replacement: Option<String>,
    /// Its files with a licence in them.
    pub(crate) licences: Vec<String>,
}

/// Whether a file at a module's root has a licence in it, by its name.
pub(crate) fn is_licence(file: &str) -> bool {
    let name = file.to_ascii_uppercase();
    ["LICENSE", "LICENCE", "COPYING"]
        .iter()
        .any(|begin| name.starts_with(begin))
}

/// Every module that may not be linked.
pub(crate) fn violations(modules: &[Module]) -> Vec<String> {
    modules.iter().flat_map(of_module).collect()
}

fn of_module(module: &Module) -> Vec<String> {
    let who = format!("{} {}", module.path, module.version);
    let mut found = Vec::new();
    if let Some(by) = &module.replacement {
        found.push(format!("{who}: is replaced by {by}"));
    }
    if module.licences.is_empty() {
        found.push(format!("{who}: has no licence's file"));
    }
    for text in &module.licences {
        let names = named_in(text);
        if names.is_empty() {
            let words: Vec<&str> = text.split_whitespace().take(8).collect();
            found.push(format!("{who}: an unknown licence, {:?}", words.join(" ")));
        }
        let refused = names.into_iter().filter(|name| !ALLOWED.contains(name));
        found.extend(refused.map(|name| format!("{who}: its licence {name} is not among the allowed ones")));
    }
    found
}

/// The licences whose own words a text has. One that names no version or variant that is allowed has a name that is not.
fn named_in(text: &str) -> Vec<&'static str> {
    let text = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase();
    let has = |words: &str| text.contains(words);
    let mut found = Vec::new();
    if has("apache license version 2.0") {
        found.push("Apache-2.0");
    }
    if has("redistribution and use in source and binary forms") {
        found.push(match (has("advertising materials"), has("neither the name")) {
            (true, _) => "BSD-4-Clause",
            (false, true) => "BSD-3-Clause",
            (false, false) => "BSD-2-Clause",
        });
    }
    if has("permission is hereby granted, free of charge, to any person obtaining a copy") {
        found.push("MIT");
    }
    if has("permission to use, copy, modify, and/or distribute this software for any purpose") {
        found.push("ISC");
    }
    for (words, name) in [
        ("gnu general public license", "GPL"),
        ("gnu lesser general public license", "LGPL"),
        ("gnu affero general public license", "AGPL"),
        ("mozilla public license", "MPL"),
        ("eclipse public license", "EPL"),
        ("business source license", "BUSL"),
        ("server side public license", "SSPL"),
    ] {
        if has(words) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const APACHE: &str = "\n                                 Apache License\n                           Version 2.0, January 2004\n";
    const BSD: &str =
        "Redistribution and use in source and binary forms, with or without\nmodification, are permitted";

    fn with(licences: &[&str]) -> Vec<String> {
        violations(&[Module {
            path: "example.org/x".to_owned(),
            version: "v1.0.0".to_owned(),
            replacement: None,
            licences: licences.iter().map(|text| (*text).to_owned()).collect(),
        }])
    }

    #[test]
    fn licences_are_known_by_their_words() {
        let three = format!("{BSD}\n  * Neither the name of Google Inc.");
        let four = format!("{BSD}\n 3. All advertising materials mentioning features. Neither the name");
        for (text, names) in [
            (APACHE, vec!["Apache-2.0"]),
            (BSD, vec!["BSD-2-Clause"]),
            (&three, vec!["BSD-3-Clause"]),
            (&four, vec!["BSD-4-Clause"]),
            ("All rights reserved.", vec![]),
            ("Apache License\nVersion 1.1", vec![]),
        ] {
            assert_eq!(named_in(text), names, "{text}");
        }
    }

    #[test]
    fn what_is_not_allowed_or_not_known_is_named() {
        assert_eq!(with(&[APACHE, BSD]), Vec::<String>::new());
        assert_eq!(with(&[]), ["example.org/x v1.0.0: has no licence's file"]);
        assert_eq!(
            with(&["hold my beer"]),
            ["example.org/x v1.0.0: an unknown licence, \"hold my beer\""]
        );
        let both = format!("{APACHE} or, for some files,\n GNU General\n Public License");
        assert_eq!(
            with(&[&both]),
            ["example.org/x v1.0.0: its licence GPL is not among the allowed ones"]
        );
    }

    #[test]
    fn a_replaced_module_is_named() {
        let module = Module {
            path: "example.org/x".to_owned(),
            version: "v1.0.0".to_owned(),
            replacement: Some("../x".to_owned()),
            licences: vec![APACHE.to_owned()],
        };
        assert_eq!(
            violations(&[module]),
            ["example.org/x v1.0.0: is replaced by ../x"]
        );
    }

    #[test]
    fn files_with_licences_are_known_by_their_names() {
        for name in ["LICENSE", "License.md", "LICENCE", "COPYING.LESSER"] {
            assert!(is_licence(name), "{name}");
        }
        assert!(!is_licence("NOTICE.txt"));
    }
}
