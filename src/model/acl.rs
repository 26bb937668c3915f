//! POSIX access control lists, in the kernel's attribute format (`linux/posix_acl_xattr.h`): a 32-bit version, 2, then
//! entries of tag (u16), permissions (u16) and id (u32), all little-endian.

use crate::limits;

const VERSION: u32 = 2;
const UNDEFINED_ID: u32 = u32::MAX;

/// Why bytes are not an access control list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a POSIX access control list")]
pub struct AclError;

/// Whom an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AclTag {
    /// The file's owner.
    UserObject,
    /// A named user.
    User(u32),
    /// The file's group.
    GroupObject,
    /// A named group.
    Group(u32),
    /// The upper bound for named users and groups.
    Mask,
    /// Everyone else.
    Other,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclEntry {
    /// Whom it is about.
    pub tag: AclTag,
    /// `rwx` bits, 0 to 7.
    pub permissions: u8,
}

/// One list. Never empty: an inode without a list has `None`. Kept in the order of the tags, then of ids, so that lists
/// that mean the same are equal: the kernel keeps whatever order of ids it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl(pub Vec<AclEntry>);

/// Both lists of an inode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acls {
    /// `system.posix_acl_access`; `None` where the permission bits say it all.
    pub access: Option<Acl>,
    /// `system.posix_acl_default`, directories only.
    pub default: Option<Acl>,
}

impl Acl {
    /// Reads the kernel's format, entries in any order.
    pub fn from_xattr(bytes: &[u8]) -> Result<Acl, AclError> {
        let (version, rest) = bytes.split_at_checked(4).ok_or(AclError)?;
        if version != VERSION.to_le_bytes() || rest.len() % 8 != 0 || rest.len() / 8 > limits::ACL_ENTRIES_MAX {
            return Err(AclError);
        }
        if rest.is_empty() {
            return Err(AclError);
        }
        let mut entries = Vec::with_capacity(rest.len() / 8);
        for raw in rest.chunks_exact(8) {
            let id = u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]);
            let tag = match u16::from_le_bytes([raw[0], raw[1]]) {
                0x01 => AclTag::UserObject,
                0x02 => AclTag::User(id),
                0x04 => AclTag::GroupObject,
                0x08 => AclTag::Group(id),
                0x10 => AclTag::Mask,
                0x20 => AclTag::Other,
                _ => return Err(AclError),
            };
            let permissions = u16::from_le_bytes([raw[2], raw[3]]);
            if permissions > 7 {
                return Err(AclError);
            }
            entries.push(AclEntry { tag, permissions: permissions as u8 });
        }
        Ok(Acl::in_order(entries))
    }

    /// The list of `entries`, which may be in any order. Those of one tag and id keep theirs.
    fn in_order(mut entries: Vec<AclEntry>) -> Acl {
        entries.sort_by_key(|entry| entry.tag);
        Acl(entries)
    }

    /// Writes the kernel's format, entries in its order.
    pub fn to_xattr(&self) -> Vec<u8> {
        let mut entries = self.0.clone();
        entries.sort_by_key(|entry| entry.tag);
        let mut bytes = Vec::with_capacity(4 + 8 * entries.len());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for entry in entries {
            let (tag, id): (u16, u32) = match entry.tag {
                AclTag::UserObject => (0x01, UNDEFINED_ID),
                AclTag::User(id) => (0x02, id),
                AclTag::GroupObject => (0x04, UNDEFINED_ID),
                AclTag::Group(id) => (0x08, id),
                AclTag::Mask => (0x10, UNDEFINED_ID),
                AclTag::Other => (0x20, UNDEFINED_ID),
            };
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&u16::from(entry.permissions).to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// The list with every named user and group put through the maps.
    pub fn map_ids(&self, user: impl Fn(u32) -> u32, group: impl Fn(u32) -> u32) -> Acl {
        let map = |entry: &AclEntry| AclEntry {
            tag: match entry.tag {
                AclTag::User(id) => AclTag::User(user(id)),
                AclTag::Group(id) => AclTag::Group(group(id)),
                tag => tag,
            },
            permissions: entry.permissions,
        };
        Acl::in_order(self.0.iter().map(map).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_format_round_trips() {
        let acl = Acl(vec![
            AclEntry { tag: AclTag::UserObject, permissions: 6 },
            AclEntry { tag: AclTag::User(1000), permissions: 4 },
            AclEntry { tag: AclTag::GroupObject, permissions: 4 },
            AclEntry { tag: AclTag::Group(5), permissions: 7 },
            AclEntry { tag: AclTag::Mask, permissions: 7 },
            AclEntry { tag: AclTag::Other, permissions: 0 },
        ]);
        let bytes = acl.to_xattr();
        assert_eq!(&bytes[..12], &[2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(Acl::from_xattr(&bytes), Ok(acl.clone()));
        let mapped = acl.map_ids(|id| id + 1, |id| id + 2);
        assert_eq!(mapped.0[1].tag, AclTag::User(1001));
        assert_eq!(mapped.0[3].tag, AclTag::Group(7));
    }

    #[test]
    fn malformed_lists_are_refused() {
        for bad in
            [&[][..], &[2, 0, 0], &[1, 0, 0, 0], &[2, 0, 0, 0], &[2, 0, 0, 0, 1], &[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(Acl::from_xattr(bad), Err(AclError));
        }
    }

    /// A list that a peer, or another program, wrote in an order of its own.
    #[test]
    fn lists_that_mean_the_same_are_equal() {
        let entry = |tag, permissions| AclEntry { tag, permissions };
        let sorted = Acl(vec![
            entry(AclTag::UserObject, 7),
            entry(AclTag::User(5), 1),
            entry(AclTag::User(9), 2),
            entry(AclTag::GroupObject, 5),
            entry(AclTag::Mask, 7),
            entry(AclTag::Other, 0),
        ]);
        let mut bytes = sorted.to_xattr();
        bytes[4..].rotate_left(16);
        assert_ne!(bytes, sorted.to_xattr());
        assert_eq!(Acl::from_xattr(&bytes), Ok(sorted.clone()));
        // Ids that change places.
        let swapped = sorted.map_ids(|id| 14 - id, |id| id);
        assert_eq!(Acl::from_xattr(&swapped.to_xattr()), Ok(swapped));
    }
}
