//! Which permission bits an entry gets at the destination.

use super::options::SyncOptions;
use crate::model::Kind;

/// Set-user-ID and set-group-ID.
const SET_ID: u32 = 0o6000;
const EXECUTE: u32 = 0o111;

/// What a new entry gets where permissions are not carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEntryDefaults {
    /// Bits that are allowed: `0o777` without the receiver's umask, or what the parent's default access control list
    /// says.
    pub permissions: u32,
    /// The parent directory hands its group on, and so does a new directory in it.
    pub parent_set_group_id: bool,
}

impl NewEntryDefaults {
    /// From the receiver's umask, in a directory that hands nothing on.
    pub fn from_umask(umask: u32) -> NewEntryDefaults {
        NewEntryDefaults { permissions: 0o777 & !umask, parent_set_group_id: false }
    }
}

/// The source's bits after `--chmod` and `--no-setid`: what `-p` carries over. Symbolic links have none of their own.
pub fn source_mode(mode: u32, kind: Kind, options: &SyncOptions) -> u32 {
    if kind == Kind::Symlink {
        return mode & 0o7777;
    }
    let mode = options.chmod.apply(mode, kind == Kind::Dir);
    // Last, so that a peer's chmod rules bring no bit back.
    if options.preserve.no_setid { mode & !SET_ID } else { mode }
}

/// The bits at the destination, for an entry of `kind` with `mode` at the source; `existing` are those of an entry of
/// the same kind that is there already.
///
/// With `-p` (and `-A`, which implies it) the source's. Without, an existing entry keeps its own, save where `-E` says
/// otherwise for a file, and a new one gets the source's as far as the defaults allow, without special bits.
pub fn destination_mode(
    mode: u32,
    kind: Kind,
    existing: Option<u32>,
    defaults: NewEntryDefaults,
    options: &SyncOptions,
) -> u32 {
    let source = source_mode(mode, kind, options);
    if options.preserve.perms || options.preserve.acls {
        return source;
    }
    match existing {
        Some(existing) if options.preserve.executability && kind == Kind::File => {
            with_executability(existing, source & EXECUTE != 0)
        }
        Some(existing) => existing,
        None if kind == Kind::Dir && defaults.parent_set_group_id => (source & defaults.permissions & 0o777) | 0o2000,
        None => source & defaults.permissions & 0o777,
    }
}

/// Nobody may execute, or all who may read; a file that somebody may execute is executable enough.
fn with_executability(mode: u32, executable: bool) -> u32 {
    match (executable, mode & EXECUTE != 0) {
        (true, false) => mode | ((mode & 0o444) >> 2),
        (false, true) => mode & !EXECUTE,
        _ => mode,
    }
}

/// The bits of an existing file whose content is replaced: with `--no-setid`, content from the peer runs as nobody
/// else, whatever the file was before.
pub(super) fn mode_of_replaced(mode: u32, kind: Kind, options: &SyncOptions) -> u32 {
    if options.preserve.no_setid && kind != Kind::Dir { mode & !SET_ID } else { mode }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::chmod::ChmodRules;
    use crate::plan::options::Preserve;

    fn options(perms: bool, executability: bool, no_setid: bool, chmod: &str) -> SyncOptions {
        let chmod = if chmod.is_empty() { ChmodRules::default() } else { ChmodRules::parse(chmod, 0o022).unwrap() };
        let preserve = Preserve { perms, executability, no_setid, ..Preserve::default() };
        SyncOptions { preserve, chmod, ..SyncOptions::default() }
    }

    #[test]
    fn modes_follow_rsyncs_rules() {
        let umask = NewEntryDefaults::from_umask(0o022);
        let mode = |options: &SyncOptions, kind, mode, existing| destination_mode(mode, kind, existing, umask, options);
        let none = options(false, false, false, "");
        assert_eq!(mode(&none, Kind::File, 0o4777, None), 0o755);
        assert_eq!(mode(&none, Kind::File, 0o600, Some(0o4644)), 0o4644);
        assert_eq!(mode(&none, Kind::Dir, 0o2777, None), 0o755);
        let inherited = NewEntryDefaults { parent_set_group_id: true, ..umask };
        assert_eq!(destination_mode(0o777, Kind::Dir, None, inherited, &none), 0o2755);
        assert_eq!(destination_mode(0o777, Kind::File, None, inherited, &none), 0o755);

        let executable = options(false, true, false, "");
        assert_eq!(mode(&executable, Kind::File, 0o700, Some(0o644)), 0o755);
        assert_eq!(mode(&executable, Kind::File, 0o700, Some(0o755)), 0o755);
        assert_eq!(mode(&executable, Kind::File, 0o600, Some(0o755)), 0o644);
        assert_eq!(mode(&executable, Kind::Dir, 0o700, Some(0o755)), 0o755);
        assert_eq!(mode(&executable, Kind::File, 0o755, None), 0o755);

        let all = options(true, false, false, "");
        assert_eq!(mode(&all, Kind::File, 0o4755, Some(0o600)), 0o4755);
        assert_eq!(mode(&all, Kind::Fifo, 0o4600, None), 0o4600);
        assert_eq!(mode(&options(true, false, true, "u+s"), Kind::File, 0o4755, None), 0o755);
        assert_eq!(mode(&options(false, false, false, "u=rwx"), Kind::File, 0o644, None), 0o744);
        assert_eq!(mode(&options(false, false, false, "u=rwx"), Kind::File, 0o644, Some(0o644)), 0o644);
        assert_eq!(mode(&options(true, false, false, "a="), Kind::Symlink, 0o777, None), 0o777);
    }
}
