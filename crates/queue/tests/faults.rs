//! A queue whose files cannot be read or written: built only with the feature `faults`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use mishap::{Effect, Kind, Strike, arm, disarm};
use queue::{Deletion, Queue};

/// errno-base.h: EIO, EMFILE, ENOSPC.
const ERRORS: [i32; 3] = [5, 24, 28];

fn empty() -> (tempfile::TempDir, Queue) {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::beside(&folder.path().join("run/workloadnet.sock"));
    (folder, queue)
}

fn strike(nth: u32, errno: i32) -> Strike {
    Strike {
        kind: Kind::File,
        nth,
        effect: Effect::Errno(errno),
    }
}

#[test]
fn a_deletion_that_cannot_be_read_for_now_waits_and_is_not_put_aside() {
    let (_folder, queue) = empty();
    queue.put(&Deletion::new("", "web", "eth0", "")).unwrap();
    for errno in ERRORS {
        // The list, then the file.
        arm(&[strike(2, errno)]);
        let found = queue.look().unwrap();
        disarm();
        assert_eq!(
            (found.waiting.len(), found.unreadable.len(), found.failed.len()),
            (0, 0, 1),
            "{errno}"
        );
        assert_eq!(queue.look().unwrap().waiting.len(), 1, "{errno}");
    }
}

#[test]
fn a_deletion_that_cannot_be_put_leaves_nothing_and_says_so() {
    for nth in 1.. {
        let (_folder, queue) = empty();
        arm(&[strike(nth, 28)]);
        let put = queue.put(&Deletion::new("", "web", "eth0", ""));
        let calls = disarm().len();
        if (calls as u32) < nth {
            put.unwrap();
            assert!(nth > 5, "{nth}");
            return;
        }
        assert_eq!(put.unwrap_err().raw_os_error(), Some(28), "{nth}");
        let names = std::fs::read_dir(queue.folder()).map_or(0, Iterator::count);
        assert_eq!(names, 0, "{nth}");
    }
}
