//! Directories that were announced and wait to be listed: there may be millions of them, so that they are kept small
//! until something is done in them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::node::{Node, PieceWork, Place};
use crate::limits;
use crate::model::{Acls, DirId, Entry, Kind, ListedEntry, Metadata, Name, Timestamp, Xattrs};
use crate::monitor::Changes;

/// What all unfinished directories of a session take, in bytes.
#[derive(Debug, Clone)]
pub(in crate::sync) struct Account {
    used: Arc<AtomicUsize>,
    max: usize,
}

impl Default for Account {
    fn default() -> Account {
        Account::new(limits::UNFINISHED_DIRECTORIES_BYTES_MAX)
    }
}

impl Account {
    /// With room for `max` bytes.
    pub(in crate::sync) fn new(max: usize) -> Account {
        Account { used: Arc::default(), max }
    }

    /// Takes note of `bytes`, until the charge is dropped.
    pub(in crate::sync) fn charge(&self, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Charge { used: Arc::clone(&self.used), bytes }
    }

    /// Whether more is in use than may be.
    pub(in crate::sync) fn is_overdrawn(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.max
    }
}

/// A part of an [`Account`].
#[derive(Debug)]
pub(in crate::sync) struct Charge {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes that an entry takes beside its own size.
pub(in crate::sync) fn heap_bytes(listed: &ListedEntry) -> usize {
    let entry = &listed.entry;
    let target = entry.link_target.as_ref().map_or(0, |target| target.len());
    entry.name.as_bytes().len() + target + attribute_bytes(entry.acls.as_ref(), entry.xattrs.as_ref())
}

fn attribute_bytes(acls: Option<&Acls>, xattrs: Option<&Xattrs>) -> usize {
    let acls = acls.into_iter().flat_map(|acls| [&acls.access, &acls.default]).flatten();
    let xattrs = xattrs.into_iter().flatten().map(|xattr| xattr.name.len() + xattr.value.len() + 64);
    acls.map(|acl| 16 * acl.0.len() + 64).sum::<usize>() + xattrs.sum::<usize>()
}

/// A directory that was dealt with in its parent's listing, and of whose own listing nothing has come.
#[derive(Debug)]
struct Sleeping {
    name_end: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: Timestamp,
    atime: Timestamp,
    before_mode: Option<u16>,
    changes: u16,
    flags: u8,
    attributes: Option<Box<(Option<Acls>, Option<Xattrs>)>>,
}

const THERE: u8 = 1;
const ABSENT: u8 = 2;
const CREATED: u8 = 4;
const WIDENED: u8 = 8;
const DIRTY: u8 = 16;
const IMPLIED: u8 = 32;
const HAS_CHANGES: u8 = 64;
/// Its piece of the parent's listing was worked on before it could fall asleep, or it has woken.
const AWAKE: u8 = 128;

/// The directories that one piece has announced, in the order of their numbers.
#[derive(Debug)]
struct Row {
    parent: Arc<Node>,
    names: Box<[u8]>,
    dirs: Box<[Sleeping]>,
    asleep: usize,
    _charge: Charge,
}

/// What a directory was when it fell asleep.
pub(super) struct Woken {
    pub(super) parent: Arc<Node>,
    pub(super) listed: ListedEntry,
    place: Place,
    before_mode: Option<u32>,
    changes: Option<Changes>,
    flags: u8,
}

impl Woken {
    /// Gives a node what it had.
    pub(super) fn restore(self, node: &Node) {
        let _nothing_waits_in_a_new_node = node.settle_place(self.place);
        if let Some(mode) = self.before_mode {
            let _set_once = node.before_mode.set(mode);
        }
        if let Some(changes) = self.changes {
            let _set_once = node.changes.set(changes);
        }
        node.created.store(self.flags & CREATED != 0, Ordering::Relaxed);
        node.widened.store(self.flags & WIDENED != 0, Ordering::Relaxed);
        node.dirty.store(self.flags & DIRTY != 0, Ordering::Release);
    }
}

/// Directories whose listing has not ended, by their numbers.
#[derive(Debug)]
pub(super) struct Unlisted {
    awake: HashMap<DirId, Arc<Node>>,
    /// By the number of a row's first directory.
    rows: BTreeMap<u64, Row>,
}

impl Unlisted {
    pub(super) fn new(root: Arc<Node>) -> Unlisted {
        Unlisted { awake: HashMap::from([(DirId::ROOT, root)]), rows: BTreeMap::new() }
    }

