//! The remote shell: `COMMAND [-l USER] HOST XFER ARGS…`, called as rsync calls it.
//!
//! No path and nothing else of the user's data goes through the command line: it all goes over the link, so nothing
//! has to be quoted for whatever shell runs at the far end.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{LinkError, LinkReader};
use crate::limits;
use crate::model::display_bytes;

/// Ignores the interrupt, then becomes the remote shell. A Ctrl-C at the terminal goes to the whole foreground group;
/// with the signal ignored across `exec`, the link outlives it and the far side can be ended in order. A group of its
/// own would do as well, but from the background a password prompt could not read the terminal.
const IGNORE_INTERRUPT: &str = r#"trap "" INT; exec "$@""#;

/// Exit status by which POSIX shells say that a command was not found.
const STATUS_NOT_FOUND: i32 = 127;
/// Exit status by which POSIX shells say that a command could not be executed.
const STATUS_NOT_EXECUTABLE: i32 = 126;
/// Exit status by which `ssh` reports a failure of its own.
const STATUS_SHELL_FAILED: i32 = 255;

/// Why the far end could not be started, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// `-e` or `XFER_RSH` has no words, or a quote without its twin.
    #[error("'{text}' is not a command: empty, or a quote is not closed")]
    BadCommand {
        /// As given, escaped.
        text: String,
    },
    /// User or host begins with `-`, or the host is empty.
    #[error("'{part}' is not a host or user name")]
    BadName {
        /// As given, escaped.
        part: String,
    },
    /// The remote shell's program is missing on this host.
    #[error("the remote shell '{command}' was not found on this host: install it, or name another with -e")]
    NoCommand {
        /// First word of the command, escaped.
        command: String,
    },
    /// The process could not be made.
    #[error("cannot start the remote shell '{command}'")]
    Spawn {
        /// First word of the command, escaped.
        command: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The far end has no `xfer`.
    #[error("xfer was not found on {host}: install it there or name it with --xfer-path")]
    NotFound {
        /// Host, escaped.
        host: String,
    },
    /// The far end has an `xfer` that cannot be executed there.
    #[error(
        "xfer cannot be executed on {host}: check its permissions and architecture, or name another with --xfer-path"
    )]
    NotExecutable {
        /// Host, escaped.
        host: String,
    },
    /// `ssh` ended with 255; it told why on standard error.
    #[error("the remote shell could not connect to {host}, or lost its connection")]
    NotConnected {
        /// Host, escaped.
        host: String,
    },
    /// Something else than `xfer` wrote to standard output.
    #[error(
        "{host} printed '{line}' before xfer could begin: a start-up file of the login shell (such as .bashrc) writes \
         to standard output; make it silent for sessions that are not interactive"
    )]
    UnexpectedOutput {
        /// Host, escaped.
        host: String,
        /// First line, escaped.
        line: String,
    },
    /// The far end ended by itself.
    #[error("xfer on {host} ended early with exit status {status}")]
    Ended {
        /// Host, escaped.
        host: String,
        /// Its exit status.
        status: i32,
    },
    /// The remote shell was killed.
    #[error("the remote shell to {host} was ended by signal {signal}")]
    Killed {
        /// Host, escaped.
        host: String,
        /// Number of the signal.
        signal: i32,
    },
    /// The link failed, and the far end's exit status does not say why.
    #[error("the connection to {host} failed")]
    Link {
        /// Host, escaped.
        host: String,
        /// What happened on the link.
        #[source]
        source: LinkError,
    },
}

/// How another host is reached: `-e COMMAND` and `--xfer-path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteShell {
    /// The command's words; never empty.
    command: Vec<Vec<u8>>,
    /// What runs there. One argument even where it has several words, as `--rsync-path` is: the far end's shell splits.
    xfer_path: Vec<u8>,
}

impl Default for RemoteShell {
    fn default() -> RemoteShell {
        RemoteShell { command: vec![b"ssh".to_vec()], xfer_path: b"xfer".to_vec() }
    }
}

impl RemoteShell {
    /// From what the user gave. `command` (`-e`, or else the environment's `XFER_RSH`) is split into words as a shell
    /// would, without expansions; `xfer_path` is passed on unsplit. `None`: `ssh` and `xfer`.
    pub fn new(command: Option<&[u8]>, xfer_path: Option<&[u8]>) -> Result<RemoteShell, ShellError> {
        let mut shell = RemoteShell::default();
        if let Some(command) = command {
            shell.command = split_words(command)
                .filter(|words| words.first().is_some_and(|word| !word.is_empty()))
                .ok_or_else(|| ShellError::BadCommand { text: display_bytes(command) })?;
        }
        if let Some(path) = xfer_path {
            shell.xfer_path = path.to_vec();
        }
        Ok(shell)
    }

