//! The digest of a tree, which each side can compute alone: directories are folded as they complete, so that memory does
//! not grow with the number of files. `docs/verify.md` defines the format; integers are little-endian.
//!
//! - The digest of a node is BLAKE3 over `R` and its record: the kind's letter, a byte that says which metadata follow,
//!   these metadata, and the content: a file's digest, a link's length (u32) and target, a device's numbers (u32, u32),
//!   for a directory the digests of its two sequences.
//! - A name's digest is BLAKE3 over `E`, the name's length (u16), the name, and the digest of its node.
//! - The sequence of what is no directory, in the order of raw names: BLAKE3 over `N`, the number of names (u64), and the
//!   BLAKE3 of its chunks' digests. A chunk is 1024 names, the last fewer: BLAKE3 over `C` and the names' digests.
//! - The sequence of directories, in the order of raw names: BLAKE3 over `D`, their number (u64), and the BLAKE3 of the
//!   names' digests.
//! - The tree's digest is BLAKE3 over `T`, the digest of its top node, and with `-H` the number of groups (u64) and their
//!   digests in rising order: BLAKE3 over `L` and, in rising order, BLAKE3 over `P` and the path from the top, of each
//!   name. Only groups with at least two names in the tree count.
//!
//! The two sequences are what bounds memory: directories complete in any order and late, all else soon after it was
//! listed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::model::{Acls, Digest, Entry, Kind, Name, RelPath};
use crate::plan::options::Preserve;

/// Names that are folded into one digest while what comes before them is still missing.
const CHUNK_NAMES: u64 = 1024;

const HAS_MODE: u8 = 1;
const HAS_UID: u8 = 2;
const HAS_GID: u8 = 4;
const HAS_MTIME: u8 = 8;
const HAS_ACLS: u8 = 16;
const HAS_XATTRS: u8 = 32;

/// A record up to its content.
pub(super) fn record_head(entry: &Entry, preserve: &Preserve) -> Vec<u8> {
    let metadata = &entry.metadata;
    let kind = metadata.kind;
    let mut flags = 0;
    let mut fields = Vec::new();
    if preserve.perms && kind != Kind::Symlink {
        flags |= HAS_MODE;
        fields.extend_from_slice(&metadata.mode.to_le_bytes());
    }
    if preserve.owner {
        flags |= HAS_UID;
        fields.extend_from_slice(&metadata.uid.to_le_bytes());
    }
    if preserve.group {
        flags |= HAS_GID;
        fields.extend_from_slice(&metadata.gid.to_le_bytes());
    }
    if crate::plan::compare::keeps_mtime(kind, preserve) {
        flags |= HAS_MTIME;
        fields.extend_from_slice(&metadata.mtime.seconds.to_le_bytes());
        fields.extend_from_slice(&metadata.mtime.nanoseconds.to_le_bytes());
    }
    if preserve.acls && kind != Kind::Symlink {
        flags |= HAS_ACLS;
        let none = Acls::default();
        let acls = entry.acls.as_ref().unwrap_or(&none);
        for acl in [&acls.access, &acls.default] {
            append(&acl.as_ref().map(crate::model::Acl::to_xattr).unwrap_or_default(), &mut fields);
        }
    }
    if preserve.xattrs {
        flags |= HAS_XATTRS;
        let xattrs = entry.xattrs.as_deref().unwrap_or_default();
        fields.extend_from_slice(&(xattrs.len() as u32).to_le_bytes());
        for xattr in xattrs {
            append(&xattr.name, &mut fields);
            append(&xattr.value, &mut fields);
        }
    }
    let mut head = vec![kind.letter() as u8, flags];
    head.append(&mut fields);
    head
}

/// The head of a top directory that has no metadata of its own: only some names below it were asked for.
pub(super) fn bare_head() -> Vec<u8> {
    vec![Kind::Dir.letter() as u8, 0]
}

fn append(bytes: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    to.extend_from_slice(bytes);
}

/// The content of what is neither a file nor a directory.
pub(super) fn special_content(entry: &Entry) -> Vec<u8> {
    let mut content = Vec::new();
    match entry.metadata.kind {
        Kind::Symlink => append(entry.link_target.as_deref().unwrap_or_default(), &mut content),
        Kind::Block | Kind::Char => {
            content.extend_from_slice(&entry.metadata.rdev.0.to_le_bytes());
            content.extend_from_slice(&entry.metadata.rdev.1.to_le_bytes());
        }
        Kind::File | Kind::Dir | Kind::Fifo | Kind::Socket => {}
    }
    content
}