    /// The node of a directory that is awake; none afterwards where its listing ends now (`last`).
    pub(super) fn get(&mut self, dir: DirId, last: bool) -> Option<Arc<Node>> {
        if last { self.awake.remove(&dir) } else { self.awake.get(&dir).cloned() }
    }

    pub(super) fn insert(&mut self, dir: DirId, node: Arc<Node>) {
        self.awake.insert(dir, node);
    }

    /// Wakes a directory.
    pub(super) fn wake(&mut self, dir: DirId) -> Option<Woken> {
        let (&first, row) = self.rows.range_mut(..=dir.0).next_back()?;
        let index = usize::try_from(dir.0 - first).ok()?;
        let start = if index == 0 { 0 } else { row.dirs.get(index - 1)?.name_end as usize };
        let sleeping = row.dirs.get_mut(index).filter(|sleeping| sleeping.flags & AWAKE == 0)?;
        let (acls, xattrs) = sleeping.attributes.take().map_or((None, None), |attributes| *attributes);
        let flags = sleeping.flags;
        let entry = Entry {
            name: Name::new(row.names.get(start..sleeping.name_end as usize)?).ok()?,
            metadata: Metadata {
                kind: Kind::Dir,
                mode: sleeping.mode,
                uid: sleeping.uid,
                gid: sleeping.gid,
                size: sleeping.size,
                blocks: 0,
                mtime: sleeping.mtime,
                atime: sleeping.atime,
                ctime: Timestamp::default(),
                rdev: (0, 0),
                dev: (0, 0),
                ino: 0,
                nlink: 0,
            },
            link_target: None,
            hard_link: None,
            acls,
            xattrs,
        };
        let place = match flags & (THERE | ABSENT) {
            THERE => Place::There,
            ABSENT => Place::Absent,
            _ => Place::Skipped,
        };
        let woken = Woken {
            parent: Arc::clone(&row.parent),
            listed: ListedEntry { entry, descend: true, implied: flags & IMPLIED != 0 },
            place,
            before_mode: sleeping.before_mode.map(u32::from),
            changes: (flags & HAS_CHANGES != 0).then(|| changes_of(sleeping.changes)),
            flags,
        };
        #[cfg(test)]
        WOKEN.fetch_add(1, Ordering::Relaxed);
        sleeping.flags |= AWAKE;
        row.asleep -= 1;
        if row.asleep == 0 {
            self.rows.remove(&first);
        }
        Some(woken)
    }

