//! Listing pieces on the wire.

use super::{DecodeError, Decoder, Encoder};
use crate::limits;
use crate::model::{
    Acl, Acls, DirId, Entry, HardLink, Kind, ListedEntry, Metadata, Name, Piece, PieceId, Timestamp, Xattr, Xattrs,
};

const FLAG_DESCEND: u64 = 1;
const FLAG_IMPLIED: u64 = 2;
const FLAG_LINK_TARGET: u64 = 4;
const FLAG_HARD_LINK: u64 = 8;
const FLAG_ACLS: u64 = 16;
const FLAG_XATTRS: u64 = 32;
const FLAG_SAME_OWNER: u64 = 64;
const FLAGS_ALL: u64 = 127;

const PIECE_LAST: u64 = 1;
const PIECE_WHOLE: u64 = 2;

/// Appends a piece. Names share prefixes with the one before; owners that repeat are left out; times are relative to
/// the entry before.
pub(super) fn encode_piece(piece: &Piece, out: &mut Encoder<'_>) {
    out.uint(piece.id.0);
    out.uint(piece.dir.0);
    out.uint(piece.first_child.0);
    out.uint(if piece.last { PIECE_LAST } else { 0 } | if piece.whole { PIECE_WHOLE } else { 0 });
    out.bytes(piece.after.as_ref().map_or(&[], |name| name.as_bytes()));
    out.uint(piece.merge_files.len() as u64);
    for (name, content) in &piece.merge_files {
        out.bytes(name);
        out.bytes(content);
    }
    out.uint(piece.entries.len() as u64);
    let mut before = Context::default();
    for listed in &piece.entries {
        encode_entry(listed, &mut before, out);
    }
}

/// What an entry may refer to: the one before it.
#[derive(Default)]
struct Context {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    mtime_s: i64,
}

fn encode_entry(listed: &ListedEntry, before: &mut Context, out: &mut Encoder<'_>) {
    let entry = &listed.entry;
    let metadata = &entry.metadata;
    let name = entry.name.as_bytes();
    let shared = name.iter().zip(&before.name).take_while(|(a, b)| a == b).count();
    let same_owner = metadata.uid == before.uid && metadata.gid == before.gid;
    let mut flags = 0;
    for (set, flag) in [
        (listed.descend, FLAG_DESCEND),
        (listed.implied, FLAG_IMPLIED),
        (entry.link_target.is_some(), FLAG_LINK_TARGET),
        (entry.hard_link.is_some(), FLAG_HARD_LINK),
        (entry.acls.is_some(), FLAG_ACLS),
        (entry.xattrs.is_some(), FLAG_XATTRS),
        (same_owner, FLAG_SAME_OWNER),
    ] {
        if set {
            flags |= flag;
        }
    }
    out.uint(flags);
    out.uint(shared as u64);
    out.bytes(&name[shared..]);
    out.u8(metadata.kind as u8);
    out.uint(u64::from(metadata.mode));
    if !same_owner {
        out.uint(u64::from(metadata.uid));
        out.uint(u64::from(metadata.gid));
    }
    out.uint(metadata.size);
    out.uint(metadata.blocks);
    out.int(metadata.mtime.seconds.wrapping_sub(before.mtime_s));
    out.uint(u64::from(metadata.mtime.nanoseconds));
    out.int(metadata.atime.seconds.wrapping_sub(metadata.mtime.seconds));
    out.uint(u64::from(metadata.atime.nanoseconds));
    if metadata.kind.is_device() {
        out.uint(u64::from(metadata.rdev.0));
        out.uint(u64::from(metadata.rdev.1));
    }
    if let Some(target) = &entry.link_target {
        out.bytes(target);
    }
    if let Some(link) = entry.hard_link {
        out.uint(link.group);
    }
    if let Some(acls) = &entry.acls {
        out.bytes(&acls.access.as_ref().map(Acl::to_xattr).unwrap_or_default());
        out.bytes(&acls.default.as_ref().map(Acl::to_xattr).unwrap_or_default());
    }
    if let Some(xattrs) = &entry.xattrs {
        out.uint(xattrs.len() as u64);
        for xattr in xattrs {
            out.bytes(&xattr.name);
            out.bytes(&xattr.value);
        }
    }
    before.name.clear();
    before.name.extend_from_slice(name);
    before.uid = metadata.uid;
    before.gid = metadata.gid;
    before.mtime_s = metadata.mtime.seconds;
}

/// Appends one entry that belongs to no piece.
pub(super) fn encode_single(listed: &ListedEntry, out: &mut Encoder<'_>) {
    encode_entry(listed, &mut Context::default(), out);
}

/// Reads one entry that belongs to no piece.
pub(super) fn decode_single(from: &mut Decoder<'_>) -> Result<ListedEntry, DecodeError> {
    decode_entry(&mut Context::default(), from)
}

