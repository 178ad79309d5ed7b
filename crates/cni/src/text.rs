//! What the specification allows in names (SPEC.md, sections 1 and 2).

/// A container's id or a network's name: alphanumerics, and from the second character on `.`, `_` and `-`.
pub(crate) fn is_name(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && text.bytes().all(inside)
}

/// An interface's name: what the kernel takes.
pub(crate) fn is_interface(text: &str) -> bool {
    let is_short = (1..=15).contains(&text.len());
    is_short
        && !matches!(text, "." | "..")
        && !text.contains(['/', ':'])
        && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_specification_says() {
        for name in ["a", "default-t21665", "11edfa", "a.b_c-d"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", ".a", "_a", "a b", "a/b", "ä", "a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["eth0", "0123456789abcde"] {
            assert!(is_interface(name), "{name}");
        }
        for name in ["", ".", "..", "0123456789abcdef", "a/b", "a:b", "a b", "a\t"] {
            assert!(!is_interface(name), "{name:?}");
        }
    }
}
