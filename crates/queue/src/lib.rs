//! Deletions that wait for the daemon: a runtime's teardown must not fail because the daemon is down, so whoever cannot
//! reach it leaves a file, and the daemon takes the workload off before it serves anybody else.
//!
//! ```text
//!  Detach, not answered --> .NAME.PID.N --fsync, rename--> NAME --(daemon: detached)--> removed
//!                                                            '---(cannot be read)-----> NAME.unreadable
//! ```
//! The folder is `queue` beside the socket (mode 0700). There is one file for a key (mode 0600), so that a teardown which is
//! repeated does not fill the disk. Whoever leaves another one adds its namespace to those that the file names, because all
//! were told that theirs will be done; one that names none asks for all of them. The file's name is the first 16 bytes, in
//! lower-case hex, of SHA-256 over owner, workload id and interface name, each of them behind its length as a u64 in network
//! order. Its content is [`Deletion`] as JSON. Clients in other languages write the same: what is here is the format.
//!
//! Whoever attaches a key settles its file first: else a deletion from before would be carried out after.

use mishap::{Kind, at};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of the content's form.
const VERSION: u32 = 1;
/// Hex digits of a file's name.
const DIGITS: usize = 32;
/// A file beyond this was not written by one of us: a path has 4095 bytes at most, six times as many when each is escaped, and
/// there are [`NAMESPACES`] of them.
const LIMIT: u64 = 512 << 10;
/// A temporary file of this age belongs to nobody any more.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Namespaces that wait for one key: a runtime that leaves more has lost its way.
const NAMESPACES: usize = 16;
/// How long somebody else's turn is waited for, and how often it is looked whether it is over.
const TURN: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(5);
/// Temporary names that are tried: processes in other PID namespaces may have the same id.
const TRIES: u32 = 64;

/// A detach that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    version: u32,
    /// As in DetachRequest.
    pub owner: String,
    /// As in DetachRequest.
    pub workload_id: String,
    /// As in DetachRequest.
    pub if_name: String,
    /// As in DetachRequest; empty where the caller named none.
    netns_path: String,
    /// Of later deletions, other ones each; not written where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    further_netns_paths: Vec<String>,
}

impl Deletion {
    /// Of a key, in a namespace if the caller names one.
    pub fn new(owner: &str, workload_id: &str, if_name: &str, netns_path: &str) -> Self {
        Self {
            version: VERSION,
            owner: owner.to_owned(),
            workload_id: workload_id.to_owned(),
            if_name: if_name.to_owned(),
            netns_path: netns_path.to_owned(),
            further_netns_paths: Vec::new(),
        }
    }

    /// Of which namespaces: an empty text alone means any.
    pub fn netns_paths(&self) -> impl Iterator<Item = &str> {
        [&self.netns_path]
            .into_iter()
            .chain(&self.further_netns_paths)
            .map(String::as_str)
    }

    fn is_of_any(&self) -> bool {
        self.netns_path.is_empty()
    }

    /// What this and one that waits for the same key ask for together.
    fn and(mut self, waiting: &Self) -> io::Result<Self> {
        if self.is_of_any() || waiting.is_of_any() {
            self.netns_path.clear();
            self.further_netns_paths.clear();
            return Ok(self);
        }
        let new = std::mem::replace(&mut self.netns_path, waiting.netns_path.clone());
        self.further_netns_paths.clone_from(&waiting.further_netns_paths);
        if !self.netns_paths().any(|path| path == new) {
            self.further_netns_paths.push(new);
        }
        if self.further_netns_paths.len() >= NAMESPACES {
            return Err(io::Error::other(format!(
                "deletions of {NAMESPACES} namespaces wait for this key already"
            )));
        }
        Ok(self)
    }

    /// The name of the key's file.
    pub fn file_name(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.owner, &self.workload_id, &self.if_name] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut name = String::with_capacity(DIGITS);
        for byte in hash.finalize().iter().take(DIGITS / 2) {
            let _ = write!(name, "{byte:02x}");
        }
        name
    }

    /// The file's content.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and a number have a form in JSON")
    }

    /// Reads a file's content. Names beyond ours are ignored, other versions refused.
    pub fn from_json(content: &[u8]) -> io::Result<Self> {
        let deletion: Self = serde_json::from_slice(content)?;
        if deletion.version != VERSION {
            return Err(io::Error::other(format!(
                "its version is {} and not {VERSION}",
                deletion.version
            )));
        }
        let namespaces = deletion.netns_paths().count();
        if namespaces > NAMESPACES {
            return Err(io::Error::other(format!(
                "it names {namespaces} namespaces, and {NAMESPACES} are the most"
            )));
        }
        Ok(deletion)
    }
}

