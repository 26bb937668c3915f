//! The walk: directories listed in parallel, newest first, against the receiver's credit.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::links::{self, Link};
use super::sources::{Layer, Named, Sources};
use crate::fs::{self, Dir, NameList, Target};
use crate::limits;
use crate::model::{
    DirId, Entry, HardLink, Kind, ListedEntry, Metadata, Name, Operation, Piece, PieceId, Problem, ProblemKind, RelPath,
};
use crate::monitor::Counters;
use crate::plan::filter::{DirFilter, FilterError, MergeDir, Side};
use crate::plan::options::Recursion;
use crate::sync::SyncError;
use crate::sync::filters;
use crate::sync::held::Reach;
use crate::sync::receiver::IDLE_LOOK;
use crate::sync::session::Session;
use crate::wire::{ListingEnd, SenderFlow};

/// A piece with what the sender needs to read its files again.
#[derive(Debug)]
pub(in crate::sync) struct SentPiece {
    /// What the receiver gets.
    pub(in crate::sync) piece: Piece,
    layers: Vec<Arc<Layer>>,
    places: Vec<Place>,
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy)]
struct Place {
    layer: u16,
    followed: bool,
}

impl SentPiece {
    /// The directory that holds entry `index`.
    pub(in crate::sync) fn dir(&self, index: usize) -> io::Result<Arc<Dir>> {
        self.layers[usize::from(self.places[index].layer)].dir.get()
    }

    /// Whether entry `index` was reached through a symbolic link.
    pub(in crate::sync) fn followed(&self, index: usize) -> bool {
        self.places[index].followed
    }

    /// How the user would name entry `index`.
    pub(in crate::sync) fn shown(&self, index: usize) -> Vec<u8> {
        let mut shown = self.layers[usize::from(self.places[index].layer)].shown.clone();
        shown.extend_from_slice(self.piece.entries[index].entry.name.as_bytes());
        shown
    }
}

/// Takes the pieces of a walk.
pub(in crate::sync) trait PieceSink: Send + Sync {
    /// One piece, in the order of their numbers. Must not block on the receiver.
    fn piece(&self, piece: Arc<SentPiece>);
}

/// A directory that waits to be listed.
struct WalkDir {
    id: DirId,
    path: RelPath,
    layers: Vec<Arc<Layer>>,
    filter: DirFilter,
    above: Option<Arc<Above>>,
}

/// The directories above, by inode: a followed link to one of them is a loop.
struct Above {
    dev: (u32, u32),
    ino: u64,
    parent: Option<Arc<Above>>,
}

impl Above {
    fn holds(mut above: Option<&Arc<Above>>, metadata: &Metadata) -> bool {
        while let Some(level) = above {
            if level.dev == metadata.dev && level.ino == metadata.ino {
                return true;
            }
            above = level.parent.as_ref();
        }
        false
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<WalkDir>,
    active: usize,
    empty_sources: Vec<Vec<u8>>,
    /// Source arguments that are directories with something in them.
    full_sources: u64,
}

/// Inodes with several names: the group's number, and how many names were not met yet.
#[derive(Default)]
struct HardLinks {
    groups: HashMap<((u32, u32), u64), (u64, u32)>,
    next: u64,
}

/// The walk of one session.
pub(in crate::sync) struct Walk {
    session: Arc<Session>,
    sink: Mutex<Option<Arc<dyn PieceSink>>>,
    flow: Mutex<SenderFlow>,
    /// The receiver is at the other end of a link, and takes only so many announced directories.
    bounds_directories: bool,
    credit: Condvar,
    queue: Mutex<Queue>,
    arrived: Condvar,
    hard_links: Mutex<HardLinks>,
}

/// An entry that was looked at.
struct Seen {
    listed: ListedEntry,
    place: Place,
    child: Option<Child>,
}

struct Child {
    layers: Vec<Arc<Layer>>,
    above: Option<Arc<Above>>,
}

impl Walk {
    pub(in crate::sync) fn new(session: Arc<Session>, sink: Arc<dyn PieceSink>) -> Walk {
        Walk::with(session, sink, false)
    }

