//! Remote shells: a private sshd on loopback, and a fake one that runs the command here and writes down its argv.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::disk::chmod;
use super::run::binary;
use super::{Temp, need};

/// An sshd with its own keys, port and configuration; ends with this value.
pub struct Sshd {
    temp: Temp,
    child: Child,
    port: u16,
}

/// Where an sshd runs, and where its clients do.
#[derive(Clone, Default)]
pub struct Place {
    /// The address that it listens on; loopback where there is none.
    pub address: Option<String>,
    /// A port that is free there; looked for where there is none.
    pub port: Option<u16>,
    /// What runs the sshd: the words before it.
    pub far: Vec<String>,
    /// What runs its clients.
    pub near: Vec<String>,
}

impl Place {
    fn command(words: &[String], program: &Path) -> Command {
        let mut words = words.iter().map(OsString::from).chain([program.into()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
    }
}

impl Sshd {
    /// Starts one. The names `xfer` and `rsync` are found by what runs through it.
    pub fn start() -> Sshd {
        Sshd::start_at(&Place::default())
    }

    /// Starts one somewhere else.
    pub fn start_at(place: &Place) -> Sshd {
        need("sshd", "openssh-server");
        need("ssh", "openssh-client");
        let temp = Temp::new();
        if super::is_root() {
            // The directory that sshd's privilege separation asks for; a host that never ran sshd lacks it.
            let _ = fs::create_dir_all("/run/sshd");
        }
        for key in ["host", "user"] {
            let status = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(temp.join(key))
                .status()
                .unwrap();
            assert!(status.success());
        }
        let bin = temp.join("bin");
        fs::create_dir(&bin).unwrap();
        chmod(temp.path(), 0o755);
        if binary().is_absolute() {
            std::os::unix::fs::symlink(binary(), bin.join("xfer")).unwrap();
        }
        let root = temp.path().display().to_string();
        // sshd takes "0" for no port, so one is looked for here; where another process takes it in between,
        // all begins anew.
        let port = place
            .port
            .unwrap_or_else(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let address = place.address.as_deref().unwrap_or("127.0.0.1");
        fs::write(
            temp.join("sshd_config"),
            format!(
                "Port {port}\nListenAddress {address}\nHostKey {root}/host\nPidFile none\nUsePAM no\n\
                 AuthorizedKeysFile {root}/user.pub\nStrictModes no\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\nMaxSessions 100\n\
                 SetEnv PATH={root}/bin:/usr/local/bin:/usr/bin:/bin\n"
            ),
        )
        .unwrap();
        fs::write(
            temp.join("ssh_config"),
            format!(
                "Host *\n  HostName {address}\n  Port {port}\n  UserKnownHostsFile {root}/known_hosts\n  \
                 StrictHostKeyChecking accept-new\n  IdentitiesOnly yes\n  IdentityAgent none\n  BatchMode yes\n  \
                 LogLevel ERROR\n"
            ),
        )
        .unwrap();
        // A wrapper, so that an operator's own `ssh -i KEY` reaches this sshd.
        fs::write(bin.join("ssh"), format!("#!/bin/sh\nexec /usr/bin/ssh -F {root}/ssh_config \"$@\"\n")).unwrap();
        chmod(&bin.join("ssh"), 0o755);
        let child = Place::command(&place.far, Path::new("/usr/sbin/sshd"))
            .args(["-D", "-e", "-f"])
            .arg(temp.join("sshd_config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(temp.join("sshd.log")).unwrap())
            .spawn()
            .unwrap();
        let mut sshd = Sshd { temp, child, port };
        if sshd.answers(&place.near) {
            return sshd;
        }
        let log = fs::read_to_string(sshd.temp.join("sshd.log")).unwrap_or_default();
        assert!(log.contains("in use"), "sshd on port {} does not start: {log}", sshd.port);
        drop(sshd);
        Sshd::start_at(place)
    }

    fn answers(&mut self, near: &[String]) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let mut command = Place::command(near, &self.wrapper());
            let output = command.arg("-i").arg(self.key()).args(["there", "true"]).output();
            if output.is_ok_and(|output| output.status.success()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The private key that this sshd lets in.
    pub fn key(&self) -> PathBuf {
        self.temp.join("user")
    }

    /// `ssh`, as it must be called to reach this sshd.
    pub fn wrapper(&self) -> PathBuf {
        self.temp.join("bin/ssh")
    }

    /// A value for `-e`.
    pub fn shell(&self) -> String {
        format!("{} -i {}", self.wrapper().display(), self.key().display())
    }

    /// A `PATH` whose first `ssh` reaches this sshd.
    pub fn path(&self) -> OsString {
        let mut path = OsString::from(self.temp.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    /// `-e … --rsync-path …`, ready for a command line.
    pub fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["-e".into(), self.shell().into(), "--rsync-path".into()];
        args.push(binary().into());
        args
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A remote shell that is a script: it writes its argv down and runs the command here, through `sh -c` as an sshd does.
pub struct FakeShell {
    temp: Temp,
}

impl FakeShell {
    /// The plain one.
    pub fn new() -> FakeShell {
        FakeShell::running("exec sh -c \"$*\"")
    }

    /// One that runs `body` (sh) where the remote command stands in `$*`.
    pub fn running(body: &str) -> FakeShell {
        let temp = Temp::new();
        let root = temp.path().display().to_string();
        fs::write(
            temp.join("shell"),
            format!(
                "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\0' \"$word\"; done >> {root}/argv\n\
                 printf '\\1\\0' >> {root}/argv\n\
                 while [ \"${{1#-}}\" != \"$1\" ]; do if [ \"$1\" = -l ]; then shift; fi; shift; done\n\
                 shift\n{body}\n"
            ),
        )
        .unwrap();
        chmod(&temp.join("shell"), 0o755);
        FakeShell { temp }
    }

    /// The script.
    pub fn path(&self) -> PathBuf {
        self.temp.join("shell")
    }

    /// The argv of every call so far.
    pub fn calls(&self) -> Vec<Vec<OsString>> {
        let bytes = fs::read(self.temp.join("argv")).unwrap_or_default();
        let mut calls = vec![Vec::new()];
        for word in bytes.split(|&byte| byte == 0) {
            if word == [1] {
                calls.push(Vec::new());
            } else {
                calls.last_mut().unwrap().push(OsString::from_vec(word.to_vec()));
            }
        }
        calls.pop();
        calls
    }

    /// `-e … --rsync-path …`.
    pub fn args(&self) -> Vec<OsString> {
        self.args_with(&binary())
    }

    /// `-e … --rsync-path FAR`.
    pub fn args_with(&self, far: &Path) -> Vec<OsString> {
        vec!["-e".into(), self.path().into(), "--rsync-path".into(), far.into()]
    }
}

/// `host:path` from raw bytes.
pub fn at(host: &str, path: &Path) -> OsString {
    let mut address = OsString::from(host);
    address.push(":");
    address.push(path);
    address
}
