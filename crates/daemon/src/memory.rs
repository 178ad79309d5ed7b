//! What the kernel cannot hold and nothing depends on: labels for people, and addresses that cool down. One file below
//! /run, written whole and renamed; lost, torn or garbage it is as good as empty.

use model::ipam::Moment;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

const VERSION: u32 = 1;
/// A file beyond this was not written by us.
const LIMIT: u64 = 64 << 20;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    version: u32,
    /// By host link.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    cooling: Vec<Cooling>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cooling {
    address: IpAddr,
    /// Milliseconds since boot.
    since: u64,
}

impl Memory {
    /// Puts it together.
    pub fn new(labels: BTreeMap<String, BTreeMap<String, String>>, cooling: &[(IpAddr, Moment)]) -> Self {
        let millis = |moment: &Moment| u64::try_from(moment.0.as_millis()).unwrap_or(u64::MAX);
        let cooling = cooling
            .iter()
            .map(|(address, since)| Cooling {
                address: *address,
                since: millis(since),
            })
            .collect();
        Self {
            version: VERSION,
            labels,
            cooling,
        }
    }

    /// What cooled down when it was written.
    pub fn cooling(&self) -> impl Iterator<Item = (IpAddr, Moment)> + '_ {
        self.cooling
            .iter()
            .map(|c| (c.address, Moment(Duration::from_millis(c.since))))
    }

    /// Reads the file; why it is empty where it cannot be used.
    pub fn load(path: &Path) -> (Self, Option<String>) {
        match Self::read(path) {
            Ok(memory) => (memory, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Self::default(), None),
            Err(error) => (
                Self::default(),
                Some(format!("{} is not used: {error}", path.display())),
            ),
        }
    }

    fn read(path: &Path) -> io::Result<Self> {
        let length = std::fs::metadata(path)?.len();
        if length > LIMIT {
            return Err(io::Error::other(format!("it has {length} bytes")));
        }
        let memory: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        if memory.version != VERSION {
            return Err(io::Error::other(format!(
                "its version is {} and not {VERSION}",
                memory.version
            )));
        }
        Ok(memory)
    }

    /// Writes the file whole, beside itself, and renames it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.persist(path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_anything_else_is_as_good_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(Memory::load(&path), (Memory::default(), None));

        let labels = BTreeMap::from([(
            "wk0".to_owned(),
            BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        )]);
        let written = Memory::new(
            labels,
            &[("10.77.0.5".parse().unwrap(), Moment(Duration::from_millis(1234)))],
        );
        written.save(&path).unwrap();
        assert_eq!(Memory::load(&path), (written.clone(), None));

        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (memory, why) = Memory::load(&path);
            assert_eq!(memory, Memory::default());
            assert!(why.is_some());
        }
        for garbage in ["\0\0\0", "[]", "{\"version\":2,\"labels\":{},\"cooling\":[]}"] {
            std::fs::write(&path, garbage).unwrap();
            assert_eq!(Memory::load(&path).0, Memory::default());
        }
    }
}
