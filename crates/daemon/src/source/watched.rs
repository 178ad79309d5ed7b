//! A file whose content is followed: replaced by a rename, written in place, swapped below a symbolic link (as a
//! Kubernetes ConfigMap is), deleted and back. Notifications say when to look, a slow look finds what they lost.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes; a longer file was not meant.
const LIMIT: u64 = 16 << 20;
/// Nobody has touched the file for so long: whoever wrote it is done. The first look waits for it, too: a list of peers that is
/// cut between two of them is a list.
const SETTLE: Duration = Duration::from_millis(100);
/// A file that is written all the time is read all the same after this.
const RESTLESS: Duration = Duration::from_secs(2);
/// How often it is looked at where nothing was notified.
pub const ROUND: Duration = Duration::from_secs(10);
/// Symbolic links that are followed, as the kernel does (path_resolution(7)).
const LINKS: usize = 40;

/// What a file says, or why it cannot be read.
pub type Content = Result<String, String>;

/// A file that is followed.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    round: Duration,
    told: Option<Content>,
    notifier: Option<OwnedFd>,
}

impl Watched {
    /// Follows a file, which need not be there yet, and looks at it at least every `round`.
    pub fn new(path: &Path, round: Duration) -> Self {
        Self {
            path: path.to_path_buf(),
            round,
            told: None,
            notifier: None,
        }
    }

    /// What the file says once that differs from what was returned last; the first time, what it says. Blocks.
    pub fn changed(&mut self) -> Content {
        loop {
            if let Some(content) = self.look(self.round) {
                return content;
            }
        }
    }

    /// As [`Self::changed`], but no longer than about a time; `None`: all is as it was.
    pub fn look(&mut self, limit: Duration) -> Option<Content> {
        // Before the file is read, so that nothing is missed in between.
        self.subscribe();
        let mut content = read(&self.path);
        if self.told.as_ref() == Some(&content) {
            if !self.stirs(limit) {
                return None;
            }
            // What was watched may have been replaced.
            self.subscribe();
            content = read(&self.path);
        }
        let begin = Instant::now();
        while begin.elapsed() < RESTLESS {
            let stirred = self.stirs(SETTLE);
            self.subscribe();
            let again = read(&self.path);
            let is_settled = !stirred && again == content;
            content = again;
            if is_settled {
                break;
            }
        }
        if self.told.as_ref() == Some(&content) {
            return None;
        }
        self.told = Some(content.clone());
        Some(content)
    }

    /// Watches every folder that the way to the file leads through at its end: what replaces the file, or a symbolic link
    /// on the way, happens there.
    fn subscribe(&mut self) {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        self.notifier = inotify::init(flags).ok();
        let Some(notifier) = &self.notifier else { return };
        let touched = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB;
        for folder in folders(&self.path) {
            if let Err(error) = inotify::add_watch(notifier, &folder, touched) {
                tracing::debug!(folder = %folder.display(), %error, "not watched");
            }
        }
    }

    /// Whether something stirs within a time.
    fn stirs(&self, limit: Duration) -> bool {
        let Some(notifier) = &self.notifier else {
            let limit = Timespec::try_from(limit.min(SETTLE * 10)).ok();
            let _ = poll(&mut [], limit.as_ref());
            return false;
        };
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            });
            match poll(&mut [PollFd::new(notifier, PollFlags::IN)], Some(&left)) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return false,
            }
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = Reader::new(notifier, &mut buffer);
            let mut any = false;
            while events.next().is_ok() {
                any = true;
            }
            if any {
                return true;
            }
        }
    }
}

/// The folders of the path and of everything that it links to.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    let mut todo = vec![path.to_path_buf()];
    for _ in 0..LINKS {
        let Some(path) = todo.pop() else { break };
        // A link may be any part of the path: `..data/prefixes.toml`, where `..data` is one.
        for part in path.ancestors() {
            let Some(folder) = part.parent() else { break };
            if let Ok(target) = std::fs::read_link(part) {
                let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
                todo.push(folder.join(target).join(rest));
                if !all.iter().any(|known| known == folder) {
                    all.push(folder.to_path_buf());
                }
            }
        }
        if let Some(folder) = path.parent()
            && !all.iter().any(|known| known == folder)
        {
            all.push(folder.to_path_buf());
        }
    }
    all
}

