//! Who this process is, what it may, and the system's names for users and groups.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::sync::{LazyLock, OnceLock, RwLock};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::process::{Resource, Rlimit};

use crate::limits;

/// Who is asked for the names of users and groups.
///
/// A process that may not read the system's files any more asks one that may. `Err` means that nothing is known: it is
/// asked again next time.
pub trait NameService: Send + Sync {
    /// The name of a user; `None` where there is no such user.
    fn user_name(&self, uid: u32) -> io::Result<Option<Vec<u8>>>;
    /// The id of a user by name.
    fn user_id(&self, name: &[u8]) -> io::Result<Option<u32>>;
    /// The name of a group.
    fn group_name(&self, gid: u32) -> io::Result<Option<Vec<u8>>>;
    /// The id of a group by name.
    fn group_id(&self, name: &[u8]) -> io::Result<Option<u32>>;
}

/// The system's own name service, asked anew each time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNames;

impl NameService for SystemNames {
    fn user_name(&self, uid: u32) -> io::Result<Option<Vec<u8>>> {
        Ok(User::from_uid(Uid::from_raw(uid))?.map(|user| user.name.into_bytes()))
    }

    fn user_id(&self, name: &[u8]) -> io::Result<Option<u32>> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
    }

    fn group_name(&self, gid: u32) -> io::Result<Option<Vec<u8>>> {
        Ok(Group::from_gid(Gid::from_raw(gid))?.map(|group| group.name.into_bytes()))
    }

    fn group_id(&self, name: &[u8]) -> io::Result<Option<u32>> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
    }
}

impl SystemNames {
    /// The group that a user has by default; `None` where there is no such user.
    pub fn primary_group(uid: u32) -> io::Result<Option<u32>> {
        Ok(User::from_uid(Uid::from_raw(uid))?.map(|user| user.gid.as_raw()))
    }
}

static SERVICE: OnceLock<Box<dyn NameService>> = OnceLock::new();

/// Asks `service` from now on. Whether it was the first to be set: nobody changes it later.
pub fn set_name_service(service: Box<dyn NameService>) -> bool {
    SERVICE.set(service).is_ok()
}

fn service() -> &'static dyn NameService {
    SERVICE.get().map_or(&SystemNames, |service| &**service)
}

/// Names known so far, and ids known to have none: each is one question to the name service, which may be a network.
struct Cache<K, V>(RwLock<HashMap<K, Option<V>>>);

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    fn new() -> Cache<K, V> {
        Cache(RwLock::new(HashMap::new()))
    }

    /// The cached answer, or a fresh one. A question that failed is asked again next time.
    fn get(&self, key: &K, ask: impl FnOnce() -> io::Result<Option<V>>) -> Option<V> {
        if let Ok(known) = self.0.read()
            && let Some(answer) = known.get(key)
        {
            return answer.clone();
        }
        let answer = ask().ok()?;
        if let Ok(mut known) = self.0.write()
            && known.len() < limits::NAMES_CACHED_MAX
        {
            known.insert(key.clone(), answer.clone());
        }
        answer
    }
}

type ById = LazyLock<Cache<u32, Vec<u8>>>;
type ByName = LazyLock<Cache<Vec<u8>, u32>>;

/// The system's name of a user; `None` where it has none.
pub fn user_name(uid: u32) -> Option<Vec<u8>> {
    static NAMES: ById = LazyLock::new(Cache::new);
    NAMES.get(&uid, || service().user_name(uid))
}

/// The id of a user by name, not of a number written as text.
pub fn user_id(name: &[u8]) -> Option<u32> {
    static IDS: ByName = LazyLock::new(Cache::new);
    IDS.get(&name.to_vec(), || service().user_id(name))
}

/// The system's name of a group; `None` where it has none.
pub fn group_name(gid: u32) -> Option<Vec<u8>> {
    static NAMES: ById = LazyLock::new(Cache::new);
    NAMES.get(&gid, || service().group_name(gid))
}

/// The id of a group by name.
pub fn group_id(name: &[u8]) -> Option<u32> {
    static IDS: ByName = LazyLock::new(Cache::new);
    IDS.get(&name.to_vec(), || service().group_id(name))
}

/// Whether the effective user is root, as rsync asks it. A file system may still refuse.
pub fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// All groups of this process, the effective one included, sorted: those that a file may be given to without being
/// root.
pub fn groups() -> &'static [u32] {
    static GROUPS: OnceLock<Vec<u32>> = OnceLock::new();
    GROUPS.get_or_init(|| {
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        groups.sort_unstable();
        groups.dedup();
        groups
    })
}

/// The process's file creation mask, read once.
///
/// From `/proc`, since the system call that reads it also sets it. Without `/proc` that call is what is left.
/// RACE: what other threads create at that moment comes out with tighter permissions than asked for.
pub fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read("/proc/self/status").unwrap_or_default();
        umask_of_status(&status).unwrap_or_else(|| {
            let tight = rustix::fs::Mode::from_raw_mode(0o077);
            let mask = rustix::process::umask(tight);
            rustix::process::umask(mask);
            mask.as_raw_mode() & 0o777
        })
    })
}

fn umask_of_status(status: &[u8]) -> Option<u32> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Umask:"))?;
    u32::from_str_radix(std::str::from_utf8(line).ok()?.trim(), 8).ok().filter(|mask| *mask <= 0o777)
}

/// Lets this process have as many open files as it may, and says how many that is (`None`: no limit).
pub fn raise_open_files_limit() -> Option<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && rustix::process::setrlimit(Resource::Nofile, wanted).is_err() {
        return limit.current;
    }
    limit.maximum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_nonsense_has_none() {
        assert_eq!(user_name(0).as_deref(), Some(&b"root"[..]));
        assert_eq!(user_id(b"root"), Some(0));
        assert_eq!(group_name(0).as_deref(), Some(&b"root"[..]));
        assert_eq!(group_id(b"root"), Some(0));
        for _ in 0..2 {
            assert_eq!(user_name(3_999_999_999), None);
            assert_eq!(user_id(b"no such user"), None);
            assert_eq!(user_id(b"\xff"), None);
            assert_eq!(user_id(b"ro\0ot"), None);
            assert_eq!(group_id(b"0"), None);
        }
    }

    #[test]
    fn the_umask_is_read_from_proc() {
        assert_eq!(umask_of_status(b"Name:\tx\nUmask:\t0027\nState:\tR\n"), Some(0o027));
        assert_eq!(umask_of_status(b"Name:\tx\n"), None);
        assert_eq!(umask_of_status(b"Umask:\tx\n"), None);
        assert!(umask() <= 0o777);
    }

    #[test]
    fn the_effective_group_is_among_the_groups() {
        assert!(groups().contains(&rustix::process::getegid().as_raw()));
    }

    #[test]
    fn the_open_files_limit_is_the_hard_one() {
        let limit = raise_open_files_limit();
        assert_eq!(rustix::process::getrlimit(Resource::Nofile).current, limit);
    }
}
