//! Hard links at both ends: names that are one inode on one side have to be one inode on the other.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::{HardLink, Metadata, RelPath, display_bytes};

type Inode = ((u32, u32), u64);

/// What the source says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    Group(u64),
    /// A name of its own: the number of the name.
    Single(u64),
}

#[derive(Debug, Default)]
struct State {
    /// By the source's group: the inode at the destination and the name that was seen first.
    groups: HashMap<u64, (Inode, RelPath)>,
    /// By the destination's inode, those with several names only.
    inodes: HashMap<Inode, (Membership, RelPath)>,
    singles: u64,
}

/// All names that have several, at either end.
#[derive(Debug, Default)]
pub(super) struct LinkBook(Mutex<State>);

impl LinkBook {
    /// A name that is on both sides; what is wrong with it, seen from those that came before.
    pub(super) fn check(&self, link: Option<HardLink>, there: &Metadata, path: &RelPath) -> Option<String> {
        if link.is_none() && there.nlink < 2 {
            return None;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inode = (there.dev, there.ino);
        let membership = match link {
            Some(link) => Membership::Group(link.group),
            None => {
                state.singles += 1;
                Membership::Single(state.singles)
            }
        };
        if let Some(link) = link {
            let (first, name) = state.groups.entry(link.group).or_insert_with(|| (inode, path.clone()));
            if *first != inode {
                return Some(format!("hard links: not the same inode as \"{}\"", display_bytes(name.as_bytes())));
            }
        }
        if there.nlink < 2 {
            return None;
        }
        let (first, name) = state.inodes.entry(inode).or_insert_with(|| (membership, path.clone()));
        (*first != membership).then(|| {
            format!("hard links: the same inode as \"{}\", but not in the source", display_bytes(name.as_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Timestamp};

    fn there(ino: u64, nlink: u32) -> Metadata {
        let time = Timestamp::new(0, 0);
        Metadata {
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            blocks: 0,
            mtime: time,
            atime: time,
            ctime: time,
            rdev: (0, 0),
            dev: (8, 1),
            ino,
            nlink,
        }
    }

    #[test]
    fn groups_agree_or_are_told() {
        let book = LinkBook::default();
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let group = |group| Some(HardLink { group });
        assert_eq!(book.check(group(1), &there(10, 2), &path("a")), None);
        assert_eq!(book.check(group(1), &there(10, 2), &path("b")), None);
        // Apart at the destination.
        assert_eq!(book.check(group(2), &there(20, 1), &path("c")), None);
        assert!(book.check(group(2), &there(21, 1), &path("d")).unwrap().contains("not the same inode as \"c\""));
        // Together at the destination only.
        assert_eq!(book.check(None, &there(30, 2), &path("e")), None);
        assert!(book.check(None, &there(30, 2), &path("f")).unwrap().contains("the same inode as \"e\""));
        assert!(book.check(group(3), &there(10, 2), &path("g")).unwrap().contains("the same inode as \"a\""));
        assert_eq!(book.check(None, &there(40, 1), &path("h")), None);
    }
}
