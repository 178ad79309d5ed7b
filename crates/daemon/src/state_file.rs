//! What the kernel cannot hold and nothing depends on: labels for people, addresses that cool down or are held, and what was told
//! of prefixes: the state file (`network.state` of the settings), written whole and renamed. Lost, torn or garbage, it is as good as empty.

use crate::source::Kind;
use mishap::{Kind as Of, at};
use model::ipam::{Moment, Past};
use model::prefix::{Prefix, PrefixError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const VERSION: u32 = 1;
/// One each microsecond, for a hundred thousand years.
const MOST_GENERATIONS: u64 = u64::MAX >> 2;
/// A file beyond this was not written by us.
const LIMIT: u64 = 64 << 20;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    version: u32,
    /// By host link.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    cooling: Vec<Cooling>,
    /// What somebody had when it was written: where nobody has it later, it was freed since.
    #[serde(default)]
    held: Vec<IpAddr>,
    /// What was freed before is not known: milliseconds since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown: Option<u64>,
    /// As they were.
    #[serde(default)]
    pub prefixes: Remembered,
}

/// Prefixes, so that what drains is known as such, and so that Kubernetes need not be asked first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Who told them.
    pub source: Kind,
    /// How often they had changed.
    generation: u64,
    serving: Vec<Told>,
    draining: Vec<Told>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    prefix: String,
    /// In which it came to serve, or to drain.
    generation: u64,
}

impl Remembered {
    /// Puts it together.
    pub fn new(source: Kind, past: &Past) -> Self {
        let told = |all: &[(Prefix, u64)]| {
            let told = |&(prefix, generation): &(Prefix, u64)| Told {
                prefix: prefix.to_string(),
                generation,
            };
            all.iter().map(told).collect()
        };
        Self {
            source,
            generation: past.generation,
            serving: told(&past.serving),
            draining: told(&past.draining),
        }
    }

    /// As they were; an error where nobody of us wrote that.
    pub fn past(&self) -> Result<Past, String> {
        let told = |all: &[Told]| {
            let told = |told: &Told| Ok((told.prefix.parse()?, told.generation));
            let told: Result<Vec<(Prefix, u64)>, PrefixError> = all.iter().map(told).collect();
            told.map_err(|error| error.to_string())
        };
        let past = Past {
            generation: self.generation,
            serving: told(&self.serving)?,
            draining: told(&self.draining)?,
        };
        if past.generation > MOST_GENERATIONS {
            return Err(format!("nobody has counted {} generations", past.generation));
        }
        let serving: Vec<Prefix> = past.serving.iter().map(|(prefix, _)| *prefix).collect();
        Prefix::servable(&serving).map_err(|error| error.to_string())?;
        Ok(past)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cooling {
    address: IpAddr,
    /// Milliseconds since boot.
    since: u64,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// Of a node that has just come up, or taken away.
    Missing,
    /// In words.
    Unusable(String),
}

impl Default for StateFile {
    fn default() -> Self {
        Self::new(BTreeMap::new(), &[])
    }
}

impl StateFile {
    /// Puts it together.
    pub fn new(labels: BTreeMap<String, BTreeMap<String, String>>, cooling: &[(IpAddr, Moment)]) -> Self {
        let cooling = cooling
            .iter()
            .map(|(address, since)| Cooling {
                address: *address,
                since: millis(*since),
            })
            .collect();
        Self {
            version: VERSION,
            labels,
            cooling,
            held: Vec::new(),
            unknown: None,
            prefixes: Remembered::default(),
        }
    }

    /// What cooled down when it was written.
    pub fn cooling(&self) -> impl Iterator<Item = (IpAddr, Moment)> + '_ {
        self.cooling
            .iter()
            .map(|c| (c.address, Moment(Duration::from_millis(c.since))))
    }

    /// What somebody had when it was written.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.held.iter().copied()
    }

    /// With these addresses as those in use; see [`Self::held`].
    #[must_use]
    pub fn with_held(self, held: Vec<IpAddr>) -> Self {
        Self { held, ..self }
    }

    /// The moment before which nobody knows what was freed, as long as that matters.
    pub fn unknown_before(&self) -> Option<Moment> {
        self.unknown.map(|since| Moment(Duration::from_millis(since)))
    }

    /// With this as [`Self::unknown_before`]; `None`: all that was freed is known.
    #[must_use]
    pub fn with_unknown(self, before: Option<Moment>) -> Self {
        Self {
            unknown: before.map(millis),
            ..self
        }
    }

    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, Lost> {
        Self::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Lost::Missing,
            _ => Lost::Unusable(format!("{} is not used: {error}", path.display())),
        })
    }

    fn read(path: &Path) -> io::Result<Self> {
        Self::from_json(&crate::whole::read(path, LIMIT)?)
    }

    /// Reads the file's content.
    pub fn from_json(content: &[u8]) -> io::Result<Self> {
        let mut state_file: Self = serde_json::from_slice(content)?;
        if state_file.version != VERSION {
            return Err(io::Error::other(format!(
                "its version is {} and not {VERSION}",
                state_file.version
            )));
        }
        state_file.prefixes.past().map_err(io::Error::other)?;
        // What would begin to cool down only later would do so for as long.
        let now = millis(crate::clock::now());
        for cooling in &mut state_file.cooling {
            cooling.since = cooling.since.min(now);
        }
        state_file.unknown = state_file.unknown.map(|since| since.min(now));
        Ok(state_file)
    }

    /// Writes the file whole, beside itself, and renames it. The name is always the same: what is left of a crash meanwhile
    /// is gone with the next time, and only one at a time may do so.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        at(Of::File, "make the folder of the state file")?;
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        let beside = beside(path);
        at(Of::File, "remove what was left beside the state file")?;
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = self
            .write(&beside)
            .and_then(|()| at(Of::File, "rename the state file"))
            .and_then(|()| std::fs::rename(&beside, path));
        if written.is_err() {
            // A full disk gets its room back; the first error is the one that counts.
            drop(std::fs::remove_file(&beside));
        }
        written
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        at(Of::File, "open the state file anew")?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        at(Of::File, "write the state file")?;
        let mut file = BufWriter::new(file);
        self.to_json(&mut file)?;
        at(Of::File, "flush the state file")?;
        file.flush()
    }

    /// Writes the file's content.
    pub fn to_json(&self, out: impl io::Write) -> io::Result<()> {
        Ok(serde_json::to_writer(out, self)?)
    }
}

