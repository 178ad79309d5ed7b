//! What a package's declaration cannot say of it, read from its source text: which module names which crate, who is
//! unsafe, who starts programs.
//!
//! Comments do not count, and neither does a file's closing `#[cfg(test)]` module.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;

/// A source file: its path below the repository, with `/`, and its text.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Text that certain files may not have.
struct Rule {
    /// Paths begin with one of these.
    within: &'static [&'static str],
    /// And with none of these.
    except: &'static [&'static str],
    /// Whole words, as far as they begin or end with a letter.
    words: &'static [&'static str],
    why: &'static str,
    /// Whether tests beside the code are free to.
    tests_may: bool,
}

const RULES: &[Rule] = &[
    Rule {
        within: &["crates/daemon/src/"],
        except: &["crates/daemon/src/main.rs"],
        words: &["kernel::", "extern crate kernel", "use kernel"],
        why: "only the daemon's main knows the kernel room",
        tests_may: false,
    },
    Rule {
        within: &[
            "crates/daemon/src/desk/",
            "crates/model/",
            "crates/kernel/",
            "crates/stage/",
        ],
        except: &[],
        words: &["tokio", "async", ".await"],
        why: "async ends at the door",
        tests_may: false,
    },
    Rule {
        within: &["crates/daemon/src/desk/"],
        except: &[],
        words: &["tonic", "api::", "use api", "prost"],
        why: "the desk knows the model's words, not the wire's",
        tests_may: false,
    },
    Rule {
        within: &["crates/", "xtask/", "bench/", "fuzz/", "tests/"],
        // The rule itself has to name it.
        except: &["crates/kernel/", "xtask/src/sources.rs"],
        words: &["unsafe"],
        why: "only the kernel room may be unsafe",
        tests_may: false,
    },
    Rule {
        within: &["crates/model/src/"],
        except: &[],
        words: &[
            "std::fs",
            "std::io",
            "std::env",
            "std::process",
            "std::thread",
            // An Arc of what never changes is a value.
            "std::sync::{",
            "std::sync;",
            "Barrier",
            "Once",
            "sync::atomic",
            "sync::mpsc",
            "Mutex",
            "RwLock",
            "Condvar",
            "LazyLock",
            "Instant::now",
            "SystemTime",
            "UdpSocket",
            "TcpStream",
            "UnixStream",
            "println!",
            "eprintln!",
        ],
        why: "the model is pure: no files, no clock, no threads, no output",
        tests_may: true,
    },
    Rule {
        within: &[
            "crates/model/src/",
            "crates/kernel/src/",
            "crates/api/",
            "crates/queue/src/",
            "crates/client/src/",
            "crates/cni/src/",
            "crates/daemon/src/",
            "crates/cluster/src/",
        ],
        except: &[],
        words: &["process::Command", "Command::new"],
        why: "the product starts no programs",
        tests_may: true,
    },
    Rule {
        within: &["crates/cli/src/", "crates/stage/src/"],
        except: &[],
        words: &[
            "Command::new(\"ip\"",
            "Command::new(\"nft\"",
            "Command::new(\"tc\"",
            "Command::new(\"sysctl\"",
            "Command::new(\"iptables\"",
            "Command::new(\"unshare\"",
            "Command::new(\"nsenter\"",
        ],
        why: "the kernel is spoken to directly, not through programs",
        tests_may: true,
    },
];

/// Every line that breaks a rule.
pub(crate) fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let code = without_comments(&source.text);
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| source.path.starts_with(prefix));
        for rule in RULES
            .iter()
            .filter(|rule| starts(rule.within) && !starts(rule.except))
        {
            let code = if rule.tests_may {
                without_tests(&code)
            } else {
                &code
            };
            for (number, line) in code.lines().enumerate() {
                if let Some(word) = rule.words.iter().find(|word| has_word(line, word)) {
                    found.push(format!("{}:{}: {word:?}: {}", source.path, number + 1, rule.why));
                }
            }
        }
    }
    found
}

