//! Running the program under test, with a time limit on everything: a hang is a failure, not a wait.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// What a run may take unless told otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// The program under test: the crate's binary, or the one that `XFER_TEST_BIN` names. A program called `rsync` is
/// run without the subcommand: with it the harness itself is checked.
pub fn binary() -> PathBuf {
    std::env::var_os("XFER_TEST_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_xfer")), PathBuf::from)
}

/// Whether the harness is being checked with rsync.
pub fn is_rsync() -> bool {
    binary().file_name() == Some(OsStr::new("rsync"))
}

/// True, with a note, where the harness is being checked with rsync and the promise at hand is xfer's alone.
pub fn only_xfer(promise: &str) -> bool {
    if is_rsync() {
        eprintln!("rsync does not promise: {promise}");
    }
    is_rsync()
}

/// A command to come.
pub struct Call {
    command: Command,
    shown: Vec<OsString>,
    limit: Duration,
}

/// `xfer sync …`.
pub fn sync<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Call {
    // xfer compares nanoseconds by default, rsync whole seconds.
    Call::new(binary()).args([if is_rsync() { "--modify-window=-1" } else { "sync" }]).args(args)
}

/// `xfer …`, any other command.
pub fn xfer<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Call {
    Call::new(binary()).args(args)
}

/// `rsync …`, the oracle.
pub fn rsync<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Call {
    super::need("rsync", "rsync");
    Call::new("rsync").args(args)
}

impl Call {
    /// Any program.
    pub fn new(program: impl AsRef<OsStr>) -> Call {
        let mut command = Command::new(program.as_ref());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that a time limit ends remote shells and far ends too.
        command.process_group(0).env("LC_ALL", "C").env_remove("RSYNC_RSH").env_remove("RSYNC_OLD_ARGS");
        Call { command, shown: vec![program.as_ref().to_owned()], limit: LIMIT }
    }

    /// Appends arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Call {
        for arg in args {
            self.shown.push(arg.as_ref().to_owned());
            self.command.arg(arg);
        }
        self
    }

    /// Working directory.
    pub fn dir(mut self, dir: &Path) -> Call {
        self.command.current_dir(dir);
        self
    }

    /// Environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Call {
        self.command.env(name, value);
        self
    }

    /// Standard input, from a file.
    pub fn stdin(mut self, path: &Path) -> Call {
        self.command.stdin(std::fs::File::open(path).unwrap());
        self
    }

    /// Time limit.
    pub fn limit(mut self, limit: Duration) -> Call {
        self.limit = limit;
        self
    }

    /// The words, to be run by a wrapper such as `strace` or `setpriv`.
    pub fn words(&self) -> &[OsString] {
        &self.shown
    }

    /// The same call, run by `wrapper`.
    pub fn under<S: AsRef<OsStr>>(self, wrapper: impl IntoIterator<Item = S>) -> Call {
        let mut wrapper = wrapper.into_iter();
        let mut call = Call::new(wrapper.next().unwrap()).args(wrapper).args(&self.shown);
        call.limit = self.limit;
        if let Some(dir) = self.command.get_current_dir() {
            call.command.current_dir(dir);
        }
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => call.command.env(name, value),
                None => call.command.env_remove(name),
            };
        }
        call
    }

    /// Starts it.
    pub fn spawn(mut self) -> Running {
        let shown = self.shown.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ");
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        Running { child, stdout, stderr, limit: self.limit, started: Instant::now(), shown }
    }

    /// Runs it to its end; panics, ending the whole group, when it takes too long.
    pub fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Runs it and asserts the exit code.
    pub fn expect(self, code: i32) -> Output {
        self.run().expect(code)
    }
}

