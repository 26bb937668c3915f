//! The words that every room shares: paths, entries, metadata, digests, problems. No IO.

mod acl;
mod digest;
mod entry;
mod listing;
mod path;
mod problem;
mod stats;

pub use acl::{Acl, AclEntry, AclError, AclTag, Acls};
pub use digest::{ContentHasher, Digest, EarlySegments, SegmentDigests, ZERO_SEGMENT_DIGEST_BYTES, segment_digest};
pub use entry::{Entry, HardLink, Kind, KindCounts, Metadata, Timestamp, Xattr, Xattrs};
pub use listing::{DirId, ListedEntry, Piece, PieceId, piece_cost};
pub use path::{Name, PathError, RelPath, display_bytes};
pub use problem::{Operation, Problem, ProblemKind};
pub use stats::{Outcome, Stats};
