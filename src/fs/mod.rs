//! The edge to file systems: directories held by descriptor, names listed, files staged and committed, metadata
//! applied, content copied. Linux only, no policy, no threads.
//!
//! Everything is resolved against a held descriptor, so that a name swapped for a symbolic link meanwhile can lead
//! nowhere else. Where a kernel or a file system lacks a call there is a fallback that is at least as strict.
#![allow(clippy::disallowed_methods, reason = "this is the edge to file systems; its tests build trees")]

mod base;
mod beneath;
mod copy;
mod dir;
mod files;
mod ids;
mod info;
mod listing;
mod lock;
mod meta;
mod sparse;
mod stage;
mod xattr;

pub use base::{Base, Hides, Top, hidden, is_confined};
pub use copy::{copy_file_data, copy_range_in_kernel, read_exact_or_eof_at, write_all_at};
pub use dir::{Dir, metadata_of};
pub use ids::{
    NameService, SystemNames, am_root, group_id, group_name, groups, raise_open_files_limit, set_name_service, umask,
    user_id, user_name,
};
pub use info::Space;
pub use listing::NameList;
pub use lock::{DestinationLock, LockError, boot_id, process_command};
pub use meta::{MetadataChange, apply, replaced};
pub use sparse::{DataRanges, data_ranges, write_sparse_at};
pub use stage::{Stage, is_stage_dir_name, is_stage_name, stage_dir_name, stage_name};
pub use xattr::{Pinned, Target, read_acls, read_xattrs};

#[cfg(test)]
mod tests;
