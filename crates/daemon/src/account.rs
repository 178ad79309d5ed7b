//! Users and groups as settings name them: by id, or by a name in /etc/passwd and /etc/group. Directories of other kinds
//! (nsswitch.conf(5)) are not asked: the daemon starts before any network is there.

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected an id such as 0 or a name such as \"root\"")]
pub enum Account {
    /// By its id.
    Id(u32),
    /// By its name.
    Name(String),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

impl Account {
    /// The user's id.
    pub fn uid(&self) -> anyhow::Result<u32> {
        self.id_in(Path::new("/etc/passwd"))
    }

    /// The group's id.
    pub fn gid(&self) -> anyhow::Result<u32> {
        self.id_in(Path::new("/etc/group"))
    }

    fn id_in(&self, path: &Path) -> anyhow::Result<u32> {
        let name = match self {
            Self::Id(id) => return Ok(*id),
            Self::Name(name) => name,
        };
        let shown = path.display();
        // Other lines may have comments in any encoding.
        let text = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        match id_of(name, &String::from_utf8_lossy(&text)) {
            Some(id) => Ok(id),
            None => bail!("{shown} has no such name"),
        }
    }
}

/// The third field of the line whose first is the name (passwd(5), group(5)).
fn id_of(name: &str, text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_either_file() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nrooty:x:7:7::/:/bin/sh\nbad\nodd:x:many:1::/:\n";
        assert_eq!(id_of("root", passwd), Some(0));
        assert_eq!(id_of("rooty", passwd), Some(7));
        assert_eq!(id_of("adm", "root:x:0:\nadm:x:4:syslog,me\n"), Some(4));
        for name in ["bad", "odd", "roo", "", "x"] {
            assert_eq!(id_of(name, passwd), None, "{name}");
        }
    }

    #[test]
    fn root_is_0_everywhere() {
        let root = Account::Name("root".to_owned());
        assert_eq!((root.uid().unwrap(), root.gid().unwrap()), (0, 0));
        assert_eq!(Account::Id(4_000_000_000).uid().unwrap(), 4_000_000_000);
    }
}