    /// The argument list for a host, program first.
    pub fn argv(&self, user: Option<&[u8]>, host: &[u8], args: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut argv = self.command.clone();
        if let Some(user) = user {
            argv.push(b"-l".to_vec());
            argv.push(user.to_vec());
        }
        argv.push(host.to_vec());
        argv.push(self.xfer_path.clone());
        argv.extend(args.iter().map(|arg| arg.to_vec()));
        argv
    }

    /// Starts `xfer ARGS` on `host`. Standard error stays the caller's, so that the shell's own messages and prompts
    /// are seen. Does not wait for anything: whether it worked shows in [`ShellChild::expect_greeting`].
    pub fn spawn(&self, user: Option<&[u8]>, host: &[u8], args: &[&[u8]]) -> Result<ShellLink, ShellError> {
        for part in [Some(host), user].into_iter().flatten() {
            if !is_name(part) {
                return Err(ShellError::BadName { part: display_bytes(part) });
            }
        }
        let argv = self.argv(user, host, args);
        let program = OsStr::from_bytes(&argv[0]);
        let command = display_bytes(&argv[0]);
        // Told apart here: through `sh`, a missing command on this host would look like a missing `xfer` over there.
        if !is_program(program) {
            return Err(ShellError::NoCommand { command });
        }
        let mut child = Command::new("/bin/sh")
            .args(["-c", IGNORE_INTERRUPT, "sh"])
            .args(argv.iter().map(|arg| OsStr::from_bytes(arg)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| ShellError::Spawn { command: command.clone(), source })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            let source = std::io::Error::other("no pipes");
            return Err(ShellError::Spawn { command, source });
        };
        Ok(ShellLink { stdin, stdout, child: ShellChild { child, host: display_bytes(host) } })
    }
}

/// The address that `ssh` would connect to for `host`, by its own configuration (`ssh -G`); `None` where the remote shell
/// is another program, or does not say so soon. Connects to nothing.
pub fn ssh_hostname(shell: &RemoteShell, user: Option<&[u8]>, host: &[u8]) -> Option<String> {
    let program = Path::new(OsStr::from_bytes(shell.command.first()?));
    if program.file_name()? != "ssh" || [Some(host), user].into_iter().flatten().any(|part| !is_name(part)) {
        return None;
    }
    let mut command = Command::new(program);
    command.args(shell.command[1..].iter().map(|word| OsStr::from_bytes(word))).arg("-G");
    if let Some(user) = user {
        command.arg("-l").arg(OsStr::from_bytes(user));
    }
    command.arg(OsStr::from_bytes(host));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut child = ShellChild { child, host: display_bytes(host) };
    let printed = read_soon(child.child.stdout.take()?)?;
    // A failure is told by its status, whatever was printed before.
    if !child.wait(Duration::from_millis(limits::SSH_NAME_TIMEOUT_MS))?.success() {
        return None;
    }
    let text = String::from_utf8(printed).ok()?;
    text.lines().find_map(|line| line.strip_prefix("hostname ")).map(|name| name.trim().to_owned())
}

/// All that is printed, if it ends in time and is not too much.
fn read_soon(stdout: ChildStdout) -> Option<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_millis(limits::SSH_NAME_TIMEOUT_MS);
    let mut reader = LinkReader::new(stdout, Arc::default()).ok()?;
    let mut printed = Vec::new();
    let mut piece = [0; 4096];
    loop {
        reader.set_timeout(Some(deadline.saturating_duration_since(Instant::now())));
        match reader.read_some(&mut piece) {
            Ok(bytes) => printed.extend_from_slice(&piece[..bytes]),
            Err(LinkError::Closed) => return Some(printed),
            Err(_) => return None,
        }
        if printed.len() > limits::SSH_NAME_BYTES_MAX || Instant::now() >= deadline {
            return None;
        }
    }
}

/// Whether a remote shell takes it for a host or a user.
fn is_name(part: &[u8]) -> bool {
    !part.is_empty() && !part.starts_with(b"-")
}

/// Splits bytes into words. Every byte stands for the character of the same number meanwhile, so that names that are
/// not UTF-8 pass unchanged; all bytes with a meaning are ASCII.
fn split_words(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let characters: String = text.iter().map(|&byte| char::from(byte)).collect();
    let words = shell_words::split(&characters).ok()?;
    Some(words.iter().map(|word| word.chars().map(|character| character as u8).collect()).collect())
}

