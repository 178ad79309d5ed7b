//! A room: mounts and processes of their own, in a network namespace of the stage.
//!
//! /etc, /var and /opt are the machine's with a layer above that takes what is written; /run is empty. The room's first
//! process waits for its input to end, which it does when the test ends, however that comes to be; the kernel then ends all
//! the others and undoes the mounts. Only control groups would be left, so all containers go below one of the room's own.

use stage::Namespace;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// `/proc` is the machine's until it is mounted anew, and `read` is no process of its own: the number that it reads is the
/// one by which the test knows the room. The shell waits for everybody, as a first process has to.
const SET_UP: &str = r#"
set -e
read -r pid rest </proc/self/stat
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs room /run
for folder in etc var opt; do
    mkdir "$1/$folder" "$1/$folder.work"
    mount -t overlay room -o "lowerdir=/$folder,upperdir=$1/$folder,workdir=$1/$folder.work" "/$folder"
done
# An overlay cannot be the upper layer of another one, which is what images are unpacked to.
for folder in containerd containers; do
    mkdir -p "$1/$folder" "/var/lib/$folder"
    mount --bind "$1/$folder" "/var/lib/$folder"
done
rm -rf /etc/cni
echo "$pid"
exec 3<&0
cat <&3 >/dev/null &
wait
"#;

pub(crate) struct Room {
    folder: TempDir,
    holder: Child,
    /// Of its first process, as the test's own namespace counts.
    pid: u32,
    /// Below which control group its containers are.
    cgroup: String,
    /// Where programs are looked for.
    path: String,
    /// Whether programs that stay are traced.
    is_traced: bool,
}

impl Room {
    pub(crate) fn new(network: &Namespace) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::Builder::new().prefix("wk").tempdir().unwrap();
        let mut unshare = Command::new("unshare");
        unshare
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                SET_UP,
                "sh",
            ])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut holder = network.within(|| unshare.spawn()).unwrap().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = line.trim().parse();
        let pid =
            pid.unwrap_or_else(|_| panic!("this machine lets root make no room of mounts and processes"));
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            folder,
            holder,
            pid,
            cgroup: format!("workloadnet-{}-{number}", std::process::id()),
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            is_traced: false,
        }
    }

    /// A folder that has the same path inside and outside.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// By which path the test reaches a file of the room.
    pub(crate) fn reach(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// The control group for everything that clients start, without a slash at its beginning.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Programs of this folder come before the machine's.
    pub(crate) fn prefer(&mut self, folder: &Path) {
        self.path = format!("{}:{}", folder.display(), self.path);
    }

    /// Writes down from here on what is executed by each program that stays, and by all that it starts.
    pub(crate) fn trace(&mut self) {
        self.is_traced = true;
    }

    /// The programs of all that was traced, by the last parts of the paths that were given to the kernel.
    pub(crate) fn executed(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.folder()).unwrap().flatten();
        let traces = files
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|end| end == "trace"));
        traces
            .flat_map(|path| executed(&fs::read_to_string(path).unwrap()))
            .collect()
    }

    /// Writes a file of the room.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.reach(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A program inside.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.pid.to_string(),
                "--mount",
                "--pid",
                "--net",
                "--",
            ])
            .args(words)
            .current_dir("/")
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/root")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a program to its end, which has to be a good one; what it said.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(
            output.status.success(),
            "{}: {}\n{}{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a program that stays, with its log in a file.
    pub(crate) fn start(&self, name: &str, words: &[&str]) -> Running {
        let number = self.folder().join(format!("{name}.pid"));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(name))
            .unwrap();
        let mut line = vec![
            "sh",
            "-c",
            "echo $$ > \"$0\" && exec \"$@\"",
            number.to_str().unwrap(),
        ];
        line.extend(words);
        let trace = self.folder().join(format!("{name}.trace"));
        if self.is_traced {
            // Only execve(2) and execveat(2) stop whoever calls them, so that nothing else takes longer.
            let strace = [
                "strace",
                "--follow-forks",
                "--seccomp-bpf",
                "--trace=execve,execveat",
                "--string-limit=4096",
                "--output-append-mode",
                "--output",
                trace.to_str().unwrap(),
                "--",
            ];
            line.splice(0..0, strace);
        }
        let child = self
            .command(&line)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child, number }
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&self, mut running: Running) {
        let number = fs::read_to_string(&running.number).unwrap();
        self.run(&["kill", "-KILL", number.trim()]);
        running.child.wait().unwrap();
    }

    /// Where the log of a program is that was started by this name.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.log"))
    }

    /// Every control group of the room, deepest first, in each of the machine's hierarchies.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let roots = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, kind) = (words.next()?, words.next()?);
            kind.starts_with("cgroup")
                .then(|| Path::new(path).join(&self.cgroup))
        });
        let mut found = Vec::new();
        let mut open: Vec<PathBuf> = roots.collect();
        while let Some(folder) = open.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            open.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.is_dir()),
            );
            found.push(folder);
        }
        found.reverse();
        found
    }
}

/// What a trace says was executed, or was to be: a program that is not there has been asked for all the same. One that was
/// given by its open file has no path, but what it calls itself.
fn executed(trace: &str) -> BTreeSet<String> {
    let call = |line: &str| {
        let (_, arguments) = line.split_once(" execve")?;
        let mut texts = arguments.split('"').skip(1).step_by(2);
        let path = texts.find(|text| !text.is_empty())?;
        path.rsplit('/').next().map(str::to_owned)
    };
    trace.lines().filter_map(call).collect()
}

impl Drop for Room {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut logs: Vec<_> = fs::read_dir(self.folder.path())
                .into_iter()
                .flatten()
                .flatten()
                .collect();
            logs.sort_by_key(fs::DirEntry::file_name);
            for path in logs.iter().map(fs::DirEntry::path) {
                if path.extension().is_some_and(|end| end == "log") {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    let last = lines[lines.len().saturating_sub(60)..].join("\n");
                    eprintln!("--- end of {} ---\n{last}", path.display());
                }
            }
        }
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        for cgroup in self.cgroups() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// A program that stays. Ends with its room at the latest.
pub(crate) struct Running {
    child: Child,
    /// The file with its number inside the room.
    number: PathBuf,
}

impl Running {
    /// Whether it has ended, against what was meant.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}