    /// For a receiver at the other end of a link.
    pub(in crate::sync) fn over_link(session: Arc<Session>, sink: Arc<dyn PieceSink>) -> Walk {
        Walk::with(session, sink, true)
    }

    fn with(session: Arc<Session>, sink: Arc<dyn PieceSink>, bounds_directories: bool) -> Walk {
        Walk {
            bounds_directories,
            session,
            sink: Mutex::new(Some(sink)),
            flow: Mutex::new(SenderFlow::new()),
            credit: Condvar::new(),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            hard_links: Mutex::default(),
        }
    }

    /// The book of the session.
    pub(in crate::sync) fn flow<T>(&self, step: impl FnOnce(&mut SenderFlow) -> T) -> T {
        let result = step(&mut self.flow.lock().unwrap_or_else(PoisonError::into_inner));
        self.credit.notify_all();
        result
    }

    /// Lets go of the sink: nothing follows.
    pub(in crate::sync) fn close_sink(&self) {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Wakes everyone who waits, because the run ends.
    pub(in crate::sync) fn wake(&self) {
        let _flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        self.credit.notify_all();
        let _queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.arrived.notify_all();
    }

    /// Walks everything on `threads` threads; returns what ends the listings.
    pub(in crate::sync) fn run(&self, sources: &Sources, threads: usize) -> ListingEnd {
        let root_dir = sources.layers.first().and_then(|layer| layer.dir.get().ok());
        let root_is_above = sources.layers.iter().all(|layer| !layer.whole);
        let options = &self.session.options;
        let place = filters::place(Side::Sender, &self.session, root_dir.as_deref(), root_is_above);
        let mut reader = |dir: MergeDir<'_>, name: &[u8]| self.read_merge(&sources.layers, dir, name);
        match DirFilter::root(&options.filters, &place, &mut reader) {
            Ok(filter) => {
                let root = WalkDir {
                    id: DirId::ROOT,
                    path: RelPath::root(),
                    layers: sources.layers.clone(),
                    filter,
                    above: None,
                };
                self.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting.push(root);
                std::thread::scope(|scope| {
                    for _ in 1..threads {
                        crate::sync::spawn(scope, &self.session, || self.work());
                    }
                    self.work();
                });
            }
            Err(error) => self.session.fail(SyncError::Filter { reason: error.to_string() }),
        }
        self.flow(SenderFlow::end);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut empty_sources = std::mem::take(&mut queue.empty_sources);
        if queue.full_sources > 0 {
            // One of several may well be empty.
            empty_sources.clear();
        }
        empty_sources.extend(sources.missing.iter().cloned());
        let source_missing = !sources.missing.is_empty();
        ListingEnd { source_problems: !self.session.source_is_whole(), empty_sources, source_missing }
    }

    fn work(&self) {
        while let Some(dir) = self.next_dir() {
            self.list(dir);
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.active -= 1;
            if queue.active == 0 && queue.waiting.is_empty() {
                self.arrived.notify_all();
            }
        }
    }

    fn next_dir(&self) -> Option<WalkDir> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.session.is_ending() {
                return None;
            }
            if let Some(dir) = queue.waiting.pop() {
                queue.active += 1;
                return Some(dir);
            }
            if queue.active == 0 {
                return None;
            }
            queue = match self.arrived.wait_timeout(queue, IDLE_LOOK) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Lists one directory, piece by piece.
    fn list(&self, walk: WalkDir) {
        let mut open = Vec::with_capacity(walk.layers.len());
        for layer in &walk.layers {
            match layer.dir.get() {
                Ok(dir) => open.push(Some(dir)),
                Err(error) => {
                    self.unreadable(&error, Operation::Open, layer.shown.clone());
                    open.push(None);
                }
            }
        }
        let mut reader = |dir: MergeDir<'_>, name: &[u8]| self.read_merge(&walk.layers, dir, name);
        let entered = match walk.path.is_root() && walk.layers.iter().all(|layer| !layer.whole) {
            // The root stands above what was named: its merge files are not the transfer's.
            true => Ok(walk.filter.clone()),
            false => walk.filter.enter(&walk.path, &mut reader),
        };
        let filter = match entered {
            Ok(filter) => filter,
            Err(error) => {
                self.session.problem(Problem::new(
                    ProblemKind::Source,
                    Operation::Filter,
                    walk.path.as_bytes(),
                    error.to_string(),
                ));
                // Without its rules the directory cannot be filtered: nothing of it is sent.
                open.iter_mut().for_each(|dir| *dir = None);
                walk.filter.clone()
            }
        };
        let names = self.names(&walk, &open);
        let merge_files = self.merge_contents(&walk, &filter);
        let mut draft = Draft::new(&walk, names.whole, merge_files);
        let mut children = Vec::new();
        for index in 0..names.len() {
            if self.session.is_ending() {
                break;
            }
            if names.get(index).is_none() {
                let reason = "it has a name that is longer than 255 bytes, which cannot be carried over";
                let problem = Problem::new(ProblemKind::Source, Operation::List, walk.path.as_bytes(), reason);
                self.session.problem(problem);
                continue;
            }
            if let Some(seen) = self.look(&walk, &open, &names, index, &filter) {
                if let Some(child) = seen.child {
                    children.push((walk.path.join(&seen.listed.entry.name), child));
                }
                draft.push(seen.listed, seen.place);
                if draft.is_full() {
                    let next = draft.next();
                    self.emit(std::mem::replace(&mut draft, next), &mut children, &filter);
                }
            }
        }
        draft.piece.last = true;
        self.emit(draft, &mut children, &filter);
        for layer in &walk.layers {
            layer.dir.close();
        }
    }

    /// Numbers a piece, hands it on, and queues the directories it announced.
    fn emit(&self, draft: Draft, children: &mut Vec<(RelPath, Child)>, filter: &DirFilter) {
        let Draft { mut piece, layers, places, .. } = draft;
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        while !flow.reserve(piece.entries.len()) {
            if self.session.is_ending() {
                return;
            }
            // An end by signal or error has no other way to get here.
            flow = match self.credit.wait_timeout(flow, IDLE_LOOK) {
                Ok((flow, _)) => flow,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        if self.bounds_directories && !flow.may_announce(&piece) {
            self.session.fail(SyncError::TooManyDirectories);
            return;
        }
        flow.open(&mut piece);
        let first_child = piece.first_child.0;
        let counters = self.session.counters();
        Counters::add(&counters.entries_listed, piece.entries.len() as u64);
        let bytes = piece.entries.iter().filter(|listed| listed.entry.metadata.kind == Kind::File);
        Counters::add(&counters.bytes_listed, bytes.map(|listed| listed.entry.metadata.size).sum());
        self.count(&piece);
        // Under the lock, so that pieces leave in the order of their numbers.
        if let Some(sink) = &*self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            sink.piece(Arc::new(SentPiece { piece, layers, places }));
        }
        drop(flow);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for (offset, (path, child)) in children.drain(..).enumerate().rev() {
            let id = DirId(first_child + offset as u64);
            queue.waiting.push(WalkDir { id, path, layers: child.layers, filter: filter.clone(), above: child.above });
        }
        self.arrived.notify_all();
    }

    fn count(&self, piece: &Piece) {
        self.session.count(|stats| {
            for listed in &piece.entries {
                let metadata = &listed.entry.metadata;
                stats.listed.add(metadata.kind);
                if matches!(metadata.kind, Kind::File | Kind::Symlink) {
                    stats.total_bytes += metadata.size;
                }
            }
        });
    }

    /// All names of the directory, over its layers.
    fn names(&self, walk: &WalkDir, open: &[Option<Arc<Dir>>]) -> Names {
        let mut whole = !walk.layers.is_empty();
        let mut lists = Vec::with_capacity(open.len());
        for (layer, dir) in walk.layers.iter().zip(open) {
            let mut list = None;
            if !layer.whole {
                whole = false;
            } else if let Some(dir) = dir {
                match dir.list() {
                    Ok(names) => {
                        if let Some(argument) = &layer.argument {
                            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                            match names.is_empty() {
                                true => queue.empty_sources.push(argument.clone()),
                                false => queue.full_sources += 1,
                            }
                        }
                        list = Some(names);
                    }
                    Err(error) => {
                        whole = false;
                        self.unreadable(&error, Operation::List, layer.shown.clone());
                    }
                }
            } else {
                whole = false;
            }
            lists.push(list);
        }
        if let [layer] = &walk.layers[..]
            && layer.whole
            && let Some(Some(list)) = lists.pop()
        {
            return Names { whole, kind: NamesKind::Single(list) };
        }
        let mut merged: std::collections::BTreeMap<Name, Vec<u16>> = std::collections::BTreeMap::new();
        for (index, (layer, list)) in walk.layers.iter().zip(&lists).enumerate() {
            if let Some(list) = list {
                for position in 0..list.len() {
                    if let Ok(name) = Name::new(list.get(position).0) {
                        merged.entry(name).or_default().push(index as u16);
                    }
                }
            } else if !layer.whole
                && let Some(named) = &layer.named
            {
                for name in named.get().children.keys() {
                    merged.entry(name.clone()).or_default().push(index as u16);
                }
            }
        }
        Names { whole, kind: NamesKind::Merged(merged.into_iter().collect()) }
    }

    /// Looks at one name: the first layer that has it counts, save that a directory wins over everything else, and
    /// directories of the same name are joined.
    fn look(
        &self,
        walk: &WalkDir,
        open: &[Option<Arc<Dir>>],
        names: &Names,
        index: usize,
        filter: &DirFilter,
    ) -> Option<Seen> {
        let (name, layers) = names.get(index)?;
        let path = walk.path.join(&name);
        let mut seen: Option<Seen> = None;
        for &layer_index in layers {
            let (Some(layer), Some(Some(dir))) =
                (walk.layers.get(usize::from(layer_index)), open.get(usize::from(layer_index)))
            else {
                continue;
            };
            let Some(found) = self.examine(walk, layer, layer_index, dir, &name, &path, filter) else { continue };
            match &mut seen {
                None => seen = Some(found),
                Some(first) => match (&mut first.child, found.child) {
                    (Some(child), Some(more)) => child.layers.extend(more.layers),
                    (None, Some(_)) if first.listed.entry.metadata.kind != Kind::Dir => {
                        // `found.child` was moved: look again, for the directory alone.
                        seen = self.examine(walk, layer, layer_index, dir, &name, &path, filter);
                    }
                    _ => {}
                },
            }
        }
        seen
    }

    #[allow(clippy::too_many_arguments, reason = "one name's whole context")]
    fn examine(
        &self,
        walk: &WalkDir,
        layer: &Arc<Layer>,
        layer_index: u16,
        dir: &Arc<Dir>,
        name: &Name,
        path: &RelPath,
        filter: &DirFilter,
    ) -> Option<Seen> {
        let options = &self.session.options;
        let picked = layer.named.as_ref().map(|named| named.get());
        let picked_child = picked.and_then(|named: &Named| named.children.get(name));
        let shown = || {
            let mut shown = layer.shown.clone();
            shown.extend_from_slice(name.as_bytes());
            shown
        };
        let mut metadata = match dir.stat(name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && layer.whole => {
                self.session.problem(Problem::from_io(ProblemKind::Vanished, Operation::Stat, shown(), &error));
                return None;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && options.ignore_missing_args => return None,
            Err(error) => {
                self.session.io_problem(ProblemKind::Source, Operation::Stat, shown(), &error);
                return None;
            }
        };
        let leads_further = picked_child.is_some_and(|child| !child.below.children.is_empty());
        let only_leads = leads_further && picked_child.is_some_and(|child| !child.terminal) && !layer.whole;
        let mut link_target = None;
        let mut followed = false;
        if metadata.kind == Kind::Symlink {
            match links::look(dir, name, path, leads_further, &options.links) {
                Ok(Link::Target(target)) => link_target = Some(target),
                Ok(Link::Followed(target)) => {
                    metadata = target;
                    followed = true;
                }
                Ok(Link::Ignored) => {}
                Err(error) => {
                    // A filter that hides the link hides its trouble too.
                    if !filter.verdict(path, false).is_excluded() {
                        let kind = ProblemKind::Source;
                        self.session.io_problem(kind, Operation::Follow, shown(), &error);
                    }
                    return None;
                }
            }
        }
        let is_dir = metadata.kind == Kind::Dir;
        if dir.hides(name, is_dir) {
            // Nothing of this name exists for the session, unless it was asked for by name.
            if picked_child.is_some() {
                self.session.io_problem(ProblemKind::Source, Operation::Open, shown(), &fs::hidden());
            }
            return None;
        }
        if !only_leads && filter.verdict(path, is_dir).is_excluded() {
            return None;
        }
        let mut child = None;
        if is_dir {
            let wanted = picked_child.is_some_and(|child| child.terminal) || layer.whole;
            if wanted && !leads_further && options.recursion == Recursion::Skip && options.files_from.is_none() {
                self.session.detail(|| format!("skipping directory {}", crate::model::display_bytes(&shown())));
                return None;
            }
            if options.one_file_system > 0 && metadata.dev != layer.dev && !only_leads {
                if options.one_file_system > 1 {
                    return None;
                }
            } else if followed && Above::holds(self.above(walk, dir).as_ref(), &metadata) {
                self.session.problem(Problem::new(
                    ProblemKind::Source,
                    Operation::Follow,
                    shown(),
                    "the link leads to a directory above it, a loop",
                ));
                return None;
            } else {
                child = self.child(walk, layer, dir, name, picked_child, followed, &metadata);
            }
        }
        let at = Target::At(dir, name);
        let entry = match self.entry(name, at, dir, metadata, link_target, followed) {
            Ok(entry) => entry,
            Err((operation, error)) => {
                self.session.io_problem(ProblemKind::Source, operation, shown(), &error);
                return None;
            }
        };
        let listed = ListedEntry { entry, descend: child.is_some(), implied: only_leads };
        Some(Seen { listed, place: Place { layer: layer_index, followed }, child })
    }

    /// The chain of directories above an entry of `dir`; kept only where links to directories are followed.
    fn above(&self, walk: &WalkDir, dir: &Arc<Dir>) -> Option<Arc<Above>> {
        let links = &self.session.options.links;
        if !(links.follow_all || links.follow_dirs || links.follow_unsafe) {
            return None;
        }
        let metadata = dir.metadata().ok()?;
        Some(Arc::new(Above { dev: metadata.dev, ino: metadata.ino, parent: walk.above.clone() }))
    }

    #[allow(clippy::too_many_arguments, reason = "one name's whole context")]
    fn child(
        &self,
        walk: &WalkDir,
        layer: &Arc<Layer>,
        dir: &Arc<Dir>,
        name: &Name,
        picked: Option<&super::sources::NamedChild>,
        followed: bool,
        metadata: &Metadata,
    ) -> Option<Child> {
        let recursion = self.session.options.recursion;
        let deep = recursion == Recursion::Deep;
        let terminal = picked.is_some_and(|child| child.terminal);
        let contents = picked.is_some_and(|child| child.contents) && recursion == Recursion::Shallow;
        let whole = deep && (layer.whole || terminal) || contents;
        let named = match (&layer.named, picked) {
            (Some(named), Some(child)) if !child.below.children.is_empty() => Some(Arc::new(named.child(name))),
            _ => None,
        };
        if !whole && named.is_none() {
            return None;
        }
        let reach = if followed { Reach::Anywhere } else { Reach::Strict };
        let mut shown = layer.shown.clone();
        shown.extend_from_slice(name.as_bytes());
        let argument = terminal.then(|| shown.clone());
        shown.push(b'/');
        let dev = if terminal { metadata.dev } else { layer.dev };
        let child = Layer { dir: layer.dir.child(name, reach), shown, whole, named, dev, argument };
        Some(Child { layers: vec![Arc::new(child)], above: self.above(walk, dir) })
    }

    fn entry(
        &self,
        name: &Name,
        at: Target<'_>,
        dir: &Arc<Dir>,
        metadata: Metadata,
        link_target: Option<Box<[u8]>>,
        followed: bool,
    ) -> Result<Entry, (Operation, io::Error)> {
        let preserve = &self.session.options.preserve;
        let mut acls = None;
        let mut xattrs = None;
        if preserve.acls || preserve.xattrs {
            let opened;
            let opened_dir;
            // A followed link's attributes are those of what it leads to.
            let target = match (followed, metadata.kind) {
                (true, Kind::File) => {
                    opened = dir.open_file_following(name).map_err(|error| (Operation::Open, error))?;
                    Target::File(&opened)
                }
                (true, Kind::Dir) => {
                    opened_dir = dir.open_child_following(name).map_err(|error| (Operation::Open, error))?;
                    Target::Dir(&opened_dir)
                }
                _ => at,
            };
            if preserve.acls && metadata.kind != Kind::Symlink {
                acls = Some(fs::read_acls(target, metadata.kind).map_err(|error| (Operation::ReadXattrs, error))?);
            }
            if preserve.xattrs {
                xattrs = Some(
                    fs::read_xattrs(target, metadata.kind, fs::am_root()).map_err(|e| (Operation::ReadXattrs, e))?,
                );
            }
        }
        let hard_link = (preserve.hard_links && metadata.kind != Kind::Dir && metadata.nlink > 1)
            .then(|| self.hard_link(&metadata));
        Ok(Entry { name: name.clone(), metadata, link_target, hard_link, acls, xattrs })
    }

    fn hard_link(&self, metadata: &Metadata) -> HardLink {
        let mut links = self.hard_links.lock().unwrap_or_else(PoisonError::into_inner);
        let inode = (metadata.dev, metadata.ino);
        if let Some((group, names)) = links.groups.get_mut(&inode) {
            let group = *group;
            *names -= 1;
            if *names == 0 {
                links.groups.remove(&inode);
            }
            return HardLink { group };
        }
        let group = links.next;
        links.next += 1;
        // Several sources may meet the same name twice; a few entries more are kept then, none is lost.
        links.groups.insert(inode, (group, metadata.nlink - 1));
        HardLink { group }
    }

    /// A directory's merge file, from the first layer that has it.
    fn read_merge(
        &self,
        layers: &[Arc<Layer>],
        dir: MergeDir<'_>,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, FilterError> {
        if let MergeDir::Above(path) = dir {
            return filters::read_above(&self.session.base, path, name);
        }
        for layer in layers {
            if let Ok(dir) = layer.dir.get()
                && let Some(content) = filters::read_in(&dir, name)?
            {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    /// What the receiver needs to protect by the same per-directory rules.
    fn merge_contents(&self, walk: &WalkDir, filter: &DirFilter) -> Vec<(Vec<u8>, Vec<u8>)> {
        if !self.session.options.deletion.enabled && self.session.verify.is_none() {
            return Vec::new();
        }
        let mut contents = Vec::new();
        for name in filter.merge_file_names() {
            // One that stays behind does not speak for the receiver; a comparison hides by it on both sides.
            let stays = self.session.verify.is_none()
                && Name::new(name).is_ok_and(|name| filter.verdict(&walk.path.join(&name), false).is_excluded());
            if stays {
                continue;
            }
            if let Ok(Some(content)) = self.read_merge(&walk.layers, MergeDir::Inside(&walk.path), name) {
                if content.len() > limits::FRAME_BYTES_MAX / 4 {
                    self.session.problem(Problem::new(
                        ProblemKind::Source,
                        Operation::Filter,
                        walk.path.as_bytes(),
                        "a filter file is too large",
                    ));
                } else {
                    contents.push((name.to_vec(), content));
                }
            }
        }
        contents
    }

    fn unreadable(&self, error: &io::Error, operation: Operation, shown: Vec<u8>) {
        if error.kind() == io::ErrorKind::NotFound {
            self.session.problem(Problem::from_io(ProblemKind::Vanished, operation, shown, error));
        } else {
            self.session.io_problem(ProblemKind::Source, operation, shown, error);
        }
    }
}

struct Names {
    whole: bool,
    kind: NamesKind,
}

enum NamesKind {
    Single(NameList),
    Merged(Vec<(Name, Vec<u16>)>),
}

impl Names {
    fn len(&self) -> usize {
        match &self.kind {
            NamesKind::Single(list) => list.len(),
            NamesKind::Merged(names) => names.len(),
        }
    }

    fn get(&self, index: usize) -> Option<(Name, &[u16])> {
        match &self.kind {
            NamesKind::Single(list) => Some((Name::new(list.get(index).0).ok()?, &[0])),
            NamesKind::Merged(names) => names.get(index).map(|(name, layers)| (name.clone(), &layers[..])),
        }
    }
}

/// A piece that is being filled.
struct Draft {
    piece: Piece,
    layers: Vec<Arc<Layer>>,
    places: Vec<Place>,
    bytes: usize,
}

impl Draft {
    fn new(walk: &WalkDir, whole: bool, merge_files: Vec<(Vec<u8>, Vec<u8>)>) -> Draft {
        let bytes = merge_files.iter().map(|(name, content)| name.len() + content.len()).sum();
        let piece = Piece {
            id: PieceId(0),
            dir: walk.id,
            first_child: DirId(0),
            after: None,
            last: false,
            whole,
            merge_files,
            entries: Vec::new(),
        };
        Draft { piece, layers: walk.layers.clone(), places: Vec::new(), bytes }
    }

    fn push(&mut self, listed: ListedEntry, place: Place) {
        let xattrs = listed.entry.xattrs.iter().flatten().map(|xattr| xattr.name.len() + xattr.value.len() + 8);
        let acls = listed.entry.acls.iter().flat_map(|acls| [&acls.access, &acls.default]).flatten();
        self.bytes += listed.entry.name.as_bytes().len()
            + listed.entry.link_target.as_ref().map_or(0, |target| target.len())
            + 80
            + xattrs.sum::<usize>()
            + acls.map(|acl| acl.0.len() * 8 + 8).sum::<usize>();
        self.piece.entries.push(listed);
        self.places.push(place);
    }

    /// By number, and so that one more entry with all attributes that fit still leaves the frame's bound alone.
    fn is_full(&self) -> bool {
        self.piece.entries.len() >= limits::LISTING_PIECE_ENTRIES_MAX || self.bytes > limits::FRAME_BYTES_MAX / 3
    }

    /// An empty draft that goes on after this one.
    fn next(&self) -> Draft {
        let after = self.piece.entries.last().map(|listed| listed.entry.name.clone());
        let piece = Piece {
            id: PieceId(0),
            dir: self.piece.dir,
            first_child: DirId(0),
            after,
            last: false,
            whole: self.piece.whole,
            merge_files: Vec::new(),
            entries: Vec::new(),
        };
        Draft { piece, layers: self.layers.clone(), places: Vec::new(), bytes: 0 }
    }
}
