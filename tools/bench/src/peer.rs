//! Who is compared: programs, and the command line of each.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::judge::Fidelity;
use crate::link::Link;
use crate::process::{Server, argv, found};
use crate::servers::{RsyncDaemon, Sshd, XferDaemon};
use crate::workload::{Basis, Trees, Workload};

/// The peer that all others are compared with.
pub(crate) const REFERENCE: &str = "rsync-ssh";

/// What a peer is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum How {
    RsyncSsh,
    RsyncDaemon,
    Copy,
    TarSsh,
    Rclone,
    /// `xfer sync` with these options over ssh.
    Xfer {
        binary: PathBuf,
        options: Vec<String>,
    },
    /// `xfer sync` with these options to `xfer serve`.
    XferDaemon {
        binary: PathBuf,
        options: Vec<String>,
    },
}

/// One column of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    /// What the command line calls it.
    pub(crate) name: String,
    /// What it promises to keep, and is judged by.
    pub(crate) fidelity: Fidelity,
    /// Every machine for tests has it: that it did not run is a failure of `smoke`.
    pub(crate) required: bool,
    how: How,
}

/// The names of all peers that need no definition, in the order of the table.
pub(crate) fn known(binary: &Path) -> Vec<Peer> {
    let xfer = |name: &str, options: &[&str]| Peer {
        name: name.to_owned(),
        fidelity: Fidelity::Archive,
        required: name == "xfer",
        how: How::Xfer { binary: binary.to_owned(), options: options.iter().map(|&word| word.to_owned()).collect() },
    };
    let other = |name: &str, fidelity, required, how| Peer { name: name.to_owned(), fidelity, required, how };
    vec![
        other(REFERENCE, Fidelity::Archive, true, How::RsyncSsh),
        other("rsync-daemon", Fidelity::Archive, true, How::RsyncDaemon),
        xfer("xfer", &[]),
        xfer("xfer-shell", &["--transport", "shell"]),
        xfer("xfer-direct", &["--transport", "direct"]),
        other(
            "xfer-daemon",
            Fidelity::Archive,
            false,
            How::XferDaemon { binary: binary.to_owned(), options: Vec::new() },
        ),
        other("cp", Fidelity::Archive, true, How::Copy),
        other("tar-ssh", Fidelity::Archive, true, How::TarSsh),
        other("rclone", Fidelity::Contents, false, How::Rclone),
    ]
}

/// A variant of xfer as a user defines it: `NAME=[@BINARY] OPTION...`; a name that ends with `-daemon` goes to
/// `xfer serve`.
pub(crate) fn variant(text: &str, binary: &Path) -> std::result::Result<Peer, String> {
    let (name, rest) = text.split_once('=').ok_or_else(|| format!("`{text}`: give NAME=[@BINARY] OPTION..."))?;
    if name.is_empty() || known(binary).iter().any(|peer| peer.name == name) {
        return Err(format!("`{name}` is no name for a variant: it is empty, or a peer has it"));
    }
    let mut words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    let binary = match words.first().and_then(|word| word.strip_prefix('@')).map(PathBuf::from) {
        Some(own) => {
            words.remove(0);
            own
        }
        None => binary.to_owned(),
    };
    let how = if name.ends_with("-daemon") {
        How::XferDaemon { binary, options: words }
    } else {
        How::Xfer { binary, options: words }
    };
    Ok(Peer { name: name.to_owned(), fidelity: Fidelity::Archive, required: false, how })
}

/// The servers that the chosen peers talk to.
#[derive(Default)]
pub(crate) struct Servers {
    sshd: Option<Sshd>,
    rsync: Option<RsyncDaemon>,
    /// One for each binary.
    xfer: Vec<(PathBuf, XferDaemon)>,
}

impl Servers {
    /// All that run.
    pub(crate) fn all(&self) -> Vec<&Server> {
        let ssh = self.sshd.iter().map(|sshd| &sshd.server);
        let rsync = self.rsync.iter().map(|daemon| &daemon.server);
        ssh.chain(rsync).chain(self.xfer.iter().map(|(_, daemon)| &daemon.server)).collect()
    }
}

