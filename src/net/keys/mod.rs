//! Key files in ssh's habits: `identity`, `identity.pub`, `known_hosts`, `authorized_keys`, in the user's directory and
//! in the machine's. `known_hosts` and `authorized` read texts; this joins them with the files.

mod authorized;
mod files;
mod known_hosts;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Identity, KeyParseError, PublicKey};
pub use authorized::{AuthorizedKey, Grant, Network, is_module_name};
pub use files::KeyDirs;
use files::Secrecy;
pub use known_hosts::{HostError, HostPort};

const IDENTITY: &str = "identity";
const IDENTITY_PUBLIC: &str = "identity.pub";
const KNOWN_HOSTS: &str = "known_hosts";
const AUTHORIZED_KEYS: &str = "authorized_keys";

/// Why keys cannot be used or stored. Each message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Neither `XDG_CONFIG_HOME` nor a home directory.
    #[error("no home directory: set HOME or XDG_CONFIG_HOME")]
    NoHome,
    /// No private key anywhere.
    #[error("this host has no key yet ({}): make one with 'xfer key new'", joined(.dirs))]
    NoIdentity {
        /// Where one was looked for.
        dirs: Vec<PathBuf>,
    },
    /// A private key is there already.
    #[error("{} exists already: --force replaces it, and every host that trusts it has to be told", path.display())]
    Exists {
        /// Its file.
        path: PathBuf,
    },
    /// A file belongs to somebody else.
    #[error("{} belongs to user {uid}, who could change it: it has to belong to you or to root", path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A file's mode lets others in.
    #[error("{} has mode {mode:04o}, so that others can {others}: it is not used (run '{fix} {}')",
        path.display(), path.display())]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What others can do.
        others: &'static str,
        /// The command that mends it.
        fix: &'static str,
    },
    /// More than a key file can hold.
    #[error("{} is larger than {} bytes", path.display(), crate::limits::KEY_FILE_BYTES_MAX)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("{} is not text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A line of `known_hosts` is not understood.
    #[error("{} line {line}: {reason} (mend or remove the line)", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The private key's file holds none.
    #[error("{} holds no usable key", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: KeyParseError,
    },
    /// Another key is stored for the host.
    #[error("{host} is known with another key ({} line {line})", path.display())]
    HostChanged {
        /// The host.
        host: HostPort,
        /// The file that says so.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
    },
    /// A system error.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