    /// A piece is settled: those of its directories that wait for their listing fall asleep.
    pub(super) fn fall_asleep(&mut self, work: &PieceWork, account: &Account) {
        let first = work.piece().first_child.0;
        if !work.children().iter().any(|child| !child.is_visited()) {
            return;
        }
        let mut names = Vec::new();
        let mut dirs = Vec::with_capacity(work.children().len());
        let (mut asleep, mut attributes) = (0, 0);
        for (child, number) in work.children().iter().zip(first..) {
            let mut sleeping = asleep_of(child);
            // One that is staged is known by its open descriptor only, and those are few.
            let is_waiting =
                sleeping.flags & AWAKE == 0 && child.fresh.get().is_none() && self.awake.contains_key(&DirId(number));
            if is_waiting {
                self.awake.remove(&DirId(number));
                names.extend_from_slice(child.listed.as_ref().map_or(&[][..], |listed| listed.entry.name.as_bytes()));
                asleep += 1;
                attributes += sleeping.attributes.as_ref().map_or(0, |a| attribute_bytes(a.0.as_ref(), a.1.as_ref()));
            } else {
                sleeping.flags |= AWAKE;
                sleeping.attributes = None;
            }
            sleeping.name_end = names.len() as u32;
            dirs.push(sleeping);
        }
        if asleep == 0 {
            return;
        }
        let bytes = size_of::<Row>() + 64 + names.len() + dirs.len() * size_of::<Sleeping>() + attributes;
        let row = Row {
            parent: Arc::clone(&work.node),
            names: names.into(),
            dirs: dirs.into(),
            asleep,
            _charge: account.charge(bytes),
        };
        self.rows.insert(first, row);
    }
}

fn asleep_of(node: &Node) -> Sleeping {
    let place = match &*node.place() {
        Place::There => THERE,
        Place::Absent => ABSENT,
        Place::Skipped => 0,
        Place::Unknown(_) => AWAKE,
    };
    let mut flags = place;
    let mut note = |is_set: bool, flag: u8| flags |= if is_set { flag } else { 0 };
    note(node.is_visited(), AWAKE);
    note(node.created.load(Ordering::Relaxed), CREATED);
    note(node.widened.load(Ordering::Relaxed), WIDENED);
    note(node.dirty.load(Ordering::Acquire), DIRTY);
    let changes = node.changes.get();
    note(changes.is_some(), HAS_CHANGES);
    let listed = node.listed.as_ref();
    note(listed.is_none(), AWAKE);
    note(listed.is_some_and(|listed| listed.implied), IMPLIED);
    let metadata = listed.map(|listed| listed.entry.metadata);
    let attributes = listed
        .filter(|listed| listed.entry.acls.is_some() || listed.entry.xattrs.is_some())
        .map(|listed| Box::new((listed.entry.acls.clone(), listed.entry.xattrs.clone())));
    Sleeping {
        name_end: 0,
        mode: metadata.map_or(0, |metadata| metadata.mode),
        uid: metadata.map_or(0, |metadata| metadata.uid),
        gid: metadata.map_or(0, |metadata| metadata.gid),
        size: metadata.map_or(0, |metadata| metadata.size),
        mtime: metadata.map_or_else(Timestamp::default, |metadata| metadata.mtime),
        atime: metadata.map_or_else(Timestamp::default, |metadata| metadata.atime),
        before_mode: node.before_mode.get().map(|&mode| (mode & 0o7777) as u16),
        changes: changes.map_or(0, bits_of),
        flags,
        attributes,
    }
}

fn bits_of(changes: &Changes) -> u16 {
    let Changes { created, content, size, mtime, mtime_now, mode, owner, group, atime, acl, xattr } = *changes;
    let all = [created, content, size, mtime, mtime_now, mode, owner, group, atime, acl, xattr];
    all.into_iter().rev().fold(0, |bits, bit| bits << 1 | u16::from(bit))
}

fn changes_of(bits: u16) -> Changes {
    let bit = |index: u16| bits >> index & 1 == 1;
    Changes {
        created: bit(0),
        content: bit(1),
        size: bit(2),
        mtime: bit(3),
        mtime_now: bit(4),
        mode: bit(5),
        owner: bit(6),
        group: bit(7),
        atime: bit(8),
        acl: bit(9),
        xattr: bit(10),
    }
}

/// How many were woken in this process.
#[cfg(test)]
static WOKEN: AtomicUsize = AtomicUsize::new(0);

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests build trees")]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::fs::Dir;
    use crate::model::{Piece, PieceId, RelPath, Xattr};
    use crate::sync::held::{HandleBudget, HeldDir, Reach};
    use crate::sync::receiver::Arrived;