fn drain(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// A command under way.
pub struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    limit: Duration,
    started: Instant,
    shown: String,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it, and it alone, a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process(pid_of(self.child.id()), signal);
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until `condition` holds; panics when the command ends or the limit passes first.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        while !condition() {
            if self.ended() {
                panic!("ended before {what}: {}", self.shown);
            }
            assert!(self.started.elapsed() < self.limit, "waited in vain for {what}: {}", self.shown);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end, looking at `look` every few milliseconds.
    pub fn wait_looking(mut self, mut look: impl FnMut(u32)) -> Output {
        let mut pause = Duration::from_micros(300);
        let status = loop {
            look(self.child.id());
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > self.limit {
                let _ = rustix::process::kill_process_group(pid_of(self.child.id()), Signal::KILL);
                let _ = self.child.wait();
                let (out, err) = (self.stdout.join().unwrap(), self.stderr.join().unwrap());
                panic!(
                    "took more than {:?}: {}\nstdout: {}\nstderr: {}",
                    self.limit,
                    self.shown,
                    tail(&out),
                    tail(&err)
                );
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        let elapsed = self.started.elapsed();
        Output {
            status,
            stdout: self.stdout.join().unwrap(),
            stderr: self.stderr.join().unwrap(),
            elapsed,
            shown: self.shown,
        }
    }

    /// Waits for the end.
    pub fn wait(self) -> Output {
        self.wait_looking(|_| {})
    }
}

fn pid_of(id: u32) -> Pid {
    Pid::from_raw(id as i32).unwrap()
}

/// Sends a signal to a process by number.
pub fn signal_process(id: u32, signal: Signal) {
    let _ = rustix::process::kill_process(pid_of(id), signal);
}

/// What a run left.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub elapsed: Duration,
    shown: String,
}

impl Output {
    /// Exit code, or 128 and the signal as a shell tells it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Asserts the exit code.
    pub fn expect(self, code: i32) -> Output {
        assert!(self.code() == code, "expected exit code {code}\n{}", self.describe());
        self
    }

    /// Everything, for a failure's text.
    pub fn describe(&self) -> String {
        format!(
            "exit code {} after {:?}: {}\nstdout: {}\nstderr: {}",
            self.code(),
            self.elapsed,
            self.shown,
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }

    /// stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts that stderr speaks of all of `words` (without regard to case).
    pub fn says(self, words: &[&str]) -> Output {
        let err = self.err().to_lowercase();
        for word in words {
            assert!(err.contains(&word.to_lowercase()), "stderr should say {word:?}\n{}", self.describe());
        }
        self
    }

    /// Lines of stdout, sorted: the order of parallel work is nobody's promise.
    pub fn sorted_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.out().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn tail(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(6000);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

/// A process and what `/proc` tells of it.
#[derive(Debug, Clone)]
pub struct Process {
    pub id: u32,
    pub parent: u32,
    pub command: String,
    pub peak_kib: u64,
}

/// All processes that descend from `root`, itself included.
pub fn family(root: u32) -> Vec<Process> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(process) = process(id) {
            all.push(process);
        }
    }
    let mut family: Vec<Process> = all.iter().filter(|process| process.id == root).cloned().collect();
    let mut next = 0;
    while next < family.len() {
        let parent = family[next].id;
        family.extend(all.iter().filter(|process| process.parent == parent).cloned());
        next += 1;
    }
    family
}

/// One process; `None` when it is gone.
pub fn process(id: u32) -> Option<Process> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
    };
    let command = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
    Some(Process {
        id,
        parent: field("PPid:")?.parse().ok()?,
        command: String::from_utf8_lossy(&command).replace('\0', " "),
        peak_kib: field("VmHWM:").and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}

/// All processes of the machine whose command line holds `part`: for far ends that a real sshd started.
pub fn processes_with(part: &str) -> Vec<Process> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .filter_map(process)
        .filter(|process| process.command.contains(part))
        .collect()
}

/// The call as user and group 65534, of a copy of the program in `temp`: a build directory may be closed to others.
pub fn as_nobody(call: Call, temp: &super::Temp) -> Call {
    super::need_root("becomes another user");
    super::need("setpriv", "util-linux");
    super::disk::chmod(temp.path(), 0o755);
    let copy = temp.join(binary().file_name().unwrap());
    if !copy.exists() {
        std::fs::copy(binary(), &copy).unwrap();
    }
    let mut moved = Call::new(copy).args(&call.shown[1..]);
    moved.limit = call.limit;
    if let Some(dir) = call.command.get_current_dir() {
        moved.command.current_dir(dir);
    }
    moved.under(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]).env("HOME", "/nonexistent")
}