fn joined(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Reads `xfer-ed25519 BASE64 [comment]`.
pub fn key_and_comment(text: &str) -> Result<(PublicKey, &str), KeyParseError> {
    let text = text.trim();
    let (kind, rest) = text.split_once([' ', '\t']).ok_or(KeyParseError::NotAKey)?;
    let rest = rest.trim_start();
    let (key, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    Ok((format!("{kind} {key}").parse()?, comment.trim()))
}

fn key_of(text: &str) -> Result<PublicKey, KeyParseError> {
    key_and_comment(text).map(|(key, _)| key)
}

/// Reads the text of an `authorized_keys`: what it grants, and the numbers of lines that were not understood and grant
/// nothing.
pub fn read_authorized_keys(text: &str) -> (Vec<Grant>, Vec<usize>) {
    let (grants, bad) = authorized::parse(text);
    (grants, bad.into_iter().map(|line| line.number).collect())
}

/// Reads the text of a `known_hosts`: hosts and their keys, or the number of the first line that is not understood.
pub fn read_known_hosts(text: &str) -> Result<Vec<(HostPort, PublicKey)>, usize> {
    match known_hosts::parse(text) {
        Ok(lines) => Ok(lines.into_iter().map(|line| (line.host, line.key)).collect()),
        Err(line) => Err(line.number),
    }
}

/// Lines as a text whose last line ends too.
fn ended<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// What is known about the key that a host presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostCheck {
    /// It is the stored one.
    Known,
    /// Nothing is stored for this host and port.
    Unknown,
    /// Another key is stored: the host was set up anew, or somebody stands in between.
    Changed {
        /// The file that says so.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// The stored key.
        stored: PublicKey,
    },
}

/// The `known_hosts` files.
#[derive(Debug, Clone)]
pub struct KnownHosts {
    dirs: KeyDirs,
}

impl KnownHosts {
    /// The files in `explicit` alone, or where [`KeyDirs::new`] says. Nothing is read yet.
    pub fn new(explicit: Option<&Path>) -> KnownHosts {
        KnownHosts { dirs: KeyDirs::new(explicit) }
    }

    /// What all files together say about `key`. A host may have several keys, as while one is being replaced. Files
    /// are read anew every time: another process may have added to them.
    pub fn check(&self, host: &HostPort, key: &PublicKey) -> Result<HostCheck, KeyError> {
        let mut check = HostCheck::Unknown;
        for dir in self.dirs.in_order() {
            match check_in(dir, host, key)? {
                HostCheck::Known => return Ok(HostCheck::Known),
                found @ HostCheck::Changed { .. } if check == HostCheck::Unknown => check = found,
                HostCheck::Unknown | HostCheck::Changed { .. } => {}
            }
        }
        Ok(check)
    }

    /// Adds the key of a host that is not known. What another process stored meanwhile is looked at first: the same
    /// key is fine, another one is an error.
    pub fn remember(&self, host: &HostPort, key: &PublicKey) -> Result<(), KeyError> {
        let dir = self.dirs.to_write(false)?;
        let held = files::lock(dir, self.dirs.is_shared(dir))?;
        match self.check(host, key)? {
            HostCheck::Known => Ok(()),
            HostCheck::Changed { path, line, .. } => Err(KeyError::HostChanged { host: host.clone(), path, line }),
            HostCheck::Unknown => {
                let path = dir.join(KNOWN_HOSTS);
                let text = files::read(&path, Secrecy::Public)?.unwrap_or_default();
                let text = ended(text.lines()) + &known_hosts::line_of(host, key);
                files::replace(&path, text.as_bytes(), self.public_mode(dir), &held)
            }
        }
    }

    /// Makes `key` the only one that the user's file (or the machine's) holds for `host`.
    pub fn pin(&self, host: &HostPort, key: &PublicKey, system: bool) -> Result<(), KeyError> {
        let dir = self.dirs.to_write(system)?;
        let held = files::lock(dir, self.dirs.is_shared(dir))?;
        let path = dir.join(KNOWN_HOSTS);
        let text = files::read(&path, Secrecy::Public)?.unwrap_or_default();
        let text = known_hosts::without(&text, host) + &known_hosts::line_of(host, key);
        files::replace(&path, text.as_bytes(), self.public_mode(dir), &held)
    }

    fn public_mode(&self, dir: &Path) -> u32 {
        if self.dirs.is_shared(dir) { 0o644 } else { 0o600 }
    }
}

fn check_in(dir: &Path, host: &HostPort, key: &PublicKey) -> Result<HostCheck, KeyError> {
    let path = dir.join(KNOWN_HOSTS);
    let Some(text) = files::read(&path, Secrecy::Public)? else { return Ok(HostCheck::Unknown) };
    let lines = known_hosts::parse(&text).map_err(|bad| KeyError::BadLine {
        path: path.clone(),
        line: bad.number,
        reason: bad.reason,
    })?;
    let mut check = HostCheck::Unknown;
    for line in lines.iter().filter(|line| line.host == *host) {
        if line.key == *key {
            return Ok(HostCheck::Known);
        }
        check = HostCheck::Changed { path: path.clone(), line: line.number, stored: line.key };
    }
    Ok(check)
}

/// A client's keys: who it is, and whom it knows.
#[derive(Debug, Clone)]
pub struct ClientKeys {
    /// Who we are.
    pub identity: Identity,
    /// Whom we know.
    pub hosts: KnownHosts,
}

impl ClientKeys {
    /// From `explicit` alone, or from where [`KeyDirs::new`] says.
    pub fn load(explicit: Option<&Path>) -> Result<ClientKeys, KeyError> {
        let (identity, _) = load_identity(&KeyDirs::new(explicit))?;
        Ok(ClientKeys { identity, hosts: KnownHosts::new(explicit) })
    }

    /// What is known about the key that a host presented; see [`KnownHosts::check`].
    pub fn check_host(&self, host: &HostPort, key: &PublicKey) -> Result<HostCheck, KeyError> {
        self.hosts.check(host, key)
    }

    /// Stores the key of a host that was unknown; see [`KnownHosts::remember`].
    pub fn remember_host(&self, host: &HostPort, key: &PublicKey) -> Result<(), KeyError> {
        self.hosts.remember(host, key)
    }
}

/// A server's keys: who it is, and whom it lets in.
#[derive(Debug, Clone)]
pub struct ServerKeys {
    /// The host key.
    pub identity: Identity,
    /// Whom it lets in, in the order of the lines.
    pub authorized: Vec<Grant>,
    /// Lines that grant nothing because they are not understood, and files that cannot be read: one sentence each, to
    /// be told to the operator.
    pub problems: Vec<String>,
}

impl ServerKeys {
    /// From `explicit` alone, or from where [`KeyDirs::new`] says: the user's lines first, then the machine's. A missing
    /// `authorized_keys` lets nobody in.
    pub fn load(explicit: Option<&Path>) -> Result<ServerKeys, KeyError> {
        let dirs = KeyDirs::new(explicit);
        let (identity, _) = load_identity(&dirs)?;
        let (mut authorized, mut problems) = (Vec::new(), Vec::new());
        for dir in dirs.in_order() {
            let path = dir.join(AUTHORIZED_KEYS);
            match files::read(&path, Secrecy::Public) {
                Ok(Some(text)) => {
                    let (grants, bad) = authorized::parse(&text);
                    authorized.extend(grants);
                    let told = |bad: known_hosts::BadLine| {
                        format!("{} line {}: {}: it grants nothing", path.display(), bad.number, bad.reason)
                    };
                    problems.extend(bad.into_iter().map(told));
                }
                Ok(None) => {}
                // A daemon of an ordinary user cannot read the machine's file, and is not meant to.
                Err(KeyError::Io { source, .. })
                    if dirs.is_shared(dir) && source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    problems.push(format!("{} cannot be read: it grants nothing", path.display()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ServerKeys { identity, authorized, problems })
    }

    /// What `key`, proven by a peer at `peer`, may do: the first line that is about it. `None`: nothing.
    pub fn authorize(&self, key: &PublicKey, peer: IpAddr) -> Option<AuthorizedKey> {
        self.authorized.iter().find(|grant| grant.is_for(key, peer)).map(|grant| grant.rights.clone())
    }
}

/// The identity that counts, and the comment that was given to it.
pub fn load_identity(dirs: &KeyDirs) -> Result<(Identity, String), KeyError> {
    for dir in dirs.in_order() {
        let path = dir.join(IDENTITY);
        let text = match files::read(&path, Secrecy::Private) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            // The machine's key is not for ordinary users.
            Err(KeyError::Io { source, .. })
                if dirs.is_shared(dir) && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let identity = Identity::from_pem(&text).map_err(|source| KeyError::BadIdentity { path, source })?;
        return Ok((identity.clone(), comment_of(dir, &identity)));
    }
    Err(KeyError::NoIdentity { dirs: dirs.in_order().into_iter().map(Path::to_owned).collect() })
}

/// The comment in `identity.pub`. That file is for people: what is wrong with it does not matter.
fn comment_of(dir: &Path, identity: &Identity) -> String {
    let text = files::read(&dir.join(IDENTITY_PUBLIC), Secrecy::Public).ok().flatten().unwrap_or_default();
    match text.lines().next().map(key_and_comment) {
        Some(Ok((key, comment))) if key == identity.public_key() => comment.to_owned(),
        _ => String::new(),
    }
}

/// Makes a new pair and stores it; returns it and the private key's file. `force` replaces one that is there.
pub fn create_identity(
    dirs: &KeyDirs,
    system: bool,
    comment: &str,
    force: bool,
) -> Result<(Identity, PathBuf), KeyError> {
    let dir = dirs.to_write(system)?;
    let held = files::lock(dir, dirs.is_shared(dir))?;
    let path = dir.join(IDENTITY);
    // A link to nowhere counts as there.
    if !force && std::fs::symlink_metadata(&path).is_ok() {
        return Err(KeyError::Exists { path });
    }
    let identity =
        Identity::generate().map_err(|source| KeyError::Io { operation: "make", path: path.clone(), source })?;
    // The public half first: the private one is what makes the pair count.
    let public = public_line(&identity.public_key(), comment);
    files::replace(&dir.join(IDENTITY_PUBLIC), format!("{public}\n").as_bytes(), 0o644, &held)?;
    files::replace(&path, identity.to_pem().as_bytes(), 0o600, &held)?;
    Ok((identity, path))
}

/// The line that `key authorize` takes: the key and its comment.
pub fn public_line(key: &PublicKey, comment: &str) -> String {
    if comment.is_empty() { key.to_string() } else { format!("{key} {comment}") }
}

/// Stores what a key may do, in place of what was stored for it in the same file. Returns the file.
pub fn authorize_key(dirs: &KeyDirs, system: bool, grant: &Grant) -> Result<PathBuf, KeyError> {
    let dir = dirs.to_write(system)?;
    let held = files::lock(dir, dirs.is_shared(dir))?;
    let path = dir.join(AUTHORIZED_KEYS);
    let text = files::read(&path, Secrecy::Public)?.unwrap_or_default();
    files::replace(&path, authorized::with_grant(&text, grant).as_bytes(), 0o600, &held)?;
    Ok(path)
}