/// The folder of a daemon.
#[derive(Debug, Clone)]
pub struct Queue {
    folder: PathBuf,
}

/// A file of the queue as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it asks for.
    pub deletion: Deletion,
    content: Vec<u8>,
}

/// What the folder was found to hold.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of the files' names.
    pub waiting: Vec<Waiting>,
    /// Files that are none of ours, and why.
    pub unreadable: Vec<(String, io::Error)>,
    /// Files that could not be read this time: they may hold a deletion all the same.
    pub failed: Vec<(String, io::Error)>,
}

impl Queue {
    /// Of the daemon on a socket.
    pub fn beside(socket: &Path) -> Self {
        Self {
            folder: socket.parent().unwrap_or(Path::new("/")).join("queue"),
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves a deletion. When this returns, it outlives a crash of the machine, where the file system does.
    pub fn put(&self, deletion: &Deletion) -> io::Result<()> {
        // The folder above is the daemon's own, and readable as the daemon would make it.
        at(Kind::File, "make the queue's folder")?;
        if let Some(above) = self.folder.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(above)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let _turn = self.turn()?;
        let deletion = match self.find(deletion) {
            Ok(Some(waiting)) => deletion.clone().and(&waiting.deletion)?,
            // That says nothing of what waits.
            Err(error) if error.raw_os_error().is_some() => return Err(error),
            // What is none of ours is put aside by the daemon, and asks for nothing.
            Ok(None) | Err(_) => deletion.clone(),
        };
        let name = deletion.file_name();
        let (temporary, mut file) = self.temporary(&name)?;
        let written = at(Kind::File, "write a deletion")
            .and_then(|()| file.write_all(&deletion.to_json()))
            .and_then(|()| at(Kind::File, "sync a deletion"))
            .and_then(|()| file.sync_all())
            .and_then(|()| at(Kind::File, "rename a deletion"))
            .and_then(|()| fs::rename(&temporary, self.folder.join(&name)));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Whoever has it reads what waits and replaces or removes it, and nobody else does meanwhile: flock(2) of the folder. One
    /// that is frozen with it is not waited for.
    fn turn(&self) -> io::Result<File> {
        at(Kind::File, "lock the queue")?;
        let folder = File::open(&self.folder)?;
        let began = Instant::now();
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(folder),
                Err(TryLockError::WouldBlock) if began.elapsed() < TURN => std::thread::park_timeout(STEP),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn temporary(&self, name: &str) -> io::Result<(PathBuf, File)> {
        at(Kind::File, "open a new deletion")?;
        let own = std::process::id();
        let mut tries = 0;
        loop {
            let path = self.folder.join(format!(".{name}.{own}.{tries}"));
            let mut options = OpenOptions::new();
            match options.write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
                opened => return opened.map(|file| (path, file)),
            }
        }
    }

    /// The deletion that waits for a deletion's key.
    pub fn find(&self, deletion: &Deletion) -> io::Result<Option<Waiting>> {
        match self.read(&deletion.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// All that waits. A folder that is not there holds nothing.
    pub fn look(&self) -> io::Result<Found> {
        at(Kind::File, "list the queue")?;
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            match name.to_str() {
                Some(name) if is_ours(name) => names.push(name.to_owned()),
                Some(name) if name.starts_with('.') => self.remove_abandoned(name),
                _ => {}
            }
        }
        names.sort();
        let mut found = Found::default();
        for name in names {
            match self.read(&name) {
                Ok(waiting) => found.waiting.push(waiting),
                // It was settled meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Too many open files, a disk that fails: that says nothing of what the file holds.
                Err(error) if error.raw_os_error().is_some() => found.failed.push((name, error)),
                Err(error) => found.unreadable.push((name, error)),
            }
        }
        Ok(found)
    }

    /// Removes what was carried out, unless something else has taken its place. Already gone is an answer.
    pub fn remove(&self, done: &Waiting) -> io::Result<()> {
        let name = done.deletion.file_name();
        let _turn = match self.turn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            turn => turn?,
        };
        let outcome = match self.content(&name) {
            Ok(content) if content == done.content => {
                at(Kind::File, "remove a deletion").and_then(|()| fs::remove_file(self.folder.join(name)))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Gives a file that cannot be used another name, so that it is looked at by people and not again; `None` where one that can
    /// has taken its place since.
    pub fn put_aside(
        &self,
        name: &str,
        can_be_used: impl Fn(&Deletion) -> bool,
    ) -> io::Result<Option<PathBuf>> {
        at(Kind::File, "put a deletion aside")?;
        let _turn = self.turn()?;
        match self.read(name) {
            Ok(waiting) if can_be_used(&waiting.deletion) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.raw_os_error().is_some() => return Err(error),
            Err(_) => {}
        }
        let aside = self.folder.join(format!("{name}.unreadable"));
        fs::rename(self.folder.join(name), &aside)?;
        Ok(Some(aside))
    }

    fn read(&self, name: &str) -> io::Result<Waiting> {
        let content = self.content(name)?;
        let deletion = Deletion::from_json(&content)?;
        if deletion.file_name() != name {
            return Err(io::Error::other("its name is another key's"));
        }
        Ok(Waiting { deletion, content })
    }

    fn content(&self, name: &str) -> io::Result<Vec<u8>> {
        at(Kind::File, "read a deletion")?;
        let path = self.folder.join(name);
        // Looked at before it is opened: opening a pipe waits for whoever writes into it.
        let metadata = fs::symlink_metadata(&path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut content = Vec::new();
        File::open(&path)?.take(LIMIT + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LIMIT {
            return Err(io::Error::other(format!("it has more than {LIMIT} bytes")));
        }
        Ok(content)
    }

    fn remove_abandoned(&self, name: impl AsRef<OsStr>) {
        let path = self.folder.join(name.as_ref());
        let age = fs::symlink_metadata(&path)
            .and_then(|found| found.modified())
            .map(|written| written.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(path);
        }
    }
}

fn is_ours(name: &str) -> bool {
    name.len() == DIGITS && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    fn web() -> Deletion {
        Deletion::new("k8s.io", "web-1", "eth0", "/run/netns/web")
    }

    fn empty() -> (tempfile::TempDir, Queue) {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::beside(&folder.path().join("run/workloadnet.sock"));
        (folder, queue)
    }

    fn names(queue: &Queue) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(queue.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Other languages' clients have the same test: this is the format.
    #[test]
    fn a_file_is_as_documented() {
        assert_eq!(web().file_name(), "6eb5b633a5460c5cf6e2459f0a821cb0");
        assert_eq!(
            Deletion::new("", "a", "b", "").file_name(),
            "ac04bda1f8f576498f37b89009e75a08"
        );
        let text = r#"{"version":1,"owner":"k8s.io","workload_id":"web-1","if_name":"eth0","netns_path":"/run/netns/web"}"#;
        assert_eq!(web().to_json(), text.as_bytes());
        assert_eq!(Deletion::from_json(text.as_bytes()).unwrap(), web());
    }

    #[test]
    fn what_is_put_is_found_and_what_is_removed_is_not() {
        let (_folder, queue) = empty();
        assert!(queue.look().unwrap().waiting.is_empty());
        assert_eq!(queue.find(&web()).unwrap(), None);
        queue.put(&web()).unwrap();
        queue.put(&web()).unwrap();
        assert_eq!(names(&queue), [web().file_name()]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(queue.folder()), 0o700);
        assert_eq!(mode(&queue.folder().join(web().file_name())), 0o600);
        let found = queue.look().unwrap().waiting;
        assert_eq!(found.len(), 1);
        assert_eq!(queue.find(&web()).unwrap(), Some(found[0].clone()));
        queue.remove(&found[0]).unwrap();
        queue.remove(&found[0]).unwrap();
        assert_eq!(names(&queue), Vec::<String>::new());
    }

    #[test]
    fn a_deletion_of_any_namespace_is_not_replaced_by_one_of_a_certain_one() {
        let (_folder, queue) = empty();
        let any = Deletion::new("k8s.io", "web-1", "eth0", "");
        for (put, waits) in [(web(), web()), (any.clone(), any.clone()), (web(), any)] {
            queue.put(&put).unwrap();
            assert_eq!(queue.look().unwrap().waiting[0].deletion, waits);
        }
    }

    #[test]
    fn deletions_of_several_namespaces_wait_all_of_them() {
        let (_folder, queue) = empty();
        let of = |path: &str| Deletion::new("k8s.io", "web-1", "eth0", path);
        let waits = || -> Vec<String> {
            let found = queue.look().unwrap().waiting;
            found[0].deletion.netns_paths().map(str::to_owned).collect()
        };
        for path in ["/a", "/b", "/a", "/b", "/c"] {
            queue.put(&of(path)).unwrap();
        }
        assert_eq!(waits(), ["/a", "/b", "/c"]);
        let text = fs::read_to_string(queue.folder().join(web().file_name())).unwrap();
        assert!(
            text.ends_with(r#""netns_path":"/a","further_netns_paths":["/b","/c"]}"#),
            "{text}"
        );
        for n in 0..NAMESPACES - 3 {
            queue.put(&of(&format!("/{n}"))).unwrap();
        }
        let refused = queue.put(&of("/too/many")).unwrap_err().to_string();
        assert_eq!(refused, "deletions of 16 namespaces wait for this key already");
        assert_eq!(waits().len(), NAMESPACES);
        queue.put(&of("/b")).unwrap();
        queue.put(&of("")).unwrap();
        assert_eq!(waits(), [""]);
    }

    #[test]
    fn deletions_that_are_left_at_once_wait_all_of_them() {
        let (_folder, queue) = empty();
        let paths: Vec<String> = (0..NAMESPACES).map(|n| format!("/{n:02}")).collect();
        std::thread::scope(|scope| {
            for path in &paths {
                let queue = queue.clone();
                scope.spawn(move || {
                    queue
                        .put(&Deletion::new("k8s.io", "web-1", "eth0", path))
                        .unwrap()
                });
            }
        });
        let found = queue.look().unwrap().waiting;
        let mut all: Vec<&str> = found[0].deletion.netns_paths().collect();
        all.sort_unstable();
        assert_eq!(all, paths);
    }

    #[test]
    fn the_longest_deletions_can_be_read() {
        let (_folder, queue) = empty();
        let path = |n: usize| format!("/{n:02}{}", "\u{1}".repeat(4092));
        for n in 0..NAMESPACES {
            queue
                .put(&Deletion::new(&"o".repeat(70), "web-1", "eth0", &path(n)))
                .unwrap();
        }
        let found = queue.look().unwrap();
        assert_eq!(found.waiting[0].deletion.netns_paths().count(), NAMESPACES);
    }

    #[test]
    fn what_took_the_place_of_what_was_carried_out_stays() {
        let (_folder, queue) = empty();
        queue.put(&web()).unwrap();
        let first = queue.find(&web()).unwrap().unwrap();
        let second = Deletion::new("k8s.io", "web-1", "eth0", "");
        queue.put(&second).unwrap();
        queue.remove(&first).unwrap();
        assert_eq!(queue.look().unwrap().waiting[0].deletion, second);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_does_not_hide_the_rest() {
        let (_folder, queue) = empty();
        queue.put(&web()).unwrap();
        let path = |digit: char| queue.folder().join(String::from(digit).repeat(DIGITS));
        let whole = web().to_json();
        fs::write(path('0'), &whole[..whole.len() / 2]).unwrap();
        fs::write(path('1'), &whole).unwrap();
        fs::write(path('2'), vec![b'x'; LIMIT as usize + 1]).unwrap();
        fs::create_dir(path('3')).unwrap();
        no_file(&path('5'));
        let newer = String::from_utf8(whole).unwrap().replacen("1", "2", 1);
        fs::write(path('6'), newer).unwrap();
        let found = queue.look().unwrap();
        assert_eq!(found.waiting.len(), 1);
        let why: Vec<String> = found.unreadable.iter().map(|(_, why)| why.to_string()).collect();
        assert!(why[0].contains("EOF"), "{why:?}");
        assert_eq!(why[1], "its name is another key's");
        assert_eq!(why[2], format!("it has more than {LIMIT} bytes"));
        assert_eq!((&*why[3], &*why[4]), ("it is not a file", "it is not a file"));
        assert_eq!(why[5], "its version is 2 and not 1");
        for (name, _) in found.unreadable {
            queue.put_aside(&name, |_| true).unwrap();
        }
        assert_eq!(queue.look().unwrap().unreadable.len(), 0);
    }

    /// A symbolic link to itself can no more be opened than a pipe that nobody writes into.
    fn no_file(path: &Path) {
        std::os::unix::fs::symlink(path, path).unwrap();
    }

    #[test]
    fn temporary_files_are_left_alone_until_they_are_nobodys() {
        let (_folder, queue) = empty();
        queue.put(&web()).unwrap();
        let (fresh, old) = (queue.folder().join(".fresh"), queue.folder().join(".old"));
        fs::write(&fresh, "").unwrap();
        let file = File::create(&old).unwrap();
        file.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        assert_eq!(queue.look().unwrap().waiting.len(), 1);
        assert!(fresh.exists() && !old.exists());
    }

    #[test]
    fn what_takes_the_place_of_a_file_that_cannot_be_read_is_not_put_aside_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::beside(&folder.path().join("s"));
        queue.put(&web()).unwrap();
        let name = web().file_name();
        let file = queue.folder().join(&name);
        fs::write(&file, "{").unwrap();
        assert_eq!(queue.look().unwrap().unreadable.len(), 1);
        queue.put(&web()).unwrap();
        assert_eq!(queue.put_aside(&name, |_| true).unwrap(), None);
        assert!(queue.find(&web()).unwrap().is_some());
        fs::write(&file, "{").unwrap();
        assert!(
            queue
                .put_aside(&name, |_| true)
                .unwrap()
                .is_some_and(|aside| aside.exists())
        );
        assert!(!file.exists());
    }
}
