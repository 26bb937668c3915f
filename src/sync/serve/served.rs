//! What is served, ready for use: modules with their users looked up, as a sealed file that every worker can read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use super::config::{Access, Config, Module, Principal};
use crate::fs::{NameService, SystemNames};
use crate::net::PublicKey;
use crate::net::keys::AuthorizedKey;

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
                Some(Principal::Name(name)) => match find(name.as_bytes()) {
                    Ok(Some(id)) => Ok(Some(id)),
                    Ok(None) => Err(wrong(what, format!("there is no \"{name}\" on this machine"))),
                    Err(error) => Err(wrong(what, format!("\"{name}\" cannot be looked up: {error}"))),
                },
            }
        };
        let uid = look("uid", &module.uid, &|name| SystemNames.user_id(name))?;
        let mut gid = look("gid", &module.gid, &|name| SystemNames.group_id(name))?;
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

    /// What `key` may do here; `None`: nothing, as if the module were not there. A line of `authorized_keys` that
    /// covers the module is the stricter word where both know the key.
    pub(super) fn access(&self, key: &PublicKey, rights: Option<&AuthorizedKey>) -> Option<Access> {
        let covers =
            |rights: &&AuthorizedKey| rights.modules.as_ref().is_none_or(|modules| modules.contains(&self.module.name));
        if let Some(rights) = rights.filter(covers) {
            let granted = match (rights.read_only, rights.write_only) {
                (false, false) => Access::ReadWrite,
                (true, false) => Access::ReadOnly,
                (false, true) => Access::WriteOnly,
                (true, true) => return None,
            };
            return self.module.access.and(granted);
        }
        self.module.keys.iter().any(|known| known.key == *key).then_some(self.module.access)
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

    fn module(access: &str, more: &str) -> ServedModule {
        let text = format!("[[module]]\nname = \"m\"\npath = \"/m\"\naccess = \"{access}\"\n{more}");
        let config = parse_config(&text).unwrap();
        let served = Served::new(&config).unwrap();
        unseal(served.sealed().try_clone().unwrap()).unwrap().remove(0)
    }

    #[test]
    fn keys_narrow_what_a_module_allows() {
        let key = PublicKey([7; 32]);
        let all = AuthorizedKey::default();
        let reads = AuthorizedKey { read_only: true, ..AuthorizedKey::default() };
        let writes = AuthorizedKey { write_only: true, ..AuthorizedKey::default() };
        let other = AuthorizedKey { modules: Some(vec!["n".into()]), ..AuthorizedKey::default() };
        let both = module("read-write", "");
        assert_eq!(both.access(&key, None), None);
        assert_eq!(both.access(&key, Some(&all)), Some(Access::ReadWrite));
        assert_eq!(both.access(&key, Some(&reads)), Some(Access::ReadOnly));
        assert_eq!(both.access(&key, Some(&other)), None);
        assert_eq!(module("read-only", "").access(&key, Some(&writes)), None);
        let listed = module("read-write", &format!("keys = [\"{key} me\"]"));
        assert_eq!(listed.access(&key, None), Some(Access::ReadWrite));
        assert_eq!(listed.access(&key, Some(&other)), Some(Access::ReadWrite));
        assert_eq!(listed.access(&key, Some(&reads)), Some(Access::ReadOnly));
        assert_eq!(listed.access(&PublicKey([8; 32]), None), None);
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
