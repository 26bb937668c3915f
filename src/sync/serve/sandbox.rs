//! What a session's process gives away before it works for its peer: everything but the module's tree.
#![allow(clippy::disallowed_methods, reason = "the process looks at its own threads")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What a session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Writes beneath the root, not only reads.
    pub write: bool,
    /// Reads wherever links lead, by the module's own word.
    pub read_anywhere: bool,
    /// Whom it runs as from now on.
    pub uid: Option<u32>,
    /// See [`Needs::uid`].
    pub gid: Option<u32>,
}

/// A step that failed: the session must not begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct SandboxError {
    step: &'static str,
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError { step, source: source.into() }
}

/// What a receiver that runs as root needs for owners, modes, devices and attributes of others' files.
const TO_WRITE: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::MKNOD);

/// What a sender needs that runs as root: to read everything, as root does.
const TO_READ: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// What [`confine`] needs on top, once: to become the module's user, and to give up the rest for good.
const TO_CONFINE: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::SETPCAP);

/// The first step, before a byte of the peer is read: privileges, descriptors and memory that no session needs are
/// gone while the handshake runs. The calling process must have one thread; of its descriptors, standard input to
/// standard error and `keep` stay.
pub(super) fn strip(keep: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
    only_thread()?;
    no_dumps()?;
    rustix::thread::set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    keep_capabilities(TO_WRITE.union(TO_CONFINE))?;
    close_others(keep)
}

fn no_dumps() -> Result<(), SandboxError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(failed("forbid core dumps"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid memory dumps"))
}

/// Closes what whoever started the daemon left open without meaning it for anybody. Nothing in this process may own a
/// descriptor that is not in `keep`.
fn close_others(keep: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
    let step = "close descriptors that are not its own";
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").map_err(failed(step))? {
        let name = entry.map_err(failed(step))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for number in numbers {
        if number > rustix::stdio::raw_stderr() && !keep.iter().any(|kept| kept.as_raw_fd() == number) {
            // The directory's own is among them, and closed already.
            match nix::unistd::close(number) {
                Ok(()) | Err(nix::errno::Errno::EBADF) => {}
                Err(error) => return Err(failed(step)(io::Error::from(error))),
            }
        }
    }
    Ok(())
}

/// Confines the calling process, which must have one thread, to what is beneath `root`. What it returns is what the
/// kernel could not do, to be logged: the second wall may be missing, the first (names resolved beneath the root's
/// descriptor) is always there.
///
/// Threads inherit all of it. There is no way back.
pub fn confine(root: impl AsFd, needs: Needs) -> Result<Option<String>, SandboxError> {
    only_thread()?;
    no_dumps()?;
    become_user(needs)?;
    keep_capabilities(if needs.write { TO_WRITE } else { TO_READ })?;
    rustix::thread::set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    // After the change of user, which resets it: no tracer, no memory to be read by others.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid memory dumps"))?;
    landlock(root, needs)
}

/// Privileges belong to threads in Linux: one that is already there would keep all of its own.
fn only_thread() -> Result<(), SandboxError> {
    let step = "count the threads of this process";
    let threads = std::fs::read_dir("/proc/self/task").map_err(failed(step))?.count();
    if threads == 1 { Ok(()) } else { Err(failed(step)(io::Error::other(format!("{threads} instead of one")))) }
}

fn become_user(needs: Needs) -> Result<(), SandboxError> {
    use rustix::process::{getegid, geteuid};
    use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let gid = Gid::from_raw(needs.gid.unwrap_or_else(|| getegid().as_raw()));
    let changes = needs.uid.is_some_and(|uid| uid != geteuid().as_raw()) || gid != getegid();
    let held = rustix::thread::capabilities(None).map_err(failed("look at its capabilities"))?;
    // Groups are dropped also where the user stays: rights beneath the root come from user and group alone. An
    // ordinary user's process may not; what it keeps are the rights of whoever started the daemon.
    if !changes && !held.effective.contains(CapabilitySet::SETGID) {
        return Ok(());
    }
    set_thread_groups(&[gid]).map_err(failed("give up groups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(failed("change the group"))?;
    if let Some(uid) = needs.uid {
        let uid = Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid).map_err(failed("change the user"))?;
    }
    Ok(())
}

/// Of those that this process holds, only `wanted` stay, here and in what it could ever become.
fn keep_capabilities(wanted: CapabilitySet) -> Result<(), SandboxError> {
    let step = "give up capabilities";
    let held = rustix::thread::capabilities(None).map_err(failed(step))?;
    let kept = held.permitted & wanted;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            let there = rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false);
            if there && !kept.contains(one) {
                rustix::thread::remove_capability_from_bounding_set(one).map_err(failed(step))?;
            }
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    // Ambient ones go with the inheritable ones.
    rustix::thread::set_capabilities(None, sets).map_err(failed(step))
}

fn landlock(root: impl AsFd, needs: Needs) -> Result<Option<String>, SandboxError> {
    let step = "restrict itself to the module (landlock)";
    // Older ones would forbid links and renames between directories.
    let probe = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::Refer);
    if let Err(error) = probe.and_then(|ruleset| ruleset.create()) {
        return Ok(Some(format!("landlock is missing, off or too old here: {error}")));
    }
    let newest = ABI::V7;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = needs.read_anywhere.then(|| rustix::fs::open("/", flags, Mode::empty()));
    let top = top.transpose().map_err(failed(step))?;
    let ruleset = move || -> Result<(), RulesetError> {
        let to_read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
        let mut allowed = to_read;
        if needs.write {
            // Everything but running programs and talking to devices and sockets.
            allowed |= AccessFs::from_write(newest) & !(AccessFs::IoctlDev | AccessFs::ResolveUnix);
        }
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(newest))?
            .handle_access(AccessNet::from_all(newest))?
            .scope(Scope::Signal)?
            .create()?
            .add_rule(PathBeneath::new(root, allowed))?;
        if let Some(top) = top {
            ruleset = ruleset.add_rule(PathBeneath::new(top, to_read))?;
        }
        ruleset.restrict_self()?;
        Ok(())
    };
    ruleset().map_err(|error| failed(step)(io::Error::other(error)))?;
    Ok(None)
}
