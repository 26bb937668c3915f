//! What listens at the far end: an sshd of its own, rsync's daemon, `xfer serve`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::link::Link;
use crate::process::{Server, argv, prepare};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(10);
/// The module that daemons offer: the directory above the destination.
const MODULE: &str = "far";

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("write {}", path.display()))
}

fn create_log(path: &Path) -> Result<File> {
    File::create(path).context(|| format!("create {}", path.display()))
}

/// Waits until `probe` succeeds; an error with the end of the log if it does not.
fn wait_for(server: &mut Server, what: &str, log: &Path, mut probe: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < START && server.is_running() {
        if probe() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let log = fs::read_to_string(log).unwrap_or_default();
    Err(Error::Refused(format!("{what} does not start: {}", log.trim())))
}

/// A server of its own directory below `dir`.
pub(crate) struct Sshd {
    pub(crate) server: Server,
    dir: PathBuf,
    address: SocketAddr,
}

impl Sshd {
    /// Starts one with its own keys and port.
    pub(crate) fn start(dir: &Path, link: &Link) -> Result<Sshd> {
        let dir = dir.join("ssh");
        fs::create_dir(&dir).context(|| format!("create {}", dir.display()))?;
        if rustix::process::geteuid().is_root() {
            // sshd's privilege separation asks for it; a host that never ran sshd lacks it.
            fs::create_dir_all("/run/sshd").context(|| "create /run/sshd".to_owned())?;
        }
        for key in ["host", "user"] {
            let mut words = argv(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]);
            words.push(dir.join(key).into());
            prepare(&words)?;
        }
        let (host, port) = (link.far_address(), link.far_port(22)?);
        let root = dir.display();
        // Ciphers, MACs and compression stay OpenSSH's defaults: that is what users have.
        write(
            &dir.join("sshd_config"),
            &format!(
                "Port {port}\nListenAddress {host}\nHostKey {root}/host\nPidFile none\nUsePAM no\nStrictModes no\n\
                 AuthorizedKeysFile {root}/user.pub\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 PermitRootLogin yes\nUseDNS no\nMaxStartups 100\nMaxSessions 100\nSubsystem sftp internal-sftp\n"
            ),
        )?;
        write(
            &dir.join("ssh_config"),
            &format!(
                "Host *\n  HostName {host}\n  Port {port}\n  IdentityFile {root}/user\n  IdentitiesOnly yes\n  \
                 IdentityAgent none\n  UserKnownHostsFile {root}/known_hosts\n  StrictHostKeyChecking accept-new\n  \
                 BatchMode yes\n  LogLevel ERROR\n"
            ),
        )?;
        let log = dir.join("sshd.log");
        let mut words = argv(["/usr/sbin/sshd", "-D", "-e", "-f"]);
        words.push(dir.join("sshd_config").into());
        let server = Server::start(link.far(&words), create_log(&log)?)?;
        let mut sshd = Sshd { server, dir, address: (host, port).into() };
        let probe = [sshd.client(), argv(["far", "true"])].concat();
        let answers = || link.near(&probe).output().is_ok_and(|output| output.status.success());
        wait_for(&mut sshd.server, "sshd", &log, answers)?;
        Ok(sshd)
    }

    /// `ssh` with the options that reach this sshd; any host name does.
    pub(crate) fn client(&self) -> Vec<OsString> {
        let mut words = argv(["ssh", "-F"]);
        words.push(self.dir.join("ssh_config").into());
        words
    }

    /// The same as one word, for `-e`.
    pub(crate) fn shell(&self) -> OsString {
        let mut shell = OsString::from("ssh -F ");
        shell.push(self.dir.join("ssh_config"));
        shell
    }

    /// The same for rclone, which has an ssh of its own.
    pub(crate) fn rclone_options(&self) -> Vec<OsString> {
        let user = std::env::var_os("USER").unwrap_or_else(|| "root".into());
        let mut words = argv(["--sftp-host", &self.address.ip().to_string()]);
        words.extend(argv(["--sftp-port", &self.address.port().to_string()]));
        words.extend(argv([OsString::from("--sftp-user"), user]));
        words.extend(argv([OsString::from("--sftp-key-file"), self.dir.join("user").into()]));
        words
    }
}

/// rsync's own daemon, in clear and without authentication.
pub(crate) struct RsyncDaemon {
    pub(crate) server: Server,
    address: SocketAddr,
}