impl Peer {
    /// Programs that must be there, each with the Debian package that has it.
    fn programs(&self) -> &'static [(&'static str, &'static str)] {
        match self.how {
            How::RsyncSsh => &[("rsync", "rsync"), ("ssh", "openssh-client"), ("sshd", "openssh-server")],
            How::RsyncDaemon => &[("rsync", "rsync")],
            How::Copy => &[("cp", "coreutils")],
            How::TarSsh => &[("tar", "tar"), ("ssh", "openssh-client"), ("sshd", "openssh-server")],
            How::Rclone => &[("rclone", "rclone"), ("sshd", "openssh-server")],
            How::Xfer { .. } => &[("ssh", "openssh-client"), ("sshd", "openssh-server")],
            How::XferDaemon { .. } => &[],
        }
    }

    /// Why it cannot run on this machine, if so.
    pub(crate) fn missing(&self) -> Option<String> {
        if let How::Xfer { binary, .. } | How::XferDaemon { binary, .. } = &self.how
            && !binary.is_file()
        {
            return Some(format!("{} is not there: cargo build --release", binary.display()));
        }
        let (program, package) = self.programs().iter().find(|(program, _)| !found(program))?;
        Some(format!("{program} is not installed: apt-get install {package}"))
    }

    /// Why it cannot do this workload, if so.
    pub(crate) fn unsuited(&self, workload: &Workload) -> Option<&'static str> {
        match self.how {
            How::Copy | How::TarSsh if workload.basis() != Basis::Nothing => Some("it always copies everything"),
            How::Rclone if !workload.options.is_empty() => Some("it has no such option"),
            How::RsyncDaemon if workload.has_odd_names() && !rustix::process::geteuid().is_root() => {
                Some("without root its daemon changes the targets of links")
            }
            How::Rclone if workload.has_odd_names() => Some("it stores names with line breaks under other names"),
            _ => None,
        }
    }

    /// The binary of xfer that it runs.
    pub(crate) fn binary(&self) -> Option<&Path> {
        match &self.how {
            How::Xfer { binary, .. } | How::XferDaemon { binary, .. } => Some(binary),
            _ => None,
        }
    }

    /// Whether the exit code says that it does not know what it was asked for: xfer's code for usage.
    pub(crate) fn refuses_with(&self, code: Option<i32>) -> bool {
        self.binary().is_some() && code == Some(2)
    }

    /// Starts what it talks to, if that does not run yet. `dir` is for keys and logs, `far` above the destination.
    pub(crate) fn start_servers(&self, servers: &mut Servers, dir: &Path, far: &Path, link: &Link) -> Result<()> {
        match &self.how {
            How::Copy => {}
            How::RsyncDaemon => {
                if servers.rsync.is_none() {
                    servers.rsync = Some(RsyncDaemon::start(dir, far, link)?);
                }
            }
            How::XferDaemon { binary, .. } => {
                if !servers.xfer.iter().any(|(other, _)| other == binary) {
                    let own = dir.join(format!("xfer-daemon-{}", servers.xfer.len()));
                    let daemon = XferDaemon::start(binary, &own, far, link)?;
                    servers.xfer.push((binary.clone(), daemon));
                }
            }
            How::RsyncSsh | How::TarSsh | How::Rclone | How::Xfer { .. } => {
                if servers.sshd.is_none() {
                    servers.sshd = Some(Sshd::start(dir, link)?);
                }
            }
        }
        Ok(())
    }

    /// The command line at the near end; `None` if its server does not run.
    pub(crate) fn words(&self, servers: &Servers, trees: &Trees, workload: &Workload) -> Option<Vec<OsString>> {
        let slashed = |path: &Path| {
            let mut path = path.as_os_str().to_owned();
            path.push("/");
            path
        };
        let (source, destination) = (slashed(&trees.source), slashed(&trees.destination));
        let mut far = OsString::from("far:");
        far.push(&destination);
        let options = argv(workload.options.iter().copied());
        let rsync = || [argv(["rsync", "-a", "--delete"]), options.clone()].concat();
        Some(match &self.how {
            How::RsyncSsh => {
                let shell = servers.sshd.as_ref()?.shell();
                [rsync(), argv(["-e".into(), shell, source, far])].concat()
            }
            How::RsyncDaemon => [rsync(), argv([source, servers.rsync.as_ref()?.destination().into()])].concat(),
            How::Copy => [argv(["cp", "-aT"]), argv([source, destination])].concat(),
            How::TarSsh => {
                // The pax format keeps nanoseconds. The names are this tool's own: no character needs quoting.
                let ssh = crate::process::shown(&servers.sshd.as_ref()?.client());
                let (source, destination) = (trees.source.display(), trees.destination.display());
                let script = format!(
                    "set -o pipefail; tar -C {source} --format=posix -cf - . | {ssh} far tar -C {destination} -xpf -"
                );
                argv(["bash", "-c", &script])
            }
            How::Rclone => {
                let mut target = OsString::from(":sftp:");
                target.push(&trees.destination);
                // Its check by digest starts md5sum through the shell for each file: 0.2 s a file.
                let start = argv(["rclone", "sync", "--config", "/dev/null", "--sftp-disable-hashcheck"]);
                let from_to = argv([trees.source.clone().into_os_string(), target]);
                [start, servers.sshd.as_ref()?.rclone_options(), from_to].concat()
            }
            How::Xfer { binary, options: own } => {
                let shell = servers.sshd.as_ref()?.shell();
                let start = argv([binary.as_os_str(), "sync".as_ref(), "-a".as_ref(), "--delete".as_ref()]);
                let remote = argv(["-e".into(), shell, "--rsync-path".into(), binary.into(), source, far]);
                [start, argv(own), options, remote].concat()
            }
            How::XferDaemon { binary, options: own } => {
                let (_, daemon) = servers.xfer.iter().find(|(other, _)| other == binary)?;
                let start = daemon.client(binary, &["sync", "-a", "--delete", "--accept-new"]);
                [start, argv(own), options, argv([source, daemon.destination().into()])].concat()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_take_options_and_a_binary() {
        let peer = variant("old=@/x/xfer --lanes 4", Path::new("/y")).unwrap();
        assert_eq!(peer.binary(), Some(Path::new("/x/xfer")));
        assert!(matches!(peer.how, How::Xfer { options, .. } if options == ["--lanes", "4"]));
        let peer = variant("two-daemon=--lanes 2", Path::new("/y")).unwrap();
        assert!(matches!(peer.how, How::XferDaemon { .. }) && peer.binary() == Some(Path::new("/y")));
        for text in ["", "=x", "xfer=--lanes 2", "name"] {
            assert!(variant(text, Path::new("/y")).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_unique_and_hold_the_reference() {
        let peers = known(Path::new("/x"));
        assert!(peers.iter().any(|peer| peer.name == REFERENCE));
        for (at, peer) in peers.iter().enumerate() {
            assert!(peers[at + 1..].iter().all(|other| other.name != peer.name));
        }
    }
}
