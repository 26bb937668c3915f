//! What is served, ready for use: modules with their users looked up, as a sealed file that every worker can read.
#![allow(clippy::disallowed_methods, reason = "the operator's own paths are looked at before anything is served")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use super::config::{Access, Config, Module, Principal};
use crate::fs::{NameService, SystemNames};
use crate::net::PublicKey;
use crate::net::keys::{AuthorizedKey, ServerKeys};

/// A module whose user and group are numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServedModule {
    pub(super) module: Module,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

impl ServedModule {
    fn new(module: &Module) -> Result<ServedModule, String> {
        let wrong = |what: &str, why: String| format!("module \"{}\": {what}: {why}", module.name);
        let look = |what: &str, principal: &Option<Principal>, find: &dyn Fn(&[u8]) -> io::Result<Option<u32>>| {
            match principal {
                None => Ok(None),
                Some(Principal::Id(id)) => Ok(Some(*id)),
                // Resolved before; a daemon that is not root cannot be anybody else.
                Some(Principal::PathOwner) => Ok(None),
                Some(Principal::Name(name)) => match find(name.as_bytes()) {
                    Ok(Some(id)) => Ok(Some(id)),
                    Ok(None) => Err(wrong(what, format!("there is no \"{name}\" on this machine"))),
                    Err(error) => Err(wrong(what, format!("\"{name}\" cannot be looked up: {error}"))),
                },
            }
        };
        let is_root = rustix::process::geteuid().is_root();
        let mut uid = look("uid", &module.uid, &|name| SystemNames.user_id(name))?;
        let mut gid = look("gid", &module.gid, &|name| SystemNames.group_id(name))?;
        if is_root && module.uid == Some(Principal::PathOwner) {
            let path = &module.path;
            let owned = std::fs::metadata(path)
                .map_err(|error| wrong("path", format!("cannot look at {}: {error}", path.display())))?;
            uid = Some(owned.uid());
            if gid.is_none() && matches!(SystemNames::primary_group(owned.uid()), Ok(None)) {
                gid = Some(owned.gid());
            }
        }
        if is_root && uid.is_none() {
            let why = "this daemon runs as root, so say whom the module's sessions run as: uid = \"USER\" (with that \
                       user's own group unless gid says another), or uid = \"root\" for clients trusted with the \
                       whole machine";
            return Err(wrong("uid", why.to_owned()));
        }
        if let (Some(uid), None) = (uid, gid) {
            let own = SystemNames::primary_group(uid).map_err(|error| wrong("uid", error.to_string()))?;
            // Staying in the daemon's group would leave rights that nobody asked for.
            gid = Some(own.ok_or_else(|| wrong("gid", format!("user {uid} has no group of its own: name one")))?);
        }
        let others = uid.is_some_and(|uid| uid != rustix::process::geteuid().as_raw())
            || gid.is_some_and(|gid| gid != rustix::process::getegid().as_raw());
        if others && !rustix::process::geteuid().is_root() {
            return Err(wrong("uid", "only a daemon that runs as root can change to another user or group".to_owned()));
        }
        Ok(ServedModule { module: module.clone(), uid, gid })
    }

    /// What `key` may do here; `None`: nothing, as if the module were not there. A module's own list of keys is for
    /// those that no line of `authorized_keys` names: it takes back nothing of what a line says.
    pub(super) fn access(&self, key: &PublicKey, rights: &KeyRights) -> Option<Access> {
        let rights = match rights {
            KeyRights::Unnamed => {
                return self.module.keys.iter().any(|known| known.key == *key).then_some(self.module.access);
            }
            KeyRights::Elsewhere => return None,
            KeyRights::Granted(rights) => rights,
        };
        let granted = match (rights.read_only, rights.write_only) {
            (false, false) => Access::ReadWrite,
            (true, false) => Access::ReadOnly,
            (false, true) => Access::WriteOnly,
            (true, true) => return None,
        };
        let covers = rights.modules.as_ref().is_none_or(|modules| modules.contains(&self.module.name));
        if covers { self.module.access.and(granted) } else { None }
    }

    /// Whether set-user-ID and set-group-ID bits are dropped from what is written: by default unless a session is
    /// root's, who could make such files anyway.
    pub(super) fn drops_set_id(&self) -> bool {
        let uid = self.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        self.module.no_setid.unwrap_or(uid != 0)
    }
}

/// What `authorized_keys` says of a key at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyRights {
    /// A line names it, and is for this address.
    Granted(AuthorizedKey),
    /// Lines name it, none of them for this address.
    Elsewhere,
    /// No line names it.
    Unnamed,
}

impl KeyRights {
    pub(super) fn of(keys: &ServerKeys, key: &PublicKey, peer: IpAddr) -> KeyRights {
        match keys.authorize(key, peer) {
            Some(rights) => KeyRights::Granted(rights),
            None if keys.authorized.iter().any(|grant| grant.key == *key) => KeyRights::Elsewhere,
            None => KeyRights::Unnamed,
        }
    }
}

/// All modules, with the sealed file that holds them.
#[derive(Debug)]
pub(super) struct Served {
    sealed: OwnedFd,
    sessions_max: HashMap<String, Option<usize>>,
}

impl Served {
    /// Looks up users and groups. Errors name the module.
    pub(super) fn new(config: &Config) -> Result<Served, String> {
        let modules = config.modules.iter().map(ServedModule::new).collect::<Result<Vec<_>, _>>()?;
        let sealed = seal(&modules).map_err(|error| format!("cannot hold the modules in memory: {error}"))?;
        let sessions_max = config.modules.iter().map(|module| (module.name.clone(), module.max_connections)).collect();
        Ok(Served { sealed, sessions_max })
    }

