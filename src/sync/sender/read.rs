//! Reading source files so that a file that changes meanwhile is noticed.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::fs::{self, Dir};
use crate::limits;
use crate::model::{Metadata, Name, Timestamp};
use crate::sync::clock;
use crate::wire::Content;

/// A source file, opened, with what it was before the first byte was read.
#[derive(Debug)]
pub(in crate::sync) struct SourceFile {
    pub(in crate::sync) file: File,
    pub(in crate::sync) before: Metadata,
}

impl SourceFile {
    /// Opens a regular file. Within one tick of the kernel's coarse clock after its last write, a further write would not
    /// move the mtime: such a file is left to age first.
    pub(in crate::sync) fn open(dir: &Arc<Dir>, name: &Name, followed: bool) -> io::Result<SourceFile> {
        let (file, mut before) = match followed {
            true => dir.open_file_following_with_metadata(name)?,
            false => dir.open_file_with_metadata(name)?,
        };
        let age_ns = clock::now().total_nanoseconds() - before.mtime.max(before.ctime).total_nanoseconds();
        if (0..i128::from(limits::RACY_MTIME_NS)).contains(&age_ns) {
            clock::sleep_ns(limits::RACY_MTIME_NS as u64 - age_ns as u64);
            before = fs::metadata_of(&file)?;
        }
        Ok(SourceFile { file, before })
    }

    /// What the wire and the commit need to know of it.
    pub(in crate::sync) fn content(&self) -> Content {
        let before = &self.before;
        Content { size: before.size, mtime: before.mtime, mode: before.mode, uid: before.uid, gid: before.gid }
    }

    /// Whether the file is still what it was when it was opened.
    pub(in crate::sync) fn is_unchanged(&self) -> io::Result<bool> {
        Ok(fs::metadata_of(&self.file)?.same_content_as(&self.before))
    }
}

/// The mtime that a file gets which was committed although it changed while it was read: one that no source has, so
/// that the next pass looks again, and older than any, so that `-u` does not take it for newer.
pub(in crate::sync) const LIVE_MTIME: Timestamp = Timestamp::new(1, 428_571_429);