fn read(path: &Path) -> Content {
    crate::whole::read_text(path, LIMIT)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// Follows a file on a thread of its own, as long as the process lives.
pub fn follow(
    path: &Path,
    name: &str,
    mut tell: impl FnMut(Result<&str, &str>) + Send + 'static,
) -> io::Result<()> {
    let mut file = Watched::new(path, ROUND);
    crate::desk::vital::spawn(name.to_owned(), move || {
        loop {
            match &file.changed() {
                Ok(text) => tell(Ok(text)),
                Err(why) => tell(Err(why)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Longer than any test: what is found is found by a notification.
    const NEVER: Duration = Duration::from_secs(3600);

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }
    }

    #[test]
    fn a_file_that_comes_is_replaced_goes_and_returns_is_told_each_time() {
        let place = Place::new();
        let path = place.at("file");
        let mut watched = Watched::new(&path, NEVER);
        let missing = watched.changed().unwrap_err();
        assert!(missing.ends_with("file cannot be read: No such file or directory (os error 2)"));
        fs::write(&path, "one").unwrap();
        assert_eq!(watched.changed(), Ok("one".to_owned()));
        fs::write(place.at("beside"), "two").unwrap();
        fs::rename(place.at("beside"), &path).unwrap();
        assert_eq!(watched.changed(), Ok("two".to_owned()));
        fs::write(&path, "three").unwrap();
        assert_eq!(watched.changed(), Ok("three".to_owned()));
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.changed(), Err(missing));
        fs::write(&path, "three").unwrap();
        assert_eq!(watched.changed(), Ok("three".to_owned()));
    }

    #[test]
    fn what_a_config_map_swaps_is_told() {
        let place = Place::new();
        for (folder, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(place.at(folder)).unwrap();
            fs::write(place.at(folder).join("file"), text).unwrap();
        }
        symlink("..1", place.at("..data")).unwrap();
        symlink("..data/file", place.at("file")).unwrap();
        let mut watched = Watched::new(&place.at("file"), NEVER);
        assert_eq!(watched.changed(), Ok("one".to_owned()));
        symlink("..2", place.at("..new")).unwrap();
        fs::rename(place.at("..new"), place.at("..data")).unwrap();
        assert_eq!(watched.changed(), Ok("two".to_owned()));
        fs::write(place.at("..2/file"), "three").unwrap();
        assert_eq!(watched.changed(), Ok("three".to_owned()));
    }

    #[test]
    fn a_link_into_another_folder_is_followed() {
        let (place, other) = (Place::new(), Place::new());
        fs::write(other.at("real"), "one").unwrap();
        symlink(other.at("real"), place.at("file")).unwrap();
        let mut watched = Watched::new(&place.at("file"), NEVER);
        assert_eq!(watched.changed(), Ok("one".to_owned()));
        fs::write(other.at("new"), "two").unwrap();
        fs::rename(other.at("new"), other.at("real")).unwrap();
        assert_eq!(watched.changed(), Ok("two".to_owned()));
    }

    #[test]
    fn what_is_back_as_it_was_when_it_is_looked_at_is_not_told() {
        let place = Place::new();
        let path = place.at("file");
        fs::write(&path, "one").unwrap();
        let mut watched = Watched::new(&path, NEVER);
        assert_eq!(watched.changed(), Ok("one".to_owned()));
        fs::write(&path, "two").unwrap();
        fs::write(&path, "one").unwrap();
        assert_eq!(watched.look(Duration::ZERO), None);
    }

    /// Two halves of a file, the other one written as soon as somebody has looked at the first.
    #[test]
    fn what_is_being_written_while_it_is_looked_at_for_the_first_time_is_told_whole() {
        let begin = Instant::now();
        loop {
            let place = Place::new();
            let path = place.at("file");
            fs::write(&path, "one").unwrap();
            let looked = inotify::init(CreateFlags::CLOEXEC).unwrap();
            inotify::add_watch(&looked, &path, WatchFlags::CLOSE_NOWRITE).unwrap();
            let start = Instant::now();
            let writer = std::thread::spawn(move || {
                let mut buffer = [MaybeUninit::uninit(); 4096];
                Reader::new(looked, &mut buffer).next().unwrap();
                fs::write(&path, "one and two").unwrap();
                start.elapsed()
            });
            let told = Watched::new(&place.at("file"), NEVER).changed();
            // A writer that was held up for longer is done, as far as anybody can tell.
            if writer.join().unwrap() < SETTLE {
                assert_eq!(told, Ok("one and two".to_owned()));
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "the machine is too busy"
            );
        }
    }

    #[test]
    fn what_no_notification_tells_is_found_by_the_round() {
        let place = Place::new();
        let path = place.at("file");
        fs::write(&path, "one").unwrap();
        let mut watched = Watched::new(&path, Duration::from_millis(10));
        assert_eq!(watched.changed(), Ok("one".to_owned()));
        // Written while nobody watches.
        watched.notifier = None;
        fs::write(&path, "two").unwrap();
        assert_eq!(watched.changed(), Ok("two".to_owned()));
    }

    #[test]
    fn what_is_no_text_file_is_a_reason_and_does_not_block() {
        let place = Place::new();
        let fifo = place.at("fifo");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut watched = Watched::new(&fifo, NEVER);
        assert!(
            watched
                .changed()
                .unwrap_err()
                .ends_with("it is not a regular file")
        );
        fs::write(place.at("bytes"), [0xff, 0xfe]).unwrap();
        let mut watched = Watched::new(&place.at("bytes"), NEVER);
        assert!(watched.changed().unwrap_err().contains("valid UTF-8"));
        symlink("loop", place.at("loop")).unwrap();
        assert!(Watched::new(&place.at("loop"), NEVER).changed().is_err());
    }
}