impl RsyncDaemon {
    /// Starts one whose module is `far`.
    pub(crate) fn start(dir: &Path, far: &Path, link: &Link) -> Result<RsyncDaemon> {
        let (config, log) = (dir.join("rsyncd.conf"), dir.join("rsyncd.log"));
        // Only in a chroot does the daemon leave the targets of links as they are, and only root can have one.
        let owner = if rustix::process::geteuid().is_root() {
            "use chroot = yes\nuid = 0\ngid = 0\n"
        } else {
            "use chroot = no\n"
        };
        write(&config, &format!("munge symlinks = no\n{owner}[{MODULE}]\npath = {}\nread only = no\n", far.display()))?;
        let (host, port) = (link.far_address(), link.far_port(873)?);
        let mut words = argv(["rsync", "--daemon", "--no-detach", "--config"]);
        words.push(config.into());
        words.extend(argv(["--address", &host.to_string(), "--port", &port.to_string()]));
        let mut server = Server::start(link.far(&words), create_log(&log)?)?;
        let probe = argv(["rsync", &format!("rsync://{host}:{port}/")]);
        let answers = || link.near(&probe).output().is_ok_and(|output| output.status.success());
        wait_for(&mut server, "rsync --daemon", &log, answers)?;
        Ok(RsyncDaemon { server, address: (host, port).into() })
    }

    /// The destination's address.
    pub(crate) fn destination(&self) -> String {
        format!("rsync://{}/{MODULE}/destination/", self.address)
    }
}

/// `xfer serve`, with a key at both ends.
pub(crate) struct XferDaemon {
    pub(crate) server: Server,
    near_config: PathBuf,
    address: SocketAddr,
}

/// `xfer` with a configuration of its own.
fn xfer(binary: &Path, config: &Path, words: &[&str]) -> Vec<OsString> {
    let mut home = OsString::from("XDG_CONFIG_HOME=");
    home.push(config);
    [argv(["env".into(), home, binary.into()]), argv(words.iter().copied())].concat()
}

impl XferDaemon {
    /// Starts one whose module is `far`. An error if the binary has no such command.
    pub(crate) fn start(binary: &Path, dir: &Path, far: &Path, link: &Link) -> Result<XferDaemon> {
        let (near_config, far_config) = (dir.join("xfer-near"), dir.join("xfer-far"));
        for config in [&near_config, &far_config] {
            fs::create_dir_all(config).context(|| format!("create {}", config.display()))?;
            prepare(&xfer(binary, config, &["key", "new"]))?;
        }
        let key = prepare(&xfer(binary, &near_config, &["key", "show"]))?;
        prepare(&xfer(binary, &far_config, &["key", "authorize", key.trim(), "--module", MODULE]))?;
        let (host, port) = (link.far_address(), link.far_port(7788)?);
        let address: SocketAddr = (host, port).into();
        let module = format!("{MODULE}={},rw", far.display());
        let words = xfer(binary, &far_config, &["serve", "--listen", &address.to_string(), "--module", &module]);
        let log = dir.join("xfer-serve.log");
        let mut server = Server::start(link.far(&words), create_log(&log)?)?;
        let listening = || is_listening(server_port_table(link), address);
        wait_for(&mut server, "xfer serve", &log, listening)?;
        Ok(XferDaemon { server, near_config, address })
    }

    /// `xfer` as it must be called to be let in.
    pub(crate) fn client(&self, binary: &Path, words: &[&str]) -> Vec<OsString> {
        xfer(binary, &self.near_config, words)
    }

    /// The destination's address.
    pub(crate) fn destination(&self) -> String {
        format!("xfer://{}/{MODULE}/destination/", self.address)
    }
}

/// The far end's table of TCP sockets.
fn server_port_table(link: &Link) -> String {
    let output = link.far(&argv(["cat", "/proc/net/tcp"])).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Whether `/proc/net/tcp` says that somebody listens there (proc(5): state 0A; addresses in hexadecimal, IPv4 in the
/// host's byte order). Nobody is disturbed by a connection that says nothing.
fn is_listening(table: String, address: SocketAddr) -> bool {
    let IpAddr::V4(host) = address.ip() else { return false };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(host.octets()), address.port());
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&wanted.as_str()) && fields.get(3) == Some(&"0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_seen_in_the_table() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let table = || fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(is_listening(table(), address));
        drop(listener);
        assert!(!is_listening(table(), address));
    }
}