fn hash(tag: u8, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[tag]);
    for part in parts {
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The digest of a node.
pub(super) fn node_digest(head: &[u8], content: &[u8]) -> Digest {
    hash(b'R', &[head, content])
}

fn name_digest(name: &Name, node: Digest) -> Digest {
    let name = name.as_bytes();
    hash(b'E', &[&(name.len() as u16).to_le_bytes(), name, &node.0])
}

/// The names of a directory that are no directories, set in any order.
#[derive(Debug)]
struct Others {
    count: u64,
    hasher: blake3::Hasher,
    /// The first chunk that was not folded yet.
    next: u64,
    open: BTreeMap<u64, Chunk>,
}

#[derive(Debug)]
enum Chunk {
    Filling { digests: Vec<Option<Digest>>, missing: usize },
    Full(Digest),
}

impl Others {
    fn push(&mut self) -> u64 {
        let index = self.count;
        self.count += 1;
        let chunk = self.open.entry(index / CHUNK_NAMES).or_insert(Chunk::Filling { digests: Vec::new(), missing: 0 });
        if let Chunk::Filling { digests, missing } = chunk {
            digests.push(None);
            *missing += 1;
        }
        index
    }

    fn set(&mut self, index: u64, digest: Digest) {
        let number = index / CHUNK_NAMES;
        if let Some(chunk) = self.open.get_mut(&number)
            && let Chunk::Filling { digests, missing } = chunk
            && let Some(slot) = digests.get_mut((index % CHUNK_NAMES) as usize)
            && slot.is_none()
        {
            *slot = Some(digest);
            *missing -= 1;
            if *missing == 0 && digests.len() as u64 == CHUNK_NAMES {
                *chunk = Chunk::Full(chunk_digest(digests));
            }
        }
        while let Some(Chunk::Full(digest)) = self.open.get(&self.next) {
            self.hasher.update(&digest.0);
            self.open.remove(&self.next);
            self.next += 1;
        }
    }

    /// `None` while names are missing.
    fn finish(&mut self) -> Option<Digest> {
        if let Some(Chunk::Filling { digests, missing: 0 }) = self.open.get(&self.next) {
            self.hasher.update(&chunk_digest(digests).0);
            self.open.remove(&self.next);
        }
        self.open.is_empty().then(|| hash(b'N', &[&self.count.to_le_bytes(), self.hasher.finalize().as_bytes()]))
    }
}

fn chunk_digest(digests: &[Option<Digest>]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"C");
    for digest in digests.iter().flatten() {
        hasher.update(&digest.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

#[derive(Debug, Clone, Copy)]
enum Child {
    Missing,
    /// It holds nothing, and `-m` leaves it out.
    Pruned,
    Is(Digest),
}

/// A name's place in its directory's sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// It does not count: the options leave it out.
    None,
    /// Number among the directories.
    Dir(usize),
    /// Number among all else.
    Other(u64),
}

/// One directory while it is being folded.
#[derive(Debug)]
pub(super) struct DirFold {
    head: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    others: Others,
    dirs: Vec<Child>,
    /// The last node that was set: the top, where it is the only one.
    last_node: Option<Digest>,
}

impl DirFold {
    /// Nothing in it yet; `head` is its record up to its content.
    pub(super) fn new(head: Vec<u8>) -> DirFold {
        let others = Others { count: 0, hasher: blake3::Hasher::new(), next: 0, open: BTreeMap::new() };
        DirFold { head, state: Mutex::new(State { others, dirs: Vec::new(), last_node: None }) }
    }

    /// The next name in order.
    pub(super) fn push(&self, is_dir: bool) -> Slot {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if is_dir {
            state.dirs.push(Child::Missing);
            Slot::Dir(state.dirs.len() - 1)
        } else {
            Slot::Other(state.others.push())
        }
    }

    /// The node of a name is known.
    pub(super) fn set(&self, slot: Slot, name: &Name, node: Digest) {
        let digest = name_digest(name, node);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_node = Some(node);
        match slot {
            Slot::None => {}
            Slot::Dir(index) => {
                if let Some(child) = state.dirs.get_mut(index) {
                    *child = Child::Is(digest);
                }
            }
            Slot::Other(index) => state.others.set(index, digest),
        }
    }

    /// A directory is left out, since it holds nothing.
    pub(super) fn prune(&self, slot: Slot) {
        if let Slot::Dir(index) = slot
            && let Some(child) = self.state.lock().unwrap_or_else(PoisonError::into_inner).dirs.get_mut(index)
        {
            *child = Child::Pruned;
        }
    }

    /// The directory's node; `None` where something in it could not be taken in.
    pub(super) fn finish(&self) -> Option<Digest> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let others = state.others.finish()?;
        let mut hasher = blake3::Hasher::new();
        let mut count: u64 = 0;
        for child in &state.dirs {
            match child {
                Child::Missing => return None,
                Child::Pruned => {}
                Child::Is(digest) => {
                    hasher.update(&digest.0);
                    count += 1;
                }
            }
        }
        let dirs = hash(b'D', &[&count.to_le_bytes(), hasher.finalize().as_bytes()]);
        let mut content = [0; 64];
        content[..32].copy_from_slice(&others.0);
        content[32..].copy_from_slice(&dirs.0);
        Some(node_digest(&self.head, &content))
    }

    /// The node of the only name, where there is just one.
    pub(super) fn only_node(&self) -> Option<Digest> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.others.count + state.dirs.len() as u64 == 1).then_some(state.last_node).flatten()
    }
}

