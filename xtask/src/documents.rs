//! The Markdown files, and what they link to: each link leads to a file that is there and, behind a `#`, to a heading in it.
//!
//! What is fenced is no prose: a `# command` in it is no heading. Anchors are made as the forge makes them.

use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A Markdown file: its path below the repository, with `/`, and its text.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Document {
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_fenced = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_fenced ^= is_fence;
            !is_fenced && !is_fence
        })
    }

    /// Targets of links within the repository, as they are written.
    pub(crate) fn links(&self) -> Vec<String> {
        let text: Vec<&str> = self.prose().collect();
        let text = text.join("\n");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets
            .filter(|target| !target.contains("://"))
            .map(str::to_owned)
            .collect()
    }

    /// What its headings are linked to by.
    fn anchors(&self) -> BTreeSet<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchors = BTreeSet::new();
        for line in self.prose() {
            let heading = line.trim_start_matches('#');
            let depth = line.len() - heading.len();
            if (1..=6).contains(&depth) && heading.starts_with(' ') {
                let anchor = anchor(heading);
                let before = seen.entry(anchor.clone()).or_default();
                anchors.insert(match *before {
                    0 => anchor,
                    n => format!("{anchor}-{n}"),
                });
                *before += 1;
            }
        }
        anchors
    }
}

/// Small letters, digits, `_` and `-`; a space is a `-`, and all else is nothing.
fn anchor(heading: &str) -> String {
    let small = heading.trim().to_lowercase();
    let kept = small.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    });
    kept.collect()
}

/// Every link that leads nowhere; `is_there` tells of paths below the repository.
pub(crate) fn violations(documents: &[Document], is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&str, BTreeSet<String>> = documents
        .iter()
        .map(|document| (document.path.as_str(), document.anchors()))
        .collect();
    let mut found = Vec::new();
    for document in documents {
        for link in document.links() {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let to = match file {
                "" => Some(document.path.clone()),
                file => resolved(&document.path, file),
            };
            let to = to.filter(|to| is_there(to));
            let leads = to.is_some_and(|to| {
                heading.is_empty() || anchors.get(to.as_str()).is_some_and(|of| of.contains(heading))
            });
            if !leads {
                found.push(format!("{}: there is no {link}", document.path));
            }
        }
    }
    found
}

/// Where a link leads from a file's folder; `None`: out of the repository.
fn resolved(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// All Markdown files below the repository's root, but build output and what is hidden.
pub(crate) fn read(root: &Path) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    read_folder(root, root, &mut documents)?;
    documents.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(documents)
}

fn read_folder(root: &Path, folder: &Path, documents: &mut Vec<Document>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        // A link to a folder is not followed: its files are found where they are.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && name != "target" && !name.to_string_lossy().starts_with('.') {
            read_folder(root, &path, documents)?;
        } else if !is_folder && path.extension().is_some_and(|end| end == "md") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            documents.push(Document { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(path: &str, text: &str) -> Document {
        Document {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn links_within_the_repository_are_read_and_others_are_not() {
        let text =
            "[a](docs/a.md) [b](https://b.example) [c](#c) ![d](d.svg)\n```\n[e](e.md)\n```\n[f](f.md#g)";
        assert_eq!(
            document("README.md", text).links(),
            ["docs/a.md", "#c", "d.svg", "f.md#g"]
        );
    }

    #[test]
    fn headings_have_the_anchors_that_the_forge_makes() {
        let text =
            "# 9. What `a_name` is, and why\n## Twice\n## Twice\n```console\n# ip link\n```\n#not one\n";
        let anchors = document("a.md", text).anchors();
        let expected = ["9-what-a_name-is-and-why", "twice", "twice-1"];
        assert_eq!(anchors, expected.map(str::to_owned).into());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let readme = document(
            "README.md",
            "# Top\n[a](docs/a.md#use) [b](docs/b.md) [c](docs/a.md#gone) [d](#top) [e](#use) [f](../x)",
        );
        let a = document(
            "docs/a.md",
            "## Use\n[up](../README.md#top) [own](#use) [g](./c.svg) [h](c.svg#x)",
        );
        let is_there = |path: &str| ["README.md", "docs/a.md", "docs/c.svg"].contains(&path);
        assert_eq!(
            violations(&[readme, a], is_there),
            [
                "README.md: there is no docs/b.md",
                "README.md: there is no docs/a.md#gone",
                "README.md: there is no #use",
                "README.md: there is no ../x",
                "docs/a.md: there is no c.svg#x",
            ]
        );
    }
}