    /// The file to give to a worker, which may hold it beyond the next reload.
    pub(super) fn sealed(&self) -> &OwnedFd {
        &self.sealed
    }

    /// Sessions that a module allows; `None` where there is no such module.
    pub(super) fn sessions_max(&self, module: &str) -> Option<Option<usize>> {
        self.sessions_max.get(module).copied()
    }
}

fn seal(modules: &[ServedModule]) -> io::Result<OwnedFd> {
    let bytes = serde_json::to_vec(modules)?;
    let mut file =
        File::from(rustix::fs::memfd_create("xfer-modules", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(&bytes)?;
    // One worker must not be able to change what the next one reads.
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

/// Reads what [`seal`] wrote. The offset of the open file is shared with other workers and plays no part.
pub(super) fn unseal(sealed: OwnedFd) -> io::Result<Vec<ServedModule>> {
    let file = File::from(sealed);
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::super::config::parse_config;
    use super::*;

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn module(access: &str, more: &str) -> ServedModule {
        let uid = if more.contains("uid = ") { String::new() } else { format!("uid = {}\n", own_uid()) };
        let text = format!("[[module]]\nname = \"m\"\npath = \"/m\"\naccess = \"{access}\"\n{uid}{more}");
        let config = parse_config(&text).unwrap();
        let served = Served::new(&config).unwrap();
        unseal(served.sealed().try_clone().unwrap()).unwrap().remove(0)
    }

    #[test]
    fn keys_narrow_what_a_module_allows() {
        let key = PublicKey([7; 32]);
        let all = AuthorizedKey::default();
        let reads = KeyRights::Granted(AuthorizedKey { read_only: true, ..all.clone() });
        let writes = KeyRights::Granted(AuthorizedKey { write_only: true, ..all.clone() });
        let other = KeyRights::Granted(AuthorizedKey { modules: Some(vec!["n".into()]), ..all.clone() });
        let all = KeyRights::Granted(all);
        let both = module("read-write", "");
        assert_eq!(both.access(&key, &KeyRights::Unnamed), None);
        assert_eq!(both.access(&key, &all), Some(Access::ReadWrite));
        assert_eq!(both.access(&key, &reads), Some(Access::ReadOnly));
        assert_eq!(both.access(&key, &other), None);
        assert_eq!(module("read-only", "").access(&key, &writes), None);
        let listed = module("read-write", &format!("keys = [\"{key} me\"]"));
        assert_eq!(listed.access(&key, &KeyRights::Unnamed), Some(Access::ReadWrite));
        // The module's list takes back nothing of what a line says.
        assert_eq!(listed.access(&key, &KeyRights::Elsewhere), None);
        assert_eq!(listed.access(&key, &other), None);
        assert_eq!(listed.access(&key, &reads), Some(Access::ReadOnly));
        assert_eq!(listed.access(&PublicKey([8; 32]), &KeyRights::Unnamed), None);
    }

    #[test]
    fn a_root_daemon_must_be_told_whom_sessions_run_as() {
        let served = |text: &str| {
            let served = Served::new(&parse_config(text).unwrap())?;
            Ok::<_, String>(unseal(served.sealed().try_clone().unwrap()).unwrap().remove(0))
        };
        let silent = "[[module]]\nname = \"m\"\npath = \"/m\"\n";
        let temp = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.add(Module::parse(&format!("m={}", temp.path().display())).unwrap()).unwrap();
        let by_path = || unseal(Served::new(&config).unwrap().sealed().try_clone().unwrap()).unwrap().remove(0);
        if own_uid() != 0 {
            assert_eq!(served(silent).unwrap().uid, None);
            assert_eq!(by_path().uid, None);
            return;
        }
        let error = served(silent).unwrap_err();
        assert!(error.contains("\"m\"") && error.contains("uid = \"root\""), "{error}");
        assert!(served(&format!("{silent}gid = 5")).is_err());
        assert_eq!((by_path().uid, by_path().gid), (Some(0), Some(0)));
        std::os::unix::fs::chown(temp.path(), Some(4321), Some(4322)).unwrap();
        assert_eq!((by_path().uid, by_path().gid), (Some(4321), Some(4322)));
        drop(temp);
        assert!(Served::new(&config).unwrap_err().contains("cannot look at"));
    }

    #[test]
    fn set_id_bits_are_dropped_unless_root_writes_them() {
        let drops = |more: &str| module("read-write", more).drops_set_id();
        assert_eq!(drops(""), own_uid() != 0);
        assert!(drops("no_setid = true") && !drops("no_setid = false"));
        if own_uid() == 0 {
            assert!(drops("uid = 4321\ngid = 4322") && !drops("uid = 4321\ngid = 4322\nno_setid = false"));
        }
    }

    #[test]
    fn users_are_looked_up_or_refused() {
        let root = module("read-only", "uid = \"root\"");
        assert_eq!((root.uid, root.gid), (Some(0), Some(0)));
        let text = "[[module]]\nname = \"m\"\npath = \"/m\"\nuid = \"no such user\"";
        let error = Served::new(&parse_config(text).unwrap()).unwrap_err();
        assert!(error.contains("\"m\"") && error.contains("no such user"), "{error}");
        let error = Served::new(&parse_config("[[module]]\nname = \"m\"\npath = \"/m\"\nuid = 3999999999").unwrap());
        assert!(error.unwrap_err().contains("name one"));
    }

    #[test]
    fn a_sealed_file_cannot_be_changed() {
        let served = Served::new(&Config::default()).unwrap();
        let file = File::from(served.sealed().try_clone().unwrap());
        assert!(file.write_at(b"x", 0).is_err() && file.set_len(0).is_err());
    }
}
