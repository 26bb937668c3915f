//! What the user wants of a sync, after all flags are understood. The far end gets the same values.

use serde::{Deserialize, Serialize};

use super::chmod::ChmodRules;
use super::filter::FilterRules;
use super::idmap::IdMaps;

/// How far into directories a sync goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Recursion {
    /// Directories are skipped, and told.
    #[default]
    Skip,
    /// `-d`: the directories themselves; contents only of those named with a trailing slash or as `.`.
    Shallow,
    /// `-r`.
    Deep,
}

/// When a file at both ends is taken for equal without a look at its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum QuickCheck {
    /// Length and mtime agree.
    #[default]
    SizeAndTime,
    /// `--size-only`.
    SizeOnly,
    /// `-I`: never.
    Never,
    /// `-c`: lengths agree, and digests too.
    Checksum,
}

/// What happens to symbolic links, in rsync's order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPolicy {
    /// `-l`: links are copied as links; otherwise they are skipped and told.
    pub copy_as_links: bool,
    /// `-L`: all links are followed.
    pub follow_all: bool,
    /// `-k`: links to directories are followed.
    pub follow_dirs: bool,
    /// `--copy-unsafe-links`: links that point outside the copied tree are followed.
    pub follow_unsafe: bool,
    /// `--safe-links`: links that point outside the copied tree are left out.
    pub skip_unsafe: bool,
    /// `-K`: a link to a directory at the destination serves as that directory.
    pub keep_dir_links: bool,
}

/// Which metadata are carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preserve {
    /// `-p`.
    pub perms: bool,
    /// `-E`: executability only, where `perms` is off.
    pub executability: bool,
    /// `-t`.
    pub times: bool,
    /// `-O`: not those of directories.
    pub omit_dir_times: bool,
    /// `-J`: not those of symbolic links.
    pub omit_link_times: bool,
    /// `-U`.
    pub atimes: bool,
    /// `-o`.
    pub owner: bool,
    /// `-g`.
    pub group: bool,
    /// `--devices`.
    pub devices: bool,
    /// `--specials`.
    pub specials: bool,
    /// `-H`.
    pub hard_links: bool,
    /// `-A`.
    pub acls: bool,
    /// `-X`.
    pub xattrs: bool,
    /// `--no-setid`: set-user-ID and set-group-ID bits are dropped.
    pub no_setid: bool,
}

/// Deletion of what the source no longer has. Always after the transfer, whichever variant was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// Any `--delete…`.
    pub enabled: bool,
    /// `--delete-excluded`.
    pub excluded_too: bool,
    /// `--max-delete`.
    pub max: Option<u64>,
    /// `--ignore-errors`: deletes although the source could not be read in full.
    pub ignore_errors: bool,
    /// `--force`: a directory that is not empty gives way to another kind, even without deletion.
    pub force: bool,
    /// `--allow-empty-source`.
    pub allow_empty_source: bool,
}

/// `--compress-choice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd, at a level, or by default at one chosen by xfer.
    Zstd {
        /// 1 to 19; `None`: chosen.
        level: Option<i32>,
    },
    /// lz4.
    Lz4,
}

/// `-b`, with where replaced files go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// `--backup-dir`, as given (absolute, or relative to the destination's root); `None`: beside the file.
    pub dir: Option<Vec<u8>>,
    /// `--suffix`: `~` by default without a directory, empty with one.
    pub suffix: Vec<u8>,
}

/// What an alternative destination is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AltDestKind {
    /// `--compare-dest`: equal there means nothing to do.
    Compare,
    /// `--copy-dest`: equal there is copied from there.
    Copy,
    /// `--link-dest`: equal there, attributes included, is hard-linked from there.
    Link,
}

/// `--compare-dest`, `--copy-dest`, `--link-dest`: one kind, several directories in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AltDests {
    /// The kind of all of them.
    pub kind: AltDestKind,
    /// Directories, absolute or relative to the destination's root.
    pub dirs: Vec<Vec<u8>>,
}

/// What the client wants to hear of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ItemReport {
    /// Nothing.
    #[default]
    None,
    /// Everything that was created, changed or deleted.
    Changed,
    /// Unchanged entries too (`-ii`, `-vv`).
    All,
}

/// A sync, as the engine understands it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncOptions {
    /// `-r`, `-d`.
    pub recursion: Recursion,
    /// `-R`: paths as given on the command line are recreated.
    pub relative: bool,
    /// Off with `--no-implied-dirs`: attributes of the directories that `-R` implies are carried over when on.
    pub implied_dirs: bool,
    /// `-x`; twice: mount points are left out altogether.
    pub one_file_system: u8,
    /// `-m`.
    pub prune_empty_dirs: bool,
    /// Link policy.
    pub links: LinkPolicy,
    /// Metadata.
    pub preserve: Preserve,
    /// `-S`.
    pub sparse: bool,
    /// `--numeric-ids`.
    pub numeric_ids: bool,
    /// `--usermap`, `--groupmap`, `--chown`.
    pub id_maps: IdMaps,
    /// `--chmod`.
    pub chmod: ChmodRules,
    /// Deletion.
    pub deletion: Deletion,
    /// Filter rules in order, `--exclude…`, `--include…`, `-f`, `-F` and merge files read in.
    pub filters: FilterRules,
    /// `--files-from`: the paths, as read; relative to the one source.
    pub files_from: Option<Vec<Vec<u8>>>,
    /// Quick check.
    pub quick_check: QuickCheck,
    /// `--modify-window`, in nanoseconds; `None`: whatever the destination's file system can hold.
    pub modify_window_ns: Option<u64>,
    /// `-u`.
    pub update: bool,
    /// `--existing`.
    pub existing_only: bool,
    /// `--ignore-existing`.
    pub ignore_existing: bool,
    /// `--max-size`, in bytes.
    pub max_size: Option<u64>,
    /// `--min-size`, in bytes.
    pub min_size: Option<u64>,
    /// `-W`, `--no-whole-file`; `None`: whole for local copies, delta over a link.
    pub whole_file: Option<bool>,
    /// `--inplace`.
    pub inplace: bool,
    /// `--append-verify`.
    pub append_verify: bool,
    /// `--partial`.
    pub partial: bool,
    /// `--partial-dir`, as given; implies `partial`.
    pub partial_dir: Option<Vec<u8>>,
    /// `-b`.
    pub backup: Option<Backup>,
    /// `--link-dest` and its kin.
    pub alt_dests: Option<AltDests>,
    /// `-z`.
    pub compression: Option<Compression>,
    /// `--bwlimit`, bytes a second.
    pub bwlimit_bytes_per_s: Option<u64>,
    /// `--timeout`, seconds; `None`: none.
    pub timeout_s: Option<u64>,
    /// `--fsync`.
    pub fsync: bool,
    /// `--live`.
    pub live: bool,
    /// `--fail-fast`: the first problem ends the run.
    pub fail_fast: bool,
    /// `--remove-source-files`.
    pub remove_source_files: bool,
    /// `--ignore-missing-args`.
    pub ignore_missing_args: bool,
    /// `--mkpath`.
    pub mkpath: bool,
    /// `-n`.
    pub dry_run: bool,
    /// `--list-only`.
    pub list_only: bool,
    /// What the client wants to hear.
    pub item_report: ItemReport,
    /// Details for `-v` (`skipping directory …`) are wanted.
    pub details: bool,
}