/// The groups of hard links of a tree: 32 bytes for each name.
#[derive(Debug, Default)]
pub(super) struct LinkGroups(Mutex<HashMap<u64, Vec<Digest>>>);

impl LinkGroups {
    /// A name of a group, by its path from the tree's top.
    pub(super) fn add(&self, group: u64, path: &RelPath) {
        let digest = hash(b'P', &[path.as_bytes()]);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(group).or_default().push(digest);
    }

    fn digests(&self) -> Vec<Digest> {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let several = groups.values_mut().filter(|names| names.len() > 1);
        let mut digests: Vec<Digest> = several
            .map(|names| {
                names.sort_unstable();
                let parts: Vec<&[u8]> = names.iter().map(|name| &name.0[..]).collect();
                hash(b'L', &parts)
            })
            .collect();
        digests.sort_unstable();
        digests
    }
}

/// The digest of a whole tree.
pub(super) fn tree_digest(top: Digest, links: Option<&LinkGroups>) -> Digest {
    let Some(links) = links else { return hash(b'T', &[&top.0]) };
    let groups = links.digests();
    let count = (groups.len() as u64).to_le_bytes();
    let mut parts: Vec<&[u8]> = vec![&top.0, &count];
    parts.extend(groups.iter().map(|group| &group.0[..]));
    hash(b'T', &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    /// Sets `count` names in the order that `order` gives; every third is a directory.
    fn folded(count: usize, order: impl Iterator<Item = usize>) -> Option<Digest> {
        let fold = DirFold::new(bare_head());
        let slots: Vec<Slot> = (0..count).map(|index| fold.push(index % 3 == 0)).collect();
        for index in order {
            fold.set(slots[index], &name(&format!("{index:05}")), Digest([index as u8; 32]));
        }
        fold.finish()
    }

    #[test]
    fn the_order_in_which_names_are_settled_does_not_matter() {
        for count in [0, 1, 5, 1536, 1537, 4000] {
            let forwards = folded(count, 0..count);
            assert!(forwards.is_some());
            assert_eq!(forwards, folded(count, (0..count).rev()), "{count}");
            let middle_out = (count / 2..count).chain(0..count / 2);
            assert_eq!(forwards, folded(count, middle_out), "{count}");
            if count > 0 {
                assert_eq!(folded(count, 0..count - 1), None, "{count}");
                assert_eq!(folded(count, 1..count), None, "{count}");
            }
        }
    }

    #[test]
    fn settled_names_cost_no_memory() {
        let fold = DirFold::new(bare_head());
        for index in 0..100_000u64 {
            let slot = fold.push(false);
            fold.set(slot, &name(&index.to_string()), Digest([1; 32]));
        }
        assert!(fold.state.lock().unwrap().others.open.len() <= 1);
        // One late name holds back one digest for every chunk after it.
        let fold = DirFold::new(bare_head());
        fold.push(false);
        for index in 1..100_000u64 {
            let slot = fold.push(false);
            fold.set(slot, &name(&index.to_string()), Digest([1; 32]));
        }
        let state = fold.state.lock().unwrap();
        let filling = state.others.open.values().filter(|chunk| matches!(chunk, Chunk::Filling { .. })).count();
        assert!(filling <= 2);
    }

    #[test]
    fn names_nodes_and_kinds_all_count() {
        let one = |is_dir: bool, text: &str, node: u8| {
            let fold = DirFold::new(bare_head());
            let slot = fold.push(is_dir);
            fold.set(slot, &name(text), Digest([node; 32]));
            assert_eq!(fold.only_node(), Some(Digest([node; 32])));
            fold.finish().unwrap()
        };
        let all = [one(false, "a", 1), one(true, "a", 1), one(false, "b", 1), one(false, "a", 2)];
        for (index, digest) in all.iter().enumerate() {
            assert!(!all[..index].contains(digest));
        }
        let empty = folded(0, 0..0).unwrap();
        assert!(!all.contains(&empty));
        let fold = DirFold::new(bare_head());
        let slot = fold.push(true);
        fold.prune(slot);
        assert_eq!(fold.finish(), Some(empty));
    }

    #[test]
    fn groups_count_by_their_paths_not_their_numbers() {
        let groups = |names: &[(u64, &str)]| {
            let groups = LinkGroups::default();
            for (group, path) in names {
                groups.add(*group, &RelPath::new(path.as_bytes()).unwrap());
            }
            tree_digest(Digest([0; 32]), Some(&groups))
        };
        let one = groups(&[(1, "a"), (1, "b/c"), (2, "d"), (2, "e"), (3, "alone")]);
        assert_eq!(one, groups(&[(8, "e"), (7, "b/c"), (8, "d"), (7, "a")]));
        assert_ne!(one, groups(&[(1, "a"), (1, "d"), (2, "b/c"), (2, "e")]));
        assert_eq!(groups(&[]), groups(&[(1, "a")]));
        assert_ne!(groups(&[]), tree_digest(Digest([0; 32]), None));
    }
}
