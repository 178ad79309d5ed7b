//! The listening socket and its locks: one daemon each, nobody's file deleted, its mode. A program of its own, because
//! `listen` sets the umask of its process for a moment.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "socket/files.rs"]
mod files;
#[path = "socket/lock.rs"]
mod lock;
#[path = "socket/log.rs"]
mod log;
#[path = "socket/process.rs"]
mod process;
#[path = "socket/service.rs"]
mod service;

use daemon::lock::file_of;
use daemon::socket::{self, Listening};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// One test at a time has the umask.
static UMASK: Mutex<()> = Mutex::new(());

fn folder() -> (MutexGuard<'static, ()>, TempDir, PathBuf) {
    let turn = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/workloadnet.sock");
    (turn, folder, path)
}

/// Runs to its end, on this thread.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn listen(path: &Path, owner: Option<u32>, group: Option<u32>) -> anyhow::Result<Listening> {
    wait_for(socket::listen(path, owner, group))
}

fn refusal(path: &Path) -> String {
    format!("{:#}", listen(path, None, None).unwrap_err())
}

fn answers(path: &Path, listening: &Listening) -> bool {
    UnixStream::connect(path).is_ok() && listening.listener.accept().is_ok()
}

#[test]
fn the_socket_is_for_owner_and_group_and_its_folder_is_made() {
    let (_turn, _folder, path) = folder();
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let listening = listen(&path, None, None);
    assert_eq!(rustix::process::umask(before), rustix::fs::Mode::empty());
    assert!(answers(&path, &listening.unwrap()));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o755));
}

#[test]
fn the_socket_gets_the_owner_and_group_of_the_settings() {
    let (_turn, _folder, path) = folder();
    // What anyone may give a file to: oneself. Root may give it to others, too.
    let (uid, gid) = match rustix::process::geteuid().is_root() {
        true => (12_345, 23_456),
        false => (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
    };
    let _listening = listen(&path, Some(uid), Some(gid)).unwrap();
    let found = path.metadata().unwrap();
    assert_eq!((found.uid(), found.gid()), (uid, gid));
}

#[test]
fn a_second_daemon_is_refused_by_the_lock_and_the_first_goes_on() {
    let (_turn, _folder, path) = folder();
    let first = listen(&path, None, None).unwrap();
    let text = refusal(&path);
    let (socket, lock) = (path.display(), file_of(&path));
    assert_eq!(
        text,
        format!("another daemon serves {socket} (it holds {})", lock.display())
    );
    assert!(answers(&path, &first));
    drop(first);
    let next = listen(&path, None, None).unwrap();
    assert!(answers(&path, &next));
}

#[test]
fn only_the_daemons_user_can_open_the_lock() {
    let (_turn, _folder, path) = folder();
    let lock = file_of(&path);
    let mode = || lock.metadata().unwrap().permissions().mode() & 0o7777;
    drop(listen(&path, None, None).unwrap());
    assert_eq!(mode(), 0o600);
    // One that is there already, from an older version or by hand.
    std::fs::set_permissions(&lock, Permissions::from_mode(0o644)).unwrap();
    drop(listen(&path, None, None).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn the_socket_of_a_daemon_that_is_gone_is_replaced() {
    let (_turn, _folder, path) = folder();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).is_err());
    let listening = listen(&path, None, None).unwrap();
    assert!(answers(&path, &listening));
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let (_turn, _folder, path) = folder();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // The service manager's, say.
    let theirs = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let text = refusal(&path);
        assert!(text.contains("is in the way: somebody listens there"), "{text}");
    }
    assert!(UnixStream::connect(&path).is_ok() && theirs.accept().is_ok());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let (_turn, _folder, path) = folder();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let precious = path.with_file_name("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &path).unwrap();
    assert!(refusal(&path).ends_with("it is not a socket, and is left alone"));
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&precious, &path).unwrap();
    assert!(refusal(&path).ends_with("it is not a socket, and is left alone"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn what_cannot_be_is_said_with_its_path() {
    let (_turn, folder, _) = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let text = refusal(&file.join("workloadnet.sock"));
    assert!(
        text.starts_with("cannot make the folder of ") && text.contains("/file/"),
        "{text}"
    );
    let long = folder.path().join("x".repeat(120));
    let text = refusal(&long);
    assert!(text.starts_with("cannot listen on "), "{text}");
}