/// All Rust files below the repository's root, but build output.
pub(crate) fn read(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for folder in ["crates", "xtask", "bench", "fuzz", "tests"] {
        let folder = root.join(folder);
        if folder.is_dir() {
            read_folder(root, &folder, &mut sources)?;
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn read_folder(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("read {}", folder.display()))?
            .path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            read_folder(root, &path, sources)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let begins = !word.starts_with(is_word) || !before.is_some_and(is_word);
        let ends = !word.ends_with(is_word) || !after.is_some_and(is_word);
        begins && ends
    })
}

/// The text up to the tests, which come last in a file.
fn without_tests(code: &str) -> &str {
    let end = code.find("\n#[cfg(test)]\nmod ").unwrap_or(code.len());
    &code[..end]
}

/// Comments become nothing; line numbers stay.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let end = block_comment(rest);
            code.extend(rest[..end].chars().filter(|c| *c == '\n'));
            end
        } else {
            let end = literal(rest).unwrap_or(first.len_utf8());
            code.push_str(&rest[..end]);
            end
        };
        rest = &rest[taken..];
    }
    code
}

/// Length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string or character that begins here, in which `//` begins no comment.
fn literal(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 1 + hashes + 1;
            return Some(
                text[body..]
                    .find(&close)
                    .map_or(text.len(), |at| body + at + close.len()),
            );
        }
        return None;
    }
    if text.starts_with("'\"'") {
        return Some(3);
    }
    let body = text.strip_prefix('"')?;
    let mut is_escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        violations(&[Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }])
    }

    #[test]
    fn the_kernel_room_is_named_in_main_only() {
        let text = "//! Not kernel::linux.\n\nuse kernel::linux::Linux;\n";
        assert_eq!(
            found("crates/daemon/src/door/mod.rs", text),
            ["crates/daemon/src/door/mod.rs:3: \"kernel::\": only the daemon's main knows the kernel room"]
        );
        assert_eq!(found("crates/daemon/src/main.rs", text), Vec::<String>::new());
    }

    #[test]
    fn the_desk_is_sync_and_does_not_know_the_wire() {
        let desk = "crates/daemon/src/desk/mod.rs";
        assert_eq!(found(desk, "use tokio::sync::mpsc;").len(), 1);
        assert_eq!(found(desk, "let x = y().await;").len(), 1);
        assert_eq!(found(desk, "use api::workloads::AttachRequest;").len(), 1);
        assert_eq!(
            found(desk, "/* tokio, async */ let is_async_free = 1;"),
            Vec::<String>::new()
        );
        assert_eq!(
            found("crates/daemon/src/door/mod.rs", "use tokio::sync::mpsc;"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unsafe_is_found_outside_the_kernel_room() {
        assert_eq!(
            found("crates/stage/src/ping.rs", "    unsafe { libc::close(0) };").len(),
            1
        );
        assert_eq!(
            found("crates/kernel/src/netns.rs", "    unsafe { libc::close(0) };"),
            Vec::<String>::new()
        );
        assert_eq!(
            found("crates/stage/src/ping.rs", "fn unsafe_settings() {}"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_model_reads_no_clock_but_its_tests_may() {
        let text = "fn f() { Instant::now(); }\n\n#[cfg(test)]\nmod tests {\n    use std::thread;\n}\n";
        assert_eq!(
            found("crates/model/src/ipam.rs", text),
            [
                "crates/model/src/ipam.rs:1: \"Instant::now\": the model is pure: no files, no clock, no threads, no output"
            ]
        );
    }

    #[test]
    fn the_product_starts_no_programs() {
        assert_eq!(
            found("crates/kernel/src/nft.rs", "Command::new(\"nft\")").len(),
            1
        );
        assert_eq!(
            found("crates/stage/src/links.rs", "Command::new(\"ip\")").len(),
            1
        );
        assert_eq!(
            found("crates/stage/src/namespace.rs", "Command::new(\"cat\")"),
            Vec::<String>::new()
        );
        assert_eq!(
            found("crates/kernel/tests/attach.rs", "Command::new(\"ip\")"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn strings_are_no_comments_and_comments_are_no_code() {
        let text = "let a = \"http://x\\\"//y\"; let b = r#\"//\"#; // gone\n/* gone\n/* too */ gone */ let c = '\"';\n";
        assert_eq!(
            without_comments(text),
            "let a = \"http://x\\\"//y\"; let b = r#\"//\"#; \n\n let c = '\"';\n"
        );
    }
}