/// Whether `exec` would find this program.
fn is_program(program: &OsStr) -> bool {
    let executable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && !path.is_dir();
    if program.as_bytes().contains(&b'/') {
        return executable(Path::new(program));
    }
    match std::env::var_os("PATH") {
        Some(paths) => std::env::split_paths(&paths).any(|dir| executable(&dir.join(program))),
        // The shell has a default path of its own.
        None => true,
    }
}

/// A far end that was started, with its two pipes.
#[derive(Debug)]
pub struct ShellLink {
    /// What is written here arrives at the far end's standard input.
    pub stdin: ChildStdin,
    /// What the far end writes to its standard output.
    pub stdout: ChildStdout,
    /// The local process.
    pub child: ShellChild,
}

/// The remote shell's local process. Dropping it ends the process.
#[derive(Debug)]
pub struct ShellChild {
    child: Child,
    host: String,
}

impl ShellChild {
    /// Reads the far end's first bytes, which must be `greeting`. Anything else is a login script that prints, told
    /// by its first line; a link that ends is explained by the exit status.
    pub fn expect_greeting(&mut self, reader: &mut LinkReader, greeting: &[u8]) -> Result<(), ShellError> {
        let mut seen = Vec::with_capacity(greeting.len());
        while seen.len() < greeting.len() {
            match next_byte(reader) {
                Ok(byte) => seen.push(byte),
                Err(LinkError::Closed) if !seen.is_empty() => return Err(self.unexpected(&seen)),
                Err(error) => return Err(self.failure(error)),
            }
            if !greeting.starts_with(&seen) {
                self.read_line(reader, &mut seen);
                return Err(self.unexpected(&seen));
            }
        }
        Ok(())
    }

    /// Goes on to the end of the line, as far as it comes soon.
    fn read_line(&self, reader: &mut LinkReader, seen: &mut Vec<u8>) {
        reader.set_timeout(Some(Duration::from_millis(limits::STOP_POLL_MS)));
        while !seen.trim_ascii_start().contains(&b'\n') && seen.len() < limits::UNEXPECTED_OUTPUT_BYTES_MAX {
            match next_byte(reader) {
                Ok(byte) => seen.push(byte),
                Err(_) => break,
            }
        }
    }

    fn unexpected(&self, seen: &[u8]) -> ShellError {
        let line = seen.trim_ascii_start().split(|&byte| byte == b'\n').next().unwrap_or_default();
        ShellError::UnexpectedOutput { host: self.host.clone(), line: display_bytes(line.trim_ascii_end()) }
    }

    /// What lies behind a failed link: waits a moment for the process to end and reads its exit status.
    pub fn failure(&mut self, error: LinkError) -> ShellError {
        let host = self.host.clone();
        if matches!(error, LinkError::Closed)
            && let Some(status) = self.wait(Duration::from_millis(limits::SHELL_EXIT_GRACE_MS))
            && let Some(failure) = explain(status, &host)
        {
            return failure;
        }
        ShellError::Link { host, source: error }
    }

    /// Waits for the end after an orderly finish, with both pipes closed before. An exit status other than 0 is an
    /// error; a process that does not end within `grace` is ended.
    pub fn finish(mut self, grace: Duration) -> Result<(), ShellError> {
        match self.wait(grace) {
            Some(status) => explain(status, &self.host).map_or(Ok(()), Err),
            None => Ok(()),
        }
    }