/// Since boot.
fn millis(moment: Moment) -> u64 {
    u64::try_from(moment.0.as_millis()).unwrap_or(u64::MAX)
}

fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    beside.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::fs::File;

    #[test]
    fn what_is_saved_is_loaded_and_anything_else_is_as_good_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(StateFile::load(&path), Err(Lost::Missing));

        let labels = BTreeMap::from([(
            "wk0".to_owned(),
            BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        )]);
        let written = StateFile::new(
            labels,
            &[("10.77.0.5".parse().unwrap(), Moment(Duration::from_millis(1234)))],
        );
        written.save(&path).unwrap();
        assert_eq!(StateFile::load(&path), Ok(written.clone()));

        let mut written = written;
        let past = Past {
            generation: 3,
            serving: vec![("10.77.0.0/24".parse().unwrap(), 1)],
            draining: vec![("fd77::/64".parse().unwrap(), 3)],
        };
        written.prefixes = Remembered::new(Kind::File, &past);
        written.save(&path).unwrap();
        assert_eq!(StateFile::load(&path), Ok(written.clone()));
        assert_eq!(written.prefixes.past(), Ok(past));

        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            unusable(&path);
        }
        std::fs::write(&path, with_prefixes("1", "10.77.0.0/24")).unwrap();
        StateFile::load(&path).unwrap();
        for garbage in [
            "\0\0\0",
            "[]",
            "{\"version\":2,\"labels\":{},\"cooling\":[]}",
            "{\"version\":1,\"labels\":{},\"cooling\":[{\"address\":\"10.77.0.256\",\"since\":1}]}",
            "{\"version\":1,\"labels\":{},\"cooling\":[{\"address\":\"10.77.0.5\",\"since\":-1}]}",
            &with_prefixes("18446744073709551615", "10.77.0.0/24"),
            &with_prefixes("-1", "10.77.0.0/24"),
            &with_prefixes("1", "10.77.0.0/33"),
            &with_prefixes("1", "10.77.0.0/24\",\"generation\":1},{\"prefix\":\"10.77.0.0/16"),
            &"[".repeat(100_000),
        ] {
            std::fs::write(&path, garbage).unwrap();
            unusable(&path);
        }
    }

    fn unusable(path: &Path) -> String {
        match StateFile::load(path) {
            Err(Lost::Unusable(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    fn with_prefixes(generation: &str, prefix: &str) -> String {
        let told = format!("[{{\"prefix\":\"{prefix}\",\"generation\":1}}]");
        format!(
            "{{\"version\":1,\"labels\":{{}},\"cooling\":[],\"prefixes\":{{\"source\":\"api\",\"generation\":{generation},\"serving\":{told},\"draining\":[]}}}}"
        )
    }

    fn cooling_since(moment: Moment) -> StateFile {
        StateFile::new(BTreeMap::new(), &[("10.77.0.5".parse().unwrap(), moment)])
    }

    #[test]
    fn what_is_left_of_a_crash_while_it_was_saved_goes_with_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let precious = folder.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        // Half a file, and what somebody put there so that we write over another one.
        for put in [
            |beside: &Path, _: &Path| std::fs::write(beside, "{\"version\":1,\"la"),
            |beside: &Path, precious: &Path| std::os::unix::fs::symlink(precious, beside),
        ] {
            put(&beside(&path), &precious).unwrap();
            cooling_since(Moment(Duration::ZERO)).save(&path).unwrap();
            let mut names: Vec<_> = folder
                .path()
                .read_dir()
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["precious", "state.json"]);
            StateFile::load(&path).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        // The folder is made where it is missing.
        let below = folder.path().join("a/b/state.json");
        StateFile::default().save(&below).unwrap();
        assert!(below.is_file());
        // Where it cannot be renamed, nothing is left either.
        let taken = folder.path().join("folder");
        std::fs::create_dir(&taken).unwrap();
        assert!(StateFile::default().save(&taken).is_err());
        assert!(!beside(&taken).exists());
    }

    #[test]
    fn a_file_that_nobody_of_us_wrote_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let huge = folder.path().join("huge");
        File::create(&huge).unwrap().set_len(LIMIT + 1).unwrap();
        assert!(unusable(&huge).ends_with("it has 67108865 bytes, 67108864 is the most"));
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        for other in [fifo.as_path(), folder.path()] {
            assert!(unusable(other).ends_with("it is not a regular file"));
        }
    }

    #[test]
    fn what_is_said_to_cool_down_in_the_future_cools_down_from_now_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let since_boot = || millis(crate::clock::now());
        let before = since_boot();
        for since in [Duration::from_secs(u64::MAX / 1000), Duration::MAX] {
            let state_file = cooling_since(Moment(since)).with_unknown(Some(Moment(since)));
            state_file.save(&path).unwrap();
            let state_file = StateFile::load(&path).unwrap();
            let (_, freed) = state_file.cooling().next().unwrap();
            for since in [millis(freed), millis(state_file.unknown_before().unwrap())] {
                assert!((before..=since_boot()).contains(&since), "{since}");
            }
        }
    }
}