    fn listed(name: &str, xattr: bool) -> ListedEntry {
        let metadata = Metadata {
            kind: Kind::Dir,
            mode: 0o2751,
            uid: 7,
            gid: 8,
            size: 9,
            blocks: 0,
            mtime: Timestamp::new(10, 11),
            atime: Timestamp::new(12, 13),
            ctime: Timestamp::default(),
            rdev: (0, 0),
            dev: (0, 0),
            ino: 0,
            nlink: 0,
        };
        let xattrs = xattr.then(|| vec![Xattr { name: b"user.x"[..].into(), value: vec![1; 1000].into() }]);
        let name = Name::new(name.as_bytes()).unwrap();
        let entry = Entry { name, metadata, link_target: None, hard_link: None, acls: None, xattrs };
        ListedEntry { entry, descend: true, implied: true }
    }

    fn work(account: &Account, names: &[String]) -> (Arc<Node>, Arc<PieceWork>, Unlisted) {
        let root = HeldDir::at_root(Arc::new(Dir::open("/".as_ref()).unwrap()), HandleBudget::new(1));
        let entries: Vec<ListedEntry> = names.iter().map(|name| listed(name, name.len() % 2 == 1)).collect();
        let child = |parent: &Arc<Node>, listed: &ListedEntry| {
            let (name, dir) = (&listed.entry.name, parent.dir.child(&listed.entry.name, Reach::Strict));
            Node::new(parent.path.join(name), Some(Arc::clone(parent)), Some(listed.clone()), dir, account)
        };
        let parent = Node::new(RelPath::root(), None, None, root, account);
        let children: Vec<Arc<Node>> = entries.iter().map(|listed| child(&parent, listed)).collect();
        let mut unlisted = Unlisted::new(Arc::clone(&parent));
        for (child, number) in children.iter().zip(5..) {
            unlisted.insert(DirId(number), Arc::clone(child));
        }
        let piece = Piece {
            id: PieceId(0),
            dir: DirId::ROOT,
            first_child: DirId(5),
            after: None,
            last: false,
            whole: true,
            merge_files: Vec::new(),
            entries,
        };
        let work = PieceWork::new(Arrived::Remote(piece), Arc::clone(&parent), children, None);
        (parent, work, unlisted)
    }

    #[test]
    fn a_directory_wakes_as_it_fell_asleep() {
        let account = Account::default();
        let names: Vec<String> = ["a", "bb", "ccc", "dddd", "eeeee"].map(String::from).into();
        let (_parent, work, mut unlisted) = work(&account, &names);
        let children = work.children();
        let changes = Changes { mtime: true, xattr: true, ..Changes::default() };
        children[0].settle_place(Place::There);
        children[0].before_mode.set(0o1700).unwrap();
        children[0].changes.set(changes).unwrap();
        children[0].widened.store(true, Ordering::Relaxed);
        children[1].settle_place(Place::Absent);
        children[2].settle_place(Place::Skipped);
        children[3].settle_place(Place::There);
        children[3].visit();
        // The last is not dealt with yet.
        unlisted.fall_asleep(&work, &account);
        assert!(unlisted.get(DirId(8), false).is_some() && unlisted.get(DirId(9), false).is_some());
        for number in [4, 8, 9, 10] {
            assert!(unlisted.wake(DirId(number)).is_none(), "{number}");
        }
        for (number, index) in [(7, 2), (5, 0), (6, 1)] {
            assert!(unlisted.get(DirId(number), false).is_none());
            let woken = unlisted.wake(DirId(number)).unwrap();
            assert!(unlisted.wake(DirId(number)).is_none());
            assert_eq!(Some(&woken.listed), children[index].listed.as_ref());
            let dir = woken.parent.dir.child(&woken.listed.entry.name, Reach::Strict);
            let node = Node::new(RelPath::root(), None, None, dir, &account);
            woken.restore(&node);
            assert_eq!(format!("{:?}", *node.place()), format!("{:?}", *children[index].place()));
            assert_eq!(node.before_mode.get(), children[index].before_mode.get());
            assert_eq!(node.changes.get(), children[index].changes.get());
            assert_eq!(node.widened.load(Ordering::Relaxed), index == 0);
        }
        assert!(unlisted.rows.is_empty());
    }

