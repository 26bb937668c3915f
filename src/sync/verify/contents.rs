//! File contents: digests of both ends, which come in any order.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::node::PieceWork;
use crate::fs::Dir;
use crate::limits;
use crate::model::{Digest, Name, PieceId};
use crate::sync::StopFlag;
use crate::sync::content::digest_file;
use crate::sync::sender::read::SourceFile;
use crate::wire::FileKey;

/// Why a file has no digest.
#[derive(Debug)]
pub(super) enum NoDigest {
    /// It kept changing.
    Changed,
    Open(io::Error),
    Read(io::Error),
}

/// The digest of a file as it stands; a file that changes meanwhile is read again.
pub(super) fn digest_of(dir: &Arc<Dir>, name: &Name, followed: bool, stop: &StopFlag) -> Result<Digest, NoDigest> {
    for _ in 0..limits::CHANGED_FILE_READS_MAX {
        let file = SourceFile::open(dir, name, followed).map_err(NoDigest::Open)?;
        let digest = digest_file(&file.file, file.before.size, stop).map_err(NoDigest::Read)?;
        if let Some(digest) = digest
            && file.is_unchanged().map_err(NoDigest::Read)?
        {
            return Ok(digest);
        }
    }
    Err(NoDigest::Changed)
}

/// One end's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Still to come.
    Awaited,
    /// It could not be taken, which was told.
    Failed,
    Is(Digest),
}

#[derive(Debug)]
struct Sides {
    source: Side,
    there: Side,
}

/// A file whose content is compared, or whose digest alone is wanted.
#[derive(Debug)]
pub(in crate::sync) struct FileCheck {
    pub(super) work: Arc<PieceWork>,
    pub(super) index: usize,
    /// What else differs.
    pub(super) reasons: Vec<String>,
    /// The destination has a file of this name and length.
    pub(super) compares: bool,
    sides: Mutex<Sides>,
}

/// What both ends say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared {
    pub(super) source: Option<Digest>,
    pub(super) differs: bool,
    /// Both ends are known, or the destination's does not matter.
    pub(super) is_proven: bool,
}

impl FileCheck {
    pub(super) fn new(work: Arc<PieceWork>, index: usize, reasons: Vec<String>, compares: bool) -> Arc<FileCheck> {
        let there = if compares { Side::Awaited } else { Side::Failed };
        let sides = Mutex::new(Sides { source: Side::Awaited, there });
        Arc::new(FileCheck { work, index, reasons, compares, sides })
    }

    /// Its number in the session.
    pub(in crate::sync) fn key(&self) -> FileKey {
        FileKey { piece: self.piece(), index: self.index as u16 }
    }

    /// Its piece.
    pub(in crate::sync) fn piece(&self) -> PieceId {
        self.work.piece().id
    }

    /// One more end is known; the whole when it was the last.
    pub(super) fn know(&self, source: Option<Side>, there: Option<Side>) -> Option<Compared> {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = source {
            sides.source = source;
        }
        if let Some(there) = there {
            sides.there = there;
        }
        let Sides { source, there } = *sides;
        if source == Side::Awaited || there == Side::Awaited {
            return None;
        }
        let is_proven = matches!(source, Side::Is(_)) && (!self.compares || matches!(there, Side::Is(_)));
        let source = match source {
            Side::Is(digest) => Some(digest),
            _ => None,
        };
        let differs = is_proven && self.compares && there != source.map_or(Side::Failed, Side::Is);
        Some(Compared { source, differs, is_proven })
    }
}