/// Reads a piece: names checked one by one and in order.
pub(super) fn decode_piece(from: &mut Decoder<'_>) -> Result<Piece, DecodeError> {
    let id = PieceId(from.uint()?);
    let dir = DirId(from.uint()?);
    let first_child = DirId(from.uint()?);
    let flags = from.bounded(PIECE_LAST | PIECE_WHOLE, "piece flags")?;
    let after = match from.bytes(limits::NAME_BYTES_MAX, "name")? {
        [] => None,
        bytes => Some(Name::new(bytes)?),
    };
    let mut merge_files = Vec::new();
    for _ in 0..from.bounded(limits::LISTING_PIECE_ENTRIES_MAX as u64, "merge files")? {
        let name = from.bytes(limits::PATH_BYTES_MAX, "merge file name")?.to_vec();
        let content = from.bytes(limits::FRAME_BYTES_MAX, "merge file")?.to_vec();
        merge_files.push((name, content));
    }
    let count = from.bounded(limits::LISTING_PIECE_ENTRIES_MAX as u64, "entries of a listing")? as usize;
    let mut entries = Vec::with_capacity(count);
    let mut before = Context::default();
    for _ in 0..count {
        entries.push(decode_entry(&mut before, from)?);
    }
    let piece = Piece {
        id,
        dir,
        first_child,
        after,
        last: flags & PIECE_LAST != 0,
        whole: flags & PIECE_WHOLE != 0,
        merge_files,
        entries,
    };
    if !piece.is_sorted() {
        return Err(DecodeError::Range("order of names"));
    }
    first_child.0.checked_add(piece.children()).ok_or(DecodeError::Range("directory number"))?;
    Ok(piece)
}

fn decode_entry(before: &mut Context, from: &mut Decoder<'_>) -> Result<ListedEntry, DecodeError> {
    let flags = from.uint()?;
    if flags & !FLAGS_ALL != 0 {
        return Err(DecodeError::Unknown { what: "entry flag", value: flags });
    }
    let shared = from.bounded(before.name.len() as u64, "shared prefix")? as usize;
    let tail = from.bytes(limits::NAME_BYTES_MAX, "name")?;
    before.name.truncate(shared);
    before.name.extend_from_slice(tail);
    let name = Name::new(&before.name)?;
    let kind_code = from.u8()?;
    let kind = *Kind::ALL
        .get(usize::from(kind_code))
        .ok_or(DecodeError::Unknown { what: "kind", value: u64::from(kind_code) })?;
    let mode = from.bounded(0o7777, "mode")? as u32;
    if flags & FLAG_SAME_OWNER == 0 {
        before.uid = from.u32("user id")?;
        before.gid = from.u32("group id")?;
    }
    let size = from.bounded(i64::MAX as u64, "file length")?;
    let blocks = from.uint()?;
    let mtime_s = before.mtime_s.wrapping_add(from.int()?);
    let mtime = Timestamp::new(mtime_s, from.bounded(999_999_999, "nanoseconds")? as u32);
    before.mtime_s = mtime_s;
    let atime_s = mtime_s.wrapping_add(from.int()?);
    let atime = Timestamp::new(atime_s, from.bounded(999_999_999, "nanoseconds")? as u32);
    let rdev = if kind.is_device() { (from.u32("device")?, from.u32("device")?) } else { (0, 0) };
    let link_target = match flags & FLAG_LINK_TARGET {
        0 => None,
        _ => {
            let target = from.bytes(limits::LINK_TARGET_BYTES_MAX, "link target")?;
            if target.is_empty() || target.contains(&0) || kind != Kind::Symlink {
                return Err(DecodeError::Range("link target"));
            }
            Some(target.into())
        }
    };
    let hard_link = match flags & FLAG_HARD_LINK {
        0 => None,
        _ => Some(HardLink { group: from.uint()? }),
    };
    let acls = match flags & FLAG_ACLS {
        0 => None,
        _ => Some(Acls { access: decode_acl(from)?, default: decode_acl(from)? }),
    };
    let xattrs = match flags & FLAG_XATTRS {
        0 => None,
        _ => Some(decode_xattrs(from)?),
    };
    let descend = flags & FLAG_DESCEND != 0;
    if descend && kind != Kind::Dir {
        return Err(DecodeError::Range("directory flag"));
    }
    let metadata = Metadata {
        kind,
        mode,
        uid: before.uid,
        gid: before.gid,
        size,
        blocks,
        mtime,
        atime,
        ctime: Timestamp::default(),
        rdev,
        dev: (0, 0),
        ino: 0,
        nlink: 1,
    };
    let entry = Entry { name, metadata, link_target, hard_link, acls, xattrs };
    Ok(ListedEntry { entry, descend, implied: flags & FLAG_IMPLIED != 0 })
}

fn decode_acl(from: &mut Decoder<'_>) -> Result<Option<Acl>, DecodeError> {
    match from.bytes(4 + 8 * limits::ACL_ENTRIES_MAX, "access control list")? {
        [] => Ok(None),
        bytes => Acl::from_xattr(bytes).map(Some).map_err(|_| DecodeError::Malformed("access control list")),
    }
}

fn decode_xattrs(from: &mut Decoder<'_>) -> Result<Xattrs, DecodeError> {
    let count = from.bounded(limits::XATTRS_COUNT_MAX as u64, "extended attributes")? as usize;
    let mut total = 0;
    let mut xattrs: Xattrs = Vec::with_capacity(count);
    for _ in 0..count {
        let name = from.bytes(limits::NAME_BYTES_MAX, "attribute name")?;
        let value = from.bytes(64 << 10, "attribute value")?;
        total += name.len() + value.len();
        let in_order = xattrs.last().is_none_or(|last| *last.name < *name);
        if name.is_empty() || name.contains(&0) || total > limits::XATTRS_BYTES_MAX || !in_order {
            return Err(DecodeError::Range("extended attributes"));
        }
        xattrs.push(Xattr { name: name.into(), value: value.into() });
    }
    Ok(xattrs)
}
