//! Children: started, waited for, and what they cost.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::error::{Context, Error, Result};

/// Bytes of standard error that are told.
const SAID_BYTES_MAX: u64 = 2000;
/// How long far ends may take to end after the near end has.
const SETTLE: Duration = Duration::from_secs(5);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM end the run with everything cleared away, and orphans of children become children.
pub(crate) fn set_up() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, flag.clone()).context(|| format!("catch signal {signal}"))?;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context(|| "adopt orphans".to_owned())
}

/// Whether to end.
pub(crate) fn check_interrupted() -> Result<()> {
    match INTERRUPTED.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Interrupted),
        _ => Ok(()),
    }
}

/// A command line as a person reads it.
pub(crate) fn shown(argv: &[OsString]) -> String {
    argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// `argv` as a command with nothing to read.
pub(crate) fn command<S: AsRef<OsStr>>(argv: &[S]) -> Command {
    let mut words = argv.iter();
    let mut command = Command::new(words.next().map_or(OsStr::new("false"), AsRef::as_ref));
    command.args(words).stdin(Stdio::null());
    command
}

/// Words of any kind, as an argument vector.
pub(crate) fn argv<S: Into<OsString>>(words: impl IntoIterator<Item = S>) -> Vec<OsString> {
    words.into_iter().map(Into::into).collect()
}

/// Runs something that prepares; it must succeed. Returns its standard output.
pub(crate) fn prepare(argv: &[OsString]) -> Result<String> {
    check_interrupted()?;
    let output = command(argv).output().context(|| format!("start `{}`", shown(argv)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    check_interrupted()?;
    Err(Error::Command {
        command: shown(argv),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Whether a program is in `PATH` or where daemons are.
pub(crate) fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

/// How a timed run went.
pub(crate) struct Ended {
    /// Seconds from before it was started until it was waited for.
    pub(crate) wall_s: f64,
    pub(crate) status: ExitStatus,
    /// The end of its standard error.
    pub(crate) said: String,
    /// It was killed because it took too long.
    pub(crate) timed_out: bool,
}

/// Runs `command` to its end, or kills it after `limit`.
pub(crate) fn timed(mut command: Command, limit: Duration) -> Result<Ended> {
    check_interrupted()?;
    let mut said = tempfile()?;
    let stderr = said.try_clone().context(|| "duplicate a descriptor".to_owned())?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let what = format!("start `{}`", shown(&argv(std::iter::once(command.get_program()).chain(command.get_args()))));
    let started = Instant::now();
    let mut child = command.spawn().context(|| what)?;
    let pid = Pid::from_child(&child);
    let (done, ended) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        // Until then the child is not waited for, so its number is its own.
        let late = matches!(ended.recv_timeout(limit), Err(mpsc::RecvTimeoutError::Timeout));
        if late {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        late
    });
    let status = child.wait().context(|| "wait for a child".to_owned())?;
    let wall_s = started.elapsed().as_secs_f64();
    drop(done);
    let timed_out = guard.join().unwrap_or(false);
    check_interrupted()?;
    let length = said.seek(SeekFrom::End(0)).context(|| "read standard error".to_owned())?;
    said.seek(SeekFrom::Start(length.saturating_sub(SAID_BYTES_MAX))).context(|| "read standard error".to_owned())?;
    let mut bytes = Vec::new();
    said.read_to_end(&mut bytes).context(|| "read standard error".to_owned())?;
    Ok(Ended { wall_s, status, said: String::from_utf8_lossy(&bytes).trim().to_owned(), timed_out })
}

/// A file without a name.
fn tempfile() -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    let dir = std::env::temp_dir();
    rustix::fs::open(&dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .context(|| format!("make a file in {}", dir.display()))
}

/// A server that ends with this value.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts one; its standard output and error go to `log`.
    pub(crate) fn start(mut command: Command, log: File) -> Result<Server> {
        let what = format!("start {}", command.get_program().to_string_lossy());
        let copy = log.try_clone().context(|| "duplicate a descriptor".to_owned())?;
        let child = command.stdin(Stdio::null()).stdout(copy).stderr(log).spawn().context(|| what)?;
        Ok(Server { child })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first: sshd and rsync then take their children along.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        for _ in 0..20 {
            if !self.is_running() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time in seconds.
#[derive(Clone, Copy, Default, PartialEq, Debug, serde::Serialize)]
pub(crate) struct Cpu {
    /// In user mode.
    pub(crate) user_s: f64,
    /// In the kernel.
    pub(crate) system_s: f64,
}

impl Cpu {
    /// Both together.
    pub(crate) fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }

    /// From `before` to this.
    pub(crate) fn since(self, before: Cpu) -> Cpu {
        Cpu { user_s: self.user_s - before.user_s, system_s: self.system_s - before.system_s }
    }
}

/// The fields of `/proc/PID/stat` after the name, from field 3 (state) on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Time of the process itself and of its children that were waited for (proc(5): fields 14 to 17, in ticks).
fn times(pid: u32) -> (Cpu, Cpu) {
    let fields = stat(pid).unwrap_or_default();
    let tick_s = 1.0 / rustix::param::clock_ticks_per_second() as f64;
    let at =
        |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0) as f64 * tick_s;
    (Cpu { user_s: at(14), system_s: at(15) }, Cpu { user_s: at(16), system_s: at(17) })
}

/// What all children that ended have cost this process so far.
pub(crate) fn children_cpu() -> Cpu {
    times(std::process::id()).1
}

/// What this process has cost itself so far.
pub(crate) fn own_cpu() -> Cpu {
    times(std::process::id()).0
}

/// What servers and their children that ended have cost so far.
pub(crate) fn servers_cpu(servers: &[&Server]) -> Cpu {
    servers.iter().map(|server| times(server.pid())).fold(Cpu::default(), |sum, (own, children)| Cpu {
        user_s: sum.user_s + own.user_s + children.user_s,
        system_s: sum.system_s + own.system_s + children.system_s,
    })
}

/// All processes beneath `roots`, these left out: process and parent.
fn beneath(roots: &[u32]) -> Vec<(u32, u32)> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?)))
        .collect();
    let mut found: Vec<(u32, u32)> = Vec::new();
    let mut from = 0;
    let mut parents = roots.to_vec();
    while let Some(parent) = parents.get(from).copied() {
        from += 1;
        for &(pid, its_parent) in &all {
            if its_parent == parent && !parents.contains(&pid) {
                parents.push(pid);
                found.push((pid, parent));
            }
        }
    }
    found
}

/// Waits until nothing but `servers` is left of this process's descendants, so that all that was spent has been
/// counted; says what is left if that takes too long.
pub(crate) fn settle(servers: &[&Server]) -> Option<String> {
    let own = std::process::id();
    let kept: Vec<u32> = servers.iter().map(|server| server.pid()).collect();
    let started = Instant::now();
    loop {
        let mut left: Vec<u32> = Vec::new();
        for (pid, parent) in beneath(&[own]) {
            if kept.contains(&pid) {
                continue;
            }
            // An orphan that came to us: nobody else waits for it.
            let reaped = parent == own
                && Pid::from_raw(pid.cast_signed())
                    .is_some_and(|pid| matches!(rustix::process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))));
            if !reaped {
                left.push(pid);
            }
        }
        if left.is_empty() {
            return None;
        }
        if started.elapsed() > SETTLE {
            let names = left.iter().map(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("{} ({pid})", name.trim())
            });
            return Some(names.collect::<Vec<_>>().join(", "));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_tells_code_and_what_was_said() {
        let ended = timed(command(&["sh", "-c", "echo wrong >&2; exit 3"]), Duration::from_secs(60)).unwrap();
        assert_eq!((ended.status.code(), ended.said.as_str(), ended.timed_out), (Some(3), "wrong", false));
    }

    #[test]
    fn a_run_that_never_ends_is_killed() {
        let ended = timed(command(&["sleep", "1000"]), Duration::from_millis(20)).unwrap();
        assert!(ended.timed_out && !ended.status.success());
    }

    #[test]
    fn the_time_of_children_is_counted() {
        let before = children_cpu();
        let code = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        timed(command(&["sh", "-c", code]), Duration::from_secs(60)).unwrap();
        assert!(children_cpu().since(before).total_s() > 0.0);
    }

    #[test]
    fn a_failed_preparation_is_an_error_with_its_reason() {
        let error = prepare(&argv(["sh", "-c", "echo because >&2; exit 1"])).unwrap_err();
        assert!(error.to_string().contains("because"));
    }
}
