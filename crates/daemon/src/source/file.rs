//! Prefixes from a file: TOML with one list, `prefixes = ["10.77.3.0/24", "fd77:3::/64"]`. However it is cut while it is
//! written, what is left of it is no such list.

use super::watched;
use crate::desk::Desk;
use model::datapath::Datapath;
use model::prefix::Prefix;
use serde::Deserialize;
use std::io;
use std::path::Path;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    prefixes: Vec<String>,
}

/// Reads a text.
pub fn parse(text: &str) -> Result<Vec<Prefix>, String> {
    let form: Form = toml::from_str(text).map_err(|error| in_a_line(&error.to_string()))?;
    form.prefixes
        .iter()
        .enumerate()
        .map(|(n, text)| text.parse().map_err(|error| format!("prefixes[{n}]: {error}")))
        .collect()
}

/// Place and reason, without the picture between them: it is shown where each line is a condition.
fn in_a_line(error: &str) -> String {
    let lines = error.trim_end().lines().filter(|line| !line.contains('|'));
    lines.collect::<Vec<_>>().join(": ")
}

/// Tells the desk what the file says, from now on.
pub fn follow<D: Datapath>(path: &Path, desk: Arc<Desk<D>>) -> io::Result<()> {
    let shown = path.display().to_string();
    watched::follow(path, "prefixes file", move |content| {
        let said = content.map_err(str::to_owned).and_then(|text| {
            let prefixes = parse(text).map_err(|why| format!("{shown}: {why}"))?;
            desk.set_prefixes(&prefixes)
                .map_err(|error| format!("{shown}: {error}"))
        });
        if let Err(why) = said {
            desk.source_fails(why);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_anywhere_is_no_list() {
        let text = "# of rack 3\nprefixes = [\n  \"10.77.3.0/24\",\n  \"fd77:3::/64\",\n]\n";
        let whole = parse(text).unwrap();
        assert_eq!(whole.len(), 2);
        for cut in 0..text.len() - 2 {
            assert!(parse(&text[..cut]).is_err(), "{:?}", &text[..cut]);
        }
        assert_eq!(parse(&text[..text.len() - 1]), Ok(whole));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("prefix = []", "unknown field `prefix`"),
            (
                "prefixes = [\"10.0.0.0/24\", \"10.0.0.0/33\"]",
                "prefixes[1]: \"10.0.0.0/33\" is not a prefix",
            ),
            (
                "prefixes = 3",
                "line 1, column 12: invalid type: integer `3`, expected a sequence",
            ),
        ] {
            let why = parse(text).unwrap_err();
            assert_eq!(why.lines().count(), 1, "{why}");
            assert!(why.contains(expected), "{why}");
        }
    }
}