    /// Waits at most `grace`; `None` when it still runs, or cannot be waited for.
    pub fn wait(&mut self, grace: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        let mut nap = Duration::from_millis(1);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => {}
                Err(_) => return None,
            }
            let left = grace.saturating_sub(started.elapsed());
            if left.is_zero() {
                return None;
            }
            std::thread::sleep(nap.min(left));
            nap = (nap * 2).min(Duration::from_millis(50));
        }
    }

    /// Ends the process: SIGTERM first, so that a password prompt gives the terminal its echo back.
    pub fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        if self.wait(Duration::from_millis(limits::SHELL_EXIT_GRACE_MS)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for ShellChild {
    fn drop(&mut self) {
        self.end();
    }
}

fn next_byte(reader: &mut LinkReader) -> Result<u8, LinkError> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// What an exit status means; `None` for success.
fn explain(status: ExitStatus, host: &str) -> Option<ShellError> {
    let host = host.to_owned();
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(STATUS_NOT_FOUND), _) => Some(ShellError::NotFound { host }),
        (Some(STATUS_NOT_EXECUTABLE), _) => Some(ShellError::NotExecutable { host }),
        (Some(STATUS_SHELL_FAILED), _) => Some(ShellError::NotConnected { host }),
        (Some(status), _) => Some(ShellError::Ended { host, status }),
        (None, signal) => Some(ShellError::Killed { host, signal: signal.unwrap_or_default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use crate::net::LinkWriter;

    const GREETING: &[u8] = b"XFER\x01";
    const SERVE: [&[u8]; 2] = [b"serve", b"--stdio"];

    /// A program in a directory of its own that stands for the remote shell.
    fn fake_shell(script: &str) -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fake shell");
        // Written by another process: a descriptor open for writing here would be inherited by the children of other
        // tests for a moment, and executing the file would fail with ETXTBSY.
        let mut writer = Command::new("tee").arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut writer.stdin.take().unwrap(), format!("#!/bin/sh\n{script}\n").as_bytes())
            .unwrap();
        assert!(writer.wait().unwrap().success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        (dir, format!("'{}'", path.display()).into_bytes())
    }

    /// The far end's answer to a start, seen through a fake shell.
    fn start(script: &str) -> Result<(), ShellError> {
        let (_dir, command) = fake_shell(script);
        let link = RemoteShell::new(Some(&command), None)?.spawn(None, b"h", &SERVE)?;
        let ShellLink { stdin: _stdin, stdout, mut child } = link;
        let mut reader = LinkReader::new(stdout, Arc::default()).unwrap();
        reader.set_timeout(Some(Duration::from_secs(10)));
        child.expect_greeting(&mut reader, GREETING)
    }

    #[test]
    fn words_are_split_as_in_a_shell() {
        let shell = RemoteShell::new(Some(b"ssh -p '2 2' \"a b\" \xff\\ x"), Some(b"sudo -n xfer")).unwrap();
        let expected: [&[u8]; 9] =
            [b"ssh", b"-p", b"2 2", b"a b", b"\xff x", b"h", b"sudo -n xfer", b"serve", b"--stdio"];
        assert_eq!(shell.argv(None, b"h", &SERVE), expected);
        for bad in [&b""[..], b"  ", b"ssh 'x", b"''"] {
            assert!(matches!(RemoteShell::new(Some(bad), None), Err(ShellError::BadCommand { .. })), "{bad:?}");
        }
    }

    /// Runs rsync with the same flags and compares everything up to its own arguments.
    #[test]
    fn the_arguments_are_those_that_rsync_passes() {
        let record = r#"for arg in "$@"; do printf '%s\0' "$arg"; done >"$(dirname "$0")/argv"; exit 1"#;
        for (user, host, target) in
            [(None, "h", "h:p"), (Some("u"), "h", "u@h:p"), (Some("u@x"), "fe80::1%eth0", "u@x@[fe80::1%eth0]:p")]
        {
            let (dir, mut command) = fake_shell(record);
            command.extend_from_slice(b" -p \"2 2\" -x");
            let recorded = || {
                let bytes = std::fs::read(dir.path().join("argv")).unwrap();
                bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>()
            };
            let rsync = Command::new("rsync")
                .args(["-a", "--rsync-path=sudo -n far", "-e"])
                .arg(OsStr::from_bytes(&command))
                .args([target, "/nonexistent/"])
                .stderr(Stdio::null())
                .status()
                .expect("needs rsync: apt-get install rsync");
            assert!(!rsync.success());
            let theirs = recorded();
            std::fs::remove_file(dir.path().join("argv")).unwrap();

            let shell = RemoteShell::new(Some(&command), Some(b"sudo -n far")).unwrap();
            let mut link = shell.spawn(user.map(str::as_bytes), host.as_bytes(), &SERVE).unwrap();
            assert!(link.child.wait(Duration::from_secs(10)).is_some());
            let ours = recorded();
            let own = |argv: &[Vec<u8>], word: &[u8]| argv.iter().position(|arg| arg == word).unwrap();
            assert_eq!(ours[..own(&ours, b"serve")], theirs[..own(&theirs, b"--server")], "{target}");
            assert_eq!(ours[own(&ours, b"serve")..], [&b"serve"[..], b"--stdio", b""]);
        }
    }

    #[test]
    fn options_cannot_be_passed_as_names() {
        let shell = RemoteShell::default();
        for (user, host) in [(None, &b"-oProxyCommand=id"[..]), (Some(&b"-x"[..]), b"h"), (None, b"")] {
            assert!(matches!(shell.spawn(user, host, &SERVE), Err(ShellError::BadName { .. })));
        }
    }

    #[test]
    fn a_missing_remote_shell_is_not_a_missing_xfer() {
        for command in [&b"no-such-shell-here -x"[..], b"/nonexistent/ssh", b"/"] {
            let shell = RemoteShell::new(Some(command), None).unwrap();
            assert!(matches!(shell.spawn(None, b"h", &SERVE), Err(ShellError::NoCommand { .. })));
        }
    }

    #[test]
    fn bytes_pass_both_ways() {
        let (_dir, command) = fake_shell("exec cat");
        let link = RemoteShell::new(Some(&command), None).unwrap().spawn(None, b"h", &SERVE).unwrap();
        let ShellLink { stdin, stdout, mut child } = link;
        let mut writer = LinkWriter::new(stdin, Arc::default()).unwrap();
        let mut reader = LinkReader::new(stdout, Arc::default()).unwrap();
        writer.write_vectored(GREETING, b"and more").unwrap();
        child.expect_greeting(&mut reader, GREETING).unwrap();
        let mut got = [0; 8];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"and more");
        drop((writer, reader));
        child.finish(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn failures_are_told_apart() {
        assert!(matches!(start("exit 127"), Err(ShellError::NotFound { .. })));
        assert!(matches!(start("exit 126"), Err(ShellError::NotExecutable { .. })));
        assert!(matches!(start("exit 255"), Err(ShellError::NotConnected { .. })));
        assert!(matches!(start("exit 3"), Err(ShellError::Ended { status: 3, .. })));
        assert!(matches!(start("kill -9 $$"), Err(ShellError::Killed { signal: 9, .. })));
        assert!(matches!(start("exit 0"), Err(ShellError::Link { source: LinkError::Closed, .. })));
    }

    #[test]
    fn chatty_logins_are_shown() {
        for (script, expected) in [
            (r"printf '\nWelcome \033[31m\nXFER\001'; sleep 5", "Welcome \\#033[31m"),
            ("printf 'This account is not available.\\n'; exit 1", "This account is not available."),
            ("printf XF", "XF"),
            ("printf 'XFER no newline'; sleep 5", "XFER no newline"),
        ] {
            match start(script) {
                Err(ShellError::UnexpectedOutput { line, .. }) => assert_eq!(line, expected),
                other => panic!("{script}: {other:?}"),
            }
        }
        assert!(start("head -c 100000 /dev/zero | tr '\\0' x").unwrap_err().to_string().len() < 600);
    }

    #[test]
    fn ssh_is_asked_for_the_address_and_nothing_else_is() {
        let answer = |script: &str, name: &str, user: Option<&[u8]>, host: &[u8]| {
            let (dir, _) = fake_shell(script);
            let path = dir.path().join(name);
            std::fs::rename(dir.path().join("fake shell"), &path).unwrap();
            let command = format!("'{}' -p 22", path.display());
            let shell = RemoteShell::new(Some(command.as_bytes()), None).unwrap();
            ssh_hostname(&shell, user, host)
        };
        let echo = "echo user x; echo hostname \"$*\"; echo port 22";
        assert_eq!(answer(echo, "ssh", None, b"h").as_deref(), Some("-p 22 -G h"));
        assert_eq!(answer(echo, "ssh", Some(b"u"), b"h").as_deref(), Some("-p 22 -G -l u h"));
        assert_eq!(answer(echo, "rsh", None, b"h"), None);
        assert_eq!(answer(echo, "ssh", None, b"-h"), None);
        assert_eq!(answer(echo, "ssh", Some(b"-u"), b"h"), None);
        assert_eq!(answer("echo hostname h; exit 255", "ssh", None, b"h"), None);
        assert_eq!(answer("yes hostname h", "ssh", None, b"h"), None);
        assert_eq!(answer("echo hostname h; exec sleep 60", "ssh", None, b"h"), None);
        assert_eq!(answer("echo port 22", "ssh", None, b"h"), None);
    }

    #[test]
    fn the_child_ignores_the_interrupt_but_not_the_end() {
        let (_dir, command) = fake_shell("echo READY; exec sleep 60");
        let link = RemoteShell::new(Some(&command), None).unwrap().spawn(None, b"h", &SERVE).unwrap();
        let ShellLink { stdin: _stdin, stdout, mut child } = link;
        let mut reader = LinkReader::new(stdout, Arc::default()).unwrap();
        child.expect_greeting(&mut reader, b"READY\n").unwrap();
        let pid = rustix::process::Pid::from_child(&child.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(child.wait(Duration::from_millis(200)).is_none());
        child.end();
        assert_eq!(child.wait(Duration::ZERO).and_then(|status| status.signal()), Some(15));
    }
}