    #[test]
    fn what_sleeps_is_small_and_accounted_for() {
        let account = Account::default();
        let used = || account.used.load(Ordering::Relaxed);
        let names: Vec<String> = (0..500).map(|number| format!("an-even-name-{number:05}")).collect();
        let (parent, work, mut unlisted) = work(&account, &names);
        for child in work.children() {
            child.settle_place(Place::There);
        }
        let awake = used();
        assert!(awake > 500 * size_of::<Node>());
        unlisted.fall_asleep(&work, &account);
        drop((work, parent));
        assert!(used() < 500 * 130, "{}", used());
        let small = Account::new(used());
        assert!(!small.is_overdrawn());
        let _charge = small.charge(used() + 1);
        assert!(small.is_overdrawn());
        for number in 5..505 {
            assert!(unlisted.wake(DirId(number)).is_some());
        }
        drop(unlisted);
        assert_eq!(used(), 0);
    }

    #[test]
    fn very_many_subdirectories_get_what_they_should_have() {
        use crate::plan::options::{Preserve, Recursion, SyncOptions};
        let temp = tempfile::tempdir().unwrap();
        let name = |number: u32| format!("src/d{number:05}");
        let (source, destination) = (temp.path().join("src/"), temp.path().join("dst"));
        for number in 0..6000 {
            let path = temp.path().join(name(number));
            std::fs::create_dir_all(&path).unwrap();
            if number % 50 == 0 {
                std::fs::write(path.join("f"), "x").unwrap();
            }
            let dir = Dir::open(&path).unwrap();
            let change = crate::fs::MetadataChange {
                mode: Some(0o700 | (number % 64)),
                mtime: Some(Timestamp::new(1_500_000_000 + i64::from(number), 7)),
                ..Default::default()
            };
            assert!(crate::fs::apply(crate::fs::Target::Dir(&dir), Kind::Dir, &change).is_empty());
        }
        let options = SyncOptions {
            recursion: Recursion::Deep,
            preserve: Preserve { perms: true, times: true, ..Preserve::default() },
            ..SyncOptions::default()
        };
        let before = WOKEN.load(Ordering::Relaxed);
        for _ in 0..2 {
            let monitor = Arc::new(crate::monitor::Recorder::new());
            let stop = crate::sync::StopFlag::new();
            let session = crate::sync::session::Session::new(options.clone(), monitor.clone(), stop);
            let sources = [source.as_os_str().as_bytes().to_vec()];
            let watch = crate::sync::clock::Stopwatch::start();
            crate::sync::local::run(&session, &sources, destination.as_os_str().as_bytes(), &watch).unwrap();
            assert!(monitor.problems().is_empty());
            for number in 0..6000 {
                let told = |path: std::path::PathBuf| {
                    let metadata = std::fs::metadata(path).unwrap();
                    (metadata.mode(), metadata.mtime(), metadata.mtime_nsec())
                };
                let there = destination.join(&name(number)[4..]);
                assert_eq!(told(there), told(temp.path().join(name(number))));
            }
            // What the second run finds, it has to repair.
            std::fs::remove_dir(destination.join("d00003")).unwrap();
            std::fs::set_permissions(destination.join("d00001"), std::fs::Permissions::from_mode(0o500)).unwrap();
        }
        assert!(WOKEN.load(Ordering::Relaxed) > before + 100, "hardly any directory has waited");
    }

    #[test]
    fn changes_are_kept_bit_by_bit() {
        for bits in 0..1 << 11 {
            assert_eq!(bits_of(&changes_of(bits)), bits);
        }
    }
}
